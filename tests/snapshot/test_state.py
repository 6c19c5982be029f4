"""A replica's state survives its file, and damage to the file is noticed."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import ReplicaState
from pyjiva.snapshot import state as state_module
from pyjiva.snapshot.state import FORMAT_VERSION, decode_state, encode_state
from pyjiva.units import GIB

STATE = ReplicaState(
    volume_id="0d9c", replica_id=2, volume_name="demo", size_bytes=10 * GIB, block_size_bytes=512,
    promised_epoch=7, promised_to="c-1",
    record=MembershipRecord(7, 3, "c-1", configured=(1, 2, 3), in_sync=(1, 2), clean=False),
    written_boot_id="b-1",
)  # fmt: skip


@given(
    st.builds(
        ReplicaState,
        volume_id=st.text(min_size=1),
        replica_id=st.integers(0, 2**32),
        volume_name=st.text(),
        size_bytes=st.integers(1, 2**40).map(lambda n: n * 4096),
        block_size_bytes=st.sampled_from([512, 4096]),
        promised_epoch=st.integers(0, 2**64),
        promised_to=st.text(),
        record=st.sampled_from([None, STATE.record]),
        written_boot_id=st.text(),
    )
)
def test_state_survives_its_file(state: ReplicaState) -> None:
    assert decode_state(encode_state(state)) == state


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_any_bytes_give_a_config_error(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"pyjiva\.json"):
        decode_state(content)


_SAMPLE = encode_state(STATE)


@given(st.integers(0, len(_SAMPLE) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_the_same_state_or_a_config_error(at: int, value: int) -> None:
    """The same: where JSON allows another white space."""
    content = _SAMPLE[:at] + bytes([value]) + _SAMPLE[at + 1 :]
    try:
        state = decode_state(content)
    except ConfigError:
        return
    assert state == STATE


@pytest.mark.parametrize("length", range(0, len(_SAMPLE) - 1, 7))
def test_a_torn_file_is_damaged(length: int) -> None:
    for content in (_SAMPLE[:length], _SAMPLE[:length].ljust(len(_SAMPLE), b"\0")):
        with pytest.raises(ConfigError, match="damaged"):
            decode_state(content)


def test_a_newer_format_is_told_from_damage() -> None:
    newer = json.dumps({"format": FORMAT_VERSION + 1, "anything": []}).encode()
    with pytest.raises(ConfigError, match="take the newer one"):
        decode_state(newer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volume_id", ""), ("volume_id", 1), ("replica_id", -1), ("replica_id", True), ("replica_id", 1.0),
        ("volume_name", None), ("size_bytes", 0), ("size_bytes", 513), ("block_size_bytes", 1024),
        ("promised_epoch", -1), ("promised_to", 1), ("record", 1), ("written_boot_id", None),
    ],
)  # fmt: skip
def test_impossible_fields_are_no_state_though_the_checksum_fits(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        attrs.evolve(STATE, **{field: value})
    content = json.loads(_SAMPLE)
    content["state"][field] = value
    del content["checksum"]
    content["checksum"] = state_module._checksum(content)
    with pytest.raises(ConfigError, match="damaged"):
        decode_state(json.dumps(content).encode())
