"""The layer below a head that takes more writes than a merge moves: it takes the writes to what it has, and
the merge ends; what a crash leaves of that.
"""

import itertools
import threading
from collections.abc import Callable
from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.block_sums import sums_of_all
from pyjiva.checkup.plan import make_plan
from pyjiva.checkup.repair_sys import carry_out
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import Merge, Store, merge_sys
from pyjiva.snapshot.chain import CHAIN_FILE, HEAD
from pyjiva.snapshot.layer_stack_sys import OpenLayer
from pyjiva.snapshot.merge_sys import Next
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import MIB
from tests.checkup.replicas import kinds, look
from tests.snapshot.stacks import (
    BLOCK,
    IDENTITY,
    SIZE_BYTES,
    held_bytes,
    layered,
    merge_of,
    open_memory,
    stack_of,
)

LAST: Final = SIZE_BYTES - SIZE_BYTES % BLOCK


def put(store: Store, block: int, letter: bytes) -> None:
    store.write(block * BLOCK, BLOCK, [letter * BLOCK])


def block_of(store: Store, block: int) -> bytes:
    return bytes(store.read(block * BLOCK, BLOCK))


def reopened(disk: MemoryDisk, *, mapped: bool = True) -> tuple[Store, Merge]:
    """Blocks 0, 1, 2 and 7 are in the reopened layer, 2 and 3 in the head, all of them stable.

    Where `mapped`, the others are in a layer below, which also has zeros in block 9.
    """
    store = layered(disk)
    store.zero(9 * BLOCK, BLOCK)
    if mapped:
        store.create_snapshot("lowest")
    for block in (0, 1, 2, 7):
        put(store, block, b"l")
    store.create_snapshot("low")
    for block in (2, 3):
        put(store, block, b"h")
    store.flush()
    assert store.mark_clean()
    store.delete_snapshot("low")
    merge = merge_of(store, goes_down=True)
    merge.reopen()
    assert merge.extent == Extent(0, SIZE_BYTES)
    assert merge.step() == 0
    assert store.chain.reopened == "low"
    assert merge.is_reopened
    return store, merge


def layer_of(store: Store, name: str) -> OpenLayer:
    return store._layers.open_layers[name]


def in_layer(store: Store, name: str, block: int) -> bytes:
    return bytes(layer_of(store, name).file.read_unverified(block * BLOCK, BLOCK))


def finish(store: Store) -> None:
    merge = merge_of(store)
    while merge.extent is not None:
        merge.step()


@pytest.mark.parametrize("in_place", [True, False])
def test_what_it_has_is_written_there_and_what_the_head_has_there(in_place: bool) -> None:
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    store.begin_in_place()
    before = held_bytes(disk, store.chain.head_file)
    for block in (0, 2):
        store.write(block * BLOCK, BLOCK, [b"n" * BLOCK], in_place=in_place)
    assert in_layer(store, "low", 0) == b"n" * BLOCK
    assert in_layer(store, "low", 2) == b"l" * BLOCK, "the head hides it"
    assert in_layer(store, HEAD, 2) == b"n" * BLOCK
    assert held_bytes(disk, store.chain.head_file) == before
    assert [block_of(store, block)[:1] for block in range(4)] == [b"n", b"l", b"n", b"h"]
    store.verify(Extent(0, SIZE_BYTES))


def test_what_neither_has_is_written_to_the_head() -> None:
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    put(store, 5, b"n")
    assert in_layer(store, HEAD, 5) == b"n" * BLOCK
    assert in_layer(store, "low", 5) != b"n" * BLOCK
    assert held_bytes(disk, store.chain.head_file)[5]
    assert block_of(store, 5) == b"n" * BLOCK


def test_the_lowest_layer_has_all() -> None:
    store, _ = reopened(MemoryDisk(Random(0)), mapped=False)
    for block in (0, 5, 9):
        put(store, block, b"n")
        assert in_layer(store, "low", block) == b"n" * BLOCK
    store.write(LAST, 512, [b"e" * 512])
    assert store.read(LAST, 512) == b"e" * 512
    assert merge_of(store)._count_down() == 2 * BLOCK


