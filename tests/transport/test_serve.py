"""Serving a stream: each arrival is one call, by direct calls and by a task that fills, until it is over."""

import os
import queue
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace

import attrs
import outcome
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio._core._run import GLOBAL_RUN_CONTEXT

from pyjiva.transport import EndOfBatch
from pyjiva.transport import stream_io as stream_module
from pyjiva.transport.direct_io import DirectCalls, direct_calls
from pyjiva.transport.receive_buffer import RECEIVE_BYTES_MIN
from pyjiva.transport.stream_io import BatchedStream

PATIENCE_S = 5  # far beyond what anything here takes


@pytest.fixture(params=["direct", "by filling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How streams are served."""
    if request.param == "by filling":
        monkeypatch.setattr(stream_module, "direct_calls", lambda: None)
    return str(request.param)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Neither blocks."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[BatchedStream, socket.socket]]:
    """A stream, and its peer as a plain socket."""
    ours, peer = socket_pair()
    stream = BatchedStream(ours, EndOfBatch())
    try:
        with trio.fail_after(PATIENCE_S), peer:
            yield stream, peer
    finally:
        stream.close()


@attrs.define(eq=False)
class Owner:
    """Takes all that comes, and is told when to stop, or to fail."""

    stream: BatchedStream
    arrivals: list[bytes] = attrs.field(factory=list)
    stop_at: bytes = b"."
    error: BaseException | None = None
    came: trio.Event = attrs.field(factory=trio.Event)
    stood: list[bool] = attrs.field(factory=list)

    def arrived(self) -> bool:
        self.arrivals.append(bytes(self.stream.buffer.take(len(self.stream.buffer))))
        self.came.set()
        if self.error is not None:
            raise self.error
        return not self.arrivals[-1].endswith(self.stop_at)

    async def serve(self) -> None:
        self.stood.append(await self.stream.serve(lambda: 0, self.arrived))

    async def next_arrival(self) -> bytes:
        self.came = trio.Event()
        await self.came.wait()
        return self.arrivals[-1]


async def test_each_arrival_is_one_call_until_the_owner_stops(way: str) -> None:
    async with connected() as (stream, peer), trio.open_nursery() as nursery:
        owner = Owner(stream)
        nursery.start_soon(owner.serve)
        await trio.testing.wait_all_tasks_blocked()
        for word in (b"one", b"two", b"three."):
            peer.send(word)
            assert await owner.next_arrival() == word
        await trio.testing.wait_all_tasks_blocked()
        assert owner.stood == [True]
        peer.send(b"later")
        await trio.testing.wait_all_tasks_blocked()
        assert owner.arrivals == [b"one", b"two", b"three."], "nobody is called who has stopped"
        assert await stream.fill()
        assert bytes(stream.buffer.take(5)) == b"later"
        peer.send(b"again.")
        await owner.serve()
        assert owner.arrivals[-1] == b"again."
        assert stream.received_bytes == len(b"onetwothree.lateragain.")


async def test_what_was_there_before_is_an_arrival(way: str) -> None:
    async with connected() as (stream, peer):
        peer.send(b"early.")
        owner = Owner(stream)
        await owner.serve()
        assert owner.arrivals == [b"early."]


async def test_the_end_of_the_connection_is_none(way: str) -> None:
    async with connected() as (stream, peer):
        peer.send(b"last words")
        peer.close()
        owner = Owner(stream)
        await owner.serve()
        assert (owner.arrivals, owner.stood) == ([b"last words"], [False])
        await owner.serve()
        assert owner.stood == [False, False]


@pytest.mark.parametrize("end", [BatchedStream.shut_down, BatchedStream.close])
async def test_who_ends_the_stream_ends_its_service(way: str, end: Callable[[BatchedStream], None]) -> None:
    async with connected() as (stream, _peer):
        owner = Owner(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.serve)
            await trio.testing.wait_all_tasks_blocked()
            end(stream)
        assert owner.stood == [False]
        await owner.serve()
        assert owner.stood == [False, False]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt(), SystemExit(3)])
