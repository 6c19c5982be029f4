"""The metrics of OpenEBS' volume exporter, so that its dashboards have something to show.  Pure.

The exporter scraped Jiva's controller and gave everything as a gauge without labels: sums in ns and in bytes
under names that say neither, sizes in GiB.  What was right keeps its name here; what was wrong has another
one, with its unit, so that no old query takes the one for the other.  Or else all is as it was, for
dashboards that nobody wants to touch.  docs/reference/metrics.md has both side by side.

A controller gives them of itself, Maya's exporter of the controller that it asks: both make `Figures`.

Source: the names and what they really were, openebs/m-exporter `pkg/collector/metrics.go`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily

from pyjiva.units import GIB

__all__ = [
    "VOLUME_STATUS",
    "Figures",
    "ScrapeErrors",
    "error_families",
    "openebs_families",
    "unknown_status",
]

#: State of a volume → openebs_volume_status.
VOLUME_STATUS: Final = {"parked": 1, "degraded": 2, "healthy": 3}
UNKNOWN_STATUS: Final = 4
"""What an exporter says whose controller does not answer."""
_STATUS_TEXT: Final = "1 parked (offline), 2 degraded, 3 healthy, 4 unknown"
_LABELS: Final = ("volume",)
_UPTIME_LABELS: Final = ("volName", "castype")


@attrs.frozen(kw_only=True)
class Figures:
    """What the values are taken from.  Sums are since the controller started."""

    volume: str
    state: str
    """One of VOLUME_STATUS."""
    size_bytes: int
    block_size_bytes: int
    sessions: int
    """Of initiators."""
    modes: Sequence[str]
    """Of the replicas: in-sync, rebuilding, out, witness."""
    used_bytes: int | None
    """What the largest copy takes; None: no replica has said so yet."""
    uptime_s: float
    reads: int
    read_time_ns: int
    read_bytes: int
    writes: int
    write_time_ns: int
    write_bytes: int

    def used_gib(self) -> float | None:
        """In the old unit."""
        return None if self.used_bytes is None else self.used_bytes / GIB

    def count(self, *modes: str) -> int:
        """How many replicas are in one of these."""
        return sum(mode in modes for mode in self.modes)


@attrs.frozen
class ScrapeErrors:
    """What befell an exporter that asked a controller, since it started; a controller has none."""

    connection: int = 0
    """It did not answer, or not with what was asked for."""
    parse: int = 0
    """Its answer was not understood."""


_Value = Callable[[Figures], float | None]
"""None: there is no sample now."""
_Table = Mapping[str, tuple[str, _Value]]

#: As they were, and right: gauges.
_SAME: Final[_Table] = {
    "sector_size": ("bytes in a logical block", lambda f: f.block_size_bytes),
    "volume_status": (_STATUS_TEXT, lambda f: VOLUME_STATUS[f.state]),
    "total_replica_count": ("replicas that can be reached", lambda f: len(f.modes) - f.count("out")),
    "healthy_replica_count": ("replicas in sync", lambda f: f.count("in-sync")),
    "degraded_replica_count": (
        "replicas that are out or rebuilt, and witnesses out of reach",
        lambda f: f.count("out", "rebuilding"),
    ),
    "iscsi_initiator_login_status": ("1 while an initiator is logged in", lambda f: int(f.sessions > 0)),
}
_NEW_GAUGES: Final[_Table] = {
    "actual_used_bytes": (
        "what the largest copy takes on its disk, snapshots included",
        lambda f: f.used_bytes,
    ),
    "size_of_volume_bytes": ("size of the volume", lambda f: f.size_bytes),
}
_NEW_COUNTERS: Final[_Table] = {
    "reads": ("reads of hosts that were answered", lambda f: f.reads),
    "writes": ("writes of hosts that were answered", lambda f: f.writes),
    "read_time_seconds": ("time that these reads took", lambda f: f.read_time_ns / 1e9),
    "write_time_seconds": ("time that these writes took", lambda f: f.write_time_ns / 1e9),
    "read_bytes": ("bytes that hosts have read", lambda f: f.read_bytes),
    "write_bytes": ("bytes that hosts have written", lambda f: f.write_bytes),
}
_OLD_GAUGES: Final[_Table] = {
    "actual_used": ("GiB that the largest copy takes on its disk", Figures.used_gib),
    "logical_size": ("the same", Figures.used_gib),
    "size_of_volume": ("size of the volume in GiB", lambda f: f.size_bytes / GIB),
    "reads": ("reads of hosts", lambda f: f.reads),
    "writes": ("writes of hosts", lambda f: f.writes),
    "read_time": ("ns that these reads took", lambda f: f.read_time_ns),
    "write_time": ("ns that these writes took", lambda f: f.write_time_ns),
    "read_block_count": ("bytes that hosts have read", lambda f: f.read_bytes),
    "write_block_count": ("bytes that hosts have written", lambda f: f.write_bytes),
    "total_read_bytes": ("always 0, as it was: see read_block_count", lambda _: 0),
    "total_write_bytes": ("always 0, as it was: see write_block_count", lambda _: 0),
}


def openebs_families(figures: Figures, *, old: bool) -> Iterator[Metric]:
    """All that are about the volume; `old`: with the names, units, types and missing labels that they once
    had.
    """
    labels: dict[str, str] = {} if old else dict.fromkeys(_LABELS, figures.volume)
    for table in (_SAME, _OLD_GAUGES if old else _NEW_GAUGES):
        for name, (text, value) in table.items():
            gauge = GaugeMetricFamily(f"openebs_{name}", text, labels=tuple(labels))
            _add(gauge, labels, value(figures))
            yield gauge
    uptime = GaugeMetricFamily(
        "openebs_volume_uptime", "seconds since the controller started", labels=(*_UPTIME_LABELS, *labels)
    )
    uptime.add_metric((figures.volume, "jiva", *labels.values()), figures.uptime_s)
    yield uptime
    if old:
        return
    for name, (text, value) in _NEW_COUNTERS.items():
        counter = CounterMetricFamily(f"openebs_{name}", text, labels=tuple(labels))
        _add(counter, labels, value(figures))
        yield counter


def unknown_status(volume: str, *, old: bool) -> Metric:
    """All that an exporter can say of a volume whose controller does not answer."""
    labels: dict[str, str] = {} if old else dict.fromkeys(_LABELS, volume)
    gauge = GaugeMetricFamily("openebs_volume_status", _STATUS_TEXT, labels=tuple(labels))
    _add(gauge, labels, UNKNOWN_STATUS)
    return gauge


def error_families(errors: ScrapeErrors, *, old: bool) -> Iterator[Metric]:
    """What befell who asks the controller."""
    table = {
        "connection_error": ("scrapes that the controller did not answer as it should", errors.connection),
        "parse_error": ("answers of the controller that were not understood", errors.parse),
    }
    if not old:
        for name, (text, value) in table.items():
            yield CounterMetricFamily(f"openebs_{name}", text, value=value)
        return
    for name, (text, value) in table.items():
        yield GaugeMetricFamily(f"openebs_{name}_total", text, value=value)
    yield GaugeMetricFamily(
        "openebs_connection_retry_total", "always 0: the next scrape tries again", value=0
    )
    # A counter whose name does not end in _total, which prometheus_client does not write.
    name = "openebs_target_reject_request_counter"
    yield UnknownMetricFamily(name, "always 0: scrapes at the same time share an answer", value=0)


def _add(
    family: GaugeMetricFamily | CounterMetricFamily, labels: Mapping[str, str], value: float | None
) -> None:
    if value is not None:
        family.add_metric(tuple(labels.values()), value)
