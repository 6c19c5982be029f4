"""Traced requests say where their time went, and what is not traced goes by untouched."""

from collections import Counter, deque
from collections.abc import Callable
from random import Random

import attrs
import pytest

from pyjiva.block import Flush, MemoryDevice, Read, Request, Sampler, Span, TracedDevice, Write, ZeroDetect
from pyjiva.block.trace import NO_ANSWER
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name

SIZE = 1 << 20


@attrs.define(eq=False)
class Rig:
    """A sampler with a clock that stands still, and what it was given."""

    now_ns: int = 0
    taken: list[Span] = attrs.field(factory=list)
    contexts: list[object] = attrs.field(factory=list)

    def sampler(self, share: float = 1, draw: Callable[[], float] = lambda: 0.5) -> Sampler:
        return Sampler(lambda: self.now_ns, share, draw, self.take)

    def take(self, span: Span, context: object) -> None:
        self.taken.append(span)
        self.contexts.append(context)


@attrs.define(eq=False)
class Held:
    """A device that holds what it is given."""

    size_bytes: int = SIZE
    held: deque[Request] = attrs.field(factory=deque)

    def submit(self, request: Request) -> None:
        self.held.append(request)


def names(span: Span) -> list[object]:
    return [span.name, *(names(child) for child in span.children)]


def waits(_: Request) -> str:
    return "the test"


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_as_many_commands_are_taken_as_the_share_says(share: float) -> None:
    sampler = Rig().sampler(share, Random(7).random)
    count = int(2000 / share)
    taken = sum(sampler.wants_next() for _ in range(count))
    assert abs(taken - 2000) < 200 * max(1, 1 - share)


def test_no_command_has_a_better_chance_than_another() -> None:
    """A workload that repeats itself every four commands is not always met at the same one."""
    sampler = Rig().sampler(0.25, Random(1).random)
    places = Counter(index % 4 for index in range(40_000) if sampler.wants_next())
    assert len(places) == 4 and min(places.values()) > 0.8 * max(places.values())


def test_none_and_all() -> None:
    assert not any(Rig().sampler(0).wants_next() for _ in range(1000))
    assert all(Rig().sampler(1).wants_next() for _ in range(1000))


def test_what_is_not_traced_keeps_its_own_done() -> None:
    sampler, below = Rig().sampler(), Held()

    def done(_: Read) -> None:
        pass

    request = Read(0, 512, done)
    TracedDevice(below, sampler, waits).submit(request)
    assert below.held == deque([request]) and request.done is done
    assert not sampler.requests


def test_a_request_of_a_traced_step_is_a_span_below_it() -> None:
    rig = Rig()
    sampler = rig.sampler()
    step = sampler.begin("WRITE(10)", "a context", lba=8)
    sampler.current = step
    seen: list[object] = []
    request = Write(4096, 512, [bytes(512)], lambda _: seen.append(sampler.current))
    TracedDevice(MemoryDevice(SIZE), sampler, waits).submit(request)
    assert seen == [step], "what comes next belongs to the command, not to this request"
    assert sampler.current is step and not rig.taken
    step.end(status="GOOD")
    assert rig.contexts == ["a context"]
    (span,) = rig.taken
    assert names(span) == ["WRITE(10)", ["write"]]
    assert span.attributes == {"pyjiva.lba": 8, "pyjiva.status": "GOOD"}
    assert span.children[0].attributes == {"pyjiva.offset_bytes": 4096, "pyjiva.length_bytes": 512}
    assert not sampler.requests


def test_the_time_at_a_border_is_a_wait_and_that_below_it_is_not() -> None:
    rig, held = Rig(), Held()
    sampler = rig.sampler()
    below = TracedDevice(held, sampler, lambda _: "replicas")

    @attrs.frozen
    class Limit:
        size_bytes: int = SIZE

        def submit(self, request: Request) -> None:
            waiting.append(request)

    waiting: list[Request] = []
    step = sampler.current = sampler.begin("READ(10)")
    TracedDevice(Limit(), sampler, lambda _: "limits").submit(Read(0, 512, lambda _: step.end()))
    sampler.current = None
    rig.now_ns = 100
    below.submit(waiting.pop())
    rig.now_ns = 250
    request = held.held.pop()
    carried = sampler.step_of(request)
    assert carried is not None
    carried.goes_on()
    carried.begin_part("key", "replica 1", replica=1)
    rig.now_ns = 400
    carried.end_part("key")
    carried.end_part("key")  # an answer that comes again says nothing new
    request.done(request)  # type: ignore[arg-type]
    (read,) = rig.taken[0].children
    assert [(s.name, s.attributes.get("pyjiva.waits_for"), s.begin_ns, s.end_ns) for s in read.children] == [
        ("wait", "limits", 0, 100),
        ("wait", "replicas", 100, 250),
        ("replica 1", None, 250, 400),
    ]
    assert not sampler.parts


def test_a_request_that_another_takes_the_place_of_is_followed_and_waits_once() -> None:
    rig, held = Rig(), Held()
    sampler = rig.sampler()
    step = sampler.current = sampler.begin("WRITE(10)")
    inner = TracedDevice(held, sampler, waits)
    outer = TracedDevice(ZeroDetect(inner), sampler, lambda _: "outside")
    outer.submit(Write(0, 4096, [bytes(4096)], lambda _: step.end()))
    request = held.held.pop()
    request.done(request)  # type: ignore[arg-type]
    assert names(rig.taken[0]) == ["WRITE(10)", ["write", ["write_zeroes", ["wait"]]]]


def test_an_error_is_said_and_parts_without_an_answer_are_closed() -> None:
    rig, held = Rig(), Held()
    sampler = rig.sampler()
    step = sampler.current = sampler.begin("SYNCHRONIZE CACHE(10)")
    TracedDevice(held, sampler, waits).submit(Flush(lambda _: step.end("CHECK CONDITION")))
    request = held.held.pop()
    carried = sampler.step_of(request)
    assert carried is not None
    carried.begin_part("key", "replica 2")
    request.error = StorageError(StorageFailure.NOT_READY, "parked for too long")
    request.done(request)  # type: ignore[arg-type]
    (flush,) = rig.taken[0].children
    assert rig.taken[0].error == "CHECK CONDITION"
    assert flush.error == "not-ready: parked for too long"
    assert [(part.name, part.error) for part in flush.children if part.name != "wait"] == [
        ("replica 2", NO_ANSWER)
    ]
    assert not sampler.parts and not sampler.requests


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case) -> None:
    """With everything traced, over a device that is traced itself."""
    rig = Rig()
    sampler = rig.sampler()
    batch = EndOfBatch()
    below = TracedDevice(ZeroDetect(MemoryDevice(SIZE_BYTES)), sampler, waits)
    sampler.current = sampler.begin("all of it")
    await case(Driver(TracedDevice(below, sampler, waits), batch))
    assert not sampler.requests and not sampler.parts
