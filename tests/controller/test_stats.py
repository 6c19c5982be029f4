"""`GET /v1/stats` as Jiva's exporters read it."""

from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.stats import MODES, STATS_SCHEMA, IoTotals, jiva_stats
from pyjiva.controller.status import WITNESS, ReplicaStatus, VolumeState, VolumeStatus


def replica(number: int, mode: str, used_bytes: int | None) -> ReplicaStatus:
    return ReplicaStatus(
        number, f"10.0.0.{number}:9502", "", mode, None, None, RotCounts(), used_bytes, None, ""
    )


STATUS = VolumeStatus(
    name="demo",
    volume_id="f" * 32,
    size_bytes=1 << 30,
    block_size_bytes=512,
    state=VolumeState.DEGRADED,
    reason="",
    epoch=4,
    replicas=(
        replica(1, "in-sync", 8192),
        replica(2, "rebuilding", 65536),
        replica(3, "out", None),
        replica(4, WITNESS, None),
    ),
    scrub=None,
)
IO = IoTotals(reads=3, read_bytes=12288, read_ns=900, writes=2, written_bytes=8192, write_ns=700)


def stats(status: VolumeStatus = STATUS, sessions: int = 1) -> dict[str, Any]:
    return jiva_stats(status, IO, url="http://10.0.0.9:9501/v1/stats", sessions=sessions, uptime_s=61.4)


def test_what_an_exporter_reads() -> None:
    """openebs_actual_used is UsedLogicalBlocks x SectorSize, the others stand as they are."""
    answer = stats()
    assert int(answer["UsedLogicalBlocks"]) * int(answer["SectorSize"]) == 8192
    assert answer["Size"] == str(1 << 30)
    io = {
        name: answer[name] for name in answer if name.startswith(("Read", "Write", "TotalRead", "TotalWrite"))
    }
    assert io == {
        "ReadIOPS": "3",
        "TotalReadTime": "900",
        "TotalReadBlockCount": "12288",
        "WriteIOPS": "2",
        "TotalWriteTime": "700",
        "TotalWriteBlockCount": "8192",
    }
    assert (answer["UpTime"], answer["Name"], answer["ReplicaCounter"]) == ("61", "demo", 2)


def test_replicas_have_jivas_modes_and_a_witness_is_none() -> None:
    assert stats()["Replicas"] == [
        {"Address": "tcp://10.0.0.1:9502", "Mode": "RW"},
        {"Address": "tcp://10.0.0.2:9502", "Mode": "WO"},
        {"Address": "tcp://10.0.0.3:9502", "Mode": "ERR"},
    ]


@pytest.mark.parametrize(("sessions", "connected"), [(0, False), (1, True), (2, True)])
def test_a_client_is_connected_when_there_is_a_session(sessions: int, connected: bool) -> None:
    assert stats(sessions=sessions)["IsClientConnected"] is connected


@pytest.mark.parametrize(
    ("state", "jiva"),
    [(VolumeState.HEALTHY, "RW"), (VolumeState.DEGRADED, "RW"), (VolumeState.PARKED, "RO")],
)
def test_it_is_read_only_while_it_is_parked(state: VolumeState, jiva: str) -> None:
    assert stats(attrs.evolve(STATUS, state=state))["Status"] == jiva


@given(
    modes=st.lists(st.sampled_from([*MODES, WITNESS]), max_size=7),
    used=st.none() | st.integers(0, 2**50),
    state=st.sampled_from(VolumeState),
)
def test_every_status_has_an_answer_of_the_schema(
    modes: list[str], used: int | None, state: VolumeState
) -> None:
    replicas = tuple(replica(number, mode, used) for number, mode in enumerate(modes, 1))
    jsonschema.validate(stats(attrs.evolve(STATUS, state=state, replicas=replicas)), STATS_SCHEMA)
