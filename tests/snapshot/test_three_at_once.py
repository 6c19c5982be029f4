"""Three requests at once, or two of which both are interrupted: `test_two_at_once` lets one of two go through
undisturbed, so what it cannot meet is a step of each between two steps of the other.

The first one stops before one of its steps, and the second begins; the second stops before one of its own,
and the third is done whole; then the first goes on to its end, and then the second.  Where one waits for a
lock of another, the other goes on after WAIT_S.  Which requests these are, and where they stop, is drawn.
"""

import threading
from collections.abc import Callable
from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.extent import Extent
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.testing import MemoryDisk, no_fault
from tests.snapshot.stacks import BLOCK, SIZE_BYTES, open_memory
from tests.snapshot.test_reopened import finish
from tests.snapshot.test_two_at_once import (
    ALL,
    MAKERS,
    REQUESTS,
    WAIT_S,
    WHOLE,
    above_a_deleted_snapshot,
    after,
    note_locks,
)

ROUNDS: Final = 15
SEEDS: Final = 16
PLACES: Final = (0, 512, 1024, 3 * BLOCK, 3 * BLOCK + 512, 9 * BLOCK)
STEPS_MAX: Final = 30
ONCE: Final = {"in place", "plan", "first step", "retire"}
"""What one thread does, or one task."""
ALONE: Final = {"first step": {"flush", "retire"}}
"""What goes on only beside these."""


@attrs.frozen
class Drawn:
    """One of the three."""

    name: str
    at: int
    letter: bytes
    stops_at: int
    """Before which of its steps; the third stops at none."""


def draw(random: Random) -> list[Drawn]:
    """Three whose bytes do not overlap, which may be in flight together."""
    drawn: list[Drawn] = []
    while len(drawn) < 3:
        name = random.choice([*REQUESTS, *REQUESTS, *ALL])
        one = Drawn(name, random.choice(PLACES), b"fst"[len(drawn) :][:1], random.randrange(STEPS_MAX))
        if all(may_meet(one, other) for other in drawn):
            drawn.append(one)
    return drawn


def may_meet(one: Drawn, other: Drawn) -> bool:
    if one.name == other.name and one.name in ONCE:
        return False
    if {"plan", "first step"} <= {one.name, other.name}:  # one task does both
        return False
    for each, beside in ((one, other), (other, one)):
        if beside.name not in ALONE.get(each.name, ALL):
            return False
    return not overlap(bytes_of(one), bytes_of(other))


def bytes_of(one: Drawn) -> range:
    if one.name in WHOLE:
        return range(one.at // BLOCK * BLOCK, one.at // BLOCK * BLOCK + BLOCK)
    return range(one.at, one.at + 512) if one.name in ("write", "atomic", "zero", "read") else range(0)


def overlap(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


@pytest.mark.patches
@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_are_done(seed: int) -> None:
    for number in range(ROUNDS):
        all_are_done(f"{seed} {number}")


def all_are_done(seed: str) -> None:
    """Draw with `seed`: reads are right, and what was written is there, also after a power cut."""
    random = Random(seed)
    disk = MemoryDisk(random)
    store = random.choice((*MAKERS, above_a_deleted_snapshot))(disk)
    if random.random() < 0.8:
        store.write(7 * BLOCK, BLOCK, [b"m" * BLOCK])  # the state on disk says that there are writes
    model = bytearray(store.read(0, SIZE_BYTES))
    if isinstance(store._head, LayerStack) and random.random() < 0.8:
        store._head.index.drop(0, 1)  # all find that it has to be loaded
    store.begin_in_place()
    note_locks(store, disk)
    drawn = draw(random)
    wrong: list[str] = []

    def carry_out(one: Drawn) -> None:
        said = ALL[one.name](store, one.at, one.letter)
        if one.name == "read" and bytes(said) != model[one.at : one.at + 512]:  # type: ignore[call-overload]
            wrong.append(f"{one} has read {bytes(said)[:1]!r}")  # type: ignore[call-overload]

    interleave(disk, drawn, carry_out)
    for one in drawn:
        after(model, one.name, one.at, one.letter)
    what = f"{seed}: {drawn}"
    assert not wrong, what
    assert store.read(0, SIZE_BYTES) == model, what
    store.verify(Extent(0, SIZE_BYTES))
    store.flush()
    if store.chain.reopened and random.random() < 0.5:
        finish(store)
    assert store.read(0, SIZE_BYTES) == model, what
    disk.power_cut()
    assert open_memory(disk, "b-2").read(0, SIZE_BYTES) == model, what


def interleave(disk: MemoryDisk, drawn: list[Drawn], carry_out: Callable[[Drawn], None]) -> None:
    """Do the three in threads as the module says."""
    first, second, third = drawn
    stopped, go_on = threading.Event(), threading.Event()

    def in_thread(one: Drawn) -> threading.Thread:
        def run() -> None:
            try:
                carry_out(one)  # what it raises, pytest sees
            finally:
                if one is second:
                    stopped.set()

        return threading.Thread(target=run, daemon=True)  # one that never ends fails the test, and only it

    threads = {one.letter: in_thread(one) for one in drawn}
    left = {threads[one.letter]: one.stops_at for one in (first, second)}

    def before_step(_: str) -> None:
        here = threading.current_thread()
        if here not in left:
            return
        left[here] -= 1
        if left[here] != -1:
            return
        if here is threads[first.letter]:
            threads[second.letter].start()
            stopped.wait(WAIT_S)
        else:
            threads[third.letter].start()
            threads[third.letter].join(WAIT_S)
            stopped.set()
            go_on.wait(WAIT_S)

    disk.before_step = before_step
    threads[first.letter].start()
    threads[first.letter].join(10)
    go_on.set()
    disk.before_step = no_fault
    for thread in threads.values():
        if thread.ident is None:
            thread.start()
        thread.join(10)
        assert not thread.is_alive()
