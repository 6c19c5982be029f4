"""What Prometheus reads of the way of hosts' requests: how many, how much, how long at each stage.  Pure.

host ─▶ target ─▶ device (`host_seconds`) ─▶ fan-out ─▶ replicas (`replica_answer_seconds` of each)
                                               └─ all that must have it (`replicated_seconds`)
"""

from collections.abc import Callable, Iterator

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pyjiva.block import Limiter, Meters, Times
from pyjiva.controller.path_times import TIMED, PathTimes
from pyjiva.controller.status import VolumeStatus
from pyjiva.transport.exposition import Distribution, histogram

__all__ = ["HostPath", "path_families"]

_BY_OPERATION = ("volume", "operation")


@attrs.frozen
class HostPath:
    """Who counts along the way."""

    meters: Meters
    """Where the target submits."""
    limiter: Limiter
    times: PathTimes
    """Of the replicas."""
    window_reads: Callable[[], int]
    """Reads for which no replica was asked, so far."""


def path_families(status: VolumeStatus, path: HostPath) -> Iterator[Metric]:
    """All of them, of the volume that is as `status` says."""
    volume = status.name
    meters = list(path.meters.items())
    yield histogram(
        "pyjiva_volume_host_seconds",
        "how long hosts' requests took, as the target sees it",
        _BY_OPERATION,
        [_distribution((volume, name), meter.times) for name, meter in meters],
    )
    length = CounterMetricFamily("pyjiva_volume_host_bytes", "that were done for hosts", labels=_BY_OPERATION)
    errors = CounterMetricFamily(
        "pyjiva_volume_host_errors", "hosts' requests that failed", labels=_BY_OPERATION
    )
    in_flight = GaugeMetricFamily(
        "pyjiva_volume_host_in_flight", "hosts' requests without an answer", labels=_BY_OPERATION
    )
    for name, meter in meters:
        length.add_metric((volume, name), meter.length_bytes)
        errors.add_metric((volume, name), meter.errors)
        in_flight.add_metric((volume, name), meter.in_flight)
    yield from (length, errors, in_flight)
    yield from _of_replicas(status, path.times)
    for suffix, text, value in (
        ("limited_requests", "host requests that wait for the volume's limits", path.limiter.waiting),
        ("locked_requests", "host requests that wait for one that overlaps them", status.locked_requests),
    ):
        gauge = GaugeMetricFamily(f"pyjiva_volume_{suffix}", text, labels=("volume",))
        gauge.add_metric((volume,), value)
        yield gauge
    parked = CounterMetricFamily(
        "pyjiva_volume_parked_seconds", "time in which a host request waited for replicas", labels=("volume",)
    )
    parked.add_metric((volume,), path.times.parked.total_s)
    yield parked
    here = CounterMetricFamily(
        "pyjiva_volume_window_reads",
        "host reads answered from the files of a replica on this machine, without asking it",
        labels=("volume",),
    )
    here.add_metric((volume,), path.window_reads())
    yield here


def _of_replicas(status: VolumeStatus, times: PathTimes) -> Iterator[Metric]:
    volume = status.name
    yield histogram(
        "pyjiva_volume_replicated_seconds",
        "how long requests took until every replica that must have them had answered",
        _BY_OPERATION,
        [_distribution((volume, TIMED[type_]), each) for type_, each in times.settled.items()],
    )
    labels = ("volume", "replica", "operation")
    yield histogram(
        "pyjiva_volume_replica_answer_seconds",
        "how long the replica took to answer, network and disk together",
        labels,
        [
            _distribution((volume, str(replica.id), TIMED[type_]), each)
            for replica in status.replicas
            for type_, each in times.member(replica.id).items()
        ],
    )
    in_flight = GaugeMetricFamily(
        "pyjiva_volume_replica_in_flight",
        "what the replica was asked and has not answered",
        labels=("volume", "replica"),
    )
    for replica in status.replicas:
        in_flight.add_metric((volume, str(replica.id)), replica.requests_in_flight)
    yield in_flight


def _distribution(labels: tuple[str, ...], times: Times) -> Distribution:
    return Distribution(labels, times.cumulative(), times.total_s)
