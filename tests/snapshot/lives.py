"""Lives of one replica's device, with its threads: requests, snapshots and merges all at once, and a kill or
a power cut in the middle.  The next life finds what it must.

`python -m tests.snapshot.lives SECONDS [NAME]` goes on for so long, and ends when something is wrong.

Threads make every run another one, so NAME draws the same requests again, not the same order.  What is wrong
is said with what the place may have held.

*What a sector may hold* is a list: what it held when that was last known, and what was written since, each
with the moment of its answer.  A read gives the last of them.  After a kill it is the last one that was
answered, or one that was under way; after a power cut also what was there before, but for what was made
stable, by a flush that began after the answer or by the write itself (FUA).
"""

import math
import sys
import threading
import time
from functools import partial
from random import Random
from typing import Any, Final

import attrs
import pytest
import trio

from pyjiva.block import Flush, Read, Unmap, Write, WriteZeroes
from pyjiva.extent import Extent
from pyjiva.snapshot import ChainDevice, Merger, ReplicaState, Store, device_io, layer_index, merge_sys
from pyjiva.testing import MemoryDisk, PowerCut, no_fault
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB, MIB

__all__ = ["Lives", "Wrong", "fine_steps", "live"]

SECTOR: Final = 512
BLOCK: Final = 4 * KIB
SIZE_BYTES: Final = 40 * MIB + SECTOR  # three chunks of the tables, and a short block
WINDOWS: Final = (  # all that is written to, so that requests meet: the ends of chunks among them
    Extent(0, 16 * BLOCK),
    Extent(16 * MIB - 8 * BLOCK, 16 * BLOCK),
    Extent(32 * MIB - 4 * BLOCK, 16 * BLOCK),
    Extent(SIZE_BYTES - 8 * BLOCK - SECTOR, 8 * BLOCK + SECTOR),
)
CLIENTS: Final = 8
SNAPSHOTS_MAX: Final = 5
VERBS: Final = {"write": 50, "atomic": 6, "zeroes": 6, "unmap": 6, "read": 25, "flush": 4, "fua": 3}
DELAYED_SHARE: Final = 0.15
DELAY_S_MAX: Final = 0.5e-3


class Wrong(Exception):
    """Something was not what it must be."""


@attrs.define(eq=False)
class Written:
    """What a write has left in its sectors."""

    content: bytes
    """Of which the sector is full: one byte."""
    answered_at: float
    """In writes that were answered; infinite: under way."""


@attrs.define(eq=False)
class Model:
    """What every sector of the windows may hold, oldest first."""

    sectors: dict[int, list[Written]] = attrs.field(factory=dict)
    answers: int = 0

    def __attrs_post_init__(self) -> None:
        for window in WINDOWS:
            for sector in range(window.offset_bytes, window.end_bytes, SECTOR):
                self.sectors[sector] = [Written(b"\0", 0)]

    def begin(self, extent: Extent, content: bytes) -> Written:
        """A write is under way."""
        written = Written(content, math.inf)
        for sector in _sectors(extent):
            self.sectors[sector].append(written)
        return written

    def answered(self, extent: Extent, written: Written, *, is_stable: bool) -> None:
        """It was; no other write to `extent` is under way."""
        self.answers += 1
        written.answered_at = self.answers
        if is_stable:
            for sector in _sectors(extent):
                del self.sectors[sector][:-1]

    def flushed(self, answers: int) -> None:
        """A flush was answered that began when there had been so many `answers`."""
        for held in self.sectors.values():
            _forget_before(held, answers)

    def content(self, extent: Extent) -> bytes:
        """What a read must give, while no write to it is under way."""
        return b"".join(self.sectors[sector][-1].content * SECTOR for sector in _sectors(extent))

    def found(self, extent: Extent, data: bytes, *, power: bool, what: str) -> None:
        """The next life has found `data` there, and that is what it holds from now on.  Raises Wrong."""
        for sector in _sectors(extent):
            held = self.sectors[sector]
            if not power:
                _forget_before(held, self.answers)
            start = sector - extent.offset_bytes
            found = [each for each in held if each.content * SECTOR == data[start : start + SECTOR]]
            if not found:
                raise Wrong(f"{what}: at {sector} there is {data[start : start + 1]!r}..., not one of {held}")
            held[:] = [Written(found[-1].content, 0)]


def _sectors(extent: Extent) -> range:
    return range(extent.offset_bytes, extent.end_bytes, SECTOR)


def _forget_before(held: list[Written], answers: int) -> None:
    last = max((n for n, each in enumerate(held) if each.answered_at <= answers), default=0)
    del held[:last]


