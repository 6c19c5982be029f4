"""A snapshot of another volume as the source that a new one is filled from, over that one's API."""

import ssl
from typing import Any, Final

import attrs
import httpx
import xxhash

from pyjiva.controller.filling_io import SourceLost
from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.transport.bearer import Token
from pyjiva.transport.problem import PROBLEM_TYPE, detail_of

__all__ = ["SnapshotSource"]

TIMEOUT_S: Final = 30.0


@attrs.define(eq=False)
class SnapshotSource:
    """The snapshot at `url`: http(s)://HOST:PORT/v1/snapshots/NAME."""

    url: str
    token: Token | None = None
    """What that API asks for."""
    tls: ssl.SSLContext | None = None
    """How it is asked by HTTPS; None: as httpx does, with the authorities of the system."""
    _client: httpx.AsyncClient = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        base, slash, name = self.url.rpartition("/v1/snapshots/")
        if not base.startswith(("http://", "https://")) or not slash or not name or "/" in name:
            raise ConfigError(f"{self.url!r}: write http(s)://HOST:PORT/v1/snapshots/NAME")
        # No proxy of the environment: it stands between here and the world, not before a controller.
        headers = {} if self.token is None else self.token.headers()
        verify = True if self.tls is None else self.tls
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, headers=headers, verify=verify)

    async def size_bytes(self) -> int:
        """Part of FillSource: of the volume that the snapshot belongs to."""
        base, _, name = self.url.rpartition("/")
        answer = await self._get(base)
        fields = _json(answer)
        try:
            names = [str(each["name"]) for each in fields["snapshots"]]
            size = int(fields["size_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise SourceLost(f"{base}: not a list of snapshots") from error
        if name not in names:
            raise SourceLost(f"{base}: there is no snapshot {name!r}")
        return size

    async def extents(self) -> list[Extent]:
        """Part of FillSource."""
        fields = _json(await self._get(f"{self.url}/changed"))
        try:
            return [Extent(int(offset), int(length)) for offset, length in fields["extents"]]
        except (KeyError, TypeError, ValueError) as error:
            raise SourceLost(f"{self.url}/changed: not a list of ranges") from error

    async def read(self, extent: Extent) -> bytes:
        """Part of FillSource."""
        answer = await self._get(
            f"{self.url}/data", offset=str(extent.offset_bytes), length=str(extent.length_bytes)
        )
        data = answer.content
        if len(data) != extent.length_bytes:
            raise SourceLost(f"{extent.length_bytes} bytes were answered by {len(data)}")
        if xxhash.xxh3_64_hexdigest(data) != answer.headers.get("X-Content-XXH3"):
            raise SourceLost(f"what came of {extent} has a wrong checksum")
        return data

    async def _get(self, url: str, **parameters: str) -> httpx.Response:
        try:
            answer = await self._client.get(url, params=parameters)
            if answer.headers.get("Content-Type") == PROBLEM_TYPE:
                raise SourceLost(f"{url}: {detail_of(_json(answer))}")
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise SourceLost(f"{url}: {str(error) or type(error).__name__}") from error
        return answer


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise SourceLost(f"{answer.url}: not JSON") from error
