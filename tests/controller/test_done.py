"""Many requests that a replica answers by one frame are settled as if it had answered each."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import BlockStatus, Flush, Read, Unmap, Write, WriteZeroes
from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import ANSWER, DONE_TYPES, Frame, FrameType, Status, encode_done
from tests.controller.members import Bench, answer

WRITE = FrameType.WRITE
SMALL = 512


def done(*ids: int, type_: int = FrameType.DONE) -> Frame:
    """What a replica says of `ids`."""
    return Frame(type_, Status.OK, 0, 1, 0, 0, 0, memoryview(encode_done(ids)))


def submit(bench: Bench, number: int, place: int) -> Any:
    """A request that is answered without data."""
    make: list[Any] = [
        Write(place * SMALL, SMALL, (bytes([number]) * SMALL,), bench.done),
        Unmap(place * SMALL, SMALL, bench.done),
        WriteZeroes(place * SMALL, SMALL, bench.done),
        Flush(bench.done),
    ]
    return bench.submit(make[number % 4])


def test_requests_are_answered_when_nobody_is_missing() -> None:
    bench = Bench(2)
    requests = [submit(bench, number, number) for number in range(8)]
    ids = [frame.request_id for frame in bench.members[1].inbox]
    bench.data.answered(1, done(*ids))
    assert bench.answered == []
    bench.data.answered(2, done(*ids[:3]))
    assert bench.answered == requests[:3]
    bench.data.answered(2, done(*ids[3:]))
    assert bench.answered == requests
    assert [request.error for request in requests] == [None] * 8
    assert not bench.data.busy
    assert [member.in_flight for member in bench.data.members.values()] == [0, 0]
    assert bench.data.stable() == ids[-1]


@given(st.integers(0, 2**32 - 1))
def test_it_makes_no_difference_how_they_are_answered(seed: int) -> None:
    """Two volumes in the same life: one gets frames for many, the other an answer for each."""
    together, apart = Bench(3, min_copies=2), Bench(3, min_copies=2)
    random = Random(seed)
    for step in range(30):
        match random.randrange(5):
            case 0 | 1 | 2:
                place = random.randrange(6)
                for bench in (together, apart):
                    submit(bench, step, place)
            case 3:
                refuse(random.choice([1, 2, 3]), together, apart)
            case _:
                say(random, together, apart)
        assert state(together) == state(apart)


def refuse(id_: int, *benches: Bench) -> None:
    """`id_` cannot do the oldest of what it was asked."""
    for bench in benches:
        if bench.members[id_].inbox:
            bench.reply(id_, status=Status.WRITE_ERROR)


def say(random: Random, together: Bench, apart: Bench) -> None:
    """One member has done some of what it was asked."""
    id_ = random.choice([1, 2, 3])
    inbox = together.members[id_].inbox
    some = random.sample(inbox, random.randint(0, len(inbox)))
    if not some:
        return
    together.data.answered(id_, done(*(frame.request_id for frame in some)))
    for frame in some:
        apart.data.answered(id_, answer(frame))
    said = {frame.request_id for frame in some}
    for bench in (together, apart):
        member = bench.members[id_]
        member.inbox = [frame for frame in member.inbox if frame.request_id not in said]


def state(bench: Bench) -> list[Any]:
    """All that a difference could be seen by."""
    members = bench.data.members.items()
    return [
        [(type(each), getattr(each, "offset_bytes", 0), str(each.error)) for each in bench.answered],
        [(m.in_flight, {t: times.count for t, times in m.answers.items()}) for _, m in members],
        [[frame.request_id for frame in bench.members[id_].inbox] for id_, _ in members],
        (bench.lost, bench.diverged, bench.data.stable(), bench.data.waiting_for_others, bench.data.parked),
    ]


@pytest.mark.parametrize(
    "what", ["unknown", "twice", "foreign", "read", "status", "ping", "garbage", "answer"]
)
def test_what_was_not_asked_is_a_protocol_error(what: str) -> None:
    bench = Bench()
    bench.submit(Write(0, SMALL, (bytes(SMALL),), bench.done))
    id_ = bench.frame(1).request_id
    match what:
        case "unknown":
            said = done(999)
        case "twice":
            said = done(id_, id_)
        case "foreign":
            bench.data.call(2, WRITE, lambda _: None, length_bytes=SMALL, payload=(bytes(SMALL),))
            said = done(bench.members[2].inbox[-1].request_id)
        case "read":
            bench.submit(Read(8192, SMALL, bench.done))
            said = done(bench.frame(1, FrameType.READ).request_id)
        case "status":
            bench.submit(BlockStatus(8192, SMALL, bench.done))
            said = done(bench.frame(1, FrameType.BLOCK_STATUS).request_id)
        case "ping":
            bench.data.call(1, FrameType.PING, lambda _: pytest.fail("it was not answered"))
            said = done(bench.frame(1, FrameType.PING).request_id)
        case "garbage":
            said = Frame(FrameType.DONE, Status.OK, id_, 1, 0, 0, 0, memoryview(b"short"))
        case _:
            said = done(id_, type_=FrameType.DONE | ANSWER)
            said.request_id = id_
    with pytest.raises(RemoteProtocolError):
        bench.data.answered(1, said)
    assert bench.answered == []


@pytest.mark.parametrize("type_", sorted(DONE_TYPES))
def test_an_internal_call_hears_of_it_as_of_its_own_answer(type_: FrameType) -> None:
    bench = Bench()
    heard: list[Frame | None] = []
    bench.data.call(1, type_, heard.append, length_bytes=SMALL)
    id_ = bench.frame(1).request_id
    bench.data.answered(1, done(id_))
    (frame,) = heard
    assert frame is not None
    assert (frame.type, frame.code, frame.request_id, bytes(frame.payload)) == (type_ | ANSWER, 0, id_, b"")
    with pytest.raises(RemoteProtocolError, match="not open"):
        bench.data.answered(1, done(id_))


def test_what_follows_the_end_of_a_connection_is_no_answer() -> None:
    """The first of them makes it known that the connection has to end: the others get a replay."""
    bench = Bench(2)
    bench.data.call(2, WRITE, lambda _: bench.down(2), length_bytes=SMALL)
    first = bench.members[2].inbox[-1].request_id
    write = bench.submit(Write(0, SMALL, (bytes(SMALL),), bench.done))
    bench.reply(1)
    second = bench.frame(2, WRITE).request_id + 1
    bench.data.answered(2, done(first, second))
    assert bench.answered == []
    bench.up(2)
    bench.data.replay(2)
    bench.reply(2)
    assert bench.answered == [write]
    assert not bench.data.busy
