"""What Prometheus reads of a volume: a function from its status to families of metrics.  Pure.

Names end in their base unit, counters in `_total`.  Everything is labelled with the volume's name; what is of
one replica with its number too.  docs/reference/metrics.md has each of them.
"""

from collections.abc import Callable, Iterator
from typing import Final

import attrs
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pyjiva.controller.openebs_metrics import openebs_metrics
from pyjiva.controller.path_metrics import HostPath, path_families
from pyjiva.controller.status import (
    WITNESS,
    RebuildStatus,
    ReplicaStatus,
    ScrubStatus,
    VolumeState,
    VolumeStatus,
)

__all__ = ["MODES", "VolumeCollector", "families"]

MODES: Final = ("in-sync", "rebuilding", "out", WITNESS)

_Samples = dict[tuple[str, ...], float | None]
"""Labels to a value; None: there is none now."""
_VOLUME: Final = ("volume",)
_REPLICA: Final = ("volume", "replica")

#: name → (what it is, its value); of the volume.
_GAUGES: Final[dict[str, tuple[str, Callable[[VolumeStatus], float]]]] = {
    "size_bytes": ("size of the volume", lambda s: s.size_bytes),
    "epoch": ("epoch of this controller; 0 before it has one", lambda s: s.epoch),
    "replicas": ("configured replicas, witnesses included", lambda s: len(s.replicas)),
    "in_sync_replicas": (
        "replicas that hold every acknowledged write",
        lambda s: sum(r.mode == "in-sync" for r in s.replicas),
    ),
    "parked_requests": ("host requests that wait for replicas", lambda s: s.parked_requests),
}

#: name → (what it is, its value); of a replica, since the controller started.
_COUNTERS: Final[dict[str, tuple[str, Callable[[ReplicaStatus], float]]]] = {
    "rebuilds": ("copies to it that were begun", lambda r: r.rebuilds.begun),
    "rebuilds_completed": ("copies to it that came to their end", lambda r: r.rebuilds.completed),
    "rebuild_copied_bytes": ("data copied to it", lambda r: r.rebuilds.copied_bytes),
    "rebuild_sent_bytes": ("what these were on the wire", lambda r: r.rebuilds.sent_bytes),
    "rebuild_compared_bytes": (
        "found equal by hashes while it was rebuilt",
        lambda r: r.rebuilds.compared_bytes,
    ),
    "rebuild_seconds": ("time that copies to it were under way", lambda r: r.rebuilds.seconds),
    "checksum_errors": ("ranges met that are not what was written", lambda r: r.rot.found),
    "rot_repaired": ("ranges with rot written again from another replica", lambda r: r.rot.repaired),
}

#: As above; of a replica at this moment.
_REPLICA_GAUGES: Final[dict[str, tuple[str, Callable[[ReplicaStatus], float]]]] = {
    "rot_repairing": ("ranges with rot not repaired yet", lambda r: r.rot.repairing),
    "rot_hopeless": ("ranges with rot of which no replica has a good copy", lambda r: r.rot.hopeless),
}

#: As above; of a copy under way.  None: there is no such sample.
_REBUILD_GAUGES: Final[dict[str, tuple[str, Callable[[RebuildStatus], float | None]]]] = {
    "rebuild_remaining_bytes": ("still to be gone through", lambda r: r.remaining_bytes),
    "rebuild_eta_seconds": ("time that the rest will take", lambda r: r.eta_s),
}

#: As above; of the scrub under way, or the last one.
_SCRUB_GAUGES: Final[dict[str, tuple[str, Callable[[ScrubStatus], float]]]] = {
    "scrub_position_bytes": ("everything below was looked at", lambda s: s.position_bytes),
    "scrub_bad_chunks": ("chunks of 1 MiB with rot, counted for each replica", lambda s: s.bad),
    "scrub_different_chunks": ("chunks in which replicas differed", lambda s: s.different),
}


def families(status: VolumeStatus, sessions: int) -> Iterator[Metric]:
    """Every metric of a volume that is as `status` says and has so many sessions of initiators.

    A sample that has no value now (no rebuild under way, no scrub yet) is left out; its family is there.
    """
    name = (status.name,)
    info = InfoMetricFamily("pyjiva_volume", "the volume", labels=_VOLUME)
    info.add_metric(name, {"volume_id": status.volume_id})
    yield info
    states: _Samples = {(*name, state.value): state is status.state for state in VolumeState}
    yield _gauge("state", "1 for the state that the volume is in", states, (*_VOLUME, "state"))
    for suffix, (text, value) in _GAUGES.items():
        yield _gauge(suffix, text, {name: value(status)})
    yield _gauge("sessions", "initiators that are logged in", {name: sessions})
    yield from _of_replicas(status)
    yield from _of_scrub(status)


def _of_replicas(status: VolumeStatus) -> Iterator[Metric]:
    by_labels = {(status.name, str(replica.id)): replica for replica in status.replicas}
    modes: _Samples = {
        (*labels, mode): mode == replica.mode for labels, replica in by_labels.items() for mode in MODES
    }
    yield _gauge("replica_mode", "1 for the mode that the replica is in", modes, (*_REPLICA, "mode"))
    for suffix, (text, value) in _COUNTERS.items():
        counter = CounterMetricFamily(f"pyjiva_volume_{suffix}", text, labels=_REPLICA)
        for labels, replica in by_labels.items():
            counter.add_metric(labels, value(replica))
        yield counter
    for suffix, (text, of) in _REPLICA_GAUGES.items():
        yield _gauge(suffix, text, {labels: of(replica) for labels, replica in by_labels.items()}, _REPLICA)
    progress: _Samples = {labels: replica.progress for labels, replica in by_labels.items()}
    yield _gauge("rebuild_progress_ratio", "how far the rebuild is, from 0 to 1", progress, _REPLICA)
    for suffix, (text, of_rebuild) in _REBUILD_GAUGES.items():
        samples: _Samples = {
            labels: of_rebuild(replica.rebuild)
            for labels, replica in by_labels.items()
            if replica.rebuild is not None
        }
        yield _gauge(suffix, text, samples, _REPLICA)


def _of_scrub(status: VolumeStatus) -> Iterator[Metric]:
    name = (status.name,)
    scrub = status.scrub
    yield _gauge("scrub_running", "1 while a scrub is under way", {name: scrub is not None and scrub.running})
    for suffix, (text, value) in _SCRUB_GAUGES.items():
        yield _gauge(suffix, text, {name: None if scrub is None else value(scrub)})


def _gauge(suffix: str, text: str, samples: _Samples, labels: tuple[str, ...] = _VOLUME) -> Metric:
    gauge = GaugeMetricFamily(f"pyjiva_volume_{suffix}", text, labels=labels)
    for values, value in samples.items():
        if value is not None:
            gauge.add_metric(values, value)
    return gauge


@attrs.define(eq=False)
class VolumeCollector(Collector):
    """Looks at the volume at the moment of the scrape."""

    status: Callable[[], VolumeStatus]
    sessions: Callable[[], int]
    path: HostPath
    """Of what hosts ask."""
    old_names: bool = False
    """`openebs_*` as they once were."""

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client's Collector."""
        status, sessions = self.status(), self.sessions()
        yield from families(status, sessions)
        yield from path_families(status, self.path)
        yield from openebs_metrics(status, sessions, self.path.meters, old=self.old_names)
