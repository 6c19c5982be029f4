"""The receive buffer against plain bytes; views that were taken never change."""

from random import Random
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyjiva.transport import ReceiveBuffer
from pyjiva.transport.receive_buffer import RECEIVE_BYTES_MAX, RECEIVE_BYTES_MIN

COUNTS = st.one_of(
    st.integers(0, 200), st.integers(0, RECEIVE_BYTES_MIN), st.integers(0, RECEIVE_BYTES_MAX // 4)
)


_BYTES: Final = Random(0).randbytes(4 * RECEIVE_BYTES_MAX + 1)


def pattern(start: int, count: int) -> bytes:
    """Bytes that tell where in the stream they belong."""
    start %= len(_BYTES) - count
    return _BYTES[start : start + count]


class Buffers(RuleBasedStateMachine):
    """What comes out is what went in."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReceiveBuffer()
        self.waiting = b""
        self.total = 0
        self.taken: list[tuple[memoryview, bytes]] = []

    @rule(wanted=COUNTS, count=COUNTS)
    def receive(self, wanted: int, count: int) -> None:
        """As a shell does: the kernel may scribble over all of the tail that it is offered."""
        tail = self.buffer.tail(wanted)
        assert len(tail) >= max(RECEIVE_BYTES_MIN, wanted - len(self.waiting))
        data = pattern(self.total, min(count, len(tail)))
        tail[:] = data.ljust(len(tail), b"\xee")
        self.buffer.received(len(data))
        self.waiting += data
        self.total += len(data)

    @rule(count=COUNTS)
    def receive_data(self, count: int) -> None:
        data = pattern(self.total, count)
        self.buffer.receive_data(data)
        self.waiting += data
        self.total += count

    @rule(count=COUNTS)
    def take(self, count: int) -> None:
        count = min(count, len(self.waiting))
        view = self.buffer.take(count)
        assert view == self.waiting[:count]
        self.taken.append((view, self.waiting[:count]))
        self.waiting = self.waiting[count:]

    @rule(count=COUNTS)
    def skip(self, count: int) -> None:
        count = min(count, len(self.waiting))
        self.buffer.skip(count)
        self.waiting = self.waiting[count:]

    @rule(count=COUNTS)
    def peek(self, count: int) -> None:
        view = self.buffer.peek(count)
        if count > len(self.waiting):
            assert view is None
        else:
            assert view is not None
            assert bytes(view) == self.waiting[:count]
        assert self.buffer.copy_of(count) == (None if view is None else self.waiting[:count])

    @rule()
    def forget_a_view(self) -> None:
        del self.taken[:1]

    @invariant()
    def the_views_that_are_held_have_not_changed(self) -> None:
        assert len(self.buffer) == len(self.waiting)
        for view, content in self.taken:
            assert view == content


TestBuffers = Buffers.TestCase
TestBuffers.settings = settings(max_examples=60, deadline=None)


def test_empty_input_changes_nothing() -> None:
    buffer = ReceiveBuffer()
    buffer.receive_data(b"")
    buffer.tail()
    buffer.received(0)
    assert len(buffer) == 0
    assert buffer.peek(1) is None
    assert bytes(buffer.take(0)) == b""


def test_a_stream_of_headers_keeps_one_small_buffer() -> None:
    buffer = ReceiveBuffer()
    first = buffer.tail().obj
    for _ in range(100):
        tail = buffer.tail()
        assert tail.obj is first
        tail[:48] = bytes(48)
        buffer.received(48)
        buffer.skip(48)


def test_a_message_larger_than_any_buffer_gets_room() -> None:
    buffer = ReceiveBuffer()
    whole = pattern(0, 3 * RECEIVE_BYTES_MAX)
    position = 0
    while position < len(whole):
        tail = buffer.tail(len(whole))
        count = min(len(tail), len(whole) - position)
        tail[:count] = whole[position : position + count]
        buffer.received(count)
        position += count
    assert buffer.take(len(whole)) == whole
