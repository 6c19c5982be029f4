"""What Prometheus reads of the way of hosts' requests, after requests of a real volume and made-up times."""

from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pyjiva.block import (
    BlockStatus,
    Buffer,
    Flush,
    Limiter,
    Limits,
    MeteredDevice,
    Meters,
    Read,
    Request,
    Unmap,
    Write,
)
from pyjiva.controller import VolumeState
from pyjiva.controller.data_path import DataPath
from pyjiva.controller.metrics import VolumeCollector
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.path_times import TIMED, PathTimes, Stopwatch
from pyjiva.replication import FrameType, RequestFrame
from pyjiva.testing.cluster import open_cluster, wait_state
from pyjiva.units import KIB
from tests.controller.test_metrics import EXAMPLE, Samples, samples_of
from tests.suites.block_device import Driver, noise


def never(*_: Any) -> NoReturn:
    """For callbacks about what does not happen here."""
    raise AssertionError("something went wrong")


@attrs.frozen
class SentTo:
    """A link of which the frames are kept."""

    frames: list[Buffer]

    def send(self, frame: RequestFrame) -> None:
        """Of no payload here."""
        self.frames.extend(frame.buffers())


class Bench:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.times = PathTimes(lambda: self.now_ns)


def scrape(path: HostPath) -> Samples:
    registry = CollectorRegistry()
    registry.register(VolumeCollector(lambda: EXAMPLE, lambda: 0, path))
    return samples_of(generate_latest(registry).decode())


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"volume": "demo", **values}.items()))


def host_path(times: PathTimes | None = None) -> HostPath:
    return HostPath(
        Meters(lambda: 0), Limiter(Limits(), lambda: 0.0), times or PathTimes(lambda: 0), lambda: 0
    )


def test_a_time_is_in_every_bucket_from_its_own_on() -> None:
    times = PathTimes(lambda: 0)
    times.member(2)[FrameType.READ].add(3 << 20)  # between 2**21 and 2**22 ns
    samples = scrape(host_path(times))
    name = "pyjiva_volume_replica_answer_seconds"
    own = {
        float(dict(sample_labels)["le"]): value
        for (sample, sample_labels), value in samples.items()
        if sample == f"{name}_bucket" and dict(sample_labels)["operation"] == "read"
        if dict(sample_labels)["replica"] == "2"
    }
    assert own == {bound: int(bound >= 2**22 / 1e9) for bound in own}
    assert set(own.values()) == {0, 1}
    assert samples[f"{name}_sum", labels(replica="2", operation="read")] == (3 << 20) / 1e9
    assert samples[f"{name}_count", labels(replica="2", operation="read")] == 1
    assert samples[f"{name}_count", labels(replica="1", operation="read")] == 0


def test_a_member_that_is_asked_for_again_keeps_its_times() -> None:
    times = PathTimes(lambda: 0)
    times.member(1)[FrameType.WRITE].add(5)
    assert times.member(1)[FrameType.WRITE].count == 1
    assert set(times.member(1)) == set(TIMED)


def test_a_stopwatch_counts_what_runs_and_only_once() -> None:
    bench = Bench()
    watch = Stopwatch(lambda: bench.now_ns)
    for now_s, running, total_s in (
        (1, False, 0),
        (2, True, 0),
        (4, True, 2),  # nothing new
        (5, False, 3),
        (9, False, 3),
        (10, True, 3),
        (11, False, 4),
    ):
        bench.now_ns = now_s * 10**9
        watch.set(running=running)
        assert watch.total_s == total_s
    watch.set(running=True)
    bench.now_ns += 10**9
    assert watch.total_s == 5  # while it runs


@pytest.mark.parametrize("name", ["limited_requests", "locked_requests", "parked_seconds_total"])
def test_a_quiet_volume_has_nobody_waiting(name: str) -> None:
    assert scrape(host_path())[f"pyjiva_volume_{name}", labels()] == 0


def test_a_parked_request_is_timed_until_it_may_go_on_and_again_until_it_is_given_up() -> None:
    bench = Bench()
    path = DataPath(
        (1,),
        1 << 20,
        on_failed=never,
        on_diverged=never,
        on_fenced=never,
        on_bad_block=never,
        on_changed=never,
        takes_fills=never,
        park_limit_s=10.0,
        times=bench.times,
    )
    answered: list[Request] = []
    path.submit(Read(0, 512, answered.append))
    path.submit(Flush(answered.append))
    bench.now_ns += 2 * 10**9
    assert (path.parked, bench.times.parked.total_s) == (2, 2)
    sent: list[Buffer] = []
    path.member_up(1, SentTo(sent))
    path.set_members(must_ack=1, writable=1, readable=1, rebuilding=0, min_copies=1, serving=True)
    bench.now_ns += 5 * 10**9
    assert (path.parked, len(sent), bench.times.parked.total_s) == (0, 2, 2)
    path.member_down(1)  # the read has nobody to go to
    bench.now_ns += 3 * 10**9
    assert (path.parked, bench.times.parked.total_s) == (1, 5)
    path.tick(20.0)
    bench.now_ns += 10**9
    assert (path.parked, bench.times.parked.total_s) == (0, 5)


async def test_every_stage_counts_what_a_host_asks_of_three_replicas(tmp_path: Path) -> None:
    """A write is in the times of every replica, a read in those of one."""
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        await wait_state(volume, VolumeState.HEALTHY)
        meters = Meters(volume.times.clock_ns)
        driver = Driver(MeteredDevice(volume, meters), batch)
        await driver.write(0, noise(64 * KIB))
        for _ in range(3):
            await driver.read(0, 4 * KIB)
        await driver.flush()
        times = volume.times
        for verb, count, length in ((Write, 1, 64 * KIB), (Read, 3, 12 * KIB), (Flush, 1, 0)):
            assert (meters.of[verb].times.count, meters.of[verb].length_bytes) == (count, length)
            assert (meters.of[verb].in_flight, meters.of[verb].errors) == (0, 0)
        assert all(meters.of[verb].times.count == 0 for verb in (Unmap, BlockStatus))
        assert [times.member(i)[FrameType.WRITE].count for i in (1, 2, 3)] == [1, 1, 1]
        assert [times.member(i)[FrameType.FLUSH].count for i in (1, 2, 3)] == [1, 1, 1]
        # The first read asks for a window, and what is read through that is in no replica's times.
        asked = sum(times.member(i)[FrameType.READ].count for i in (1, 2, 3))
        assert (asked >= 1, asked + volume.window_reads) == (True, 3)
        assert (times.settled[FrameType.WRITE].count, times.settled[FrameType.FLUSH].count) == (1, 1)
        # Each stage is within the one above it.
        slowest_ns = max(times.member(i)[FrameType.WRITE].total_ns for i in (1, 2, 3))
        assert 0 < slowest_ns == times.settled[FrameType.WRITE].total_ns <= meters.of[Write].times.total_ns
        assert times.parked.total_s == 0
        # Flushes take a disk thread, also where the write did not.
        assert all(node.daemon.device.disk_times[Flush].count >= 1 for node in cluster.nodes.values())
