"""Everything that a volume's reconciliation looks at, and reading it from Kubernetes' objects.  Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.labels import CONTROLLER, REPLICA_ID
from pyjiva.maya.volume.members import Pod, seconds_of
from pyjiva.maya.volume.placement import Node
from pyjiva.maya.volume.report import VolumeReport
from pyjiva.maya.volume.witness_objects import CONTAINER, witness_id_in

__all__ = ["SELECTED_NODE", "Observed", "Source", "cluster_ip_of", "is_of_a_daemon", "job_state", "pod_of"]

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
"""Annotation of a JivaVolume: where the pod that waits for the claim is to run."""
EXIT_FENCED: Final = 3  # of pyjiva-controller: docs/reference/cli.md


@attrs.frozen
class Source:
    """The volume that a clone is filled from."""

    host: str
    """Address of its controller's Service; "": there is none."""
    snapshot_ready: bool


@attrs.frozen
class Observed:
    """One look at one volume and what is around it."""

    volume: JivaVolume
    now_s: float
    """POSIX time."""
    objects: Mapping[tuple[str, str], Mapping[str, Any]]
    """The volume's own, by kind and name."""
    pods: Sequence[Pod] = ()
    nodes: Sequence[Node] = ()
    load: Mapping[str, int] = attrs.field(factory=dict)
    """Replicas of all volumes by node."""
    of_its_group: tuple[str, ...] = ()
    """Nodes with replicas of other volumes of its group (policy replica_anti_affinity_group)."""
    report: VolumeReport | None = None
    """What the volume says; None: it does not answer."""
    silence: str = ""
    """Why it does not answer, for people."""
    source: Source | None = None
    clones_being_filled: tuple[str, ...] = ()
    """Volumes that still read a snapshot of this one."""

    def object(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """One of the volume's own."""
        return self.objects.get((kind, name))

    def pods_of(self, replica_id: int | None) -> list[Pod]:
        """Those of one replica; None: of the controller."""
        return [pod for pod in self.pods if pod.replica_id == replica_id]

    def node(self, name: str) -> Node | None:
        """The node, whether it answers or not; None: it is not of the cluster any more."""
        return next((node for node in self.nodes if node.name == name), None)


def cluster_ip_of(service: Mapping[str, Any] | None) -> str:
    """The address of a Service; "": there is none yet."""
    address = (service or {}).get("spec", {}).get("clusterIP", "")
    return "" if address == "None" else str(address)


def job_state(job: Mapping[str, Any]) -> str:
    """Complete, Failed, or "" while it is under way."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return ""


def is_of_a_daemon(pod: Mapping[str, Any]) -> bool:
    """Whether it is the controller's or a replica's."""
    labels = pod["metadata"].get("labels") or {}
    return REPLICA_ID in labels or CONTROLLER[0] in labels


def pod_of(value: Mapping[str, Any]) -> Pod:
    """From the object."""
    metadata, status = value["metadata"], value.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    containers = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    number = (metadata.get("labels") or {}).get(REPLICA_ID)
    main = status.get("containerStatuses") or ()
    return Pod(
        name=metadata["name"],
        replica_id=int(number) if number else None,
        node=(value.get("spec") or {}).get("nodeName", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        running=any("running" in (each.get("state") or {}) for each in main),
        unschedulable_since_s=(
            seconds_of(scheduled.get("lastTransitionTime") or metadata["creationTimestamp"])
            if unschedulable
            else None
        ),
        fenced=any(_exit_code(each) == EXIT_FENCED for each in main),
        deleting="deletionTimestamp" in metadata,
        witness_id=_witness_of(value),
        message=next(_troubles(scheduled if unschedulable else {}, containers), ""),
    )


def _witness_of(pod: Mapping[str, Any]) -> int | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    runs = any(each["name"] == CONTAINER and "running" in (each.get("state") or {}) for each in statuses)
    return witness_id_in((pod.get("spec") or {}).get("containers") or ()) if runs else None


def _exit_code(container: Mapping[str, Any]) -> int | None:
    for when in ("state", "lastState"):
        ended = (container.get(when) or {}).get("terminated")
        if ended is not None:
            return int(ended.get("exitCode", 0))
    return None


def _troubles(scheduled: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if scheduled:
        yield f"its pod finds no room: {scheduled.get('message', '')}"
    for each in containers:
        waiting = (each.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            yield f"{each.get('name', '')}: {waiting.get('reason', '')} {waiting.get('message', '')}".strip()
