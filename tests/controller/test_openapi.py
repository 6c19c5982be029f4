"""The controller's API, tested from its OpenAPI document by schemathesis.

`test_api.py` asks for several changes of one volume in a row, whether or not the document allows them, and
looks whether the volume takes I/O afterwards; here the document itself is what is tested.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.controller.api_document import OPERATIONS, controller_document
from pyjiva.transport.bearer import OPEN_PATHS
from pyjiva.transport.event_stream import EVENT_STREAM
from pyjiva.transport.http_io import http_application
from pyjiva.transport.openapi import Answer, Operation, Parameter, document, object_schema
from tests.controller.served_api import SESSION, serving
from tests.suites.openapi import check_by_document

#: DELETE gives one up; how it ended can be asked for.
STAYS = """
[[operations]]
include-path = "/v1/operations/{id}"
checks.use_after_free.enabled = false
"""
ENDLESS = [each.path for each in OPERATIONS if each.answers[0].media_type == EVENT_STREAM]


@pytest.mark.real
async def test_the_api_is_what_its_document_says(tmp_path: Path) -> None:
    """No server error; statuses, media types, headers and bodies as described; 405 with Allow; nothing but
    health without the token; what the schemas allow is accepted, what they forbid is refused.
    """
    (tmp_path / "volume").mkdir()
    async with serving(tmp_path / "volume", sessions=(SESSION,)) as api:
        tested = await check_by_document(
            api.app, controller_document("0"), tmp_path, endless=ENDLESS, exceptions=STAYS
        )
        assert not tested.found, tested.found
        assert tested.operations == len(OPERATIONS) - len(ENDLESS)
        assert tested.cases > 10 * tested.operations
        assert tested.phases == {"examples", "coverage", "fuzzing", "stateful"}
        assert not [each for each in api.logged if "exc_info" in each]
        assert (await api.get("/v1/volume"))["state"] != "parked"


#: What is answered, whatever is asked, and what schemathesis says of it.
PLANTED = {
    "/500": (JSONResponse({"n": 1}, 500), "Server error"),
    "/206": (JSONResponse({"n": 1}, 206), "Undocumented status code"),
    "/text": (JSONResponse({"n": "1"}), "Response violates schema"),
    "/plain": (Response("1", media_type="text/plain"), "Undocumented Content-Type"),
    "/lax": (JSONResponse({"n": 1}), "Schema-violating request accepted"),
    "/strict": (JSONResponse({"n": 1}, 400), "Schema-valid request rejected"),
}


def planted(path: str) -> tuple[Operation, Route]:
    async def get(_: Request) -> Response:
        return PLANTED[path][0]

    least = Parameter("least", "above 0", {"type": "integer", "minimum": 1}, required=True)
    answer = Answer(200, "A number.", object_schema({"n": {"type": "integer"}}))
    return Operation("GET", path, path[1:], "A number.", (answer,), (least,), (400,)), Route(path, get)


@pytest.mark.real
async def test_an_api_that_is_not_is_found_out(tmp_path: Path) -> None:
    operations, routes = zip(*map(planted, PLANTED), strict=True)
    said: dict[str, Any] = document("planted", "0", "Wrong.", operations)
    open_paths = frozenset({*OPEN_PATHS, "/lax"})
    tested = await check_by_document(http_application(routes), said, tmp_path, open_paths=open_paths)
    parts = re.split(r"^_+ GET (/\w+) _+$", tested.found, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert {path for path, (_, what) in PLANTED.items() if what in found.get(path, "")} == set(PLANTED), found
    assert "API accepts requests without authentication" in found["/lax"]
