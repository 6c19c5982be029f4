"""Every kind of finding is found where it is, and a directory as the store leaves it is sound."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.checkup import check, facts, finding
from pyjiva.checkup.finding import KINDS, Severity
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import (
    ReplicaState,
    Store,
    failed_flush_sys,
    layout_sys,
    stamp_sys,
    under_way_sys,
    undo_log_sys,
)
from pyjiva.snapshot.chain import CHAIN_FILE, Chain
from pyjiva.snapshot.chain_file import encode_chain
from pyjiva.snapshot.metadata import DiskMeta
from pyjiva.snapshot.state import FLUSH_FAILED, REPAIRED, STATE_FILE, decode_state, encode_state
from pyjiva.sparse import SUM_BLOCK_BYTES, TEMPORARY_SUFFIX, open_read_only, sums_size_bytes
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, no_fault
from tests.checkup.replicas import (
    BLOCK,
    BOOT,
    IDENTITY,
    RECORD,
    SIZE_BYTES,
    Damage,
    alone,
    cut,
    extend,
    fill,
    flip,
    join,
    kinds,
    layered,
    look,
    open_store,
    put,
    remove,
)

HEAD_0 = "volume-head-000.img"
HEAD_1 = "volume-head-001.img"
HEAD_2 = "volume-head-002.img"
A, B = "volume-snap-a.img", "volume-snap-b.img"


def with_state(**fields: Any) -> Damage:
    """Let the state say something else."""

    def damage(disk: MemoryDisk) -> None:
        state = attrs.evolve(decode_state(disk.content(STATE_FILE)), **fields)
        disk.put(STATE_FILE, encode_state(state))

    return damage


def with_chain(**fields: Any) -> Damage:
    """Let the chain file say something else."""

    def damage(disk: MemoryDisk) -> None:
        chain = attrs.evolve(chain_of(disk), **fields)
        disk.put(CHAIN_FILE, encode_chain(chain))

    return damage


def chain_of(disk: MemoryDisk) -> Chain:
    known = look(disk, quick=True).structure.known
    assert known is not None
    return known.chain


def both(*damages: Damage) -> Damage:
    """One after the other."""

    def damage(disk: MemoryDisk) -> None:
        for each in damages:
            each(disk)

    return damage


def rename(old: str, new: str) -> Damage:
    """Give a file another name."""
    return both(lambda disk: disk.put(new, disk.content(old)), remove(old))


def cut_an_atomic_write(disk: MemoryDisk) -> None:
    store = open_store(disk)
    store.write_atomic(0, BLOCK, [b"1" * BLOCK])
    disk.before_step = lambda step: _stop_at(step, f"write {HEAD_0}")
    with contextlib.suppress(PowerCut):
        store.write_atomic(0, BLOCK, [b"2" * BLOCK])
    disk.before_step = no_fault
    disk.kill_process()


def _stop_at(step: str, wanted: str) -> None:
    if step == wanted:
        raise PowerCut(step)


def cut_the_creation(disk: MemoryDisk) -> None:
    for name in list(disk.inodes()):
        remove(name)(disk)
    disk.before_step = cut_power_at(8)
    with contextlib.suppress(PowerCut):
        open_store(disk)
    disk.before_step = no_fault
    disk.kill_process()


def write_and_be_killed(disk: MemoryDisk) -> None:
    fill(open_store(disk), 9, 3)
    disk.kill_process()


def leave_a_rename(disk: MemoryDisk) -> None:
    with_chain(renames=((HEAD_1, B),))(disk)
    rename(B, HEAD_1)(disk)


def never_used(disk: MemoryDisk) -> None:
    open_store(disk).close()
    remove(f"{HEAD_0}.sums")(disk)


def prepare_a_snapshot(disk: MemoryDisk) -> None:
    store = open_store(disk)
    store.prepare_snapshot()
    store.close()


def unreadable(name: str) -> Damage:
    """Let the disk refuse a file, from now on."""

    def damage(disk: MemoryDisk) -> None:
        def refuse(step: str) -> None:
            if step == f"read {name}":
                raise StorageError(StorageFailure.READ_ERROR, "the disk is bad")

        disk.before_step = refuse

    return damage


#: kind → (a sound directory, what is done to it): one for each kind, and more where it has more causes.
CASES: list[tuple[finding.Kind, Callable[[], MemoryDisk], Damage]] = [
    (finding.STATE_MISSING, alone, remove(STATE_FILE)),
    (finding.STATE_DAMAGED, alone, flip(STATE_FILE, 40)),
    (finding.STATE_DAMAGED, alone, cut(STATE_FILE, 0)),
    (finding.CREATION_CUT, alone, cut_the_creation),
    (finding.UNCLEAN, alone, write_and_be_killed),
    (finding.REBOOTED, alone, with_state(written_boot_id="b-0")),
    (finding.FLUSH_HAS_FAILED, alone, with_state(written_boot_id=FLUSH_FAILED)),
    (finding.FLUSH_HAS_FAILED, alone, put(facts.FLUSH_FAILED_FILE)),
    (finding.WAS_REPAIRED, alone, with_state(written_boot_id=REPAIRED)),
    (finding.NOT_EQUAL_YET, alone, with_state(told_equal=False)),
    (finding.OUT, alone, with_state(record=attrs.evolve(RECORD, in_sync=(2,)))),
    (finding.NOT_CONFIGURED, alone, with_state(record=attrs.evolve(RECORD, configured=(2, 3), in_sync=(2,)))),
    (finding.CHAIN_DAMAGED, layered, flip(CHAIN_FILE)),
    (finding.CHAIN_MISSING, layered, remove(CHAIN_FILE)),
    (finding.CHAIN_LOST, layered, both(flip(CHAIN_FILE), flip(f"{B}.meta", 1))),
    (finding.CHAIN_LOST, layered, both(flip(CHAIN_FILE), put("volume-snap-c.img"))),
    (finding.CHAIN_LOST, layered, both(remove(CHAIN_FILE), put("volume.meta.tmp"))),
    (finding.CHAIN_LOST, layered, both(flip(CHAIN_FILE), remove(A))),
    (finding.CHAIN_LOST, alone, both(remove("volume.meta"), put(f"{HEAD_0}.held"))),
    (finding.CHAIN_LOST, alone, both(remove("volume.meta"), remove(HEAD_0))),
    (finding.RENAMES_LEFT, layered, leave_a_rename),
    (finding.GROWING, layered, with_chain(growing_to=SIZE_BYTES + BLOCK)),
    (finding.METAS_DIFFER, layered, flip(f"{A}.meta", 1)),
    (finding.METAS_DIFFER, layered, remove("volume.meta")),
    (finding.META_UNREADABLE, layered, unreadable(f"{A}.meta")),
    (finding.META_DAMAGED, alone, remove("volume.meta")),
    (finding.META_DAMAGED, alone, flip(f"{HEAD_0}.meta", 1)),
    (finding.META_DAMAGED, alone, put("other.meta", b"{")),
    (finding.DATA_MISSING, layered, remove(A)),
    (finding.DATA_MISSING, alone, remove(HEAD_0)),
    (finding.DATA_SHORT, layered, cut(A, BLOCK)),
    (finding.FILE_UNREADABLE, layered, unreadable(f"{A}.sums")),
    (finding.TOO_LONG, alone, extend(HEAD_0)),
    (finding.TOO_LONG, alone, extend(f"{HEAD_0}.sums")),
    (finding.GROWN, layered, extend(A)),
    (finding.SUMS_NOT_MADE, lambda: MemoryDisk(Random(1)), never_used),
    (finding.SUMS_LOST, layered, remove(f"{A}.sums")),
    (finding.SUMS_LOST, layered, cut(f"{HEAD_2}.sums", 8)),
    (finding.MAP_LOST, layered, remove(f"{B}.held")),
    (finding.MAP_LOST, layered, cut(f"{HEAD_2}.held", 3)),
    (finding.MAP_DAMAGED, layered, flip(f"{B}.held", 1)),
    (finding.MAP_DAMAGED, layered, unreadable(f"{B}.held")),
    (finding.BAD_BLOCKS, layered, flip(A, 0)),
    (finding.BAD_BLOCKS, layered, flip(f"{B}.sums", 8)),
    (finding.BAD_BLOCKS, alone, flip(HEAD_0, 8 * BLOCK)),
    (finding.UNREADABLE_BLOCKS, layered, unreadable(A)),
    (finding.UNKNOWN_BLOCKS, alone, with_state(written_boot_id="b-0", written_regions="1")),
    (finding.UNDO_PENDING, alone, cut_an_atomic_write),
    (finding.UNDO_UNREADABLE, alone, both(cut_an_atomic_write, unreadable(facts.UNDO_FILE))),
    (finding.LEFT_OVER, layered, put("volume-snap-gone.img")),
    (finding.LEFT_OVER, layered, put(f"{STATE_FILE}.tmp")),
    (finding.LEFT_OVER, alone, prepare_a_snapshot),
    (finding.KEPT, layered, put("pyjiva-repair-20260101T000000Z.volume.meta.kept")),
    (finding.FOREIGN, layered, put("notes.txt")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "make", "damage"), CASES, ids=[f"{kind.name}-{at}" for at, (kind, _, _) in enumerate(CASES)]
)
def test_what_is_wrong_is_found_and_judged(
    kind: finding.Kind, make: Callable[[], MemoryDisk], damage: Damage
) -> None:
    disk = make()
    damage(disk)
    report = look(disk)
    assert kind.name in kinds(report)
    assert ("foreign" in kinds(report)) == (kind is finding.FOREIGN or "other.meta" in disk.inodes())
    if kind.severity is Severity.DAMAGE:
        assert not report.is_sound
    worst = [each.kind.severity for each in report.findings]
    assert worst == sorted(worst, key=list(Severity)[::-1].index)
    assert report.to_dict()["sound"] == report.is_sound


def test_every_kind_has_a_case() -> None:
    assert {kind.name for kind, _, _ in CASES} == {kind.name for kind in KINDS}


@pytest.mark.parametrize("make", [alone, layered])
def test_a_directory_that_was_stopped_cleanly_is_sound(make: Callable[[], MemoryDisk]) -> None:
    report = look(make())
    assert kinds(report) == []
    assert report.is_sound
    assert report.stability == "clean"


def test_layers_are_counted() -> None:
    layers = {each.name: each for each in look(layered()).layers}
    good = {name: each.data.good_blocks for name, each in layers.items() if each.data is not None}
    assert good == {"a": 4, "b": 2, "": 2}
    held = {name: each.map.held_blocks for name, each in layers.items() if each.map is not None}
    assert held == {"b": 3, "": 2}  # b holds zeros too


def test_a_quick_look_reads_no_data() -> None:
    disk = layered()
    flip(A, 0)(disk)
    report = look(disk, quick=True)
    assert report.is_sound
    assert report.layers[0].data is None


def test_progress_adds_up() -> None:
    disk = layered()
    totals: list[int] = []
    done: list[int] = []

    def begin(total_bytes: int) -> Callable[[int], None]:
        totals.append(total_bytes)
        return done.append

    directory = disk.open_directory()
    check(directory, boot_id=BOOT, begin=begin)
    assert totals == [sum(done)]
    assert sum(done) >= 8 * BLOCK


def test_what_is_bad_is_told_by_its_place() -> None:
    disk = layered()
    flip(A, 0)(disk)
    flip(A, 8 * BLOCK + 100)(disk)
    told = look(disk).to_dict()["layers"][0]
    assert told["bad"] == [[0, BLOCK], [8 * BLOCK, 512]]
    assert (told["name"], told["good_blocks"], told["bad_bytes"]) == ("a", 2, BLOCK + 512)


def test_what_a_layer_does_not_hold_does_not_count() -> None:
    """Data that a first write has left which was undone says nothing, whatever its checksum."""
    disk = layered()
    garbled = bytearray(disk.content(B))
    garbled[5 * BLOCK : 6 * BLOCK] = b"x" * BLOCK
    disk.put(B, bytes(garbled))
    assert "bad-blocks" not in kinds(look(disk))


def test_what_is_being_received_and_not_stable_yet_does_not_count() -> None:
    disk = layered()
    store = open_store(disk)
    store.begin_layer("x", parent="b")
    store.write_layer("x", Extent(0, BLOCK), b"x" * BLOCK)
    store.checkpoint_layer("x")
    store.write_layer("x", Extent(BLOCK, BLOCK), b"y" * BLOCK)
    store.close()
    for block, is_bad in ((1, False), (0, True)):
        garbled = bytearray(disk.content("volume-snap-x.img"))
        garbled[block * BLOCK] ^= 1
        disk.put("volume-snap-x.img", bytes(garbled))
        assert ("bad-blocks" in kinds(look(disk))) == is_bad


def create(store: Store, name: str, **fields: Any) -> None:
    """A snapshot, as all replicas of a volume are asked to make it."""
    before = store.chain.generation
    number = len(store.chain.layers) + 1
    change = Change(
        kind=ChangeKind.CREATE, before=before, after=before + 1, number=number, name=name, **fields
    )
    store.change(change)
    store.tidy()


def test_a_layer_that_is_being_filled_is_believed_until_the_machine_goes_down() -> None:
    disk = MemoryDisk(Random(1))
    store = open_store(disk)
    join(store)
    create(store, "a", filling=True)
    for block in (0, 1):
        store.patch("a", Extent(block * BLOCK, BLOCK), [bytes([block + 1]) * BLOCK])
    store.flush()
    disk.kill_process()
    flip(A, 0)(disk)
    assert look(disk).layers[0].data == facts.DataFacts(1, 0, (Extent(0, BLOCK),))
    for boot in ("b-2", "b-3"):  # the first time it is in doubt from then on
        found = look(disk, boot_id=boot).layers[0].data
        assert found == facts.DataFacts(0, unknown_blocks=2)
        store = open_store(disk, boot)
        store.read(0, 2 * BLOCK)  # the store believes it too
        store.patch("a", Extent(0, BLOCK), [b"x" * BLOCK])
        store.flush()
        disk.kill_process()
        flip(A, 0)(disk)


def test_of_a_snapshot_that_is_not_whole_only_what_is_stable_counts_and_its_checksums_say_nothing() -> None:
    disk = MemoryDisk(Random(1))
    store = open_store(disk)
    join(store)
    fill(store, 1, 0)
    create(store, "a")
    create(store, "b", whole=False)
    store.patch("b", Extent(0, BLOCK), [b"x" * BLOCK])
    disk.kill_process()
    assert look(disk).layers[1].data == facts.DataFacts(0)
    store = open_store(disk)
    assert store.read(0, BLOCK) == Random(100).randbytes(BLOCK)
    store.patch("b", Extent(0, BLOCK), [b"x" * BLOCK])
    store.view("b").sync_data()
    disk.kill_process()
    flip(B, 0)(disk)
    assert look(disk).layers[1].data == facts.DataFacts(0, unknown_blocks=1)
    open_store(disk).read(0, BLOCK)


def test_what_opening_would_forget_is_not_called_bad() -> None:
    disk = alone()
    with_state(written_boot_id="b-0", written_regions="1")(disk)
    flip(HEAD_0, 0)(disk)
    report = look(disk)
    assert "bad-blocks" not in kinds(report)
    assert report.is_sound
    store = open_store(disk)
    store.read(0, BLOCK)  # the store believes it too


def test_pages_that_only_the_cache_has_stay_there() -> None:
    """After a flush that failed the cache has what the disk has not: to drop it would lose it."""
    for written, dropped in ((FLUSH_FAILED, False), ("marker", False), (BOOT, False), ("", True)):
        disk = layered()
        if written == "marker":  # the state could not be replaced
            put(facts.FLUSH_FAILED_FILE)(disk)
            written = FLUSH_FAILED
        else:
            with_state(written_boot_id=written, written_regions="1" if written else "")(disk)
        steps: list[str] = []
        disk.before_step = steps.append
        directory = disk.open_directory()
        check(directory, boot_id=BOOT)
        directory.close()
        assert (f"drop {HEAD_2}" in steps) == dropped
        assert (f"drop {A}" in steps) == (written != FLUSH_FAILED)


@pytest.mark.parametrize("unsettled", [{"filling": True}, {"whole": False}])
def test_pages_of_a_snapshot_that_is_written_to_stay_in_the_cache(unsettled: dict[str, bool]) -> None:
    disk = MemoryDisk(Random(1))
    store = open_store(disk)
    create(store, "a", **unsettled)
    store.patch("a", Extent(0, BLOCK), [b"x" * BLOCK])
    disk.kill_process()
    for written, dropped in ((BOOT, False), ("", True)):
        with_state(written_boot_id=written)(disk)
        steps: list[str] = []
        disk.before_step = steps.append
        with contextlib.closing(disk.open_directory()) as directory:
            check(directory, boot_id=BOOT)
        assert (f"drop {A}" in steps) == dropped


def newer(content: bytes, name: str) -> bytes:
    return content.replace(b'"format": 1' if name == STATE_FILE else b'"format":1', b'"format": 9')


@pytest.mark.parametrize("name", [STATE_FILE, CHAIN_FILE])
def test_what_a_newer_version_wrote_is_not_judged(name: str) -> None:
    disk = layered()
    disk.put(name, newer(disk.content(name), name))
    with pytest.raises(ConfigError, match="has format 9"):
        look(disk)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], "is empty"),
        (["a.txt", "b.txt"], r"holds other files \(a.txt, b.txt\)"),
        (["volume.meta", HEAD_0, f"{HEAD_0}.meta"], "is not a pyjiva replica"),
        (["volume.json", "volume.key"], "replica-1"),
    ],
)
def test_what_is_no_replica_is_refused(names: list[str], line: str) -> None:
    disk = MemoryDisk(Random(1))
    for name in names:
        disk.put(name, b"x")
    with pytest.raises(ConfigError, match=line):
        look(disk)


def test_files_and_directories_of_others_do_no_harm(tmp_path: Path) -> None:
    """Also what is no plain file: it is not waited for."""
    path = tmp_path / "replica"
    open_real(path).close()
    (path / "lost+found").mkdir()
    (path / "old").mkdir()
    os.mkfifo(path / "pipe")
    os.symlink("nowhere", path / "link")
    (path / os.fsdecode(b"odd-\xff")).touch()
    before = {each.name: each.lstat().st_mtime_ns for each in path.iterdir()}
    with contextlib.closing(open_read_only(path)) as directory:
        report = check(directory, boot_id=BOOT)
    assert kinds(report) == ["foreign"]
    assert {each.name: each.lstat().st_mtime_ns for each in path.iterdir()} == before


def open_real(path: Path) -> Store:
    wanted = ("volume_id", "replica_id", "volume_name", "size_bytes", "block_size_bytes")
    arguments = {name: getattr(IDENTITY, name) for name in wanted}
    return Store.open_or_create(path, **arguments)


def test_a_directory_in_use_is_refused_and_one_that_is_looked_at_cannot_be_started(tmp_path: Path) -> None:
    path = tmp_path / "replica"
    store = open_real(path)
    with pytest.raises(ConfigError, match="another process has it open"):
        open_read_only(path)
    store.close()
    looking, also = open_read_only(path), open_read_only(path)
    with pytest.raises(ConfigError, match="another process has it open"):
        open_real(path)
    looking.close()
    also.close()
    open_real(path).close()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "absent"):
        with pytest.raises(ConfigError, match="cannot be opened as a directory"):
            open_read_only(tmp_path / name)
    assert not (tmp_path / "absent").exists()


def test_names_and_sizes_are_those_of_the_store() -> None:
    pairs = [
        (facts.BLOCK_BYTES, SUM_BLOCK_BYTES),
        (facts.SUM_BYTES, sums_size_bytes(SUM_BLOCK_BYTES)),
        (facts.TEMPORARY_SUFFIX, TEMPORARY_SUFFIX),
        (facts.MARKER, layout_sys.MARKER),
        (facts.FLUSH_FAILED_FILE, failed_flush_sys.FLUSH_FAILED_FILE),
        (facts.UNDO_FILE, undo_log_sys.UNDO_FILE),
        (facts.STAMP_FILE, stamp_sys.STAMP_FILE),
        (facts.SLOT_FILE, under_way_sys.SLOT_FILE),
    ]
    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_write_in_place_that_a_kill_cut_is_no_damage(is_lost: bool) -> None:
    damage_if_nothing_told = 0
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        store = open_store(disk)
        fill(store, 1, 0, 1, 2, 3)
        store.begin_in_place()
        disk.before_step = cut_power_at(1)
        with contextlib.suppress(PowerCut):
            store.write(0, 2 * BLOCK, [b"n" * 2 * BLOCK], in_place=True)
        disk.before_step = no_fault
        disk.kill_process()
        if is_lost:
            disk.slots.words.clear()
        report = look(disk)
        assert report.is_sound, report.findings
        disk.put(under_way_sys.SLOT_FILE, b"")
        damage_if_nothing_told += not look(disk).is_sound
    assert damage_if_nothing_told


@pytest.mark.parametrize("goes_down", [True, False])
@pytest.mark.parametrize("kind", ["power", "kill"])
def test_a_merge_that_was_cut_is_no_damage(goes_down: bool, kind: str) -> None:
    """What it has half written, in blocks that the layer above hides, is not shown by anything."""
    number, done = 0, False
    while not done:
        disk = layered(number)
        store = open_store(disk)
        store.delete_snapshot("a")
        disk.before_step = cut_power_at(number)
        with contextlib.suppress(PowerCut):
            while (merge := store.next_merge()) is not None:
                merge.choose(goes_down=goes_down)
                while merge.extent is not None:
                    merge.step()
            done = True
        disk.before_step = no_fault
        if kind == "power":
            disk.power_cut()
        else:
            disk.kill_process()
        report = look(disk, boot_id="b-2" if kind == "power" else BOOT)
        assert report.is_sound, (number, report.findings)
        number += 1
    assert number > 10


# --- anything at all


def _damages(random: Random, disk: MemoryDisk) -> str:
    """One byte, one end or one name gone."""
    name = random.choice(sorted(disk.inodes()))
    content = disk.content(name)
    what = random.choice(["flip", "cut", "remove", "garbage"])
    if what == "flip" and content:
        changed = bytearray(content)
        changed[random.randrange(min(len(content), 400))] ^= 1 << random.randrange(8)
        disk.put(name, bytes(changed))
    elif what == "cut":
        cut(name, random.randrange(len(content) + 1))(disk)
    elif what == "garbage":
        disk.put(name, random.randbytes(random.randrange(200)))
    else:
        remove(name)(disk)
    return f"{what} {name}"


@settings(max_examples=300, deadline=None)
@example(seed=0, times=1)
@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_whatever_is_damaged_a_check_says_something(seed: int, times: int) -> None:
    """It gives findings or refuses in one line; and what it calls sound, the store opens."""
    random = Random(seed)
    disk = random.choice([alone, layered])()
    for _ in range(times):
        _damages(random, disk)
    with contextlib.suppress(ConfigError):
        report = look(disk)
        assert report.to_dict()["findings"] or report.is_sound
        if report.is_sound and STATE_FILE in disk.inodes():
            open_store(disk).close()


def test_a_chain_that_tells_of_a_received_layer_is_not_made_from_metas() -> None:
    """They cannot say whether it is there as a whole."""
    disk = layered()
    store = open_store(disk)
    store.begin_layer("x", parent="a")
    store.tidy()
    store.close()
    assert "volume-snap-x.img.meta" in disk.inodes()
    report = look(disk)
    assert report.is_sound
    remove(CHAIN_FILE)(disk)
    assert "chain-lost" in kinds(look(disk))


def test_layers_of_metas_may_be_named_in_any_order() -> None:
    disk = layered()
    before = chain_of(disk)
    remove(CHAIN_FILE)(disk)
    after = chain_of(disk)
    assert attrs.evolve(before, swept_boot_id="", renames=()) == after


@pytest.mark.parametrize("parent", ["volume-snap-b.img", "volume-snap-nowhere.img"])
def test_metas_that_are_no_tree_are_not_believed(parent: str) -> None:
    disk = layered()
    remove(CHAIN_FILE)(disk)
    disk.put(f"{A}.meta", DiskMeta(name=A, parent=parent).encode())
    assert "chain-lost" in kinds(look(disk))


def test_a_witness_is_sound() -> None:
    disk = MemoryDisk(Random(1))
    identity = ReplicaState("v-1", 4, "demo", SIZE_BYTES, 512, witness=True)
    Store.open_in(disk.open_directory(), identity, boot_id=BOOT).close()
    assert kinds(look(disk)) == []