async def test_what_the_owner_raises_is_raised_by_serve(way: str, error: BaseException) -> None:
    async with connected() as (stream, peer):
        owner = Owner(stream, error=error)
        peer.send(b"bad")
        with pytest.raises(type(error)):
            await owner.serve()
        owner.error = None
        peer.send(b"better.")
        await owner.serve()
        assert owner.stood == [True]


async def test_a_cancelled_service_is_called_no_more(way: str) -> None:
    async with connected() as (stream, peer):
        owner = Owner(stream)
        with trio.CancelScope() as scope:
            scope.cancel()
            await owner.serve()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner.serve)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        peer.send(b"nobody")
        await trio.testing.wait_all_tasks_blocked()
        assert owner.arrivals == []


async def test_a_message_larger_than_the_buffer_comes_whole(way: str) -> None:
    """`wanted_bytes` is asked before each receive."""
    async with connected() as (stream, peer), trio.open_nursery() as nursery:
        whole = bytes(range(256)) * (3 * RECEIVE_BYTES_MIN // 256)

        async def send() -> None:
            left = whole
            while left:
                await trio.lowlevel.wait_writable(peer)
                left = left[peer.send(left) :]

        nursery.start_soon(send)
        assert await stream.serve(lambda: len(whole), lambda: len(stream.buffer) < len(whole))
        assert bytes(stream.buffer.take(len(whole))) == whole


async def test_a_stream_that_always_has_something_lets_tasks_and_timers_go_on(way: str) -> None:
    """Each of them, though the socket is never empty: the owner sends to itself."""
    async with connected() as (stream, peer), trio.open_nursery() as nursery:
        turns = 0

        def arrived() -> bool:
            stream.buffer.skip(len(stream.buffer))
            peer.send(b"more")
            return True

        async def other() -> None:
            nonlocal turns
            for _ in range(10):
                await trio.lowlevel.checkpoint()
                turns += 1
            await trio.sleep(0.01)
            await trio.lowlevel.wait_writable(peer)
            turns += 1
            nursery.cancel_scope.cancel()

        nursery.start_soon(other)
        peer.send(b"first")
        await stream.serve(lambda: 0, arrived)
    assert turns == 11


async def test_sockets_and_tasks_wait_beside_each_other(way: str) -> None:
    """What a task of trio's waits for comes, and so does what an owner is called for, both at once too."""
    async with connected() as (stream, peer), trio.open_nursery() as nursery:
        other, others_peer = socket_pair()
        with other, others_peer:
            owner = Owner(stream)
            nursery.start_soon(owner.serve)
            for round_ in range(20):
                others_peer.send(b"x")
                if round_ % 2:
                    peer.send(b"y")
                await trio.lowlevel.wait_readable(other)
                assert other.recv(10) == b"x"
                if round_ % 2:
                    while len(owner.arrivals) < round_ // 2 + 1:
                        await trio.lowlevel.checkpoint()
            peer.send(b".")
            await trio.to_thread.run_sync(lambda: None)  # a wake-up from a thread
        while not owner.stood:
            await trio.lowlevel.checkpoint()


async def test_a_full_socket_waits_to_send_while_it_is_served() -> None:
    """One descriptor in both epolls, for different things."""
    ours, peer = socket_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    batch = EndOfBatch()
    stream = BatchedStream(ours, batch)
    owner = Owner(stream)
    size, got = 1_000_000, 0
    try:
        with trio.fail_after(PATIENCE_S), peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run_sender)
                nursery.start_soon(owner.serve)
                stream.send(bytes(size))
                batch.end()
                while got < size:
                    await trio.lowlevel.wait_readable(peer)
                    got += len(peer.recv(100_000))
                    peer.send(b"w")
                peer.send(b".")
                while not owner.stood:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
    finally:
        stream.close()
    assert b"".join(owner.arrivals).endswith(b".")


