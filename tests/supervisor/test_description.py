"""What a volume may be, and reading back what was written of it."""

import json
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.supervisor import VolumeDescription, VolumeRequest

REQUEST = VolumeRequest("demo", 4 << 20, 512, 3)
DESCRIPTION = attrs.evolve(
    VolumeDescription.new(REQUEST, "0123456789abcdef" * 2), data_ports=(9502, 9503, 9504), born=True
)


@pytest.mark.parametrize(
    ("name", "size", "block", "replicas"),
    [
        ("", 4096, 512, 3),
        ("Upper", 4096, 512, 3),
        ("a/b", 4096, 512, 3),
        ("..", 4096, 512, 3),
        ("-a", 4096, 512, 3),
        ("a-", 4096, 512, 3),
        ("a\n", 4096, 512, 3),
        ("a" * 64, 4096, 512, 3),
        ("demo", 0, 512, 3),
        ("demo", -512, 512, 3),
        ("demo", 1000, 512, 3),
        ("demo", 4608, 4096, 3),
        ("demo", 2**63, 512, 3),
        ("demo", 4096, 1024, 3),
        ("demo", 4096, 0, 3),
        ("demo", 4096, 512, 0),
        ("demo", 4096, 512, 8),
    ],
)
def test_what_cannot_be_is_refused(name: str, size: int, block: int, replicas: int) -> None:
    with pytest.raises(ConfigError) as caught:
        VolumeRequest(name, size, block, replicas)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_any_dns_label_is_a_name(name: str) -> None:
    assert VolumeRequest(name, 4096, 4096, 7).name == name


def test_it_is_read_back() -> None:
    assert VolumeDescription.from_json(DESCRIPTION.to_json()) == DESCRIPTION
    assert DESCRIPTION.request == REQUEST


def test_another_format_is_named() -> None:
    fields = json.loads(DESCRIPTION.to_json()) | {"format": 7}
    with pytest.raises(ConfigError, match="format 7"):
        VolumeDescription.from_json(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"name": None}, {"name": "UPPER"}, {"volume_id": 5}, {"volume_id": "xyz"}, {"size_bytes": "64"},
        {"size_bytes": True}, {"replicas": 2}, {"replicas": 3.0}, {"data_ports": [1, 2]},
        {"data_ports": [1, 2, 65536]}, {"health_ports": 5}, {"health_ports": ["1", "2", "3"]}, {"born": 1},
        {"witness": 0}, {"witness": True}, {"colour": "red"},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_that_cannot_be_is_damage(change: dict[str, Any]) -> None:
    fields = json.loads(DESCRIPTION.to_json()) | change
    with pytest.raises(ConfigError):
        VolumeDescription.from_json(json.dumps(fields).encode())


def test_one_from_before_there_were_witnesses_has_none() -> None:
    fields = json.loads(DESCRIPTION.to_json())
    del fields["witness"]
    assert VolumeDescription.from_json(json.dumps(fields).encode()) == DESCRIPTION


def test_a_witness_is_one_member_more() -> None:
    request = attrs.evolve(REQUEST, replicas=2, witness=True)
    described = VolumeDescription.new(request, "0" * 32)
    assert (request.members, len(described.data_ports), described.request) == (3, 3, request)
    assert VolumeDescription.from_json(described.to_json()) == described
    with pytest.raises(ConfigError, match="together at most 7"):
        attrs.evolve(REQUEST, replicas=7, witness=True)


@pytest.mark.parametrize("field", sorted(set(json.loads(DESCRIPTION.to_json())) - {"witness"}))
def test_a_field_that_is_missing_is_damage(field: str) -> None:
    fields = json.loads(DESCRIPTION.to_json())
    del fields[field]
    with pytest.raises(ConfigError):
        VolumeDescription.from_json(json.dumps(fields).encode())


@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_any_damage_is_one_clear_error(cut: int, junk: bytes) -> None:
    """Or not seen, where a number became another one: never another exception."""
    whole = DESCRIPTION.to_json()
    try:
        VolumeDescription.from_json(whole[:cut] + junk + whole[cut + len(junk) :])
    except ConfigError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@given(st.binary(max_size=60))
def test_any_bytes_are_one_clear_error(text: bytes) -> None:
    with pytest.raises(ConfigError):
        VolumeDescription.from_json(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "other"}, "name demo, asked for was other"),
        ({"size_bytes": 8 << 20}, r"size 4MiB \(4194304 bytes\), asked for was 8MiB \(8388608 bytes\)"),
        ({"block_size_bytes": 4096}, "block size 512, asked for was 4096"),
        ({"replicas": 2}, "number of replicas 3, asked for was 2"),
        ({"witness": True}, "number of witnesses 0, asked for was 1"),
    ],
)
def test_a_difference_is_named(change: dict[str, Any], says: str) -> None:
    assert re.search(says, DESCRIPTION.difference(attrs.evolve(REQUEST, **change)))
    assert DESCRIPTION.difference(REQUEST) == ""