@pytest.mark.parametrize("with_sums", [True, False])
@pytest.mark.parametrize("pieces", [1, 3])
def test_one_write_goes_to_three_layers(with_sums: bool, pieces: int) -> None:
    """Of blocks 1 to 5 the reopened layer has the first, the head two, and neither the others."""
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    data = Random(1).randbytes(5 * BLOCK)
    cuts = [0, 700, 9000, len(data)] if pieces == 3 else [0, len(data)]
    buffers = [data[start:end] for start, end in itertools.pairwise(cuts)]
    store.write(BLOCK, len(data), buffers, sums_of_all([data]) if with_sums else None)
    assert store.read(BLOCK, len(data)) == data
    store.verify(Extent(0, SIZE_BYTES))
    assert in_layer(store, "low", 1) == data[:BLOCK]
    assert [in_layer(store, HEAD, at) == data[(at - 1) * BLOCK : at * BLOCK] for at in (2, 3, 4, 5)] == [
        True
    ] * 4


def test_a_write_that_begins_elsewhere_goes_there_as_far_as_it_has_the_blocks() -> None:
    """And checksums that are known go with the blocks: here they say that nothing is known."""
    store, merge = reopened(MemoryDisk(Random(0)))
    before = merge._count_down()
    data = Random(1).randbytes(2 * BLOCK)
    store.write(6 * BLOCK, len(data), [data], bytes(16))
    assert merge._count_down() == before + BLOCK, "block 6 alone"
    assert in_layer(store, "low", 7) == data[BLOCK:]
    assert layer_of(store, "low").file._sums.read(7 * 8, 8) == bytes(8)
    assert layer_of(store, HEAD).file._sums.read(6 * 8, 8) == bytes(8)
    assert store.read(6 * BLOCK, len(data)) == data


def test_a_write_that_begins_and_ends_within_blocks_keeps_what_is_around_it() -> None:
    """The reopened layer has its first block, and nobody but the lowest its last one."""
    store, _ = reopened(MemoryDisk(Random(0)))
    old = bytes(store.read(0, SIZE_BYTES))
    start, end = BLOCK + 512, 4 * BLOCK + 1024
    data = Random(2).randbytes(end - start)
    put(store, 0, b"l")
    assert store.writes_in_place(0, SIZE_BYTES)
    assert not store.writes_in_place(start, len(data)), "the last block is read from below"
    store.write(start, len(data), [data])
    assert store.read(0, SIZE_BYTES) == old[:start] + data + old[end:]
    inner = b"i" * 512
    assert not store.writes_in_place(512, 512), "it may have to wait for an atomic write beside it"
    store.write(512, 512, [inner])
    assert store.read(0, BLOCK) == b"l" * 512 + inner + b"l" * (BLOCK - 1024)
    store.verify(Extent(0, SIZE_BYTES))


@pytest.mark.parametrize("mapped", [True, False])
def test_zeros_go_where_the_block_is(mapped: bool) -> None:
    store, merge = reopened(MemoryDisk(Random(0)), mapped=mapped)
    before = merge._count_down()
    store.zero(0, BLOCK)
    store.zero(2 * BLOCK, BLOCK)
    assert merge._count_down() == before
    for block in (0, 2):
        assert block_of(store, block) == bytes(BLOCK)
    assert store.allocated(Extent(0, 3 * BLOCK)) == [Extent(BLOCK, BLOCK)]
    store.zero(512, BLOCK)  # parts of two blocks that the layer has
    assert store.read(BLOCK, 512) == bytes(512)
    assert store.read(BLOCK + 512, 512) == b"l" * 512
    finish(store)
    assert block_of(store, 0) == block_of(store, 2) == bytes(BLOCK)


