"""What is C does what its twin in Python does, for every kind of processor that it is made for."""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pyjiva import block_sums
from pyjiva.buffers import bytes_at
from pyjiva.iscsi.pdu import header_of_words
from pyjiva.replication import frame
from pyjiva.sparse import file_sys
from pyjiva.units import KIB, STORED_BLOCK_BYTES
from tests.compiling.tools import missing_to_compile

SOURCES: Final = sorted((Path(__file__).parents[2] / "compiling/native").glob("*.c"))
#: No two blocks are alike.
MANY: Final = b"".join(n.to_bytes(8, "little") * (STORED_BLOCK_BYTES // 8) for n in range(70))
#: Its XXH3-64 is 0: the steps of the hash for eight bytes, backwards.
HASHED_TO_0: Final = bytes.fromhex("42d568e138d727ff")

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))


@pytest.fixture(scope="module", params=["for this processor", "for any processor"])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if missing := missing_to_compile():
        pytest.skip(missing)
    made = tmp_path_factory.mktemp("native") / "native.so"
    options = ["-DWITHOUT_AVX2"] if request.param == "for any processor" else []
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    cc = shutil.which("cc")
    assert cc is not None
    subprocess.run(
        [cc, "-std=c11", "-O2", "-shared", "-fPIC", *warnings, *options, f"-I{sysconfig.get_path('include')}",
         *map(str, SOURCES), "-o", str(made)],
        check=True,
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("native", made)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def in_python(data: bytes) -> bytes:
    return b"".join(
        (xxhash.xxh3_64_intdigest(data[at : at + STORED_BLOCK_BYTES]) or 1).to_bytes(8, "little")
        for at in range(0, len(data), STORED_BLOCK_BYTES)
    )


@given(blocks=st.integers(0, 64), more_bytes=st.integers(-600, 600), skipped_bytes=st.integers(0, 70))
def test_they_are_the_same(native: Any, blocks: int, more_bytes: int, skipped_bytes: int) -> None:
    size_bytes = max(0, blocks * STORED_BLOCK_BYTES + more_bytes)
    data = memoryview(MANY)[skipped_bytes : skipped_bytes + size_bytes]
    assert native.sums_of(data) == in_python(bytes(data))


@given(st.binary(max_size=300))
def test_they_are_the_same_of_little(native: Any, data: bytes) -> None:
    assert native.sums_of(bytearray(data)) == in_python(data)


def test_a_block_whose_hash_says_unknown_has_1(native: Any) -> None:
    assert xxhash.xxh3_64_intdigest(HASHED_TO_0) == 0
    data = MANY[:STORED_BLOCK_BYTES] + HASHED_TO_0
    assert native.sums_of(data) == in_python(data)
    assert native.sums_of(data)[8:] == (1).to_bytes(8, "little")


def test_what_is_no_contiguous_buffer_is_refused(native: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        native.sums_of("text")
    with pytest.raises(BufferError, match="contiguous"):
        native.sums_of(memoryview(MANY)[::2])


@given(
    st.integers(0, 30),
    st.integers(-600, 600),
    st.dictionaries(st.integers(0, 31), st.sampled_from(["unknown", "wrong"]), max_size=3),
)
def test_the_first_bad_block_is_the_same(
    native: Any, blocks: int, more_bytes: int, changes: dict[int, str]
) -> None:
    data = memoryview(MANY)[: max(0, blocks * STORED_BLOCK_BYTES + more_bytes)]
    sums = bytearray(in_python(bytes(data)))
    for number, change in changes.items():
        if number * 8 < len(sums):
            sums[number * 8 : number * 8 + 8] = bytes(8) if change == "unknown" else b"\xff" * 8
    bad = [number for number, change in changes.items() if change == "wrong" and number * 8 < len(sums)]
    assert native.first_bad(sums, data) == min(bad, default=-1)
    assert block_sums.first_bad(sums, data) == min(bad, default=-1)


def test_as_many_checksums_as_blocks_are_wanted(native: Any) -> None:
    for sums in (b"", bytes(8), bytes(17), bytes(24)):
        with pytest.raises(ValueError, match="checksums"):
            native.first_bad(sums, MANY[: STORED_BLOCK_BYTES + 1])


@given(st.binary(max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_bytes_are_copied_as_in_python(native: Any, data: bytes, start: int, size: int) -> None:
    buffer = memoryview(bytearray(data))
    if start + size <= len(data):
        assert native.bytes_at(buffer, start, size) == bytes_at(buffer, start, size)
    else:
        with pytest.raises(ValueError, match=r"bytes at"):
            native.bytes_at(buffer, start, size)


def test_no_bytes_are_copied_that_are_not_there(native: Any) -> None:
    for start, size in ((-1, 1), (0, -1), (2**63 - 1, 2**63 - 1), (1, 2**63 - 1)):
        with pytest.raises(ValueError, match=r"bytes at"):
            native.bytes_at(b"1234", start, size)
    with pytest.raises(OverflowError):
        native.bytes_at(b"1234", 2**64, 1)


@given(st.tuples(*[U32] * 9))
def test_headers_of_words_are_the_same(native: Any, words: tuple[int, ...]) -> None:
    assert native.header_of_words(*words) == header_of_words(*words)


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("wrong", [-1, 2**32, 2**64])
def test_a_word_that_is_no_word_is_refused(native: Any, place: int, wrong: int) -> None:
    words = [0] * 9
    words[place] = wrong
    with pytest.raises(OverflowError):
        native.header_of_words(*words)


HEADERS: Final = st.tuples(U8, U16, U64, U64, U64, U64, U64, U64, U32)


@given(HEADERS)
def test_headers_of_frames_are_the_same(native: Any, fields: tuple[int, ...]) -> None:
    header = native.frame_header(*fields)
    assert header == frame._header_in_python(*fields)
    assert native.frame_fields(header) == frame._fields_in_python(header) == fields


@given(HEADERS, st.integers(0, frame.HEADER_BYTES * 8 - 1))
def test_a_header_with_a_wrong_bit_is_none(native: Any, fields: tuple[int, ...], bit: int) -> None:
    header = bytearray(native.frame_header(*fields))
    header[bit // 8] ^= 1 << bit % 8
    assert native.frame_fields(bytes(header)) is None
    assert frame._fields_in_python(bytes(header)) is None


def test_what_is_shorter_or_longer_is_no_header(native: Any) -> None:
    header = native.frame_header(*range(9))
    for other in (b"", header[:-1], header + b"\0"):
        assert native.frame_fields(other) is None


@pytest.mark.parametrize(("place", "bits"), list(enumerate([8, 16, 64, 64, 64, 64, 64, 64, 32])))
def test_a_field_that_does_not_fit_is_refused(native: Any, place: int, bits: int) -> None:
    for wrong in (-1, 2**bits):
        fields = [0] * 9
        fields[place] = wrong
        with pytest.raises(OverflowError):
            native.frame_header(*fields)


@pytest.mark.parametrize("size_bytes", [1, 4 * KIB, 64 * KIB - 1, 64 * KIB, 200 * KIB])
def test_files_are_read_as_in_python(native: Any, tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "file").write_bytes(MANY)
    with (tmp_path / "file").open("rb") as file:
        fd = file.fileno()
        try:
            os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            pytest.skip(f"this file system has no reads without a wait: {error}")
        for offset in (0, 1, 5000, len(MANY) - size_bytes, len(MANY) - size_bytes + 1, len(MANY), 2**40):
            expected = file_sys._read_nowait_in_python(fd, size_bytes, offset)
            assert expected in (None, MANY[offset : offset + size_bytes])
            assert native.read_nowait(fd, size_bytes, offset) == expected
            into = memoryview(bytearray(size_bytes))
            assert native.read_nowait_into(fd, into, offset) == (expected is not None)
            assert expected is None or into == expected


def test_what_is_not_in_memory_is_left_to_others(native: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(MANY)
    into = bytearray(len(MANY))
    with (tmp_path / "file").open("r+b") as file:
        fd = file.fileno()
        os.fsync(fd)
        misses: list[Callable[[], bool]] = [
            lambda: native.read_nowait(fd, len(MANY), 0) is None,
            lambda: not native.read_nowait_into(fd, into, 0),
        ]
        for missed in misses:
            for _ in range(50):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if missed():
                    break
            else:
                pytest.skip("this file system keeps in memory what it is told to let go")


def test_a_read_that_fails_says_why(native: Any, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        for fd, offset, code in (
            (file.fileno(), 0, errno.EBADF),  # not open for reading
            (2**31 - 1, 0, errno.EBADF),
            (-1, 0, errno.EBADF),
            (2**40, 0, errno.EBADF),
            (file.fileno(), -5, errno.EINVAL),
        ):
            with pytest.raises(OSError, match=re.escape(os.strerror(code))):
                native.read_nowait(fd, 10, offset)
            with pytest.raises(OSError, match=re.escape(os.strerror(code))):
                native.read_nowait_into(fd, bytearray(10), offset)
        with pytest.raises(BufferError):
            native.read_nowait_into(file.fileno(), b"1234", 0)
        with pytest.raises(OverflowError):
            native.read_nowait(file.fileno(), 10, 2**63)


@pytest.mark.parametrize(
    "function",
    ["first_bad", "bytes_at", "header_of_words", "read_nowait", "read_nowait_into", "frame_header"],
)
def test_arguments_are_counted(native: Any, function: str) -> None:
    for count in (0, 1, 10):
        with pytest.raises(TypeError, match=f"{function} takes"):
            getattr(native, function)(*[0] * count)
