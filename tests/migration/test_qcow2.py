"""Headers of disk images: those of QEMU, and anything."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.migration.qcow2 import HEADER_BYTES, Qcow2Header, parse_qcow2_header
from tests.real.volume_process import needs


def header(*, version: int = 3, backing: int = 0, crypt: int = 0, features: int = 0) -> bytes:
    start = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, 1 << 30, crypt)
    return start.ljust(72, b"\0") + struct.pack(">Q", features).ljust(HEADER_BYTES - 72, b"\0")


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_that_stands_alone(version: int) -> None:
    assert parse_qcow2_header(header(version=version)) == Qcow2Header(1 << 30)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (header(backing=512), "backing file"),
        (header(crypt=1), "encrypted"),
        (header(features=4), "another file"),
        (header(version=4), "version 4"),
        (header()[:50], "ends in its header"),
    ],
)
def test_an_image_that_needs_more_is_refused(start: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_qcow2_header(start)


@pytest.mark.parametrize("start", [b"", bytes(512), b"QFI"])
def test_the_rest_is_raw(start: bytes) -> None:
    assert parse_qcow2_header(start) is None


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"QFI\xfb" + rest))
def test_anything_is_raw_or_qcow2_or_refused(start: bytes) -> None:
    try:
        found = parse_qcow2_header(start)
    except ConfigError:
        return
    assert (found is not None) == start.startswith(b"QFI\xfb")


@pytest.mark.real
@needs(("qemu-img", "qemu-utils"))
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_an_image_of_qemu(compat: str, tmp_path: Path) -> None:
    image, above = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat={compat}")
    subprocess.run([*create, image, "3M"], check=True)
    subprocess.run([*create, "-b", image, "-F", "qcow2", above], check=True)
    assert parse_qcow2_header(image.read_bytes()[:HEADER_BYTES]) == Qcow2Header(3 << 20)
    with pytest.raises(ConfigError, match="backing file"):
        parse_qcow2_header(above.read_bytes()[:HEADER_BYTES])
