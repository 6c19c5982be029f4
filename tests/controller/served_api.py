"""The controller's API over a volume with real replicas, asked without a socket, and what checks its answers
by its OpenAPI document.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs
import httpx
import jsonschema
import structlog.testing
import trio
from starlette.applications import Starlette
from starlette.routing import Route

from pyjiva.block import Limiter, Limits, Meters
from pyjiva.controller import Snapshots, Volume, VolumeState
from pyjiva.controller.api_document import controller_document
from pyjiva.controller.api_io import ApiOf, api_application
from pyjiva.testing.cluster import open_cluster, wait_state
from pyjiva.transport import EndOfBatch
from pyjiva.transport.problem import PROBLEM_TYPE

__all__ = ["SESSION", "Asked", "ServedApi", "check_answer", "routes_of", "serving"]

SESSION: Final[dict[str, Any]] = {
    "initiator": "iqn.1993-08.org.debian:01:abc",
    "address": "127.0.0.1:50000",
    "isid": "00023d000001",
    "tsih": 1,
    "connected_s": 12.5,
}


@attrs.frozen
class Asked:
    """One request; a parameter may be given several times."""

    method: str
    path: str
    """As the document has it, with names in braces."""
    places: Mapping[str, str] = attrs.field(factory=dict)
    """What stands in the braces."""
    query: tuple[tuple[str, str], ...] = ()

    @property
    def target(self) -> str:
        """The path as it is sent."""
        return self.path.format(**{name: quote(text, safe="") for name, text in self.places.items()})


@attrs.define(eq=False)
class ServedApi:
    """The API of one volume."""

    volume: Volume
    batch: EndOfBatch
    app: Starlette
    client: httpx.AsyncClient
    logged: list[Any]
    """What the API, and all else, logs."""
    document: dict[str, Any] = attrs.field(factory=lambda: controller_document("0"))

    async def ask(self, asked: Asked) -> httpx.Response:
        """The answer, which is as the document says and comes in time."""
        with trio.fail_after(30):
            answer = await self.client.request(asked.method, asked.target, params=list(asked.query))
        for each in self.logged:
            if "exc_info" in each:
                raise AssertionError(f"{asked}: a bug") from each["exc_info"]
        check_answer(self.document, asked, answer)
        return answer

    async def get(self, path: str, **places: str) -> Any:
        """What a GET answers."""
        answer = await self.ask(Asked("GET", path, places))
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def _captured_logs() -> AsyncIterator[list[Any]]:
    with structlog.testing.capture_logs() as logged:
        yield logged


@asynccontextmanager
async def serving(
    directory: Path, *, replicas: int = 2, sessions: tuple[dict[str, Any], ...] = ()
) -> AsyncIterator[ServedApi]:
    """A new volume, healthy."""
    # Logs are captured, as structlog's own tracebacks show local variables: of long ones that takes for ever.
    async with (
        _captured_logs() as logged,
        open_cluster(directory, replicas=replicas) as cluster,
        cluster.open_volume(new_volume=True) as (volume, batch),
    ):
        await wait_state(volume, VolumeState.HEALTHY)
        app = api_application(
            ApiOf(
                volume=volume,
                snapshots=Snapshots(volume),
                iqn="iqn.2016-09.com.openebs.jiva:test",
                portals=lambda: ["127.0.0.1:3260"],
                sessions=lambda: sessions,
                limiter=Limiter(Limits(), trio.current_time),
                meters=Meters(time.perf_counter_ns),
            )
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield ServedApi(volume, batch, app, client, logged)


def check_answer(document: Mapping[str, Any], asked: Asked, answer: httpx.Response) -> None:
    """Fail if this is not what the document says of it."""
    described = document["paths"][asked.path][asked.method.lower()]["responses"]
    assert str(answer.status_code) in described, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.status_code != 500, answer.text
    response = described[str(answer.status_code)]
    ((media_type, content),) = response["content"].items()
    assert answer.headers["Content-Type"].partition(";")[0] == media_type
    assert all(name in answer.headers for name in response.get("headers", {}))
    if media_type in ("application/json", PROBLEM_TYPE):
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)


def routes_of(app: Starlette) -> set[tuple[str, str]]:
    """Method and path of all that it answers; HEAD, which every GET brings, is left out."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    assert len(routes) == len(app.routes)
    return {(method, route.path) for route in routes for method in (route.methods or set()) - {"HEAD"}}
