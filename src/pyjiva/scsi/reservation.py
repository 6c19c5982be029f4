"""Persistent reservations: registrations, the reservation, and what each service action does to them.  Pure.

SPC-4 §5.13.  `decide` is given the present state and an event and says what the state is to become, what the
initiator is answered, who gets a unit attention and whose tasks are to be aborted.  It changes nothing:
whoever calls it makes the new state durable first, where it has to be, and then takes it over or drops it.

An I_T nexus is known by the name of its initiator port alone: a target has one target port, so a registration
for "all target ports" is the same as one for this port.

Left out: the element and extent scopes (obsolete), and REPLACE LOST RESERVATION (we do not start with state
that was lost).
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final, assert_never

import attrs

from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, invalid_field_in_parameter_list

__all__ = [
    "ALL_REGISTRANTS",
    "REGISTRANTS_ONLY",
    "REGISTRATIONS_MAX",
    "REGISTRATIONS_PREEMPTED",
    "RESERVATIONS_PREEMPTED",
    "RESERVATIONS_RELEASED",
    "Clear",
    "Conflict",
    "Event",
    "Outcome",
    "Preempt",
    "Register",
    "RegisterAndMove",
    "Release",
    "Reservation",
    "ReservationType",
    "Reservations",
    "Reserve",
    "decide",
]

REGISTRATIONS_MAX: Final = 120
"""With the longest names they fit into what a ParameterStore keeps; 30 machines with four paths each."""

Port = str
"""Name of an initiator port: iSCSI name, ",i,0x" and ISID."""


class Conflict(enum.Enum):
    """What another initiator's reservation does to a command (SPC-4 table 65, SBC-3 table 13).

    A RESERVE(6) or (10) of another initiator lets only those of NEVER pass, and of the last two those that
    are allowed through every type of persistent reservation (SPC-2 §5.5.1).
    """

    NEVER = "allowed always"
    RESERVED = "allowed through persistent reservations, but not through RESERVE"
    READS = "conflicts with exclusive access"
    WRITES = "conflicts with write exclusive and exclusive access"
    STOPPING = "allowed if it starts the unit, else as WRITES"
    PREVENTING = "allowed if it allows the removal of the medium, else as WRITES"


class ReservationType(enum.IntEnum):
    """SPC-4 table 206; the others are obsolete or reserved."""

    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8


REGISTRANTS_ONLY: Final = (
    ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
)
ALL_REGISTRANTS: Final = (
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)
_TYPES: Final = frozenset(int(kind) for kind in ReservationType)
_EXCLUSIVE_ACCESS: Final = (
    ReservationType.EXCLUSIVE_ACCESS,
    ReservationType.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
)

RESERVATIONS_PREEMPTED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.RESERVATIONS_PREEMPTED)
RESERVATIONS_RELEASED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.RESERVATIONS_RELEASED)
REGISTRATIONS_PREEMPTED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.REGISTRATIONS_PREEMPTED)
_INVALID_RELEASE: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
)
_NO_RESOURCES: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INSUFFICIENT_REGISTRATION_RESOURCES)
_INVALID_TYPE: Final = invalid_field_in_cdb(2, bit=3)
_GENERATION_MASK: Final = 0xFFFF_FFFF
# Where the fields of the parameter list stand that an answer points to (SPC-4 tables 214 and 217)
_SERVICE_ACTION_KEY_BYTE: Final = 8
_SPEC_I_PT_BYTE: Final = 20
_TRANSPORT_ID_BYTE: Final = 24


@attrs.frozen
class Reservation:
    """The one reservation of a logical unit; its scope is always the unit."""

    type: ReservationType
    holder: Port
    """Empty for the all registrants types: every registered port holds those."""


@attrs.frozen
class Reservations:
    """Everything that PERSISTENT RESERVE OUT can change."""

    registrations: Mapping[Port, int] = attrs.field(factory=dict)
    """Reservation key of each registered port, the oldest registration first."""
    reservation: Reservation | None = None
    persistent: bool = False
    """The last APTPL bit: all this must survive a loss of power."""
    generation: int = 0
    """PRGENERATION."""

    def holds(self, port: Port) -> bool:
        """Whether `port` is a persistent reservation holder (SPC-4 §5.13.10)."""
        reservation = self.reservation
        if reservation is None:
            return False
        if reservation.type in ALL_REGISTRANTS:
            return port in self.registrations
        return reservation.holder == port

    def shares(self, port: Port) -> bool:
        """Whether `port` holds the reservation, or it is one that leaves registered ports alone."""
        reservation = self.reservation
        return self.holds(port) or (
            reservation is not None and reservation.type in REGISTRANTS_ONLY and port in self.registrations
        )

    def conflicts(self, port: Port, conflict: Conflict) -> bool:
        """Whether a command of `port` must be answered with RESERVATION CONFLICT."""
        reservation = self.reservation
        if reservation is None or self.shares(port):
            return False
        if conflict is Conflict.WRITES:
            return True
        return conflict is Conflict.READS and reservation.type in _EXCLUSIVE_ACCESS

    def self_check(self) -> None:
        """Assert what must always hold."""
        reservation = self.reservation
        assert len(self.registrations) <= REGISTRATIONS_MAX
        assert all(0 < key < 1 << 64 for key in self.registrations.values())
        if reservation is not None:
            if reservation.type in ALL_REGISTRANTS:
                assert self.registrations and not reservation.holder
            else:
                assert reservation.holder in self.registrations


@attrs.frozen
class Register:
    """REGISTER, and REGISTER AND IGNORE EXISTING KEY."""

    port: Port
    key: int
    new_key: int
    """0: unregister."""
    persistent: bool = False
    ignore_existing_key: bool = False
    others: tuple[Port, ...] | None = None
    """The ports that SPEC_I_PT names; None: the bit is not set."""


@attrs.frozen
class Reserve:
    """RESERVE."""

    port: Port
    key: int
    type: int


@attrs.frozen
class Release:
    """RELEASE."""

    port: Port
    key: int
    type: int
    """What the CDB says; a type that does not exist matches no reservation."""


@attrs.frozen
class Clear:
    """CLEAR."""

    port: Port
    key: int


@attrs.frozen
class Preempt:
    """PREEMPT, and PREEMPT AND ABORT."""

    port: Port
    key: int
    victim_key: int
    type: int
    """Of the new reservation; means nothing if only registrations are removed."""
    abort: bool = False


@attrs.frozen
class RegisterAndMove:
    """REGISTER AND MOVE."""

    port: Port
    key: int
    new_key: int
    to: Port
    unregister: bool = False
    persistent: bool = False


Event = Register | Reserve | Release | Clear | Preempt | RegisterAndMove


@attrs.frozen
class Outcome:
    """What is to happen."""

    state: Reservations
    conflict: bool = False
    """Answer RESERVATION CONFLICT; nothing changes."""
    sense: Sense | None = None
    """Answer CHECK CONDITION; nothing changes."""
    attentions: tuple[tuple[Port, Sense], ...] = ()
    aborted: tuple[Port, ...] = ()
    """Whose tasks are to be aborted, without the one that asked for it."""


def decide(state: Reservations, event: Event) -> Outcome:
    """What `event` does to `state`."""
    if isinstance(event, Register):  # the only one that a port may send that is not registered
        return _register(state, event)
    if state.registrations.get(event.port) != event.key:
        return Outcome(state, conflict=True)
    match event:
        case Reserve():
            return _reserve(state, event)
        case Release():
            return _release(state, event)
        case Clear():
            return _clear(state, event)
        case Preempt():
            return _preempt(state, event)
        case RegisterAndMove():
            return _register_and_move(state, event)
        case _:
            assert_never(event)


def _next(state: Reservations) -> int:
    return (state.generation + 1) & _GENERATION_MASK


def _others(state: Reservations, port: Port, sense: Sense) -> tuple[tuple[Port, Sense], ...]:
    """A unit attention for every registered port but `port`."""
    return tuple((other, sense) for other in state.registrations if other != port)


def _without(state: Reservations, removed: Callable[[Port], bool]) -> Reservations:
    """`state` without some registrations, and without a reservation that has no holder any more."""
    left = {port: key for port, key in state.registrations.items() if not removed(port)}
    reservation = state.reservation
    if reservation is not None:
        held = bool(left) if reservation.type in ALL_REGISTRANTS else reservation.holder in left
        reservation = reservation if held else None
    return attrs.evolve(state, registrations=left, reservation=reservation)


def _register(state: Reservations, event: Register) -> Outcome:
    """SPC-4 tables 67 and 68."""
    present = state.registrations.get(event.port)
    if not event.ignore_existing_key and event.key != (present or 0):
        return Outcome(state, conflict=True)
    if present is None and not event.new_key:
        return Outcome(state)
    others: Iterable[Port] = ()
    if event.others is not None:
        if present is not None or any(port in state.registrations for port in event.others):
            return Outcome(state, sense=invalid_field_in_parameter_list(_SPEC_I_PT_BYTE, bit=3))
        others = event.others
    if not event.new_key:
        return _unregister(state, event)
    registrations = dict(state.registrations)
    for port in (event.port, *others):
        registrations[port] = event.new_key
    if len(registrations) > REGISTRATIONS_MAX:
        return Outcome(state, sense=_NO_RESOURCES)
    return Outcome(
        attrs.evolve(state, registrations=registrations, persistent=event.persistent, generation=_next(state))
    )


def _unregister(state: Reservations, event: Register) -> Outcome:
    """SPC-4 §5.13.11.2.3."""
    after = _without(state, lambda port: port == event.port)
    after = attrs.evolve(after, persistent=event.persistent, generation=_next(state))
    reservation = state.reservation
    released = reservation is not None and after.reservation is None
    if released and reservation is not None and reservation.type in REGISTRANTS_ONLY:
        return Outcome(after, attentions=_others(state, event.port, RESERVATIONS_RELEASED))
    return Outcome(after)


def _reserve(state: Reservations, event: Reserve) -> Outcome:
    """SPC-4 §5.13.9."""
    if event.type not in _TYPES:
        return Outcome(state, sense=_INVALID_TYPE)
    if state.reservation is None:
        return Outcome(attrs.evolve(state, reservation=_reservation(event.type, event.port)))
    same = state.holds(event.port) and state.reservation.type == event.type
    return Outcome(state, conflict=not same)


def _reservation(kind: int, port: Port) -> Reservation:
    return Reservation(ReservationType(kind), "" if kind in ALL_REGISTRANTS else port)


def _release(state: Reservations, event: Release) -> Outcome:
    """SPC-4 §5.13.11.2.2 (NUAR is 0)."""
    reservation = state.reservation
    if reservation is None or not state.holds(event.port):
        return Outcome(state)
    if reservation.type != event.type:
        return Outcome(state, sense=_INVALID_RELEASE)
    attentions: tuple[tuple[Port, Sense], ...] = ()
    if reservation.type in REGISTRANTS_ONLY or reservation.type in ALL_REGISTRANTS:
        attentions = _others(state, event.port, RESERVATIONS_RELEASED)
    return Outcome(attrs.evolve(state, reservation=None), attentions=attentions)


def _clear(state: Reservations, event: Clear) -> Outcome:
    """SPC-4 §5.13.11.2.7."""
    after = attrs.evolve(state, registrations={}, reservation=None, generation=_next(state))
    return Outcome(after, attentions=_others(state, event.port, RESERVATIONS_PREEMPTED))


def _preempt(state: Reservations, event: Preempt) -> Outcome:
    """SPC-4 table 72 and figure 9."""
    reservation = state.reservation
    victim_key = event.victim_key
    if reservation is not None:
        if reservation.type in ALL_REGISTRANTS:
            if not victim_key:
                return _preempt_reservation(state, event, tuple(state.registrations))
        elif not victim_key:
            return Outcome(state, sense=invalid_field_in_parameter_list(_SERVICE_ACTION_KEY_BYTE))
        elif victim_key == state.registrations[reservation.holder]:
            return _preempt_reservation(state, event, _ports_with(state, victim_key))
    victims = _ports_with(state, victim_key)
    if not victims:
        return Outcome(state, conflict=True)
    after = attrs.evolve(_without(state, lambda port: port in victims), generation=_next(state))
    return Outcome(
        after,
        attentions=tuple((port, REGISTRATIONS_PREEMPTED) for port in victims if port != event.port),
        aborted=victims if event.abort else (),
    )


def _ports_with(state: Reservations, key: int) -> tuple[Port, ...]:
    return tuple(port for port, registered in state.registrations.items() if registered == key)


def _preempt_reservation(state: Reservations, event: Preempt, victims: tuple[Port, ...]) -> Outcome:
    """SPC-4 §5.13.11.2.4.3: the reservation changes hands, and the registrations of `victims` are removed."""
    if event.type not in _TYPES:
        return Outcome(state, sense=_INVALID_TYPE)
    assert state.reservation is not None
    left = {p: key for p, key in state.registrations.items() if p == event.port or p not in victims}
    after = attrs.evolve(
        state,
        registrations=left,
        reservation=_reservation(event.type, event.port),
        generation=_next(state),
    )
    attentions = [(port, REGISTRATIONS_PREEMPTED) for port in victims if port != event.port]
    if event.type != state.reservation.type:
        attentions += [(port, RESERVATIONS_RELEASED) for port in left if port != event.port]
    return Outcome(after, attentions=tuple(attentions), aborted=victims if event.abort else ())


def _register_and_move(state: Reservations, event: RegisterAndMove) -> Outcome:
    """SPC-4 §5.13.8, table 70."""
    reservation = state.reservation
    if reservation is None:
        return Outcome(state, sense=invalid_field_in_cdb(1, bit=4))
    if reservation.type in ALL_REGISTRANTS or not state.holds(event.port):
        return Outcome(state, conflict=True)
    if not event.new_key:
        return Outcome(state, sense=invalid_field_in_parameter_list(_SERVICE_ACTION_KEY_BYTE))
    if event.to == event.port:
        return Outcome(state, sense=invalid_field_in_parameter_list(_TRANSPORT_ID_BYTE))
    registrations = {**state.registrations, event.to: event.new_key}
    if event.unregister:
        del registrations[event.port]
    if len(registrations) > REGISTRATIONS_MAX:
        return Outcome(state, sense=_NO_RESOURCES)
    return Outcome(
        attrs.evolve(
            state,
            registrations=registrations,
            reservation=_reservation(reservation.type, event.to),
            persistent=event.persistent,
            generation=_next(state),
        )
    )
