"""PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE: CDBs, parameter lists, and carrying out.  Pure.

SPC-4 §6.15, §6.16, §5.13.3; SPC-2 §7.21.  The rules are in `reservation`.

One after the other: what a command decides by is the state that the one before it left, also while that is
still being made durable.  Other commands go on meanwhile, under the state that was.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from pyjiva.block import PARAMETERS_BYTES_MAX
from pyjiva.errors import StorageError
from pyjiva.scsi import reservation as rules
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.reservation import Event, Outcome, Reservations, decide
from pyjiva.scsi.saved import encode_saved
from pyjiva.scsi.sense import (
    PARAMETER_LIST_LENGTH_ERROR,
    Sense,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
    sense_of,
)
from pyjiva.scsi.task import Quiescing, Task
from pyjiva.scsi.transport_id import decode_transport_ids, encode_transport_id
from pyjiva.scsi.unit import RELATIVE_TARGET_PORT, LogicalUnit
from pyjiva.units import KIB

__all__ = [
    "PERSISTENT_RESERVE_IN",
    "PERSISTENT_RESERVE_OUT",
    "parameter_list_bytes",
    "parse_event",
    "persistent_reserve_out",
    "release",
    "reserve",
]

PARAMETER_LIST_BYTES_MAX: Final = 64 * KIB  # more TransportIDs than registrations that there can be

_REGISTER, _RESERVE, _RELEASE, _CLEAR, _PREEMPT, _PREEMPT_AND_ABORT, _REGISTER_AND_IGNORE, _MOVE = range(8)
PERSISTENT_RESERVE_OUT: Final = (
    "REGISTER",
    "RESERVE",
    "RELEASE",
    "CLEAR",
    "PREEMPT",
    "PREEMPT AND ABORT",
    "REGISTER AND IGNORE EXISTING KEY",
    "REGISTER AND MOVE",
)
"""Names of the service actions, by their codes (SPC-4 table 213)."""

_SERVICE_ACTION: Final = 0x1F
_KEYS: Final = struct.Struct(">QQ")
_BASIC_BYTES: Final = 24  # SPC-4 table 214
_SPEC_I_PT: Final = 0x08
_APTPL: Final = 0x01
_UNREG: Final = 0x02

# REPORT CAPABILITIES (SPC-4 table 207)
_COMPATIBLE_RESERVATION_HANDLING: Final = 0x10
_SPECIFY_INITIATOR_PORTS_CAPABLE: Final = 0x08
_ALL_TARGET_PORTS_CAPABLE: Final = 0x04
_PERSIST_THROUGH_POWER_LOSS_CAPABLE: Final = 0x01
_TYPE_MASK_VALID: Final = 0x80
_ALLOW_COMMANDS: Final = 0b100 << 4  # SPC-4 table 208: everything that table 65 allows is allowed
_ALL_TYPES: Final = 0xEA01  # SPC-4 table 209
_NO_RESOURCES: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INSUFFICIENT_REGISTRATION_RESOURCES)


# PERSISTENT RESERVE IN


def _in_handler(encode: Callable[[Reservations], bytes]) -> Callable[[LogicalUnit, Task], None]:
    def handler(unit: LogicalUnit, task: Task) -> None:
        if unit.reserved_by is not None:  # SPC-2 §5.5.1: whoever asks
            task.conflict()
        else:
            task.give(encode(unit.reservations), int.from_bytes(task.cdb[7:9], "big"))

    return handler


def _with_header(state: Reservations, data: bytes) -> bytes:
    return struct.pack(">II", state.generation, len(data)) + data


def read_keys(state: Reservations) -> bytes:
    """SPC-4 table 202."""
    return _with_header(state, b"".join(key.to_bytes(8, "big") for key in state.registrations.values()))


def read_reservation(state: Reservations) -> bytes:
    """SPC-4 table 204; the key is 0 for the all registrants types."""
    held = state.reservation
    if held is None:
        return _with_header(state, b"")
    return _with_header(state, struct.pack(">Q5xB2x", state.registrations.get(held.holder, 0), held.type))


def report_capabilities(state: Reservations) -> bytes:
    """SPC-4 table 207.  All target ports: there is one."""
    return struct.pack(
        ">HBBH2x",
        8,
        _COMPATIBLE_RESERVATION_HANDLING
        | _SPECIFY_INITIATOR_PORTS_CAPABLE
        | _ALL_TARGET_PORTS_CAPABLE
        | _PERSIST_THROUGH_POWER_LOSS_CAPABLE,
        _TYPE_MASK_VALID | _ALLOW_COMMANDS | state.persistent,
        _ALL_TYPES,
    )


def read_full_status(state: Reservations) -> bytes:
    """SPC-4 tables 210 and 211."""
    descriptors = []
    for port, key in state.registrations.items():
        holds = state.reservation is not None and state.holds(port)
        kind = state.reservation.type if state.reservation is not None and holds else 0
        transport_id = encode_transport_id(port)
        descriptors.append(
            struct.pack(">Q4xBB4xHI", key, holds, kind, RELATIVE_TARGET_PORT, len(transport_id))
            + transport_id
        )
    return _with_header(state, b"".join(descriptors))


PERSISTENT_RESERVE_IN: Final = (
    ("READ KEYS", _in_handler(read_keys)),
    ("READ RESERVATION", _in_handler(read_reservation)),
    ("REPORT CAPABILITIES", _in_handler(report_capabilities)),
    ("READ FULL STATUS", _in_handler(read_full_status)),
)
"""Names and handlers of the service actions, by their codes (SPC-4 table 201)."""


# PERSISTENT RESERVE OUT


def parameter_list_bytes(_unit: LogicalUnit, cdb: bytes) -> int:
    """The parameter list length of a PERSISTENT RESERVE OUT."""
    return min(int.from_bytes(cdb[5:9], "big"), PARAMETER_LIST_BYTES_MAX)


def parse_event(cdb: bytes, data: bytes, port: str, known_ports: Iterable[str]) -> Event | Sense:
    """What `port` asks for; or why the command fails.  A TransportID may name all `known_ports` of a name."""
    action, scope, kind = cdb[1] & _SERVICE_ACTION, cdb[2] >> 4, cdb[2] & 0x0F
    length = int.from_bytes(cdb[5:9], "big")
    if length > PARAMETER_LIST_BYTES_MAX or len(data) < length or length < _BASIC_BYTES:
        return PARAMETER_LIST_LENGTH_ERROR
    data = data[:length]
    key, action_key = _KEYS.unpack_from(data)
    if action == _MOVE:
        return _parse_move(data, port)
    spec_i_pt = data[20] & _SPEC_I_PT
    if not spec_i_pt and length != _BASIC_BYTES:
        return PARAMETER_LIST_LENGTH_ERROR
    if spec_i_pt and action != _REGISTER:
        return invalid_field_in_parameter_list(20, bit=3)
    if scope and action in (_RESERVE, _RELEASE, _PREEMPT, _PREEMPT_AND_ABORT):
        return invalid_field_in_cdb(2, bit=7)
    match action:
        case 0 | 6:  # REGISTER, and REGISTER AND IGNORE EXISTING KEY
            others = _parse_initiator_ports(data, known_ports) if spec_i_pt else None
            if isinstance(others, Sense):
                return others
            return rules.Register(
                port,
                key,
                action_key,
                persistent=bool(data[20] & _APTPL),
                ignore_existing_key=action == _REGISTER_AND_IGNORE,
                others=others,
            )
        case 1:
            return rules.Reserve(port, key, kind)
        case 2:
            return rules.Release(port, key, kind)
        case 3:
            return rules.Clear(port, key)
        case _:
            assert action in (_PREEMPT, _PREEMPT_AND_ABORT), "the command table knows no other"
            return rules.Preempt(port, key, action_key, kind, abort=action == _PREEMPT_AND_ABORT)


def _parse_initiator_ports(data: bytes, known_ports: Iterable[str]) -> tuple[str, ...] | Sense:
    """SPC-4 table 215: the ports that a REGISTER with SPEC_I_PT names, perhaps its own too."""
    if len(data) < _BASIC_BYTES + 4:
        return PARAMETER_LIST_LENGTH_ERROR
    end = _BASIC_BYTES + 4 + int.from_bytes(data[_BASIC_BYTES : _BASIC_BYTES + 4], "big")
    if end > len(data):
        return PARAMETER_LIST_LENGTH_ERROR
    transport_ids = decode_transport_ids(data[:end], _BASIC_BYTES + 4)
    if isinstance(transport_ids, Sense):
        return transport_ids
    known = tuple(known_ports)
    named: dict[str, None] = {}
    for transport_id in transport_ids:
        if transport_id.isid is not None:
            named[transport_id.port] = None
        else:
            named.update((other, None) for other in known if transport_id.matches(other))
    return tuple(named)


def _parse_move(data: bytes, port: str) -> Event | Sense:
    """SPC-4 table 217."""
    key, new_key, flags, relative_port, length = struct.unpack_from(">QQxBHI", data)
    if _BASIC_BYTES + length > len(data):
        return PARAMETER_LIST_LENGTH_ERROR
    if length < _BASIC_BYTES or length & 3:
        return invalid_field_in_parameter_list(20)
    if relative_port != RELATIVE_TARGET_PORT:
        return invalid_field_in_parameter_list(18)
    transport_ids = decode_transport_ids(data[: _BASIC_BYTES + length], _BASIC_BYTES)
    if isinstance(transport_ids, Sense):
        return transport_ids
    if len(transport_ids) != 1 or transport_ids[0].isid is None:
        return invalid_field_in_parameter_list(_BASIC_BYTES)
    return rules.RegisterAndMove(
        port,
        key,
        new_key,
        transport_ids[0].port,
        unregister=bool(flags & _UNREG),
        persistent=bool(flags & _APTPL),
    )


def persistent_reserve_out(unit: LogicalUnit, task: Task) -> None:
    """Every service action: decide, make durable, take over, abort, answer."""
    unit.turns.take(_Run(unit, task).start)


@attrs.define(eq=False)
class _Run:
    """One PERSISTENT RESERVE OUT whose turn has come."""

    unit: LogicalUnit
    task: Task
    outcome: Outcome = attrs.field(default=Outcome(Reservations()), init=False)

    def start(self) -> None:
        """Up to the point where the new state is being saved."""
        unit, task = self.unit, self.task
        if task.aborted:
            self._end(task.finish)
            return
        if unit.reserved_by is not None:  # SPC-2 §5.5.1: whoever holds it
            self._end(task.conflict)
            return
        known = (nexus.initiator_port for nexus in unit.nexuses())
        event = parse_event(task.cdb, b"".join(task.data_out), task.nexus.initiator_port, known)
        if isinstance(event, Sense):
            self._fail(event)
            return
        self.outcome = outcome = decide(unit.reservations, event)
        if outcome.conflict:
            self._end(task.conflict)
        elif outcome.sense is not None:
            self._fail(outcome.sense)
        else:
            # PRGENERATION begins anew with every power on (SPC-4 §6.15.2).
            kept = attrs.evolve(outcome.state, generation=0) if outcome.state.persistent else None
            saved = attrs.evolve(unit.saved, reservations=kept)
            if len(encode_saved(saved)) > PARAMETERS_BYTES_MAX:
                self._fail(_NO_RESOURCES)
            else:
                unit.save(saved, self._saved)

    def _saved(self, error: StorageError | None) -> None:
        """The new state is durable where it has to be."""
        unit, task, outcome = self.unit, self.task, self.outcome
        if error is not None:
            self._fail(sense_of(error))
            return
        unit.set_reservations(outcome.state)
        for port, sense in outcome.attentions:
            for nexus in unit.nexuses():
                if nexus.initiator_port == port:
                    unit.establish_attention_for(nexus, sense)
        if not outcome.aborted:
            self._end(task.finish)
            return
        # Those aborted may be waiting for their turn: it must not wait for them.
        quiescing = Quiescing(task.finish)
        for other in list(unit.tasks):
            if other is not task and other.nexus.initiator_port in outcome.aborted and other in unit.tasks:
                other.abort(quiescing)
        self._end(quiescing.leave)

    def _fail(self, sense: Sense) -> None:
        self._end(lambda: self.task.fail(sense))

    def _end(self, answer: Callable[[], None]) -> None:
        answer()
        self.unit.turns.leave()


# RESERVE and RELEASE, which SPC-4 only keeps for those who still use them (SPC-4 §5.13.3, SPC-2 §5.5.1)


def reserve(unit: LogicalUnit, task: Task) -> None:
    """RESERVE(6) and (10)."""
    unit.turns.take(lambda: _reserve_or_release(unit, task, reserving=True))


def release(unit: LogicalUnit, task: Task) -> None:
    """RELEASE(6) and (10)."""
    unit.turns.take(lambda: _reserve_or_release(unit, task, reserving=False))


def _reserve_or_release(unit: LogicalUnit, task: Task, *, reserving: bool) -> None:
    nexus, state = task.nexus, unit.reservations
    if task.aborted or state.shares(nexus.initiator_port):
        task.finish()
    elif state.registrations or (reserving and unit.reserved_by not in (None, nexus)):
        task.conflict()
    else:
        if reserving:
            unit.reserve_for(nexus)
        elif unit.reserved_by is nexus:
            unit.reserve_for(None)
        task.finish()
    unit.turns.leave()
