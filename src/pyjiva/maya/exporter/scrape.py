"""What one look at a controller brought, and how often a look brought nothing.  Pure.

A look asks for three things: `/v1/volume` and `/v1/stats` give what OpenEBS' names stand for, whatever names
the controller's own metrics have; `/metrics` has what those names cannot say, which is passed on.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.errors import RemoteProtocolError
from pyjiva.transport.openebs_metrics import VOLUME_STATUS, Figures, ScrapeErrors

__all__ = ["PASSED_ON", "Outcome", "Scrape", "Tally", "figures_of", "read_metrics"]

PASSED_ON: Final = "pyjiva_volume_"
"""How the names of metrics begin that are passed on: not what the controller says of its program."""
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


def read_metrics(text: str) -> tuple[Metric, ...]:
    """What is passed on of `/metrics`.  Raises RemoteProtocolError: it is no exposition."""
    try:
        return tuple(f for f in text_string_to_metric_families(text) if f.name.startswith(PASSED_ON))
    except (ValueError, KeyError, IndexError) as error:
        raise RemoteProtocolError(f"no metrics: {error}") from error


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
