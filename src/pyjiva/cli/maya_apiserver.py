"""`pyjiva-maya apiserver`: Maya's API, over Kubernetes or over volumes of this machine."""

import functools
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from pyjiva.cli.daemon import ADDRESS, Address, run_daemon, wait_for_stop
from pyjiva.cli.maya_kubernetes import KubernetesOptions, open_kube_backend
from pyjiva.cli.maya_options import cluster_options, pool_option, pools_of
from pyjiva.cli.service_manager import ServiceManager
from pyjiva.maya.apiserver.backend import Backend, MetricFamilies
from pyjiva.maya.apiserver.local_backend_io import LocalOptions, open_local_backend
from pyjiva.maya.apiserver.routes_io import OPEN_PATHS, health_application, maya_application
from pyjiva.maya.exporter.exposition import stats_json
from pyjiva.maya.exporter.scrape import figures_of
from pyjiva.maya.kube.lease_io import LeaseLostError
from pyjiva.maya.policy.policies import defaults_of
from pyjiva.transport.http_io import serve_http
from pyjiva.transport.token_file_sys import check_reach, read_token

__all__ = ["ApiserverOptions", "command", "serve"]

PROGRAM: Final = "pyjiva-maya apiserver"
KUBERNETES: Final = "kubernetes"
LOCAL: Final = "local"
EXIT_LEASE_LOST: Final = 3
"""As of a controller that another one has taken over from: start it again."""


@attrs.frozen(kw_only=True)
class ApiserverOptions:
    """What the operator asked for."""

    address: Address
    token_file: Path | None
    health: Address | None
    backend: str
    data: Path
    portal_host: str
    namespace: str
    kubeconfig: str = ""
    context: str = ""
    all_namespaces: bool = False
    pools: Mapping[str, str] = attrs.field(factory=dict)
    environment: Mapping[str, str] = attrs.field(factory=dict)


@click.command()
@click.option(
    "--backend",
    type=click.Choice([KUBERNETES, LOCAL]),
    default=KUBERNETES,
    show_default=True,
    help="What makes volumes: a cluster, or this machine.",
)
@click.option(
    "--address",
    "--listen",
    "address",
    type=ADDRESS,
    default="127.0.0.1:5656",
    show_default=True,
    help="Where it is asked.",
)
@click.option(
    "--api-token-file",
    type=click.Path(path_type=Path),
    help="A token: needed to be answered, except for health; without it only on loopback.",
)
@click.option("--health", type=ADDRESS, help="Where health and metrics are answered too, to everybody.")
@click.option(
    "--namespace",
    default="openebs",
    show_default=True,
    envvar="OPENEBS_NAMESPACE",
    show_envvar=True,
    help="Maya's own: of its Lease, of pods, and of volumes that are asked for without one.",
)
@pool_option
@cluster_options
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("maya-data"),
    show_default=True,
    help="With `local`: where everything is kept.",
)
@click.option(
    "--portal-host",
    default="127.0.0.1",
    show_default=True,
    help="With `local`: the address that volumes are offered on.",
)
def command(
    address: Address, api_token_file: Path | None, pools: tuple[tuple[str, str], ...], **given: Any
) -> None:
    """Serve volumes, snapshots and pools over HTTP until SIGTERM or Ctrl-C.

    Exit code: 0 then, 2 when it cannot be, with the reason in one line.
    """

    async def run() -> int:
        options = ApiserverOptions(
            address=address,
            token_file=api_token_file,
            pools=pools_of(pools),
            environment=dict(os.environ),
            **given,
        )
        return await serve(options)

    try:
        code = run_daemon(PROGRAM, run)
    except* LeaseLostError:
        print(f"{PROGRAM}: another process has the Lease now: start again", file=sys.stderr, flush=True)
        code = EXIT_LEASE_LOST
    sys.exit(code)


async def serve(options: ApiserverOptions) -> int:
    """Until SIGINT or SIGTERM; the exit code.  Raises ConfigError: it cannot be; nothing was started."""
    token = None if options.token_file is None else read_token(options.token_file)
    await trio.to_thread.run_sync(check_reach, options.address.host, token)
    manager = ServiceManager.of()
    async with _open_backend(options) as backend, trio.open_nursery() as nursery:
        app = maya_application(backend)
        guarded = functools.partial(serve_http, app, token=token, open_paths=OPEN_PATHS)
        port = await nursery.start(guarded, options.address.host, options.address.port)
        if (health := options.health) is not None:
            for_all = functools.partial(serve_http, health_application(app), for_all=True)
            await nursery.start(for_all, health.host, health.port)
        print(f"ready api=http://{attrs.evolve(options.address, port=port)}", flush=True)
        await manager.ready()
        await wait_for_stop(stop_with_stdin=False)
        await manager.stopping()
        nursery.cancel_scope.cancel()
    return 0


def _open_backend(options: ApiserverOptions) -> AbstractAsyncContextManager[Backend]:
    if options.backend == KUBERNETES:
        return open_kube_backend(
            KubernetesOptions(
                namespace=options.namespace,
                kubeconfig=options.kubeconfig,
                context=options.context,
                all_namespaces=options.all_namespaces,
                pools=options.pools,
                environment=options.environment,
            )
        )
    return open_local_backend(
        LocalOptions(
            data=options.data,
            families_of=_families_of,
            defaults=defaults_of(options.environment),
            pools=options.pools,
            namespace=options.namespace,
            portal_host=options.portal_host,
            node=socket.gethostname(),
        )
    )


def _families_of(volume: Any, stats: Any) -> MetricFamilies:
    """What the exporter beside a controller would say."""
    return stats_json(figures_of(volume, stats))
