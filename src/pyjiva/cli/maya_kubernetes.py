"""What `pyjiva-maya apiserver --backend kubernetes` is made of: the backend over an API server, and beside it
the reconciler of JivaVolumes, which runs in one process at a time.
"""

import contextlib
import functools
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Final

import attrs
import structlog
import trio

from pyjiva import __version__
from pyjiva.maya.apiserver.backend import Backend
from pyjiva.maya.apiserver.kube_backend_io import KubeBackend
from pyjiva.maya.kube.cluster import Cluster
from pyjiva.maya.kube.cluster_io import open_cluster
from pyjiva.maya.kube.credentials_sys import load_access
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.lease_io import run_elected
from pyjiva.maya.policy.policies import defaults_of
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.snapshot_operator_io import SnapshotOperator
from pyjiva.maya.volume.volume_api_io import HttpVolumeApi

__all__ = ["KubernetesOptions", "open_kube_backend", "run_operator"]

LEASE: Final = "pyjiva-apiserver"
COMPONENT: Final = "pyjiva-maya-apiserver"

_log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class KubernetesOptions:
    """What Maya was started with there."""

    namespace: str
    """Maya's own."""
    kubeconfig: str = ""
    context: str = ""
    all_namespaces: bool = False
    """Whether volumes' pods may be in other namespaces than Maya's."""
    pools: Mapping[str, str] = attrs.field(factory=dict)
    environment: Mapping[str, str] = attrs.field(factory=dict)

    def settings(self) -> Settings:
        """Of volumes' objects; the image is the one that the environment names for controllers, and so are
        the Secrets to fetch it with, separated by commas.
        """
        image = self.environment.get("OPENEBS_IO_JIVA_CONTROLLER_IMAGE", "")
        secret_names = self.environment.get("OPENEBS_IO_IMAGE_PULL_SECRETS", "").split(",")
        settings = Settings(
            namespace=self.namespace,
            version=__version__,
            all_namespaces=self.all_namespaces,
            image_pull_secrets=tuple(name for each in secret_names if (name := each.strip())),
        )
        return attrs.evolve(settings, image=image) if image else settings


@contextlib.asynccontextmanager
async def open_kube_backend(
    options: KubernetesOptions, cluster: Cluster | None = None
) -> AsyncIterator[Backend]:
    """The backend, with the reconciler beside it.  `cluster`: None: the one that the environment says.

    Raises ConfigError: there is none; LeaseLostError: this process does not lead any more.
    """
    defaults = defaults_of(options.environment)
    async with contextlib.AsyncExitStack() as stack:
        if cluster is None:
            access = load_access(options.kubeconfig, options.context, environment=options.environment)
            cluster = await stack.enter_async_context(open_cluster(access))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_operator, cluster, options)
            yield KubeBackend(
                cluster,
                options.namespace,
                defaults,
                options.pools,
                all_namespaces=options.all_namespaces,
            )
            nursery.cancel_scope.cancel()


async def run_operator(cluster: Cluster, options: KubernetesOptions) -> None:
    """Keep all JivaVolumes as they are to be, while this process leads.  Raises LeaseLostError."""
    name = options.environment.get("POD_NAME") or socket.gethostname()
    lead = functools.partial(_lead, cluster, options, name)
    # The random part: a container that is started again in its pod is another holder.
    await run_elected(cluster, options.namespace, LEASE, f"{name}_{secrets.token_hex(4)}", lead)


async def _lead(cluster: Cluster, options: KubernetesOptions, name: str) -> None:
    _log.info("this process reconciles JivaVolumes now", instance=name)
    async with HttpVolumeApi() as api:
        recorder = Recorder(cluster, COMPONENT, name)
        volumes = VolumeOperator(cluster, api, options.settings(), recorder)
        snapshots = SnapshotOperator(volumes, recorder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(volumes.run)
            nursery.start_soon(snapshots.run)
