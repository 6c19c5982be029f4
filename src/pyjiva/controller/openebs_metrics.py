"""The metrics of OpenEBS' volume exporter, so that its dashboards have something to show.  Pure.

The exporter scraped Jiva's controller and gave everything as a gauge without labels: sums in ns and in bytes
under names that say neither, sizes in GiB.  What was right keeps its name here; what was wrong has another
one, with its unit, so that no old query takes the one for the other.  Or else all is as it was, for
dashboards that nobody wants to touch.  docs/reference/metrics.md has both side by side.

Source: the names and what they really were, openebs/m-exporter `pkg/collector/metrics.go`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily

from pyjiva.block import Meter, Meters, Read, Write
from pyjiva.controller.status import VolumeState, VolumeStatus
from pyjiva.units import GIB

__all__ = ["Picture", "openebs_families"]

_STATUS_OF: Final = {VolumeState.PARKED: 1, VolumeState.DEGRADED: 2, VolumeState.HEALTHY: 3}
"""4, unknown, is never said: whoever answers a scrape knows."""
_LABELS: Final = ("volume",)
_UPTIME_LABELS: Final = ("volName", "castype")


@attrs.frozen
class Picture:
    """What the values are taken from."""

    status: VolumeStatus
    sessions: int
    meters: Meters

    @property
    def reads(self) -> Meter:
        """Of hosts."""
        return self.meters.of[Read]

    @property
    def writes(self) -> Meter:
        """Of hosts."""
        return self.meters.of[Write]

    def used_bytes(self) -> float | None:
        """What the largest copy takes; None: no replica has said so yet."""
        return max((r.used_bytes for r in self.status.replicas if r.used_bytes is not None), default=None)

    def used_gib(self) -> float | None:
        """The same in the old unit."""
        used_bytes = self.used_bytes()
        return None if used_bytes is None else used_bytes / GIB

    def healthy(self) -> int:
        """Replicas in sync."""
        return sum(r.mode == "in-sync" for r in self.status.replicas)


_Value = Callable[[Picture], float | None]
"""None: there is no sample now."""
_Table = Mapping[str, tuple[str, _Value]]

#: As they were, and right: gauges.
_SAME: Final[_Table] = {
    "sector_size": ("bytes in a logical block", lambda p: p.status.block_size_bytes),
    "volume_status": ("1 parked (offline), 2 degraded, 3 healthy", lambda p: _STATUS_OF[p.status.state]),
    "total_replica_count": (
        "replicas that can be reached",
        lambda p: sum(r.mode != "out" for r in p.status.replicas),
    ),
    "healthy_replica_count": ("replicas in sync", Picture.healthy),
    "degraded_replica_count": (
        "replicas that are out or rebuilt, and witnesses out of reach",
        lambda p: sum(r.mode in ("out", "rebuilding") for r in p.status.replicas),
    ),
    "iscsi_initiator_login_status": ("1 while an initiator is logged in", lambda p: int(p.sessions > 0)),
}
_NEW_GAUGES: Final[_Table] = {
    "actual_used_bytes": ("what the largest copy takes on its disk, snapshots included", Picture.used_bytes),
    "size_of_volume_bytes": ("size of the volume", lambda p: p.status.size_bytes),
}
_NEW_COUNTERS: Final[_Table] = {
    "reads": ("reads of hosts that were answered", lambda p: p.reads.times.count),
    "writes": ("writes of hosts that were answered", lambda p: p.writes.times.count),
    "read_time_seconds": ("time that these reads took", lambda p: p.reads.times.total_s),
    "write_time_seconds": ("time that these writes took", lambda p: p.writes.times.total_s),
    "read_bytes": ("bytes that hosts have read", lambda p: p.reads.length_bytes),
    "write_bytes": ("bytes that hosts have written", lambda p: p.writes.length_bytes),
}
_OLD_GAUGES: Final[_Table] = {
    "actual_used": ("GiB that the largest copy takes on its disk", Picture.used_gib),
    "logical_size": ("the same", Picture.used_gib),
    "size_of_volume": ("size of the volume in GiB", lambda p: p.status.size_bytes / GIB),
    "reads": ("reads of hosts", lambda p: p.reads.times.count),
    "writes": ("writes of hosts", lambda p: p.writes.times.count),
    "read_time": ("ns that these reads took", lambda p: p.reads.times.total_ns),
    "write_time": ("ns that these writes took", lambda p: p.writes.times.total_ns),
    "read_block_count": ("bytes that hosts have read", lambda p: p.reads.length_bytes),
    "write_block_count": ("bytes that hosts have written", lambda p: p.writes.length_bytes),
    "total_read_bytes": ("always 0, as it was: see read_block_count", lambda _: 0),
    "total_write_bytes": ("always 0, as it was: see write_block_count", lambda _: 0),
    "connection_retry_total": ("always 0: no exporter asks the controller", lambda _: 0),
    "connection_error_total": ("always 0: no exporter asks the controller", lambda _: 0),
    "parse_error_total": ("always 0: no exporter asks the controller", lambda _: 0),
}


def openebs_families(picture: Picture, *, old: bool) -> Iterator[Metric]:
    """All of them; `old`: with the names, units, types and missing labels that they once had."""
    labels: dict[str, str] = {} if old else dict.fromkeys(_LABELS, picture.status.name)
    for table in (_SAME, _OLD_GAUGES if old else _NEW_GAUGES):
        for name, (text, value) in table.items():
            gauge = GaugeMetricFamily(f"openebs_{name}", text, labels=tuple(labels))
            _add(gauge, labels, value(picture))
            yield gauge
    uptime = GaugeMetricFamily(
        "openebs_volume_uptime", "seconds since the controller started", labels=(*_UPTIME_LABELS, *labels)
    )
    uptime.add_metric((picture.status.name, "jiva", *labels.values()), picture.meters.uptime_s)
    yield uptime
    if old:
        # A counter whose name does not end in _total, which prometheus_client does not write.
        name = "openebs_target_reject_request_counter"
        yield UnknownMetricFamily(name, "always 0: no scrape is rejected", value=0)
        return
    for name, (text, value) in _NEW_COUNTERS.items():
        counter = CounterMetricFamily(f"openebs_{name}", text, labels=tuple(labels))
        _add(counter, labels, value(picture))
        yield counter


def _add(
    family: GaugeMetricFamily | CounterMetricFamily, labels: Mapping[str, str], value: float | None
) -> None:
    if value is not None:
        family.add_metric(tuple(labels.values()), value)
