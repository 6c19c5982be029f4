"""Snapshots on a schedule: options that `pyjiva up` and the controller share."""

import re
from collections.abc import Callable
from typing import Any, Final

import attrs
import click

from pyjiva.cli.shared_options import add_options
from pyjiva.controller import Retention

__all__ = ["schedule_arguments", "schedule_options", "take_schedule"]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r}: write 15m, 1h or 1d", param, ctx)
        return float(found[1]) * _UNITS_S[found[2] or "s"]


def schedule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what `take_schedule` takes out again."""
    counts = {
        "--keep-last": "Keep so many of the newest scheduled snapshots.",
        "--keep-hourly": "Keep the newest of each of so many hours.",
        "--keep-daily": "Keep the newest of each of so many days.",
    }
    options = [
        click.option(
            "--snapshot-every",
            type=_Duration(),
            help="Make a snapshot so often: 15m, 1h, 1d; those to keep are kept, the rest is deleted.",
        ),
        *(
            click.option(option, type=click.IntRange(0), default=0, help=text)
            for option, text in counts.items()
        ),
    ]
    return add_options(command, options)


def take_schedule(given: dict[str, Any]) -> Retention | None:
    """Take the values out of what a command was given; None: no schedule.  Raises ConfigError."""
    every_s = given.pop("snapshot_every")
    kept = {field: given.pop(field) for field in ("keep_last", "keep_hourly", "keep_daily")}
    if every_s is None:
        if any(kept.values()):
            raise click.UsageError("--keep-last and its like need --snapshot-every")
        return None
    return Retention(every_s, **kept)


def schedule_arguments(retention: Retention | None) -> list[str]:
    """The same for another command's line."""
    if retention is None:
        return []
    fields = attrs.asdict(retention)
    arguments = ["--snapshot-every", f"{fields.pop('every_s')}s"]
    for field, count in fields.items():
        arguments += [f"--{field.replace('_', '-')}", str(count)]
    return arguments
