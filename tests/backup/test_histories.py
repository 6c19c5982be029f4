"""Random histories: snapshots, backups, removals, processes that are killed at any step or stand still for
hours, several at once.  After each step every backup that is there restores to what its snapshot was.
"""

import random

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, note, settings
from hypothesis import strategies as st

from pyjiva.backup import Manifest
from pyjiva.backup.collect_io import collect
from pyjiva.backup.lock_io import BusyError
from pyjiva.backup.verify_io import verify
from pyjiva.errors import BackupError
from tests.backup.worlds import (
    CHUNK_BYTES,
    SECRET,
    DeadError,
    MemoryObjects,
    Mortal,
    Process,
    Volume,
    create,
    ignore,
    open_process,
    restored,
)

CHUNKS = 6
EXAMPLES = 80  # of the worlds with several processes
SNAPSHOTS = ("a", "b", "c", "d")


@attrs.frozen
class Write:
    """Some bytes; value 0 makes them zeros."""

    chunk: int
    value: int
    length_bytes: int

    def play(self, world: "World") -> None:
        """Do it."""
        start = self.chunk * CHUNK_BYTES
        length = min(self.length_bytes, len(world.volume.content) - start)
        world.volume.content[start : start + length] = bytes([self.value]) * length


@attrs.frozen
class Snap:
    """A snapshot, in place of an older one of that name."""

    name: str

    def play(self, world: "World") -> None:
        """Do it."""
        world.volume.snapshot(self.name)


@attrs.frozen
class Drop:
    """A snapshot goes."""

    name: str

    def play(self, world: "World") -> None:
        """Do it."""
        world.volume.snapshots.pop(self.name, None)


@attrs.frozen
class Grow:
    """The volume becomes larger, by no whole chunk."""

    def play(self, world: "World") -> None:
        """Do it."""
        world.volume.content += bytes(CHUNK_BYTES // 2)


@attrs.frozen
class Backup:
    """A backup by a process that may be killed."""

    name: str
    full: bool
    dies_at: int | None
    last_one_counts: bool

    async def run(self, world: "World") -> None:
        """Do it."""
        if self.name not in world.volume.snapshots:
            return
        content = world.volume.snapshots[self.name][0]
        store = world.process(self.dies_at, last_one_counts=self.last_one_counts)
        before = world.ids()
        try:
            await create(store, world.volume, self.name, full=self.full, checkpoint_bytes=CHUNK_BYTES)
        except DeadError:
            note("killed")
        world.bury(store)
        world.expected.update(dict.fromkeys(world.ids() - before, content))


@attrs.frozen
class Remove:
    """The oldest or newest backup goes, and what it alone needed."""

    newest: bool
    dies_at: int | None
    last_one_counts: bool

    async def run(self, world: "World") -> None:
        """Do it."""
        ids = sorted(world.ids())
        store = world.process(self.dies_at, last_one_counts=self.last_one_counts)
        try:
            if ids:
                await store.delete_backup(ids[-1 if self.newest else 0])
            await collect(store)
        except DeadError:
            note("killed")
        world.bury(store)


@attrs.define(eq=False)
class World:
    """A volume, a store, and what must be in it."""

    secret: bytes | None
    volume: Volume = attrs.field(factory=lambda: Volume(bytearray(CHUNKS * CHUNK_BYTES - 512)))
    objects: MemoryObjects = attrs.field(factory=MemoryObjects)
    expected: dict[str, bytes] = attrs.field(factory=dict)
    dead: set[str] = attrs.field(factory=set)
    processes: int = 0

    def process(self, dies_at: int | None = None, *, last_one_counts: bool = False) -> Process:
        """A new process with the store open."""
        self.processes += 1
        open_process(self.objects, secret=self.secret)
        return open_process(
            Mortal(self.objects, dies_at, last_one_counts),
            secret=self.secret,
            process=str(self.processes),
            dead=self.dead.__contains__,
        )

    def bury(self, process: Process) -> None:
        """Its end is known, if it has ended."""
        assert isinstance(process.objects, Mortal)
        if process.objects.is_dead:
            self.dead.add(process.process)

    def ids(self) -> set[str]:
        """The backups that are there."""
        return {key.removeprefix("manifests/") for key in self.objects.keys("manifests/")}

    async def check(self) -> None:
        """Every backup is whole."""
        store = self.process()
        for backup_id in self.ids():
            assert await restored(store, backup_id) == self.expected[backup_id]
        found = await verify(store, (), quick=True, rate=None, report=ignore)
        assert not found.problems


DEATHS = st.none() | st.integers(1, 25)
STEPS = st.one_of(
    st.builds(
        Write,
        chunk=st.integers(0, CHUNKS - 1),
        value=st.integers(0, 3),
        length_bytes=st.sampled_from([512, CHUNK_BYTES, 3 * CHUNK_BYTES]),
    ),
    st.builds(Snap, name=st.sampled_from(SNAPSHOTS)),
    st.builds(Drop, name=st.sampled_from(SNAPSHOTS)),
    st.builds(Grow),
    st.builds(
        Backup,
        name=st.sampled_from(SNAPSHOTS),
        full=st.booleans(),
        dies_at=DEATHS,
        last_one_counts=st.booleans(),
    ),
    st.builds(Remove, newest=st.booleans(), dies_at=DEATHS, last_one_counts=st.booleans()),
)


@settings(max_examples=150)
@given(steps=st.lists(STEPS, max_size=25), encrypted=st.booleans())
def test_every_backup_that_is_there_restores(steps: list[object], encrypted: bool) -> None:
    async def play() -> None:
        world = World(SECRET if encrypted else None)
        for step in steps:
            if isinstance(step, Backup | Remove):
                await step.run(world)
                await world.check()
            else:
                assert isinstance(step, Write | Snap | Drop | Grow)
                step.play(world)
        # What was interrupted leaves nothing behind, once a collection gets through.
        store = world.process()
        await collect(store)
        world.objects.content = {
            key: value for key, value in world.objects.content.items() if not key.startswith("unfinished/")
        }
        await collect(store)
        tables = [await store.table(manifest) for manifest in (await store.manifests())[0]]
        assert await store.chunk_names() == {name for table in tables for _, name in table}
        assert len(world.objects.keys("tables/")) == len(tables)
        assert not world.objects.keys("locks/")
        await world.check()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**32 - 1))
