"""The life of one pod on a node that lives: what kubelet and the container runtime do for it.

    network → volumes → init containers in order → containers, each again and again → their ends

Waiting for what is missing (an object, an image, a folder) is not an error but a reason in the status, and is
tried again.  A pod ends when its object is to be deleted: SIGTERM, after the grace SIGKILL, then the object
goes.  When its node dies it is cancelled: all processes are killed and nobody is told.

Faster than life: the back-off between restarts, and how soon what is missing is tried again.
"""

import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs
import httpx
import trio

from tests.kube.api import PODS, Api, ApiError, Object, key_of
from tests.kube.cluster import API_SERVICE
from tests.kube.contents import NotReady, Sources, expand
from tests.kube.images import Image
from tests.kube.pod_network import PodNetwork
from tests.kube.pod_status import (
    ContainerState,
    now,
    pod_status,
    restarts,
    terminated,
    unsupported,
    waiting,
)
from tests.kube.probes import Prober
from tests.kube.processes import Contained, StartError, run_command
from tests.kube.sandbox import Mount, Sandbox
from tests.kube.security import identity_of
from tests.kube.volumes import Volumes

__all__ = ["Host", "Pod"]

#: Before the first, second, … restart of a container; the last holds for all further.
BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
AGAIN_S: Final = 0.3  # until something that is missing is looked for again
KILLED: Final = 128 + signal.SIGKILL
SAME_NETWORK: Final = Path("/proc/self/ns/net")  # of whoever starts the container: the cluster's
BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class Host(Protocol):
    """What a pod needs of its node."""

    @property
    def api(self) -> Api:
        """As whoever may do everything."""

    @property
    def address(self) -> str:
        """Its own."""

    @property
    def boot_id(self) -> Path:
        """A file that is seen as the kernel's."""

    @property
    def root(self) -> Path:
        """The folder that hostPath volumes are in."""

    def image(self, reference: str) -> Image | None:
        """None: it cannot be had."""

    def folder(self, uid: str) -> tuple[Path, Path]:
        """The pod's folder, and its folder in memory.  They need not be there."""

    def log(self, key: tuple[str, str], container: str) -> Path:
        """The file for what a container prints."""

    async def network(self) -> PodNetwork:
        """A network of its own."""

    async def leave(self, network: PodNetwork) -> None:
        """Take a pod's network away."""

    def note(self, pod: Object, what: str) -> None:
        """Something that whoever looks at a failed test wants to know."""


