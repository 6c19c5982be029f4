"""`pyjiva limit`: what hosts may ask of a volume in a second, while it is in use."""

from typing import Any

import click

from pyjiva.block import Limits
from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.errors import ConfigError
from pyjiva.units import format_size, parse_size

__all__ = ["command"]

NONE = "none"


@click.command("limit")
@api_option
@click.option("--iops", help=f"Commands per second, or {NONE}.")
@click.option("--rate", help=f"Bytes per second that are read and written, such as 50MiB, or {NONE}.")
@click.option("--burst", "burst_s", type=float, help="Seconds' worth that may come at once after rest.")
def command(api: ApiAddress, iops: str | None, rate: str | None, burst_s: float | None) -> None:
    """Limit what all hosts together may ask of a volume, from now on; without options, show the limits.

    They hold until the controller ends; see the options of `pyjiva up` for those that it begins with.
    """
    client = Api(api)
    changes = _changes(iops, rate, burst_s)
    shown = client.post("/v1/limits", **changes) if changes else client.get("/v1/volume")
    try:
        print(_text(shown["limits"]))
    except (ValueError, KeyError, TypeError):
        client.not_understood()


def _changes(iops: str | None, rate: str | None, burst_s: float | None) -> dict[str, str]:
    """What to ask for; a wrong value ends the command before anything is asked."""
    try:
        if iops not in (None, NONE):
            iops = str(Limits(iops=float(str(iops))).iops)
        if rate not in (None, NONE):
            rate = str(Limits(bytes_per_s=parse_size(str(rate))).bytes_per_s)
        if burst_s is not None:
            Limits(burst_s=burst_s)
    except (ConfigError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    given = {"iops": iops, "rate": rate, "burst": None if burst_s is None else str(burst_s)}
    return {name: value for name, value in given.items() if value is not None}


def _text(limits: dict[str, Any]) -> str:
    commands, length = limits["iops"], limits["bytes_per_s"]
    if commands is None and length is None:
        return "no limits"
    parts = [] if commands is None else [f"{commands:g} commands per second"]
    parts += [] if length is None else [f"{format_size(int(length))} per second"]
    text = f"{', '.join(parts)}; after rest {limits['burst_s']:g} s of it at once"
    waiting = limits["waiting"]
    return f"{text}; {waiting} wait" if waiting else text
