"""`pyjiva expand`: make a volume larger while it is in use."""

from typing import Final

import click

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.daemon import SIZE
from pyjiva.units import format_size

__all__ = ["command"]

CHANGE_S: Final = 60.0


@click.command("expand")
@click.argument("size", type=SIZE)
@api_option
def command(size: int, api: ApiAddress) -> None:
    """Make the volume larger: SIZE is what it is to have, such as 20GiB.

    Initiators are told (Linux: iscsiadm -m session --rescan, then resize2fs or xfs_growfs).  A volume can
    not become smaller.  Exit code: 0 done, 1 it cannot be.
    """
    client = Api(api, timeout_s=CHANGE_S)
    answer = client.post("/v1/size", size=str(size))
    try:
        print(f"the volume has {format_size(int(answer['size_bytes']))}")
    except (KeyError, TypeError, ValueError):
        client.not_understood()
