"""Where a new volume has its content from: options that `pyjiva up` and the controller share."""

from collections.abc import Callable
from typing import Any

import attrs
import click

from pyjiva.cli.daemon import SIZE
from pyjiva.cli.shared_options import add_options

__all__ = ["FillFrom", "fill_arguments", "fill_options", "take_fill"]


@attrs.frozen
class FillFrom:
    """A snapshot of another volume, or a backup."""

    url: str
    rate: int | None
    """Bytes per second that are fetched unasked; None: no limit."""


def fill_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what `take_fill` takes out again."""
    options = [
        click.option(
            "--fill-from",
            metavar="URL",
            help="What a new volume holds: http://HOST:PORT/v1/snapshots/NAME, or backup:STORE#BACKUP.",
        ),
        click.option("--fill-rate", type=SIZE, help="Bytes per second that are fetched unasked; no limit."),
    ]
    return add_options(command, options)


def take_fill(given: dict[str, Any]) -> FillFrom | None:
    """Take the values out of what a command was given; None: the volume begins empty."""
    url, rate = given.pop("fill_from"), given.pop("fill_rate")
    if url is None:
        if rate is not None:
            raise click.UsageError("--fill-rate needs --fill-from")
        return None
    return FillFrom(url, rate)


def fill_arguments(fill: FillFrom | None) -> list[str]:
    """The same for another command's line."""
    if fill is None:
        return []
    rate = [] if fill.rate is None else ["--fill-rate", str(fill.rate)]
    return ["--fill-from", fill.url, *rate]
