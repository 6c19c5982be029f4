"""Why a volume is as it is, what is being done and what to do, in sentences.  Pure.

`explain` is a function of the API's two answers, the status and the events; what it says of every state and
every cause is in tests/cli/explanations.txt.
"""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from pyjiva.controller.causes import cause_of
from pyjiva.units import format_size

__all__ = ["Sentence", "explain", "tell"]

AS_IT_SHOULD_BE: Final = ("in-sync", "witness")


@attrs.frozen
class Sentence:
    """One line."""

    text: str
    heading: bool = False


def explain(status: dict[str, Any], events: Sequence[dict[str, Any]]) -> Iterator[Sentence]:
    """Raises KeyError, TypeError, ValueError: these are not answers of a controller."""
    yield Sentence(f"{status['name']} is {status['state']}.", heading=True)
    if status["state"] == "parked":
        waiting = status["parked_requests"]
        yield from _because(status["reason"])
        yield Sentence(f"  {waiting} requests of hosts wait.")
    for replica in status["replicas"]:
        if replica["mode"] not in AS_IT_SHOULD_BE:
            yield Sentence(_how_it_is(replica, events), heading=True)
            yield from _because(replica["reason"])
            yield from _what_is_done(replica)
        if hopeless := replica["rot"]["hopeless"]:
            yield Sentence(f"Replica {replica['id']} has rot in {hopeless} ranges.", heading=True)
            yield Sentence("  No other replica has a good copy of them: reads there fail with MEDIUM ERROR.")
            yield Sentence("  To do: write these blocks anew from a backup; check the disks (SMART).")
        elif repairing := replica["rot"]["repairing"]:
            yield Sentence(f"Replica {replica['id']} has rot in {repairing} ranges.", heading=True)
            yield Sentence("  They are being written again from the others.")


def _how_it_is(replica: dict[str, Any], events: Sequence[dict[str, Any]]) -> str:
    text = f"Replica {replica['id']} at {replica['address']} is {replica['mode']}"
    since = [
        event["at_s"]
        for event in events
        if event["kind"] == "replica"
        and event["replica"] == replica["id"]
        and f"→ {replica['mode']}" in event["text"]
    ]
    return f"{text} since {tell(since[-1])}." if since else f"{text}."


def _because(reason: str) -> Iterator[Sentence]:
    cause = cause_of(reason)
    yield Sentence(f"  Reason: {reason}  ({cause.name})")
    yield Sentence(f"  {cause.means}")
    yield Sentence(f"  To do: {cause.todo}")


def _what_is_done(replica: dict[str, Any]) -> Iterator[Sentence]:
    if (behind := replica.get("behind_bytes")) is not None:
        yield Sentence(f"  It is {format_size(behind)} behind: that much is copied to it when it is back.")
    rebuild = replica["rebuild"]
    if rebuild is None:
        return
    todo = format_size(rebuild["remaining_bytes"])
    yield Sentence(
        f"  From replica {rebuild['source']} {format_size(rebuild['copied_bytes'])} were copied, "
        f"{format_size(rebuild['compared_bytes'])} found equal; {todo} to go."
    )
    if rebuild["eta_s"]:
        speed = format_size(int(rebuild["remaining_bytes"] / rebuild["eta_s"]))
        yield Sentence(f"  At {speed}/s, in sync in about {rebuild['eta_s']:.0f} s.")


def tell(at_s: float) -> str:
    """A time, in UTC."""
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(" ", "seconds")