def test_a_block_that_nobody_has_any_more_is_bad_where_it_is() -> None:
    store, _ = reopened(MemoryDisk(Random(0)))
    store.spoil(Extent(0, 3 * BLOCK))
    for block in (0, 1, 2):
        with pytest.raises(StorageError) as caught:
            store.read(block * BLOCK, BLOCK)
        assert caught.value.failure is StorageFailure.BAD_CHECKSUM
        put(store, block, b"n")
        assert block_of(store, block) == b"n" * BLOCK


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("kind", ["power", "kill"])
def test_cut_anywhere_what_was_flushed_is_there_and_no_write_looks_like_rot(kind: str, mapped: bool) -> None:
    """Hosts write, flush, write again, and merge; after a cut before each step of the disk."""

    def go_on(store: Store, done: list[str]) -> None:
        merge = merge_of(store)
        for letter in (b"x", b"y"):
            for block in (0, 2, 5):
                put(store, block, letter)
            store.write(BLOCK + 512, 2 * BLOCK, [letter * 2 * BLOCK])
            done.append(f"{letter.decode()} written")
            if letter == b"x":
                store.flush()
                done.append("x flushed")
            merge.step()
        store.retire_regions()
        store.retire_regions()
        while merge.extent is not None:
            merge.step()
        done.append("merged")

    number, merged = 0, False
    while not merged:
        disk = MemoryDisk(Random(number))
        store, _ = reopened(disk, mapped=mapped)
        old = bytes(store.read(0, SIZE_BYTES))
        done: list[str] = []
        disk.before_step = cut_power_at(number)
        try:
            go_on(store, done)
            merged = True
        except PowerCut:
            number += 1
        disk.before_step = no_fault
        boot = "b-1"
        if kind == "power":
            disk.power_cut()
            boot = "b-2"
        else:
            disk.kill_process()
        report = look(disk, boot_id=boot)
        assert report.is_sound, (number, report.findings)
        store = open_memory(disk, boot)
        store.verify(Extent(0, SIZE_BYTES))
        found = bytes(store.read(0, SIZE_BYTES))
        answered = "x flushed" in done if kind == "power" else "x written" in done
        for at in range(0, SIZE_BYTES, 512):
            sector = found[at : at + 512]
            is_written = at // BLOCK in (0, 2, 5) or BLOCK + 512 <= at < 3 * BLOCK + 512
            letters = [] if answered and is_written else [old[at : at + 512]]
            letters += [letter * 512 for letter in (b"x", b"y") if is_written]
            assert sector in letters, (number, at)
        if kind == "kill" and "y written" in done:
            assert block_of(store, 0) == b"y" * BLOCK
        assert store.chain.reopened == ("low" if "low" in store.chain else "")
        store.flush()
        if "low" in store.chain:
            finish(store)
        assert store.read(0, SIZE_BYTES) == found
        assert "low" not in store.chain
        store.self_check()
        store.close()
    assert number > 40


def test_it_is_open_again_after_a_restart_and_a_flush_then_is_of_it_too() -> None:
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    put(store, 0, b"x")
    disk.kill_process()
    store = open_memory(disk)
    assert stack_of(store).reopened_number == 1
    put(store, 1, b"y")
    assert in_layer(store, "low", 1) == b"y" * BLOCK
    store.flush()
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert [block_of(store, block)[:1] for block in range(4)] == [b"x", b"y", b"h", b"h"]
    merge = merge_of(store)
    assert merge.goes_down
    for block in (4, 5, 6, 8):
        put(store, block, b"m")
    merge = merge_of(store)
    assert merge.total_bytes == merge.left_bytes == 6 * BLOCK, "down, though up is less"
    merge.choose(goes_down=False)
    assert merge.goes_down, "what it has over a hole of old would not be copied up"


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("how", ["flush and mark", "retire"])
def test_checksums_are_kept_where_all_is_said_to_be_stable(how: str, mapped: bool) -> None:
    """As a power cut leaves it: the layer's checksums are synced with those of the head."""
    for seed in range(10):
        disk = MemoryDisk(Random(seed))
        store, _ = reopened(disk, mapped=mapped)
        put(store, 0, b"x")
        store.flush()
        if how == "retire":
            store.retire_regions()
            store.retire_regions()
        else:
            assert store.mark_clean()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        file = layer_of(store, "low").file
        assert bytes(file._sums.read(0, 8)) == sums_of_all([b"x" * BLOCK])


