"""What can be mended is mended, nothing is destroyed, and a repair that was cut at any step is done again."""

import contextlib
from collections.abc import Callable
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.checkup import Plan, carry_out, make_plan
from pyjiva.checkup.facts import KEPT_PREFIX
from pyjiva.checkup.plan import Copy, MakeSums, PutAside, Rename, Write
from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot import Chain
from pyjiva.snapshot.chain import CHAIN_FILE
from pyjiva.snapshot.chain_file import decode_chain, encode_chain
from pyjiva.snapshot.state import REPAIRED, STATE_FILE, ReplicaState, decode_state
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, no_fault
from tests.checkup.replicas import (
    BLOCK,
    BOOT,
    Damage,
    alone,
    content,
    cut,
    extend,
    fill,
    flip,
    kinds,
    layered,
    look,
    open_store,
    put,
    remove,
    stop,
)

HEAD_0, HEAD_2 = "volume-head-000.img", "volume-head-002.img"
A, B = "volume-snap-a.img", "volume-snap-b.img"


def plan_of(disk: MemoryDisk, *, boot_id: str = BOOT, last_copy: bool = False) -> Plan:
    return make_plan(look(disk, boot_id=boot_id, quick=True), stamp="T", last_copy=last_copy)


def repair(disk: MemoryDisk, *, boot_id: str = BOOT, last_copy: bool = False) -> Plan:
    plan = plan_of(disk, boot_id=boot_id, last_copy=last_copy)
    directory = disk.open_directory()
    for step in plan.steps:
        carry_out(directory, step)
    directory.close()
    return plan


def both(*damages: Damage) -> Damage:
    def damage(disk: MemoryDisk) -> None:
        for each in damages:
            each(disk)

    return damage


def leave_a_rename(disk: MemoryDisk) -> None:
    """As if the names of the files of the last snapshot had not been changed yet, nor the .meta files."""
    chain = decode_chain(disk.content(CHAIN_FILE))
    renames = []
    for suffix in ("", ".sums", ".held"):
        old, new = "volume-head-001.img" + suffix, B + suffix
        disk.put(old, disk.content(new))
        remove(new)(disk)
        renames.append((old, new))
    disk.put(CHAIN_FILE, encode_chain(attrs.evolve(chain, renames=tuple(renames))))
    remove(f"{B}.meta")(disk)


def state_of(disk: MemoryDisk) -> ReplicaState:
    return decode_state(disk.content(STATE_FILE))


#: What is mended: name → (directory, what is done to it, whether that is damage).
MENDED: dict[str, tuple[Callable[[], MemoryDisk], Damage, bool]] = {
    "nothing": (layered, lambda _: None, False),
    "renames": (layered, leave_a_rename, False),
    "metas that differ": (layered, both(flip(f"{A}.meta", 1), remove("volume.meta")), False),
    "chain damaged": (layered, flip(CHAIN_FILE), True),
    "chain empty": (layered, cut(CHAIN_FILE, 0), True),
    "chain missing": (layered, remove(CHAIN_FILE), True),
    "chain and sums": (layered, both(flip(CHAIN_FILE), remove(f"{B}.sums"), remove(f"{HEAD_2}.sums")), True),
    "renames and sums": (layered, both(leave_a_rename, remove("volume-head-001.img.sums")), True),
    "sums missing": (layered, remove(f"{A}.sums"), True),
    "sums short": (layered, cut(f"{A}.sums", 10), True),
    "sums of a head alone": (alone, remove(f"{HEAD_0}.sums"), True),
    "volume.meta missing": (alone, remove("volume.meta"), True),
    "metas damaged": (alone, both(flip("volume.meta", 1), flip(f"{HEAD_0}.meta", 1)), True),
    "a meta of nobody": (alone, put("other.meta", b"{"), True),
    "data too long": (alone, extend(HEAD_0), True),
    "sums too long": (alone, extend(f"{HEAD_0}.sums"), True),
    "meta and length": (alone, both(remove("volume.meta"), extend(HEAD_0)), True),
}
mended = pytest.mark.parametrize(("make", "damage", "damaged"), MENDED.values(), ids=list(MENDED))


