"""What Prometheus reads of a volume, and that docs/reference/metrics.md names all of it."""

import re
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.block import Limiter, Limits, Meters
from pyjiva.controller import Snapshots, Volume, VolumeState
from pyjiva.controller.api_io import ApiOf, serve_api
from pyjiva.controller.metrics import MODES, VolumeCollector
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.path_times import PathTimes
from pyjiva.controller.rebuild_totals import RebuildTotals
from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.status import RebuildStatus, ReplicaStatus, ScrubStatus, VolumeStatus
from pyjiva.replica.health_io import ReplicaCollector
from pyjiva.testing.cluster import Cluster, open_cluster, wait_state
from pyjiva.transport.exposition import BuildCollector
from pyjiva.units import KIB, MIB
from tests.suites.block_device import Driver, noise

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
OLD_NAMES = "## Old names"
EXPORTER = "## Exporter"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

COUNTS = st.integers(0, 2**50)
TEXTS = st.text(max_size=20)
REBUILDS = st.builds(
    RebuildStatus, st.integers(1, 7), COUNTS, COUNTS, COUNTS, COUNTS, st.none() | st.floats(0, 1e9)
)
TOTALS = st.builds(RebuildTotals, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.floats(0, 1e9))
REPLICAS = st.builds(
    ReplicaStatus,
    id=st.integers(1, 2**31),
    address=TEXTS,
    directory=TEXTS,
    mode=st.sampled_from(MODES),
    progress=st.none() | st.floats(0, 1),
    rebuild=st.none() | REBUILDS,
    rot=st.builds(RotCounts, COUNTS, COUNTS, COUNTS, COUNTS),
    used_bytes=st.none() | COUNTS,
    available_bytes=st.none() | COUNTS,
    reason=TEXTS,
    rebuilds=TOTALS,
)
STATUSES = st.builds(
    VolumeStatus,
    name=TEXTS,
    volume_id=TEXTS,
    size_bytes=COUNTS,
    block_size_bytes=st.sampled_from((512, 4096)),
    state=st.sampled_from(VolumeState),
    reason=TEXTS,
    epoch=COUNTS,
    replicas=st.lists(REPLICAS, max_size=7, unique_by=lambda r: r.id).map(tuple),
    scrub=st.none() | st.builds(ScrubStatus, st.booleans(), COUNTS, COUNTS, COUNTS),
    parked_requests=COUNTS,
)
EXAMPLE = VolumeStatus(
    "demo",
    "f" * 32,
    10 * MIB,
    512,
    VolumeState.DEGRADED,
    "",
    4,
    (
        ReplicaStatus(1, "", "", "in-sync", None, None, RotCounts(1, 2, 3, 4), None, None, ""),
        ReplicaStatus(
            2,
            "",
            "",
            "rebuilding",
            0.25,
            RebuildStatus(1, 10, 20, 15, 30, 1.5),
            RotCounts(),
            None,
            None,
            "",
            RebuildTotals(3, 2, 70, 60, 50, 9.5),
        ),
    ),
    ScrubStatus(True, 4096, 5, 6),
    7,
)


