"""Reservations that must survive, tasks that must not: the store, turns, PREEMPT AND ABORT."""

import struct

import attrs

from pyjiva.block import MemoryParameters
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import SenseKey, Status, Task
from pyjiva.scsi.reservation import REGISTRATIONS_MAX, Reservation, Reservations
from pyjiva.scsi.saved import decode_saved
from tests.scsi.cluster import (
    BLOCK,
    CLEAR,
    EA,
    EA_RO,
    PREEMPT_AND_ABORT,
    READ,
    READ_KEYS,
    REGISTER,
    RELEASE,
    RESERVE,
    RESERVE_6,
    WE,
    WE_RO,
    WRITE,
    A,
    B,
    C,
    make_cluster,
)
from tests.scsi.conftest import HeldParameters

# Durability


def test_persistent_reservations_survive_the_process() -> None:
    store = MemoryParameters()
    cluster = make_cluster(store)
    cluster.do(A, REGISTER, 0, 1, flags=1)
    cluster.do(B, REGISTER, 0, 2, flags=1)
    cluster.do(A, RESERVE, 1, 0, EA_RO)
    again = make_cluster(store)
    unit = again.disk.unit
    assert unit.reservations == Reservations({A: 1, B: 2}, Reservation(EA_RO, A), True, 0), (
        "PRGENERATION is 0"
    )
    assert again.status(C, READ) == Status.RESERVATION_CONFLICT
    assert again.status(B, READ) == 0
    again.do(A, CLEAR, 1)
    assert make_cluster(store).disk.unit.reservations == Reservations(persistent=True)


def test_reservations_end_with_the_process_unless_they_are_persistent() -> None:
    store = MemoryParameters()
    cluster = make_cluster(store)
    cluster.do(A, REGISTER, 0, 1, flags=1)
    cluster.do(B, REGISTER, 0, 2)
    cluster.do(A, RESERVE, 1, 0, EA)
    assert cluster.disk.unit.restricted
    assert make_cluster(store).disk.unit.reservations == Reservations(), "the last APTPL bit counts"
    assert not make_cluster(store).disk.unit.restricted


def test_nothing_is_saved_without_persistence() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    assert cluster.do(A, REGISTER, 0, 1) == 0
    assert cluster.do(A, RESERVE, 1, 0, EA) == 0
    assert cluster.do(A, CLEAR, 1) == 0
    assert store.held == []


def test_answer_waits_for_the_store_and_other_commands_do_not() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    register = cluster.start(A, REGISTER, 0, 1, flags=1)
    reserve = cluster.start(A, RESERVE, 1, 0, EA)
    other = cluster.start(B, REGISTER, 0, 2, flags=1)
    legacy = cluster.disk.start(RESERVE_6, nexus=cluster.nexuses[C])
    assert len(store.held) == 1, "one at a time"
    assert cluster.status(C, WRITE, BLOCK) == 0, "under the state that was"
    assert cluster.read(READ_KEYS) == bytes(8)
    store.release()
    assert [register.status, register in cluster.disk.answered] == [0, True]
    assert reserve not in cluster.disk.answered
    store.release()
    assert reserve.status == 0 and reserve in cluster.disk.answered
    assert cluster.status(C, READ) == Status.RESERVATION_CONFLICT
    store.release()
    assert other.status == 0 and other in cluster.disk.answered
    assert legacy.status == Status.RESERVATION_CONFLICT
    kept = decode_saved(store.parameters).reservations
    assert kept == Reservations({A: 1, B: 2}, Reservation(EA, A), persistent=True)


def test_store_that_fails_leaves_everything_as_it_was() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    for port, key in ((A, 1), (B, 2)):
        cluster.start(port, REGISTER, 0, key, flags=1)
        store.release()
    cluster.start(A, RESERVE, 1, 0, WE)
    store.release()
    before = cluster.disk.unit.reservations
    cluster.disk.device.holding = True
    write = cluster.disk.start(WRITE, BLOCK, nexus=cluster.nexuses[A])
    task = cluster.start(B, PREEMPT_AND_ABORT, 2, 1, EA)
    store.release(StorageError(StorageFailure.NOT_READY, "no majority"))
    assert (task.status, task.sense[2]) == (Status.CHECK_CONDITION, SenseKey.NOT_READY)
    assert cluster.disk.unit.reservations is before
    assert cluster.attention(A) is None
    assert not write.aborted
    cluster.disk.device.release()
    assert write.status == 0
    assert decode_saved(store.parameters).reservations == attrs.evolve(before, generation=0)
    assert cluster.start(B, CLEAR, 2) not in cluster.disk.answered, "the next one has its turn"


def test_aborted_command_that_waits_for_its_turn_does_nothing() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    cluster.start(A, REGISTER, 0, 1, flags=1)
    waiting = cluster.start(B, REGISTER, 0, 2, flags=1)
    waiting.abort(None)
    store.release()
    assert store.held == []
    assert cluster.disk.unit.reservations.registrations == {A: 1}
    assert not cluster.disk.unit.tasks