def test_what_was_torn_by_a_power_cut_is_no_rot() -> None:
    """Its checksums are forgotten where writes were made; those of other layers are not."""
    for seed in range(30):
        disk = MemoryDisk(Random(seed))
        store, _ = reopened(disk)
        for letter in b"abcdefgh":
            put(store, 0, bytes((letter,)))
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert set(store.read(0, BLOCK)) <= set(b"labcdefgh")
        assert bytes(layer_of(store, "low").file._sums.read(0, 8)) == bytes(8)
        assert bytes(layer_of(store, "lowest").file._sums.read(0, 8)) != bytes(8)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_flush_that_fails_for_it_is_told_and_what_it_may_lack_is_written_again(mapped: bool) -> None:
    """The page cache may show of it what the disk does not have."""
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk, mapped=mapped)
    put(store, 0, b"x")
    its_file = f"volume-head-00{int(mapped)}.img"  # as it was called when it was opened
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, f"sync {its_file}")
    with pytest.raises(StorageError, match="injected"):
        store.flush()
    disk.before_step = no_fault
    assert store.broken is not None
    disk.kill_process()
    store = open_memory(disk)
    assert not store.intact
    store.flush()
    disk.power_cut()
    assert block_of(open_memory(disk, "b-2"), 0) == b"x" * BLOCK


def test_the_next_snapshot_closes_it_with_all_that_it_has() -> None:
    disk = MemoryDisk(Random(0))
    store, merge = reopened(disk)
    put(store, 0, b"x")
    store.create_snapshot("next")
    assert store.chain.reopened == ""
    assert stack_of(store).reopened_number == -1
    put(store, 0, b"y")
    assert in_layer(store, "low", 0) == b"x" * BLOCK
    merge.step()
    assert merge.extent is None, "it is of a chain that is no more"
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.read_at("next", Extent(0, BLOCK)) == b"x" * BLOCK
    finish(store)
    assert store.read_at("next", Extent(0, BLOCK)) == b"x" * BLOCK
    assert "low" not in store.chain


@pytest.mark.parametrize("keep", [True, False])
def test_a_revert_takes_it_away(keep: bool) -> None:
    store, _ = reopened(MemoryDisk(Random(0)))
    put(store, 0, b"x")
    store.revert("lowest", keep_newer=keep)
    assert "low" not in store.chain
    assert block_of(store, 0) == b"\1" * BLOCK
    put(store, 0, b"y")
    assert block_of(store, 0) == b"y" * BLOCK


def test_its_name_may_be_taken() -> None:
    store, _ = reopened(MemoryDisk(Random(0)))
    put(store, 0, b"x")
    store.create_snapshot("low")
    assert store.chain.reopened == ""
    assert store.read_at("low", Extent(0, BLOCK)) == b"x" * BLOCK
    finish(store)
    assert store.read_at("low", Extent(0, BLOCK)) == b"x" * BLOCK


@pytest.mark.parametrize("step", [f"create {CHAIN_FILE}.tmp", f"write {CHAIN_FILE}.tmp"])
def test_a_full_disk_leaves_it_as_it_was(step: str) -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    put(store, 1, b"h")
    store.flush()
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=True)
    merge.reopen()
    disk.before_step = fail_at(0, StorageFailure.NO_SPACE, step)
    with pytest.raises(StorageError):
        merge.step()
    disk.before_step = no_fault
    assert store.broken is None
    assert not merge.is_reopened
    put(store, 2, b"n")
    assert in_layer(store, HEAD, 2) == b"n" * BLOCK
    merge.step()
    assert merge.is_reopened
    finish(store)
    assert [block_of(store, block)[:1] for block in (1, 2)] == [b"h", b"n"]


def test_nobody_is_told_of_a_window() -> None:
    """Who looks takes it that the head has what was written: a write to the layer below would not show."""
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    with pytest.raises(StorageError) as caught:
        store.window(1)
    assert caught.value.failure is StorageFailure.NOT_READY
    finish(store)
    assert store.window(1).layers


def test_the_stamp_changes_before_it_takes_a_write() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    put(store, 1, b"h")
    store.flush()
    store.delete_snapshot("a")
    told = store.window(1).stamp
    merge = merge_of(store, goes_down=True)
    merge.reopen()
    merge.step()
    assert disk.content("pyjiva-stamp").hex() != told


