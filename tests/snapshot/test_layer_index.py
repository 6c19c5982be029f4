"""The table of layers is a list with a number for each block, of bounded size."""

import gc
import tracemalloc
from itertools import pairwise
from random import Random
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, LayerIndex, Run, runs_of_bits
from pyjiva.units import MIB

BLOCKS: Final = 2 * CHUNK_BLOCKS + 100
PLACES = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 300) | st.integers(1, BLOCKS)).map(
    lambda place: (place[0], min(place[1], BLOCKS - place[0]))
)


def sets_of(numbers: list[int]) -> list[tuple[int, int]]:
    sets: dict[int, int] = {}
    for at, number in enumerate(numbers):
        sets[number] = sets.get(number, 0) | 1 << at
    return list(sets.items())


def runs_of(numbers: list[int], first: int) -> list[Run]:
    runs: list[Run] = []
    for at, number in enumerate(numbers, first):
        if runs and runs[-1][0] == number:
            runs[-1] = (number, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((number, at, 1))
    return runs


class IndexMachine(RuleBasedStateMachine):
    """An index, and a list; `model` is also what its maps on disk would say."""

    @initialize(
        layers=st.sampled_from([1, 2, 16, 17, 256, 300]),
        run=st.sampled_from([1, 7, 1000]),
        seed=st.integers(0, 99),
    )
    def create(self, layers: int, run: int, seed: int) -> None:
        self.index = LayerIndex(BLOCKS, memory_limit_bytes=9000)
        self.random = Random(seed)
        self.layers = layers
        self.model = [self.random.randrange(layers) for _ in range(0, BLOCKS, run) for _ in range(run)][
            :BLOCKS
        ]

    def sets(self, chunk: int) -> list[tuple[int, int]]:
        return sets_of(self.model[chunk * CHUNK_BLOCKS : (chunk + 1) * CHUNK_BLOCKS])

    @rule(place=PLACES, number=st.integers(0, 400))
    def put(self, place: tuple[int, int], number: int) -> None:
        first, count = place
        self.model[first : first + count] = [number] * count
        self.index.put(first, count, number)

    @rule(seed=st.integers(0, 99), step=st.integers(1, 3))
    def put_many(self, seed: int, step: int) -> None:
        random = Random(seed)
        for first in range(random.randrange(BLOCKS), min(BLOCKS, CHUNK_BLOCKS + 900), step + 1):
            number = random.randrange(self.layers + 1)
            self.model[first : first + step] = [number] * len(self.model[first : first + step])
            self.index.put(first, min(step, BLOCKS - first), number)

    @rule(chunk=st.integers(0, 2))
    def load(self, chunk: int) -> None:
        assert self.index.load(chunk, self.sets(chunk), self.index.changes)
        assert self.index.is_loaded(chunk)

    @rule(place=PLACES, number=st.integers(0, 400), others=st.lists(st.integers(0, 2), max_size=2))
    def load_too_late(self, place: tuple[int, int], number: int, others: list[int]) -> None:
        """What another thread has read of the maps is older than what the table had since, or still has."""
        first, count = place
        chunk = first // CHUNK_BLOCKS
        self.index.drop(chunk * CHUNK_BLOCKS, 1)
        seen, sets = self.index.changes, self.sets(chunk)
        self.load(chunk)
        self.put((first, min(count, (chunk + 1) * CHUNK_BLOCKS - first)), number)
        for other in others:
            self.load(other)
        self.index.load(chunk, sets, seen)

    @rule(place=PLACES, old=st.integers(0, 20), new=st.integers(0, 400))
    def replace(self, place: tuple[int, int], old: int, new: int) -> None:
        first, count = place
        kept = self.model[first : first + count]
        self.model[first : first + count] = [new if number == old else number for number in kept]
        self.index.replace(first, count, old, new)

    @rule(place=PLACES)
    def drop(self, place: tuple[int, int]) -> None:
        self.index.drop(*place)
        assert self.index.find(*place) is None

    @rule(place=PLACES)
    def find(self, place: tuple[int, int]) -> None:
        first, count = place
        runs = self.index.find(first, count)
        chunks = range(first // CHUNK_BLOCKS, (first + count - 1) // CHUNK_BLOCKS + 1)
        assert (runs is None) == (not all(self.index.is_loaded(chunk) for chunk in chunks))
        if runs is not None:
            assert runs == runs_of(self.model[first : first + count], first)

    @invariant()
    def check(self) -> None:
        if hasattr(self, "index"):
            self.index.self_check()
            for chunk in range(3):
                self.find((chunk * CHUNK_BLOCKS, self.index.blocks_of(chunk)))


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)


@pytest.mark.parametrize("layers", [2, 3, 15, 16, 17, 200, 300])
def test_changes_at_the_borders_of_runs(layers: int) -> None:
    """Where runs grow, meet, are cut and vanish, and where they become too many for each way to keep them."""
    for seed in range(6):
        random = Random(seed)
        index = LayerIndex(BLOCKS, memory_limit_bytes=MIB)
        chunk = random.choice([0, BLOCKS // CHUNK_BLOCKS])
        blocks, base = index.blocks_of(chunk), chunk * CHUNK_BLOCKS
        model = [0] * blocks
        assert index.load(chunk, [(0, (1 << blocks) - 1)], index.changes)
        for _ in range(random.choice([20, 60, 700])):
            start = random.randrange(blocks)
            if random.randrange(3):  # at a border
                while start and model[start] == model[start - 1]:
                    start -= 1
                start = max(0, min(blocks - 1, start + random.randint(-1, 1)))
            elif not random.randrange(3):
                start = blocks - random.randint(1, 5)
            end = min(blocks, start + random.choice([1, 1, 1, 2, 3, 40]))
            around = model[max(0, start - 1) : end + 1]
            number = random.choice([random.choice(around), random.randrange(layers)])
            model[start:end] = [number] * (end - start)
            index.put(base + start, end - start, number)
            low, high = max(0, start - 3), min(blocks, end + 3)
            assert index.find(base + low, high - low) == runs_of(model[low:high], base + low)
            assert index.find(base + start, 1) == [(number, base + start, 1)]
        assert index.find(base, blocks) == runs_of(model, base)
        for at in random.sample(range(blocks), min(blocks, 200)):
            assert index.find(base + at, 1) == [(model[at], base + at, 1)]
        index.self_check()


def test_a_load_that_a_change_overtook_is_refused() -> None:
    index = LayerIndex(CHUNK_BLOCKS)
    seen = index.changes
    index.put(5, 1, 1)
    assert not index.load(0, [(0, (1 << CHUNK_BLOCKS) - 1)], seen)
    assert index.find(5, 1) is None


def test_a_load_that_another_one_and_a_change_overtook_changes_nothing() -> None:
    """The change was of a chunk that was loaded, so that it alone did not tell the first load of itself."""
    index = LayerIndex(CHUNK_BLOCKS)
    seen, held = index.changes, [(0, (1 << CHUNK_BLOCKS) - 1)]
    assert index.load(0, held, index.changes)
    index.put(5, 1, 1)
    assert index.load(0, held, seen)
    assert index.find(5, 1) == [(1, 5, 1)]


def test_a_load_is_refused_that_such_a_change_overtook_though_the_chunk_is_put_out_since() -> None:
    index = LayerIndex(2 * CHUNK_BLOCKS, memory_limit_bytes=1)
    seen, held = index.changes, [(0, (1 << CHUNK_BLOCKS) - 1)]
    assert index.load(0, held, index.changes)
    index.put(5, 1, 1)
    assert index.load(1, [(0, 1), (1, (1 << CHUNK_BLOCKS) - 2)], index.changes)
    assert not index.is_loaded(0)
    assert not index.load(0, held, seen)
    assert index.find(5, 1) is None


@pytest.mark.parametrize("bits", [0, 1, 0b1011, 0b11110, (1 << 4096) - 1, 1 << 4095 | 1])
def test_runs_of_bits(bits: int) -> None:
    runs = list(runs_of_bits(bits))
    assert sum(((1 << count) - 1) << start for start, count in runs) == bits
    assert all(a[0] + a[1] < b[0] for a, b in pairwise(runs))


@pytest.mark.parametrize("layers", [2, 16, 200, 1000])
def test_the_memory_that_is_counted_is_the_memory_that_is_taken_and_stays_below_the_limit(
    layers: int,
) -> None:
    chunks = 64
    random = Random(1)
    sets = [sets_of([random.randrange(layers) for _ in range(CHUNK_BLOCKS)]) for _ in range(4)]
    tracemalloc.start()
    index = LayerIndex(chunks * CHUNK_BLOCKS, memory_limit_bytes=MIB // 4)
    for chunk in range(chunks):
        assert index.load(chunk, sets[chunk % 4], index.changes)
    gc.collect()  # empties the free lists of tuples too
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert index.memory_bytes <= MIB // 4
    assert taken <= index.memory_bytes * 1.15 + 16 * 1024
