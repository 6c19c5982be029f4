"""A replica directory is created whole or again, recognised, and refused in one line with nothing touched."""

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.state import decode_state
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import KIB, MIB

SIZE_BYTES: Final = 4 * MIB
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
NAMES: Final = [
    "pyjiva.json",
    "volume-head-000.img",
    "volume-head-000.img.meta",
    "volume-head-000.img.sums",
    "volume.meta",
]


def open_store(path: Path, **other: Any) -> Store:
    arguments = attrs.asdict(IDENTITY) | other
    wanted = ("volume_id", "replica_id", "volume_name", "size_bytes", "block_size_bytes")
    return Store.open_or_create(path, **{name: arguments[name] for name in wanted})


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything in a directory, with its times: what a refusal must not touch."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir() if p.is_file()}


def refused(path: Path, **other: Any) -> str:
    """The line with which opening is refused; nothing was changed, and the directory is free again."""
    before = contents(path)
    with pytest.raises(ConfigError) as caught:
        open_store(path, **other)
    assert contents(path) == before
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    with pytest.raises(ConfigError) as again:
        open_store(path, **other)
    assert str(again.value) == line
    return line


@pytest.mark.parametrize(
    "prepare", [lambda _: None, Path.mkdir, lambda path: (path / "lost+found").mkdir(parents=True)]
)
def test_absent_or_empty_directory_becomes_a_replica(
    tmp_path: Path, prepare: Callable[[Path], object]
) -> None:
    path = tmp_path / "replica-1"
    prepare(path)
    store = open_store(path)
    assert store.state == IDENTITY
    assert store.intact
    assert store.read(0, SIZE_BYTES) == bytes(SIZE_BYTES)
    store.close()
    assert sorted(set(os.listdir(path)) - {"lost+found"}) == NAMES
    assert (path / "volume-head-000.img").stat().st_blocks == 0
    assert json.loads((path / "volume.meta").read_bytes())["Head"] == "volume-head-000.img"


@pytest.mark.parametrize("seed", range(4))
def test_what_a_killed_process_left_is_stable_before_the_next_one_believes_it(seed: int) -> None:
    """A promise that is asked for again is not written again; else it would be forgotten with the power.

    Found by `ClonedStoreMachine`: a change of the snapshots was undone so.
    """
    shown = set()
    for step in range(20):
        disk = MemoryDisk(Random(seed))
        store = Store.open_in(disk.open_directory(), IDENTITY, boot_id="b-1")
        disk.before_step = cut_power_at(step)
        with contextlib.suppress(PowerCut):
            store.save_state(attrs.evolve(IDENTITY, promised_epoch=7, promised_to="controller"))
        disk.before_step = no_fault
        disk.kill_process()
        present = Store.open_in(disk.open_directory(), IDENTITY, boot_id="b-1").state.promised_epoch
        disk.power_cut()
        later = Store.open_in(disk.open_directory(), IDENTITY, boot_id="b-2").state.promised_epoch
        assert later == present
        shown.add(present)
    assert shown == {0, 7}


def test_replica_opens_again_with_its_data(tmp_path: Path) -> None:
    store = open_store(tmp_path / "r")
    store.write(1000, 5, [b"hello"])
    store.flush()
    store.close()
    store = open_store(tmp_path / "r")
    assert store.read(1000, 5) == b"hello"
    store.close()


def test_foreign_files_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"precious")
    assert "not a pyjiva replica (thesis.tex)" in refused(tmp_path)


def test_directory_of_longhorn_is_not_taken_for_a_cut_creation(tmp_path: Path) -> None:
    for name in NAMES[1:]:
        (tmp_path / name).write_bytes(b"precious")
    assert "not a pyjiva replica (volume-head-000.img, " in refused(tmp_path)