@attrs.define(eq=False)
class Pod:
    """One pod.  `run` is its life; `update` tells of changes of its object."""

    host: Host
    thing: Object
    inits: list[ContainerState] = attrs.field(factory=list)
    containers: list[ContainerState] = attrs.field(factory=list)
    processes: dict[str, Contained] = attrs.field(factory=dict)
    """By container, while it runs."""
    sandboxes: dict[str, Sandbox] = attrs.field(factory=dict)
    volumes: Volumes = attrs.field(init=False)
    address: str = ""
    _network: PodNetwork | None = None
    _since: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    _started_at: str = attrs.field(factory=now)
    _is_gone: bool = False
    _stale: list[tuple[str, str]] = attrs.field(factory=list)
    _to_refresh: trio.Event = attrs.field(factory=trio.Event)
    _to_report: trio.Event = attrs.field(factory=trio.Event)
    _ending: trio.Event = attrs.field(factory=trio.Event)
    _over: trio.Event = attrs.field(factory=trio.Event)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        folder, memory = self.host.folder(self.uid)
        self.volumes = Volumes(folder / "volumes", memory, self.host.root, self.spec)
        before = self.thing.get("status", {})
        self._started_at = before.get("startTime", self._started_at)
        known = [*before.get("initContainerStatuses", []), *before.get("containerStatuses", [])]
        statuses = {status["name"]: status for status in known}
        self.inits = [_resumed(spec, {}, self.policy) for spec in self.spec.get("initContainers", [])]
        self.containers = [
            _resumed(spec, statuses.get(spec["name"], {}), self.policy) for spec in self.spec["containers"]
        ]
        self.update(self.thing)

    @property
    def spec(self) -> Object:
        """As the API server has completed it."""
        spec: Object = self.thing["spec"]
        return spec

    @property
    def uid(self) -> str:
        """The same name may come again, this does not."""
        uid: str = self.thing["metadata"]["uid"]
        return uid

    @property
    def policy(self) -> str:
        """restartPolicy."""
        policy: str = self.spec.get("restartPolicy", "Always")
        return policy

    def update(self, thing: Object) -> None:
        """The object has changed."""
        before, self.thing = self.thing["metadata"], thing
        if any(before.get(field) != thing["metadata"].get(field) for field in ("labels", "annotations")):
            self.refresh("pods", "")
        if "deletionTimestamp" in thing["metadata"]:
            self._ending.set()

    async def run(self) -> None:
        """From the start, or after a reboot from what the node still has, until the object is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            nursery.start_soon(self._refresh)
            nursery.start_soon(self._live)
            await self._ending.wait()
            await self._end()
            nursery.cancel_scope.cancel()

    def vanish(self) -> None:
        """The object is gone without our doing: its processes go at once."""
        self._is_gone = True
        self._life.cancel()
        self._ending.set()

    def refresh(self, plural: str, name: str) -> None:
        """An object that volumes may show has changed."""
        self._stale.append((plural, name))
        self._to_refresh.set()

    async def execute(self, container: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in a container that runs; exit code and what it printed."""
        process = self.processes[container]
        return await run_command(self.sandboxes[container].execute(process.first, command))

    # --- life

    async def _live(self) -> None:
        try:
            with self._life:
                await self._set_up()
                for one in self.inits:
                    while not self._ending.is_set() and one.exit_code != 0:
                        await self._keep(one)
                        if one.exit_code != 0 and self.policy == "Never":
                            return
                async with trio.open_nursery() as nursery:
                    for one in self.containers:
                        nursery.start_soon(self._keep, one)
        finally:
            with trio.CancelScope(shield=True):
                if self._network is not None:
                    await self.host.leave(self._network)
                    self._network = None
            self._over.set()
            self._changed()

    async def _set_up(self) -> None:
        if problems := unsupported(self.thing):
            self.host.note(self.thing, f"not supported: {', '.join(problems)}")
            self._wait_all("PodRunnerDoesNotSupport", ", ".join(problems))
            await self._ending.wait()
            return
        self._wait_all("ContainerCreating")
        if self.spec.get("hostNetwork"):
            self.address = self.host.address
        else:
            self._network = await self.host.network()
            self.address = self._network.address
        self._changed()
        await self._try(lambda: self.volumes.prepare(self._sources()))
        if self.inits:
            self._wait_all("PodInitializing")

    def _wait_all(self, reason: str, message: str = "") -> None:
        for one in [*self.inits, *self.containers]:
            if one.exit_code is None:
                one.state = waiting(reason, message)
        self._changed()

    async def _keep(self, one: ContainerState) -> None:
        """Run a container, and again as the policy has it; an init container until it succeeds."""
        policy = "OnFailure" if one in self.inits and self.policy == "Always" else self.policy
        failures = 0
        while not self._ending.is_set():
            if one.exit_code is None:
                await self._run_once(one)
            if one.exit_code is None or not restarts(policy, one.exit_code):
                return
            delay = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]
            one.last = one.state
            one.state = waiting("CrashLoopBackOff", f"back-off {delay} s restarting failed container")
            self._changed()
            await self._pause(delay)
            failures += 1
            one.restart_count += 1

    async def _run_once(self, one: ContainerState) -> None:
        """From image to exit code, which is None if we are to end before it was started."""
        name = one.spec["name"]
        sandbox = await self._try_for(one, lambda: self._sandbox(one))
        if sandbox is None:
            return
        try:
            process = await Contained.start(sandbox.start(), self.host.log(key_of(self.thing), name))
        except StartError as error:
            one.state = terminated(128, None, str(error))
            one.state["terminated"]["reason"] = "StartError"
            self._changed()
            return
        started_at = now()
        self.sandboxes[name], self.processes[name] = sandbox, process
        one.state = {"running": {"startedAt": started_at}}
        one.started, one.ready = "startupProbe" not in one.spec, False
        if self._ending.is_set():
            process.send(signal.SIGTERM)
        self._changed()
        code = KILLED
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._probe, one, process)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            await process.kill()
            del self.processes[name]
            one.started = one.ready = False
            one.state = terminated(code, started_at)
            self._changed()

    async def _sandbox(self, one: ContainerState) -> Sandbox:
        """Raises NotReady: no image, or something that the container names is missing."""
        spec = one.spec
        image = self.host.image(spec["image"])
        if image is None:
            pulled_before = one.state.get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
            reason = "ImagePullBackOff" if pulled_before else "ErrImagePull"
            raise NotReady(reason, f'failed to pull image "{spec["image"]}"')
        given = {**image.variables(), "HOSTNAME": self._host_name(), **self._service_variables()}
        variables = await self._sources().variables(spec, given)
        words = [*(spec.get("command") or image.entrypoint), *spec.get("args", [])]
        identity = identity_of(self.spec, spec, image)
        if identity.privileged:
            self.host.note(self.thing, f"container {spec['name']} is privileged")
        folder, _ = self.host.folder(self.uid)
        scratch, hosts = folder / "roots" / spec["name"], folder / "hosts"
        scratch.mkdir(parents=True, exist_ok=True)
        hosts.write_text(f"127.0.0.1 localhost\n::1 localhost\n{self.address} {self._host_name()}\n")
        own = [Mount(hosts, "/etc/hosts", False), Mount(self.host.boot_id, BOOT_ID, True)]
        return Sandbox(
            command=tuple(expand(word, variables) for word in words),
            variables=variables,
            folder=spec.get("workingDir", "/"),
            identity=identity,
            mounts=(*own, *self.volumes.mounts(spec)),
            read_only=spec.get("securityContext", {}).get("readOnlyRootFilesystem", False),
            image=image,
            host_name=self._host_name(),
            network=self._network.path if self._network else SAME_NETWORK,
            scratch=scratch,
        )

    def _host_name(self) -> str:
        name: str = self.spec.get("hostname") or self.thing["metadata"]["name"]
        return name

    def _service_variables(self) -> dict[str, str]:
        return {"KUBERNETES_SERVICE_HOST": API_SERVICE, "KUBERNETES_SERVICE_PORT": "443"}

    def _sources(self) -> Sources:
        status = {"hostIP": self.host.address, "podIP": self.address, "podIPs": [{"ip": self.address}]}
        return Sources(self.host.api, {**self.thing, "status": status})

    # --- probes

    async def _probe(self, one: ContainerState, process: Contained) -> None:
        async def execute(command: Sequence[str]) -> int:
            sandbox = self.sandboxes[one.spec["name"]]
            return (await run_command(sandbox.execute(process.first, command)))[0]

        def prober(kind: str) -> Prober:
            return Prober(one.spec[kind], one.spec, self.address, execute)

        if "startupProbe" in one.spec:
            await prober("startupProbe").wait_before()
            if not await self._starts(prober("startupProbe")):
                await self._terminate(one, process, "startupProbe")
                return
            one.started = True
            self._changed()
        async with trio.open_nursery() as nursery:
            if "livenessProbe" in one.spec:
                nursery.start_soon(self._keep_alive, one, process, prober("livenessProbe"))
            if "readinessProbe" in one.spec:
                nursery.start_soon(self._keep_ready, one, prober("readinessProbe"))
            else:
                self._set_ready(one, True)

    async def _starts(self, prober: Prober) -> bool:
        """Whether the startup probe succeeds before it has failed too often."""
        for _ in range(prober.probe.get("failureThreshold", 3)):
            if await prober.succeeds():
                return True
            await prober.wait_between()
        return False

    async def _keep_alive(self, one: ContainerState, process: Contained, prober: Prober) -> None:
        await prober.wait_before()
        await prober.until(success=False)
        await self._terminate(one, process, "livenessProbe")

    async def _terminate(self, one: ContainerState, process: Contained, kind: str) -> None:
        self.host.note(self.thing, f"container {one.spec['name']} is ended: its {kind} has failed")
        grace = one.spec[kind].get(
            "terminationGracePeriodSeconds", self.spec.get("terminationGracePeriodSeconds", 30)
        )
        process.send(signal.SIGTERM)
        await trio.sleep(grace)  # cancelled when the container has ended
        process.send(signal.SIGKILL)

    async def _keep_ready(self, one: ContainerState, prober: Prober) -> None:
        await prober.wait_before()
        while True:
            await prober.until(success=not one.ready)
            self._set_ready(one, not one.ready)
            await prober.wait_between()

    def _set_ready(self, one: ContainerState, ready: bool) -> None:
        one.ready = ready
        self._changed()

    # --- end

    async def _end(self) -> None:
        grace = self.thing["metadata"].get("deletionGracePeriodSeconds", 30)
        for process in list(self.processes.values()):
            process.send(signal.SIGTERM)
        if not self.processes:
            self._life.cancel()
        with trio.move_on_after(grace):
            await self._over.wait()
        self._life.cancel()
        await self._over.wait()
        if not self._is_gone:
            await self._send_status()
            at_once = {"preconditions": {"uid": self.uid}, "gracePeriodSeconds": 0}
            await self._try(
                lambda: self._unless_gone(self.host.api.delete(PODS, key_of(self.thing), at_once))
            )
        for folder in self.host.folder(self.uid):
            shutil.rmtree(folder, ignore_errors=True)

    # --- status

    def _changed(self) -> None:
        self._to_report.set()

    async def _report(self) -> None:
        while True:
            await self._to_report.wait()
            self._to_report = trio.Event()
            await self._send_status()

    async def _send_status(self) -> None:
        status = pod_status(
            self.thing, self.inits, self.containers, (self.host.address, self.address), self._since
        )
        change = {"metadata": {"uid": self.uid}, "status": {**status, "startTime": self._started_at}}

        key = key_of(self.thing)
        await self._try(
            lambda: self._unless_gone(self.host.api.patch(PODS, key, change, part="status", strategic=True))
        )

    async def _unless_gone(self, request: Awaitable[object]) -> None:
        try:
            await request
        except ApiError as error:
            if error.status not in (404, 409):  # it is gone, or another has its name
                raise

    async def _refresh(self) -> None:
        """Show in volumes what has changed; what is missing then stays as it was, as in life."""
        while True:
            await self._to_refresh.wait()
            self._to_refresh = trio.Event()
            while self._stale:
                plural, name = self._stale.pop(0)
                try:
                    await self.volumes.refresh(self._sources(), plural, name)
                except (ApiError, NotReady, httpx.TransportError) as error:
                    self.host.note(self.thing, f"a volume stays as it was: {error}")

    # --- patience

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless we are to end."""
        with trio.move_on_after(seconds):
            await self._ending.wait()

    async def _try(self, what: Callable[[], Awaitable[None]]) -> None:
        """Do something until it works, noting why it does not."""
        while True:
            try:
                return await what()
            except (ApiError, NotReady, httpx.TransportError) as error:
                self.host.note(self.thing, f"{type(error).__name__}: {error}")
                await trio.sleep(AGAIN_S)

    async def _try_for(self, one: ContainerState, what: Callable[[], Awaitable[Sandbox]]) -> Sandbox | None:
        """The same with the reason in the container's state; None: we are to end."""
        while not self._ending.is_set():
            try:
                return await what()
            except NotReady as error:
                one.state = waiting(error.reason, str(error))
                self._changed()
            except (ApiError, httpx.TransportError) as error:
                self.host.note(self.thing, f"{type(error).__name__}: {error}")
            await self._pause(AGAIN_S)
        return None


def _resumed(spec: Object, status: Object, policy: str) -> ContainerState:
    """A container after the node's reboot: what ran does not run any more, and is started again if it may be.

    status: the last that was reported; empty for a pod that has never been here.
    """
    state, count = status.get("state", {}), status.get("restartCount", 0)
    one = ContainerState(spec, waiting("ContainerCreating"), status.get("lastState", {}), count)
    if "running" in state:
        state = terminated(KILLED, state["running"].get("startedAt"))
    if "terminated" in state:
        if restarts(policy, state["terminated"]["exitCode"]):
            one.last, one.restart_count = state, count + 1
        else:
            one.state = state
    return one
