"""The rules of persistent reservations: every state with every event."""

from collections.abc import Callable

import attrs
import pytest

from pyjiva.scsi.codes import AdditionalSense as Asc
from pyjiva.scsi.reservation import (
    ALL_REGISTRANTS,
    REGISTRANTS_ONLY,
    REGISTRATIONS_MAX,
    REGISTRATIONS_PREEMPTED,
    RESERVATIONS_PREEMPTED,
    RESERVATIONS_RELEASED,
    Clear,
    Conflict,
    Event,
    Outcome,
    Preempt,
    Register,
    RegisterAndMove,
    Release,
    Reservation,
    Reservations,
    ReservationType,
    Reserve,
    decide,
)

WE, EA = ReservationType.WRITE_EXCLUSIVE, ReservationType.EXCLUSIVE_ACCESS
WE_RO = ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
EA_RO = ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
WE_AR = ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS
EA_AR = ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
HOLDER, REGISTRANT, OTHER, THIRD = "holder", "registrant", "other", "third"
KEYS = {HOLDER: 1, REGISTRANT: 2, THIRD: 2}  # two with one key


def state_of(kind: ReservationType | None, generation: int = 7) -> Reservations:
    """Three registered ports; `HOLDER` has made the reservation."""
    reservation = None
    if kind is not None:
        reservation = Reservation(kind, "" if kind in ALL_REGISTRANTS else HOLDER)
    state = Reservations(dict(KEYS), reservation, generation=generation)
    state.self_check()
    return state


# Who may do what (SPC-4 table 65, SBC-3 table 13)

ALLOWED = {
    #                      WRITES             READS
    (WE, HOLDER):         (True,              True),
    (WE, REGISTRANT):     (False,             True),
    (WE, OTHER):          (False,             True),
    (EA, HOLDER):         (True,              True),
    (EA, REGISTRANT):     (False,             False),
    (EA, OTHER):          (False,             False),
    (WE_RO, HOLDER):      (True,              True),
    (WE_RO, REGISTRANT):  (True,              True),
    (WE_RO, OTHER):       (False,             True),
    (EA_RO, HOLDER):      (True,              True),
    (EA_RO, REGISTRANT):  (True,              True),
    (EA_RO, OTHER):       (False,             False),
    (WE_AR, HOLDER):      (True,              True),
    (WE_AR, REGISTRANT):  (True,              True),
    (WE_AR, OTHER):       (False,             True),
    (EA_AR, HOLDER):      (True,              True),
    (EA_AR, REGISTRANT):  (True,              True),
    (EA_AR, OTHER):       (False,             False),
}  # fmt: skip


@pytest.mark.parametrize("role", [HOLDER, REGISTRANT, OTHER])
@pytest.mark.parametrize("kind", ReservationType)
def test_commands_that_conflict(kind: ReservationType, role: str) -> None:
    state = state_of(kind)
    writes, reads = ALLOWED[kind, role]
    assert state.conflicts(role, Conflict.WRITES) == (not writes)
    assert state.conflicts(role, Conflict.READS) == (not reads)
    assert not state.conflicts(role, Conflict.NEVER)
    assert not state.conflicts(role, Conflict.RESERVED)


@pytest.mark.parametrize("conflict", Conflict)
def test_nothing_conflicts_without_a_reservation(conflict: Conflict) -> None:
    assert not state_of(None).conflicts(OTHER, conflict)


# Every state with every event: what is answered, and what is left

GOOD, CONFLICT, ILLEGAL, RESOURCES, INVALID_RELEASE = "good", "conflict", "illegal", "resources", "release"
SENSES = {
    Asc.INVALID_FIELD_IN_PARAMETER_LIST: ILLEGAL,
    Asc.INVALID_FIELD_IN_CDB: ILLEGAL,
    Asc.INSUFFICIENT_REGISTRATION_RESOURCES: RESOURCES,
    Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION: INVALID_RELEASE,
}


def answer_of(outcome: Outcome) -> str:
    if outcome.conflict:
        return CONFLICT
    return GOOD if outcome.sense is None else SENSES[outcome.sense.additional]


