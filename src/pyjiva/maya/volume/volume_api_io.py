"""The controller's API over HTTP."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self

import attrs
import cattrs
import httpx

from pyjiva.errors import RemoteProtocolError
from pyjiva.maya.volume.report import VolumeReport
from pyjiva.maya.volume.volume_api import Refused, Silent, SnapshotReport, VolumeAddress

__all__ = ["HttpVolumeApi"]

API_PORT: Final = 9501
LOOK_S: Final = 3.0  # a controller answers from memory
CHANGE_S: Final = 30.0  # a snapshot waits for all replicas


@attrs.define(eq=False)
class HttpVolumeApi(AbstractAsyncContextManager["HttpVolumeApi"]):
    """A VolumeApi; a context manager that holds the connections."""

    port: int = API_PORT
    _client: httpx.AsyncClient = attrs.field(init=False)

    async def __aenter__(self) -> Self:
        # Not the environment's proxies: the way to a volume is the cluster's own network.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(trust_env=False, limits=limits)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def report(self, at: VolumeAddress) -> VolumeReport:
        """See VolumeApi."""
        answer = await self._ask(at, "GET", "/v1/volume", LOOK_S)
        try:
            return VolumeReport.of(answer.json())
        except (ValueError, RemoteProtocolError) as error:
            raise Silent(f"its controller answers something else: {error}") from error

    async def add_replica(self, at: VolumeAddress, replica_id: int, address: str, *, witness: bool) -> None:
        """See VolumeApi."""
        query = {"address": address, "witness": str(int(witness))}
        await self._ask(at, "POST", f"/v1/replicas/{replica_id}", CHANGE_S, query)

    async def remove_replica(self, at: VolumeAddress, replica_id: int) -> None:
        """See VolumeApi."""
        await self._ask(at, "DELETE", f"/v1/replicas/{replica_id}", CHANGE_S)

    async def grow(self, at: VolumeAddress, size_bytes: int) -> None:
        """See VolumeApi."""
        await self._ask(at, "POST", "/v1/size", CHANGE_S, {"size": str(size_bytes)})

    async def snapshots(self, at: VolumeAddress) -> tuple[SnapshotReport, ...]:
        """See VolumeApi."""
        answer = await self._ask(at, "GET", "/v1/snapshots", LOOK_S)
        try:
            return cattrs.structure(answer.json()["snapshots"], tuple[SnapshotReport, ...])
        except (ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
            raise Silent(f"its controller answers something else: {error}") from error

    async def create_snapshot(self, at: VolumeAddress, name: str, key: str) -> None:
        """See VolumeApi."""
        await self._ask(at, "POST", f"/v1/snapshots/{name}", CHANGE_S, headers={"Idempotency-Key": key})

    async def delete_snapshot(self, at: VolumeAddress, name: str) -> None:
        """See VolumeApi."""
        try:
            await self._ask(at, "DELETE", f"/v1/snapshots/{name}", CHANGE_S)
        except Refused as refused:
            if refused.reason != "no-such-snapshot":
                raise

    async def _ask(
        self,
        at: VolumeAddress,
        method: str,
        path: str,
        timeout_s: float,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        host = f"[{at.host}]" if ":" in at.host else at.host
        try:
            answer = await self._client.request(
                method,
                f"http://{host}:{self.port}{path}",
                params=query,
                headers={"Authorization": f"Bearer {at.token}", **(headers or {})},
                timeout=timeout_s,
            )
        except httpx.HTTPError as error:
            raise Silent(f"its controller does not answer: {error or type(error).__name__}") from error
        if answer.is_success:
            return answer
        raise _refused(answer)


def _refused(answer: httpx.Response) -> Refused:
    try:
        problem: Any = answer.json()
        detail, reason = str(problem["detail"]), str(problem["reason"])
    except (ValueError, KeyError, TypeError):
        detail, reason = f"HTTP status {answer.status_code}", ""
    return Refused(detail, status=answer.status_code, reason=reason)
