"""`pyjiva clone`: a new volume with what a snapshot of another one holds, from one command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pyjiva.cli.api import TOKEN_VARIABLE, Api, open_api_address
from pyjiva.cli.up import command as up

__all__ = ["command"]


def _tls_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As the commands have it that ask a volume's API, for the API of the source."""
    return click.option(
        f"--of-tls-{name}",
        type=click.Path(path_type=Path),
        envvar=f"PYJIVA_TLS_{name.upper()}",
        show_envvar=True,
        help=text,
    )


@click.command("clone", context_settings={"ignore_unknown_options": True})
@click.argument("snapshot")
@click.argument("name")
@click.argument("options", metavar="[UP OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--of",
    "source",
    default="http://127.0.0.1:9501",
    show_default=True,
    envvar="PYJIVA_API",
    show_envvar=True,
    help="The API of the volume that has the snapshot.",
)
@click.option(
    "--of-token-file",
    type=click.Path(path_type=Path),
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    help="The token that it asks for.",
)
@_tls_option("ca", "The authority (PEM) whose certificate it must have.")
@_tls_option("cert", "Our certificate (PEM), if it asks for one.")
@_tls_option("key", "The certificate's key (PEM).")
def command(
    snapshot: str,
    name: str,
    options: tuple[str, ...],
    source: str,
    of_token_file: Path | None,
    **of_tls: Path | None,
) -> None:
    """Run the new volume NAME, which holds what SNAPSHOT holds, until Ctrl-C.

    It is complete from its first moment: what is not there yet is fetched when it is asked for, and all of it
    in the background.  UP OPTIONS are those of `pyjiva up`: on the source's machine at least --portal and
    --api.  Until all is there, the same command brings it back; later `pyjiva up NAME` does.

    Exit code: as of `pyjiva up`, or 1 when there is no such snapshot.
    """
    tls = {key.removeprefix("of_"): path for key, path in of_tls.items()}
    client = Api(open_api_address(source, {"api_token_file": of_token_file, **tls}))
    past: dict[str, Any] = client.get("/v1/snapshots")
    try:
        if snapshot not in [each["name"] for each in past["snapshots"]]:
            client.give_up(f"there is no snapshot {snapshot!r}", what="the controller refused")
        size = int(past["size_bytes"])
    except (KeyError, TypeError, ValueError):
        client.not_understood()
    arguments = [name, "--fill-from", f"{client.address.rstrip('/')}/v1/snapshots/{snapshot}"]
    if of_token_file is not None:
        arguments += ["--fill-token-file", str(of_token_file)]
    for key, path in tls.items():
        arguments += [] if path is None else [f"--fill-{key.replace('_', '-')}", str(path)]
    if not any(each == "--size" or each.startswith("--size=") for each in options):
        arguments += ["--size", str(size)]
    up.main([*arguments, *options], prog_name="pyjiva up", standalone_mode=False)
