"""`maya.kube.quantity`: bytes as Kubernetes writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10Gi", 10 << 30),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("5k", 5000),
        ("1e9", 10**9),
        ("1.5e3", 1500),
        ("0.1", 1),  # a part of a byte counts whole, as Quantity.Value() rounds up
        ("16Ti", 16 << 40),
        ("1Pi", 1 << 50),
        ("1Ei", 1 << 60),
    ],
)
def test_what_kubernetes_takes(text: str, size_bytes: int) -> None:
    assert parse_quantity(text) == size_bytes


@pytest.mark.parametrize("text", ["", "x", "-1", "10GiB", "10 Gi", "100m", "1ki", "1K", "10gi", "1.", "١"])
def test_what_it_does_not_take_or_is_not_bytes(text: str) -> None:
    with pytest.raises(ConfigError, match="quantity"):
        parse_quantity(text)


@given(st.integers(0, 1 << 62))
def test_what_is_written_is_read_as_the_same(size_bytes: int) -> None:
    assert parse_quantity(format_quantity(size_bytes)) == size_bytes


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    try:
        size_bytes = parse_quantity(text)
    except ConfigError:
        size_bytes = 0
    assert size_bytes >= 0
