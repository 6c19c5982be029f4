"""A client of a simulated volume that makes, deletes and reverts to snapshots, lets it grow, and looks back.

It goes through `controller.Snapshots`, as an operator does, and waits only for so long.  What is checked:

- a snapshot holds of each block what the block could hold at some moment between the question and the answer
  (`Point.contents`; blocks are each for itself), and what was read of it once stays;
- one whose making was answered, or that was seen once, is there until somebody asks for its end; one whose
  end was answered, or that was seen to be gone, never comes back; whatever fails meanwhile;
- a revert that was answered has happened: blocks hold what the snapshot held or what was written since
  (`Clients.revert_ended`), and only snapshots that were newer on the way are gone;
- what the volume has grown to it keeps;
- at the end: every snapshot is read twice; all in-sync replicas have equal lineages, and equal contents of
  the live volume and of every snapshot, byte by byte, by `ChainReader`; nothing is left to be compared, and
  what was deleted is merged away within MERGE_S.

An operation that was not answered may happen until it is known that nothing can come of it any more: a read
that came after it was answered by the same controller, or a later controller serves.

What is not checked: that a revert that was not answered happened to all blocks or to none.
"""

import enum
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import attrs
import trio

from pyjiva.block import Read
from pyjiva.controller import Snapshots, Volume, VolumeState
from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Snapshot
from pyjiva.testing.chain_reader import LIVE
from pyjiva.testing.clients import (
    BLOCK_BYTES,
    PAGE_STRIDE_BYTES,
    ZEROS,
    Collection,
    name_of,
    offset_of,
)

if TYPE_CHECKING:
    from pyjiva.testing.world import World

__all__ = ["Point", "SnapshotClient"]

NAMES: Final = tuple("abcdef")
MERGE_S: Final = 60.0
LOOK_S: Final = 0.2
KILL_CHANCE: Final = 0.1  # for each change
CHANGE_S: Final = 0.08  # what one takes, about
PAGES_MAX: Final = 4  # that the volume grows by
BEGINNING: Final = datetime(2016, 9, 1, tzinfo=UTC)
READ_BYTES: Final = 256 * 1024


class Fate(enum.Enum):
    """Whether a snapshot is there."""

    ASKED = "asked for, and may be there"
    THERE = "there"
    GOING = "its end was asked for, and may have come"
    GONE = "gone for ever, or never made"


@attrs.define(eq=False)
class Point:
    """One snapshot that was asked for; `created` tells it from others of its name."""

    name: str
    created: str
    contents: Collection
    fate: Fate = Fate.ASKED


@attrs.define(eq=False)
class Operation:
    """Something that was asked of one controller and may still happen."""

    volume: Volume
    what: str
    made: Point | None = None
    going: list[Point] = attrs.field(factory=list)
    back_to: Point | None = None
    since: Collection = attrs.field(factory=dict)
    given_up: bool = False
    """Nobody waits for the answer."""


