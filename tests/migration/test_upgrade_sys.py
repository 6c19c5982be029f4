"""Upgrading a directory of Longhorn's or Jiva's: whole, cut at every step, and on a disk that refuses."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs
import pytest
from hypothesis import given, settings

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.migration import MARKER, ForeignReplica, Upgrade, describe, finish, first_state, look
from pyjiva.migration.foreign import BACKING_NAME
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.sparse import Directory, open_directory
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.testing.foreign_directory import (
    SECTOR_BYTES,
    FixtureLayer,
    FixtureVolume,
    read_foreign,
    write_foreign,
)
from tests.migration.volumes import BRANCHED, SIZE_BYTES, VOLUMES, backing_of, disk_with, sector

BACKED: Final = attrs.evolve(BRANCHED, backing=sector(20, 9 * SECTOR_BYTES + 512))
NAMED_ALIKE: Final = FixtureVolume(
    size_bytes=SIZE_BYTES,
    layers=(
        FixtureLayer(name=BACKING_NAME, sectors={0: sector(1)}),
        FixtureLayer(name="a", parent=BACKING_NAME, sectors={1: sector(2)}),
        FixtureLayer(name="", parent="a", sectors={2: sector(3)}),
    ),
)
"""What was exported after an upgrade with a backing file."""
SHORT: Final = FixtureVolume(
    size_bytes=2 * SECTOR_BYTES + 512,
    layers=(
        FixtureLayer(name="a", sectors={0: sector(1), 2: sector(2, 512)}),
        FixtureLayer(name="", parent="a", sectors={1: sector(3)}),
    ),
)
LONE_HEAD: Final = FixtureVolume(
    size_bytes=SIZE_BYTES, head_number=0, layers=(FixtureLayer(name="", sectors={3: sector(1)}),)
)
JIVA: Final = attrs.evolve(BRANCHED, is_jiva=True, revision_counter=4711)


def state_of(volume: FixtureVolume) -> ReplicaState:
    return first_state(
        volume_id="v-1", replica_id=2, volume_name="v", size_bytes=volume.size_bytes, block_size_bytes=512
    )


def described(directory: Directory) -> ForeignReplica:
    replica = describe(look(directory))
    assert replica.can_be_upgraded(accept_dirty=False), replica.findings
    return replica


def upgrade(directory: Directory, volume: FixtureVolume) -> None:
    Upgrade(directory, described(directory), state_of(volume), backing_of(volume)).run()


def check_pyjiva(directory: Directory, volume: FixtureVolume) -> None:
    """It is a pyjiva replica that shows what the volume held."""
    store = Store.open_in(directory, state_of(volume), boot_id="b-9")
    try:
        assert store.intact
        whole = Extent(0, volume.size_bytes)
        added = {BACKING_NAME} if volume.backing is not None else set()
        shown = {
            each.name: bytes(store.read_at(each.name, whole))
            for each in store.chain.layers
            if not each.removed and each.name not in added
        }
        shown[""] = bytes(store.read(0, volume.size_bytes))
        assert shown == volume.contents()
        store.self_check()
        store.verify(whole)
        assert {each.name for each in store.chain.layers} - added == {
            layer.name for layer in volume.layers if layer.name
        }
    finally:
        store.close()


@pytest.mark.parametrize("volume", [BRANCHED, BACKED, SHORT, LONE_HEAD, JIVA])
def test_a_directory_becomes_a_replica_with_the_same_snapshots(volume: FixtureVolume) -> None:
    disk = disk_with(volume)
    with closing(disk.open_directory()) as directory:
        upgrade(directory, volume)
        assert MARKER not in directory.names()
    check_pyjiva(disk.open_directory(), volume)
    with closing(disk.open_directory()) as directory:  # opening it has tidied up: Longhorn's files agree
        assert set(directory.names()) >= {"volume.meta", volume.head_file + ".meta"}


@pytest.mark.parametrize("volume", [BRANCHED, BACKED, SHORT, LONE_HEAD, JIVA])
def test_on_real_files(volume: FixtureVolume, tmp_path: Path) -> None:
    with closing(open_directory(tmp_path / "r")) as directory:
        write_foreign(directory, volume)
        assert read_foreign(directory, volume.backing or b"") == volume.contents()
        upgrade(directory, volume)
    check_pyjiva(open_directory(tmp_path / "r"), volume)


@settings(deadline=None)
@given(volume=VOLUMES)
def test_any_tree_of_layers(volume: FixtureVolume) -> None:
    disk = disk_with(volume)
    with closing(disk.open_directory()) as directory:
        upgrade(directory, volume)
    check_pyjiva(disk.open_directory(), volume)


def test_labels_times_and_removal_are_kept() -> None:
    disk = disk_with(BRANCHED)
    upgrade(disk.open_directory(), BRANCHED)
    disk.kill_process()
    store = Store.open_in(disk.open_directory(), state_of(BRANCHED), boot_id="b-9")
    layers = {layer.name: layer for layer in store.chain.layers}
    assert layers["a"].labels == {"for": "test"}
    assert layers["a"].created == "2024-05-01T10:00:00Z"
    assert (layers["b"].removed, layers["c"].removed) == (True, False)
    assert (layers["a"].user_created, layers["c"].user_created) == (True, False)
    assert store.chain.head_file == BRANCHED.head_file


def test_every_block_has_a_checksum_from_then_on() -> None:
    disk = disk_with(BRANCHED)
    with closing(disk.open_directory()) as directory:
        upgrade(directory, BRANCHED)
    disk.rot("volume-snap-a.img", 7 * SECTOR_BYTES + 100)
    store = Store.open_in(disk.open_directory(), state_of(BRANCHED), boot_id="b-9")
    with pytest.raises(StorageError) as caught:
        store.read(7 * SECTOR_BYTES, SECTOR_BYTES)
    assert caught.value.failure is StorageFailure.BAD_CHECKSUM


def cuts(volume: FixtureVolume, kind: str) -> Iterator[MemoryDisk]:
    """The disk after an upgrade that was cut at step 0, 1, 2, …, until one is not cut."""
    number = 0
    while True:
        disk = disk_with(volume, seed=number)
        directory = disk.open_directory()
        replica, state, backing = described(directory), state_of(volume), backing_of(volume)
        disk.before_step = cut_power_at(number)
        try:
            Upgrade(directory, replica, state, backing).run()
        except PowerCut:
            disk.before_step = no_fault
        else:
            break
        if kind == "power":
            disk.power_cut()
        else:
            disk.kill_process()
        yield disk
        number += 1
    assert number > 40, "an upgrade has more steps"


@pytest.mark.parametrize("kind", ["power", "kill"])
@pytest.mark.parametrize("volume", [BRANCHED, BACKED, NAMED_ALIKE])
def test_cut_at_any_step_it_is_still_theirs_or_ours_and_goes_on(volume: FixtureVolume, kind: str) -> None:
    theirs = ours = 0
    for disk in cuts(volume, kind):
        directory = disk.open_directory()
        if STATE_FILE in directory.names():
            ours += 1
            finish(directory)
        else:
            theirs += 1
            assert read_foreign(directory, volume.backing or b"") == volume.contents()
            upgrade(directory, volume)
        assert not [name for name in directory.names() if name == MARKER or name.endswith(".tmp")]
        directory.close()
        check_pyjiva(disk.open_directory(), volume)
    assert theirs > 30
    assert ours


def test_what_longhorn_wrote_after_an_upgrade_was_cut_counts() -> None:
    volume = LONE_HEAD
    for disk in cuts(attrs.evolve(BRANCHED, head_number=0), "kill"):
        directory = disk.open_directory()
        if STATE_FILE in directory.names():
            break
        volume = attrs.evolve(
            BRANCHED,
            head_number=0,
            layers=(
                *BRANCHED.layers[:-1],
                attrs.evolve(
                    BRANCHED.layers[-1], sectors={**BRANCHED.layers[-1].sectors, 0: sector(99), 8: sector(98)}
                ),
            ),
        )
        head = directory.open(volume.head_file)
        head.write(0, (sector(99),))
        head.write(8 * SECTOR_BYTES, (sector(98),))
        upgrade(directory, volume)
        directory.close()
        check_pyjiva(disk.open_directory(), volume)
    assert volume is not LONE_HEAD


@pytest.mark.parametrize("failure", [StorageFailure.NO_SPACE, StorageFailure.WRITE_ERROR])
@pytest.mark.parametrize("verb", ["create", "write", "sync", "truncate"])
def test_a_disk_that_refuses_leaves_the_directory_as_it_was(verb: str, failure: StorageFailure) -> None:
    number = 0
    while True:
        disk = disk_with(BACKED, seed=number)
        directory = disk.open_directory()
        before = set(directory.names())
        replica, backing = described(directory), backing_of(BACKED)
        disk.before_step = fail_at(number, failure, verb)
        try:
            Upgrade(directory, replica, state_of(BACKED), backing).run()
            break
        except StorageError:
            disk.before_step = no_fault
        if STATE_FILE not in directory.names():
            assert read_foreign(directory, BACKED.backing or b"") == BACKED.contents()
            assert set(directory.names()) - before <= {MARKER, STATE_FILE + ".tmp", MARKER + ".tmp", *_LATE}
            upgrade(directory, BACKED)
        directory.close()
        check_pyjiva(disk.open_directory(), BACKED)
        number += 1
    assert number >= 5


_LATE: Final = frozenset(
    {"pyjiva-chain.json", *(f"{BACKED.file_of(each.name)}.sums" for each in BACKED.layers)}
    | {f"{BACKED.file_of(name)}{suffix}" for name in ("a", "b", "c", "left", "") for suffix in (".held",)}
    | {f"volume-snap-{BACKING_NAME}.img", f"volume-snap-{BACKING_NAME}.img.sums"}
)
"""What may be left if the last step, or the removal itself, met the fault."""


def test_a_replica_is_not_upgraded_again() -> None:
    disk = disk_with(BRANCHED)
    directory = disk.open_directory()
    replica = described(directory)
    upgrade(directory, BRANCHED)
    with pytest.raises(ConfigError, match="is a pyjiva replica already"):
        Upgrade(directory, replica, state_of(BRANCHED)).run()


def test_a_controller_believes_the_replica_alone() -> None:
    """Its record names no other: an empty one beside it has nothing to say, and is not taken for equal."""
    state = state_of(BRANCHED)
    assert state.record is not None
    assert (state.record.configured, state.record.in_sync, state.record.clean) == ((2,), (2,), True)
    assert state.told_equal
    assert state.promised_epoch == state.record.epoch


@pytest.mark.parametrize(("replica_id", "size_bytes"), [(-1, 4096), (1, 0), (1, 1000)])
def test_impossible_identities_are_refused(replica_id: int, size_bytes: int) -> None:
    with pytest.raises(ConfigError):
        first_state(
            volume_id="v", replica_id=replica_id, volume_name="v", size_bytes=size_bytes, block_size_bytes=512
        )
