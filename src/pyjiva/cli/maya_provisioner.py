"""`pyjiva-maya provisioner`: makes PersistentVolumes for the claims of a Kubernetes cluster."""

import functools
import os
import secrets
import socket
import sys
from typing import Final

import click
import structlog
import trio

from pyjiva.cli.daemon import ADDRESS, Address, run_daemon, wait_for_stop
from pyjiva.cli.maya_options import cluster_options, pool_option, pools_of
from pyjiva.maya.kube.cluster import Cluster
from pyjiva.maya.kube.cluster_io import open_cluster
from pyjiva.maya.kube.credentials_sys import load_access
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.lease_io import LeaseLostError, run_elected
from pyjiva.maya.policy.policies import defaults_of
from pyjiva.maya.provisioner.decide import Provisioned
from pyjiva.maya.provisioner.health_io import ProvisionerMetrics, health_application
from pyjiva.maya.provisioner.provisioner_io import Provisioner
from pyjiva.transport.http_io import serve_http

__all__ = ["command"]

PROGRAM: Final = "pyjiva-maya provisioner"
LEASE: Final = "pyjiva-provisioner"
COMPONENT: Final = "pyjiva-maya-provisioner"
EXIT_LEASE_LOST: Final = 3

_log = structlog.get_logger(__name__)


@click.command()
@click.option(
    "--provisioner",
    "name",
    default="openebs.io/provisioner-iscsi",
    show_default=True,
    help="Its name, as StorageClasses have it.",
)
@click.option(
    "--namespace",
    default="openebs",
    show_default=True,
    envvar="OPENEBS_NAMESPACE",
    show_envvar=True,
    help="Maya's own: of its Lease, and of volumes' pods.",
)
@pool_option
@cluster_options
@click.option("--health", type=ADDRESS, help="Where health and metrics are answered, to everybody.")
def command(
    name: str,
    namespace: str,
    pools: tuple[tuple[str, str], ...],
    kubeconfig: str,
    context: str,
    all_namespaces: bool,
    health: Address | None,
) -> None:
    """Make volumes for claims until SIGTERM or Ctrl-C.

    Exit code: 0 then, 2 when it cannot be, with the reason in one line, 3 when another process has its Lease.
    """

    async def run() -> int:
        environment = dict(os.environ)
        us = Provisioned(
            name=name,
            namespace=namespace,
            identity=environment.get("NODE_NAME") or socket.gethostname(),
            defaults=defaults_of(environment),
            pools=pools_of(pools),
            all_namespaces=all_namespaces,
        )
        access = load_access(kubeconfig, context, environment=environment)
        instance = environment.get("POD_NAME") or socket.gethostname()
        metrics = ProvisionerMetrics()
        async with open_cluster(access) as cluster, trio.open_nursery() as nursery:
            if health is not None:
                serve = functools.partial(serve_http, health_application(metrics), for_all=True)
                await nursery.start(serve, health.host, health.port)
            nursery.start_soon(_provision, cluster, us, instance, metrics)
            await wait_for_stop(stop_with_stdin=False)
            nursery.cancel_scope.cancel()
        return 0

    try:
        code = run_daemon(PROGRAM, run)
    except* LeaseLostError:
        print(f"{PROGRAM}: another process has the Lease now: start again", file=sys.stderr, flush=True)
        code = EXIT_LEASE_LOST
    sys.exit(code)


async def _provision(cluster: Cluster, us: Provisioned, instance: str, metrics: ProvisionerMetrics) -> None:
    """While this process leads.  Raises LeaseLostError."""
    recorder = Recorder(cluster, COMPONENT, instance)

    async def lead() -> None:
        _log.info("this process makes PersistentVolumes now", instance=instance)
        await Provisioner(cluster, us, recorder, metrics).run()

    # The random part: a container that is started again in its pod is another holder.
    await run_elected(cluster, us.namespace, LEASE, f"{instance}_{secrets.token_hex(4)}", lead)