EVENTS: dict[str, Callable[[str, int, ReservationType], Event]] = {
    "register": lambda port, key, kind: Register(port, key, 9),
    "unregister": lambda port, key, kind: Register(port, key, 0),
    "register others": lambda port, key, kind: Register(port, key, 9, others=("new",)),
    "register and ignore": lambda port, key, kind: Register(port, 77, 9, ignore_existing_key=True),
    "unregister and ignore": lambda port, key, kind: Register(port, 77, 0, ignore_existing_key=True),
    "reserve the same": lambda port, key, kind: Reserve(port, key, kind),
    "reserve another": lambda port, key, kind: Reserve(port, key, WE if kind != WE else EA),
    "reserve nonsense": lambda port, key, kind: Reserve(port, key, 4),
    "release": lambda port, key, kind: Release(port, key, kind),
    "release another": lambda port, key, kind: Release(port, key, 2),
    "clear": lambda port, key, kind: Clear(port, key),
    "preempt the holder": lambda port, key, kind: Preempt(port, key, KEYS[HOLDER], EA_RO),
    "preempt registrants": lambda port, key, kind: Preempt(port, key, KEYS[REGISTRANT], EA_RO),
    "preempt zero": lambda port, key, kind: Preempt(port, key, 0, EA_RO),
    "preempt nobody": lambda port, key, kind: Preempt(port, key, 55, EA_RO),
    "move": lambda port, key, kind: RegisterAndMove(port, key, 9, "new"),
    "move to self": lambda port, key, kind: RegisterAndMove(port, key, 9, port),
    "move without key": lambda port, key, kind: RegisterAndMove(port, key, 0, "new"),
}
#: event → answers: without reservation to a registered port; with a reservation that one port holds to the
#: holder, to a registered port; with one that all registered ports hold to those; then who holds what.
ANSWERS = {
    #                        none       holder           registrant  all registrants
    "register":             (GOOD,      GOOD,            GOOD,       GOOD),
    "unregister":           (GOOD,      GOOD,            GOOD,       GOOD),
    "register others":      (ILLEGAL,   ILLEGAL,         ILLEGAL,    ILLEGAL),
    "register and ignore":  (GOOD,      GOOD,            GOOD,       GOOD),
    "unregister and ignore": (GOOD,     GOOD,            GOOD,       GOOD),
    "reserve the same":     (GOOD,      GOOD,            CONFLICT,   GOOD),
    "reserve another":      (GOOD,      CONFLICT,        CONFLICT,   CONFLICT),
    "reserve nonsense":     (ILLEGAL,   ILLEGAL,         ILLEGAL,    ILLEGAL),
    "release":              (GOOD,      GOOD,            GOOD,       GOOD),
    "release another":      (GOOD,      INVALID_RELEASE, GOOD,       INVALID_RELEASE),
    "clear":                (GOOD,      GOOD,            GOOD,       GOOD),
    "preempt the holder":   (GOOD,      GOOD,            GOOD,       GOOD),
    "preempt registrants":  (GOOD,      GOOD,            GOOD,       GOOD),
    "preempt zero":         (CONFLICT,  ILLEGAL,         ILLEGAL,    GOOD),
    "preempt nobody":       (CONFLICT,  CONFLICT,        CONFLICT,   CONFLICT),
    "move":                 (ILLEGAL,   GOOD,            CONFLICT,   CONFLICT),
    "move to self":         (ILLEGAL,   ILLEGAL,         CONFLICT,   CONFLICT),
    "move without key":     (ILLEGAL,   ILLEGAL,         CONFLICT,   CONFLICT),
}  # fmt: skip
WITHOUT_REGISTRATION = {
    "register": GOOD, "unregister": GOOD, "register others": GOOD, "register and ignore": GOOD,
    "unregister and ignore": GOOD,
}  # fmt: skip
STATES = [None, *ReservationType]


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("role", [HOLDER, REGISTRANT])
@pytest.mark.parametrize("kind", STATES)
def test_answer_to_a_registered_port(kind: ReservationType | None, role: str, name: str) -> None:
    state = state_of(kind)
    outcome = decide(state, EVENTS[name](role, KEYS[role], kind or WE))
    none, holder, registrant, everybody = ANSWERS[name]
    if kind is None:
        expected = none
    elif kind in ALL_REGISTRANTS:
        expected = everybody
    else:
        expected = holder if role == HOLDER else registrant
    assert answer_of(outcome) == expected
    outcome.state.self_check()
    if expected != GOOD:
        assert outcome == Outcome(state, outcome.conflict, outcome.sense), "nothing happens"
    counted = not isinstance(EVENTS[name](role, 0, WE), Reserve | Release)
    assert outcome.state.generation == 7 + (counted and expected == GOOD)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("kind", STATES)
def test_wrong_key_conflicts_unless_it_is_ignored(kind: ReservationType | None, name: str) -> None:
    state = state_of(kind)
    for key in (0, 3):
        outcome = decide(state, EVENTS[name](HOLDER, key, kind or WE))
        assert answer_of(outcome) == (GOOD if "ignore" in name else CONFLICT)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("kind", STATES)
