"""The controller's API for snapshots and the volume's size.  The keys are in docs/reference/status.md."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import xxhash
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Lineage, Snapshot
from pyjiva.units import parse_size

__all__ = ["snapshot_routes"]

Handler = Callable[[Request], Awaitable[Response]]
_LABEL: Final = "label"


def snapshot_routes(snapshots: Snapshots) -> list[Route]:
    """What /v1/snapshots and /v1/size answer."""
    routes: tuple[tuple[str, Handler, str], ...] = (
        ("/v1/snapshots", partial(_list, snapshots), "GET"),
        ("/v1/snapshots/{name}", partial(_create, snapshots), "POST"),
        ("/v1/snapshots/{name}", partial(_delete, snapshots), "DELETE"),
        ("/v1/snapshots/{name}/revert", partial(_revert, snapshots), "POST"),
        ("/v1/snapshots/{name}/changed", partial(_changed, snapshots), "GET"),
        ("/v1/snapshots/{name}/data", partial(_data, snapshots), "GET"),
        ("/v1/size", partial(_grow, snapshots), "POST"),
    )
    return [Route(path, _guarded(handler), methods=[method]) for path, handler, method in routes]


async def _list(snapshots: Snapshots, _: Request) -> Response:
    answer = await snapshots.listing()
    lineage = snapshots.volume.past.lineage
    return JSONResponse(
        {
            "generation": lineage.generation,
            "size_bytes": lineage.size_bytes,
            "stands_on": _name(lineage, lineage.standing_on),
            "live_bytes": answer.live_bytes,
            "removed_bytes": answer.removed_bytes,
            "snapshots": [
                _fields(lineage, each) | {"bytes": answer.snapshot_bytes.get(each.name)}
                for each in lineage.snapshots
            ],
        }
    )


async def _create(snapshots: Snapshots, request: Request) -> Response:
    labels = dict(_label(text) for text in request.query_params.getlist(_LABEL))
    made = await snapshots.create(request.path_params["name"], labels=labels)
    return JSONResponse(_fields(snapshots.volume.past.lineage, made), status_code=201)


async def _delete(snapshots: Snapshots, request: Request) -> Response:
    await snapshots.delete(request.path_params["name"])
    return JSONResponse({})


async def _revert(snapshots: Snapshots, request: Request) -> Response:
    keep_newer = request.query_params.get("keep_newer", "0") == "1"
    await snapshots.revert(request.path_params["name"], keep_newer=keep_newer)
    return JSONResponse({})


async def _changed(snapshots: Snapshots, request: Request) -> Response:
    since = request.query_params.get("since", "")
    extents = await snapshots.changed(request.path_params["name"], since)
    return JSONResponse({"extents": [[e.offset_bytes, e.length_bytes] for e in extents]})


async def _data(snapshots: Snapshots, request: Request) -> Response:
    extent = Extent(_count(request, "offset"), _count(request, "length"))
    content = await snapshots.read(request.path_params["name"], extent)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"X-Content-XXH3": xxhash.xxh3_64_hexdigest(content)},
    )


async def _grow(snapshots: Snapshots, request: Request) -> Response:
    await snapshots.grow(parse_size(request.query_params.get("size", "")))
    return JSONResponse({"size_bytes": snapshots.volume.size_bytes})


def _guarded(handler: Handler) -> Handler:
    """`handler`, with its refusals as answers."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except StorageError as error:
            return JSONResponse({"error": error.detail}, status_code=503)

    return guarded


def _name(lineage: Lineage, number: int) -> str:
    return next((snapshot.name for snapshot in lineage.snapshots if snapshot.number == number), "")


def _fields(lineage: Lineage, snapshot: Snapshot) -> dict[str, Any]:
    fields = attrs.asdict(snapshot)
    del fields["whole"]  # what is in sync has no other
    fields["parent"] = _name(lineage, snapshot.parent)
    return fields


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"label {text!r}: write KEY=VALUE")
    return key, value


def _count(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{name} {text!r}: a number of bytes")
    return int(text)
