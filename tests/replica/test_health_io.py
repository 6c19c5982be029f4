"""A replica's health port: what its OpenAPI document says, and nothing without the token but health."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jsonschema
import pytest
from starlette.applications import Starlette

from pyjiva.replica import ReplicaDaemon
from pyjiva.replica.api_document import OPERATIONS, replica_document
from pyjiva.replica.health_io import health_application
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.testing.cluster import KEY, VOLUME_ID
from pyjiva.transport import EndOfBatch
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import Guard
from tests.controller.served_api import Asked, check_answer, routes_of
from tests.controller.test_api import METHODS
from tests.suites.openapi import check_by_document

#: By that it says how it is.
MAY_BE_503 = """
[[operations]]
include-path = "/v1/health"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
checks.positive_data_acceptance.expected-statuses = ["2xx", 503]
"""
TOKEN = Token.parse("0123456789abcdef")


@asynccontextmanager
async def health_of_a_replica(directory: Path) -> AsyncIterator[Starlette]:
    store = Store.open_or_create(
        directory / "replica-1",
        volume_id=VOLUME_ID,
        replica_id=1,
        volume_name="test",
        size_bytes=1 << 20,
        block_size_bytes=512,
    )
    batch = EndOfBatch()
    device = ChainDevice(store, batch)
    try:
        yield health_application(ReplicaDaemon(store, device, KEY, batch), device)
    finally:
        store.close()


async def test_it_does_what_its_document_says(tmp_path: Path) -> None:
    document = replica_document("0")
    for operation in OPERATIONS:
        for answer in operation.answers:
            jsonschema.Draft202012Validator.check_schema(answer.schema)
    async with health_of_a_replica(tmp_path) as app:
        assert routes_of(app) == {(each.method, each.path) for each in OPERATIONS}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://r") as client:
            for each in OPERATIONS:
                check_answer(document, Asked(each.method, each.path), await client.get(each.path))


async def test_who_asks_whether_it_has_everything_is_told(tmp_path: Path) -> None:
    """For readiness: a budget that counts replicas that merely run would let the last good copy go."""
    document = replica_document("0")
    async with (
        health_of_a_replica(tmp_path) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://r") as client,
    ):
        for query, status in ((), 200), ((("in-sync", "0"),), 200), ((("in-sync", "1"),), 503):
            answer = await client.get("/v1/health", params=query)
            assert answer.status_code == status
            check_answer(document, Asked("GET", "/v1/health", {}, query), answer)
        wrong = await client.get("/v1/health?in-sync=yes")
        assert (wrong.status_code, wrong.json()["reason"]) == (400, "invalid-parameter")


async def test_without_the_token_nothing_but_health_is_answered(tmp_path: Path) -> None:
    async with health_of_a_replica(tmp_path) as app:
        transport = httpx.ASGITransport(Guard(app, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
            for each in OPERATIONS:
                for method in METHODS:
                    refused = (await client.request(method, each.path)).status_code == 401
                    assert refused != each.open, (method, each.path)
                assert (await client.get(each.path, headers=TOKEN.headers())).status_code == 200


@pytest.mark.real
async def test_schemathesis_finds_nothing_that_its_document_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    async with health_of_a_replica(tmp_path / "copy") as app:
        tested = await check_by_document(app, replica_document("0"), tmp_path, exceptions=MAY_BE_503)
    assert not tested.found, tested.found
    assert tested.operations == len(OPERATIONS)
