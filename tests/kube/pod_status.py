"""A pod's status from what its containers do, as kubelet reports it, and which pods we can run.  Pure.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from tests.kube.api import Object

__all__ = ["ContainerState", "now", "phase", "pod_status", "restarts", "terminated", "unsupported", "waiting"]

# What we carry out, or what means nothing here: limits of resources, the scheduler's and the API server's
# part, and security modules.  What is not named is refused, so that no test believes in what we left out.
POD: Final = frozenset(
    {"containers", "initContainers", "volumes", "restartPolicy", "terminationGracePeriodSeconds", "hostname"}
    | {"serviceAccountName", "serviceAccount", "automountServiceAccountToken", "securityContext", "nodeName"}
    | {"hostNetwork", "enableServiceLinks", "dnsPolicy", "imagePullSecrets", "subdomain"}
    | {"nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "schedulerName", "priority"}
    | {"priorityClassName", "preemptionPolicy"}
)
CONTAINER: Final = frozenset(
    {"name", "image", "imagePullPolicy", "command", "args", "workingDir", "env", "envFrom", "ports"}
    | {"volumeMounts", "securityContext", "startupProbe", "livenessProbe", "readinessProbe", "resources"}
    | {"terminationMessagePath", "terminationMessagePolicy"}
)
POD_SECURITY: Final = frozenset(
    {"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "supplementalGroups", "seccompProfile"}
    | {"fsGroupChangePolicy"}
)
SECURITY: Final = frozenset(
    {"runAsUser", "runAsGroup", "runAsNonRoot", "privileged", "readOnlyRootFilesystem", "capabilities"}
    | {"allowPrivilegeEscalation", "seccompProfile"}
)
VOLUMES: Final = frozenset({"hostPath", "emptyDir", "configMap", "secret", "downwardAPI", "projected"})
HOST_PATHS: Final = frozenset({"", "Directory", "DirectoryOrCreate", "File"})
MOUNT: Final = frozenset({"name", "mountPath", "readOnly", "subPath", "recursiveReadOnly"})
PROBE_KINDS: Final = frozenset({"httpGet", "tcpSocket", "exec"})
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")


@attrs.define(eq=False)
class ContainerState:
    """What is known of one container; `state` and `last` are as the API has them."""

    spec: Object
    state: Object
    last: Object = attrs.field(factory=dict)
    restart_count: int = 0
    started: bool = False
    ready: bool = False

    @property
    def exit_code(self) -> int | None:
        """Of a container that has ended."""
        code: int | None = self.state.get("terminated", {}).get("exitCode")
        return code

    def status(self) -> Object:
        """The entry in containerStatuses."""
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "state": self.state,
            "lastState": self.last,
            "restartCount": self.restart_count,
            "started": self.started,
            "ready": self.ready,
        }


def now() -> str:
    """As the API writes a moment."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting(reason: str, message: str = "") -> Object:
    """The state of a container that does not run yet, or not again."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(exit_code: int, started_at: str | None, message: str = "") -> Object:
    """The state of a container that has ended."""
    ended: Object = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}
    ended |= {"startedAt": started_at or now(), "finishedAt": now()}
    return {"terminated": ended | ({"message": message} if message else {})}


def restarts(policy: str, exit_code: int) -> bool:
    """Whether a container that ended so is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def phase(policy: str, inits: Sequence[ContainerState], containers: Sequence[ContainerState]) -> str:
    """Pending, Running, Succeeded or Failed."""
    if any(one.exit_code not in (None, 0) for one in inits) and policy == "Never":
        return "Failed"
    if any(one.exit_code != 0 for one in inits):
        return "Pending"
    codes = [one.exit_code for one in containers]
    if all(code is not None and not restarts(policy, code) for code in codes):
        return "Failed" if any(codes) else "Succeeded"
    has_run = [one for one in containers if "running" in one.state or one.exit_code is not None or one.last]
    return "Running" if has_run else "Pending"


def pod_status(
    pod: Object,
    inits: Sequence[ContainerState],
    containers: Sequence[ContainerState],
    addresses: tuple[str, str],
    since: dict[str, tuple[str, str]],
) -> Object:
    """The pod's status.

    addresses: the node's and the pod's, which is empty while it has none.
    since: condition → (status, moment of its last change), brought up to date.
    """
    reached = phase(pod["spec"].get("restartPolicy", "Always"), inits, containers)
    over = reached in ("Succeeded", "Failed")
    ready = not over and all(one.ready for one in containers)
    unready = [one.spec["name"] for one in containers if not one.ready]
    why: Object = {}
    if not ready:
        why = {"reason": "PodCompleted" if over else "ContainersNotReady"}
        why["message"] = f"containers with unready status: [{' '.join(unready)}]"
    initialized = all(one.exit_code == 0 for one in inits)
    conditions = [
        _condition("PodReadyToStartContainers", bool(addresses[1]) and not over, {}, since),
        _condition("Initialized", initialized, {} if initialized else why, since),
        _condition("ContainersReady", ready, why, since),
        _condition("Ready", ready, why, since),
    ]
    host, own = addresses
    status: Object = {
        "phase": reached,
        "conditions": conditions,
        "hostIP": host,
        "hostIPs": [{"$patch": "replace"}, {"ip": host}],  # else a strategic merge would add to the list
        "podIP": own,
        "podIPs": [{"$patch": "replace"}, *([{"ip": own}] if own else [])],
        "containerStatuses": [one.status() for one in containers],
        "initContainerStatuses": [one.status() for one in inits],
        "observedGeneration": pod["metadata"].get("generation", 0),
    }
    return status


def _condition(kind: str, holds: bool, why: Object, since: dict[str, tuple[str, str]]) -> Object:
    value = str(holds)
    if since.get(kind, ("", ""))[0] != value:
        since[kind] = (value, now())
    # A reason that is no more has to be taken away, as a merge keeps what is not named.
    reason = {"reason": why.get("reason"), "message": why.get("message")}
    return {"type": kind, "status": value, "lastTransitionTime": since[kind][1], **reason}


def unsupported(pod: Object) -> list[str]:
    """What the pod asks for and we would not do."""
    spec = pod["spec"]
    found = [
        *_others("spec", spec, POD),
        *_others("securityContext", spec.get("securityContext"), POD_SECURITY),
    ]
    for volume in spec.get("volumes", []):
        found += _others(f"volume {volume['name']}", {key: 1 for key in volume if key != "name"}, VOLUMES)
        if volume.get("hostPath", {}).get("type", "") not in HOST_PATHS:
            found.append(f"volume {volume['name']}: hostPath.type {volume['hostPath']['type']}")
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        name = f"container {container['name']}"
        found += _others(name, container, CONTAINER)
        found += _others(f"{name} securityContext", container.get("securityContext"), SECURITY)
        for mount in container.get("volumeMounts", []):
            found += _others(f"{name} mount {mount['mountPath']}", mount, MOUNT)
        for kind in PROBES:
            if kind in container and not PROBE_KINDS & set(container[kind]):
                found.append(f"{name}: {kind} is none of {', '.join(sorted(PROBE_KINDS))}")
    return found


def _others(where: str, given: dict[str, Any] | None, known: Iterable[str]) -> list[str]:
    return [f"{where}: {key}" for key in sorted(set(given or {}) - set(known))]
