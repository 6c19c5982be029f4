"""What a replica's data port does for those who have not proved the key, over real sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pyjiva.controller import ControllerOptions, ReplicaAddress
from pyjiva.controller.link_io import shake_hands
from pyjiva.replica import ReplicaDaemon
from pyjiva.replica.connections_io import HANDSHAKE_S, STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX
from pyjiva.replication import FrameDecoder, FrameType, Hello, encode_header, encode_message
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.testing.cluster import KEY, VOLUME_ID, open_cluster
from pyjiva.transport import EndOfBatch
from pyjiva.transport.stream_io import open_stream
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


async def connect(port: int, own_address: str) -> trio.SocketStream:
    """A stranger there; all of 127.0.0.0/8 is this machine."""
    return await trio.open_tcp_stream("127.0.0.1", port, local_address=own_address)


async def is_heard(port: int, own_address: str) -> bool:
    """Whether one from there who speaks a version that nobody knows is told so."""
    hello = encode_message(Hello((), "v", "c", "00" * 32))
    async with await connect(port, own_address) as late:
        with trio.fail_after(10):
            try:
                await late.send_all(encode_header(FrameType.HELLO, payload=[hello]) + hello)
                return bool(await late.receive_some())
            except trio.BrokenResourceError:  # closed with our frame unread
                return False


async def test_beyond_so_many_strangers_nobody_is_heard(port: int) -> None:
    """So many connections without a proof take no more of the machine than that."""
    addresses = STRANGERS_MAX // STRANGERS_PER_ADDRESS_MAX
    async with AsyncExitStack() as stack:
        for number in range(STRANGERS_MAX):
            stranger = await connect(port, f"127.0.0.{2 + number % addresses}")
            await stack.enter_async_context(stranger)
        assert not await is_heard(port, "127.0.0.99")


async def test_one_address_leaves_room_for_others(port: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(STRANGERS_PER_ADDRESS_MAX):
            await stack.enter_async_context(await connect(port, "127.0.0.2"))
        assert not await is_heard(port, "127.0.0.2")
        assert await is_heard(port, "127.0.0.3")
    with trio.fail_after(10):  # they are gone, which the replica hears in its own time
        while not await is_heard(port, "127.0.0.2"):
            await trio.sleep(0.01)
    for _ in range(2 * STRANGERS_PER_ADDRESS_MAX):  # each gave its own place back, and no more than that
        assert await is_heard(port, "127.0.0.3")


async def test_who_has_proved_the_key_holds_no_place(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, replicas=1) as cluster, AsyncExitStack() as stack:
        address = ReplicaAddress(1, "127.0.0.1", cluster.ports[1])
        options = ControllerOptions(
            volume_name="test",
            volume_id=VOLUME_ID,
            size_bytes=cluster.size_bytes,
            block_size_bytes=cluster.block_size_bytes,
            replicas=(address,),
            key=KEY,
            new_volume=True,
        )
        batch = EndOfBatch()
        for number in range(2 * STRANGERS_PER_ADDRESS_MAX):
            stream = await stack.enter_async_context(open_stream(address.host, address.port, batch, 5))
            decoder = FrameDecoder(stream.buffer)
            report = await shake_hands(stream, decoder, options, address, f"{number:016x}", batch)
            assert report.replica_id == 1


def test_the_limits_are_those_of_the_page() -> None:
    assert (
        f"{HANDSHAKE_S:g} s for the handshake, {STRANGERS_MAX} at once, {STRANGERS_PER_ADDRESS_MAX} from one"
        in PAGE.read_text()
    )
