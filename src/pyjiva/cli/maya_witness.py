"""`pyjiva-maya witness`: the vote of a volume's JivaVolume, beside the volume's controller."""

import os
import sys
from pathlib import Path
from typing import Final

import click
import trio

from pyjiva.cli.daemon import ADDRESS, Address, read_key, run_daemon, wait_for_stop
from pyjiva.errors import ConfigError
from pyjiva.maya.kube.cluster_io import open_cluster
from pyjiva.maya.kube.credentials_sys import load_access
from pyjiva.maya.witness import JivaVolumeVotes, VoteOf
from pyjiva.replica import WitnessDaemon, WitnessIdentity
from pyjiva.transport import EndOfBatch

__all__ = ["command"]

PROGRAM: Final = "pyjiva-maya witness"
MANAGER: Final = "pyjiva-witness"


@click.command()
@click.option("--volume", "name", required=True, help="Name of the JivaVolume.")
@click.option("--namespace", required=True, help="Its namespace.")
@click.option("--uid", required=True, help="Its uid: of another one of that name nothing is believed.")
@click.option("--volume-id", required=True, help="The volume's id: 32 hexadecimal digits.")
@click.option("--replica-id", type=click.IntRange(min=1), required=True, help="The witness' number.")
@click.option("--data", type=ADDRESS, default="127.0.0.1:9504", show_default=True, help="Data port.")
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The volume's key.")
@click.option("--kubeconfig", default="", help="A kubeconfig; else as kubectl, or the pod's.")
@click.option("--context", default="", help="One of the kubeconfig's contexts.")
def command(
    name: str,
    namespace: str,
    uid: str,
    volume_id: str,
    replica_id: int,
    data: Address,
    key_file: Path,
    kubeconfig: str,
    context: str,
) -> None:
    """Vote for a volume of two copies, and keep the vote in its JivaVolume, until SIGTERM or Ctrl-C.

    Exit code: 0 then, 2 when it cannot be, with the reason in one line.
    """

    async def run() -> int:
        whose = VoteOf(namespace, name, uid, replica_id)
        key = read_key(key_file, warn=True)
        access = load_access(kubeconfig, context, environment=dict(os.environ))
        async with open_cluster(access, manager=MANAGER) as cluster, trio.open_nursery() as nursery:
            identity = WitnessIdentity(volume_id, replica_id, str(whose))
            daemon = WitnessDaemon(identity, JivaVolumeVotes(cluster, whose), key, EndOfBatch())
            try:
                await nursery.start(daemon.serve, data.host, data.port)
            except OSError as error:
                raise ConfigError(f"cannot listen on {data}: {error.strerror or error}") from error
            await wait_for_stop(stop_with_stdin=False)
            nursery.cancel_scope.cancel()
        return 0

    sys.exit(run_daemon(PROGRAM, run, volume=name, id=replica_id))
