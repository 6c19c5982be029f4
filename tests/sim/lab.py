"""A volume in a simulated world in which one stated thing fails, and a host that feels it.

The world of `testing.world` looks for what nobody thought of; here each failure of
docs/reference/failures.md is made on purpose, and its outcome, its reason and how long the host waits are
looked at.  The clock is virtual: a test must take the fixture `autojump_clock` as an argument.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Final

import attrs
import trio

from pyjiva.block import Flush, Read, Write
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeEnded, VolumeState
from pyjiva.controller.causes import cause_of
from pyjiva.controller.history import HistoryEvent
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.testing.machine import KEY, VOLUME_ID, Machine
from pyjiva.testing.memory_file import MemoryDisk
from pyjiva.testing.network import Network
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.units import KIB, MIB

__all__ = ["BLOCK_BYTES", "SIZE_BYTES", "Lab", "LabMachine", "ask", "open_lab"]

SIZE_BYTES: Final = 2 * MIB
BLOCK_BYTES: Final = 4 * KIB
BLOCKS: Final = 16  # under load, far apart, in the first half
EVERY_S: Final = 0.1  # between two requests of the host
LOOK_S: Final = 0.05
REPLICAS: Final = 3


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class LabMachine(Machine):
    """A machine whose disk can be made to hang: what waits for it goes on when `hangs` is set."""

    hangs: trio.Event | None = None

    async def _in_disk_thread(self, call: Callable[[], None]) -> None:
        if self.hangs is not None:
            await self.hangs.wait()
        await super()._in_disk_thread(call)

    def refuse(self, verb: str, failure: StorageFailure) -> None:
        """From now on its disk fails at every step that begins with `verb`."""

        def before_step(step: str) -> None:
            if step.startswith(verb):
                raise StorageError(failure, step)

        self.disk.before_step = before_step


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class Lab:
    """Three replicas, a controller, and a host that writes, reads and flushes without a pause."""

    nursery: trio.Nursery
    network: Network
    machines: dict[int, LabMachine]
    volume: Volume = attrs.field(init=False)
    """Of the controller that the host is connected to."""
    errors: list[StorageError] = attrs.field(factory=list, init=False)
    """What the host was told."""
    host_rests: bool = False
    """It asks for nothing more for now."""
    ended: dict[str, str] = attrs.field(factory=dict, init=False)
    """Controllers that were fenced, and why."""
    _before: list[HistoryEvent] = attrs.field(factory=list, init=False)
    _controllers: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _content: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _answered_at_s: float = attrs.field(default=0.0, init=False)
    _longest_s: float = attrs.field(default=0.0, init=False)

    # --- controllers

    @property
    def controller(self) -> str:
        """The name, on the network, of the newest one."""
        return f"controller-{len(self._controllers) - 1}"

    async def start_controller(self, *, new_volume: bool = False) -> Volume:
        """Start one more, and wait until it takes I/O; the host stays where it is."""
        name = f"controller-{len(self._controllers)}"
        options = ControllerOptions(
            volume_name="lab",
            volume_id=VOLUME_ID,
            size_bytes=SIZE_BYTES,
            block_size_bytes=512,
            replicas=tuple(ReplicaAddress(i, m.name, 0) for i, m in self.machines.items()),
            key=KEY,
            new_volume=new_volume,
        )

        def connect(address: ReplicaAddress) -> AbstractAsyncContextManager[Stream]:
            return self.network.connect(name, address.host)

        volume = Volume(options, EndOfBatch(), connect)
        scope = self._controllers[name] = trio.CancelScope()
        self.nursery.start_soon(self._controller_process, name, volume, scope)
        with trio.fail_after(60):
            await volume.ready.wait()
        return volume

    async def _controller_process(self, name: str, volume: Volume, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await volume.run()
            except VolumeEnded as error:
                self.ended[name] = str(error)
        self.network.break_connections(name)

    def kill_controller(self) -> None:
        """As `kill -9`, of the newest one."""
        self._controllers[self.controller].cancel()

    # --- the host

    async def run_host(self) -> None:
        """Write, read what was written, flush now and then; one at a time, for ever."""
        number = 0
        while True:
            await trio.sleep(EVERY_S)
            if self.host_rests:
                continue
            number += 1
            block = number % BLOCKS
            volume = self.volume
            began_at_s = self._answered_at_s = trio.current_time()
            if number % 10 == 0:
                error = await ask(volume, Flush)
            elif number % 2:
                error = await self._write(volume, block, number)
            else:
                error = await self._read(volume, block)
            if volume is not self.volume:
                continue
            self._longest_s = max(self._longest_s, trio.current_time() - began_at_s)
            if error is not None:
                self.errors.append(error)

    async def _write(self, volume: Volume, block: int, number: int) -> StorageError | None:
        data = number.to_bytes(8, "big") * (BLOCK_BYTES // 8)
        self._content.pop(block, None)  # old or new, until it is answered
        error = await ask(volume, lambda done: Write(_offset(block), BLOCK_BYTES, (data,), done))
        if error is None:
            self._content[block] = data
        return error

    async def _read(self, volume: Volume, block: int) -> StorageError | None:
        requests: list[Read] = []

        def make(done: Callable[[object], None]) -> Read:
            requests.append(Read(_offset(block), BLOCK_BYTES, done))
            return requests[0]

        error = await ask(volume, make)
        if error is None and block in self._content:
            assert b"".join(requests[0].data) == self._content[block], f"block {block}"
        return error

    def forget_unflushed(self) -> None:
        """All machines lost their power: what the host has not flushed may be gone."""
        self._content.clear()

    def longest_wait_s(self) -> float:
        """How long the host has waited for one answer at most, since this was asked last."""
        now = trio.current_time()
        longest_s, self._longest_s = max(self._longest_s, now - self._answered_at_s), 0.0
        return longest_s

    # --- what is seen

    def mode(self, replica: int) -> str:
        """As the status says."""
        return next(r.mode for r in self.volume.status().replicas if r.id == replica)

    def events(self) -> list[HistoryEvent]:
        """What has happened since the volume was healthy first."""
        return [e for e in self.volume.history.events if e not in self._before]

    def told(self, replica: int | None) -> list[str]:
        """The causes that the events name for a replica (None: the volume), in order."""
        events = [e for e in self.events() if e.replica == replica and ": " in e.text]
        return [cause_of(e.text.split(": ", 1)[1]).name for e in events if e.kind in ("replica", "volume")]

    def losses(self) -> list[int]:
        """Replicas that were in sync and then were not."""
        return [e.replica for e in self.events() if e.replica and e.text.startswith("in-sync → ")]

    async def wait(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        """Wait until it is so.  Raises trio.TooSlowError: it is not within `timeout_s`."""
        with trio.fail_after(timeout_s):
            while not condition():
                await trio.sleep(LOOK_S)

    async def wait_out(self, replica: int, timeout_s: float = 60) -> None:
        """Wait until the volume goes on without it."""
        await self.wait(lambda: self.mode(replica) == "out", timeout_s)

    async def heal(self) -> None:
        """Wait until all are in sync, and the host has done something; then all must hold the same."""
        await self.wait(lambda: self.volume.status().state is VolumeState.HEALTHY)
        assert await self._read(self.volume, 1) is None
        for block, data in self._content.items():
            for machine in self.machines.values():
                held = machine.disk.read("volume-head-000.img", _offset(block), BLOCK_BYTES)
                assert held == data, f"block {block} on replica {machine.id}"


async def ask(volume: Volume, make: Callable[[Callable[[object], None]], object]) -> StorageError | None:
    """Submit a request and wait for its answer."""
    answered = trio.Event()
    request = make(lambda _: answered.set())
    volume.submit(request)  # type: ignore[arg-type]  # each class's `done` takes that class
    volume.batch.end()
    await answered.wait()
    error: StorageError | None = getattr(request, "error", None)
    return error


def _offset(block: int) -> int:
    return block * (SIZE_BYTES // 2 // BLOCKS)


@asynccontextmanager
async def open_lab() -> AsyncIterator[Lab]:
    """A healthy volume under load; needs a clock that jumps."""
    random = Random(20160901)
    async with trio.open_nursery() as nursery:
        network = Network(random, nursery)
        machines = {
            i: LabMachine(i, MemoryDisk(Random(i)), random, SIZE_BYTES) for i in range(1, REPLICAS + 1)
        }
        for machine in machines.values():
            machine.start(network, nursery)
        lab = Lab(nursery, network, machines)
        lab.volume = await lab.start_controller(new_volume=True)
        await lab.wait(lambda: lab.volume.status().state is VolumeState.HEALTHY)
        async with trio.open_nursery() as host:
            host.start_soon(lab.run_host)
            await trio.sleep(2)
            lab.longest_wait_s()
            lab._before = list(lab.volume.history.events)
            yield lab
            host.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