def test_an_atomic_write_is_kept_whole() -> None:
    """Its blocks come to the head first, where the log can put them back."""
    for number in range(200):
        disk = MemoryDisk(Random(number))
        store, _ = reopened(disk)
        disk.before_step = cut_power_at(number)
        done = False
        try:
            store.write_atomic(0, 3 * BLOCK, [b"a" * 3 * BLOCK])
            done = True
            disk.before_step = no_fault
            finish(store)
        except PowerCut:
            disk.before_step = no_fault
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert store.read(0, 3 * BLOCK) in (b"l" * 2 * BLOCK + b"h" * BLOCK, b"a" * 3 * BLOCK)
        if done:
            assert number > 10
            return
    pytest.fail("it does not end")


# --- when a merge reopens


SPREAD: Final = attrs.evolve(IDENTITY, size_bytes=64 * MIB)


def outrun(lower_blocks: int, *, child_is_head: bool = True) -> tuple[Store, Merge]:
    """A small head above a snapshot of so many blocks."""
    store = open_memory(MemoryDisk(Random(0)), identity=SPREAD)
    store.write(0, lower_blocks * BLOCK, [b"l" * lower_blocks * BLOCK])
    store.create_snapshot("low")
    store.write(0, 40 * BLOCK, [b"h" * 40 * BLOCK])
    if not child_is_head:
        store.create_snapshot("up")
    store.flush()
    store.delete_snapshot("low")
    merge = merge_of(store)
    assert merge.goes_down
    return store, merge


def steps_under_load(store: Store, merge: Merge, host: Callable[[int], None]) -> list[str]:
    """What becomes of a merge when a host does that before each of its steps."""
    seen: list[str] = []
    for number in range(60):
        if merge.extent is None:
            return seen
        host(number)
        if merge.wants_flush:
            store.flush()
        left_bytes = merge.left_bytes
        left_bytes -= min(merge.step(), left_bytes)
        if merge.turns_up:
            assert merge.extent is None
            merge.turn_up()
            assert not merge.goes_down
            left_bytes = merge._count_up()
        elif merge.next is not Next.MOVE and merge.extent is not None:
            assert merge.extent == Extent(0, store.size_bytes), "nothing may be in flight"
            left_bytes = merge._count_down() if merge.goes_down else left_bytes
        elif merge.extent is None:
            left_bytes = 0
        elif merge._begins:
            left_bytes = merge._held_bytes
        assert merge.left_bytes == left_bytes
        state = "reopened" if merge.is_reopened else "down" if merge.goes_down else "up"
        if not seen or seen[-1] != state:
            seen.append(state)
    return [*seen, "does not end"]


def host_of(store: Store, blocks: int, places: int) -> Callable[[int], None]:
    """Writes so many blocks, going round through so many places."""

    def host(number: int) -> None:
        for at in range(number * blocks, (number + 1) * blocks):
            store.write(at % places * 2 * BLOCK, BLOCK, [bytes((number % 250 + 1,)) * BLOCK])

    return host


@pytest.fixture
def small_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_sys, "LAST_BYTES_MAX", 8 * BLOCK)
    monkeypatch.setattr(merge_sys, "LAST_BYTES_GOOD", 2 * BLOCK)


@pytest.mark.parametrize(
    ("lower_blocks", "written", "places", "becomes"),
    [
        (1000, 5, 60, ["down", "reopened", "down"]),
        (1000, 2, 60, ["down"]),
        (130, 200, 200, ["down", "up"]),
    ],
    ids=["takes more than is moved", "takes less", "takes so much that up is not far"],
)
@pytest.mark.usefixtures("small_last_step")
def test_a_merge_that_is_outrun_ends(
    lower_blocks: int, written: int, places: int, becomes: list[str]
) -> None:
    store, merge = outrun(lower_blocks)
    model = bytearray(store.read(0, store.size_bytes))
    host = host_of(store, written, places)

    def host_and_model(number: int) -> None:
        host(number)
        for at in range(number * written, (number + 1) * written):
            place = at % places * 2 * BLOCK
            model[place : place + BLOCK] = bytes((number % 250 + 1,)) * BLOCK

    assert steps_under_load(store, merge, host_and_model) == becomes
    assert store.read(0, store.size_bytes) == model
    assert not store.chain.layers


