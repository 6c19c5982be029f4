"""Where a large write makes later small ones dear it is cut, and nothing of it is lost or moved."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.sparse import SparseFile, open_directory
from pyjiva.sparse.large_folios_sys import CALL_BYTES_MAX, call_bytes_max, call_bytes_max_of
from pyjiva.sparse.mounts_sys import kind_in
from pyjiva.units import MIB

MOUNTS: Final = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 254:0 /srv /srv rw,relatime - ext4 /dev/vda rw
40 27 254:16 / /mnt rw - xfs /dev/vdb rw
41 27 259:1 / /old rw - ext3 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("release", "device", "wanted"),
    [
        ("6.18.44", (254, 0), CALL_BYTES_MAX),
        ("6.16-rc1", (254, 0), CALL_BYTES_MAX),
        ("7.0.0-1-amd64", (254, 0), CALL_BYTES_MAX),
        ("6.15.9", (254, 0), 0),
        ("6.1.0-37-amd64", (254, 0), 0),
        ("5.18", (254, 0), 0),
        ("6.18.44", (254, 16), 0),  # XFS
        ("6.18.44", (259, 1), 0),
        ("6.18.44", (0, 99), 0),  # not in the table, as a btrfs subvolume
        ("something", (254, 0), 0),
        ("", (254, 0), 0),
    ],
)
def test_only_file_systems_that_list_the_blocks_of_a_folio_are_spared(
    release: str, device: tuple[int, int], wanted: int
) -> None:
    assert call_bytes_max_of(release, kind_in(MOUNTS, *device)) == wanted


@given(st.text())
def test_any_table_of_mounts_is_read(mounts: str) -> None:
    assert call_bytes_max_of("6.18", kind_in(mounts, 254, 0)) in (0, CALL_BYTES_MAX)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Offset and length of each pwrite and pwritev."""
    calls: list[tuple[int, int]] = []
    pwrite, pwritev = os.pwrite, os.pwritev

    def write_one(fd: int, buffer: bytes, offset: int) -> int:
        calls.append((offset, len(buffer)))
        return pwrite(fd, buffer, offset)

    def write(fd: int, buffers: list[bytes], offset: int) -> int:
        calls.append((offset, sum(map(len, buffers))))
        return pwritev(fd, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", write)
        patch.setattr(os, "pwrite", write_one)
        yield calls


@given(
    st.integers(0, 70),
    st.lists(st.binary(max_size=90), max_size=6),
    st.sampled_from([8, 16, 64]),
)
def test_a_write_is_cut_at_multiples_and_is_whole(offset: int, buffers: list[bytes], limit: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, recorded(monkeypatch) as calls:
        fd = os.memfd_create("test")
        file = SparseFile(fd, "file", limit)
        try:
            file.write(offset, buffers)
            whole = b"".join(buffers)
            assert os.pread(fd, 1000, 0) == (bytes(offset) + whole if whole else b"")
        finally:
            file.close()
    assert all(length <= limit for _, length in calls)
    assert all(start % limit == 0 for start, _ in calls[1:])


def test_the_files_of_a_directory_are_cut_as_its_file_system_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyjiva.sparse.directory_sys.call_bytes_max", lambda _: CALL_BYTES_MAX)
    directory = open_directory(tmp_path)
    for file in (directory.create("a"), directory.open("a")):
        with recorded(monkeypatch) as calls:
            file.write(0, (bytes(MIB),))
        file.close()
        assert calls == [(at, CALL_BYTES_MAX) for at in range(0, MIB, CALL_BYTES_MAX)]
    directory.close()


def test_a_machine_without_proc_has_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyjiva.sparse.mounts_sys._MOUNTS", tmp_path / "missing")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert call_bytes_max(fd) == 0
    finally:
        os.close(fd)