class TestDirectCalls:
    """trio's own I/O manager, and ours before it."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, peer = socket_pair()
        with ours, peer:
            yield ours, peer

    @pytest.fixture
    async def calls(self) -> DirectCalls:
        calls = direct_calls()
        assert calls is not None
        return calls

    async def test_the_trio_that_is_installed_can_have_them(self) -> None:
        """If a new one cannot, small requests cost a quarter more, and nothing else says so."""
        calls = direct_calls()
        assert isinstance(calls, DirectCalls)
        assert direct_calls() is calls

    def test_each_run_has_its_own_and_leaves_no_descriptor(self) -> None:
        async def use() -> DirectCalls:
            calls = direct_calls()
            assert calls is not None
            return calls

        first = trio.run(use)  # what is opened once for all runs is open now
        before = len(os.listdir("/proc/self/fd"))
        assert trio.run(use) is not first
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("missing", ["io_manager", "deadlines", "runq"])
    async def test_a_trio_that_is_another_one_has_none(
        self, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = GLOBAL_RUN_CONTEXT.runner
        other = SimpleNamespace(
            io_manager=there.io_manager, deadlines=there.deadlines, runq=there.runq, is_guest=False
        )
        setattr(other, missing, object())
        if missing == "runq":
            del other.runq
        monkeypatch.setattr("pyjiva.transport.direct_io.GLOBAL_RUN_CONTEXT", SimpleNamespace(runner=other))
        assert direct_calls() is None

    def test_a_guest_of_another_loop_has_none(self) -> None:
        """It would wait in a thread."""
        todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        ended: list[outcome.Outcome[bool]] = []

        async def look() -> bool:
            return direct_calls() is None

        trio.lowlevel.start_guest_run(look, run_sync_soon_threadsafe=todo.put, done_callback=ended.append)
        while not ended:
            todo.get(timeout=PATIENCE_S)()
        assert ended[0].unwrap()

    async def test_a_call_that_removes_another_one_is_the_last(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """Both are ready in the same round, and either may be the first."""
        ours, peer = pair
        fds = {ours.fileno(), peer.fileno()}
        called: list[int] = []

        def call(fd: int) -> None:
            called.append(fd)
            for each in fds:
                calls.remove(each)

        ours.send(b"x")
        peer.send(b"x")
        for fd in fds:
            calls.add(fd, partial(call, fd))
        await trio.testing.wait_all_tasks_blocked()
        assert len(called) == 1

    async def test_what_is_left_unread_is_called_for_again(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, peer = pair
        got: list[bytes] = []
        done = trio.Event()

        def call() -> None:
            got.append(ours.recv(1))
            if len(got) == 3:
                calls.remove(ours.fileno())
                done.set()

        peer.send(b"abc")
        calls.add(ours.fileno(), call)
        with trio.fail_after(PATIENCE_S):
            await done.wait()
        assert got == [b"a", b"b", b"c"]

    async def test_a_deadline_that_a_call_brings_nearer_is_kept(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """It makes no task runnable: trio must be asked what it would wait for now."""
        ours, peer = pair
        with trio.fail_after(PATIENCE_S), trio.CancelScope(deadline=trio.current_time() + 1000) as scope:

            def call() -> None:
                calls.remove(ours.fileno())
                calls.add(ours.fileno(), partial(pytest.fail, "nothing comes any more"))
                ours.recv(1)
                scope.deadline = trio.current_time() + 0.001

            calls.add(ours.fileno(), call)
            peer.send(b"x")
            await trio.sleep_forever()
        calls.remove(ours.fileno())
        assert scope.cancelled_caught

    async def test_timers_go_on_while_calls_never_end(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, peer = pair
        count = 0

        def call() -> None:
            nonlocal count
            count += 1

        peer.send(b"x")  # nobody takes it
        calls.add(ours.fileno(), call)
        began_at = trio.current_time()
        await trio.sleep(0.02)
        assert 0.02 <= trio.current_time() - began_at < PATIENCE_S
        assert count > 10
        calls.remove(ours.fileno())

    async def test_what_a_call_starts_runs(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
    ) -> None:
        """Tasks, events, cancelled scopes, and a deadline that became earlier."""
        ours, peer = pair
        told: list[str] = []
        scope, late = trio.CancelScope(), trio.CancelScope(deadline=trio.current_time() + 1000)

        async def started() -> None:
            told.append("task")

        async def waits(scope: trio.CancelScope, what: str) -> None:
            with scope:
                await trio.sleep_forever()
            told.append(what)

        def call() -> None:
            calls.remove(ours.fileno())
            nursery.start_soon(started)
            scope.cancel()
            late.deadline = trio.current_time()

        nursery.start_soon(waits, scope, "cancelled")
        nursery.start_soon(waits, late, "deadline")
        await trio.testing.wait_all_tasks_blocked()
        calls.add(ours.fileno(), call)
        peer.send(b"x")
        with trio.fail_after(PATIENCE_S):
            while len(told) < 3:
                await trio.lowlevel.checkpoint()
        assert sorted(told) == ["cancelled", "deadline", "task"]

    async def test_a_wait_in_which_somebody_was_called_did_not_time_out(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        """trio asks: if it did, and no task can run, a test's clock may jump."""
        ours, peer = pair
        calls.add(ours.fileno(), lambda: None)
        assert not calls.get_events(0)
        peer.send(b"x")  # nobody takes it
        assert calls.get_events(0)
        calls.remove(ours.fileno())

    async def test_idle_is_still_idle(
        self,
        calls: DirectCalls,
        pair: tuple[socket.socket, socket.socket],
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        """trio's tests wait for that, and jump over sleeps then; also with sockets of ours registered."""
        calls.add(pair[0].fileno(), lambda: pytest.fail("nothing came"))
        await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.sleep(1000)
        calls.remove(pair[0].fileno())

    async def test_signals_are_heard(
        self, calls: DirectCalls, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        calls.add(pair[0].fileno(), lambda: pytest.fail("nothing came"))
        with trio.open_signal_receiver(signal.SIGUSR2) as signals, trio.fail_after(PATIENCE_S):
            os.kill(os.getpid(), signal.SIGUSR2)
            async for number in signals:
                assert number == signal.SIGUSR2
                break
        calls.remove(pair[0].fileno())

    @settings(max_examples=60)
    @given(st.lists(st.sampled_from(["send", "drain", "add", "remove", "task", "sleep"]), max_size=30))
    def test_whatever_happens_in_whatever_order_each_byte_is_called_for(self, steps: list[str]) -> None:
        async def play() -> None:
            calls = direct_calls()
            assert calls is not None
            ours, peer = socket_pair()
            other, others_peer = socket_pair()
            sent, got, is_added = 0, 0, False

            def call() -> None:
                nonlocal got
                got += len(ours.recv(2))

            with ours, peer, other, others_peer:
                for step in steps:
                    if step == "send":
                        sent += peer.send(b"abc")
                    elif step == "add" and not is_added:
                        calls.add(ours.fileno(), call)
                        is_added = True
                    elif step == "remove" and is_added:
                        calls.remove(ours.fileno())
                        is_added = False
                    elif step == "task":
                        others_peer.send(b"x")
                        await trio.lowlevel.wait_readable(other)
                        other.recv(1)
                    elif step == "sleep":
                        await trio.sleep(0.0001)
                    elif step == "drain" and is_added:
                        with trio.fail_after(PATIENCE_S):
                            while got < sent:
                                await trio.lowlevel.checkpoint()
                if is_added:
                    with trio.fail_after(PATIENCE_S):
                        while got < sent:
                            await trio.lowlevel.checkpoint()
                    calls.remove(ours.fileno())
                assert got <= sent

        trio.run(play)