@pytest.mark.usefixtures("small_last_step")
def test_two_sealed_layers_are_merged_without() -> None:
    store, merge = outrun(1000, child_is_head=False)
    assert steps_under_load(store, merge, host_of(store, 50, 500)) == ["down"]


@pytest.mark.usefixtures("small_last_step")
@pytest.mark.parametrize("written", ["to what neither has", "atomically"])
def test_if_that_does_not_help_it_goes_up(written: str) -> None:
    """All that comes to the head is moved, and comes again."""
    store = open_memory(MemoryDisk(Random(0)), identity=SPREAD)
    put(store, 0, b"k")
    store.create_snapshot("lowest")
    for at in range(500):
        put(store, 2000 + at, b"l")
    store.create_snapshot("low")
    for at in range(40):
        put(store, 3000 + at, b"h")
    store.flush()
    store.delete_snapshot("low")
    merge = merge_of(store)
    assert merge.goes_down

    def host_atomically(number: int) -> None:
        for at in range(number * 5, (number + 1) * 5):
            place = (2000 + at % 60 * 2) * BLOCK
            store.write_atomic(place, BLOCK, [bytes((number % 250 + 1,)) * BLOCK])

    host = host_atomically if written == "atomically" else host_of(store, 30, 600)
    assert steps_under_load(store, merge, host) == ["down", "reopened", "up"]
    assert [layer.name for layer in store.chain.layers] == ["lowest"]
    assert store.chain.reopened == ""
    assert store.read(2100 * BLOCK, BLOCK) != b"l" * BLOCK or written != "atomically"
    assert store.read(2499 * BLOCK, BLOCK) == b"l" * BLOCK


def test_closing_it_makes_all_stable_first() -> None:
    """From then on no power cut is thought to have touched it."""
    for number in range(100):
        disk = MemoryDisk(Random(number))
        store, merge = reopened(disk)
        put(store, 0, b"x")
        merge._set_next(Next.CLOSE)
        assert merge.wants_flush
        disk.before_step = cut_power_at(number)
        done = False
        try:
            merge.step()
            done = True
        except PowerCut:
            pass
        disk.before_step = no_fault
        if done:
            put(store, 1, b"y")
            assert in_layer(store, HEAD, 1) == b"y" * BLOCK
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert store.chain.reopened == ("" if done else store.chain.reopened)
        assert set(store.read(0, BLOCK)) <= set(b"x" if not store.chain.reopened else b"lx")
        store.verify(Extent(0, SIZE_BYTES))
        if done:
            assert merge.turns_up
            assert number > 4
            return
    pytest.fail("it does not end")


def test_it_does_not_turn_up_in_another_chain() -> None:
    store, merge = reopened(MemoryDisk(Random(0)))
    merge._set_next(Next.CLOSE)
    merge.step()
    assert merge.turns_up
    store.create_snapshot("other")
    merge.turn_up()
    assert merge.extent is None
    assert not merge.turns_up


