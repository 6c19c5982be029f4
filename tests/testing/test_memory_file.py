"""The memory disk is as bad as it says: what is not synced can be lost in every way, what is synced not."""

from random import Random

import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at

OLD, NEW = b"o" * 8192, b"n" * 8192


def contents_after_power_cut(*, sync: bool) -> set[bytes]:
    seen = set()
    for seed in range(200):
        disk = MemoryDisk(Random(seed))
        disk.put("f", OLD)
        file = disk.open_directory().open("f")
        file.write(0, [NEW])
        if sync:
            file.sync_data()
        disk.power_cut()
        seen.add(disk.content("f"))
    return seen


def test_synced_data_survives() -> None:
    assert contents_after_power_cut(sync=True) == {NEW}


def test_unsynced_data_is_lost_kept_or_torn_by_sectors() -> None:
    seen = contents_after_power_cut(sync=False)
    assert {OLD, NEW, OLD[:4096] + NEW[4096:], NEW[:4096] + OLD[4096:]} <= seen
    torn = seen - {OLD, NEW}
    assert any(page[:512] != page[512:1024] for page in torn)
    for content in torn:
        sectors = {content[at : at + 512] for at in range(0, 8192, 512)}
        assert sectors <= {OLD[:512], NEW[:512]}


def test_unsynced_punch_may_come_back() -> None:
    seen = set()
    for seed in range(100):
        disk = MemoryDisk(Random(seed))
        disk.put("f", OLD)
        disk.open_directory().open("f").punch(0, 4096)
        disk.power_cut()
        seen.add(disk.content("f")[:4096])
    assert {OLD[:4096], bytes(4096)} < seen


def test_unsynced_names_may_come_and_go() -> None:
    seen = set()
    for seed in range(200):
        disk = MemoryDisk(Random(seed))
        disk.put("a", b"a")
        directory = disk.open_directory()
        directory.create("b")
        directory.rename("a", "c")
        directory.remove("b")
        disk.power_cut()
        seen.add(tuple(disk.open_directory().names()))
    assert seen == {("a",), ("a", "b"), ("c",), ("b", "c")}


def test_synced_names_stay() -> None:
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        disk.put("a", b"a")
        directory = disk.open_directory()
        directory.rename("a", "c")
        directory.sync()
        disk.power_cut()
        assert disk.open_directory().names() == ["c"]


def test_renamed_file_whose_data_was_not_synced_may_be_empty() -> None:
    seen = set()
    for seed in range(50):
        disk = MemoryDisk(Random(seed))
        directory = disk.open_directory()
        file = directory.create("f.tmp")
        file.truncate(4)
        file.write(0, [b"data"])
        directory.rename("f.tmp", "f")
        directory.sync()
        disk.power_cut()
        seen.add(disk.content("f"))
    assert {b"", b"data"} < seen


def test_failed_sync_loses_the_data_though_the_next_one_succeeds() -> None:
    disk = MemoryDisk(Random(0))
    disk.put("f", OLD)
    file = disk.open_directory().open("f")
    file.write(0, [NEW])
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync")
    with pytest.raises(StorageError):
        file.sync_data()
    file.sync_data()
    assert file.read(0, 8192) == NEW
    disk.power_cut()
    assert disk.content("f") == OLD


def test_one_process_at_a_time_and_a_dead_one_touches_nothing() -> None:
    disk = MemoryDisk(Random(0))
    disk.put("f", OLD)
    directory = disk.open_directory()
    file = directory.open("f")
    with pytest.raises(ConfigError):
        disk.open_directory()
    disk.kill_process()
    with pytest.raises(PowerCut):
        file.write(0, [NEW])
    second = disk.open_directory()
    directory.close()  # the dead one's: gives nothing back
    with pytest.raises(ConfigError):
        disk.open_directory()
    assert second.open("f").read(0, 8192) == OLD


def test_faults_strike_the_step_that_was_chosen() -> None:
    disk = MemoryDisk(Random(0), before_step=fail_at(1, StorageFailure.NO_SPACE, "write"))
    disk.put("f", OLD)
    file = disk.open_directory().open("f")
    file.write(0, [b"x"])
    with pytest.raises(StorageError) as caught:
        file.write(1, [b"y"])
    assert caught.value.failure is StorageFailure.NO_SPACE
    file.write(2, [b"z"])
    disk.before_step = cut_power_at(1)
    file.read(0, 1)
    with pytest.raises(PowerCut):
        file.read(0, 1)


def test_reads_miss_as_often_as_asked_for() -> None:
    disk = MemoryDisk(Random(0), cached_share=0.5)
    disk.put("f", OLD)
    file = disk.open_directory().open("f")
    found = [file.read_nowait(0, 10) for _ in range(200)]
    assert 50 < found.count(None) < 150
    assert set(found) == {None, OLD[:10]}
