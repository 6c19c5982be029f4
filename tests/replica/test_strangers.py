"""What a replica's data port does for those who have not proved the key, over real sockets."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pyjiva.replica import ReplicaDaemon
from pyjiva.replica.daemon_io import HANDSHAKE_S, STRANGERS_MAX
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB

PAGE = Path(__file__).parents[2] / "docs/explanation/threat-model.md"


async def in_turn(call: Callable[[], None]) -> None:
    """Instead of a thread, under a clock that leaps."""
    await trio.lowlevel.checkpoint()
    call()


@pytest.fixture
async def port(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[int]:
    """Of a replica that listens."""
    store = Store.open_or_create(
        tmp_path / "r", volume_id="v", replica_id=1, volume_name="v", size_bytes=MIB, block_size_bytes=512
    )
    batch = EndOfBatch()
    daemon = ReplicaDaemon(store, ChainDevice(store, batch, in_turn), b"k" * 32, batch, in_turn)
    yield await nursery.start(daemon.serve, "127.0.0.1", 0)
    nursery.cancel_scope.cancel()
    store.close()


async def test_who_says_nothing_is_gone_after_the_handshake_time(
    port: int, autojump_clock: MockClock
) -> None:
    began_at = trio.current_time()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stranger:
        assert await stranger.receive_some() == b""
    assert trio.current_time() - began_at <= HANDSHAKE_S + 1


async def test_beyond_so_many_strangers_nobody_is_heard(port: int) -> None:
    """So many connections without a proof take no more of the machine than that."""
    async with trio.open_nursery() as nursery:
        strangers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(STRANGERS_MAX)]
        with trio.fail_after(HANDSHAKE_S / 2):  # at once, not when its time is over
            async with await trio.open_tcp_stream("127.0.0.1", port) as late:
                assert await late.receive_some() == b""
        for stranger in strangers:
            nursery.start_soon(stranger.aclose)


def test_the_limits_are_those_of_the_page() -> None:
    assert f"{HANDSHAKE_S:g} s for the handshake, {STRANGERS_MAX} at once" in PAGE.read_text()
