"""Every change of the chain, cut at every one of its steps in turn, and over real files."""

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.chain import CHAIN_FILE, HEAD
from pyjiva.snapshot.metadata import VolumeMeta
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import KIB, MIB

BLOCK: Final = 4 * KIB
SIZE_BYTES: Final = 32 * KIB + 512
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
WHOLE: Final = Extent(0, SIZE_BYTES)
HEAD_FILE: Final = "volume-head-000.img"


def open_memory(disk: MemoryDisk, boot_id: str = "b-1") -> Store:
    size = SIZE_BYTES
    if STATE_FILE in disk.inodes():
        size = decode_state(disk.content(STATE_FILE)).size_bytes
    identity = attrs.evolve(IDENTITY, size_bytes=size)
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


def fill(store: Store, seed: int, *blocks: int) -> None:
    for block in blocks:
        length = min(BLOCK, SIZE_BYTES - block * BLOCK)
        store.write(block * BLOCK, length, [Random(seed * 100 + block).randbytes(length)])


def prepared(disk: MemoryDisk) -> Store:
    """Snapshots a, b and c, each with blocks of its own, and a head."""
    store = open_memory(disk)
    fill(store, 1, 0, 1, 2, 8)
    store.create_snapshot("a")
    fill(store, 2, 1, 3)
    store.zero(2 * BLOCK, BLOCK)
    store.create_snapshot("b")
    fill(store, 3, 4, 8)
    store.create_snapshot("c")
    fill(store, 4, 5, 0)
    store.flush()
    return store


def merge_all(store: Store, goes_down: bool | None = None) -> None:
    while (merge := store.next_merge()) is not None:
        if goes_down is not None:
            merge.choose(goes_down=goes_down)
        while merge.extent is not None:
            merge.step()


def delete_and_merge(name: str, goes_down: bool) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        store.delete_snapshot(name)
        merge_all(store, goes_down)

    return change


def receive(store: Store) -> None:
    store.begin_layer("x", parent="b")
    store.write_layer("x", Extent(BLOCK, BLOCK), b"x" * BLOCK)
    store.write_layer("x", Extent(2 * BLOCK, BLOCK), None)
    store.seal_layer("x")


def create_prepared(store: Store) -> None:
    store.prepare_snapshot()
    store.create_snapshot("d", tidy=False)
    store.tidy()


def grow_and_shrink(store: Store) -> None:
    store.grow(SIZE_BYTES + 3 * BLOCK)
    store.shrink(SIZE_BYTES)


CHANGES: Final[dict[str, Callable[[Store], None]]] = {
    "create": lambda store: store.create_snapshot("d"),
    "create, prepared": create_prepared,
    "revert to a": lambda store: store.revert("a"),
    "revert to b, keep": lambda store: store.revert("b", keep_newer=True),
    "grow": lambda store: store.grow(SIZE_BYTES + 3 * BLOCK),
    "grow and shrink": grow_and_shrink,
    "receive": receive,
    **{
        f"delete {name} {'down' if goes_down else 'up'}": delete_and_merge(name, goes_down)
        for name in "abc"
        for goes_down in (False, True)
    },
}
AFTER: Final = {"revert to a": "a", "revert to b, keep": "b"}


def content(store: Store, name: str = HEAD) -> bytes:
    return bytes(store.read(0, SIZE_BYTES) if name == HEAD else store.read_at(name, WHOLE))


def shown(store: Store) -> dict[str, bytes]:
    """Every snapshot's content, by name."""
    names = [each.name for each in store.chain.layers if each.sealed and not each.removed]
    return {name: content(store, name) for name in names}


