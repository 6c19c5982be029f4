"""`pyjiva up`, pretended: a folder that is locked while it runs, and an API with what Maya asks of it."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.errors import ConfigError
from pyjiva.sparse import open_directory
from pyjiva.transport.http_io import http_application, problem_response, serve_http
from pyjiva.transport.problem import Problem, Reason
from pyjiva.transport.token_file_sys import read_token

__all__ = ["Machine"]


LAST_WORDS = "2026-01-01 something\npyjiva: cannot listen on 127.0.0.1:3260: in use\nmore\n"


@attrs.define
class Content:
    """What outlives a process."""

    size_bytes: int
    snapshots: list[dict[str, Any]] = attrs.field(factory=list)
    filled: float | None = None


@attrs.define(eq=False)
class Machine:
    """Runs all volumes of a test: `launch` is a Launch."""

    contents: dict[Path, Content] = attrs.field(factory=dict)
    running: dict[str, list[str]] = attrs.field(factory=dict)
    """Arguments by name."""
    started: list[str] = attrs.field(factory=list)
    broken: dict[str, int] = attrs.field(factory=dict)
    """Exit code of volumes that cannot start."""
    state: str = "healthy"
    crashes: dict[str, trio.Event] = attrs.field(factory=dict)

    async def launch(self, arguments: Sequence[str], log: Path, on_line: Callable[[str], None]) -> int:
        """See Launch."""
        name = arguments[1]
        self.started.append(name)
        if name in self.broken:
            await trio.Path(log).write_text(LAST_WORDS)
            return self.broken[name]
        given = dict(itertools.pairwise(arguments))
        path = Path(given["--data"]) / name
        try:
            directory = open_directory(path)
        except ConfigError:
            return 2
        content = self.contents.setdefault(path, Content(int(given["--size"])))
        if "--fill-from" in given and content.filled is None:
            content.filled = 0.5
        (path / "replica-1").mkdir(exist_ok=True)
        (path / "replica-1" / "data").write_text(given["--size"])
        self.running[name] = list(arguments)
        self.crashes[name] = trio.Event()
        host, port = given["--api"].rsplit(":", 1)
        token = read_token(Path(given["--api-token-file"]))
        try:
            async with trio.open_nursery() as nursery:
                app = http_application(self._routes(name, content))
                try:
                    await nursery.start(partial(serve_http, app, host, int(port), token=token))
                except ConfigError as error:  # somebody has the port: as it is with a true one
                    await trio.Path(log).write_text(f"pyjiva: {error}\n")
                    return 2
                on_line(f"ready volume={name} api=http://{given['--api']}")
                await self.crashes[name].wait()
                nursery.cancel_scope.cancel()
        finally:
            directory.close()
            del self.running[name]
        return 1

    def _routes(self, name: str, content: Content) -> list[Route]:
        async def volume(_: Request) -> Response:
            return JSONResponse(
                {
                    "name": name,
                    "size_bytes": content.size_bytes,
                    "state": self.state,
                    "reason": "" if self.state == "healthy" else "replica 1 is away",
                    "filled": content.filled,
                    "replicas": [
                        {"id": 1, "address": "127.0.0.1:9502", "mode": "in-sync", "reason": ""},
                        {"id": 2, "address": "127.0.0.1:9503", "mode": "out", "reason": "not connected"},
                    ],
                }
            )

        async def stats(_: Request) -> Response:
            return JSONResponse({"Name": name})

        async def snapshots(_: Request) -> Response:
            return JSONResponse({"size_bytes": content.size_bytes, "snapshots": content.snapshots})

        async def change(request: Request) -> Response:
            wanted = request.path_params["snapshot"]
            there = [each for each in content.snapshots if each["name"] == wanted]
            if request.method == "DELETE":
                if not there:
                    return problem_response(Problem.of(Reason.NO_SUCH_SNAPSHOT, "none"))
                content.snapshots.remove(there[0])
                return JSONResponse({})
            if there:
                return problem_response(Problem.of(Reason.REFUSED, "it is there"))
            made = {"name": wanted, "created": "2026-01-01T00:00:00Z", "user_created": True}
            content.snapshots.append(made)
            return JSONResponse(made, status_code=201)

        async def grow(request: Request) -> Response:
            content.size_bytes = int(request.query_params["size"])
            return JSONResponse({"size_bytes": content.size_bytes})

        return [
            Route("/v1/volume", volume),
            Route("/v1/stats", stats),
            Route("/v1/snapshots", snapshots),
            Route("/v1/snapshots/{snapshot}", change, methods=["POST", "DELETE"]),
            Route("/v1/size", grow, methods=["POST"]),
        ]