def test_a_layer_that_is_written_to_otherwise_is_not_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that another snapshot stands on."""
    monkeypatch.setattr(merge_sys, "LAST_BYTES_MAX", 8 * BLOCK)
    for child_is_head in (True, False):
        _, merge = outrun(1000, child_is_head=child_is_head)
        merge._held_bytes = 40 * BLOCK
        merge._choose_after_a_way_down()
        assert merge.next is (Next.REOPEN if child_is_head else Next.MOVE)
    _, merge = outrun(1000)
    merge._held_bytes = 40 * BLOCK
    monkeypatch.setattr("pyjiva.snapshot.chain.Layer.unsettled", property(lambda _: True))
    merge._choose_after_a_way_down()
    assert merge.next is Next.MOVE


def test_what_hosts_wrote_since_the_last_step_was_chosen_may_be_too_much_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merge_sys, "LAST_BYTES_MAX", 8 * BLOCK)
    store, merge = outrun(1000)
    store.flush()
    while merge.next is not Next.LAST:
        merge.step()
    for block in range(100, 120):
        put(store, block, b"n")
    store.flush()
    assert merge.step() == 0
    assert (merge.next.name, merge.left_bytes) == ("MOVE", 20 * BLOCK)
    while merge.extent is not None:
        merge.step()
    assert not store.chain.layers
    assert block_of(store, 110) == b"n" * BLOCK


# --- beside an atomic write to another part of the block


@pytest.mark.parametrize("step", ["read volume-head-001.img", "read volume-head-001.img.sums"])
@pytest.mark.parametrize("first", ["atomic", "plain", "zeros"])
def test_two_writes_to_parts_of_one_block_are_both_there(step: str, first: str) -> None:
    """One of them is atomic, and lifts the block to the head, while the other one writes to where it was.

    The lock of the controller lets them run at once.  One that comes amid the other has to wait for it.
    """
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    put(store, 7, b"m")
    calls = {
        "atomic": lambda: store.write_atomic(512, 512, [b"A" * 512]),
        "plain": lambda: store.write(0, 512, [b"W" * 512]),
        "zeros": lambda: store.zero(0, 512),
    }
    other = threading.Thread(target=calls["plain" if first == "atomic" else "atomic"])

    def begin_the_other(each: str) -> None:
        if each == step and not other.ident:
            other.start()
            other.join(0.05)

    disk.before_step = begin_the_other
    calls[first]()
    assert other.ident, "the step has another name"
    other.join(10)
    disk.before_step = no_fault
    expected = {"zeros": b"\0"}.get(first, b"W") * 512 + b"A" * 512 + b"l" * (BLOCK - 1024)
    assert block_of(store, 0) == expected
    store.flush()
    finish(store)
    assert block_of(store, 0) == expected


def test_a_repair_of_it_beside_a_flush_hides_no_failed_sync() -> None:
    """The kernel tells a failure to one caller: a flush must not find all well meanwhile."""
    disk = MemoryDisk(Random(0))
    store, _ = reopened(disk)
    put(store, 0, b"x")
    seen: list[str] = []
    with store._flush_lock:
        disk.before_step = seen.append
        repair = threading.Thread(target=store.repair_layer, args=("low", Extent(BLOCK, BLOCK), b"l" * BLOCK))
        repair.start()
        repair.join(0.05)
        assert repair.is_alive()
        assert not [step for step in seen if step.startswith("sync")]
    repair.join(10)
    assert not repair.is_alive()


# --- what else is told of it


def test_a_chain_made_anew_takes_it_that_the_layer_was_reopened() -> None:
    """The `.meta` files do not say; what was torn in it must not look like rot."""
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        store, _ = reopened(disk)
        store.tidy()
        for letter in b"abcdefgh":
            put(store, 0, bytes((letter,)))
        disk.power_cut()
        disk.rot(CHAIN_FILE, 40)
        report = look(disk, boot_id="b-2")
        assert "chain-damaged" in kinds(report)
        assert "bad-blocks" not in kinds(report)
        directory = disk.open_directory()
        for step in make_plan(report, stamp="t").steps:
            carry_out(directory, step)
        disk.kill_process()
        store = open_memory(disk, "b-2")
        assert store.chain.reopened == "low"
        store.verify(Extent(0, SIZE_BYTES))
        finish(store)


@pytest.mark.parametrize("is_another", [True, False])
def test_what_was_kept_is_given_back_when_space_runs_short(is_another: bool) -> None:
    """The head goes on taking writes that it has not moved yet: its file has more than it holds."""
    store, merge = outrun(1000)
    merge.frees_early = False
    while merge.next is Next.MOVE:
        merge.step()
    head = layer_of(store, HEAD).file
    whole = Extent(0, store.size_bytes)
    assert sum(part.length_bytes for part in head.allocated(whole)) >= 40 * BLOCK
    put(store, 5000, b"n")  # in another chunk
    store.flush()
    if is_another:  # as after a step that found the disk full
        merge = merge_of(store, goes_down=True)
    else:
        merge.frees_early = True
        merge._go_down_again()
    while merge.next is Next.MOVE:
        merge.step()
    assert head.allocated(whole) == []
