"""`GET /v1/stats` as Jiva's exporters read it."""

from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import Meters, Read, Write
from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.stats import MODES, STATS_SCHEMA, jiva_stats
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
UPTIME_NS = 61_400_000_000


def meters() -> Meters:
    """Of three reads and two writes, 61.4 s after the start."""
    now_ns = iter((0, UPTIME_NS))
    counted = Meters(lambda: next(now_ns))
    for verb, times_ns, length in ((Read, (200, 300, 400), 12288), (Write, (300, 400), 8192)):
        for took_ns in times_ns:
            counted.of[verb].times.add(took_ns)
        counted.of[verb].length_bytes = length
    return counted


def stats(status: VolumeStatus = STATUS, sessions: int = 1) -> dict[str, Any]:
    return jiva_stats(status, meters(), url="http://10.0.0.9:9501/v1/stats", sessions=sessions)


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