@attrs.define(eq=False)
class Lives:
    """One directory, and what is known of it."""

    name: str
    random: Random = attrs.field(init=False)
    disk: MemoryDisk = attrs.field(init=False)
    model: Model = attrs.field(factory=Model)
    snapshots: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    """What each held in each window, by the window's place."""
    under_way: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    """One that is being made, and may be there."""
    removed: set[str] = attrs.field(factory=set)
    """One that is being deleted, and may be gone."""
    made: int = 0
    """Snapshots, ever."""
    boots: int = 0
    power: bool = False
    """Whether the last life ended by a power cut."""

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.name)
        self.disk = MemoryDisk(Random(self.name), cached_share=0.9)

    def look(self, store: Store) -> None:
        """See what a life has left.  Raises Wrong."""
        there = {layer.name for layer in store.layers()}
        self.snapshots |= {name: held for name, held in self.under_way.items() if name in there}
        for name in self.removed:
            self.snapshots.pop(name, None)
        self.under_way, self.removed = {}, set()
        for window in WINDOWS:
            data = bytes(store.read(window.offset_bytes, window.length_bytes))
            self.model.found(window, data, power=self.power, what=f"{self.name}, boot {self.boots}")
            assert bytes(store.read(window.offset_bytes, window.length_bytes)) == data
            store.verify(window)
        for name in self.snapshots:
            for window in WINDOWS:
                self.look_at(store, name, window)

    def look_at(self, store: Store, name: str, window: Extent) -> None:
        """See whether a snapshot holds what it must.  Raises Wrong."""
        if bytes(store.read_at(name, window)) != self.snapshots[name][str(window)]:
            raise Wrong(f"{self.name}: snapshot {name} holds something else in {window}")


@attrs.define(eq=False)
class Life:
    """One process."""

    lives: Lives
    device: ChainDevice
    batch: EndOfBatch
    requests: int
    """That are begun before it ends."""
    scope: trio.CancelScope
    in_flight: list[Extent] = attrs.field(factory=list)
    busy: int = 0
    """Requests that are not answered."""
    barrier: bool = False
    """Nobody is to begin another one."""
    over: bool = False

    def before_step(self, step: str) -> None:
        """Let the threads overtake each other, and end with their process."""
        random = self.lives.random
        if threading.current_thread() is not threading.main_thread() and random.random() < DELAYED_SHARE:
            time.sleep(random.random() * DELAY_S_MAX)
        if self.over:
            raise PowerCut(step)

    def end(self) -> None:
        """By a kill, or a power cut."""
        lives = self.lives
        self.over = True
        lives.power = lives.random.random() < 0.5
        if lives.power:
            lives.disk.power_cut()
            lives.boots += 1
        else:
            lives.disk.kill_process()
        self.scope.cancel()

    async def ask(self, kind: Any, *arguments: Any, **options: Any) -> Any:
        """One request, until it is answered."""
        answered = trio.Event()
        request = kind(*arguments, lambda _: answered.set(), **options)
        self.busy += 1
        self.device.submit(request)
        self.batch.end()
        await answered.wait()
        self.busy -= 1
        if self.over:
            await trio.sleep_forever()
        if request.error is not None:
            raise Wrong(f"{self.lives.name}: {request}") from request.error
        return request

    def draw_extent(self) -> Extent | None:
        """Some that no request in flight touches; None: try again later."""
        random = self.lives.random
        window = random.choice(WINDOWS)
        sectors = window.length_bytes // SECTOR
        count = random.choice((1, 1, 2, 4, 8, 8, 8, 16, 24))
        start = random.randrange(sectors - count + 1)
        if count == 8 and random.random() < 0.7:
            start = start // 8 * 8
        extent = Extent(window.offset_bytes + start * SECTOR, count * SECTOR)
        return extent if not any(map(extent.overlaps, self.in_flight)) else None

    async def client(self) -> None:
        """Until the process ends."""
        random = self.lives.random
        while not self.over:
            if self.barrier:
                await trio.sleep(DELAY_S_MAX)
                continue
            self.requests -= 1
            if self.requests < 0:
                self.end()
                return
            verb = random.choices(list(VERBS), list(VERBS.values()))[0]
            if verb == "flush":
                answers = self.lives.model.answers
                await self.ask(Flush)
                self.lives.model.flushed(answers)
            elif (extent := self.draw_extent()) is not None:
                self.in_flight.append(extent)
                await (self.read(extent) if verb == "read" else self.write(verb, extent))
                self.in_flight.remove(extent)
            else:
                await trio.sleep(DELAY_S_MAX)

    async def read(self, extent: Extent) -> None:
        request = await self.ask(Read, extent.offset_bytes, extent.length_bytes)
        if (data := b"".join(map(bytes, request.data))) != self.lives.model.content(extent):
            raise Wrong(f"{self.lives.name}: {extent} holds {data[::SECTOR]!r}")

    async def write(self, verb: str, extent: Extent) -> None:
        where = (extent.offset_bytes, extent.length_bytes)
        zeroes = {"zeroes": WriteZeroes, "unmap": Unmap}.get(verb)
        content = b"\0" if zeroes else bytes([self.lives.random.randrange(1, 256)])
        written = self.lives.model.begin(extent, content)
        if zeroes:
            await self.ask(zeroes, *where)
        else:
            data, fua = (content * extent.length_bytes,), verb == "fua"
            await self.ask(Write, *where, data, force_unit_access=fua, atomic=verb == "atomic")
        self.lives.model.answered(extent, written, is_stable=verb == "fua")

    async def administer(self) -> None:
        """Make snapshots, delete them, and look at them."""
        lives, random = self.lives, self.lives.random
        pause_s = random.choice((3, 10, 50)) * 1e-3
        while True:
            await trio.sleep(random.random() * pause_s)
            if len(lives.snapshots) < SNAPSHOTS_MAX and random.random() < 0.6:
                await self.make_snapshot()
            elif lives.snapshots and random.random() < 0.7:
                name = random.choice(list(lives.snapshots))
                lives.removed = {name}
                await self.device.change(partial(self.device.store.delete_snapshot, name))
                del lives.snapshots[name]
                lives.removed = set()
            elif lives.snapshots:
                name, window = random.choice(list(lives.snapshots)), random.choice(WINDOWS)
                await self.device.aside(partial(lives.look_at, self.device.store, name, window))

    async def make_snapshot(self) -> None:
        """As a controller does, when nothing is under way."""
        lives = self.lives
        self.barrier = True
        while self.busy:
            await trio.sleep(DELAY_S_MAX)
        lives.made += 1
        name = f"s{lives.made}."
        lives.under_way = {name: {str(window): lives.model.content(window) for window in WINDOWS}}
        await self.device.change(partial(self.device.store.create_snapshot, name))
        lives.model.flushed(lives.model.answers)
        lives.snapshots |= lives.under_way
        lives.under_way = {}
        self.barrier = False


