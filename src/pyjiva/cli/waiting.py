"""Wait for operations of a volume, with a bar for each: how much, how fast, how long still."""

import sys
from time import monotonic, sleep
from typing import Any, Final

import attrs
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pyjiva.cli.api import Api
from pyjiva.units import format_size

__all__ = ["wait_for_operations"]

POLL_S: Final = 0.5
LINE_S: Final = 10.0  # between two lines where there is no terminal
RUNNING: Final = "running"


def wait_for_operations(client: Api, kind: str) -> list[str]:
    """Until none of this kind is under way; why those failed that did.

    Raises KeyError, TypeError, ValueError: an answer is not a list of operations.
    """
    ids: set[str] = set()
    with _Bars() if sys.stderr.isatty() else _Lines() as shown:
        while running := _running(found := client.get("/v1/operations"), kind):
            ids |= {each["id"] for each in running}
            for each in running:
                shown.show(each)
            sleep(POLL_S)
    ended = [each for each in found if each["id"] in ids and each["state"] != "done"]
    return [f"{_name(each)}: {each['state']}: {each['reason']}" for each in ended]


def _running(operations: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in operations if each["kind"] == kind and each["state"] == RUNNING]


def _name(operation: dict[str, Any]) -> str:
    replica = operation["replica"]
    return str(operation["kind"]) if replica is None else f"{operation['kind']}, replica {replica}"


class _Bars:
    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, operation: dict[str, Any]) -> None:
        """Draw how far it is."""
        id_, total = operation["id"], operation["total_bytes"]
        if id_ not in self._tasks:
            self._tasks[id_] = self._progress.add_task(_name(operation), total=None)
        self._progress.update(self._tasks[id_], completed=operation["done_bytes"], total=total or None)


@attrs.define
class _Lines:
    _said: dict[str, tuple[float, int]] = attrs.field(factory=dict, init=False)
    """By id: when it was told of last, and how much was done then."""

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def show(self, operation: dict[str, Any]) -> None:
        """Print how far it is, now and then."""
        now_s, done, total = monotonic(), int(operation["done_bytes"]), operation["total_bytes"]
        said_s, before = self._said.setdefault(operation["id"], (now_s, done))
        if now_s - said_s < LINE_S:
            return
        self._said[operation["id"]] = now_s, done
        parts = [format_size(done) if not total else f"{format_size(done)} of {format_size(total)}"]
        parts.append(f"{format_size(max(0, round((done - before) / (now_s - said_s))))}/s")
        if operation["eta_s"] is not None:
            parts.append(f"{operation['eta_s']:.0f} s to go")
        print(f"{_name(operation)}: {', '.join(parts)}", file=sys.stderr, flush=True)
