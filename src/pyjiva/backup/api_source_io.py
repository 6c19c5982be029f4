"""A snapshot of a volume that is being served, over the controller's API.

    GET /v1/volume                                  name, volume_id, block_size_bytes
    GET /v1/snapshots                               {"snapshots": [{"name", "created", "whole", …}],
                                                     "size_bytes": …}
    GET /v1/snapshots/NAME/changed?since=OLDER      {"extents": [[offset, length], …]}
    GET /v1/snapshots/NAME/data?offset=&length=     bytes, at most 4 MiB; X-Content-XXH3: their xxh3-64

What comes over the wire is checked against its hash and asked for again if it is not right, or if the
controller could not answer for a moment.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import attrs
import httpx
import trio
import xxhash

from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent
from pyjiva.transport.bearer import Token
from pyjiva.transport.problem import detail_of
from pyjiva.units import MIB

__all__ = ["ApiSource", "open_api_source"]

DATA_BYTES_MAX: Final = 4 * MIB
HASH_HEADER: Final = "X-Content-XXH3"
TIMEOUT_S: Final = 60.0
ATTEMPTS: Final = 5
PAUSE_S: Final = 1.0  # before the second attempt; doubles: 15 s in all, longer than a controller's restart


T = TypeVar("T")


class _TryAgainError(Exception):
    """The answer was no answer."""


@attrs.define(eq=False)
class ApiSource:
    """A SnapshotSource over one controller."""

    _client: httpx.AsyncClient
    address: str
    volume_name: str
    volume_id: str
    snapshot: str
    created: str
    size_bytes: int
    block_size_bytes: int
    _snapshots: Mapping[str, str]
    _pause_s: float = PAUSE_S

    @classmethod
    async def open(
        cls, client: httpx.AsyncClient, address: str, snapshot: str, *, pause_s: float = PAUSE_S
    ) -> Self:
        """Raises ConfigError: there is no such snapshot; BackupError: no volume answers."""
        ask = partial(_ask_json, client, address, pause_s=pause_s)
        volume, listed = await ask("/v1/volume"), await ask("/v1/snapshots")
        try:
            found = {str(one["name"]): one for one in listed["snapshots"]}
            created = {name: str(one.get("created", "")) for name, one in found.items()}
            identity = (str(volume["name"]), str(volume["volume_id"]))
            sizes = (int(listed["size_bytes"]), int(volume["block_size_bytes"]))
            if snapshot in found and found[snapshot].get("whole") is False:
                raise ConfigError(f"snapshot {snapshot} is not whole yet on the replicas that can be read")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackupError(f"{address}: the answer is not a list of snapshots") from error
        if snapshot not in found:
            raise ConfigError(f"volume {identity[0]} has no snapshot {snapshot}")
        return cls(client, address, *identity, snapshot, created[snapshot], *sizes, created, pause_s)

    async def snapshots(self) -> Mapping[str, str]:
        """See SnapshotSource."""
        return self._snapshots

    async def changed(self, since: str | None) -> list[Extent]:
        """See SnapshotSource."""
        parameters = {} if since is None else {"since": since}
        answer = await _ask_json(
            self._client, self.address, self._path("changed"), pause_s=self._pause_s, **parameters
        )
        try:
            extents = [Extent(offset, length) for offset, length in answer["extents"]]
            if any(type(n) is not int or n < 0 for e in extents for n in (e.offset_bytes, e.length_bytes)):
                raise ValueError("not extents")
        except (KeyError, TypeError, ValueError) as error:
            raise BackupError(f"{self.address}: the answer is not a list of extents") from error
        return extents

    async def read(self, extent: Extent) -> bytes:
        """See SnapshotSource."""
        return b"".join([await self._read(part) for part in extent.split(DATA_BYTES_MAX)])

    async def _read(self, extent: Extent) -> bytes:
        def check(answer: httpx.Response) -> bytes:
            content = answer.content
            said = answer.headers.get(HASH_HEADER, "")
            if len(content) != extent.length_bytes or said != xxhash.xxh3_64_hexdigest(content):
                raise _TryAgainError(f"{extent}: what came is not what was sent")
            return content

        parameters = {"offset": str(extent.offset_bytes), "length": str(extent.length_bytes)}
        return await _ask(
            self._client, self.address, self._path("data"), parameters, check, pause_s=self._pause_s
        )

    def _path(self, what: str) -> str:
        return f"/v1/snapshots/{quote(self.snapshot, safe='')}/{what}"


@asynccontextmanager
async def open_api_source(
    address: str, snapshot: str, token: Token | None = None
) -> AsyncIterator[ApiSource]:
    """The snapshot of the volume whose API is at `address`, and asks for `token`."""
    url = address if "://" in address else f"http://{address}"
    # No proxy of the environment: it stands between here and the world, not before a controller.
    headers = {} if token is None else token.headers()
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, headers=headers) as client:
        yield await ApiSource.open(client, url.rstrip("/"), snapshot)


async def _ask_json(
    client: httpx.AsyncClient, address: str, path: str, *, pause_s: float, **parameters: str
) -> Any:
    def parse(answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise BackupError(f"{address}: the answer is not a volume's") from error

    return await _ask(client, address, path, parameters, parse, pause_s=pause_s)


async def _ask(
    client: httpx.AsyncClient,
    address: str,
    path: str,
    parameters: dict[str, str],
    parse: Callable[[httpx.Response], T],
    *,
    pause_s: float,
) -> T:
    """What `parse` makes of the answer of a GET.

    Raises ConfigError: the controller refuses, and would again; BackupError: there is no good answer.
    """
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            await trio.sleep(pause_s * 2 ** (attempt - 1))
        try:
            answer = await client.get(address + path, params=parameters)
            if answer.status_code in (400, 401, 404, 409):
                raise ConfigError(f"the controller at {address} refused: {_reason(answer)}")
            if answer.status_code != httpx.codes.OK:
                raise _TryAgainError(f"HTTP status {answer.status_code}: {_reason(answer)}")
            return parse(answer)
        except (httpx.HTTPError, _TryAgainError) as error:
            why = str(error) or type(error).__name__
        except httpx.InvalidURL as error:
            raise ConfigError(f"API {address}: {error}") from error
    raise BackupError(f"no good answer from the volume at {address}: {why}")


def _reason(answer: httpx.Response) -> str:
    try:
        return detail_of(answer.json())
    except ValueError:
        return answer.reason_phrase
