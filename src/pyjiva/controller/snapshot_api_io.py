"""The controller's API for snapshots and the volume's size.  The keys are in docs/reference/status.md."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import xxhash
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.controller.api_parameters import LENGTH_BYTES_MAX, count, labels, size, snapshot_name
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.extent import Extent
from pyjiva.lineage import Lineage, Snapshot
from pyjiva.transport.problem import ProblemError, Reason
from pyjiva.transport.query import flag

__all__ = ["snapshot_routes"]

Handler = Callable[[Request], Awaitable[Response]]


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
    return [Route(path, handler, methods=[method]) for path, handler, method in routes]


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
    given = labels(request.query_params.getlist("label"))
    name = snapshot_name(request.path_params["name"])
    made = await snapshots.create(name, labels=given)
    return JSONResponse(_fields(snapshots.volume.past.lineage, made), status_code=201)


async def _delete(snapshots: Snapshots, request: Request) -> Response:
    await snapshots.delete(_known(snapshots, request.path_params["name"]))
    return JSONResponse({})


async def _revert(snapshots: Snapshots, request: Request) -> Response:
    keep_newer = flag(request.query_params, "keep_newer")
    await snapshots.revert(_known(snapshots, request.path_params["name"]), keep_newer=keep_newer)
    return JSONResponse({})


async def _changed(snapshots: Snapshots, request: Request) -> Response:
    since = request.query_params.get("since", "")
    name = _known(snapshots, request.path_params["name"])
    extents = await snapshots.changed(name, _known(snapshots, since) if since else "")
    return JSONResponse({"extents": [[e.offset_bytes, e.length_bytes] for e in extents]})


async def _data(snapshots: Snapshots, request: Request) -> Response:
    given = request.query_params
    extent = Extent(count(given, "offset"), count(given, "length", least=1, most=LENGTH_BYTES_MAX))
    content = await snapshots.read(_known(snapshots, request.path_params["name"]), extent)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"X-Content-XXH3": xxhash.xxh3_64_hexdigest(content)},
    )


async def _grow(snapshots: Snapshots, request: Request) -> Response:
    await snapshots.grow(size(request.query_params, "size"))
    return JSONResponse({"size_bytes": snapshots.volume.size_bytes})


def _known(snapshots: Snapshots, name: str) -> str:
    """Raises ProblemError: there is no such snapshot."""
    if all(each.name != name for each in snapshots.volume.past.lineage.snapshots):
        raise ProblemError(Reason.NO_SUCH_SNAPSHOT, f"there is no snapshot {name!r}")
    return name


def _name(lineage: Lineage, number: int) -> str:
    return next((snapshot.name for snapshot in lineage.snapshots if snapshot.number == number), "")


def _fields(lineage: Lineage, snapshot: Snapshot) -> dict[str, Any]:
    fields = attrs.asdict(snapshot)
    del fields["whole"]  # what is in sync has no other
    fields["parent"] = _name(lineage, snapshot.parent)
    return fields