def test_backups_and_collections_at_once_lose_no_chunk(seed: int) -> None:
    """Also if a process stands still for hours at any call, and the others take it for dead."""
    note(f"seed {seed}")
    chance = random.Random(seed)
    world = World(None)
    made: list[Manifest] = []
    removed: set[str] = set()

    async def make(process: Process, name: str) -> None:
        for _ in range(2):
            try:
                made.append(await create(process, world.volume, name, checkpoint_bytes=CHUNK_BYTES))
            except BackupError as error:
                assert "stood still" in str(error)  # noqa: PT017

    async def tidy(process: Process) -> None:
        for _ in range(4):
            await trio.sleep(chance.random() * 20)
            ids = sorted(world.ids())
            try:
                if ids and chance.random() < 0.5:
                    removed.add(ids[0])
                    await process.delete_backup(ids[0])
                await collect(process)
            except BusyError:
                continue
            except BackupError as error:
                assert "stood still" in str(error) or "is missing" in str(error)  # noqa: PT017

    def process(name: str) -> Process:
        stands_still = None
        if chance.random() < 0.5:
            stands_still = (chance.randrange(1, 60), chance.choice([100.0, 4000.0, 30000.0]))
        open_process(world.objects)
        made = open_process(
            world.objects, process=name, chance=chance, call_s_max=3.0, stands_still=stands_still
        )
        made.poll_s = 600.0
        if name.startswith("maker") and chance.random() < 0.5:
            made.clock = lambda: 0.0  # what keeps a backup whole does not need the maker's clock
        return made

    async def play() -> None:
        for name in SNAPSHOTS:
            for chunk in range(CHUNKS):
                if chance.random() < 0.5:
                    Write(chunk, chance.randrange(4), CHUNK_BYTES).play(world)
            world.volume.snapshot(name)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(make, process(f"maker {number}"), chance.choice(SNAPSHOTS))
            for number in range(2):
                nursery.start_soon(tidy, process(f"collector {number}"))
        for backup_id in world.ids():
            manifest = await open_process(world.objects).manifest(backup_id)
            world.expected[backup_id] = world.volume.snapshots[manifest.snapshot][0]
        assert world.ids() == {manifest.id for manifest in made} - removed
        await world.check()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


@attrs.define(eq=False)
class Forgetful(Process):
    """Believes what the store had when it was opened."""

    remembered: set[bytes] = attrs.field(factory=set, kw_only=True)

    async def chunk_names(self) -> set[bytes]:
        """See BackupStore."""
        return set(self.remembered)


def test_the_check_notices_a_chunk_that_was_taken_from_under_a_backup() -> None:
    """The canary: what a collection would do that did not heed locks."""

    async def play() -> None:
        world = World(None)
        Write(0, 1, CHUNK_BYTES).play(world)
        world.volume.snapshot("a")
        first = await create(world.process(), world.volume, "a")
        process = world.process()
        maker = Forgetful.of(world.objects, process.configuration, None)
        maker.clock = trio.current_time
        maker.remembered = await process.chunk_names()
        await process.delete_backup(first.id)
        await collect(process)
        await create(maker, world.volume, "a")
        world.expected = dict.fromkeys(world.ids(), world.volume.snapshots["a"][0])
        with pytest.raises(BackupError, match="is missing"):
            await world.check()

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))
