"""How long many claims take that are made at once, and how many requests each costs the API server.

    python -m tests.kube.many_claims --claims 200 --markdown docs/explanation/maya.md

A real API server, its controllers and scheduler; provisioner and reconciler in this process, as the two
programs run them.  No volume runs: pods are said to run as soon as they have a node, and volumes are healthy
as soon as their controller's pod is said to.  So what is measured is what Maya and Kubernetes take, not how
long processes need to start.
"""

import argparse
import functools
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from pyjiva.maya.kube import Cluster as KubeCluster
from pyjiva.maya.kube import Conflict, Informer, KubeError, NotFound, Object, Recorder, Resource, load_access
from pyjiva.maya.kube import open_cluster as open_kube
from pyjiva.maya.kube.resource import CLAIMS, JIVA_VOLUMES, LEASES, NAMESPACES, NODES, PODS, PV, SERVICES
from pyjiva.maya.manifest.crd import custom_resource_definitions
from pyjiva.maya.provisioner.decide import Provisioned
from pyjiva.maya.provisioner.provisioner_io import Provisioner
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.report import MemberReport, VolumeReport
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.volume_api import Silent, SnapshotReport, VolumeAddress
from tests.kube.api import PODS as API_PODS
from tests.kube.api import Api
from tests.kube.cluster import Cluster, open_cluster

__all__ = ["Figures", "Kubelets", "measure", "measure_in"]

PROVISIONER: Final = "openebs.io/provisioner-iscsi"
NAMESPACE: Final = "openebs"
PODS_ON_NODE: Final = 110
PODS_OF_VOLUME: Final = 4
CLASS: Final = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "many"},
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}


@attrs.frozen
class Figures:
    """Of one run."""

    claims: int
    bound_s: tuple[float, ...]
    """From the first claim's making to each one's being bound."""
    gone_s: float
    """From the deletion of all claims to when nothing was left."""
    provisioner: Mapping[str, int]
    """Requests, by verb and kind."""
    reconciler: Mapping[str, int]
    until_bound: Mapping[str, int]
    """Requests of both until all were bound."""

    def markdown(self) -> str:
        """A table and a sentence."""
        first, *_, last = ordered = sorted(self.bound_s)
        median, whole = (
            statistics.median(ordered),
            sum(self.provisioner.values()) + sum(self.reconciler.values()),
        )
        lines = [
            f"| {self.claims} claims at once | |",
            "|---|---|",
            f"| first, median and last bound after | {first:.1f}, {median:.1f}, {last:.1f} s |",
            f"| all deleted, nothing left after | {self.gone_s:.1f} s |",
            f"| requests for each until it is bound | {sum(self.until_bound.values()) / self.claims:.1f} |",
            f"| requests for each in its whole life | {whole / self.claims:.1f} |",
        ]
        most = Counter(self.provisioner) + Counter(self.reconciler)
        named = ", ".join(f"{what} {number / self.claims:.1f}" for what, number in most.most_common(8))
        return "\n".join([*lines, "", f"Most of a life's requests: {named}."])


class Counting:
    """A Cluster that counts what is asked; watches are not counted, as they stay open."""

    def __init__(self, cluster: KubeCluster) -> None:
        self._cluster = cluster
        self.counts: Counter[str] = Counter()

    def __getattr__(self, verb: str) -> Any:
        ask = getattr(self._cluster, verb)
        if verb == "watch":
            return ask

        @functools.wraps(ask)
        async def counted(resource: Resource, *rest: Any, **more: Any) -> Any:
            part = f"{resource.kind}/{more['subresource']}" if more.get("subresource") else resource.kind
            self.counts[f"{verb} {part}"] += 1
            return await ask(resource, *rest, **more)

        return counted


