"""What makes objects of an API server in memory live: pods run and end, claims are bound, nodes die.

    controllers = FakeControllers(cluster.store)
    controllers.add_node("n1")
    ...
    controllers.settle()                # everything that follows from what is there now
    nursery.start_soon(controllers.run) # or: always, and when its time has come

Deployments own their pods directly: there are no ReplicaSets.  As with real ones, a pod that is being
deleted is replaced at once, also while it cannot end because its node is dead; only a new template under
`Recreate` waits for the old pods to be gone.  Not done: DaemonSets, StatefulSets, restarts, and probes, in
whose place `is_ready` says.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.resource import DEPLOYMENTS, JOBS, NODES, PODS
from pyjiva.testing.kube_claims import ClaimController, claims_of
from pyjiva.testing.kube_scheduling import toleration_of, why_not
from pyjiva.testing.kube_store import Store
from pyjiva.testing.kube_values import suffix, timestamp

__all__ = ["FakeControllers"]

HOSTNAME: Final = "kubernetes.io/hostname"
HASH: Final = "pod-template-hash"
ROUNDS_MAX: Final = 100  # more of them: two controllers undo each other's work
DEFAULT_TOLERATION_S: Final = 300.0  # what the plugin DefaultTolerationSeconds gives
_UNREACHABLE: Final = "node.kubernetes.io/unreachable"


def _always_ready(_: Object) -> bool:
    return True


def _succeeds(_: Object) -> bool | None:
    return True


@attrs.define(eq=False)
class FakeControllers:
    """Scheduler, kubelets and the controllers of pods, jobs, nodes and claims."""

    store: Store
    is_ready: Callable[[Object], bool] = _always_ready
    """Whether a running pod is ready."""
    job_result: Callable[[Object], bool | None] = _succeeds
    """How a job's running pod has ended; None: it still runs."""
    start_s: float = 0.0
    """From where a pod has its node until it runs."""
    delay_s: float = 0.0
    """How long `run` waits for more to happen before it acts: acting once for much of it is quicker."""
    node_grace_s: float = 40.0
    """From where a node dies until it is said to be."""
    claims: ClaimController = attrs.field(init=False)
    _dead: dict[str, float] = attrs.field(factory=dict, init=False)
    """Nodes whose kubelet is silent → since when."""
    _placed_at: dict[str, float] = attrs.field(factory=dict, init=False)
    """Uids of pods."""
    _tainted_at: dict[str, float] = attrs.field(factory=dict, init=False)
    _finished_at: dict[str, float] = attrs.field(factory=dict, init=False)
    """Uids of jobs."""
    _addresses: int = attrs.field(default=0, init=False)
    _pods: int = attrs.field(default=0, init=False)
    _next_s: float = attrs.field(default=math.inf, init=False)
    """When something is due that nothing else announces."""

    def __attrs_post_init__(self) -> None:
        self.claims = ClaimController(self.store)

    # --- what a test does

    def add_node(self, name: str, labels: dict[str, str] | None = None) -> None:
        """A node that is well."""
        metadata = {"name": name, "labels": {HOSTNAME: name, **(labels or {})}}
        self.store.create(NODES, {"metadata": metadata, "spec": {}})
        self._set_node(name, "True", "KubeletReady")

    def kill_node(self, name: str) -> None:
        """Its kubelet and its pods are silent from now on; the API hears of it after `node_grace_s`."""
        self._dead[name] = self.store.clock()
        self.store.parked.unpark_all()  # for `run`: there is a new time to wait for

    def revive_node(self, name: str) -> None:
        """It is back: pods that were deleted meanwhile end, others go on."""
        del self._dead[name]
        self._tainted_at.pop(name, None)
        self.store.merge(NODES, "", name, {"spec": {"taints": None}})
        self._set_node(name, "True", "KubeletReady")

    def remove_node(self, name: str) -> None:
        """It will never be back, and its Node is deleted: so are its pods."""
        self.store.delete(NODES, "", name)
        self._dead.pop(name, None)
        self._tainted_at.pop(name, None)

    def settle(self) -> None:
        """Act until nothing more follows from what is there and from the time it is."""
        for _ in range(ROUNDS_MAX):
            before, self._next_s = self.store.version, math.inf
            self._step()
            if self.store.version == before:
                return
        raise AssertionError("the controllers do not come to rest")

    async def run(self) -> None:
        """Settle whenever something changes or falls due, until cancelled."""
        while True:
            self.settle()
            with trio.move_on_at(self._next_s):
                await self.store.parked.park()
            await trio.sleep(self.delay_s)

    # --- the controllers

    def _step(self) -> None:
        for node in self.store.select(NODES):
            self._node(node["metadata"]["name"])
        for deployment in self.store.select(DEPLOYMENTS):
            self._deployment(deployment)
        for job in self.store.select(JOBS):
            self._job(job)
        for pod in self.store.select(PODS):
            self._pod(pod)
        self.claims.step()
        if self.store.collects_garbage:
            self.store.collect()

    def _is_due(self, at_s: float) -> bool:
        if at_s <= self.store.clock():
            return True
        self._next_s = min(self._next_s, at_s)
        return False

    def _now(self) -> str:
        return timestamp(self.store.now())

    def _node(self, name: str) -> None:
        if name not in self._dead or name in self._tainted_at:
            return
        if self._is_due(self._dead[name] + self.node_grace_s):
            self._tainted_at[name] = self.store.clock()
            taints = [{"key": _UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
            self.store.merge(NODES, "", name, {"spec": {"taints": taints}})
            self._set_node(name, "Unknown", "NodeStatusUnknown")

    def _set_node(self, name: str, ready: str, reason: str) -> None:
        condition = {"type": "Ready", "status": ready, "reason": reason, "lastTransitionTime": self._now()}
        self.store.merge(NODES, "", name, {"status": {"conditions": [condition]}}, subresource="status")

    def _pod(self, pod: Object) -> None:
        metadata, node_name = pod["metadata"], pod["spec"].get("nodeName")
        if not node_name:
            if "deletionTimestamp" not in metadata:
                self._place(pod)
            return
        if self.store.get(NODES, "", node_name) is None:
            self.store.delete(PODS, metadata["namespace"], metadata["name"])
            if self.store.get(PODS, metadata["namespace"], metadata["name"]):
                self.store.finish_pod(metadata["namespace"], metadata["name"])
        elif node_name in self._dead:
            self._pod_of_dead_node(pod, node_name)
        elif "deletionTimestamp" in metadata:
            if metadata.get("deletionGracePeriodSeconds"):
                self.store.finish_pod(metadata["namespace"], metadata["name"])
        else:
            self._run_pod(pod)

    def _place(self, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        nodes = self.store.select(NODES)
        by_name = {node["metadata"]["name"]: node for node in nodes}
        others = [other for other in self.store.select(PODS) if other["spec"].get("nodeName") in by_name]
        placed = [(other, by_name[other["spec"]["nodeName"]]) for other in others]
        reasons = {node["metadata"]["name"]: why_not(pod, node, placed) for node in nodes}
        fit = [node for node, reason in reasons.items() if not reason]
        load = [other["spec"]["nodeName"] for other in others]
        if not fit:
            self._unschedulable(pod, reasons)
            return
        chosen = min(fit, key=lambda node: (load.count(node), node))
        for claim in claims_of(pod):
            self.claims.select_node(namespace, claim, chosen)
        unbound = [c for c in claims_of(pod) if not self.claims.is_bound(namespace, c)]
        if unbound:
            self._unschedulable(pod, {}, f"pod has unbound claims: {', '.join(unbound)}")
            return
        self._placed_at[pod["metadata"]["uid"]] = self.store.clock()
        self.store.merge(PODS, namespace, name, {"spec": {"nodeName": chosen}})
        self._set_pod(pod, "Pending", PodScheduled="True")

    def _unschedulable(self, pod: Object, reasons: dict[str, str], message: str = "") -> None:
        counted = sorted({f"{list(reasons.values()).count(why)} node(s) {why}" for why in reasons.values()})
        message = message or f"0/{len(reasons)} nodes are available: {', '.join(counted)}."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        where = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.store.merge(PODS, *where, {"status": {"conditions": [condition]}}, subresource="status")

    def _pod_of_dead_node(self, pod: Object, node: str) -> None:
        if node not in self._tainted_at or "deletionTimestamp" in pod["metadata"]:
            return
        self._set_pod(pod, pod["status"]["phase"], Ready="False", PodScheduled="True")
        toleration = toleration_of(pod, {"key": _UNREACHABLE, "effect": "NoExecute"})
        seconds = (
            DEFAULT_TOLERATION_S if toleration is None else toleration.get("tolerationSeconds", math.inf)
        )
        if self._is_due(self._tainted_at[node] + seconds):
            self.store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _run_pod(self, pod: Object) -> None:
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            return
        placed_at_s = self._placed_at.setdefault(pod["metadata"]["uid"], self.store.clock())
        if not self._is_due(placed_at_s + self.start_s):
            return
        if any(owner["kind"] == JOBS.kind for owner in pod["metadata"].get("ownerReferences", [])):
            result = self.job_result(pod)
            phase = {None: "Running", True: "Succeeded", False: "Failed"}[result]
            self._set_pod(pod, phase, Ready="True" if result is None else "False", PodScheduled="True")
            return
        self._set_pod(pod, "Running", Ready="True" if self.is_ready(pod) else "False", PodScheduled="True")

    def _set_pod(self, pod: Object, phase: str, **conditions: str) -> None:
        ready = conditions.get("Ready") == "True"
        status: Object = {
            "phase": phase,
            "conditions": [{"type": type_, "status": value} for type_, value in conditions.items()],
        }
        if phase != "Pending":
            if "podIP" not in pod["status"]:
                self._addresses += 1
                status["podIP"] = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
                status["startTime"] = self._now()
            states = {"Succeeded": {"terminated": {"exitCode": 0}}, "Failed": {"terminated": {"exitCode": 1}}}
            status["containerStatuses"] = [
                {
                    "name": c["name"],
                    "ready": ready,
                    "restartCount": 0,
                    "state": states.get(phase, {"running": {}}),
                }
                for c in pod["spec"].get("containers", [])
            ]
        where = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.store.merge(PODS, *where, {"status": status}, subresource="status")

    def _pods_of(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [
            pod
            for pod in self.store.select(PODS, owner["metadata"]["namespace"])
            if any(reference["uid"] == uid for reference in pod["metadata"].get("ownerReferences", []))
        ]

    def _deployment(self, deployment: Object) -> None:
        if "deletionTimestamp" in deployment["metadata"]:
            return
        spec, hash_ = deployment["spec"], _hash(deployment["spec"]["template"])
        pods = self._pods_of(deployment)
        active = [pod for pod in pods if _is_active(pod)]
        new = [pod for pod in active if pod["metadata"]["labels"].get(HASH) == hash_]
        old = [pod for pod in active if pod not in new]
        recreates = (spec.get("strategy") or {}).get("type") == "Recreate"
        if old and (recreates or sum(map(_pod_is_ready, new)) >= spec["replicas"]):
            for pod in old:
                self.store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        for pod in new[spec["replicas"] :]:
            self.store.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        waits = recreates and any(pod["metadata"]["labels"].get(HASH) != hash_ for pod in pods)
        for _ in range(0 if waits else spec["replicas"] - len(new)):
            self._make_pod(deployment, f"{deployment['metadata']['name']}-{hash_}", {HASH: hash_})
        ready = sum(map(_pod_is_ready, active))
        status: Object = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(active),
            "updatedReplicas": len(new),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, spec["replicas"] - ready),
        }
        status["conditions"] = [{"type": "Available", "status": str(ready >= spec["replicas"])}]
        self._set_status(DEPLOYMENTS, deployment, status)

    def _job(self, job: Object) -> None:
        if any(c["status"] == "True" for c in job.get("status", {}).get("conditions", [])):
            seconds = job["spec"].get("ttlSecondsAfterFinished")
            if seconds is not None and self._is_due(self._finished_at[job["metadata"]["uid"]] + seconds):
                self.store.delete(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])
            return
        if "deletionTimestamp" in job["metadata"]:
            return
        pods = self._pods_of(job)
        phases = [pod["status"]["phase"] for pod in pods]
        failed, succeeded = phases.count("Failed"), phases.count("Succeeded")
        active = [pod for pod in pods if _is_active(pod)]
        status: Object = {"active": len(active), "failed": failed, "succeeded": succeeded}
        ended = "Complete" if succeeded else "Failed" if failed > job["spec"]["backoffLimit"] else ""
        if ended:
            status["conditions"] = [{"type": ended, "status": "True"}]
            self._finished_at[job["metadata"]["uid"]] = self.store.clock()
        elif not active:
            name = job["metadata"]["name"]
            self._make_pod(job, name, {"job-name": name, "batch.kubernetes.io/job-name": name})
        self._set_status(JOBS, job, status)

    def _set_status(self, resource: Any, owner: Object, status: Object) -> None:
        where = (owner["metadata"]["namespace"], owner["metadata"]["name"])
        self.store.merge(resource, *where, {"status": status}, subresource="status")

    def _make_pod(self, owner: Object, base: str, labels: dict[str, str]) -> None:
        template, metadata = owner["spec"]["template"], owner["metadata"]
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
        reference |= {"name": metadata["name"], "uid": metadata["uid"]}
        self._pods += 1
        of_template = template.get("metadata") or {}
        self.store.create(
            PODS,
            {
                "metadata": {
                    **of_template,
                    "name": f"{base[:240]}-{suffix(self._pods)}",
                    "namespace": metadata["namespace"],
                    "labels": {**(of_template.get("labels") or {}), **labels},
                    "ownerReferences": [reference],
                },
                "spec": template["spec"],
            },
        )


def _hash(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _is_active(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in (
        "Succeeded",
        "Failed",
    )


def _pod_is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
