"""What a controller says of itself under OpenEBS' names: `transport.openebs_metrics` has these.  Pure."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from pyjiva.block import Meters, Read, Write
from pyjiva.controller.status import VolumeStatus
from pyjiva.transport.openebs_metrics import Figures, ScrapeErrors, error_families, openebs_families

__all__ = ["openebs_metrics"]


def openebs_metrics(status: VolumeStatus, sessions: int, meters: Meters, *, old: bool) -> Iterator[Metric]:
    """All of them; `old`: see `openebs_families`."""
    reads, writes = meters.of[Read], meters.of[Write]
    figures = Figures(
        volume=status.name,
        state=status.state.value,
        size_bytes=status.size_bytes,
        block_size_bytes=status.block_size_bytes,
        sessions=sessions,
        modes=[replica.mode for replica in status.replicas],
        used_bytes=max((r.used_bytes for r in status.replicas if r.used_bytes is not None), default=None),
        uptime_s=meters.uptime_s,
        reads=reads.times.count,
        read_time_ns=reads.times.total_ns,
        read_bytes=reads.length_bytes,
        writes=writes.times.count,
        write_time_ns=writes.times.total_ns,
        write_bytes=writes.length_bytes,
    )
    yield from openebs_families(figures, old=old)
    if old:  # dashboards have them; nobody asks a controller but Prometheus
        yield from error_families(ScrapeErrors(), old=True)
