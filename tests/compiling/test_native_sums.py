"""The checksums of blocks in C are those in Python, for every kind of processor that they are made for."""

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.units import STORED_BLOCK_BYTES
from tests.compiling.tools import missing_to_compile

SOURCES: Final = sorted((Path(__file__).parents[2] / "compiling/native").glob("*.c"))
#: No two blocks are alike.
MANY: Final = b"".join(n.to_bytes(8, "little") * (STORED_BLOCK_BYTES // 8) for n in range(70))
#: Its XXH3-64 is 0: the steps of the hash for eight bytes, backwards.
HASHED_TO_0: Final = bytes.fromhex("42d568e138d727ff")

Sums = Callable[[object], bytes]


@pytest.fixture(scope="module", params=["for this processor", "for any processor"])
def sums_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sums:
    if missing := missing_to_compile():
        pytest.skip(missing)
    made = tmp_path_factory.mktemp("native") / "native_sums.so"
    options = ["-DWITHOUT_AVX2"] if request.param == "for any processor" else []
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    cc = shutil.which("cc")
    assert cc is not None
    subprocess.run(
        [cc, "-std=c11", "-O2", "-shared", "-fPIC", *warnings, *options, f"-I{sysconfig.get_path('include')}",
         *map(str, SOURCES), "-o", str(made)],
        check=True,
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("native_sums", made)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    found: Sums = module.sums_of
    return found


def in_python(data: bytes) -> bytes:
    return b"".join(
        (xxhash.xxh3_64_intdigest(data[at : at + STORED_BLOCK_BYTES]) or 1).to_bytes(8, "little")
        for at in range(0, len(data), STORED_BLOCK_BYTES)
    )


@given(blocks=st.integers(0, 64), more_bytes=st.integers(-600, 600), skipped_bytes=st.integers(0, 70))
def test_they_are_the_same(sums_of: Sums, blocks: int, more_bytes: int, skipped_bytes: int) -> None:
    size_bytes = max(0, blocks * STORED_BLOCK_BYTES + more_bytes)
    data = memoryview(MANY)[skipped_bytes : skipped_bytes + size_bytes]
    assert sums_of(data) == in_python(bytes(data))


@given(st.binary(max_size=300))
def test_they_are_the_same_of_little(sums_of: Sums, data: bytes) -> None:
    assert sums_of(bytearray(data)) == in_python(data)


def test_a_block_whose_hash_says_unknown_has_1(sums_of: Sums) -> None:
    assert xxhash.xxh3_64_intdigest(HASHED_TO_0) == 0
    data = MANY[:STORED_BLOCK_BYTES] + HASHED_TO_0
    assert sums_of(data) == in_python(data)
    assert sums_of(data)[8:] == (1).to_bytes(8, "little")


def test_what_is_no_contiguous_buffer_is_refused(sums_of: Sums) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        sums_of("text")
    with pytest.raises(BufferError, match="contiguous"):
        sums_of(memoryview(MANY)[::2])
