"""Asking one volume's API, and what its refusals mean to Maya."""

from typing import Any, Final
from urllib.parse import quote

import attrs
import httpx

from pyjiva.maya.apiserver.backend import NotFound, Refused, Unavailable
from pyjiva.transport.bearer import Token
from pyjiva.transport.problem import detail_of

__all__ = ["VolumeClient", "snapshot_path"]

LOOK_S: Final = 5.0  # a volume's status is in memory
CHANGE_S: Final = 60.0  # a snapshot waits for what is in flight on all replicas


@attrs.define(eq=False)
class VolumeClient:
    """The API of the volume `name` at `url`."""

    name: str
    url: str
    token: Token
    _client: httpx.AsyncClient = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # No proxy of the environment: it stands between here and the world, not before a controller.
        self._client = httpx.AsyncClient(base_url=self.url, headers=self.token.headers(), trust_env=False)

    async def look(self, path: str) -> Any:
        """What a GET answers.  Raises Unavailable, NotFound, Refused."""
        return await self._ask("GET", path, {}, LOOK_S)

    async def change(self, method: str, path: str, **query: str) -> Any:
        """What another verb answers.  Raises the same."""
        return await self._ask(method, path, query, CHANGE_S)

    async def aclose(self) -> None:
        """Let its connections go."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, query: dict[str, str], timeout_s: float) -> Any:
        try:
            answer = await self._client.request(method, path, params=query, timeout=timeout_s)
            body = answer.json()
            if answer.is_success:
                return body
            detail = f"volume {self.name}: {detail_of(body)}"
        except httpx.TimeoutException as error:
            raise Unavailable(f"volume {self.name} does not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(
                f"volume {self.name} does not answer: {error or type(error).__name__}"
            ) from error
        except ValueError as error:
            raise Unavailable(f"volume {self.name}: what answers is no volume of ours") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound("snapshot", detail)
        if answer.status_code in (httpx.codes.CONFLICT, httpx.codes.BAD_REQUEST):
            raise Refused(detail)
        raise Unavailable(detail)


def snapshot_path(name: str) -> str:
    """Of a snapshot in a volume's API."""
    return f"/v1/snapshots/{quote(name, safe='')}"
