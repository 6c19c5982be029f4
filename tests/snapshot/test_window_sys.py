"""A window gives what the volume holds, or nothing: whatever the replica moves, and before each step of it.

The model is that of `test_layered_store`.  Not checked here: requests from several threads at once, and
whether a window gives as much as it could.
"""

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ReplicaState, Store, WindowName
from pyjiva.snapshot.stamp_sys import STAMP_FILE
from pyjiva.snapshot.window import NO_MAP, WINDOW_LAYERS_MAX, WindowLayer
from pyjiva.snapshot.window_sys import Window, open_window, window_over
from pyjiva.sparse import Buffer
from pyjiva.testing import MemoryDisk, fail_at, no_fault
from pyjiva.units import KIB, MIB
from tests.snapshot.test_layered_store import (
    WINDOWS,
    Content,
    Crash,
    LayeredStoreMachine,
    part_of,
)

SIZE_BYTES = 4 * MIB


class WatchedStoreMachine(LayeredStoreMachine):
    """Somebody has opened a window, knows of the writes, and looks all the time."""

    window: Window | None = None
    writing = False

    @rule()
    def look_through_a_window(self) -> None:
        if self.store.chain.reopened:
            with pytest.raises(StorageError, match="go to the layer below"):
                self.store.window(1)
            return
        self.window = window_over(self.store.window(1), self.disk.peek)

    @rule(way=st.sampled_from([None, True, False]))
    def look_and_take_a_step_of_a_merge(self, way: bool | None) -> None:
        self.look_through_a_window()
        self.look_again()  # so that it knows which layer has what
        self.take_a_step_of_a_merge(crash=None, way=way, frees_early=False)

    def attempt(
        self,
        crash: Crash | None,
        action: Callable[[], object],
        done: Callable[[], bool] = lambda: False,
        content: Content = (),
        *,
        maps: bool = False,
    ) -> bool:
        """As it is done there, with a look before each step, unless a range is locked or all of them are."""
        if self.writing or crash is not None:
            return super().attempt(crash, action, done, content, maps=maps)
        self.disk.before_step = lambda _step: self.look_again()
        try:
            return super().attempt(crash, action, done, content, maps=maps)
        finally:
            self.disk.before_step = no_fault

    def go_on_with_a_clone(self, name: str, seed: int) -> None:
        super().go_on_with_a_clone(name, seed)
        self.window = None  # it shows the volume that was cloned

    def change(self, crash: Crash | None, extent: Extent, data: bytes, do: Callable[[], object]) -> None:
        self.writing = True
        super().change(crash, extent, data, do)
        self.writing = False
        if self.window is not None:  # also of one that failed nobody knows more than the maps say
            if data and crash is None:
                self.window.written(extent.offset_bytes, extent.length_bytes)
            else:
                self.window.changed(extent.offset_bytes, extent.length_bytes)

    @invariant()
    def a_window_gives_what_there_is(self) -> None:
        self.look_again()

    def look_again(self) -> None:
        if self.window is None or not hasattr(self, "store"):
            return
        for place in WINDOWS:
            for part in (place, Extent(place.offset_bytes + 512, 1024)):
                found = self.window.read_nowait(part.offset_bytes, part.length_bytes)
                assert found is None or self.masked(part, bytes(found)) == part_of(self.versions[-1], part)

    def masked(self, part: Extent, found: bytes) -> bytes:
        """With what is expected in place of what is not there yet."""
        content = self.versions[-1]
        for block in self.unfilled:
            common = block.clip(part)
            if common is not None and block not in self.covered:
                at = common.offset_bytes - part.offset_bytes
                found = found[:at] + part_of(content, common) + found[at + common.length_bytes :]
        return found


TestWatchedStore = WatchedStoreMachine.TestCase
TestWatchedStore.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(Random(1))


def store_on(disk: MemoryDisk) -> Store:
    identity = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
    return Store.open_in(disk.open_directory(), identity, boot_id="b-1")


def look(store: Store, disk: MemoryDisk) -> Window:
    return window_over(store.window(1), disk.peek)


def test_a_window_shows_what_is_written_later_too(disk: MemoryDisk) -> None:
    store = store_on(disk)
    window = look(store, disk)
    store.write(8192, 4096, [b"a" * 4096])
    assert window.read_nowait(8192, 4096) == b"a" * 4096
    assert not window.is_shut


