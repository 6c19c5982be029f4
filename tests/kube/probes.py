"""Probes of containers, as kubelet makes them.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/.  Left out: gRPC.
"""

from collections.abc import Awaitable, Callable, Sequence

import attrs
import httpx
import trio

from tests.kube.api import Object

__all__ = ["Prober"]


@attrs.frozen
class Prober:
    """Asks one container, again and again."""

    probe: Object
    container: Object
    address: str
    """The pod's."""
    execute: Callable[[Sequence[str]], Awaitable[int]]
    """Run a command in the container; its exit code."""

    async def until(self, *, success: bool) -> None:
        """Return when the probe has succeeded, or failed, as often in a row as its threshold says."""
        threshold = self.probe.get("successThreshold" if success else "failureThreshold", 1 if success else 3)
        in_a_row = 0
        while True:
            before = trio.current_time()
            in_a_row = in_a_row + 1 if await self.succeeds() == success else 0
            if in_a_row >= threshold:
                return
            await trio.sleep_until(before + self.probe.get("periodSeconds", 10))

    async def wait_before(self) -> None:
        """initialDelaySeconds."""
        await trio.sleep(self.probe.get("initialDelaySeconds", 0))

    async def wait_between(self) -> None:
        """periodSeconds."""
        await trio.sleep(self.probe.get("periodSeconds", 10))

    async def succeeds(self) -> bool:
        """Ask once."""
        with trio.move_on_after(self.probe.get("timeoutSeconds", 1)):
            try:
                return await self._ask()
            except (OSError, httpx.TransportError):
                return False
        return False

    async def _ask(self) -> bool:
        if "exec" in self.probe:
            return await self.execute(self.probe["exec"].get("command", [])) == 0
        if "tcpSocket" in self.probe:
            target = self.probe["tcpSocket"]
            stream = await trio.open_tcp_stream(target.get("host", self.address), self._port(target))
            await stream.aclose()
            return True
        target = self.probe["httpGet"]
        scheme, host = target.get("scheme", "HTTP").lower(), target.get("host") or self.address
        headers = {header["name"]: header["value"] for header in target.get("httpHeaders", [])}
        async with httpx.AsyncClient(verify=False, timeout=None, trust_env=False) as client:
            url = f"{scheme}://{host}:{self._port(target)}/{target.get('path', '').lstrip('/')}"
            answer = await client.get(url, headers={"User-Agent": "kube-probe/1", **headers})
        return 200 <= answer.status_code < 400

    def _port(self, target: Object) -> int:
        for port in self.container.get("ports", []):
            if port.get("name") == target["port"]:
                return int(port["containerPort"])
        return int(target["port"])