def test_aborted_reserve_that_waits_for_its_turn_does_nothing() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    parameters = bytes(4) + bytes([0x0A, 10, 4, 0x10]) + bytes(8)
    cluster.disk.start(b"\x15\x11\0\0\x10\0", parameters, nexus=cluster.nexuses[A])
    reserve = cluster.disk.start(RESERVE_6, nexus=cluster.nexuses[C])
    assert not cluster.disk.answered
    reserve.abort(None)
    store.release()
    assert len(cluster.disk.answered) == 2
    assert cluster.disk.unit.reserved_by is None


def test_state_that_is_kept_already_is_not_saved_again() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    cluster.start(A, REGISTER, 0, 1, flags=1)
    store.release()
    assert cluster.do(A, REGISTER, 1, 1, flags=1) == 0
    assert cluster.disk.unit.reservations.generation == 2
    assert store.held == []


def test_registrations_that_do_not_fit_into_the_store_are_refused() -> None:
    cluster = make_cluster()
    unit = cluster.disk.unit
    names = [f"{number:04}" + '"' * 219 + ",i,0x000000000001" for number in range(REGISTRATIONS_MAX - 1)]
    unit.set_reservations(Reservations(dict.fromkeys(names, 1)))
    task = cluster.start(A, REGISTER, 0, 1, flags=1)
    assert int.from_bytes(task.sense[12:14], "big") == Asc.INSUFFICIENT_REGISTRATION_RESOURCES
    assert cluster.do(A, REGISTER, 0, 1) == 0


# PREEMPT AND ABORT


def test_preempt_and_abort_waits_until_nothing_can_land() -> None:
    cluster = make_cluster()
    disk = cluster.disk
    for port, key in ((A, 1), (B, 2), (C, 3)):
        cluster.do(port, REGISTER, 0, key)
    cluster.do(A, RESERVE, 1, 0, WE_RO)
    disk.device.holding = True
    victims = [disk.start(WRITE, BLOCK, nexus=cluster.nexuses[A]) for _ in range(2)]
    spared = disk.start(WRITE, BLOCK, nexus=cluster.nexuses[C])
    task = cluster.start(B, PREEMPT_AND_ABORT, 2, 1, EA)
    assert [victim.aborted for victim in victims] == [True, True]
    assert not spared.aborted
    assert task not in disk.answered
    assert cluster.read(READ_KEYS, port=B) == struct.pack(">IIQQ", 4, 16, 2, 3)
    assert cluster.attention(C) == Asc.RESERVATIONS_RELEASED
    assert cluster.do(C, RELEASE, 3, 0, EA) == 0, "others need not wait"
    disk.device.release(1)
    assert task not in disk.answered
    disk.device.release()
    assert task.status == 0 and task in disk.answered
    assert cluster.attention(A) == Asc.REGISTRATIONS_PREEMPTED


def test_preempt_and_abort_takes_out_what_has_not_begun() -> None:
    store = HeldParameters()
    cluster = make_cluster(store)
    disk = cluster.disk
    for port, key in ((A, 1), (B, 2)):
        cluster.do(port, REGISTER, 0, key)
    collecting = Task(WRITE.ljust(16, b"\0"), cluster.nexuses[A], disk.done, 1, 512)
    disk.server.enter(collecting, bytes(8))
    cluster.start(B, REGISTER, 2, 2, flags=1)
    preempt = cluster.start(B, PREEMPT_AND_ABORT, 2, 1)
    queued = cluster.start(A, REGISTER, 1, 5)
    store.release()
    store.release()
    assert preempt.status == 0 and preempt in disk.answered, "it did not wait for one that waits for it"
    assert collecting not in disk.unit.tasks and collecting not in disk.answered
    assert queued.aborted
    assert disk.unit.reservations.registrations == {B: 2}
    assert not disk.unit.tasks


def test_preempt_and_abort_of_oneself_spares_the_command_itself() -> None:
    cluster = make_cluster()
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(A, RESERVE, 1, 0, WE)
    cluster.disk.device.holding = True
    write = cluster.disk.start(WRITE, BLOCK, nexus=cluster.nexuses[A])
    task = cluster.start(A, PREEMPT_AND_ABORT, 1, 1, EA)
    assert write.aborted and not task.aborted
    cluster.disk.device.release()
    assert task.status == 0 and task in cluster.disk.answered
    assert cluster.disk.unit.reservations.reservation == Reservation(EA, A)


def test_two_that_preempt_and_abort_each_other_both_end() -> None:
    cluster = make_cluster()
    disk = cluster.disk
    for port, key in ((A, 1), (B, 2), (C, 3)):
        cluster.do(port, REGISTER, 0, key)
    disk.device.holding = True
    disk.start(WRITE, BLOCK, nexus=cluster.nexuses[B])
    first = cluster.start(A, PREEMPT_AND_ABORT, 1, 2)
    second = cluster.start(C, PREEMPT_AND_ABORT, 3, 1)
    assert first.aborted
    assert first not in disk.answered and second not in disk.answered
    disk.device.release()
    assert first in disk.answered and second in disk.answered
    assert second.status == 0
    assert not disk.unit.tasks