def test_a_window_knows_the_layers(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.create_snapshot("s")
    store.write(4096, 4096, [b"b" * 4096])
    window = look(store, disk)
    assert window.read_nowait(0, 8192) == b"a" * 4096 + b"b" * 4096
    store.write(0, 512, [b"c" * 512])
    window.written(0, 512)
    assert window.read_nowait(0, 8192) == b"c" * 512 + b"a" * 3584 + b"b" * 4096
    store.zero(0, 4096)
    window.changed(0, 4096)
    assert window.read_nowait(0, 8192) == bytes(4096) + b"b" * 4096


@pytest.mark.parametrize(
    "move",
    [
        lambda store: store.create_snapshot("t"),
        lambda store: store.delete_snapshot("s"),
        lambda store: store.revert("s"),
        lambda store: store.grow(SIZE_BYTES + 4096),
        lambda store: store.spoil(Extent(0, 4096)),
        lambda store: store.repair_layer("s", Extent(0, 4096), b"a" * 4096),
    ],
    ids=["snapshot", "delete", "revert", "grow", "spoil", "repair"],
)
def test_what_the_replica_moves_shuts_it(disk: MemoryDisk, move: Callable[[Store], None]) -> None:
    store = store_on(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.create_snapshot("s")
    window = look(store, disk)
    assert window.read_nowait(0, 4096) == b"a" * 4096
    move(store)
    assert window.read_nowait(0, 4096) is None
    assert window.is_shut


def look_into(window: Window, seen: list[Buffer | None], _step: str) -> None:
    seen.append(window.read_nowait(0, 8192))


@pytest.mark.parametrize("goes_down", [False, True])
def test_each_step_of_a_merge_shuts_it_before_a_block_moves(disk: MemoryDisk, goes_down: bool) -> None:
    store = store_on(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.create_snapshot("s")
    store.write(4096, 4096, [b"b" * 4096])
    store.delete_snapshot("s")
    merge = store.next_merge()
    assert merge is not None
    merge.choose(goes_down=goes_down)
    content = b"a" * 4096 + b"b" * 4096
    while merge.extent is not None:
        window = look(store, disk)
        assert window.read_nowait(0, 8192) == content
        seen: list[Buffer | None] = []
        disk.before_step = partial(look_into, window, seen)
        merge.step()
        disk.before_step = no_fault
        seen.append(window.read_nowait(0, 8192))
        assert window.is_shut
        assert set(map(bytes, filter(None, seen))) <= {content}
    assert store.read(0, 8192) == content


def test_a_write_that_was_carried_out_and_moved_before_it_was_opened_is_found_in_the_maps(
    disk: MemoryDisk,
) -> None:
    """The other replicas have not answered yet when it is opened: the controller tells it of a change."""
    store = store_on(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.create_snapshot("s")
    store.write(4096, 4096, [b"b" * 4096])
    store.flush()
    store.delete_snapshot("s")
    merge = store.next_merge()
    assert merge is not None
    merge.choose(goes_down=True)
    assert merge.step() == 4096
    for tell, content in ((Window.changed, b"b" * 4096), (Window.written, bytes(4096))):
        window = look(store, disk)
        assert window.read_nowait(0, 4096) == b"a" * 4096
        tell(window, 4096, 4096)
        assert window.read_nowait(4096, 4096) == content


def test_the_next_process_shuts_it_first_of_all(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.write(0, 4096, [b"a" * 4096])
    window = look(store, disk)
    disk.kill_process()
    assert window.read_nowait(0, 4096) == b"a" * 4096  # as the process left it
    steps: list[bool] = []
    disk.before_step = lambda _step: steps.append(window.read_nowait(0, 4096) is None)
    store_on(disk)
    shut = steps.index(True)
    assert all(steps[shut:])
    assert shut <= 5, "nothing was done but to look at the stamp"


def test_a_flush_that_fails_shuts_it(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.write(0, 4096, [b"a" * 4096])
    window = look(store, disk)
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync")
    with pytest.raises(StorageError):
        store.flush()
    assert window.read_nowait(0, 4096) is None
    with pytest.raises(StorageError, match="since a flush failed"):
        store.window(1)


def test_rot_is_not_given(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.flush()
    window = look(store, disk)
    disk.rot("volume-head-000.img", 100)
    assert window.read_nowait(0, 4096) is None
    assert window.read_nowait(0, 8192) is None
    assert window.read_nowait(4096, 4096) == b"a" * 4096
    assert not window.is_shut


def test_what_is_not_in_memory_is_not_given(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.create_snapshot("s")
    window = look(store, disk)
    disk.cached_share = 0.0
    assert window.read_nowait(0, 4096) is None
    disk.cached_share = 1.0
    assert window.read_nowait(0, 4096) == bytes(4096)


def test_beyond_the_end_there_is_nothing(disk: MemoryDisk) -> None:
    assert look(store_on(disk), disk).read_nowait(SIZE_BYTES - 512, 1024) is None


def test_a_window_is_not_offered_while_blocks_are_moved(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.create_snapshot("s")
    asked: list[str] = []

    def ask(step: str) -> None:
        if STAMP_FILE in step:  # before it moves anything
            return
        disk.before_step = no_fault
        with pytest.raises(StorageError, match="being moved"):
            store.window(1)
        asked.append("asked")

    window = look(store, disk)
    disk.before_step = ask
    store.repair_layer("s", Extent(0, 4096), bytes(4096))
    assert asked == ["asked"]
    assert window.read_nowait(0, 4096) is None


def test_an_old_name_opens_nothing(disk: MemoryDisk) -> None:
    store = store_on(disk)
    name = store.window(1)
    store.window(1)
    with pytest.raises(OSError, match="changed meanwhile"):
        window_over(name, disk.peek)
    with pytest.raises(OSError, match="hexadecimal"):
        window_over(attrs.evolve(name, stamp="no number"), disk.peek)
    with pytest.raises(OSError, match="changed meanwhile"):
        window_over(attrs.evolve(name, stamp=""), disk.peek)
    with pytest.raises(OSError, match="file 99"):
        window_over(attrs.evolve(name, stamp_descriptor=99), disk.peek)


def test_too_many_layers_get_no_window(disk: MemoryDisk) -> None:
    store = store_on(disk)
    for number in range(WINDOW_LAYERS_MAX - 1):
        store.create_snapshot(f"s-{number}")
    assert len(store.window(1).layers) == WINDOW_LAYERS_MAX
    store.create_snapshot("one-more")
    with pytest.raises(StorageError, match="too many"):
        store.window(1)


@pytest.mark.parametrize(
    "layers", [(), (WindowLayer(1, 2, 3),), (WindowLayer(1, 2, NO_MAP), WindowLayer(3, 4, NO_MAP))]
)
def test_a_name_has_one_layer_without_a_map(layers: tuple[WindowLayer, ...]) -> None:
    with pytest.raises(ValueError, match="layer"):
        WindowName(1, 1, "00", 4096, layers)


class TestStampThatCannotBeWritten:
    """A replica starts, and changes its chain, all the same; it does without windows."""

    def test_no_room_for_one(self, disk: MemoryDisk) -> None:
        store = store_on(disk)
        store.create_snapshot("s")
        disk.before_step = self.full
        with pytest.raises(StorageError):
            store.window(1)
        store.delete_snapshot("s")  # nobody was told of a stamp
        store.close()
        store = store_on(disk)
        disk.before_step = no_fault
        store.write(0, 4096, [b"a" * 4096])
        assert look(store, disk).read_nowait(0, 4096) == b"a" * 4096

    @staticmethod
    def full(step: str) -> None:
        if step == f"write {STAMP_FILE}":
            raise StorageError(StorageFailure.NO_SPACE, step)

    def test_no_room_to_change_it(self, disk: MemoryDisk) -> None:
        """As where a file system writes everything to a new place."""
        store = store_on(disk)
        store.create_snapshot("s")
        window = look(store, disk)
        disk.before_step = self.full
        store.delete_snapshot("s")
        assert window.read_nowait(0, 4096) is None
        window.look()
        assert window.is_shut, "else its files would be kept for ever"

    def test_no_room_when_the_next_process_starts(self, disk: MemoryDisk) -> None:
        window = look(store_on(disk), disk)
        disk.kill_process()
        disk.before_step = self.full
        store_on(disk)
        assert window.read_nowait(0, 4096) is None

    def test_nothing_moves_on_a_disk_that_fails(self, disk: MemoryDisk) -> None:
        store = store_on(disk)
        store.create_snapshot("s")
        window = look(store, disk)

        def fails(step: str) -> None:
            if STAMP_FILE in step:
                raise StorageError(StorageFailure.WRITE_ERROR, step)

        disk.before_step = fails
        with pytest.raises(StorageError):
            store.delete_snapshot("s")
        assert "s" in store.chain and not store.chain.layer("s").removed
        assert window.read_nowait(0, 4096) == bytes(4096)

    def test_something_else_has_its_name(self, tmp_path: Path) -> None:
        store_in(tmp_path).close()
        (tmp_path / STAMP_FILE).mkdir()
        store = store_in(tmp_path)
        with pytest.raises(StorageError, match="exists"):
            store.window(1)
        store.create_snapshot("s")
        store.close()


def test_a_directory_that_is_damaged_says_so_though_it_has_a_stamp(tmp_path: Path) -> None:
    """What was opened is given back once: a second time could close what somebody else has opened since."""
    store = store_in(tmp_path)
    store.create_snapshot("s")
    store.window(1)
    store.close()
    (tmp_path / "volume-snap-s.img").unlink()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="volume-snap-s"):
        store_in(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_in_memory_cannot_be_told(disk: MemoryDisk) -> None:
    """As on tmpfs, where a read that is not to wait reads nothing."""
    store = store_on(disk)
    disk.cached_share = 0.0
    with pytest.raises(StorageError, match="in memory"):
        store.window(1)


def test_a_store_that_breaks_meanwhile_gives_no_window(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.write(0, 4096, [b"a" * 4096])

    def break_it(step: str) -> None:
        if step == f"write {STAMP_FILE}":
            disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync")
            store._broken = StorageError(StorageFailure.WRITE_ERROR, "just now")

    disk.before_step = break_it
    with pytest.raises(StorageError, match="just now"):
        store.window(1)


def test_who_does_not_read_sees_that_it_is_shut(disk: MemoryDisk) -> None:
    store = store_on(disk)
    window = look(store, disk)
    window.look()
    assert not window.is_shut
    store.create_snapshot("s")
    window.look()
    assert window.is_shut


def test_it_may_be_told_of_what_lies_beyond_its_end(disk: MemoryDisk) -> None:
    store = store_on(disk)
    store.create_snapshot("s")
    window = look(store, disk)
    window.written(SIZE_BYTES, 32 * MIB)
    window.changed(SIZE_BYTES - 4096, 32 * MIB)
    assert window.read_nowait(SIZE_BYTES - 4096, 4096) == bytes(4096)


def store_in(path: Path) -> Store:
    return Store.open_or_create(
        path, volume_id="v-1", replica_id=1, volume_name="demo", size_bytes=SIZE_BYTES, block_size_bytes=512
    )


class TestRealFiles:
    """Through /proc, as a controller does."""

    def test_it_reads_what_another_one_writes(self, tmp_path: Path) -> None:
        store = store_in(tmp_path)
        store.write(0, 8192, 8192 * [b"a"])
        store.create_snapshot("s")
        store.write(4096, 4096, [b"b" * 4096])
        window = open_window(store.window(os.getpid()))
        try:
            assert window.read_nowait(0, 8192) in (b"a" * 4096 + b"b" * 4096, None)
            store.write(64 * KIB, 4096, [b"c" * 4096])
            window.written(64 * KIB, 4096)
            assert window.read_nowait(64 * KIB, 4096) in (b"c" * 4096, None)
            store.delete_snapshot("s")
            while window.read_nowait(0, 8192) is not None:
                pytest.fail("it shows what has begun to move")
        finally:
            window.close()
            store.close()

    def test_what_is_no_file_is_not_opened(self) -> None:
        here, there = socket.socketpair()
        with here, there:
            name = WindowName(os.getpid(), here.fileno(), "00" * 16, 4096, (WindowLayer(0, 0, NO_MAP),))
            with pytest.raises(OSError, match="No such device"):
                open_window(name)

    def test_another_process_number_leads_nowhere(self) -> None:
        name = WindowName(2**22 + 1, 0, "00" * 16, 4096, (WindowLayer(0, 0, NO_MAP),))
        with pytest.raises(OSError, match="No such file"):
            open_window(name)
