"""Which layer of a chain has a block: one table for all layers, so that a read costs the same through one
layer and through a thousand.  Pure.

The table is a cache of the maps on disk (`held_map_sys`), by chunks of 4096 blocks (16 MiB).  A chunk is
loaded when it is first asked for, kept up to date by `put`, and dropped when the table has grown to its
limit; so opening costs nothing and memory is bounded whatever was written.  A loaded chunk is one of:

| entry | when | bytes |
|---|---|---|
| a number | one layer has all of it | 8 |
| runs: starts, then numbers, as 16-bit words | up to RUNS_MAX runs | 4 for each run |
| half bytes into a palette | up to 16 layers | 2048 |
| bytes into a palette | up to 256 layers | 4096 |
| 16-bit words | more | 8192 |

So a TiB written from start to end takes half a MiB, and one with a million runs 12 MiB.

Layers are numbers, 0 the lowest.  `find` may run beside `put` and `load` of other blocks in other threads:
entries are replaced whole or changed by single assignments.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeAlias

import attrs

from pyjiva.units import MIB, TIB

__all__ = ["CHUNK_BLOCKS", "LAYERS_MAX", "LayerIndex", "Run", "runs_of_bits"]

CHUNK_SHIFT: Final = 12
CHUNK_BLOCKS: Final = 1 << CHUNK_SHIFT
_MASK: Final = CHUNK_BLOCKS - 1
LAYERS_MAX: Final = 0xFFFF
RUNS_MAX: Final = 32  # `put` copies them, which takes several times as long as to change half a byte
MEMORY_BYTES_PER_TIB: Final = 240 * MIB  # the contract is 256
MEMORY_BYTES_MIN: Final = 16 * MIB
_OBJECT_BYTES: Final = 144  # of Python's objects around an entry

Run = tuple[int, int, int]
"""Layer number, first block, count of blocks."""


@attrs.define(eq=False)
class _Dense:
    """A number for each block: places in `palette` of 4 or 8 bits, or 16 bits without one."""

    data: "bytearray | array[int]"
    palette: list[int]

    def numbers(self, start: int, end: int) -> Sequence[int]:
        """The numbers of the blocks from `start` to `end` of the chunk."""
        data, palette = self.data, self.palette
        if len(data) == CHUNK_BLOCKS:
            part = data[start:end]
            return [palette[place] for place in part] if palette else part
        return [palette[data[at >> 1] >> (at & 1) * 4 & 15] for at in range(start, end)]

    def number_at(self, at: int) -> int:
        """The number of one block."""
        data, palette = self.data, self.palette
        if len(data) < CHUNK_BLOCKS:
            return palette[data[at >> 1] >> (at & 1) * 4 & 15]
        return palette[data[at]] if palette else data[at]

    def put(self, start: int, end: int, number: int) -> bool:
        """Change a range; False if `number` does not fit."""
        data, palette = self.data, self.palette
        if not palette:
            data[start:end] = array("H", (number,)) * (end - start)
            return True
        if number not in palette:
            if len(palette) == (256 if len(data) == CHUNK_BLOCKS else 16):
                return False
            palette.append(number)
        place = palette.index(number)
        if len(data) == CHUNK_BLOCKS:
            data[start:end] = bytes((place,)) * (end - start)  # type: ignore[call-overload]
            return True
        if start & 1:
            data[start >> 1] = data[start >> 1] & 0x0F | place << 4
            start += 1
        if end & 1 and end > start:
            data[end >> 1] = data[end >> 1] & 0xF0 | place
            end -= 1
        if end > start:
            data[start >> 1 : end >> 1] = bytes((place * 0x11,)) * (end - start >> 1)  # type: ignore[call-overload]
        return True

    def memory_bytes(self) -> int:
        """Bytes that it takes."""
        return _OBJECT_BYTES + len(self.data) * (1 if self.palette else 2) + 8 * len(self.palette)


_Entry: TypeAlias = "int | array[int] | _Dense"


@attrs.define(eq=False)
class LayerIndex:  # hot
    """The table of a volume of `blocks` blocks."""

    blocks: int
    memory_limit_bytes: int = 0
    """0: by the size of the volume."""
    _lock: AbstractContextManager[object] = attrs.field(factory=nullcontext)
    """Held during every change, if several threads make them."""
    memory_bytes: int = attrs.field(default=0, init=False)
    """What the loaded chunks take, besides 8 bytes for each chunk of the volume."""
    changes: int = attrs.field(default=0, init=False)
    """Moves with what a load under way must not miss; see `load`."""
    _chunks: "list[_Entry | None]" = attrs.field(factory=list, init=False)
    _sized: dict[int, int] = attrs.field(factory=dict, init=False)
    """Bytes of every chunk that takes any, oldest first."""

    def __attrs_post_init__(self) -> None:
        self._chunks = [None] * -(-self.blocks >> CHUNK_SHIFT)
        if not self.memory_limit_bytes:
            share = self.blocks * 4096 * MEMORY_BYTES_PER_TIB // TIB
            self.memory_limit_bytes = max(MEMORY_BYTES_MIN, share)

    def blocks_of(self, chunk: int) -> int:
        """How many blocks the chunk has: the last one may be short."""
        return min(CHUNK_BLOCKS, self.blocks - (chunk << CHUNK_SHIFT))

    def is_loaded(self, chunk: int) -> bool:
        """Whether `find` can answer for it."""
        return self._chunks[chunk] is not None

    def find(self, first: int, count: int) -> list[Run] | None:
        """Who has the blocks, in order; None if a chunk of them is not loaded."""
        chunk = first >> CHUNK_SHIFT
        end = first + count
        if (end - 1) >> CHUNK_SHIFT == chunk:
            entry = self._chunks[chunk]
            if type(entry) is int:
                return [(entry, first, count)]
            if entry is None:
                return None
            if isinstance(entry, _Dense) and count == 1:
                return [(entry.number_at(first & _MASK), first, 1)]
            return _runs_in(entry, first, end)
        runs: list[Run] = []
        while first < end:
            entry = self._chunks[first >> CHUNK_SHIFT]
            if entry is None:
                return None
            piece_end = min(end, (first | _MASK) + 1)
            for run in _runs_in(entry, first, piece_end):
                if runs and runs[-1][0] == run[0]:
                    runs[-1] = (run[0], runs[-1][1], runs[-1][2] + run[2])
                else:
                    runs.append(run)
            first = piece_end
        return runs

    def load(self, chunk: int, held: Sequence[tuple[int, int]], seen_changes: int) -> bool:
        """Take in a chunk: layer numbers, and for each the blocks that are its own as bits.

        The bits of all layers together are all blocks of the chunk, each once.  False, and nothing
        happens, if a change may have been missed since `changes` was `seen_changes`: read again.

        What another thread has loaded meanwhile stays: it has had the changes since.  A change of a chunk
        that is not loaded moves `changes`, and so does a chunk that is dropped, with what it knew of them.
        """
        entry = _entry_of(held)
        with self._lock:
            if self._chunks[chunk] is not None:
                return True
            if self.changes != seen_changes:
                return False
            self._put_entry(chunk, entry)
            while self.memory_bytes > self.memory_limit_bytes and len(self._sized) > 1:
                self._put_entry(next(iter(self._sized)), None)
                self.changes += 1
        return True

    def put(self, first: int, count: int, number: int) -> None:
        """From now on layer `number` has the blocks."""
        with self._lock:
            if first >> CHUNK_SHIFT == (first + count - 1) >> CHUNK_SHIFT:  # as nearly always
                self._put_piece(first, first + count, number)
                return
            for start, end in _pieces(first, count):
                self._put_piece(start, end, number)

    def replace(self, first: int, count: int, old: int, new: int) -> None:
        """From now on layer `new` has those of the blocks that layer `old` had."""
        with self._lock:
            for start, end in _pieces(first, count):
                entry = self._chunks[start >> CHUNK_SHIFT]
                if entry is None:
                    self.changes += 1
                    continue
                for number, at, length in _runs_in(entry, start, end):
                    if number == old:
                        self._put_piece(at, at + length, new)

    def _put_piece(self, first: int, end: int, number: int) -> None:
        chunk = first >> CHUNK_SHIFT
        entry = self._chunks[chunk]
        if entry is None:
            self.changes += 1
        elif end - first == self.blocks_of(chunk):
            self._put_entry(chunk, number)
        else:
            self._change(chunk, entry, first & _MASK, ((end - 1) & _MASK) + 1, number)

    def drop(self, first: int, count: int) -> None:
        """Nobody knows who has the blocks: the maps must be read again."""
        with self._lock:
            self.changes += 1
            for chunk in range(first >> CHUNK_SHIFT, ((first + count - 1) >> CHUNK_SHIFT) + 1):
                self._put_entry(chunk, None)

    def _change(self, chunk: int, entry: _Entry, start: int, end: int, number: int) -> None:
        if type(entry) is int:
            if entry == number:
                return
            entry = array("H", (0, entry))
        if isinstance(entry, array):
            changed = _change_runs(entry, start, end, number)
            if changed is entry:
                return
            if len(changed) <= 2 * RUNS_MAX:
                self._put_entry(chunk, changed if len(changed) > 2 else changed[1])
                return
            entry = changed
            if (dense := _half_bytes_of(changed)) is not None:
                self._put_entry(chunk, dense)
                return
        elif isinstance(entry, _Dense) and entry.put(start, end, number):
            return
        sets: dict[int, int] = {}
        for owner, at, length in _runs_in(entry, 0, self.blocks_of(chunk)):
            sets[owner] = sets.get(owner, 0) | _ones(at, length)
        changed_bits = _ones(start, end - start)
        sets = {owner: rest for owner, bits in sets.items() if (rest := bits & ~changed_bits)}
        sets[number] = sets.get(number, 0) | changed_bits
        self._put_entry(chunk, _entry_of(list(sets.items())))

    def _put_entry(self, chunk: int, entry: "_Entry | None") -> None:
        self._chunks[chunk] = entry
        self.memory_bytes -= self._sized.pop(chunk, 0)
        if isinstance(entry, array):
            self._sized[chunk] = _OBJECT_BYTES + 2 * len(entry)
        elif isinstance(entry, _Dense):
            self._sized[chunk] = entry.memory_bytes()
        self.memory_bytes += self._sized.get(chunk, 0)

    def self_check(self) -> None:
        """Every loaded chunk covers its blocks once, and the memory is what the chunks take."""
        assert self.memory_bytes == sum(self._sized.values())
        for chunk, entry in enumerate(self._chunks):
            if entry is not None:
                first, count = chunk << CHUNK_SHIFT, self.blocks_of(chunk)
                runs = _runs_in(entry, first, first + count)
                assert sum(run[2] for run in runs) == count
                assert (chunk in self._sized) == (type(entry) is not int)


def _pieces(first: int, count: int) -> Iterator[tuple[int, int]]:
    """The range as first blocks and ends, cut at the borders of chunks."""
    end = first + count
    while first < end:
        piece_end = min(end, (first | _MASK) + 1)
        yield first, piece_end
        first = piece_end


def _runs_in(entry: _Entry, first: int, end: int) -> list[Run]:
    """The runs of blocks from `first` to `end`, which lie in one chunk."""
    if type(entry) is int:
        return [(entry, first, end - first)]
    base = first & ~_MASK
    runs: list[Run] = []
    if isinstance(entry, array):
        half = len(entry) >> 1
        place = bisect_right(entry, first - base, 0, half) - 1
        while first < end:
            next_start = base + entry[place + 1] if place + 1 < half else end
            run_end = min(end, next_start)
            runs.append((entry[half + place], first, run_end - first))
            first = run_end
            place += 1
        return runs
    assert isinstance(entry, _Dense)
    numbers = entry.numbers(first - base, end - base)
    start, present = first, numbers[0]
    for at, number in enumerate(numbers, first):
        if number != present:
            runs.append((present, start, at - start))
            start, present = at, number
    runs.append((present, start, end - start))
    return runs


def _change_runs(entry: "array[int]", start: int, end: int, number: int) -> "array[int]":
    """A new entry, or this one if `number` has the blocks already.  Parts are copied whole: one number after
    the other would take several times as long.
    """
    half = len(entry) >> 1
    place = bisect_right(entry, start, 0, half) - 1
    owner = entry[half + place]
    run_end = CHUNK_BLOCKS if place + 1 == half else entry[place + 1]
    if owner == number and end <= run_end:
        return entry
    if entry[place] < start and end < run_end:  # within a run, as nearly always
        cut, place = place + 1, half + place + 1
        borders, owners = array("H", (start, end)), array("H", (number, owner))
        return entry[:cut] + borders + entry[cut:place] + owners + entry[place:]
    low = bisect_left(entry, start, 0, half)  # the first run that begins at or after `start`
    high = bisect_right(entry, end, low, half)  # the first that begins after `end`
    starts, numbers = array("H"), array("H")
    if not low or entry[half + low - 1] != number:
        starts.append(start)
        numbers.append(number)
    if end <= _MASK and (after := entry[half + high - 1]) != number:
        starts.append(end)  # what is left of the run that `end` lies in
        numbers.append(after)
    return entry[:low] + starts + entry[high:half] + entry[half : half + low] + numbers + entry[half + high :]


def _half_bytes_of(entry: "array[int]") -> _Dense | None:
    """The same, a half byte for each block; None: there are too many layers."""
    half = len(entry) >> 1
    dense = _Dense(bytearray(CHUNK_BLOCKS // 2), [])
    dense.palette.append(entry[half])
    for place in range(1, half):
        end = entry[place + 1] if place + 1 < half else CHUNK_BLOCKS
        if not dense.put(entry[place], end, entry[half + place]):
            return None
    return dense


def _ones(start: int, count: int) -> int:
    return ((1 << count) - 1) << start


def runs_of_bits(bits: int) -> Iterator[tuple[int, int]]:
    """Start and length of every run of ones, lowest first."""
    position = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & bits + 1).bit_length() - 1
        yield position + zeros, ones
        bits >>= ones
        position += zeros + ones


def _entry_of(held: Sequence[tuple[int, int]]) -> _Entry:
    if len(held) == 1:
        return held[0][0]
    runs_count = sum((bits & ~(bits << 1)).bit_count() for _, bits in held)
    if runs_count <= RUNS_MAX or len(held) > 256:
        runs = sorted((start, count, number) for number, bits in held for start, count in runs_of_bits(bits))
        if runs_count <= RUNS_MAX:
            return array("H", [run[0] for run in runs] + [run[2] for run in runs])
        words = array("H", (0,)) * CHUNK_BLOCKS
        for start, count, number in runs:
            words[start : start + count] = array("H", (number,)) * count
        return _Dense(words, [])
    palette = [number for number, _ in held]
    if len(held) <= 16:
        spread = sum(place * int(f"{bits:b}", 16) for place, (_, bits) in enumerate(held))
        return _Dense(bytearray(spread.to_bytes(CHUNK_BLOCKS // 2, "little")), palette)
    spread = sum(
        place * int(f"{bits:b}".replace("0", "00").replace("1", "01"), 16)
        for place, (_, bits) in enumerate(held)
    )
    return _Dense(bytearray(spread.to_bytes(CHUNK_BLOCKS, "little")), palette)