@attrs.define
class HealthyVolumes:
    """A VolumeApi: every volume whose controller's pod is said to run has all copies."""

    operator: VolumeOperator = attrs.field(init=False)

    async def report(self, at: VolumeAddress) -> VolumeReport:
        """As its JivaVolume wants it."""
        await trio.lowlevel.checkpoint()
        for service in self.operator.caches[SERVICES.kind].items():
            if service["spec"].get("clusterIP") == at.host:
                name = service["metadata"]["labels"]["openebs.io/persistent-volume"]
                volume = self.operator.volumes.get(NAMESPACE, name)
                if volume is not None:
                    return self._of(volume)
        raise Silent("there is no such volume")

    def _of(self, volume: Object) -> VolumeReport:
        places = (volume.get("status") or {}).get("replicas") or ()
        members = tuple(MemberReport(place["id"], place["address"], "in-sync", "") for place in places)
        return VolumeReport("healthy", "", 1 << 30, 1, members)

    async def snapshots(self, at: VolumeAddress) -> tuple[SnapshotReport, ...]:
        """None."""
        await trio.lowlevel.checkpoint()
        return ()

    def __getattr__(self, verb: str) -> Any:
        raise AssertionError(f"{verb}: nobody asks for that here")


@attrs.define
class Kubelets:
    """Nodes whose pods are said to run, and jobs' pods to have ended: those of volumes, in one namespace or
    ("") in all.
    """

    cluster: KubeCluster
    api: Api
    nodes: list[str]
    namespace: str = NAMESPACE
    pods: Informer = attrs.field(init=False)
    _next: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        for name in self.nodes:
            await self._register(name)
        self.pods = Informer(self.cluster, PODS, self.namespace, {"openebs.io/cas-type": "jiva"})
        send, receive = trio.open_memory_channel[tuple[str, str]](100_000)
        self.pods.subscribe(lambda *key: send.send_nowait(key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pods.run)
            nursery.start_soon(self._beat)
            for _ in range(8):
                nursery.start_soon(self._play, receive.clone())

    async def _register(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name}
        await self.cluster.create(NODES, {"metadata": {"name": name, "labels": labels}})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        room = {"cpu": "64", "memory": "256Gi", "pods": str(PODS_ON_NODE)}
        status = {"status": {"conditions": [ready], "capacity": room, "allocatable": room}}
        await self.cluster.merge(NODES, "", name, status, subresource="status")

    async def _beat(self) -> None:
        while True:
            for name in self.nodes:
                lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}}
                spec = {
                    "holderIdentity": name,
                    "leaseDurationSeconds": 40,
                    "renewTime": f"{_now()[:-1]}.000000Z",
                }
                await self.cluster.apply(
                    LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease, "spec": spec}
                )
            await trio.sleep(2)

    async def _play(self, keys: "trio.MemoryReceiveChannel[tuple[str, str]]") -> None:
        async for namespace, name in keys:
            pod = self.pods.get(namespace, name)
            if pod is None or not pod["spec"].get("nodeName"):
                continue
            try:
                await self._play_one(pod)
            except (NotFound, Conflict):
                continue

    async def _play_one(self, pod: Object) -> None:
        metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
        if "deletionTimestamp" in metadata:
            await self.api.delete(
                API_PODS, (metadata["namespace"], metadata["name"]), {"gracePeriodSeconds": 0}
            )
            return
        job = any(owner["kind"] == "Job" for owner in metadata.get("ownerReferences", ()))
        if phase == ("Succeeded" if job else "Running"):
            return
        self._next += 1
        state = {"terminated": {"exitCode": 0}} if job else {"running": {"startedAt": _now()}}
        statuses = [
            {
                "name": each["name"],
                "ready": not job,
                "restartCount": 0,
                "image": "x",
                "imageID": "x",
                "state": state,
            }
            for each in pod["spec"]["containers"]
        ]
        ready = [{"type": each, "status": str(not job)} for each in ("Ready", "ContainersReady")]
        status = {
            "phase": "Succeeded" if job else "Running",
            "conditions": [*ready, {"type": "PodScheduled", "status": "True"}],
            "podIP": f"10.245.{self._next // 250}.{self._next % 250 + 1}",
            "containerStatuses": statuses,
        }
        change = {"status": status}
        await self.cluster.merge(PODS, metadata["namespace"], metadata["name"], change, subresource="status")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def measure_in(cluster: KubeCluster, api: Api, claims: int, within_s: float) -> Figures:
    """With nothing of Maya there yet but its definitions and the StorageClass."""
    nodes = [f"m{number}" for number in range(max(4, -(-claims * PODS_OF_VOLUME * 5 // (4 * PODS_ON_NODE))))]
    provisions, reconciles = Counting(cluster), Counting(cluster)
    volumes = HealthyVolumes()
    settings = Settings(namespace=NAMESPACE, image="pyjiva")
    operator: Any = VolumeOperator(reconciles, volumes, settings, Recorder(reconciles, "reconciler"))
    volumes.operator = operator
    us = Provisioned(PROVISIONER, NAMESPACE, "here")
    provisioner = Provisioner(provisions, us, Recorder(provisions, "provisioner"))
    watched = Informer(cluster, CLAIMS, "many")
    bound: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Kubelets(cluster, api, nodes).run)
        await nursery.start(operator.run)
        await nursery.start(provisioner.run)
        began = trio.current_time()

        def changed(_: str, name: str) -> None:
            claim = watched.get("many", name)
            if claim is not None and (claim.get("status") or {}).get("phase") == "Bound":
                bound.setdefault(name, trio.current_time() - began)

        watched.subscribe(changed)
        nursery.start_soon(watched.run)
        names = [f"claim-{number}" for number in range(claims)]
        await _each(names, functools.partial(_make_claim, cluster))
        with trio.fail_after(within_s):
            while len(bound) < claims:
                await trio.sleep(0.1)
        until_bound = dict(provisions.counts + reconciles.counts)
        await trio.sleep(5)  # until the last replicas are said to be in sync
        deleted = trio.current_time()
        await _each(names, lambda name: cluster.delete(CLAIMS, "many", name))
        with trio.fail_after(within_s):
            while await _left(cluster):
                await trio.sleep(0.5)
        gone_s = trio.current_time() - deleted
        nursery.cancel_scope.cancel()
    for name in nodes:
        await cluster.delete(NODES, "", name)
    return Figures(
        claims, tuple(bound.values()), gone_s, dict(provisions.counts), dict(reconciles.counts), until_bound
    )


async def _left(cluster: KubeCluster) -> int:
    """How much there is of volumes."""
    counts = [len((await cluster.list(kind)).items) for kind in (JIVA_VOLUMES, PV)]
    return sum(counts) + len((await cluster.list(PODS, NAMESPACE)).items)


async def _each(names: list[str], do: Callable[[str], Awaitable[Any]]) -> None:
    limit = trio.CapacityLimiter(16)

    async def one(name: str) -> None:
        async with limit:
            await do(name)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)


async def _make_claim(cluster: KubeCluster, name: str) -> None:
    spec = {
        "storageClassName": "many",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    await cluster.create(CLAIMS, {"metadata": {"name": name, "namespace": "many"}, "spec": spec})


def measure(cluster: Cluster, claims: int, within_s: float = 600.0) -> Figures:
    """On a cluster without nodes."""
    cluster.apply(*custom_resource_definitions(), CLASS)
    for definition in custom_resource_definitions():
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{definition['metadata']['name']}")

    async def work() -> Figures:
        access = load_access(str(cluster.kubeconfig))
        async with open_kube(access) as kube, Api(cluster.access) as api:
            for name in ("many", NAMESPACE):
                if await kube.get(NAMESPACES, "", name) is None:
                    await kube.create(NAMESPACES, {"metadata": {"name": name}})
            try:
                return await measure_in(kube, api, claims, within_s)
            finally:
                for name in ("many", NAMESPACE):
                    try:
                        await kube.delete(NAMESPACES, "", name)
                    except KubeError as error:
                        print(f"namespace {name} is left: {error}")

    return cluster.in_namespace(work)


def main() -> None:
    """Measure, print, and write the table into a page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--claims", type=int, default=200)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as top, open_cluster(Path(top)) as cluster:
        text = measure(cluster, given.claims).markdown()
    print(text)
    if given.markdown:
        page = given.markdown.read_text()
        made = re.sub(
            r"(?s)<!-- many claims -->.*<!-- end -->", f"<!-- many claims -->\n\n{text}\n\n<!-- end -->", page
        )
        given.markdown.write_text(made)


if __name__ == "__main__":
    main()
