"""Exports as directories of Longhorn's, read back by a reader that is no part of the product."""

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.migration import CheckedReader, LonghornExport, Upgrade, describe, first_state, look, open_replica
from pyjiva.migration.longhorn_sys import exported_chain
from pyjiva.snapshot import Chain, Layer, Store
from pyjiva.sparse import Directory, open_directory
from pyjiva.testing import MemoryDisk
from pyjiva.testing.foreign_directory import SECTOR_BYTES, FixtureVolume, read_foreign
from tests.migration.replicas import contents, flip, make_replica
from tests.migration.volumes import VOLUMES, backing_of, disk_with


def export(store: Store, target: Directory, snapshot: str = "", *, despite_rot: bool = False) -> list[Extent]:
    reader = CheckedReader(despite_rot)
    LonghornExport(store, snapshot, target, reader).run()
    return reader.rotten


def test_every_snapshot_is_there(tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    with closing(open_replica(tmp_path / "r")) as store, closing(open_directory(tmp_path / "l")) as target:
        export(store, target)
        assert read_foreign(target) == shown
        assert describe(look(target)).can_be_upgraded(accept_dirty=False)
    meta = json.loads((tmp_path / "l" / "volume.meta").read_bytes())
    assert meta | {"Size": 0} == {
        "Size": 0,
        "Head": "volume-head-003.img",
        "Parent": "volume-snap-b.img",
        "Dirty": False,
        "Rebuilding": False,
        "SectorSize": 512,
        "BackingFilePath": "",
        "Error": "",
    }
    removed = json.loads((tmp_path / "l" / "volume-snap-gone.img.meta").read_bytes())
    assert removed["Removed"] is True
    assert contents(tmp_path / "r") == shown, "the replica is what it was"


def test_zeros_cost_space_only_above_data(tmp_path: Path) -> None:
    """Sectors 1 and 2 were unmapped above data of a; 5 holds data; 6 and 40 of the head."""
    make_replica(tmp_path / "r")
    with closing(open_replica(tmp_path / "r")) as store, closing(open_directory(tmp_path / "l")) as target:
        store.zero(50 * SECTOR_BYTES, SECTOR_BYTES)
        export(store, target)
        replica = describe(look(target))
    assert {layer.name: layer.allocated_bytes // SECTOR_BYTES for layer in replica.layers} == {
        "a": 5, "gone": 4, "b": 1, "": 3,
    }  # fmt: skip


def test_as_of_a_snapshot_it_has_what_is_below_and_an_empty_head(tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    with closing(open_replica(tmp_path / "r")) as store, closing(open_directory(tmp_path / "l")) as target:
        export(store, target, "a")
        assert read_foreign(target) == {"a": shown["a"], "": shown["a"]}


@settings(deadline=None)
@given(volume=VOLUMES)
def test_from_longhorn_to_pyjiva_and_back(volume: FixtureVolume) -> None:
    disk = disk_with(volume)
    state = first_state(
        volume_id="v", replica_id=1, volume_name="v", size_bytes=volume.size_bytes, block_size_bytes=512
    )
    with closing(disk.open_directory()) as directory:
        Upgrade(directory, describe(look(directory)), state, backing_of(volume)).run()
    store = Store.open_in(disk.open_directory(), state, boot_id="b")
    target = MemoryDisk(Random(1)).open_directory()
    export(store, target)
    shown = read_foreign(target)
    shown.pop("backing-file", None)
    assert shown == volume.contents()


CHANGES = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "snapshot", "delete", "revert"]), st.integers(0, 5)),
    max_size=12,
)


