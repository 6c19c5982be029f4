"""What a register may show, case by case, and against a naive account of all histories."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torture.model import SECTOR_BYTES, Content, Model, Register, WrongRead

DATA, SAME, ZERO = Content.DATA, Content.SAME, Content.ZERO


@pytest.fixture
def register() -> Register:
    return Model().add(offset_bytes=4096, sectors=4, writer=0)


def write(register: Register, *, answered: bool = True, content: Content = DATA, fua: bool = False) -> bytes:
    """A write; its data."""
    version = register.begin_write(content)
    if answered:
        register.acknowledge(losses=register.model.losses, stable=fua)
    else:
        register.give_up()
    return register.data(version)


def read(register: Register, data: bytes) -> None:
    register.finish_read(register.begin_read(), data)


def flush(model: Model) -> None:
    model.finish_flush(model.begin_flush())


def test_versions_sectors_and_registers_differ_and_fill_their_sectors(register: Register) -> None:
    other = register.model.add(offset_bytes=0, sectors=4, writer=0)
    pieces = [write(one)[at : at + SECTOR_BYTES] for one in (register, other) for at in range(0, 2048, 512)]
    pieces += [write(register)[:SECTOR_BYTES], write(register, content=SAME)[:SECTOR_BYTES]]
    assert len(set(pieces)) == len(pieces)
    assert all(len(piece) == SECTOR_BYTES and piece[-4:] != bytes(4) for piece in pieces)


@pytest.mark.parametrize("content", Content)
def test_an_acknowledged_write_is_read_and_nothing_older(register: Register, content: Content) -> None:
    old, new = write(register), write(register, content=content)
    read(register, new)
    for wrong in (old, bytes(2048)) if content is not ZERO else (old,):
        with pytest.raises(WrongRead):
            read(register, wrong)


@pytest.mark.parametrize("at", range(0, 2048, 100))
def test_one_wrong_byte_is_found(register: Register, at: int) -> None:
    data = bytearray(write(register))
    data[at] ^= 1
    with pytest.raises(WrongRead):
        read(register, bytes(data))


def test_sectors_in_another_place_are_found(register: Register) -> None:
    data = write(register)
    with pytest.raises(WrongRead):
        read(register, data[512:] + data[:512])


@pytest.mark.parametrize("shown", [0, 1])
def test_an_unanswered_write_shows_or_does_not_and_stays_so(register: Register, shown: int) -> None:
    either = [write(register), write(register, answered=False)]
    read(register, either[shown])
    read(register, either[shown])
    with pytest.raises(WrongRead):
        read(register, either[1 - shown])


def test_an_unanswered_write_may_have_happened_in_some_sectors(register: Register) -> None:
    old, new = write(register), write(register, answered=False)
    mixed = old[:512] + new[512:]
    read(register, mixed)
    read(register, mixed)
    for wrong in (old, new):
        with pytest.raises(WrongRead):
            read(register, wrong)


def test_a_write_in_flight_may_come_after_a_read(register: Register) -> None:
    old = write(register)
    new = register.data(register.begin_write(DATA))
    read(register, old)
    read(register, new)
    with pytest.raises(WrongRead):
        read(register, old)


def test_reads_at_the_same_time_may_differ_only_while_the_write_is_not_over(register: Register) -> None:
    old = write(register)
    new = register.data(register.begin_write(DATA))
    slow, quick = register.begin_read(), register.begin_read()
    register.finish_read(quick, new)
    register.finish_read(slow, old)
    register.acknowledge(losses=0)
    old, new = new, write(register, answered=False)
    slow, quick = register.begin_read(), register.begin_read()
    register.finish_read(quick, new)
    with pytest.raises(WrongRead):
        register.finish_read(slow, old)


def test_a_read_that_began_long_ago_may_show_what_it_met_then(register: Register) -> None:
    old = write(register)
    ticket = register.begin_read()
    for _ in range(50):
        write(register, fua=True)
    register.finish_read(ticket, old)
    register.finish_read(ticket, register.data(40))
    with pytest.raises(WrongRead):
        read(register, register.data(40))


def test_what_was_flushed_is_left_when_everything_goes_down(register: Register) -> None:
    old = write(register)
    kept = write(register)
    flush(register.model)
    later = [write(register) for _ in range(3)]
    register.model.lose_unflushed()
    with pytest.raises(WrongRead):
        read(register, old)
    read(register, kept[:512] + later[1][512:1024] + later[0][1024:1536] + later[2][1536:])
    with pytest.raises(WrongRead):
        read(register, later[2])
    read(register, kept[:512] + later[1][512:1024] + later[0][1024:1536] + later[2][1536:])


def test_a_write_with_fua_needs_no_flush(register: Register) -> None:
    old = write(register)
    data = write(register, fua=True)
    register.model.lose_unflushed()
    with pytest.raises(WrongRead):
        read(register, old)
    read(register, data)


def test_answers_that_came_too_late_say_nothing(register: Register) -> None:
    kept = write(register, fua=True)
    register.begin_write(DATA)
    ticket = register.model.begin_flush()
    register.model.lose_unflushed()
    register.acknowledge(losses=0)
    register.model.finish_flush(ticket)
    read(register, kept)


def test_what_a_flush_saw_missing_is_missing_after_everything_goes_down(register: Register) -> None:
    old, lost = write(register), write(register, answered=False)
    read(register, old)
    flush(register.model)
    register.model.lose_unflushed()
    with pytest.raises(WrongRead):
        read(register, lost)


def test_it_is_known_what_a_register_holds_only_when_it_is(register: Register) -> None:
    assert register.known() == 0
    write(register)
    assert register.known() == 1
    write(register, answered=False)
    assert register.known() is None
    read(register, register.data(2))
    assert register.known() == 2
    register.begin_write(DATA)
    assert register.known() is None


@given(seed=st.integers(0, 2**32 - 1))
def test_a_volume_that_does_its_work_is_never_blamed(seed: int) -> None:
    """A register in memory that lies about nothing, with answers that get lost and power cuts."""
    random = Random(seed)
    model = Model()
    register = model.add(offset_bytes=0, sectors=3, writer=0)
    cached = stable = bytes(3 * SECTOR_BYTES)
    for _ in range(60):
        match random.choice(("write", "write", "unanswered", "read", "flush", "lose")):
            case "write":
                cached = write(register, content=random.choice(list(Content)))
            case "unanswered":
                cached = mixture(cached, write(register, answered=False), random)
            case "read":
                read(register, cached)
            case "flush":
                stable = cached
                flush(model)
            case _:
                model.lose_unflushed()
                cached = stable = mixture(stable, cached, random)


def mixture(old: bytes, new: bytes, random: Random) -> bytes:
    starts = range(0, len(old), SECTOR_BYTES)
    return b"".join(random.choice((old, new))[at : at + SECTOR_BYTES] for at in starts)
