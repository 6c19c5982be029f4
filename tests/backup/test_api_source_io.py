"""A snapshot over the API, from a server of the product's own stack."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from starlette.responses import JSONResponse, Response

from pyjiva.backup.api_source_io import ApiSource, open_api_source
from pyjiva.backup.work_io import ungrouped
from pyjiva.errors import BackupError, ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.transport.http_io import problem_response
from pyjiva.transport.problem import Problem
from tests.backup.fake_snapshot_api import FakeApi
from tests.backup.worlds import Volume

pytestmark = pytest.mark.real
SIZE = 10 << 20


def snapshots() -> Volume:
    """With `a` and `b`."""
    volume = Volume(bytearray(SIZE))
    volume.content[4096:8192] = b"1" * 4096
    volume.snapshot("a")
    volume.content[5 << 20 : 6 << 20] = b"2" * (1 << 20)
    volume.snapshot("b")
    return volume


@asynccontextmanager
async def serving(api: FakeApi) -> AsyncIterator[str]:
    """The address of a server."""
    with ungrouped():
        async with trio.open_nursery() as nursery:
            port = await nursery.start(api.serve)
            yield f"http://127.0.0.1:{port}"
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def source_of(api: FakeApi, name: str) -> AsyncIterator[ApiSource]:
    """Without pauses between attempts."""
    async with serving(api) as url, httpx.AsyncClient(trust_env=False) as client:
        yield await ApiSource.open(client, url, name, pause_s=0.0)


async def test_it_is_the_volume_as_of_the_snapshot() -> None:
    api = FakeApi(snapshots())
    async with serving(api) as url, open_api_source(url.removeprefix("http://"), "b") as source:
        assert (source.volume_name, source.volume_id) == ("demo", "0" * 32)
        assert (source.size_bytes, source.block_size_bytes) == (SIZE, 512)
        assert source.created == api.volume.snapshots["b"][1]
        assert set(await source.snapshots()) == {"a", "b"}
        assert await source.changed("a") == [Extent(5 << 20, 1 << 20)]
        assert await source.changed(None) == [Extent(4096, 4096), Extent(5 << 20, 1 << 20)]
        assert await source.read(Extent(0, SIZE)) == api.volume.snapshots["b"][0]
    assert "/v1/snapshots/b/data?offset=8388608&length=2097152" in api.asked
    assert "/v1/snapshots/b/changed?since=a" in api.asked


async def test_a_name_with_odd_letters_arrives() -> None:
    api = FakeApi(snapshots())
    api.volume.snapshot("a b?c#d")
    async with source_of(api, "a b?c#d") as source:
        assert await source.changed("b") == []


def cut(answer: Response) -> Response:
    """Less than was asked for."""
    return Response(bytes(answer.body)[:-1], headers={"X-Content-XXH3": answer.headers["X-Content-XXH3"]})


def flip(answer: Response) -> Response:
    """As many bytes, but others."""
    return Response(b"!" * len(answer.body), headers={"X-Content-XXH3": answer.headers["X-Content-XXH3"]})


def bare(answer: Response) -> Response:
    """Without a hash."""
    return Response(bytes(answer.body))


def busy(_: Response) -> Response:
    """No answer now."""
    return problem_response(
        Problem.of_storage(StorageError(StorageFailure.NOT_READY, "the volume is parked"))
    )


@pytest.mark.parametrize("fault", [cut, flip, bare, busy])
async def test_a_bad_answer_is_asked_for_again(fault: Callable[[Response], Response]) -> None:
    api = FakeApi(snapshots())
    async with source_of(api, "b") as source:
        api.faults = [fault, fault]
        assert await source.read(Extent(4096, 4096)) == b"1" * 4096
        api.faults = [fault] * 10
        with pytest.raises(BackupError, match="no good answer from the volume at http"):
            await source.read(Extent(4096, 4096))


async def test_a_refusal_is_not_asked_again() -> None:
    api = FakeApi(snapshots())
    async with source_of(api, "b") as source:
        with pytest.raises(ConfigError, match="refused: no snapshot older"):
            await source.changed("older")
    assert sum("older" in asked for asked in api.asked) == 1


async def test_a_snapshot_that_is_not_there_or_not_whole_is_refused() -> None:
    api = FakeApi(snapshots(), not_whole={"a"})
    with pytest.raises(ConfigError, match="demo has no snapshot c"):
        async with source_of(api, "c"):
            pass
    with pytest.raises(ConfigError, match="a is not whole yet"):
        async with source_of(api, "a"):
            pass


@pytest.mark.parametrize(
    "body", [[], {}, {"snapshots": 1}, {"snapshots": [1]}, {"extents": [[1]]}, {"extents": [[-1, 2]]}, None]
)
async def test_an_odd_answer_is_an_error(body: object) -> None:
    def odd(_: Response) -> Response:
        return JSONResponse(body)

    api = FakeApi(snapshots())
    async with source_of(api, "b") as source:
        api.faults = [odd]
        with pytest.raises(BackupError, match="not a list of extents"):
            await source.changed(None)
    api.faults = [odd, odd]
    with pytest.raises(BackupError, match="not a list of snapshots"):
        async with source_of(api, "b"):
            pass


async def test_nobody_there_is_an_error() -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(BackupError, match="no good answer from the volume at http"):
            await ApiSource.open(client, "http://127.0.0.1:1", "a", pause_s=0.0)
