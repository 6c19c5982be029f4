"""`pyjiva snapshot`: make, list, delete, compare, and go back to snapshots, while the volume is in use."""

import json
import sys
from typing import Any, Final

import click
from rich.tree import Tree

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.render import open_console
from pyjiva.cli.waiting import wait_for_operations
from pyjiva.controller.operations import MERGE
from pyjiva.units import format_size

__all__ = ["command"]

CHANGE_S: Final = 60.0  # a change waits for the slowest disk


@click.group("snapshot")
def command() -> None:
    """Make, list, delete, compare and go back to snapshots."""


@command.command("create")
@click.argument("name")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="To be kept with it; repeat.")
@api_option
def create(name: str, labels: tuple[str, ...], api: ApiAddress) -> None:
    """Keep what the volume holds now as the snapshot NAME, on all replicas.

    What was written to the device before is in it; what a file system has not written yet is not: freeze it
    (fsfreeze) or unmount it for a snapshot without a journal to be replayed.

    Exit code: 0 done, 1 it cannot be.
    """
    Api(api, timeout_s=CHANGE_S).post(f"/v1/snapshots/{name}", label=list(labels))


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@api_option
def ls(as_json: bool, api: ApiAddress) -> None:
    """List the snapshots as a tree, with what each takes.

    A snapshot's size is what was written between the one that it stands on and itself.  Exit code: 0, or 1
    when no volume answers.
    """
    client = Api(api)
    answer = client.get("/v1/snapshots")
    try:
        print(json.dumps(answer, indent=2)) if as_json else open_console().print(_tree(answer))
    except (KeyError, TypeError, ValueError):
        client.not_understood()


def _tree(answer: dict[str, Any]) -> Tree:
    root = Tree("nothing written", guide_style="dim")
    nodes = {"": root}
    for each in answer["snapshots"]:  # by number, so a parent comes before its children
        labels = "".join(f"  {key}={value}" for key, value in each["labels"].items())
        text = f"[bold]{each['name']}[/bold]  {each['created']}  {format_size(each['bytes'] or 0)}{labels}"
        nodes[each["name"]] = nodes[each["parent"]].add(text)
    nodes[answer["stands_on"]].add(f"[green]the volume now[/green]  {format_size(answer['live_bytes'])}")
    if answer["removed_bytes"]:
        root.label = f"nothing written; {format_size(answer['removed_bytes'])} of deleted snapshots going"
    return root


@command.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until the replicas have given their space back.")
@api_option
def rm(names: tuple[str, ...], wait: bool, api: ApiAddress) -> None:
    """Delete snapshots; their space comes back in the background.

    Exit code: 0 done, 1 one cannot be, or a replica was lost while it was waited for.
    """
    client = Api(api, timeout_s=CHANGE_S)
    for name in names:
        client.delete(f"/v1/snapshots/{name}")
    if not wait:
        return
    try:
        failures = wait_for_operations(client, MERGE)
    except (KeyError, TypeError, ValueError):
        client.not_understood()
    for failure in failures:
        print(f"pyjiva: {failure}", file=sys.stderr)
    sys.exit(bool(failures))


@command.command("revert")
@click.argument("name")
@click.option("--keep-newer", is_flag=True, help="Keep the snapshots that were made since.")
@api_option
def revert(name: str, keep_newer: bool, api: ApiAddress) -> None:
    """Let the volume hold what it held when NAME was made.  No initiator may be logged in.

    What was written since is lost, unless a snapshot has it.  Exit code: 0 done, 1 it cannot be.
    """
    Api(api, timeout_s=CHANGE_S).post(f"/v1/snapshots/{name}/revert", keep_newer=str(int(keep_newer)))


@command.command("diff")
@click.argument("name")
@click.option("--since", default="", metavar="OLDER", help="An older snapshot; else: what it holds.")
@click.option("--json", "as_json", is_flag=True, help="The ranges, as JSON.")
@api_option
def diff(name: str, since: str, as_json: bool, api: ApiAddress) -> None:
    """Where NAME may differ from an older snapshot, in bytes.

    Exit code: 0, or 1 when there is no such snapshot.
    """
    client = Api(api, timeout_s=CHANGE_S)
    answer = client.get(f"/v1/snapshots/{name}/changed", since=since)
    try:
        if as_json:
            print(json.dumps(answer))
            return
        for offset, length in answer["extents"]:
            print(f"{offset:>16} {length:>16}")
        total = sum(length for _, length in answer["extents"])
    except (KeyError, TypeError, ValueError):
        client.not_understood()
    print(f"{format_size(total)} in {len(answer['extents'])} ranges")
