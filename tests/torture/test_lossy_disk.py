"""What a power cut may take from a replica's files, and what it must leave."""

from pathlib import Path
from random import Random

import attrs
import pytest

from pyjiva.errors import StorageError
from pyjiva.snapshot import Store
from pyjiva.sparse import open_directory, replace_file
from pyjiva.units import KIB, MIB
from tests.torture.lossy_disk import LossyDirectory, cut_power

PAGES = 64
SIZE_BYTES = PAGES * 4096


@attrs.define(eq=False)
class Disk:
    """A directory and its journal."""

    top: Path
    directory: Path = attrs.field(init=False)
    journal: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.directory, self.journal = self.top / "directory", self.top / "journal"
        self.directory.mkdir(parents=True)
        self.journal.mkdir()

    def open(self) -> LossyDirectory:
        """As a new process does; the one before it is taken for killed."""
        return LossyDirectory.over(open_directory(self.directory), self.journal)

    def content(self, name: str) -> bytes:
        """Of a file."""
        return (self.directory / name).read_bytes()

    def cut(self, seed: int) -> int:
        """Cut the power."""
        return cut_power(self.directory, self.journal, Random(seed))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def sectors_of(content: bytes) -> list[int]:
    """The first byte of every sector, if all of the sector is the same."""
    pieces = [content[at : at + 512] for at in range(0, len(content), 512)]
    assert all(piece == piece[:1] * 512 for piece in pieces)
    return [piece[0] for piece in pieces]


def test_a_kill_takes_nothing(disk: Disk) -> None:
    directory = disk.open()
    file = directory.create("head")
    file.truncate(SIZE_BYTES)
    file.write(4096, (b"a" * 4096, b"b" * 512))
    directory.close()
    again = disk.open().open("head")
    assert bytes(again.read(4096, 4608)) == b"a" * 4096 + b"b" * 512


@pytest.mark.parametrize("kill_between", [False, True])
def test_what_was_synced_stays_and_of_the_rest_anything_does(disk: Disk, kill_between: bool) -> None:
    directory = disk.open()
    file = directory.create("head")
    file.truncate(SIZE_BYTES)
    for page in range(PAGES):
        file.write(page * 4096, (b"\1" * 4096,))
    file.sync_data()
    directory.sync()
    file.write(0, (b"\2" * (SIZE_BYTES // 2),))
    if kill_between:
        directory.close()
        directory = disk.open()
        file = directory.open("head")
    for page in range(PAGES // 4):
        file.write(page * 4096, (b"\3" * 4096,))
    file.punch(16 * 4096, 8 * 4096)
    assert disk.cut(7) > 0
    sectors = sectors_of(disk.content("head"))
    assert set(sectors[: 16 * 8]) == {1, 2, 3}
    assert {0, 1} <= set(sectors[16 * 8 : 24 * 8]) <= {0, 1, 2}
    assert set(sectors[24 * 8 : 32 * 8]) == {1, 2}
    assert set(sectors[32 * 8 :]) == {1}
    pages = [set(sectors[at : at + 8]) for at in range(0, 16 * 8, 8)]
    assert {1} in pages
    assert {3} in pages
    assert any(len(page) > 1 for page in pages), "some page is torn"
    assert disk.cut(8) == 0


def test_a_sync_leaves_nothing_to_undo(disk: Disk) -> None:
    directory = disk.open()
    file = directory.create("head")
    file.truncate(SIZE_BYTES)
    file.write(512, (b"x" * 5000,))
    file.sync_data()
    directory.sync()
    assert disk.cut(1) == 0
    assert disk.content("head")[512:5512] == b"x" * 5000


def test_names_that_were_not_synced_may_be_lost(disk: Disk) -> None:
    seen = set()
    for seed in range(40):
        one = Disk(disk.top / str(seed))
        directory = one.open()
        replace_file(directory, "state", b"old")
        file = directory.create("state.tmp")
        file.truncate(3)
        file.write(0, (b"new",))
        file.sync_data()
        directory.rename("state.tmp", "state")
        directory.create("other").close()
        directory.close()
        one.cut(seed)
        seen.add((one.content("state"), tuple(sorted(path.name for path in one.directory.iterdir()))))
    assert (b"old", ("state",)) in seen
    assert (b"old", ("state", "state.tmp")) in seen
    assert (b"new", ("state",)) in seen
    assert (b"new", ("other", "state")) in seen
    assert len(seen) == 4


def test_a_file_that_is_replaced_safely_is_never_lost(disk: Disk) -> None:
    for seed in range(20):
        directory = disk.open()
        replace_file(directory, "state", b"%d" % seed)
        directory.close()
        disk.cut(seed)
        assert disk.content("state") == b"%d" % seed


def test_a_removed_file_may_come_back(disk: Disk) -> None:
    seen = set()
    for seed in range(10):
        directory = disk.open()
        if "mark" not in directory.names():
            replace_file(directory, "mark", b"here")
        directory.remove("mark")
        directory.close()
        disk.cut(seed)
        seen.add((disk.directory / "mark").exists())
    assert seen == {True, False}


def test_a_journal_that_a_kill_has_cut_short_is_read_up_to_there(disk: Disk) -> None:
    directory = disk.open()
    file = directory.create("head")
    file.truncate(SIZE_BYTES)
    file.sync_data()
    directory.sync()
    file.write(0, (b"a" * 512,))
    file.write(4096, (b"b" * 512,))
    directory.close()
    (segment,) = disk.journal.glob("[0-9]*")
    segment.write_bytes(segment.read_bytes()[:-100])
    assert disk.cut(1) == 1
    assert disk.content("head")[4096:4608] == b"b" * 512


def test_a_store_keeps_what_it_flushed_and_knows_that_it_may_have_lost_the_rest(disk: Disk) -> None:
    lost = 0
    for seed in range(20):
        one = Disk(disk.top / str(seed))
        store = open_store(one, "first")
        store.write(0, 4 * KIB, (b"a" * 4 * KIB,))
        store.flush()
        store.write(4 * KIB, 4 * KIB, (b"b" * 4 * KIB,))
        store.close()
        one.cut(seed)
        store = open_store(one, "second")
        assert bytes(store.read(0, 4 * KIB)) == b"a" * 4 * KIB
        assert not store.intact
        lost += bytes(store.read(4 * KIB, 4 * KIB)) == bytes(4 * KIB)
        store.close()
    assert lost


def open_store(disk: Disk, boot_id: str) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyjiva.snapshot.store_sys.open_directory", lambda _: disk.open())
        return Store.open_or_create(
            disk.directory,
            volume_id="1" * 32,
            replica_id=1,
            volume_name="x",
            size_bytes=MIB,
            block_size_bytes=512,
            boot_id=boot_id,
        )


def test_errors_of_the_files_pass_through(disk: Disk) -> None:
    with pytest.raises(StorageError):
        disk.open().open("absent")
