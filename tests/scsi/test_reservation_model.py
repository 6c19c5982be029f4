"""Long histories of persistent reservations, against a model that is a list of ports changed in place."""

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyjiva.scsi.reservation import (
    Clear,
    Event,
    Preempt,
    Register,
    RegisterAndMove,
    Release,
    Reservations,
    ReservationType,
    Reserve,
    decide,
)
from tests.scsi.test_reservation import CONFLICT, GOOD, ILLEGAL, INVALID_RELEASE, answer_of


@attrs.define
class Entry:
    port: str
    key: int
    holder: bool = False


@attrs.define
class Model:
    """What the standard says, as a loop over entries each time."""

    entries: list[Entry] = attrs.field(factory=list)
    type: int = 0

    def find(self, port: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.port == port), None)

    def end(self) -> None:
        self.type = 0
        for entry in self.entries:
            entry.holder = False

    def begin(self, port: str, kind: int) -> None:
        self.end()
        self.type = kind
        for entry in self.entries:
            entry.holder = entry.port == port

    def remove(self, port: str) -> None:
        entry = self.find(port)
        assert entry is not None
        self.entries.remove(entry)
        if (self.type in (7, 8) and not self.entries) or (self.type not in (7, 8) and entry.holder):
            self.end()

    def is_holder(self, port: str) -> bool:
        entry = self.find(port)
        return entry is not None and bool(self.type) and (self.type in (7, 8) or entry.holder)

    def preempt(self, port: str, victim: int, kind: int) -> str:
        holder_keys = {entry.key for entry in self.entries if entry.holder and self.type not in (7, 8)}
        matching = [entry.port for entry in self.entries if entry.key == victim]
        if self.type in (7, 8) and victim == 0:
            for entry in list(self.entries):
                if entry.port != port:
                    self.entries.remove(entry)
            self.begin(port, kind)
        elif self.type and not victim:
            return ILLEGAL
        elif victim in holder_keys:
            for other in matching:
                if other != port:
                    self.remove(other)
            self.begin(port, kind)
        elif not matching:
            return CONFLICT
        else:
            for other in matching:
                self.remove(other)
        return GOOD


PORTS = st.sampled_from(["a", "b", "c", "d"])
SMALL_KEYS = st.integers(0, 3)
TYPES = st.sampled_from([int(kind) for kind in ReservationType])


class ReservationHistory(RuleBasedStateMachine):
    """Four ports, three keys, any order of service actions."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Reservations()
        self.model = Model()

    def play(self, event: Event, expected: str) -> None:
        outcome = decide(self.state, event)
        assert answer_of(outcome) == expected
        lost = set(self.state.registrations) - set(outcome.state.registrations)
        told = {port for port, _ in outcome.attentions}
        assert event.port not in told
        assert lost - {event.port} <= told, "nobody loses a registration without being told"
        self.state = outcome.state

    def own_key(self, port: str) -> int:
        return self.state.registrations.get(port, 3)

    @rule(port=PORTS, key=SMALL_KEYS, new_key=SMALL_KEYS, ignore=st.booleans())
    def register(self, port: str, key: int, new_key: int, ignore: bool) -> None:
        event = Register(port, key, new_key, ignore_existing_key=ignore)
        entry = self.model.find(port)
        if not ignore and key != (entry.key if entry else 0):
            self.play(event, CONFLICT)
            return
        if entry and new_key:
            entry.key = new_key
        elif entry:
            self.model.remove(port)
        elif new_key:
            self.model.entries.append(Entry(port, new_key))
        self.play(event, GOOD)

    @rule(port=PORTS, kind=TYPES)
    def reserve(self, port: str, kind: int) -> None:
        expected = CONFLICT
        if self.model.find(port) and not self.model.type:
            self.model.begin(port, kind)
            expected = GOOD
        elif self.model.is_holder(port) and self.model.type == kind:
            expected = GOOD
        self.play(Reserve(port, self.own_key(port), kind), expected)

    @rule(port=PORTS, kind=TYPES)
    def release(self, port: str, kind: int) -> None:
        expected = GOOD
        if not self.model.find(port):
            expected = CONFLICT
        elif self.model.is_holder(port):
            if self.model.type == kind:
                self.model.end()
            else:
                expected = INVALID_RELEASE
        self.play(Release(port, self.own_key(port), kind), expected)

    @rule(port=PORTS)
    def clear(self, port: str) -> None:
        expected = CONFLICT
        if self.model.find(port):
            self.model = Model()
            expected = GOOD
        self.play(Clear(port, self.own_key(port)), expected)

    @rule(port=PORTS, victim=SMALL_KEYS, kind=TYPES, abort=st.booleans())
    def preempt(self, port: str, victim: int, kind: int, abort: bool) -> None:
        event = Preempt(port, self.own_key(port), victim, kind, abort=abort)
        expected = self.model.preempt(port, victim, kind) if self.model.find(port) else CONFLICT
        self.play(event, expected)

    @rule(port=PORTS, to=PORTS, new_key=SMALL_KEYS, unregister=st.booleans())
    def move(self, port: str, to: str, new_key: int, unregister: bool) -> None:
        event = RegisterAndMove(port, self.own_key(port), new_key, to, unregister=unregister)
        model = self.model
        if not model.find(port):
            expected = CONFLICT
        elif not model.type:
            expected = ILLEGAL
        elif model.type in (7, 8) or not model.is_holder(port):
            expected = CONFLICT
        elif not new_key or to == port:
            expected = ILLEGAL
        else:
            expected = GOOD
            if not model.find(to):
                model.entries.append(Entry(to, 0))
            entry = model.find(to)
            assert entry is not None
            entry.key = new_key
            model.begin(to, model.type)
            if unregister:
                model.remove(port)
        self.play(event, expected)

    @invariant()
    def same(self) -> None:
        """The state says what the model says."""
        self.state.self_check()
        assert list(self.state.registrations.items()) == [(e.port, e.key) for e in self.model.entries]
        reservation = self.state.reservation
        assert (reservation.type if reservation else 0) == self.model.type
        for port in ("a", "b", "c", "d"):
            assert self.state.holds(port) == self.model.is_holder(port)


TestReservationHistory = ReservationHistory.TestCase