@settings(deadline=None)
@given(changes=CHANGES)
def test_whatever_was_done_in_pyjiva(changes: Sequence[tuple[str, int]]) -> None:
    """Zeros above data, deleted snapshots, branches."""
    state = first_state(
        volume_id="v", replica_id=1, volume_name="v", size_bytes=6 * SECTOR_BYTES, block_size_bytes=512
    )
    store = Store.open_in(MemoryDisk(Random(0)).open_directory(), state, boot_id="b")
    for number, (verb, which) in enumerate(changes):
        names = [layer.name for layer in store.chain.layers if not layer.removed]
        match verb:
            case "write":
                store.write(which * SECTOR_BYTES, 512, [bytes((number + 1,)) * 512])
            case "zero":
                store.zero(which * SECTOR_BYTES, min(2, 6 - which) * SECTOR_BYTES)
            case "snapshot":
                store.create_snapshot(f"s{number}")
            case "delete" if names:
                store.delete_snapshot(names[which % len(names)])
            case "revert" if names:
                store.revert(names[which % len(names)], keep_newer=True)
    whole = Extent(0, store.size_bytes)
    wanted = {
        layer.name: bytes(store.read_at(layer.name, whole))
        for layer in store.chain.layers
        if not layer.removed
    }
    wanted[""] = bytes(store.read(0, store.size_bytes))
    target = MemoryDisk(Random(1)).open_directory()
    export(store, target)
    assert read_foreign(target) == wanted


def test_rot_is_refused_or_named(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    flip(tmp_path / "r" / "volume-snap-a.img", 100)
    with closing(open_replica(tmp_path / "r")) as store:
        with closing(open_directory(tmp_path / "l")) as target, pytest.raises(StorageError):
            export(store, target)
        assert not (tmp_path / "l" / "volume.meta").exists(), "what is not whole does not look like it"
        with closing(open_directory(tmp_path / "m")) as target:
            assert export(store, target, despite_rot=True) == [Extent(0, SECTOR_BYTES)]


def test_a_directory_with_files_is_refused(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "mine").write_bytes(b"")
    with (
        closing(open_replica(tmp_path / "r")) as store,
        closing(open_directory(tmp_path / "l")) as target,
        pytest.raises(ConfigError, match="is not empty"),
    ):
        export(store, target)
    assert os.listdir(tmp_path / "l") == ["mine"]


def test_what_was_written_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the target's file system gave more than a sector to a write: the neighbours are hidden then."""
    make_replica(tmp_path / "r")
    real = LonghornExport._write_layer

    def write_too_much(self: LonghornExport, chain: Chain, name: str) -> None:
        real(self, chain, name)
        if name == "b":
            file = self.target.open("volume-snap-b.img")
            file.write(0, (bytes(SECTOR_BYTES),))
            file.close()

    monkeypatch.setattr(LonghornExport, "_write_layer", write_too_much)
    with (
        closing(open_replica(tmp_path / "r")) as store,
        closing(open_directory(tmp_path / "l")) as target,
        pytest.raises(StorageError, match=r"read back: .* at offset 0 of b are not"),
    ):
        export(store, target)


def chain_of(count: int) -> Chain:
    layers = [Layer(name=f"s{number}", parent=f"s{number - 1}" if number else "") for number in range(count)]
    return Chain(head_parent=layers[-1].name if layers else "", layers=tuple(layers))


def test_what_longhorn_could_not_open_is_not_made() -> None:
    assert len(exported_chain(chain_of(249), "", 4096).layers) == 249
    with pytest.raises(ConfigError, match="Longhorn opens at most 250"):
        exported_chain(chain_of(250), "", 4096)
    assert len(exported_chain(chain_of(250), "s9", 4096).layers) == 10
    with pytest.raises(ConfigError, match="multiples of 4096"):
        exported_chain(chain_of(1), "", 4096 + 512)


def test_what_is_still_being_received_is_left_out() -> None:
    chain = chain_of(2).with_received(Layer(name="new", parent="s0"))
    assert [layer.name for layer in exported_chain(chain, "", 4096).layers] == ["s0", "s1"]
    with pytest.raises(ConfigError, match="still being received"):
        exported_chain(chain, "new", 4096)