@pytest.mark.parametrize("kind", ["power", "kill"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_cut_at_any_step_has_happened_or_not_and_can_be_done_again(change: str, kind: str) -> None:
    number = 0
    while True:
        disk = MemoryDisk(Random(number))
        store = prepared(disk)
        assert store.mark_clean()
        old, snapshots = content(store), shown(store)
        new = snapshots.get(AFTER.get(change, ""), old)
        disk.before_step = cut_power_at(number)
        try:
            CHANGES[change](store)
            break
        except PowerCut:
            disk.before_step = no_fault
        if kind == "power":
            disk.power_cut()
        else:
            disk.kill_process()
        store = open_memory(disk, "b-2" if kind == "power" else "b-1")
        is_old = store.chain.head_number == 3 and content(store) == old
        assert is_old or content(store) == new
        left = shown(store)
        assert all(snapshots.get(name, data) == data for name, data in left.items())
        assert store.intact
        store.self_check()
        allowed = store.chain.files() | {STATE_FILE, STATE_FILE + ".tmp"}
        assert disk.inodes().keys() <= allowed, "files that nobody needs"
        if change.startswith("delete"):
            name = change.split()[1]
            assert snapshots.keys() - left.keys() <= {name}
            merge_all(store, change.endswith("down"))
            assert (name in store.chain) == (name in left)
        assert content(store) in (old, new)
        present, left = content(store), shown(store)
        disk.power_cut()  # what was left of it is done, and stable
        store = open_memory(disk, "b-3")
        assert content(store) == present
        assert shown(store) == left
        number += 1
    assert number > 10, "there were steps to be cut"
    disk.before_step = no_fault
    assert content(store) == new
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert content(store) == new
    assert (change != "receive") or content(store, "x")[BLOCK : 3 * BLOCK] == b"x" * BLOCK + bytes(BLOCK)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("verb", ["create", "write", "rename", "remove", "sync", "truncate", "open"])
def test_a_change_in_which_any_step_fails_leaves_one_chain(change: str, verb: str) -> None:
    """An error before the chain file is replaced changes nothing; one about it breaks the store."""
    for number in range(100):
        disk = MemoryDisk(Random(number))
        store = prepared(disk)
        old, snapshots = content(store), shown(store)
        new = snapshots.get(AFTER.get(change, ""), old)
        failed = False
        steps: list[str] = []
        fail = fail_at(number, StorageFailure.WRITE_ERROR, verb)

        def before_step(step: str, steps: list[str] = steps, fail: Callable[[str], None] = fail) -> None:
            steps.append(step)
            fail(step)

        disk.before_step = before_step
        try:
            CHANGES[change](store)
        except StorageError:
            failed = True
        disk.before_step = no_fault
        if store.broken is None:
            assert content(store) in (old, new)
            store.self_check()
            fill(store, 9, 7)
            store.flush()
            new, old = content(store), content(store)
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert content(store) in (old, new)
        assert all(snapshots.get(name, data) == data for name, data in shown(store).items())
        if not failed and sum(step.startswith(verb) for step in steps) <= number:
            break
    else:
        pytest.fail("the change never came to its end")


def test_a_directory_that_had_no_snapshot_opens_as_it_is_and_gets_no_file_more() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    fill(store, 1, 0)
    store.flush()
    names = set(disk.inodes())
    store.close()
    store = open_memory(disk)
    assert set(disk.inodes()) == names
    assert CHAIN_FILE not in names


def test_after_the_last_snapshot_is_deleted_the_head_is_alone_again() -> None:
    for goes_down in (False, True):
        disk = MemoryDisk(Random(0))
        store = prepared(disk)
        old = content(store)
        for name in "abc":
            store.delete_snapshot(name)
        merge_all(store, goes_down)
        assert content(store) == old
        assert store._head is store._layers.head.file
        assert VolumeMeta.decode(disk.content("volume.meta")).parent == ""
        held = [part.length_bytes for part in store.allocated(WHOLE)]
        used = sum(len(inode.pages) for name, inode in disk.inodes().items() if name.endswith(".img"))
        assert used == sum(-(-length // BLOCK) for length in held), "space that nobody needs"
        store.write_atomic(0, 8 * KIB, [b"z" * 8 * KIB])
        store.flush()
        disk.power_cut()
        assert content(open_memory(disk, "b-2")) == b"z" * 8 * KIB + old[8 * KIB :]


def test_the_shorter_way_is_taken() -> None:
    store = open_memory(MemoryDisk(Random(0)))
    fill(store, 1, *range(8))
    store.create_snapshot("a")
    fill(store, 2, 1)
    store.create_snapshot("b")
    fill(store, 3, 1, 2, 3, 4)
    for name, goes_down, copies in (("a", True, BLOCK), ("b", True, 4 * BLOCK)):
        store.delete_snapshot(name)
        merge = store.next_merge()
        assert merge is not None
        assert (merge.goes_down, merge.total_bytes) == (goes_down, copies)
        moved = 0
        while merge.extent is not None:
            moved += merge.step()
        assert moved == copies


def test_a_merge_ends_when_the_chain_changes_and_goes_on_with_the_next_one() -> None:
    store = prepared(MemoryDisk(Random(0)))
    old = content(store)
    store.delete_snapshot("c")
    merge = store.next_merge()
    assert merge is not None
    store.create_snapshot("d")
    assert (merge.step(), merge.extent) == (0, None)
    merge_all(store)
    assert [each.name for each in store.layers()] == ["a", "b", "d", HEAD]
    assert content(store) == old
    assert content(store, "d") == old


def test_writes_go_on_beside_a_merge_into_the_head() -> None:
    for goes_down in (False, True):
        disk = MemoryDisk(Random(0))
        store = prepared(disk)
        model = bytearray(content(store))
        store.delete_snapshot("c")
        merge = store.next_merge()
        assert merge is not None
        merge.choose(goes_down=goes_down)
        random = Random(1)
        while merge.extent is not None:
            for _ in range(5):
                place = random.randrange(SIZE_BYTES // 512) * 512
                model[place : place + 512] = data = random.randbytes(512)
                store.write(place, 512, [data])
            merge.step()
            assert content(store) == model
        store.flush()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert content(store) == model


@pytest.mark.parametrize("seed", range(10))
def test_what_a_killed_write_left_in_a_layer_does_not_come_back_when_the_lowest_is_merged_into_it(
    seed: int,
) -> None:
    """The merge takes it away; the power goes just after its end."""
    disk = MemoryDisk(Random(seed))
    store = open_memory(disk)
    store.create_snapshot("a")  # empty, so that the merge has nothing to copy
    steps: list[str] = []

    def before_step(step: str) -> None:
        steps.append(step)
        if step.endswith("001.img.held") and step.startswith("write"):
            raise PowerCut(step)

    disk.before_step = before_step
    with pytest.raises(PowerCut):
        fill(store, 2, 7)
    disk.before_step = no_fault
    assert "write volume-head-001.img" in steps
    disk.kill_process()
    store = open_memory(disk)
    old = content(store)
    store.create_snapshot("b")
    assert store.mark_clean()
    store.delete_snapshot("a")
    merge_all(store, goes_down=False)
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.intact
    assert content(store) == content(store, "b") == old


def test_a_layer_is_the_same_wherever_its_holes_are() -> None:
    """What a rebuild compares: held blocks and what they are, not how they came there."""
    one, other = (prepared(MemoryDisk(Random(seed))) for seed in (1, 2))
    for store in (one, other):
        store.create_snapshot("d")
    for name in "abcd":
        assert one.hash_layer(name, WHOLE) == other.hash_layer(name, WHOLE)
    one.delete_snapshot("b")
    other.delete_snapshot("b")
    merge_all(one, goes_down=True)
    merge_all(other, goes_down=False)
    for name in "acd":
        assert one.hash_layer(name, WHOLE) == other.hash_layer(name, WHOLE)
    other.write(0, BLOCK, [bytes(BLOCK)])
    other.create_snapshot("e")
    one.zero(0, BLOCK)
    one.create_snapshot("e")
    assert one.hash_layer("e", WHOLE) == other.hash_layer("e", WHOLE), "zeros are zeros"
    one.zero(0, SIZE_BYTES)
    assert one.hash_layer(HEAD, WHOLE) != other.hash_layer(HEAD, WHOLE)


def test_a_chain_is_brought_over_layer_by_layer() -> None:
    source, disk = prepared(MemoryDisk(Random(1))), MemoryDisk(Random(2))
    source.create_snapshot("d")
    target = open_memory(disk)
    for name in source.chain.path("d"):
        layer = source.chain.layer(name)
        target.begin_layer(name, parent=layer.parent, created=layer.created, labels=layer.labels)
        parts = source.allocated_in_layer(name, WHOLE)
        for part in parts.data:
            target.write_layer(name, part, source.read_layer(name, part))
        for part in parts.zeros:
            target.write_layer(name, part, None)
        assert name in target.chain and not target.chain.layer(name).sealed
        target.seal_layer(name)
        assert target.hash_layer(name, WHOLE) == source.hash_layer(name, WHOLE)
    target.revert("d")
    disk.power_cut()
    target = open_memory(disk, "b-2")
    assert shown(target) == shown(source)
    assert content(target) == content(source)
    assert [target.chain.path(HEAD)] == [source.chain.path(HEAD)]


def test_a_layer_that_was_being_received_begins_again_but_for_its_checkpoints() -> None:
    disk = MemoryDisk(Random(0))
    store = prepared(disk)
    store.begin_layer("x", parent="c")
    store.write_layer("x", Extent(0, BLOCK), b"x" * BLOCK)
    store.checkpoint_layer("x")
    store.write_layer("x", Extent(BLOCK, BLOCK), b"y" * BLOCK)
    disk.kill_process()
    store = open_memory(disk)
    assert store.allocated_in_layer("x", WHOLE).data == [Extent(0, BLOCK)]
    for wrong in (Extent(512, BLOCK), Extent(0, 512), Extent(0, SIZE_BYTES + BLOCK), Extent(0, 0)):
        with pytest.raises(StorageError):
            store.write_layer("x", wrong, bytes(wrong.length_bytes))
    store.discard_layer("x")
    assert not [name for name in disk.inodes() if "snap-x" in name]
    for call in (store.seal_layer, store.discard_layer, store.checkpoint_layer):
        with pytest.raises(ConfigError, match="no snapshot 'x'"):
            call("x")


@pytest.mark.parametrize(
    "following",
    [
        lambda store: store.delete_snapshot("a"),
        lambda store: store.delete_snapshot("d"),
        lambda store: store.begin_layer("x", parent="d"),
        lambda store: store.create_snapshot("e", tidy=False),
        lambda store: store.revert("d"),
        lambda store: store.grow(SIZE_BYTES + BLOCK),
        lambda store: store.prepare_snapshot(),
    ],
)  # fmt: skip
def test_names_that_were_put_off_are_given_before_the_next_change(following: Callable[[Store], None]) -> None:
    for number in range(400):
        disk = MemoryDisk(Random(number))
        store = prepared(disk)
        store.create_snapshot("d", tidy=False)
        old = content(store)
        disk.before_step = cut_power_at(number)
        ended = False
        with contextlib.suppress(PowerCut):
            following(store)
            ended = True
        disk.before_step = no_fault
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert content(store) == old
        store.self_check()
        if ended:
            return
    pytest.fail("the change never came to its end")


def test_what_differs_between_two_snapshots() -> None:
    store = prepared(MemoryDisk(Random(0)))

    def blocks(*numbers: int) -> list[Extent]:
        return [Extent(number * BLOCK, min(BLOCK, SIZE_BYTES - number * BLOCK)) for number in numbers]

    assert store.diff("a", "a") == []
    assert store.diff("b", "c") == blocks(4, 8)
    assert store.diff("c", "b") == blocks(4, 8)
    assert store.diff("a", "b") == [Extent(BLOCK, 3 * BLOCK)]
    assert store.diff("", "a") == [Extent(0, 3 * BLOCK), *blocks(8)]
    assert store.diff("c", HEAD) == blocks(0, 5)
    with pytest.raises(ConfigError, match="no snapshot 'q'"):
        store.diff("q", "a")


def test_growing_adds_zeros_under_every_snapshot_and_shrinking_is_refused() -> None:
    disk = MemoryDisk(Random(0))
    store = prepared(disk)
    old, snapshots = content(store), shown(store)
    with pytest.raises(ConfigError, match="can only grow"):
        store.grow(SIZE_BYTES - 512)
    with pytest.raises(ConfigError, match="can only grow"):
        store.grow(SIZE_BYTES + 100)
    new_size = 40 * MIB
    store.grow(new_size)
    store.write(new_size - 512, 512, [b"e" * 512])
    store.write(SIZE_BYTES - 512, 1024, [b"m" * 1024])
    store.flush()
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.size_bytes == new_size
    assert store.read(new_size - 1024, 1024) == bytes(512) + b"e" * 512
    assert content(store) == old[:-512] + b"m" * 512
    assert shown(store) == snapshots
    assert not any(store.read_at("a", Extent(SIZE_BYTES, BLOCK)))
    assert VolumeMeta.decode(disk.content("volume.meta")).size_bytes == new_size


@pytest.mark.parametrize("layer", ["a", "c", HEAD])
def test_rot_in_the_short_last_block_of_any_layer_is_not_believed_after_growing(layer: str) -> None:
    disk = MemoryDisk(Random(0))
    store = prepared(disk)
    if layer == HEAD:
        fill(store, 4, 8)
        store.flush()
    last = Extent(SIZE_BYTES - 512, 512)
    disk.rot(store.chain.file_of(layer), last.offset_bytes + 100)
    store.grow(SIZE_BYTES + BLOCK)
    store.write(SIZE_BYTES, 512, [b"n" * 512])
    read: Callable[[], object] = partial(store.read, *attrs.astuple(last))
    if layer == "a":  # c and the head hold a block of their own
        read = partial(store.read_at, "a", last)
    with pytest.raises(StorageError) as caught:
        read()
    assert caught.value.failure is StorageFailure.BAD_CHECKSUM


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda disk: disk.inodes().pop("volume-snap-b.img"), "volume-snap-b.img is missing"),
        (lambda disk: disk.inodes().pop("volume-snap-b.img.held"), "volume-snap-b.img.held is missing"),
        (lambda disk: disk.put("volume-snap-b.img", b"x"), "has 1 bytes instead of"),
        (lambda disk: disk.put("volume-snap-b.img.held", b""), "has 0 bytes instead of"),
        (lambda disk: disk.put(CHAIN_FILE, b"{}"), "pyjiva-chain.json is damaged"),
        (lambda disk: disk.inodes().pop(CHAIN_FILE), "has layers below the head"),
    ],
)  # fmt: skip
def test_a_damaged_chain_is_told_to_the_operator(
    damage: Callable[[MemoryDisk], object], message: str
) -> None:
    disk = MemoryDisk(Random(0))
    prepared(disk).close()
    damage(disk)
    with pytest.raises(ConfigError, match=message):
        open_memory(disk)
    disk.open_directory()  # it was given back


def test_rot_in_a_layer_below_is_repaired_in_place() -> None:
    disk = MemoryDisk(Random(0))
    store = prepared(disk)
    snapshots = shown(store)
    block = Extent(3 * BLOCK, BLOCK)
    for file in ("volume-snap-b.img", "volume-snap-b.img.sums"):
        disk.rot(file, 3 * BLOCK + 100 if file.endswith("img") else 3 * 8)
        with pytest.raises(StorageError):
            store.read_at("b", block)
        number = 0
        while True:  # the power goes at any step: bad or good, never believed and wrong
            disk.before_step = cut_power_at(number)
            try:
                store.repair_layer("b", block, snapshots["b"][3 * BLOCK : 4 * BLOCK])
                break
            except PowerCut:
                disk.before_step = no_fault
                disk.power_cut()
                store = open_memory(disk, f"b-{file}-{number}")
            with contextlib.suppress(StorageError):
                assert store.read_at("b", block) == snapshots["b"][3 * BLOCK : 4 * BLOCK]
            number += 1
        disk.before_step = no_fault
        assert shown(store) == snapshots
    with pytest.raises(StorageError, match="does not hold all of it"):
        store.repair_layer("b", Extent(0, BLOCK), bytes(BLOCK))


def test_layers_are_listed_with_their_sizes() -> None:
    store = prepared(MemoryDisk(Random(0)))
    infos = {info.name: info for info in store.layers()}
    assert [info.name for info in store.layers()] == ["a", "b", "c", HEAD]
    assert (infos["b"].parent, infos["b"].allocated_bytes, infos["b"].is_live) == ("a", 2 * BLOCK, True)
    assert infos[HEAD].file == "volume-head-003.img"
    store.revert("a", keep_newer=True)
    infos = {info.name: info for info in store.layers()}
    assert [name for name, info in infos.items() if info.is_live] == ["a", HEAD]


def test_real_files_hold_a_chain(tmp_path: Path) -> None:
    size = 40 * MIB + 512

    def open_real() -> Store:
        return Store.open_or_create(
            tmp_path / "r",
            volume_id="v",
            replica_id=1,
            volume_name="v",
            size_bytes=size,
            block_size_bytes=512,
        )

    store = open_real()
    random = Random(7)
    model = bytearray(size)
    kept: dict[str, bytes] = {}
    for turn in range(400):
        offset = random.choice((0, 16 * MIB - 64 * KIB, 40 * MIB - 128 * KIB)) + random.randrange(256) * 512
        length = min(random.choice((512, 4096, 8192, 64 * KIB)), size - offset)
        if random.random() < 0.3:
            store.zero(offset, length)
            model[offset : offset + length] = bytes(length)
        else:
            model[offset : offset + length] = data = random.randbytes(length)
            store.write(offset, length, [data])
        if turn % 40 == 39:
            name = f"s{turn}"
            store.create_snapshot(name)
            kept[name] = bytes(model)
        if turn % 100 == 99:
            name = random.choice(sorted(kept))
            del kept[name]
            store.delete_snapshot(name)
            merge_all(store)
            store.self_check()
        if turn % 150 == 149:
            store.close()
            store = open_real()
    assert store.read(0, size) == model
    store.verify(Extent(0, size))
    for name, old in kept.items():
        assert store.read_at(name, Extent(0, size)) == old
    name = sorted(kept)[0]
    store.revert(name)
    assert store.read(0, size) == kept[name]
    for layer in store.chain.layers:
        if not layer.removed:
            store.delete_snapshot(layer.name)
    merge_all(store)
    store.zero(0, size)
    store.flush()
    assert not [file for file in os.listdir(tmp_path / "r") if "snap" in file or "held" in file]
    used = sum(os.stat(tmp_path / "r" / file).st_blocks for file in os.listdir(tmp_path / "r")) * 512
    assert used < MIB
    store.close()


@pytest.mark.parametrize("block", [0, 1, 4, 7], ids=["in the head", "in b", "in c", "zeros"])
def test_a_block_that_is_spoilt_fails_until_it_is_written_and_no_snapshot_loses_it(block: int) -> None:
    store = prepared(MemoryDisk(Random(0)))
    extent = Extent(block * BLOCK, BLOCK)
    kept = bytes(store.read_at("c", extent))
    store.spoil(Extent(extent.offset_bytes + 512, 512))
    with pytest.raises(StorageError) as caught:
        store.read(*attrs.astuple(extent))
    assert caught.value.failure is StorageFailure.BAD_CHECKSUM
    assert store.allocated(extent) == [extent], "what is a hole nobody would find bad"
    assert bytes(store.read_at("c", extent)) == kept
    fill(store, 9, block)
    assert bytes(store.read(*attrs.astuple(extent))) == Random(900 + block).randbytes(BLOCK)