def test_port_that_is_not_registered_may_only_register(kind: ReservationType | None, name: str) -> None:
    state = state_of(kind)
    outcome = decide(state, EVENTS[name](OTHER, 0, kind or WE))
    assert answer_of(outcome) == WITHOUT_REGISTRATION.get(name, CONFLICT)
    assert outcome.state.reservation == state.reservation
    if name.startswith("unregister"):
        assert outcome.state is state, "there is nothing to do"
    with_key = decide(state, EVENTS[name](OTHER, 5, kind or WE))
    assert answer_of(with_key) == (GOOD if "ignore" in name else CONFLICT)


# What each does


@pytest.mark.parametrize("kind", ReservationType)
@pytest.mark.parametrize("ignore", [False, True])
def test_another_key_leaves_the_reservation_with_its_holder(kind: ReservationType, ignore: bool) -> None:
    outcome = decide(state_of(kind), Register(HOLDER, 1, 9, persistent=True, ignore_existing_key=ignore))
    assert outcome.state.registrations == KEYS | {HOLDER: 9}
    assert list(outcome.state.registrations) == list(KEYS), "in its old place"
    assert outcome.state.reservation == state_of(kind).reservation
    assert outcome.state.persistent
    assert (outcome.attentions, outcome.aborted) == ((), ())


def test_registration_of_others_is_all_or_nothing() -> None:
    empty = Reservations()
    outcome = decide(empty, Register(OTHER, 0, 9, others=("x", "y")))
    assert outcome.state.registrations == {OTHER: 9, "x": 9, "y": 9}
    assert outcome.state.generation == 1
    refused = decide(outcome.state, Register(HOLDER, 0, 9, others=("z", "x")))
    assert answer_of(refused) == ILLEGAL
    assert refused.state is outcome.state


@pytest.mark.parametrize("others", [None, ("b", "c")])
def test_registrations_have_a_limit(others: tuple[str, ...] | None) -> None:
    full = Reservations({str(number): 1 for number in range(REGISTRATIONS_MAX - (2 if others else 0))})
    assert answer_of(decide(full, Register("a", 0, 9, others=others))) == RESOURCES
    assert answer_of(decide(full, Register("0", 1, 9))) == GOOD
    held = attrs.evolve(full, reservation=Reservation(WE, "0"))
    assert answer_of(decide(held, RegisterAndMove("0", 1, 9, "a", unregister=True))) == GOOD
    if others is None:
        assert answer_of(decide(held, RegisterAndMove("0", 1, 9, "a"))) == RESOURCES


@pytest.mark.parametrize("kind", ReservationType)
def test_holder_that_unregisters_releases_what_it_alone_holds(kind: ReservationType) -> None:
    outcome = decide(state_of(kind), Register(HOLDER, 1, 0))
    assert HOLDER not in outcome.state.registrations
    assert (outcome.state.reservation is not None) == (kind in ALL_REGISTRANTS)
    told = {REGISTRANT, THIRD} if kind in REGISTRANTS_ONLY else set()
    assert set(outcome.attentions) == {(port, RESERVATIONS_RELEASED) for port in told}


@pytest.mark.parametrize("kind", ReservationType)
def test_registrant_that_unregisters_leaves_the_reservation(kind: ReservationType) -> None:
    outcome = decide(state_of(kind), Register(REGISTRANT, 2, 0))
    assert outcome.state.reservation == state_of(kind).reservation
    assert outcome.attentions == ()


@pytest.mark.parametrize("kind", ALL_REGISTRANTS)
def test_reservation_of_all_ends_with_the_last_registration(kind: ReservationType) -> None:
    state = Reservations({HOLDER: 1}, Reservation(kind, ""))
    assert decide(state, Register(HOLDER, 1, 0)).state.reservation is None
    assert decide(state, Preempt(HOLDER, 1, 1, WE)).state == Reservations(generation=1)


@pytest.mark.parametrize("kind", ReservationType)
def test_release_tells_those_who_shared_it(kind: ReservationType) -> None:
    outcome = decide(state_of(kind), Release(HOLDER, 1, kind))
    assert outcome.state == attrs.evolve(state_of(kind), reservation=None)
    shared = kind in REGISTRANTS_ONLY or kind in ALL_REGISTRANTS
    told = {REGISTRANT, THIRD} if shared else set()
    assert set(outcome.attentions) == {(port, RESERVATIONS_RELEASED) for port in told}


