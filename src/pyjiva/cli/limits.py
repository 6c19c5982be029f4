"""What hosts may ask of a volume in a second: options that `pyjiva up` and the controller share."""

from collections.abc import Callable
from typing import Any

import click

from pyjiva.block import Limits
from pyjiva.cli.daemon import SIZE
from pyjiva.cli.shared_options import add_options, arguments_of

__all__ = ["limit_arguments", "limit_options", "take_limits"]


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what `take_limits` takes out again."""
    options = [
        click.option("--limit-iops", type=float, help="Commands per second of all hosts; no limit."),
        click.option("--limit-rate", type=SIZE, help="Bytes per second read and written; no limit."),
        click.option(
            "--limit-burst",
            type=float,
            default=Limits().burst_s,
            show_default=True,
            help="Seconds' worth that may come at once after rest.",
        ),
    ]
    return add_options(command, options)


def take_limits(given: dict[str, Any]) -> Limits:
    """Take the values out of what a command was given.  Raises ConfigError: see Limits."""
    return Limits(given.pop("limit_iops"), given.pop("limit_rate"), given.pop("limit_burst"))


def limit_arguments(limits: Limits) -> list[str]:
    """The same for another command's line."""
    options = {"--limit-iops": "iops", "--limit-rate": "bytes_per_s", "--limit-burst": "burst_s"}
    return arguments_of(limits, options)