def check_mended(disk: MemoryDisk, whole: bytes, snapshots: dict[str, bytes], damaged: bool) -> None:
    report = look(disk)
    assert report.is_sound, kinds(report)
    state = state_of(disk)
    assert state.told_equal != damaged
    assert state.written_boot_id == (REPAIRED if damaged else "")
    store = open_store(disk)
    assert store.intact != damaged
    assert content(store) == whole
    for name, old in snapshots.items():
        assert bytes(store.read_at(name, _everything(store.size_bytes))) == old
    store.self_check()
    store.close()
    assert "renames-left" not in kinds(look(disk))


def _everything(size_bytes: int) -> Extent:
    return Extent(0, size_bytes)


def contents(disk: MemoryDisk) -> tuple[bytes, dict[str, bytes]]:
    store = open_store(disk)
    names = [layer.name for layer in store.chain.layers]
    shown = {name: bytes(store.read_at(name, _everything(store.size_bytes))) for name in names}
    whole = content(store)
    store.close()
    return whole, shown


@mended
def test_it_is_mended_and_the_replica_starts(
    make: Callable[[], MemoryDisk], damage: Damage, damaged: bool
) -> None:
    disk = make()
    whole, snapshots = contents(disk)
    damage(disk)
    before = {name: disk.content(name) for name in disk.inodes()}
    plan = repair(disk)
    assert plan.left == ()
    assert plan.behind == damaged
    after = {disk.content(name) for name in disk.inodes()}
    lost = [name for name in before if before[name] not in after and not name.endswith(".sums")]
    assert lost == [], "what was replaced is kept"
    assert all(str(step) and len(str(step).splitlines()) == 1 for step in plan.steps)
    check_mended(disk, whole, snapshots, damaged)
    assert plan_of(disk).steps == ()


@mended
@pytest.mark.parametrize("kind", ["power", "kill"])
def test_a_repair_cut_at_any_step_is_done_again(
    make: Callable[[], MemoryDisk], damage: Damage, damaged: bool, kind: str
) -> None:
    number = 0
    while True:
        disk = make()
        whole, snapshots = contents(disk)
        damage(disk)
        disk.random.seed(number)
        plan = plan_of(disk)
        directory = disk.open_directory()
        disk.before_step = cut_power_at(number)
        try:
            for step in plan.steps:
                carry_out(directory, step)
            break
        except PowerCut:
            disk.before_step = no_fault
        if kind == "power":
            disk.power_cut()
        else:
            disk.kill_process()
        check_claims_nothing(disk, damaged)
        repair(disk)
        check_mended(disk, whole, snapshots, damaged)
        number += 1
    assert number or not plan.steps


def check_claims_nothing(disk: MemoryDisk, damaged: bool) -> None:
    """Half repaired, it is not to be opened, or says that it is behind, or nothing was changed yet."""
    report = look(disk, quick=True)
    if report.is_sound and damaged:
        assert not state_of(disk).told_equal
        assert state_of(disk).written_boot_id == REPAIRED


#: What is not mended: name → (directory, damage).
HOPELESS: dict[str, tuple[Callable[[], MemoryDisk], Damage]] = {
    "state missing": (layered, remove(STATE_FILE)),
    "state damaged": (layered, flip(STATE_FILE, 40)),
    "data missing": (layered, remove(A)),
    "data short": (layered, cut(A, BLOCK)),
    "map missing": (layered, remove(f"{B}.held")),
    "map damaged": (layered, flip(f"{B}.held", 1)),
    "chain and metas": (layered, both(flip(CHAIN_FILE), flip(f"{B}.meta", 1))),
    "a map, and a chain that could be mended": (layered, both(flip(CHAIN_FILE), flip(f"{B}.held", 1))),
}


@pytest.mark.parametrize(("make", "damage"), HOPELESS.values(), ids=list(HOPELESS))
def test_what_nothing_tells_is_not_made_up(make: Callable[[], MemoryDisk], damage: Damage) -> None:
    disk = make()
    damage(disk)
    before = {name: disk.content(name) for name in disk.inodes()}
    plan = repair(disk)
    assert plan.steps == ()
    assert plan.left
    assert {name: disk.content(name) for name in disk.inodes()} == before


def test_rot_is_left_to_the_volume() -> None:
    disk = layered()
    flip(A, 0)(disk)
    plan = make_plan(look(disk), stamp="T")
    assert plan.steps == ()
    assert [each.kind.name for each in plan.left] == ["bad-blocks"]


