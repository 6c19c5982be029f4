"""How a volume behaves when copies are missing: options that `pyjiva up` and the controller share."""

from collections.abc import Callable
from typing import Any

import attrs
import click

from pyjiva.cli.daemon import SIZE
from pyjiva.cli.shared_options import add_options, arguments_of
from pyjiva.controller import Tuning
from pyjiva.units import format_size

__all__ = ["take_tuning", "tuning_arguments", "tuning_options"]


def tuning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets the fields of Tuning that an operator may set."""
    defaults = Tuning()
    options = [
        click.option(
            "--min-copies",
            type=int,
            help="In-sync copies below which I/O waits; a majority of replicas and witnesses, less those.",
        ),
        click.option(
            "--park-limit",
            "park_limit_s",
            type=float,
            default=defaults.park_limit_s,
            show_default=True,
            help="Seconds that I/O waits for copies before it fails.",
        ),
        click.option(
            "--member-timeout",
            "member_timeout_s",
            type=float,
            default=defaults.member_timeout_s,
            show_default=True,
            help="Seconds of silence after which a replica is given up.",
        ),
        click.option(
            "--rebuild-rate",
            type=SIZE,
            help="Bytes per second that all rebuilds together may read; no limit.",
        ),
        click.option(
            "--background-floor",
            type=SIZE,
            default=format_size(defaults.background_floor),
            show_default=True,
            help="Bytes per second at which rebuilds, scrubs and the like go on however busy hosts are.",
        ),
    ]
    return add_options(command, options)


def take_tuning(given: dict[str, Any]) -> Tuning:
    """Take the values of these options out of what a command was given.  Raises ConfigError: see Tuning."""
    return Tuning(**{field: given.pop(field) for field in attrs.fields_dict(Tuning) if field in given})


def tuning_arguments(tuning: Tuning) -> list[str]:
    """The same for another command's line."""
    options = {
        "--min-copies": "min_copies",
        "--park-limit": "park_limit_s",
        "--member-timeout": "member_timeout_s",
        "--rebuild-rate": "rebuild_rate",
        "--background-floor": "background_floor",
    }
    return arguments_of(tuning, options)