def test_foreign_file_beside_a_cut_creation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyjiva.creating").write_bytes(b"")
    (tmp_path / "volume-head-000.img").write_bytes(b"")
    (tmp_path / "thesis.tex").write_bytes(b"precious")
    assert "not a pyjiva replica (thesis.tex)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (
            {"volume_id": "v-2"},
            r"belongs to volume demo \(v-1\), not to demo \(v-2\); give another directory",
        ),
        ({"replica_id": 2}, r"is replica 1, not 2; give another directory"),
        ({"size_bytes": 8 * MIB}, r"holds a volume of 4MiB \(4194304 bytes\), not 8MiB .*; give the size"),
        ({"block_size_bytes": 4096}, r"blocks of 512 bytes, not 4096; give the block size"),
        ({"block_size_bytes": 1024}, r"block size is 512 or 4096"),
        ({"size_bytes": 1000}, r"size is a multiple of 512"),
    ],
)
def test_other_identity_is_refused(tmp_path: Path, other: dict[str, Any], line: str) -> None:
    open_store(tmp_path / "r").close()
    assert re.search(line, refused(tmp_path / "r", **other))


def damage_state(path: Path) -> None:
    content = (path / "pyjiva.json").read_text()
    (path / "pyjiva.json").write_text(content.replace('"promised_epoch": 0', '"promised_epoch": 9'))


def add_snapshot(path: Path) -> None:
    snapshot = "volume-snap-a.img"
    (path / snapshot).write_bytes(b"")
    (path / f"{snapshot}.meta").write_text(json.dumps({"Name": snapshot}))
    head = path / "volume-head-000.img.meta"
    head.write_text(json.dumps(json.loads(head.read_text()) | {"Parent": snapshot}))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (damage_state, "pyjiva.json is damaged (its checksum does not match)"),
        (lambda path: (path / "pyjiva.json").write_bytes(b""), "pyjiva.json is damaged (not JSON)"),
        (lambda path: (path / "volume.meta").write_bytes(b""), "volume.meta is damaged: not JSON"),
        (lambda path: (path / "volume.meta").unlink(), "volume.meta is missing"),
        (lambda path: (path / "volume-head-000.img.meta").unlink(), "volume-head-000.img.meta is missing"),
        (lambda path: (path / "volume-head-000.img").unlink(), "volume-head-000.img is missing"),
        (lambda path: os.truncate(path / "volume-head-000.img", 512), "has 512 bytes instead of 4194304"),
        (add_snapshot, "has layers below the head"),
    ],
)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[Path], object], line: str) -> None:
    open_store(tmp_path / "r").close()
    damage(tmp_path / "r")
    assert line in refused(tmp_path / "r")


def test_replica_that_is_open_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "r")
    assert "another process has it open; stop that one first" in refused(tmp_path / "r")
    store.close()
    open_store(tmp_path / "r").close()


SMALL: Final = attrs.evolve(IDENTITY, size_bytes=16 * KIB)


def create(disk: MemoryDisk) -> Store:
    return Store.open_in(disk.open_directory(), SMALL, boot_id="b-1")


def count_steps() -> int:
    disk = MemoryDisk(Random(0))
    create(disk)
    return disk.steps


STEPS_OF_CREATION: Final = count_steps()


@pytest.mark.parametrize("number", range(STEPS_OF_CREATION))
def test_creation_that_lost_power_is_done_again(number: int) -> None:
    """D15, for every file of a new directory: cut before each step, and once more while trying again."""
    for seed in range(25):
        random = Random(seed)
        disk = MemoryDisk(random)
        for cut in (number, random.randrange(STEPS_OF_CREATION)):
            disk.before_step = cut_power_at(cut)
            with contextlib.suppress(PowerCut):  # the second attempt may need fewer steps
                create(disk)
            disk.power_cut()
        disk.before_step = lambda _: None
        store = create(disk)
        assert store.state == SMALL
        assert store.read(0, SMALL.size_bytes) == bytes(SMALL.size_bytes)
        assert sorted(disk.inodes()) == NAMES
        disk.power_cut()
        assert decode_state(disk.content("pyjiva.json")) == SMALL
        create(disk)


@pytest.mark.parametrize("number", range(STEPS_OF_CREATION))
def test_creation_on_a_full_or_failing_disk_is_done_again(number: int) -> None:
    disk = MemoryDisk(Random(number), before_step=fail_at(number, StorageFailure.NO_SPACE))
    with pytest.raises(StorageError) as caught:
        create(disk)
    assert caught.value.failure is StorageFailure.NO_SPACE
    store = create(disk)  # the directory was given back
    assert store.state == SMALL
    assert sorted(disk.inodes()) == NAMES