@attrs.define(eq=False)
class SnapshotClient:
    """Of one world."""

    world: "World"
    points: list[Point] = attrs.field(factory=list, init=False)
    size_bytes: int = attrs.field(init=False)
    """That the volume has at least."""
    _open: list[Operation] = attrs.field(factory=list, init=False)
    _of: tuple[Volume, Snapshots] | None = attrs.field(default=None, init=False)
    _epoch: int = attrs.field(default=0, init=False)
    """The highest of a controller that was looked at."""
    _asked: str = attrs.field(default="", init=False)
    """The time that was given to the last snapshot."""
    _ticks: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.size_bytes = self.world.size_bytes

    # --- what it does

    async def act(self) -> None:
        """One thing, chosen at random, for a bounded time."""
        random, volume = self.world.random, self.world.volume
        if volume is None:
            return
        if any(operation.given_up for operation in self._open) and random.random() < 0.7:
            await self._wait_for_the_last(volume)
        there = [p for p in self.points if p.fate is Fate.THERE and self._is_clear(p.name)]
        weights = (5, 0, 0, 0.3, 0) if not there else (6 if len(there) < 5 else 1, 3, 1.5, 0.3, 5)
        kind = random.choices(("create", "delete", "revert", "grow", "look"), weights)[0]
        limit_s = random.choice((0.1, 0.5, 5.0, 30.0))
        point = random.choice(there) if there else None
        if kind != "look" and random.random() < KILL_CHANCE:
            self.world.nursery.start_soon(self._kill_soon, self.world.volume_scope)
        match kind:
            case "create":
                await self.create(volume, random.choice(NAMES), limit_s)
            case "grow":
                await self.grow(volume, limit_s)
            case "look":
                assert point is not None
                await self._look_back(volume, point, limit_s)
            case "delete":
                assert point is not None
                await self.delete(volume, point, limit_s)
            case _:
                assert point is not None
                await self.revert(volume, point, limit_s, keep_newer=random.random() < 0.5)

    async def _kill_soon(self, scope: trio.CancelScope) -> None:
        """End the controller, perhaps when only some replicas have made the change."""
        await trio.sleep(self.world.random.random() * CHANGE_S)
        self.world.note("controller killed", "in a change")
        scope.cancel()

    def _is_clear(self, name: str) -> bool:
        """Whether only one snapshot can have this name now."""
        return sum(p.name == name and p.fate is not Fate.GONE for p in self.points) == 1

    async def create(self, volume: Volume, name: str, limit_s: float) -> Point | None:
        """Ask for a snapshot; None: it was not asked for."""
        clients, losses = self.world.clients, self.world.clients.now
        point = Point(name, "", clients.collect())
        operation = Operation(volume, f"create {name}", made=point)
        self._asked = ""

        async def create(snapshots: Snapshots) -> None:
            made = await snapshots.create(name)
            assert made.created == point.created

        if self._snapshots(volume)._one.locked():
            clients.collections.remove(point.contents)
            return None  # nobody could tell which of two was given which time
        self.points.append(point)
        if await self._ask(operation, create, limit_s):
            clients.flushed_as(point.contents, losses)
        return point

    async def delete(self, volume: Volume, point: Point, limit_s: float) -> None:
        """Ask for its end."""
        point.fate = Fate.GOING
        operation = Operation(volume, f"delete {point.name}", going=[point])
        await self._ask(operation, lambda snapshots: snapshots.delete(point.name), limit_s)

    async def revert(self, volume: Volume, point: Point, limit_s: float, *, keep_newer: bool) -> None:
        """Ask for the volume to hold what it held then."""
        operation = Operation(volume, f"revert {point.name} {keep_newer=}", back_to=point)
        if not keep_newer:
            operation.going = [p for p in self.points if p is not point and p.fate is Fate.THERE]
            for each in operation.going:
                each.fate = Fate.GOING
        operation.since = self.world.clients.revert_begins(point.contents)
        before = volume.past.lineage

        def call(snapshots: Snapshots) -> Awaitable[object]:
            return snapshots.revert(point.name, keep_newer=keep_newer)

        alone = len(self._open) == 0
        if await self._ask(operation, call, limit_s) and alone:
            after = volume.past.lineage
            target = before.named(point.name).number
            gone = {s.number for s in before.snapshots} - {s.number for s in after.snapshots}
            newer = set(before.path(before.standing_on)) - set(before.path(target))
            assert after.standing_on == target, f"{operation.what}: stands on {after.standing_on}"
            assert gone <= (set() if keep_newer else newer), f"{operation.what} took {gone}"

    async def grow(self, volume: Volume, limit_s: float) -> None:
        """Ask for one more page, unless there are enough."""
        size_bytes = volume.size_bytes + PAGE_STRIDE_BYTES
        if size_bytes <= self.world.size_bytes + PAGES_MAX * PAGE_STRIDE_BYTES:
            operation = Operation(volume, f"grow {size_bytes}")
            await self._ask(operation, lambda snapshots: snapshots.grow(size_bytes), limit_s)

    async def _look_back(self, volume: Volume, point: Point, limit_s: float) -> None:
        block = self.world.random.randrange(len(self.world.clients.registers))
        with trio.move_on_after(limit_s):
            try:
                extent = Extent(offset_of(block), BLOCK_BYTES)
                value = await self._snapshots(volume).read(point.name, extent)
            except (ConfigError, StorageError):
                return
            self._check(point, block, value)
            self.world.note("looked back", f"{point.name} block {block} {name_of(value)}")

    def _check(self, point: Point, block: int, value: bytes) -> None:
        """It may be there, and stays."""
        possible = point.contents.get(block, ZEROS)
        assert value in possible, (
            f"snapshot {point.name} of {point.created} holds {name_of(value)} in block {block}, "
            f"may hold {[name_of(v) for v in possible]}"
        )
        if all(each is not point.contents for each in self.world.clients.collections):
            point.contents[block] = {value: None}

    async def _ask(
        self, operation: Operation, call: Callable[[Snapshots], Awaitable[object]], limit_s: float
    ) -> bool:
        """Whether it was answered well within the time."""
        self._open.append(operation)
        volume, good = operation.volume, False
        self.world.note("snapshots", f"{operation.what}?")
        try:
            with trio.move_on_after(limit_s):
                try:
                    await call(self._snapshots(volume))
                    good = True
                except ConfigError as error:
                    self.world.note("snapshots refused", error)
                    self._nothing_came_of(operation)
                    return False
                except StorageError as error:
                    self.world.note("snapshots failed", f"{operation.what}: {error}")
        finally:
            operation.given_up = True
        self.world.note("snapshots answered" if good else "snapshots unanswered", operation.what)
        if good:
            self._happened(operation)
        return good

    def _snapshots(self, volume: Volume) -> Snapshots:
        """Those of a controller, which keeps one for all who ask."""
        if self._of is None or self._of[0] is not volume:
            self._of = volume, Snapshots(volume, now=self._now)
        return self._of[1]

    def _now(self) -> datetime:
        """No two are the same."""
        self._ticks += 1
        now = BEGINNING + timedelta(seconds=trio.current_time(), microseconds=self._ticks)
        for operation in self._open:
            if operation.made is not None and not operation.made.created:
                operation.made.created = now.isoformat()
        return now

    async def _wait_for_the_last(self, volume: Volume) -> None:
        """What was asked of this controller has come, or never does, when a later read is answered."""
        asked = [operation for operation in self._open if operation.volume is volume]
        if await self.world.clients.ask(volume, lambda done: Read(0, BLOCK_BYTES, done)):
            self.look(volume)
            for operation in asked:
                self._end(operation, volume)

    # --- what is known

    async def watch(self) -> None:
        """Look at what the present controller says, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            if self.world.volume is not None:
                self.look(self.world.volume)

    def look(self, volume: Volume) -> None:
        """What has become of the snapshots."""
        epoch = volume.status().epoch
        if epoch < self._epoch or volume.status().state is VolumeState.PARKED:
            return
        self._epoch = epoch
        lineage = volume.past.lineage
        seen = {snapshot.created: snapshot for snapshot in lineage.snapshots}
        known = {point.created: point for point in self.points}
        for snapshot in lineage.snapshots:
            assert snapshot.created in known, f"nobody has asked for {snapshot}"
        for point in self.points:
            self._saw(point, seen.get(point.created))
        assert lineage.size_bytes >= self.size_bytes, f"{lineage.size_bytes} bytes, {self.size_bytes} before"
        self.world.clients.grow((lineage.size_bytes - self.size_bytes) // PAGE_STRIDE_BYTES)
        self.size_bytes = lineage.size_bytes
        for operation in [each for each in self._open if each.volume is not volume]:
            self._end(operation, volume)

    def _saw(self, point: Point, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            assert point.fate is not Fate.GONE, f"snapshot {point.name} of {point.created} is back"
            if point.fate is Fate.ASKED:
                self._is_made(point)
        else:
            assert point.fate is not Fate.THERE, f"snapshot {point.name} of {point.created} is lost"
            if point.fate is Fate.GOING:
                point.fate = Fate.GONE

    def _is_made(self, point: Point) -> None:
        point.fate = Fate.THERE
        self._stop_collecting(point.contents)

    def _stop_collecting(self, collection: Collection) -> None:
        clients = self.world.clients
        clients.collections = [each for each in clients.collections if each is not collection]

    def _happened(self, operation: Operation) -> None:
        """It was answered; perhaps by a controller that has been overtaken since, and it is known already."""
        if operation not in self._open:
            return
        volume = operation.volume
        if operation.made is not None:
            self._is_made(operation.made)
        if operation.what.startswith("delete"):
            operation.going[0].fate = Fate.GONE
        self._close(operation, happened=True)
        self._epoch = max(self._epoch, volume.status().epoch)
        self.look(volume)
        for point in operation.going:  # of a revert: what is still there stays
            if point.fate is Fate.GOING:
                point.fate = Fate.THERE

    def _end(self, operation: Operation, volume: Volume) -> None:
        """What `volume` says of it is so for ever."""
        if operation not in self._open:
            return
        there = {snapshot.created for snapshot in volume.past.lineage.snapshots}
        for point in [*operation.going, *([operation.made] if operation.made else [])]:
            if point.fate in (Fate.GOING, Fate.ASKED):
                point.fate = Fate.THERE if point.created in there else Fate.GONE
                self._stop_collecting(point.contents)
        self._close(operation, happened=False)

    def _nothing_came_of(self, operation: Operation) -> None:
        """It was refused before anything was done."""
        if operation not in self._open:
            return
        for point in operation.going:
            if point.fate is Fate.GOING:
                point.fate = Fate.THERE
        if operation.made is not None:
            self.points.remove(operation.made)
            self._stop_collecting(operation.made.contents)
        self._close(operation, happened=False)

    def _close(self, operation: Operation, *, happened: bool) -> None:
        self._open.remove(operation)
        if operation.back_to is not None:
            self.world.clients.revert_ended(operation.back_to.contents, operation.since, happened=happened)

    # --- the end

    async def check_all(self) -> bool:
        """Read every snapshot twice; whether one controller answered it all."""
        volume = self.world.volume
        if volume is None:
            return False
        await self._wait_for_the_last(volume)
        self.look(volume)
        if self._open:
            return False
        for point in [p for p in self.points if p.fate is Fate.THERE]:
            for _ in range(2):
                content = await self._read_all(volume, point)
                if content is None:
                    return False
                for block in range(len(self.world.clients.registers)):
                    start = offset_of(block)
                    self._check(point, block, content[start : start + BLOCK_BYTES])
        return volume is self.world.volume

    async def _read_all(self, volume: Volume, point: Point) -> bytes | None:
        snapshots = self._snapshots(volume)
        pieces = []
        for piece in Extent(0, volume.size_bytes).split(READ_BYTES):
            try:
                with trio.fail_after(10):
                    pieces.append(await snapshots.read(point.name, piece))
            except (StorageError, trio.TooSlowError):
                return None
        return b"".join(pieces)

    async def wait_merged(self, ids: tuple[int, ...]) -> None:
        """Wait until what was deleted is merged away on these machines."""
        readers = [self.world.machines[i].reader for i in ids]
        with trio.move_on_after(MERGE_S) as limit:
            while any(list(reader.to_merge()) for reader in readers):
                await trio.sleep(LOOK_S)
        assert not limit.cancelled_caught, f"not merged: {[list(reader.to_merge()) for reader in readers]}"

    def compare(self, ids: tuple[int, ...]) -> None:
        """These machines, which are in sync, hold the same past, by their own files."""
        assert self.world.volume is not None
        lineage = self.world.volume.past.lineage
        first = self.world.machines[ids[0]]
        for machine in [self.world.machines[i] for i in ids]:
            reader = machine.reader
            assert reader.lineage() == lineage, f"replica {machine.id}: {reader.lineage()}, not {lineage}"
            reader.self_check()
            assert machine.store is not None
            machine.store.self_check()
            for name in (LIVE, *(snapshot.name for snapshot in lineage.snapshots)):
                ours, theirs = reader.everything(name), first.reader.everything(name)
                places = list(_differences(ours, theirs))
                what = f"{name or 'the live volume'} at {places[:5]}"
                assert not places, f"replica {machine.id} differs from {first.id} in {what}"
        for point in [p for p in self.points if p.fate is Fate.THERE]:
            content = first.reader.everything(point.name)
            for block in range(len(self.world.clients.registers)):
                start = offset_of(block)
                self._check(point, block, content[start : start + BLOCK_BYTES])


def _differences(one: bytes, other: bytes) -> Iterator[int]:
    assert len(one) == len(other)
    if one != other:
        for start in range(0, len(one), BLOCK_BYTES):
            if one[start : start + BLOCK_BYTES] != other[start : start + BLOCK_BYTES]:
                yield start
