"""Nodes that are none, and real processes on them: what kubelet, container runtime and kube-proxy do.

    with open_pod_runner(cluster, "a", "b", images={**IMAGES, "pyjiva": pyjiva_image(venv)}) as runner:
        cluster.apply(deployment)                       # its containers now run as processes of this machine
        runner.logs(namespace, pod, container)
        runner.execute(namespace, pod, ["id", "-u"])    # kubectl exec
        runner.kill_node("a")                           # the controllers notice, and evict
        runner.revive_node("a")
        runner.reboot_node("a")                         # too quick for them to notice
        runner.node_path("a", "/var/openebs/x")         # what its hostPath volumes hold; outlives it
        runner.set_available("a", "pyjiva", False)      # the image cannot be pulled there
        runner.notes                                    # what pods waited for, which were privileged

What is left out is refused: such a pod stays Pending, and its containers wait with the reason
PodRunnerDoesNotSupport, which names the fields.  How a container is shut in: `sandbox.py`; its network:
`pod_network.py`; services: `services.py`; volumes: `volumes.py`; a pod's life and status: `pod.py`,
`pod_status.py`.  There is no DNS, and no server for `kubectl logs` and `kubectl exec`.

All runs in one thread of this process, which has entered the cluster's network namespace and has mounts of
its own; whatever it starts dies with it.  Nodes are numbered: node N has 10.244.0.(100+N), its pods
10.244.N.x.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.kube.api import CONFIG_MAPS, LEASES, NODES, PODS, SECRETS, Api, Mirror, Object, key_of
from tests.kube.cluster import Cluster
from tests.kube.images import IMAGES, Image
from tests.kube.namespaces import ThreadOf, enter_network, own_mounts
from tests.kube.node import LEASES_NAMESPACE, Node, NodeSpec, Site
from tests.kube.services import ServiceProxy

__all__ = ["NodeSpec", "PodRunner", "open_pod_runner"]

NODES_MAX: Final = 99


@attrs.define(eq=False)
class PodRunner:
    """All nodes of a cluster, for tests: every call may be made from any thread, and waits."""

    cluster: Cluster
    images: Mapping[str, Image]
    top: Path
    notes: list[str] = attrs.field(factory=list)
    _nodes: dict[str, Node] = attrs.field(factory=dict)
    _thread: ThreadOf[None] = attrs.field(init=False)
    _site: Site = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _started: trio.Event = attrs.field(factory=trio.Event)

    # --- nodes

    def add_node(self, spec: NodeSpec) -> None:
        """A new node; Ready when this returns, though the scheduler may not have seen it yet."""
        self._thread.call(self._add_node, spec)

    def kill_node(self, name: str) -> None:
        """All its processes are killed and its heartbeat stops; what it has on disk stays."""
        self._thread.call(self._nodes[name].die)

    def revive_node(self, name: str) -> None:
        """Its heartbeat goes on, and pods that are still its own are started again."""
        self._thread.call(self._revive, self._nodes[name])

    def reboot_node(self, name: str) -> None:
        """Kill and revive it, with another boot id."""
        self.kill_node(name)
        self.revive_node(name)

    def node_path(self, name: str, path: str = "/") -> Path:
        """Where a path of the node, as hostPath volumes name it, is on this machine."""
        return self._nodes[name].root / path.lstrip("/")

    def set_available(self, name: str, image: str, available: bool) -> None:
        """Whether an image, by its name without registry and tag, can be had on a node."""
        known = self._nodes[name].unavailable
        self._thread.call(known.discard if available else known.add, image)

    # --- containers

    def logs(self, namespace: str, pod: str, container: str = "") -> str:
        """What a container has printed, over all its restarts; by default of the pod's first."""
        file = self._site.log(namespace, pod, container or self._first(namespace, pod))
        return file.read_text(errors="replace") if file.exists() else ""

    def execute(
        self, namespace: str, pod: str, command: Sequence[str], container: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container that runs, as the same user; both outputs are in `stdout`."""
        name = container or self._first(namespace, pod)
        code, printed = self._thread.call(self._execute, (namespace, pod), name, list(command))
        return subprocess.CompletedProcess(list(command), code, printed)

    def process(self, namespace: str, pod: str, container: str = "") -> int:
        """The process id, outside, of a container's process 1, for `os.kill`."""
        name = container or self._first(namespace, pod)
        found = self._thread.call(lambda: self._find((namespace, pod)).processes[name].first)
        return int(found)

    def _first(self, namespace: str, pod: str) -> str:
        found = self.cluster.get("pod", pod, namespace)
        assert found is not None, f"there is no pod {namespace}/{pod}"
        name: str = found["spec"]["containers"][0]["name"]
        return name

    def _find(self, key: tuple[str, str]) -> Any:
        for node in self._nodes.values():
            for pod in node.pods.values():
                if key_of(pod.thing) == key:
                    return pod
        raise KeyError(f"no node that lives runs the pod {'/'.join(key)}")

    async def _execute(self, key: tuple[str, str], name: str, command: list[str]) -> tuple[int, str]:
        done: tuple[int, str] = await self._find(key).execute(name, command)
        return done

    # --- the thread

    def _enter(self) -> None:
        enter_network(self.cluster.network)
        own_mounts()
        for command in (
            ["mount", "-t", "tmpfs", "memory", str(self.top / "memory")],
            ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],  # between pods
        ):
            subprocess.run(command, check=True, capture_output=True)

    async def _serve(self) -> None:
        async with Api(self.cluster.access) as api, trio.open_nursery() as self._nursery:
            services = ServiceProxy()
            pods = Mirror(PODS, self._pod_changed)
            self._site = Site(api, self.top, self.images, services, pods, self.notes)
            await self._nursery.start(pods.run, api)
            for kind in (CONFIG_MAPS, SECRETS):
                await self._nursery.start(Mirror(kind, self._refresher(kind.plural)).run, api)
            self._nursery.start_soon(services.run, api)
            self._started.set()
            await trio.sleep_forever()

    def _pod_changed(self, pod: Object, gone: bool) -> None:
        for node in self._nodes.values():
            node.see(pod, gone)

    def _refresher(self, plural: str) -> Any:
        def changed(thing: Object, gone: bool) -> None:
            for node in self._nodes.values():
                node.refresh(plural, thing)

        return changed

    async def _add_node(self, spec: NodeSpec) -> None:
        await self._started.wait()
        number = len(self._nodes) + 1
        assert number <= NODES_MAX, "too many nodes"
        node = self._nodes[spec.name] = Node(spec, number, self._site, self.top / "memory" / spec.name)
        await self._revive(node)

    async def _revive(self, node: Node) -> None:
        assert node.life is None, f"node {node.name} is alive"
        await self._nursery.start(node.run)

    async def _clear(self) -> None:
        """Leave the cluster as it was: without our nodes and what was on them."""
        for node in self._nodes.values():
            await node.die()
        at_once = {"gracePeriodSeconds": 0}
        for key, pod in list(self._site.pods.objects.items()):
            if pod["spec"].get("nodeName") in self._nodes:
                await self._site.api.delete(PODS, key, at_once)
        for name in self._nodes:
            await self._site.api.delete(NODES, ("", name))
            await self._site.api.delete(LEASES, (LEASES_NAMESPACE, name))


@contextmanager
def open_pod_runner(
    cluster: Cluster, *nodes: str | NodeSpec, images: Mapping[str, Image] = IMAGES
) -> Iterator[PodRunner]:
    """Nodes for a cluster, one runner at a time; at the end they, their pods and their files are gone.

    Logs of containers stay in the cluster's folder.
    """
    number = len(list(cluster.top.glob("pods*")))
    top = cluster.top / f"pods{number}"
    for folder in (top / "logs", top / "nodes", top / "memory"):
        folder.mkdir(parents=True)
    runner = PodRunner(cluster, images, top)
    runner._thread = ThreadOf("pod-runner", runner._enter, runner._serve)
    try:
        for node in nodes:
            runner.add_node(NodeSpec(node) if isinstance(node, str) else node)
        yield runner
        runner._thread.call(runner._clear)
    finally:
        runner._thread.end()
        shutil.rmtree(top / "nodes")