@pytest.mark.parametrize("kind", [WE, EA, WE_RO, EA_RO])
def test_release_of_somebody_elses_reservation_does_nothing(kind: ReservationType) -> None:
    assert decide(state_of(kind), Release(REGISTRANT, 2, kind)) == Outcome(state_of(kind))


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("role", [HOLDER, REGISTRANT])
def test_clear_removes_everything(kind: ReservationType | None, role: str) -> None:
    outcome = decide(state_of(kind), Clear(role, KEYS[role]))
    assert outcome.state == Reservations(generation=8)
    assert set(outcome.attentions) == {(port, RESERVATIONS_PREEMPTED) for port in KEYS if port != role}


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("new", ReservationType)
@pytest.mark.parametrize("kind", [WE, EA, WE_RO, EA_RO])
def test_preempting_the_holder_takes_its_reservation(
    kind: ReservationType, new: ReservationType, abort: bool
) -> None:
    outcome = decide(state_of(kind), Preempt(REGISTRANT, 2, 1, new, abort=abort))
    assert outcome.state.registrations == {REGISTRANT: 2, THIRD: 2}
    assert outcome.state.reservation == Reservation(new, "" if new in ALL_REGISTRANTS else REGISTRANT)
    told = {(HOLDER, REGISTRATIONS_PREEMPTED)} | ({(THIRD, RESERVATIONS_RELEASED)} if new != kind else set())
    assert set(outcome.attentions) == told
    assert outcome.aborted == ((HOLDER,) if abort else ())


@pytest.mark.parametrize("new", ReservationType)
def test_holder_may_preempt_itself_to_change_the_type(new: ReservationType) -> None:
    outcome = decide(state_of(WE), Preempt(HOLDER, 1, 1, new, abort=True))
    assert outcome.state.registrations == KEYS
    assert outcome.state.reservation == Reservation(new, "" if new in ALL_REGISTRANTS else HOLDER)
    told = {REGISTRANT, THIRD} if new != WE else set()
    assert set(outcome.attentions) == {(port, RESERVATIONS_RELEASED) for port in told}
    assert outcome.aborted == (HOLDER,), "its other tasks: all with that key are named"


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("kind", STATES)
def test_preempting_others_removes_their_registrations_alone(
    kind: ReservationType | None, abort: bool
) -> None:
    outcome = decide(state_of(kind), Preempt(HOLDER, 1, 2, 0, abort=abort))
    assert outcome.state == attrs.evolve(state_of(kind), registrations={HOLDER: 1}, generation=8)
    assert set(outcome.attentions) == {(p, REGISTRATIONS_PREEMPTED) for p in (REGISTRANT, THIRD)}
    assert outcome.aborted == ((REGISTRANT, THIRD) if abort else ())


def test_preempting_ones_own_key_removes_ones_own_registration_silently() -> None:
    outcome = decide(state_of(WE), Preempt(REGISTRANT, 2, 2, 0))
    assert outcome.state.registrations == {HOLDER: 1}
    assert outcome.attentions == ((THIRD, REGISTRATIONS_PREEMPTED),)


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("new", ReservationType)
@pytest.mark.parametrize("kind", ALL_REGISTRANTS)
def test_preempting_all_registrants_leaves_one(
    kind: ReservationType, new: ReservationType, abort: bool
) -> None:
    outcome = decide(state_of(kind), Preempt(THIRD, 2, 0, new, abort=abort))
    assert outcome.state.registrations == {THIRD: 2}
    assert outcome.state.reservation == Reservation(new, "" if new in ALL_REGISTRANTS else THIRD)
    assert set(outcome.attentions) == {(p, REGISTRATIONS_PREEMPTED) for p in (HOLDER, REGISTRANT)}
    assert outcome.aborted == (tuple(KEYS) if abort else ())


@pytest.mark.parametrize("kind", [EA, WE_AR])
def test_preempting_with_a_type_that_is_none_is_refused(kind: ReservationType) -> None:
    victim = 0 if kind in ALL_REGISTRANTS else 1
    assert answer_of(decide(state_of(kind), Preempt(REGISTRANT, 2, victim, 2))) == ILLEGAL


@pytest.mark.parametrize("unregister", [False, True])
@pytest.mark.parametrize("to", ["new", REGISTRANT])
@pytest.mark.parametrize("kind", [WE, EA, WE_RO, EA_RO])
def test_move_hands_over_reservation_and_key(kind: ReservationType, to: str, unregister: bool) -> None:
    event = RegisterAndMove(HOLDER, 1, 9, to, unregister=unregister, persistent=True)
    outcome = decide(state_of(kind), event)
    assert outcome.state.reservation == Reservation(kind, to)
    assert outcome.state.registrations[to] == 9
    assert (HOLDER in outcome.state.registrations) == (not unregister)
    assert outcome.state.persistent
    assert (outcome.attentions, outcome.aborted) == ((), ())


def test_generation_wraps() -> None:
    assert decide(state_of(None, generation=0xFFFF_FFFF), Clear(HOLDER, 1)).state.generation == 0
