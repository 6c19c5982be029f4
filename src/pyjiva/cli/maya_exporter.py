"""`pyjiva-maya exporter`: the metrics of one volume, for Prometheus and OpenEBS' programs."""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog
import trio

from pyjiva.cli.api import TOKEN_VARIABLE
from pyjiva.cli.daemon import Address, run_daemon, wait_for_stop
from pyjiva.errors import ConfigError
from pyjiva.maya.exporter.exporter_io import ControllerClient, Exporter, exporter_application
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import serve_http
from pyjiva.transport.tls_sys import client_context
from pyjiva.transport.token_file_sys import read_token

__all__ = ["command"]

_log = structlog.get_logger(__name__)

PROGRAM: Final = "pyjiva-maya exporter"
ANY_HOST: Final = "0.0.0.0"


class _ListenType(click.ParamType[Address]):
    """As OpenEBS' exporter took it: without a host, `:9500`, at every address."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(f"{ANY_HOST}{value}" if value.startswith(":") else value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


@attrs.frozen
class Serving:
    """Where and how it is to be asked."""

    at: Address
    path: str
    token: Token | None
    old_names: bool


@click.command()
@click.option(
    "--listen-address",
    "--listen.addr",
    "-a",
    "listen_address",
    type=_ListenType(),
    default=":9500",
    show_default=True,
    help="Where it is asked; without a host at every address.",
)
@click.option(
    "--listen-path",
    "--listen.path",
    "-m",
    "listen_path",
    default="/metrics",
    show_default=True,
    help="The path of the metrics.",
)
@click.option(
    "--controller.addr",
    "-c",
    "controller",
    default="http://127.0.0.1:9501",
    show_default=True,
    help="The controller's API.",
)
@click.option(
    "--cas.type",
    "-e",
    "cas_type",
    type=click.Choice(["jiva"]),
    default="jiva",
    show_default=True,
    help="What answers there.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds that the controller has to answer.",
)
@click.option(
    "--api-token-file",
    type=click.Path(path_type=Path),
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    help="The token that the controller asks for.",
)
@click.option("--tls-ca", type=click.Path(path_type=Path), help="The authority (PEM) of the controller.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM) for the controller.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key (PEM).")
@click.option(
    "--listen-token-file",
    type=click.Path(path_type=Path),
    help="A token that who asks the exporter must have; without it everybody is answered.",
)
@click.option(
    "--replica-health-port",
    type=click.IntRange(1, 65535),
    help="The health port of every replica: pass on their own metrics too.",
)
@click.option("--old-metric-names", is_flag=True, help="OpenEBS' metrics as they once were.")
def command(
    listen_address: Address,
    listen_path: str,
    controller: str,
    cas_type: str,
    deadline_s: float,
    listen_token_file: Path | None,
    replica_health_port: int | None,
    old_metric_names: bool,
    **files: Path | None,
) -> None:
    """Tell how a volume is, by asking its controller at each scrape."""

    async def run() -> int:
        if not listen_path.startswith("/"):
            raise ConfigError(f"--listen-path {listen_path}: it begins with a slash")
        token = None if listen_token_file is None else read_token(listen_token_file)
        client = make_client(controller, files, deadline_s, replica_health_port)
        return await _run(client, Serving(listen_address, listen_path, token, old_metric_names))

    sys.exit(run_daemon(PROGRAM, run, cas_type=cas_type))


def make_client(
    url: str, files: Mapping[str, Path | None], deadline_s: float, replica_health_port: int | None = None
) -> ControllerClient:
    """Raises ConfigError: a file cannot be used, or `url` is no address."""
    token_file = files.get("api_token_file")
    token = None if token_file is None else read_token(token_file)
    tls = client_context(files.get("tls_ca"), files.get("tls_cert"), files.get("tls_key"))
    if "://" not in url:
        url = f"{'http' if tls is None else 'https'}://{url}"
    return ControllerClient(url, deadline_s, token, tls, replica_health_port)


async def _run(client: ControllerClient, serving: Serving) -> int:
    app = exporter_application(Exporter(client), serving.path, old_names=serving.old_names)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_http, token=serving.token, for_all=True)
        port = await nursery.start(serve, app, serving.at.host, serving.at.port)
        _log.info("serving", address=str(attrs.evolve(serving.at, port=port)), path=serving.path)
        await wait_for_stop(stop_with_stdin=False)
        nursery.cancel_scope.cancel()
    await client.aclose()
    return 0