def test_the_last_copy_may_still_be_taken_for_what_the_record_names() -> None:
    disk = layered()
    remove(f"{A}.sums")(disk)
    repair(disk, last_copy=True)
    state = state_of(disk)
    assert state.told_equal
    assert state.written_boot_id == REPAIRED


def test_the_state_is_changed_before_anything_else() -> None:
    disk = layered()
    both(flip(CHAIN_FILE), remove(f"{A}.sums"))(disk)
    steps = plan_of(disk).steps
    first = next(step for step in steps if not isinstance(step, Copy))
    assert isinstance(first, Write)
    assert first.name == STATE_FILE
    assert [type(step) for step in steps[2:]] == [PutAside, Write, MakeSums]


def test_first_writes_of_this_boot_outlive_a_repair() -> None:
    """A store that is not intact undoes them, unless this boot is known to have been swept."""
    disk = layered()
    store = open_store(disk, "b-2")
    fill(store, 7, 5, 6)
    whole = content(store)
    disk.kill_process()
    remove(f"{A}.sums")(disk)
    repair(disk, boot_id="b-2")
    store = open_store(disk, "b-2")
    assert not store.intact
    assert content(store) == whole
    store.close()
    disk.power_cut()  # they were never flushed: now they may go
    store = open_store(disk, "b-3")
    assert content(store)[: 5 * BLOCK] == whole[: 5 * BLOCK]
    assert not any(content(store)[5 * BLOCK : 7 * BLOCK])


def test_it_stays_behind_until_a_controller_says_otherwise() -> None:
    disk = layered()
    remove(f"{A}.sums")(disk)
    repair(disk)
    store = open_store(disk)
    fill(store, 8, 1)
    store.flush()
    assert not store.mark_clean()
    store.close()
    store = open_store(disk, "b-2")
    assert not store.intact
    store.mark_intact()
    store.save_state(attrs.evolve(store.state, told_equal=True))
    stop(store)
    assert look(disk, boot_id="b-2").stability == "clean"


def test_kept_files_do_no_harm_and_get_names_of_their_own() -> None:
    disk = layered()
    for _ in range(2):
        flip(CHAIN_FILE)(disk)
        repair(disk)
        stop_behind(disk)
    kept = [name for name in disk.inodes() if name.startswith(KEPT_PREFIX)]
    assert f"{KEPT_PREFIX}T.{CHAIN_FILE}.kept" in kept
    assert f"{KEPT_PREFIX}T-2.{CHAIN_FILE}.kept" in kept
    assert kinds(look(disk)).count("kept-by-repair") == 1


def stop_behind(disk: MemoryDisk) -> None:
    store = open_store(disk)
    store.flush()
    store.close()


def test_a_new_name_that_is_taken_is_kept_too() -> None:
    disk = layered()
    leave_a_rename(disk)
    disk.put(B, b"an older one")
    plan = repair(disk)
    assert PutAside(B, f"{KEPT_PREFIX}T.{B}.kept") in plan.steps
    assert Rename("volume-head-001.img", B) in plan.steps
    assert disk.content(f"{KEPT_PREFIX}T.{B}.kept") == b"an older one"


def test_a_chain_from_metas_is_the_one_that_was() -> None:
    disk = layered()
    before = decode_chain(disk.content(CHAIN_FILE))
    flip(CHAIN_FILE)(disk)
    repair(disk)
    after = decode_chain(disk.content(CHAIN_FILE))
    assert attrs.evolve(after, swept_boot_id="", renames=()) == Chain(
        head_number=before.head_number, head_parent=before.head_parent, layers=before.layers
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), times=st.integers(1, 3))
def test_whatever_is_damaged_a_repair_leaves_what_the_store_opens_or_says_that_it_cannot(
    seed: int, times: int
) -> None:
    random = Random(seed)
    disk = random.choice([alone, layered])()
    for _ in range(times):
        name = random.choice(sorted(disk.inodes()))
        if random.getrandbits(1) and (old := disk.content(name)):
            changed = bytearray(old)
            changed[random.randrange(min(len(old), 400))] ^= 1 << random.randrange(8)
            disk.put(name, bytes(changed))
        else:
            remove(name)(disk)
    with contextlib.suppress(ConfigError, StorageError):
        plan = repair(disk)
        report = look(disk, quick=True)
        assert report.is_sound == (not plan.left)
        if report.is_sound and STATE_FILE in disk.inodes():
            open_store(disk).close()
