"""A controller's API for snapshots, of the product's own stack, with faults."""

from collections.abc import Callable
from typing import Final

import attrs
import trio
import xxhash
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.transport.http_io import problem_response, serve_http
from pyjiva.transport.problem import Problem, Reason
from tests.backup.worlds import Volume, snapshot_of

__all__ = ["FakeApi"]

DATA_BYTES_MAX: Final = 4 << 20


@attrs.define(eq=False)
class FakeApi:
    """Serves the snapshots of one volume in memory."""

    volume: Volume
    faults: list[Callable[[Response], Response]] = attrs.field(factory=list)
    """Each spoils one answer, in order."""
    asked: list[str] = attrs.field(factory=list)
    not_whole: set[str] = attrs.field(factory=set)

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        """Until cancelled; reports the port."""
        app = Starlette(
            routes=[
                Route("/v1/volume", self._volume),
                Route("/v1/snapshots", self._snapshots),
                Route("/v1/snapshots/{name}/changed", self._changed),
                Route("/v1/snapshots/{name}/data", self._data),
            ]
        )
        await serve_http(app, "127.0.0.1", 0, task_status=task_status)

    def _answer(self, request: Request, answer: Response) -> Response:
        self.asked.append(str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""))
        return self.faults.pop(0)(answer) if self.faults else answer

    async def _volume(self, request: Request) -> Response:
        body = {"name": "demo", "volume_id": "0" * 32, "size_bytes": 1, "block_size_bytes": 512}
        return self._answer(request, JSONResponse(body))

    async def _snapshots(self, request: Request) -> Response:
        listed = [
            {
                "name": name,
                "parent": "",
                "created": created,
                "labels": {},
                "whole": name not in self.not_whole,
            }
            for name, (_, created) in self.volume.snapshots.items()
        ]
        body = {"snapshots": listed, "size_bytes": len(self.volume.content)}
        return self._answer(request, JSONResponse(body))

    async def _changed(self, request: Request) -> Response:
        since = request.query_params.get("since")
        if since is not None and since not in self.volume.snapshots:
            return self._answer(
                request, problem_response(Problem.of(Reason.NO_SUCH_SNAPSHOT, f"no snapshot {since}"))
            )
        extents = await snapshot_of(self.volume, request.path_params["name"]).changed(since)
        body = {"extents": [[extent.offset_bytes, extent.length_bytes] for extent in extents]}
        return self._answer(request, JSONResponse(body))

    async def _data(self, request: Request) -> Response:
        offset, length = (int(request.query_params[key]) for key in ("offset", "length"))
        if length > DATA_BYTES_MAX:
            return self._answer(
                request, problem_response(Problem.of(Reason.INVALID_PARAMETER, "at most 4 MiB"))
            )
        content = self.volume.snapshots[request.path_params["name"]][0][offset : offset + length]
        headers = {"X-Content-XXH3": xxhash.xxh3_64_hexdigest(content)}
        return self._answer(
            request, Response(content, headers=headers, media_type="application/octet-stream")
        )
