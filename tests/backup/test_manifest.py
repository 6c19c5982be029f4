"""Manifests and checkpoints in the store."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup import Manifest, check_id
from pyjiva.backup.manifest import Checkpoint, chunk_key, name_of_chunk_key
from pyjiva.backup.objects import DamagedError
from pyjiva.backup.table import TableBuilder
from pyjiva.errors import ConfigError

MANIFEST = Manifest(
    id="20261126T140312Z-8f3a9c01",
    volume="demo",
    volume_id="0" * 32,
    snapshot="monday",
    snapshot_created="2026-11-26T14:00:00Z",
    size_bytes=1 << 30,
    block_size_bytes=512,
    chunk_bytes=1 << 20,
    created="2026-11-26T14:03:12+00:00",
    base="",
    table_hash="ab" * 32,
    chunks=3,
    read_bytes=3 << 20,
    stored_bytes=1 << 20,
)


def test_it_comes_back() -> None:
    assert Manifest.decode(MANIFEST.encode(), "m") == MANIFEST


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"chunks": -1}, {"chunks": "3"}, {"chunks": True}, {"size_bytes": 0},
        {"id": "../../etc"}, {"base": "x"}, {"volume": 3}, {"more": 1}, {"read_bytes": 1.5},
    ],
)  # fmt: skip
def test_an_impossible_field_is_damage(change: dict[str, object]) -> None:
    fields = json.loads(MANIFEST.encode()) | change
    with pytest.raises(DamagedError, match="manifests/x"):
        Manifest.decode(json.dumps(fields).encode(), "manifests/x")


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Manifest)])
def test_no_field_may_be_missing(name: str) -> None:
    fields = json.loads(MANIFEST.encode())
    del fields[name]
    with pytest.raises(DamagedError):
        Manifest.decode(json.dumps(fields).encode(), "m")


@given(anything=st.binary(max_size=60) | st.just(b"[" * 100_000) | st.just(b'{"format": 1}'))
def test_any_bytes_are_damage(anything: bytes) -> None:
    with pytest.raises(DamagedError):
        Manifest.decode(anything, "m")


@given(anything=st.binary(max_size=120))
def test_any_bytes_are_a_checkpoint_or_damage(anything: bytes) -> None:
    try:
        checkpoint = Checkpoint.decode(anything, "u")
    except DamagedError:
        return
    assert checkpoint.encode() == anything


def test_a_checkpoint_comes_back() -> None:
    builder = TableBuilder(1000, 100)
    builder.add(3, bytes(32))
    checkpoint = Checkpoint(7, builder.table())
    assert Checkpoint.decode(checkpoint.encode(), "u") == checkpoint


@given(name=st.binary(min_size=32, max_size=32))
def test_a_chunk_is_found_by_its_name(name: bytes) -> None:
    assert name_of_chunk_key(chunk_key(name)) == name


@pytest.mark.parametrize("key", ["chunks/ab/abc", "chunks/ab/cd" + "0" * 62, "chunks/x", "other"])
def test_what_is_not_ours_is_no_chunk(key: str) -> None:
    assert name_of_chunk_key(key) is None


def test_an_id_that_cannot_be_is_refused() -> None:
    assert check_id(MANIFEST.id) == MANIFEST.id
    for wrong in ("", "../x", MANIFEST.id + "\n"):
        with pytest.raises(ConfigError, match="pyjiva backup ls"):
            check_id(wrong)
