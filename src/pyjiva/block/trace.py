"""What a few of the commands spend their time on: spans, and a wrapper of devices that takes part.  Pure.

Theory.  Who begins something that is to be traced makes a `Step`; what is asked of devices while that step is
the `current` one becomes a step below it, and the request carries it down in the place of its `done`.  So no
code between says anything about traces, and where nothing is traced none of this is in the way: the wrappers
stand there only when an operator asked for traces.  A wrapper at each border sees whether a request went past
it at once; where it did not, the time until it does is a span of its own, a wait.

A span is handed to `take` with all below it when its root has ended, and nothing is made of it here: what
sends spans away (`cli.tracing`) knows of no request.
"""

import math
from collections.abc import Callable, Hashable
from typing import Any, Final

import attrs

from pyjiva.block.device import BlockDevice, Flush, Request
from pyjiva.block.meter import OPERATIONS
from pyjiva.errors import StorageError

__all__ = ["Attribute", "Sampler", "Span", "Step", "TracedDevice"]

Attribute = str | int | float | bool

NO_ANSWER: Final = "no answer was waited for any more"
_NEVER: Final = 1 << 62  # commands until the next one is taken


@attrs.define(eq=False)
class Span:
    """Something that took time; times by the sampler's clock."""

    name: str
    begin_ns: int
    attributes: dict[str, Attribute] = attrs.field(factory=dict)
    end_ns: int | None = None
    error: str = ""
    """Why it failed; empty: it did not."""
    children: "list[Span]" = attrs.field(factory=list)


@attrs.define(eq=False)
class Step:
    """A span that is not over, and who is told when it is."""

    sampler: "Sampler"
    span: Span
    parent: "Step | None"
    context: object = None
    """Of the root: what it belongs to elsewhere, see Sampler.take."""
    then: Callable[[Any], None] | None = None
    """The request's own `done`."""
    went: int = 0
    """How many borders it has gone past."""
    wait: Span | None = None
    """It has stopped at one."""
    parts: dict[Hashable, None] = attrs.field(factory=dict)
    """Keys of its open parts in `Sampler.parts`."""

    def __call__(self, request: Any) -> None:
        """The request is done: takes the place of its `done`."""
        error: StorageError | None = request.error
        assert self.then is not None
        request.done = then = self.then
        self.end("" if error is None else f"{error.failure.value}: {error.detail}")
        sampler = self.sampler
        before, sampler.current = sampler.current, self.parent
        try:
            then(request)  # which may ask for what comes next
        finally:
            sampler.current = before

    def carry(self, request: Any) -> None:
        """Let `request` carry this step, which ends with it."""
        self.then = request.done
        request.done = self
        self.sampler.requests += 1

    def goes_on(self) -> None:
        """It has gone past a border, wherever it and those above it waited until now."""
        self.went += 1
        if self.wait is not None:
            self.wait.end_ns = self.sampler.clock_ns()
            self.wait = None
        if self.parent is not None:
            self.parent.goes_on()

    def stops(self, waits_for: str, since_ns: int) -> None:
        """It has not gone past a border that it was led to.  If it waits already, that is one wait."""
        if self.wait is not None:
            return
        self.wait = Span("wait", since_ns, {"pyjiva.waits_for": waits_for})
        self.span.children.append(self.wait)

    def begin_part(self, key: Hashable, name: str, **attributes: Attribute) -> None:
        """Something of it is asked of another one; `key` until the answer."""
        self.end_part(key, "sent again")
        part = Span(name, self.sampler.clock_ns(), {f"pyjiva.{k}": v for k, v in attributes.items()})
        self.span.children.append(part)
        self.parts[key] = None
        self.sampler.parts[key] = self, part

    def end_part(self, key: Hashable, error: str = "") -> None:
        """The answer to it is there, or cannot come any more."""
        if self.parts.pop(key, 0) is None:
            _, part = self.sampler.parts.pop(key)
            part.end_ns, part.error = self.sampler.clock_ns(), error

    def end(self, error: str = "", **attributes: Attribute) -> None:
        """It is over; the root takes all that is below it along."""
        self.goes_on()
        for key in list(self.parts):
            self.end_part(key, NO_ANSWER)
        span, sampler = self.span, self.sampler
        span.attributes.update({f"pyjiva.{k}": v for k, v in attributes.items()})
        span.end_ns, span.error = sampler.clock_ns(), error
        if self.then is not None:
            sampler.requests -= 1
        if self.parent is None:
            sampler.take(span, self.context)


