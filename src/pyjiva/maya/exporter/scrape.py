"""What one look at a controller brought, and how often a look brought nothing.  Pure.

A look asks for three things: `/v1/volume` and `/v1/stats` give what OpenEBS' names stand for, whatever names
the controller's own metrics have; `/metrics` has what those names cannot say, which is passed on.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.errors import RemoteProtocolError
from pyjiva.transport.openebs_metrics import VOLUME_STATUS, Figures, ScrapeErrors

__all__ = [
    "OF_REPLICA",
    "OF_VOLUME",
    "Outcome",
    "Scrape",
    "Tally",
    "figures_of",
    "merged",
    "read_metrics",
    "replica_hosts",
    "with_labels",
]

OF_VOLUME: Final = "pyjiva_volume_"
"""How the names of metrics begin that are passed on: not what the controller says of its program."""
OF_REPLICA: Final = "pyjiva_replica_"
"""The same of a replica's."""
_MODES: Final = ("in-sync", "rebuilding", "out", "witness")


class Outcome(enum.Enum):
    """How a look at the controller ended."""

    OK = "ok"
    UNREACHABLE = "unreachable"  # no connection, or one that broke
    TIMEOUT = "timeout"  # not within the deadline
    REFUSED = "refused"  # an error instead of an answer: the token is not its own, say
    NOT_UNDERSTOOD = "not-understood"  # an answer, of something else than a controller of ours


@attrs.frozen
class Scrape:
    """What one look brought."""

    outcome: Outcome
    detail: str = ""
    """Why it brought nothing, for people."""
    figures: Figures | None = None
    """None: nothing."""
    passed_on: Sequence[Metric] = ()
    replicas: Mapping[int, bool] = attrs.field(factory=dict)
    """Those that were asked for their own metrics, by number, and whether they answered."""


@attrs.define
class Tally:
    """How the looks ended, since the exporter started."""

    ended: dict[Outcome, int] = attrs.field(factory=lambda: dict.fromkeys(Outcome, 0), init=False)
    volume: str = attrs.field(default="", init=False)
    """The volume's name, when it was seen last; "": it never was."""

    def add(self, scrape: Scrape) -> None:
        """One more has ended."""
        self.ended[scrape.outcome] += 1
        if scrape.figures is not None:
            self.volume = scrape.figures.volume

    def errors(self) -> ScrapeErrors:
        """As OpenEBS' exporter told them apart."""
        broken = (Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.REFUSED)
        return ScrapeErrors(sum(self.ended[each] for each in broken), self.ended[Outcome.NOT_UNDERSTOOD])


def figures_of(volume: Any, stats: Any) -> Figures:
    """From the answers of `/v1/volume` and `/v1/stats`.

    Raises RemoteProtocolError: they are none of a controller of ours.
    """
    try:
        replicas = volume["replicas"]
        figures = Figures(
            volume=_text(volume, "name"),
            state=_text(volume, "state"),
            size_bytes=_number(volume, "size_bytes"),
            block_size_bytes=_number(volume, "block_size_bytes"),
            sessions=len(volume["sessions"]),
            modes=[_text(replica, "mode") for replica in replicas],
            used_bytes=max(
                (_number(r, "used_bytes") for r in replicas if r["used_bytes"] is not None), default=None
            ),
            uptime_s=_number(stats, "UpTime"),
            reads=_number(stats, "ReadIOPS"),
            read_time_ns=_number(stats, "TotalReadTime"),
            read_bytes=_number(stats, "TotalReadBlockCount"),
            writes=_number(stats, "WriteIOPS"),
            write_time_ns=_number(stats, "TotalWriteTime"),
            write_bytes=_number(stats, "TotalWriteBlockCount"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteProtocolError(f"no status of a volume: {type(error).__name__}: {error}") from error
    if figures.state not in VOLUME_STATUS:
        raise RemoteProtocolError(f"a volume has no state {figures.state!r}")
    if unknown := set(figures.modes) - set(_MODES):
        raise RemoteProtocolError(f"a replica has no mode {min(unknown)!r}")
    return figures


def read_metrics(text: str, prefix: str = OF_VOLUME) -> tuple[Metric, ...]:
    """What is passed on of `/metrics`.  Raises RemoteProtocolError: it is no exposition."""
    try:
        return tuple(f for f in text_string_to_metric_families(text) if f.name.startswith(prefix))
    except (ValueError, KeyError, IndexError) as error:
        raise RemoteProtocolError(f"no metrics: {error}") from error


def replica_hosts(volume: Any) -> dict[int, str]:
    """Where the replicas of `/v1/volume` are: host by number, as it stands in a URL.

    Raises RemoteProtocolError: it is none of a controller of ours.
    """
    try:
        found = {each["id"]: _text(each, "address").rpartition(":")[0] for each in volume["replicas"]}
    except (KeyError, TypeError) as error:
        raise RemoteProtocolError(f"no status of a volume: {type(error).__name__}: {error}") from error
    return {number: host for number, host in found.items() if host}


def with_labels(families: Iterable[Metric], labels: Mapping[str, str]) -> list[Metric]:
    """The same with these labels besides: a replica does not say which it is."""
    made = []
    for family in families:
        labelled = Metric(family.name, family.documentation, family.type, family.unit)
        labelled.samples = [s._replace(labels={**s.labels, **labels}) for s in family.samples]
        made.append(labelled)
    return made


def merged(families: Iterable[Metric]) -> tuple[Metric, ...]:
    """Each family once, with the samples of all: an exposition names none twice."""
    made: dict[str, Metric] = {}
    for family in families:
        if (there := made.get(family.name)) is None:
            made[family.name] = there = Metric(family.name, family.documentation, family.type, family.unit)
        there.samples += family.samples
    return tuple(made.values())


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value[key]
    if not isinstance(found, str):
        raise TypeError(f"{key} is no string")
    return found


def _number(value: Mapping[str, Any], key: str) -> int:
    """Jiva has some of them as strings."""
    found = value[key]
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise TypeError(f"{key} is no whole number")
    number = int(found)
    if number < 0:
        raise ValueError(f"{key} is below 0")
    return number
