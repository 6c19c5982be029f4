"""`pyjiva replica add` and `rm`: one replica more or less, while the volume is in use."""

import time
from typing import Any, Final

import click

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.replica_address import REPLICA
from pyjiva.controller import ReplicaAddress

__all__ = ["add", "command", "rm"]

POLL_S: Final = 0.5
BELONGS: Final = ("in-sync", "witness")


@click.group("replica")
def command() -> None:
    """Add a replica to a volume, or remove one, while it is in use."""


@command.command("add")
@click.argument("replica", type=REPLICA, metavar="ID=HOST:PORT")
@click.option("--witness", is_flag=True, help="It votes and holds no data.")
@click.option("--wait", is_flag=True, help="Wait until it is in sync.")
@api_option
def add(replica: ReplicaAddress, witness: bool, wait: bool, api: ApiAddress) -> None:
    """Copy everything to a replica, whose `pyjiva-replica` runs already, and make it one of the volume's.

    Exit code: 0 begun (with --wait: done), 1 it cannot be.
    """
    client = Api(api)
    client.post(f"/v1/replicas/{replica.replica_id}", address=str(replica), witness=str(int(witness)))
    if wait:
        while _mode_of(client, replica.replica_id) not in BELONGS:
            time.sleep(POLL_S)


@command.command("rm")
@click.argument("replica_id", type=click.IntRange(1), metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until the volume goes on without it.")
@api_option
def rm(replica_id: int, wait: bool, api: ApiAddress) -> None:
    """Take a replica out of the volume.  Its directory is left as it is.

    Exit code: 0 begun (with --wait: done), 1 it cannot be.
    """
    client = Api(api)
    client.delete(f"/v1/replicas/{replica_id}")
    if wait:
        while _mode_of(client, replica_id) is not None:
            time.sleep(POLL_S)


def _mode_of(client: Api, replica_id: int) -> str | None:
    status: dict[str, Any] = client.get("/v1/volume")
    try:
        return next((str(r["mode"]) for r in status["replicas"] if r["id"] == replica_id), None)
    except (KeyError, TypeError):
        client.not_understood()
