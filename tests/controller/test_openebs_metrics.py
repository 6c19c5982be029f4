"""OpenEBS' names, as they are here and as they were, and that docs/reference/metrics.md maps them."""

import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.block import Flush, Limiter, Limits, MemoryDevice, MeteredDevice, Meters, Read, Write
from pyjiva.controller.metrics import VolumeCollector
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.path_times import PathTimes
from pyjiva.controller.status import ReplicaStatus, VolumeState, VolumeStatus
from pyjiva.units import GIB, MIB
from tests.controller.test_metrics import EXAMPLE, OLD_NAMES, PAGE, Samples, samples_of

LABELS = (("volume", "demo"),)


def meters() -> Meters:
    """Of two reads, a write and a flush of 250 ns each, 1 s before the scrape."""
    now_ns = 0

    def clock_ns() -> int:
        nonlocal now_ns
        now_ns += 250
        return now_ns

    meters = Meters(clock_ns)
    device = MeteredDevice(MemoryDevice(1 * MIB), meters)
    done: Callable[[Any], None] = lambda request: None  # noqa: E731  # what is answered is not looked at
    for request in (Read(0, 4096, done), Read(0, 512, done), Write(0, 3, (b"abc",), done), Flush(done)):
        device.submit(request)
    now_ns += 10**9
    return meters


def scrape(*, old: bool, status: VolumeStatus = EXAMPLE, sessions: int = 1) -> str:
    registry = CollectorRegistry()
    path = HostPath(meters(), Limiter(Limits(), lambda: 0.0), PathTimes(lambda: 0), lambda: 0)
    registry.register(VolumeCollector(lambda: status, lambda: sessions, path, old_names=old))
    return generate_latest(registry).decode()


def openebs(text: str) -> Samples:
    return {key: value for key, value in samples_of(text).items() if key[0].startswith("openebs_")}


def with_used(*used_bytes: int | None) -> VolumeStatus:
    replicas = tuple(
        attrs.evolve(EXAMPLE.replicas[0], id=i, used_bytes=used) for i, used in enumerate(used_bytes)
    )
    return attrs.evolve(EXAMPLE, replicas=replicas)


def test_names_of_today_with_units_and_the_volume() -> None:
    found = openebs(scrape(old=False, status=with_used(GIB, None, 2 * GIB)))
    uptime_s = found.pop(
        ("openebs_volume_uptime", (("castype", "jiva"), ("volName", "demo"), ("volume", "demo")))
    )
    assert uptime_s == pytest.approx(1.0, abs=1e-4)
    assert found == {
        (name, LABELS): value
        for name, value in {
            "openebs_reads_total": 2,
            "openebs_writes_total": 1,
            "openebs_read_time_seconds_total": 500e-9,
            "openebs_write_time_seconds_total": 250e-9,
            "openebs_read_bytes_total": 4096 + 512,
            "openebs_write_bytes_total": 3,
            "openebs_actual_used_bytes": 2 * GIB,
            "openebs_size_of_volume_bytes": 10 * MIB,
            "openebs_sector_size": 512,
            "openebs_volume_status": 2,
            "openebs_total_replica_count": 3,
            "openebs_healthy_replica_count": 3,
            "openebs_degraded_replica_count": 0,
            "openebs_iscsi_initiator_login_status": 1,
        }.items()
    }


def test_names_of_old_as_they_were() -> None:
    found = openebs(scrape(old=True, status=with_used(GIB // 2), sessions=0))
    assert found.pop(("openebs_volume_uptime", (("castype", "jiva"), ("volName", "demo")))) > 0.99
    assert found == {
        (f"openebs_{name}", ()): value
        for name, value in {
            "reads": 2,
            "writes": 1,
            "read_time": 500,
            "write_time": 250,
            "read_block_count": 4096 + 512,
            "write_block_count": 3,
            "total_read_bytes": 0,
            "total_write_bytes": 0,
            "actual_used": 0.5,
            "logical_size": 0.5,
            "size_of_volume": 10 / 1024,
            "sector_size": 512,
            "volume_status": 2,
            "total_replica_count": 1,
            "healthy_replica_count": 1,
            "degraded_replica_count": 0,
            "iscsi_initiator_login_status": 0,
            "connection_retry_total": 0,
            "connection_error_total": 0,
            "parse_error_total": 0,
            "target_reject_request_counter": 0,
        }.items()
    }


def test_old_metrics_are_gauges_and_what_adds_up_now_is_a_counter() -> None:
    types = {
        old: {f.name: f.type for f in text_string_to_metric_families(scrape(old=old)) if "openebs" in f.name}
        for old in (False, True)
    }
    assert types[True].pop("openebs_target_reject_request_counter") == "unknown"
    assert set(types[True].values()) == {"gauge"}
    counters = {name for name, type_ in types[False].items() if type_ == "counter"}
    assert counters == {
        f"openebs_{verb}{what}" for verb in ("read", "write") for what in ("s", "_time_seconds", "_bytes")
    }
    assert {type_ for name, type_ in types[False].items() if name not in counters} == {"gauge"}


@pytest.mark.parametrize(
    ("state", "number"), [(VolumeState.PARKED, 1), (VolumeState.DEGRADED, 2), (VolumeState.HEALTHY, 3)]
)
def test_state_as_a_number(state: VolumeState, number: int) -> None:
    status = attrs.evolve(EXAMPLE, state=state)
    assert openebs(scrape(old=False, status=status))["openebs_volume_status", LABELS] == number


@pytest.mark.parametrize(
    ("modes", "reached", "healthy", "degraded"),
    [
        (("in-sync", "in-sync", "in-sync"), 3, 3, 0),
        (("in-sync", "rebuilding", "out"), 2, 1, 2),
        (("in-sync", "in-sync", "witness"), 3, 2, 0),
        ((), 0, 0, 0),
    ],
)
def test_replicas_are_counted_by_how_they_are(
    modes: tuple[str, ...], reached: int, healthy: int, degraded: int
) -> None:
    replicas: list[ReplicaStatus] = [
        attrs.evolve(EXAMPLE.replicas[0], id=number, mode=mode) for number, mode in enumerate(modes)
    ]
    found = openebs(scrape(old=False, status=attrs.evolve(EXAMPLE, replicas=tuple(replicas))))
    names = ("total", "healthy", "degraded")
    assert [found[f"openebs_{name}_replica_count", LABELS] for name in names] == [reached, healthy, degraded]


def test_space_that_nobody_has_told_of_has_no_sample() -> None:
    assert not {n for n, _ in openebs(scrape(old=False, status=with_used(None)))} & {
        "openebs_actual_used_bytes"
    }
    old = {name for name, _ in openebs(scrape(old=True, status=with_used(None)))}
    assert not old & {"openebs_actual_used", "openebs_logical_size"}


def test_the_page_maps_every_old_name_to_what_there_is() -> None:
    """But for the exporter's version, of which there is none."""
    rows = [
        line.split("|")[1:4]
        for line in PAGE.read_text().partition(OLD_NAMES)[2].splitlines()
        if "| `" in line
    ]
    mapped = {name for row in rows for name in re.findall("`(openebs_[a-z_]+)`", row[0])}
    given = {name for name, _ in openebs(scrape(old=True, status=with_used(1)))}
    assert mapped == given | {"openebs_maya_exporter_version"}
    successors = {name for row in rows for name in re.findall("`(openebs_[a-z_]+)`", row[2])}
    assert successors <= {name for name, _ in openebs(scrape(old=False, status=with_used(1)))}