def samples_of(text: str) -> Samples:
    """Every sample of an exposition, by name and sorted labels."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    return samples


def text_of(status: VolumeStatus, sessions: int = 0) -> str:
    """As `/metrics` gives it."""
    registry = CollectorRegistry()
    path = HostPath(Meters(lambda: 0), Limiter(Limits(), lambda: 0.0), PathTimes(lambda: 0), lambda: 0)
    registry.register(VolumeCollector(lambda: status, lambda: sessions, path))
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("info", {"volume_id": "f" * 32}, 1),
        ("state", {"state": "degraded"}, 1),
        ("state", {"state": "healthy"}, 0),
        ("size_bytes", {}, 10 * MIB),
        ("epoch", {}, 4),
        ("replicas", {}, 2),
        ("in_sync_replicas", {}, 1),
        ("parked_requests", {}, 7),
        ("sessions", {}, 2),
        ("replica_mode", {"replica": "2", "mode": "rebuilding"}, 1),
        ("replica_mode", {"replica": "2", "mode": "out"}, 0),
        ("rebuilds_total", {"replica": "2"}, 3),
        ("rebuilds_completed_total", {"replica": "2"}, 2),
        ("rebuild_copied_bytes_total", {"replica": "2"}, 70),
        ("rebuild_sent_bytes_total", {"replica": "2"}, 60),
        ("rebuild_compared_bytes_total", {"replica": "2"}, 50),
        ("rebuild_seconds_total", {"replica": "2"}, 9.5),
        ("rebuild_copied_bytes_total", {"replica": "1"}, 0),
        ("rebuild_progress_ratio", {"replica": "2"}, 0.25),
        ("rebuild_remaining_bytes", {"replica": "2"}, 30),
        ("rebuild_eta_seconds", {"replica": "2"}, 1.5),
        ("rot_repairing", {"replica": "1"}, 1),
        ("rot_repaired_total", {"replica": "1"}, 2),
        ("rot_hopeless", {"replica": "1"}, 3),
        ("checksum_errors_total", {"replica": "1"}, 4),
        ("scrub_running", {}, 1),
        ("scrub_position_bytes", {}, 4096),
        ("scrub_bad_chunks", {}, 5),
        ("scrub_different_chunks", {}, 6),
    ],
)
def test_each_figure_of_the_status_is_a_metric(name: str, labels: dict[str, str], value: float) -> None:
    key = (f"pyjiva_volume_{name}", tuple(sorted({**labels, "volume": "demo"}.items())))
    assert samples_of(text_of(EXAMPLE, 2))[key] == value


@given(STATUSES, st.integers(0, 100))
def test_any_status_gives_a_text_that_can_be_read_again(status: VolumeStatus, sessions: int) -> None:
    samples = samples_of(text_of(status, sessions))
    totals: dict[str, float] = {}
    for (name, labels), value in samples.items():
        assert dict(labels)["volume"] == status.name
        totals[name] = totals.get(name, 0) + value
    assert totals["pyjiva_volume_state"] == 1
    assert totals.get("pyjiva_volume_replica_mode", 0) == len(status.replicas)
    etas = [r for r in status.replicas if r.rebuild is not None and r.rebuild.eta_s is not None]
    found = [labels for name, labels in samples if name == "pyjiva_volume_rebuild_eta_seconds"]
    assert len(found) == len(etas)
    assert ("pyjiva_volume_scrub_position_bytes" in totals) == (status.scrub is not None)


def rows() -> dict[str, set[str]]:
    """Metric → its labels, as the page says."""
    table = {}
    for line in PAGE.read_text().partition(EXPORTER)[0].splitlines():
        if line.startswith(("| `pyjiva_", "| `openebs_")):
            name, _, labels = line.split("|")[1:4]
            table[name.strip(" `")] = set(re.findall("`([a-zA-Z_]+)`", labels))
    return table


async def test_the_page_names_every_metric_of_both_processes_and_no_other(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, replicas=1) as cluster:
        daemon = cluster.nodes[1].daemon
        with trio.fail_after(20):
            while daemon.device.space is None:  # measured in a thread that the start does not wait for
                await trio.sleep(0.01)
        registry = CollectorRegistry()
        registry.register(ReplicaCollector(daemon, daemon.device))
        registry.register(BuildCollector())
        told = attrs.evolve(
            EXAMPLE, replicas=(attrs.evolve(EXAMPLE.replicas[0], used_bytes=1), EXAMPLE.replicas[1])
        )
        exposed = samples_of(generate_latest(registry).decode()) | samples_of(text_of(told))
    known: dict[str, set[str]] = {}
    parts = {f"{name.removesuffix('_sum')}{part}" for name, _ in exposed for part in ("_bucket", "_count")}
    for name, labels in exposed:
        if name not in parts:  # of a histogram, which the page names once
            known.setdefault(name.removesuffix("_sum"), set()).update(dict(labels))
    assert rows() == known


def test_a_bare_status_has_no_sample_that_would_be_a_guess() -> None:
    bare = attrs.evolve(
        EXAMPLE,
        scrub=None,
        replicas=(attrs.evolve(EXAMPLE.replicas[1], rebuild=RebuildStatus(1, 0, 0, 0, 30, None)),),
    )
    names = {name for name, _ in samples_of(text_of(bare))}
    assert "pyjiva_volume_rebuild_remaining_bytes" in names
    assert not names & {"pyjiva_volume_rebuild_eta_seconds", "pyjiva_volume_scrub_position_bytes"}


async def test_a_rebuild_that_has_ended_is_counted_on_both_sides(tmp_path: Path) -> None:
    """What the controller says it copied has arrived at the replica; a scrape gives both."""
    missed = 256 * KIB
    async with (
        open_cluster(tmp_path) as cluster,
        cluster.open_volume(new_volume=True) as (volume, batch),
        trio.open_nursery() as nursery,
    ):
        driver = Driver(volume, batch)
        await driver.write(0, noise(1 * MIB))
        await cluster.stop_replica(2)
        await driver.write(0, noise(missed, seed=2))
        await wait_state(volume, VolumeState.DEGRADED)
        await cluster.start_replica(2)
        await wait_state(volume, VolumeState.HEALTHY)
        port = await nursery.start(_serve, volume)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        nursery.cancel_scope.cancel()
        received_bytes = received(cluster, 2)
        rebuilds = volume.status().replicas[1].rebuilds
    samples = samples_of(answer.text)
    labels = (("replica", "2"), ("volume", "test"))
    assert samples["pyjiva_volume_rebuild_copied_bytes_total", labels] == rebuilds.copied_bytes == missed
    assert (rebuilds.begun, rebuilds.completed, rebuilds.seconds > 0) == (1, 1, True)
    assert missed <= received_bytes < 1.1 * missed


async def _serve(volume: Volume, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    of = ApiOf(
        volume=volume,
        snapshots=Snapshots(volume),
        iqn="iqn.2016-09.com.openebs.jiva:test",
        portals=list,
        sessions=list,
        limiter=Limiter(Limits(), trio.current_time),
        meters=Meters(lambda: 0),
    )
    await serve_api(of, "127.0.0.1", 0, task_status=task_status)


def received(cluster: Cluster, replica_id: int) -> int:
    """Bytes that this replica's daemon received since it started."""
    return cluster.nodes[replica_id].daemon.statistics().received_bytes
