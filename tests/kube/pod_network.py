"""A network namespace for every pod, so that each may listen on any port of its address, and on 0.0.0.0.

    pod: eth0 10.244.N.x/32 ── veth ── the cluster's namespace, which forwards, has a route to each pod, and
                                       holds the addresses of services and nodes

The pods share no link: whatever a pod sends goes through the cluster's namespace (169.254.1.1 at the other
end of the cable), as with Calico.  That costs two calls of `ip` per pod.  All pods in the cluster's
namespace, told apart by address alone, would do without, but two controllers that listen on :3260 would get
into each other's way there and not in life.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.kube.cluster import API_ADDRESS
from tests.kube.namespaces import new_network
from tests.kube.processes import run_command

__all__ = ["PodNetwork"]

GATEWAY = "169.254.1.1"


@attrs.define(eq=False)
class PodNetwork:
    """The network of one pod.  To be used in the cluster's namespace."""

    address: str
    cable: str
    """Its end in the cluster's namespace."""
    _namespace: int

    @classmethod
    async def make(cls, address: str) -> "PodNetwork":
        """With an address of 10.244.0.0/16 that nobody has."""
        third, fourth = address.split(".")[2:]
        network = cls(address, f"pod-{third}-{fourth}", new_network())
        try:
            await network._connect()
        except BaseException:
            os.close(network._namespace)
            raise
        return network

    @property
    def path(self) -> Path:
        """The namespace as a file of /proc."""
        return Path(f"/proc/{os.getpid()}/fd/{self._namespace}")

    async def close(self) -> None:
        """Take it away; no process may be in it."""
        await _ip([], f"link delete {self.cable}")
        os.close(self._namespace)

    async def _connect(self) -> None:
        await _ip(
            [],
            f"link add {self.cable} type veth peer name eth0 netns {self.path}",
            f"address add {GATEWAY}/32 dev {self.cable}",
            f"link set {self.cable} up",
            f"route add {self.address}/32 dev {self.cable} src {API_ADDRESS}",
        )
        await _ip(
            ["nsenter", f"--net={self.path}"],
            "link set lo up",
            f"address add {self.address}/32 dev eth0",
            "link set eth0 up",
            f"route add {GATEWAY} dev eth0",
            f"route add default via {GATEWAY} dev eth0 src {self.address}",
        )


async def _ip(where: Sequence[str], *lines: str) -> None:
    script = "\n".join(lines)
    # `ip -batch` says which line failed, and ends with it.
    code, printed = await run_command([*where, "sh", "-c", f"ip -batch - <<'.'\n{script}\n.\n"])
    if code != 0:
        raise OSError(f"ip: exit code {code}: {printed}\n{script}")
