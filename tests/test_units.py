"""Sizes are read as people write them, and printed so that they can be read again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.units import GIB, KIB, MIB, TIB, align_down, align_up, format_size, parse_size

UNITS = {"": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1KiB", 1024),
        ("10GiB", 10 * GIB),
        ("10Gi", 10 * GIB),
        ("10gib", 10 * GIB),
        ("10G", 10**10),
        ("10GB", 10**10),
        ("1.5TiB", 3 * TIB // 2),
        ("0.25MiB", 256 * KIB),
        ("0.5k", 500),
        (" 2 MiB ", 2 * MIB),
        ("007", 7),
    ],
)
def test_a_size_is_read(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "+1", "1 2", "1,5GiB", "1.", ".5GiB", "1e9", "1PiB", "1iB", "0x10", "٣", "nan"]
)
def test_what_is_no_size_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        parse_size(text)


@pytest.mark.parametrize("text", ["0.5", "1.5B", "0.0001KiB", "1.1GiB"])
def test_a_part_of_a_byte_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (10 * GIB, "10GiB"),
        (10 * GIB + 1, "10GiB"),
        (3 * TIB // 2, "1.5TiB"),
        (5000 * TIB, "5000TiB"),
    ],
)
def test_a_size_is_printed(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(count=st.integers(0, 2046), unit=st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_whole_and_half_units_come_back(count: int, unit: str) -> None:
    size_bytes = count * UNITS[unit] // 2
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(1, 2**70))
def test_what_is_printed_is_off_by_a_twentieth_of_its_unit_at_most(size_bytes: int) -> None:
    match = re.fullmatch(r"([0-9.]+)(.*)B", format_size(size_bytes))
    assert match is not None
    factor = UNITS[match[2] + "B"] if match[2] else 1
    assert float(match[1]) * factor == pytest.approx(size_bytes, rel=1e-9, abs=0.0501 * factor)


@given(value=st.integers(0, 2**64), step=st.integers(1, 2**40))
def test_aligned_values_are_the_nearest_multiples(value: int, step: int) -> None:
    down, up = align_down(value, step), align_up(value, step)
    assert down % step == up % step == 0
    assert down <= value <= up
    assert up - down == (step if value % step else 0)
