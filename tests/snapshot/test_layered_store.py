"""A store with snapshots is a few byte strings: through every change of the chain, merges step by step,
clones that are filled while they are used, kills, power cuts and full disks at any step.

Not checked here: bit rot (`test_layer_stack_sys`), and requests from several threads at once.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

import attrs
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import Merge, ReplicaState, Store
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.stamp_sys import STAMP_FILE
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.snapshot.under_way_sys import SLOT_FILE
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.testing.memory_file import Step
from pyjiva.units import KIB, MIB

SECTOR_BYTES: Final = 512
BLOCK_BYTES: Final = 4 * KIB
SIZE_BYTES: Final = 16 * MIB + 8 * KIB + SECTOR_BYTES
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, SECTOR_BYTES)
#: Where the volume is used: its start, the border of two steps of a merge, that of two chunks of the table,
#: and its short last block.
WINDOWS: Final = (
    Extent(0, 8 * KIB),
    Extent(4 * MIB - 4 * KIB, 8 * KIB),
    Extent(16 * MIB - 4 * KIB, 12 * KIB + 512),
)
OTHERS: Final = frozenset({STATE_FILE, STATE_FILE + ".tmp", "atomic.undo", STAMP_FILE, SLOT_FILE})
NAMES: Final = ("a", "b", "c", "d")
ORIGIN: Final = "origin"

PLACES = st.builds(
    lambda window, start, count: Extent(
        window.offset_bytes + start % (window.length_bytes // SECTOR_BYTES) * SECTOR_BYTES,
        min(count, window.length_bytes // SECTOR_BYTES - start % (window.length_bytes // SECTOR_BYTES))
        * SECTOR_BYTES,
    ),
    st.sampled_from(WINDOWS),
    st.integers(0, 24) | st.sampled_from([0, 8, 16]),
    st.integers(1, 9) | st.sampled_from([8, 16]),
)
WHOLE: Final = Extent(0, SIZE_BYTES)

Crash = tuple[str, int]
"""What happens, and before which step."""
Content = tuple[bytes, ...]
"""What the windows hold."""
EMPTY: Final[Content] = tuple(bytes(window.length_bytes) for window in WINDOWS)
BLOCKS: Final = tuple(piece for window in WINDOWS for piece in window.split(BLOCK_BYTES))
"""What a clone is filled with, piece by piece."""


def changed(content: Content, extent: Extent, data: bytes) -> Content:
    """`content` after a write."""
    parts = []
    for window, old in zip(WINDOWS, content, strict=True):
        part = extent.clip(window)
        if part is not None:
            taken = part.offset_bytes - extent.offset_bytes
            start = part.offset_bytes - window.offset_bytes
            new = data[taken : taken + part.length_bytes] or bytes(part.length_bytes)
            old = old[:start] + new + old[start + part.length_bytes :]
        parts.append(old)
    return tuple(parts)


def part_of(content: Content, extent: Extent) -> bytes:
    """What `content` has in an extent within one window."""
    for window, part in zip(WINDOWS, content, strict=True):
        if window.clip(extent) == extent:
            start = extent.offset_bytes - window.offset_bytes
            return part[start : start + extent.length_bytes]
    raise AssertionError(f"{extent} is in no window")


def without_full(crash: Crash | None) -> Crash | None:
    """Syncs do not meet a full disk."""
    return None if crash is not None and crash[0] == "full" else crash


def disk_full_at(number: int, maps: bool) -> Step:
    """Let `number` steps that may need space happen, then refuse one.  The log has its space already."""
    fail = fail_at(number, StorageFailure.NO_SPACE)

    def before_step(step: str) -> None:
        needs_space = step.startswith(("create", "write")) and not step.endswith("atomic.undo")
        if needs_space and (maps or not step.endswith(".held")):
            fail(step)

    return before_step


def sectors(content: Content) -> list[bytes]:
    return [part[at : at + SECTOR_BYTES] for part in content for at in range(0, len(part), SECTOR_BYTES)]


@attrs.define
class Model:
    """Snapshots as byte strings, and how they stand on each other."""

    contents: dict[str, Content] = attrs.field(factory=dict)
    parents: dict[str, str] = attrs.field(factory=dict)
    head_parent: str = ""

    def create(self, name: str, content: Content) -> None:
        self.contents[name], self.parents[name] = content, self.head_parent
        self.head_parent = name

    def delete(self, name: str) -> None:
        below = self.parents.pop(name)
        del self.contents[name]
        self.parents = {each: below if up == name else up for each, up in self.parents.items()}
        self.head_parent = below if self.head_parent == name else self.head_parent

    def revert(self, name: str, *, keep: bool) -> None:
        below = set()
        newer, self.head_parent = self.head_parent, name
        while name:
            below.add(name)
            name = self.parents[name]
        while not keep and newer and newer not in below and newer not in self.parents.values():
            up = self.parents[newer]
            self.delete(newer)
            newer = up


class LayeredStoreMachine(RuleBasedStateMachine):
    """`versions` are the contents since the last flush, newest last: after a power cut each sector must be as
    in one of them, and after a kill as in the newest.

    A clone has all that its source has from the start, as far as can be seen: whoever asks for a block that
    is not there fills it first, as the controller does.
    """

    crashes = st.none() | st.tuples(st.sampled_from(["power", "kill", "full"]), st.integers(0, 45))

    @initialize(seed=st.integers(0, 2**32), numbered=st.booleans())
    def create(self, seed: int, numbered: bool) -> None:
        self.begin(seed, numbered)

    def begin(self, seed: int, numbered: bool) -> None:
        self.numbered = numbered
        """Whether the snapshots are those of a volume with replicas."""
        self.disk = MemoryDisk(Random(seed))
        self.boots = 1
        self.model = Model()
        self.versions = [EMPTY]
        self.merge: Merge | None = None
        self.source: Store | None = None
        """Whose snapshot the store is being filled with."""
        self.unfilled: list[Extent] = []
        """Blocks that were not filled since the last power cut."""
        self.covered: list[Extent] = []
        """Those of them that the live volume holds itself."""
        self.identity = IDENTITY
        self.open()

    def open(self) -> None:
        identity = self.identity
        if STATE_FILE in self.disk.inodes():
            size = decode_state(self.disk.content(STATE_FILE)).size_bytes
            identity = attrs.evolve(identity, size_bytes=size)
        self.store = Store.open_in(self.disk.open_directory(), identity, boot_id=f"b-{self.boots}")
        self.merge = None
        self.store.begin_in_place()
        assert self.disk.inodes().keys() <= self.store.chain.files() | OTHERS, "files that nobody needs"

    def content(self) -> Content:
        """What the volume holds, when all is there."""
        self.fill_all()
        return self.look("")

    def look(self, name: str) -> Content:
        """What it holds as of a snapshot ("": now), with what is expected where it is not there yet."""
        if name:
            content = tuple(bytes(self.store.read_at(name, each)) for each in WINDOWS)
        else:
            content = tuple(bytes(self.store.read(each.offset_bytes, each.length_bytes)) for each in WINDOWS)
        expected = self.model.contents[name] if name else self.versions[-1]
        for block in self.unfilled:
            if name or block not in self.covered:
                content = changed(content, block, part_of(expected, block))
        return content

    def attempt(
        self,
        crash: Crash | None,
        action: Callable[[], object],
        done: Callable[[], bool] = lambda: False,
        content: Content = (),
        *,
        maps: bool = False,
    ) -> bool:
        """Do `action`, with something happening before its step of that number; whether it was carried out.

        `done` says whether it was, after it was cut; the content is then `content`.  A full disk is met by
        maps too if `maps`: when a flush writes to them, they have their space already.
        """
        if crash is None:
            action()
            return True
        kind, number = crash
        self.disk.before_step = disk_full_at(number, maps) if kind == "full" else cut_power_at(number)
        try:
            action()
        except PowerCut as step:
            note(f"{kind} before {step}")
            self.disk.before_step = no_fault
            self.come_back(kind)
        except StorageError as error:
            note(f"{error}")
            self.disk.before_step = no_fault
            assert self.store.broken is None, "a full disk breaks nothing"
        else:
            return True
        finally:
            self.disk.before_step = no_fault
        if done():
            assert self.content() == content
            self.versions = [content]
            return True
        self.check_survivors(kind)
        return False

    def come_back(self, kind: str) -> None:
        if kind == "kill":
            self.disk.kill_process()
            if self.boots % 2:  # as for a process that gets another container's memory
                self.disk.slots.words.clear()
        else:
            self.boots += 1
            self.disk.power_cut()
        self.open()
        if kind == "power" and self.is_filling:
            # What was filled is in doubt: the next controller begins anew.
            self.unfilled, self.covered = list(BLOCKS), []

    def do_change(self, kind: ChangeKind, **fields: Any) -> Callable[[], None]:
        """As all replicas of a volume are asked to."""
        generation = self.store.chain.generation
        change = Change(kind=kind, before=generation, after=generation + 1, **fields)
        return partial(self.store.change, change)

    def number_of(self, name: str) -> int:
        return self.store.chain.layer(name).number

    # --- a clone

    @property
    def is_filling(self) -> bool:
        return ORIGIN in self.store.chain and self.store.chain.layer(ORIGIN).filling

    def fill(self, block: Extent) -> None:
        assert self.source is not None
        self.store.patch(ORIGIN, block, [self.source.read_at(self.source_name, block)])
        self.unfilled = [each for each in self.unfilled if each != block]

    def fill_all(self) -> None:
        for block in list(self.unfilled):
            self.fill(block)

    def write_begins(self, extent: Extent, *, may_cover: bool) -> None:
        """As the controller does: what is written in part has to be there, what is written whole has not.
        Nor are holes made where nothing is yet, or atomic writes, which may put back what they found.
        """
        for block in [each for each in self.unfilled if each.overlaps(extent) and each not in self.covered]:
            if extent.clip(block) != block or not may_cover:
                self.fill(block)

    def write_ended(self, extent: Extent) -> None:
        self.covered += [each for each in self.unfilled if each.overlaps(extent)]

    @precondition(lambda self: self.numbered and self.source is None and self.model.contents)
    @rule(data=st.data(), seed=st.integers(0, 2**32))
    def clone(self, data: st.DataObject, seed: int) -> None:
        """Go on with another volume, which is filled with what this one had as of a snapshot."""
        self.go_on_with_a_clone(data.draw(st.sampled_from(sorted(self.model.contents))), seed)

    def go_on_with_a_clone(self, name: str, seed: int) -> None:
        content = self.model.contents[name]
        self.source, self.source_name = self.store, name
        self.disk = MemoryDisk(Random(seed))
        self.identity = attrs.evolve(IDENTITY, size_bytes=self.store.size_bytes)
        self.model = Model()
        self.open()
        self.do_change(ChangeKind.CREATE, number=1, name=ORIGIN, filling=True)()
        self.model.create(ORIGIN, content)
        self.versions = [content]
        self.unfilled, self.covered = list(BLOCKS), []

    @precondition(lambda self: self.source is not None)
    @rule(crash=crashes, block=st.sampled_from(BLOCKS))
    def fill_a_block(self, crash: Crash | None, block: Extent) -> None:
        """Also once more."""
        self.attempt(crash, partial(self.fill, block), maps=True)

    @precondition(lambda self: self.source is not None)
    @rule(crash=crashes)
    def finish_filling(self, crash: Crash | None) -> None:
        assert self.source is not None
        self.fill_all()
        filled = self.do_change(ChangeKind.FILLED, number=1)
        self.attempt(without_full(crash), filled)
        if not self.is_filling:
            assert self.store.chain.layer(ORIGIN).whole
            self.source.close()
            self.source = None

    def check_survivors(self, kind: str) -> None:
        content = self.content()
        candidates = self.versions if kind == "power" else self.versions[-2:]
        for sector, *either in zip(sectors(content), *map(sectors, candidates), strict=True):
            assert sector in either, "neither old nor new"
        self.versions = [content] if kind == "power" else [*self.versions, content]

    def change(self, crash: Crash | None, extent: Extent, data: bytes, do: Callable[[], object]) -> None:
        self.write_begins(extent, may_cover=bool(data))
        self.versions.append(changed(self.versions[-1], extent, data))
        if self.attempt(crash, do, maps=True):
            self.write_ended(extent)

    @rule(crash=crashes, extent=PLACES, seed=st.integers(1, 99))
    def write(self, crash: Crash | None, extent: Extent, seed: int) -> None:
        data = Random(seed).randbytes(extent.length_bytes)
        place = extent.offset_bytes, extent.length_bytes

        def do() -> None:
            if self.store.writes_in_place(*place):
                self.store.write(*place, [data], in_place=True)
            else:
                self.store.write(*place, [data])

        self.change(crash, extent, data, do)

    @rule(crash=crashes, extent=PLACES, seed=st.integers(1, 99))
    def write_atomic(self, crash: Crash | None, extent: Extent, seed: int) -> None:
        data = Random(seed).randbytes(extent.length_bytes)
        self.write_begins(extent, may_cover=False)
        old = self.versions[-1]
        new = changed(old, extent, data)
        done: list[bool] = []

        def do() -> None:
            self.store.write_atomic(extent.offset_bytes, extent.length_bytes, [data])
            done.append(True)

        self.change(without_full(crash), extent, data, do)  # the log has all its space
        if not done and crash is not None and crash[0] != "power":
            assert self.content() in (old, new), "half of an atomic write"

    @rule(crash=crashes, extent=PLACES | st.just(WHOLE))
    def zero(self, crash: Crash | None, extent: Extent) -> None:
        self.change(crash, extent, b"", lambda: self.store.zero(extent.offset_bytes, extent.length_bytes))

    @rule(crash=crashes | st.tuples(st.sampled_from(["power", "kill"]), st.integers(0, 4)))
    def flush(self, crash: Crash | None) -> None:
        if self.attempt(without_full(crash), self.store.flush):
            self.versions = self.versions[-1:]

    @rule(crash=crashes)
    def retire_regions(self, crash: Crash | None) -> None:
        self.attempt(without_full(crash), self.store.retire_regions)

    @rule(crash=crashes)
    def stop_cleanly(self, crash: Crash | None) -> None:
        def stop() -> None:
            self.store.flush()
            self.versions = self.versions[-1:]
            self.store.mark_clean()
            self.store.close()

        if self.attempt(without_full(crash), stop):
            self.come_back("power")

    @rule(crash=crashes, name=st.sampled_from(NAMES), tidy=st.booleans())
    def create_snapshot(self, crash: Crash | None, name: str, tidy: bool) -> None:
        if name in self.store.chain:
            return
        content = self.versions[-1]
        create: Callable[[], None]
        if self.numbered:
            create = self.do_change(ChangeKind.CREATE, number=self.store.chain.generation + 1, name=name)
        else:
            create = partial(self.store.create_snapshot, name, labels={"n": name}, tidy=tidy)
        if self.attempt(crash, create, lambda: name in self.store.chain, content):
            self.model.create(name, content)
            self.versions = [content]

    @rule(crash=crashes)
    def prepare_a_snapshot(self, crash: Crash | None) -> None:
        self.attempt(crash, self.store.prepare_snapshot)

    @rule()
    def tidy(self) -> None:
        self.store.tidy()

    @property
    def may_go(self) -> list[str]:
        """Snapshots that can be deleted."""
        return sorted(name for name in self.model.contents if name != ORIGIN or self.source is None)

    @precondition(lambda self: bool(self.may_go))
    @rule(crash=crashes, data=st.data())
    def delete_snapshot(self, crash: Crash | None, data: st.DataObject) -> None:
        self.delete(crash, data.draw(st.sampled_from(self.may_go)))

    def delete(self, crash: Crash | None, name: str) -> None:
        delete: Callable[[], None] = partial(self.store.delete_snapshot, name)
        if self.numbered:
            delete = self.do_change(ChangeKind.DELETE, number=self.number_of(name))
        self.attempt(crash, delete)
        if name not in self.store.chain or self.store.chain.layer(name).removed:
            self.model.delete(name)

    @precondition(lambda self: self.model.contents)
    @rule(crash=crashes, data=st.data(), keep=st.booleans())
    def revert(self, crash: Crash | None, data: st.DataObject, keep: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.contents)))
        content = self.model.contents[name]
        head = self.store.chain.head_number
        revert: Callable[[], None] = partial(self.store.revert, name, keep_newer=keep)
        if self.numbered:
            revert = self.do_change(ChangeKind.REVERT, number=self.number_of(name), keep_newer=keep)
        if self.attempt(crash, revert, lambda: self.store.chain.head_number > head, content):
            self.model.revert(name, keep=keep)
            self.versions, self.covered = [content], []
            assert self.look("") == content

    @rule(crash=crashes, way=st.sampled_from([None, True, False]), frees_early=st.booleans())
    def take_a_step_of_a_merge(self, crash: Crash | None, way: bool | None, frees_early: bool) -> None:
        if self.merge is None or self.merge.extent is None:
            self.merge = self.store.next_merge()
            if self.merge is not None and way is not None:
                self.merge.choose(goes_down=way)
        if self.merge is not None:
            self.merge.frees_early = frees_early
            up = not self.merge.goes_down and self.merge.extent != Extent(0, self.store.size_bytes)
            self.attempt(crash, self.merge.step, maps=up)

    @rule(crash=crashes)
    def reopen_what_the_head_is_merged_into(self, crash: Crash | None) -> None:
        """As a merge does that is outrun."""
        self.merge = self.store.next_merge()
        if self.merge is None or self.merge.child != HEAD or self.merge.is_reopened:
            return
        if self.store.chain.layer(self.merge.name).unsettled:
            return
        self.merge.reopen()
        self.attempt(crash, self.merge.step)

    @rule(way=st.booleans(), frees_early=st.booleans())
    def merge_all(self, way: bool, frees_early: bool) -> None:
        while (merge := self.store.next_merge()) is not None:
            merge.frees_early = frees_early
            merge.choose(goes_down=way)
            while merge.extent is not None:
                merge.step()
        branches = [
            self.store.chain.children_of(layer.name) for layer in self.store.chain.layers if layer.removed
        ]
        assert self.is_filling or all(len(children) > 1 for children in branches)
        self.store.tidy()  # a change that failed may have left the files of a head that was made ahead
        if not self.store.chain.layers and self.store._layers._spare is None:
            assert "volume-head" in str(sorted(self.disk.inodes()))
            assert not [name for name in self.disk.inodes() if name.endswith(".held")]

    @rule(crash=crashes, blocks=st.integers(1, 40))
    def grow(self, crash: Crash | None, blocks: int) -> None:
        size = self.store.size_bytes + blocks * SECTOR_BYTES
        grow: Callable[[], None] = partial(self.store.grow, size)
        if self.numbered:
            grow = self.do_change(ChangeKind.GROW, size_bytes=size)
        if self.attempt(crash, grow):
            self.versions = self.versions[-1:]
            assert self.store.size_bytes == size
        end = SIZE_BYTES
        assert not any(self.store.read(end, self.store.size_bytes - end))

    @rule(step=st.integers(0, 12), extent=PLACES, merges=st.booleans(), flushes=st.booleans())
    def be_killed_while_marks_become_stable_and_lose_power_later(
        self, step: int, extent: Extent, merges: bool, flushes: bool
    ) -> None:
        """What the next process finds done in the page cache may not be on the disk.

        By chance alone a kill hits the one step between a mark and its sync, and the power goes before
        another sync of the same file, less than once in a thousand runs.
        """
        kill = ("kill", step)
        self.write(crash=None, extent=extent, seed=1 + step)
        if merges:
            self.take_a_step_of_a_merge(crash=kill, way=None, frees_early=True)
        else:
            self.flush(crash=kill)
        if flushes:
            self.write(crash=None, extent=extent, seed=50 + step)
            self.flush(crash=None)
        else:
            self.merge_all(way=False, frees_early=False)
        self.lose_power()

    @rule(
        step=st.integers(0, 24),
        extent=PLACES,
        seed=st.integers(1, 99),
        down=st.booleans(),
        later=st.none() | PLACES,
        atomic=st.booleans(),
    )
    def lose_power_while_a_merge_moves_what_was_not_flushed(
        self, step: int, extent: Extent, seed: int, down: bool, later: Extent | None, atomic: bool
    ) -> None:
        """By chance alone not once in 8,000 runs of 50 steps.

        `later`: what was written first is flushed, and then there is another write, perhaps over it.
        """
        name = next((each for each in NAMES if each not in self.store.chain), None)
        if name is None:
            return
        self.write(crash=None, extent=extent, seed=seed)
        self.flush(crash=None)
        self.create_snapshot(crash=None, name=name, tidy=False)
        self.write(crash=None, extent=extent, seed=seed + 1)
        if later is not None:
            self.flush(crash=None)
            write = self.write_atomic if atomic else self.write
            write(crash=None, extent=later, seed=seed + 2)
        self.delete(None, name)
        merge = self.store.next_merge()
        if merge is not None:
            merge.choose(goes_down=down)
            while merge.extent is not None and self.attempt(("power", step), merge.step):
                pass

    @rule(
        kind=st.sampled_from(["power", "kill"]),
        extents=st.lists(PLACES, min_size=1, max_size=3),
        seed=st.integers(1, 99),
        flushes=st.booleans(),
        crash=st.none() | crashes,
        ends=st.sampled_from(["merge", "snapshot", "nothing"]),
    )
    def write_to_what_was_reopened(
        self,
        kind: str,
        extents: list[Extent],
        seed: int,
        flushes: bool,
        crash: Crash | None,
        ends: str,
    ) -> None:
        name = next((each for each in NAMES if each not in self.store.chain), None)
        if name is None or not self.store.intact:
            return
        for extent in extents[1:]:  # some blocks are in the layer, some in the head, and some in both
            self.write(crash=None, extent=extent, seed=seed)
        self.flush(crash=None)
        self.create_snapshot(crash=None, name=name, tidy=True)
        self.write(crash=None, extent=extents[-1], seed=seed + 1)
        self.delete(None, name)
        self.reopen_what_the_head_is_merged_into(crash=None)
        for extent in extents:
            self.write(crash=None, extent=extent, seed=seed + 2)
            if flushes:
                self.flush(crash=None)
        self.write(crash=crash, extent=extents[0], seed=seed + 3)
        if ends == "merge":
            self.take_a_step_of_a_merge(crash=crash, way=None, frees_early=True)
        elif ends == "snapshot":
            self.create_snapshot(crash=crash, name=name, tidy=True)
        self.come_back(kind)
        self.check_survivors(kind)

    @rule()
    def lose_power(self) -> None:
        self.come_back("power")
        self.check_survivors("power")

    @rule()
    def be_killed(self) -> None:
        self.come_back("kill")
        assert self.look("") == self.versions[-1]

    @rule()
    def finish_a_rebuild(self) -> None:
        if not self.store.intact:
            self.store.flush()
            self.versions = self.versions[-1:]
            self.store.mark_intact()

    @precondition(lambda self: self.source is None)
    @rule()
    def compare_snapshots(self) -> None:
        points: dict[str, Content] = {**self.model.contents, HEAD: self.versions[-1]}
        for older, old in [("", EMPTY), *self.model.contents.items()]:
            for newer, new in points.items():
                same = self.store.diff(older, newer)
                for one, other, place in zip(sectors(old), sectors(new), PLACES_OF_SECTORS, strict=True):
                    assert one == other or any(part.overlaps(place) for part in same)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "store"):
            return
        content = self.versions[-1]
        assert self.look("") == content
        for window, part in zip(WINDOWS, content, strict=True):
            data = self.store.allocated(window)
            for at in range(0, len(part), SECTOR_BYTES):
                place = Extent(window.offset_bytes + at, SECTOR_BYTES)
                missing = any(each.overlaps(place) for each in self.unfilled)
                is_zero = not any(part[at : at + SECTOR_BYTES])
                assert is_zero or missing or any(each.overlaps(place) for each in data)
            self.store.verify(window)
        shown = {layer.name for layer in self.store.chain.layers if not layer.removed}
        assert shown == set(self.model.contents)
        for name, kept in self.model.contents.items():
            assert self.look(name) == kept, name
        self.store.self_check()


PLACES_OF_SECTORS: Final = [
    Extent(window.offset_bytes + at, SECTOR_BYTES)
    for window in WINDOWS
    for at in range(0, window.length_bytes, SECTOR_BYTES)
]


class ClonedStoreMachine(LayeredStoreMachine):
    """From the start one that is being filled."""

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.begin(seed, numbered=True)
        for number, window in enumerate(WINDOWS, 1):
            self.change(
                None, window, Random(number).randbytes(window.length_bytes), self.written(window, number)
            )
        self.create_snapshot(crash=None, name="a", tidy=True)
        self.go_on_with_a_clone("a", seed)

    def written(self, window: Extent, number: int) -> Callable[[], object]:
        data = Random(number).randbytes(window.length_bytes)
        return lambda: self.store.write(window.offset_bytes, window.length_bytes, [data])


TestLayeredStore = LayeredStoreMachine.TestCase
TestClonedStore = ClonedStoreMachine.TestCase
TestLayeredStore.settings = TestClonedStore.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink an example takes minutes
)