@attrs.define(eq=False)
class Sampler:
    """Chooses what is traced, and knows what is under way."""

    clock_ns: Callable[[], int]
    """Steady."""
    share: float
    """Of the commands of hosts, 0 to 1."""
    draw: Callable[[], float]
    """A number drawn from 0 (included) to 1 (not)."""
    take: Callable[[Span, object], None]
    """Called with each root span that has ended, and its context.  Must not wait."""
    current: Step | None = attrs.field(default=None, init=False)
    """What is being carried out at this moment, if it is traced."""
    requests: int = attrs.field(default=0, init=False)
    """How many requests carry a step: while there are none, nobody need look for one."""
    parts: dict[Hashable, tuple[Step, Span]] = attrs.field(factory=dict, init=False)
    _left: int = attrs.field(init=False)
    """Commands until the next one is taken: drawn at once, so that the others cost one subtraction."""

    def __attrs_post_init__(self) -> None:
        self._left = self._gap()

    def _gap(self) -> int:
        """How many commands from one that is taken to the next: geometric, as if each had been drawn for."""
        if self.share <= 0:
            return _NEVER
        if self.share >= 1:
            return 1
        return min(_NEVER, 1 + int(math.log(1 - self.draw()) / math.log(1 - self.share)))

    def wants_next(self) -> bool:
        """Whether the command that has come is one of those."""
        self._left -= 1
        if self._left:
            return False
        self._left = self._gap()
        return True

    def begin(self, name: str, context: object = None, **attributes: Attribute) -> Step:
        """A root."""
        span = Span(name, self.clock_ns(), {f"pyjiva.{k}": v for k, v in attributes.items()})
        return Step(self, span, None, context)

    def step_of(self, request: Any) -> Step | None:
        """The step that a request carries."""
        done = getattr(request, "done", None)
        return done if type(done) is Step else None

    def follow(self, request: Any, name: str, parent: Step, **attributes: Attribute) -> Step:
        """Let `request` carry a step below `parent`."""
        span = Span(name, self.clock_ns(), {f"pyjiva.{k}": v for k, v in attributes.items()})
        parent.span.children.append(span)
        step = Step(self, span, parent)
        step.carry(request)
        return step


@attrs.frozen(eq=False)
class TracedDevice:
    """The block device `device`, as a border that requests of traced commands go past or wait at."""

    device: BlockDevice
    sampler: Sampler
    waits_for: Callable[[Request], str]
    """What a request waits for that `device` was given and has not passed on."""

    @property
    def size_bytes(self) -> int:
        """Of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        sampler = self.sampler
        step = sampler.step_of(request)
        if step is None:
            if (parent := sampler.current) is None:
                self.device.submit(request)
                return
            step = sampler.follow(request, OPERATIONS[type(request)], parent, **_place(request))
        step.goes_on()
        went, since_ns = step.went, sampler.clock_ns()
        before, sampler.current = sampler.current, step
        try:
            self.device.submit(request)
        finally:
            sampler.current = before
        if step.went == went:
            step.stops(self.waits_for(request), since_ns)


def _place(request: Request) -> dict[str, Attribute]:
    if isinstance(request, Flush):
        return {}
    return {"offset_bytes": request.offset_bytes, "length_bytes": request.length_bytes}
