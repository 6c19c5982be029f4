"""`pyjiva usage`: what a volume's data and its snapshots take."""

import json
from typing import Any

import click
from rich.table import Table

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.render import open_console
from pyjiva.units import format_size

__all__ = ["command"]


@click.command("usage")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@api_option
def command(as_json: bool, api: ApiAddress) -> None:
    """Show what the volume takes: its size, on each replica's disk, by snapshot, and what is on its way back.

    Exit code: 0, or 1 when no volume answers.
    """
    client = Api(api)
    status, past = client.get("/v1/volume"), client.get("/v1/snapshots")
    try:
        usage = _usage(status, past)
        print(json.dumps(usage, indent=2)) if as_json else open_console().print(_table(usage))
    except (KeyError, TypeError, ValueError):
        client.not_understood()


def _usage(status: dict[str, Any], past: dict[str, Any]) -> dict[str, Any]:
    snapshots = {each["name"]: each["bytes"] for each in past["snapshots"]}
    return {
        "size_bytes": status["size_bytes"],
        "live_bytes": past["live_bytes"],
        "snapshot_bytes": snapshots,
        "removed_bytes": past["removed_bytes"],
        "replicas": {
            str(each["id"]): {
                "used_bytes": each["used_bytes"],
                "available_bytes": each["available_bytes"],
            }
            for each in status["replicas"]
            if each["mode"] != "witness"
        },
    }


def _table(usage: dict[str, Any]) -> Table:
    table = Table("what", "bytes", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.add_row("size that initiators see", format_size(usage["size_bytes"]))
    table.add_row("written since the newest snapshot", format_size(usage["live_bytes"]))
    for name, size in usage["snapshot_bytes"].items():
        table.add_row(f"snapshot {name}", format_size(size))
    if usage["removed_bytes"]:
        table.add_row("of deleted snapshots, on its way back", format_size(usage["removed_bytes"]))
    for number, space in usage["replicas"].items():
        used, left = space["used_bytes"], space["available_bytes"]
        told = "not known" if used is None else f"{format_size(used)}, {format_size(left)} left"
        table.add_row(f"on the disk of replica {number}", told)
    return table