async def live(lives: Lives, requests: int) -> None:
    """One life, which ends while there are requests.  Raises Wrong."""
    lives.disk.before_step = no_fault
    identity = ReplicaState("v-1", 1, "demo", SIZE_BYTES, SECTOR)
    store = Store.open_in(lives.disk.open_directory(), identity, boot_id=f"b-{lives.boots}")
    lives.look(store)
    store.flush()
    try:
        async with trio.open_nursery() as nursery:
            batch = EndOfBatch()
            device = ChainDevice(store, batch)
            life = Life(lives, device, batch, requests, nursery.cancel_scope)
            lives.disk.before_step = life.before_step
            await nursery.start(device.run)
            nursery.start_soon(Merger(device).run)
            nursery.start_soon(life.administer)
            for _ in range(CLIENTS):
                nursery.start_soon(life.client)
    except BaseExceptionGroup as group:
        if (rest := group.split(PowerCut)[1]) is not None:
            raise rest from None


def fine_steps(patch: pytest.MonkeyPatch, random: Random) -> None:
    """Let merges of so little data take several steps, and have the table of layers too small for it."""
    last_bytes = random.choice((4 * KIB, 16 * KIB, 16 * MIB))
    patch.setattr(merge_sys, "STEP_BYTES", random.choice((8 * KIB, 64 * KIB, 4 * MIB)))
    patch.setattr(merge_sys, "LAST_BYTES_MAX", last_bytes)
    patch.setattr(merge_sys, "LAST_BYTES_GOOD", min(last_bytes, random.choice((4 * KIB, MIB))))
    patch.setattr(merge_sys, "RUN_BYTES", random.choice((0, 16 * KIB)))
    patch.setattr(layer_index, "MEMORY_BYTES_MIN", random.choice((1, 300, 16 * MIB)))
    patch.setattr(layer_index, "MEMORY_BYTES_PER_TIB", 1)
    patch.setattr(device_io, "FREE_AFTER_S", 0.01)
    patch.setattr(device_io, "RETIRE_S", 0.05)


def main(seconds: float, name: str) -> None:
    """Many of them, for so long."""
    until = time.monotonic() + seconds
    number = lived = requests = 0
    while time.monotonic() < until:
        lives = Lives(f"{name} {number}")
        with pytest.MonkeyPatch.context() as patch:
            fine_steps(patch, Random(lives.name))
            for _ in range(12):
                many = lives.random.randrange(lives.random.choice((100, 1000, 4000)))
                trio.run(live, lives, many)
                lived, requests = lived + 1, requests + many
        number += 1
    print(f"{lived} lives, {requests} requests, {number} directories: nothing was wrong")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else str(time.time_ns()))
