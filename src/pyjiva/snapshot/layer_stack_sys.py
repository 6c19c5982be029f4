"""Several layers as one file: what the head does not hold is read from the layers below.
Blocking calls only.

It has the verbs of a `CheckedFile`, so a store over one layer has that in its place, and pays nothing for
what stands here.

A *read* asks the table (`layer_index`) which layer has each block and reads there, checksums and all.

A *write* to blocks that the head holds goes there as it is.  A block that it does not hold yet is written
whole: what the write leaves of it is read from below first.  Then it is marked as held, and then the table
changes, so a process that is killed at any moment leaves the old block or the new one.  `sync_data` makes
data stable first and the marks after it (`held_map_sys`), also those that a process before this one wrote.

*A layer that was reopened* is the one below a head that takes more writes than a merge moves, while it is
merged into it (`merge_sys`).  It takes the writes to the blocks that it has, in place, as the head does those
to its own.  So the head gets no block that the two have already, and the merge comes to an end.

*Zeroing* punches the blocks that the head holds, and marks as held, over a hole, those under which a layer
has data.  What is zeros below already stays as it is.

The caller's locks keep overlapping requests apart, as for a `CheckedFile`; two writes to different sectors
of one block may run at once.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs

from pyjiva.errors import StorageError
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.held_map_sys import HeldMap
from pyjiva.snapshot.layer_copy_sys import copy_blocks, whole_blocks
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, LayerIndex, Run
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer, CheckedFile
from pyjiva.units import MIB

__all__ = ["LayerStack", "OpenLayer", "block_count"]

_SHIFT: Final = 12
_MASK: Final = SUM_BLOCK_BYTES - 1
_LIFT_BLOCKS: Final = MIB >> _SHIFT


def block_count(size_bytes: int) -> int:
    """How many blocks `size_bytes` have; the last may be short."""
    return -(-size_bytes >> _SHIFT)


@attrs.define(eq=False)
class OpenLayer:
    """A layer's files.  The lowest layer of a chain has no map: it holds every block."""

    file: CheckedFile
    held: HeldMap | None

    def bits(self, chunk: int, blocks: int) -> int:
        """The blocks of a chunk of `blocks` blocks that it holds."""
        if self.held is None:
            return (1 << blocks) - 1
        return self.held.bits(chunk) if self.held.present >> chunk & 1 else 0

    def sync_data(self) -> None:
        """Data first, then the marks of what became stable by that.  One thread at a time."""
        if self.held is None:
            self.file.sync_data()
            return
        taken = self.held.take_unstable()
        self.file.sync_data()
        if taken or self.held.in_doubt:
            self.held.settle(taken)

    def close(self) -> None:
        """Give the files back."""
        self.file.close()
        if self.held is not None:
            self.held.close()


@attrs.define(eq=False)
class LayerStack:  # hot
    """`layers`, the lowest first; the last one takes the writes.  It owns none of them."""

    layers: list[OpenLayer]
    size_bytes: int
    index: LayerIndex = attrs.field(init=False)
    reopened_number: int = attrs.field(default=-1, init=False)
    """Of the layer that takes writes besides the head; -1: none does.  Changes while nothing is in flight."""
    torn: set[int] = attrs.field(factory=set, init=False)
    """Chunks in which a write failed: the head's file may have there what it does not hold."""
    _head: OpenLayer = attrs.field(init=False)
    _held: HeldMap = attrs.field(init=False)
    _number: int = attrs.field(init=False)
    _copy_up: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Held while a block that the head does not hold is written in part."""
    _sync: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self.index = LayerIndex(block_count(self.size_bytes), lock=threading.Lock())
        self._take_head(self.layers[-1])

    def _take_head(self, head: OpenLayer) -> None:
        assert head.held is not None, "the head above other layers has a map"
        self._head, self._held, self._number = head, head.held, len(self.layers) - 1

    def push(self, head: OpenLayer) -> None:
        """A new, empty head on top of all; nothing is in flight."""
        self.layers.append(head)
        self._take_head(head)
        self.reopened_number = -1
        self.torn.clear()

    @property
    def mismatches(self) -> int:
        """Reads that were refused because a block was not what had been written."""
        return sum(layer.file.mismatches for layer in self.layers)

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See CheckedFile.  None also if only the disk knows who has the blocks."""
        if not length_bytes:
            return b""
        first = offset_bytes >> _SHIFT
        count = ((offset_bytes + length_bytes - 1) >> _SHIFT) + 1 - first
        runs = self._find_in_memory(first, count)
        if runs is None:
            return None
        if len(runs) == 1:
            return self.layers[runs[0][0]].file.read_nowait(offset_bytes, length_bytes)
        data = bytearray(length_bytes)
        for number, part in self._parts(runs, offset_bytes, length_bytes):
            piece = self.layers[number].file.read_nowait(part.offset_bytes, part.length_bytes)
            if piece is None:
                return None
            data[part.offset_bytes - offset_bytes : part.end_bytes - offset_bytes] = piece
        return data

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See CheckedFile."""
        runs = self._find(offset_bytes, length_bytes)
        if len(runs) == 1:
            return self.layers[runs[0][0]].file.read(offset_bytes, length_bytes)
        data = bytearray(length_bytes)
        for number, part in self._parts(runs, offset_bytes, length_bytes):
            piece = self.layers[number].file.read(part.offset_bytes, part.length_bytes)
            data[part.offset_bytes - offset_bytes : part.end_bytes - offset_bytes] = piece
        return data

    def read_unverified(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See CheckedFile."""
        data = bytearray(length_bytes)
        for number, part in self._parts(self._find(offset_bytes, length_bytes), offset_bytes, length_bytes):
            piece = self.layers[number].file.read_unverified(part.offset_bytes, part.length_bytes)
            data[part.offset_bytes - offset_bytes : part.end_bytes - offset_bytes] = piece
        return data

    def allocated(self, extent: Extent) -> list[Extent]:
        """See CheckedFile."""
        found: list[Extent] = []
        for number, part in self._parts_of(extent):
            found += self.layers[number].file.allocated(part)
        return merge_extents(found)

    def verify(self, extent: Extent) -> list[Extent]:
        """See CheckedFile."""
        bad: list[Extent] = []
        for number, part in self._parts_of(extent):
            bad += self.layers[number].file.verify(part)
        return merge_extents(bad)

    def writes_in_place(self, offset_bytes: int, length_bytes: int) -> bool:
        """Whether a write need not look at the disk: who has the blocks is known, nothing is copied up."""
        first = offset_bytes >> _SHIFT
        last = (offset_bytes + length_bytes - 1) >> _SHIFT
        runs = self._find_in_memory(first, last + 1 - first) if length_bytes else []
        if runs is None:
            return False
        end = offset_bytes + length_bytes
        whole = not offset_bytes & _MASK and (not end & _MASK or end == self.size_bytes)
        return whole or all(run[0] == self._number for run in runs)

    def write(
        self,
        offset_bytes: int,
        buffers: Sequence[Buffer],
        sums: bytes | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        """See CheckedFile."""
        length = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if not length:
            return
        end = offset_bytes + length
        runs = self._find(offset_bytes, length)
        if len(runs) == 1 and runs[0][0] == self._number:
            self._head.file.write(offset_bytes, buffers, sums, in_place=in_place)
        elif self.reopened_number >= 0 and any(run[0] == self.reopened_number for run in runs):
            self._write_apart(offset_bytes, length, buffers, runs, sums)
        elif offset_bytes & _MASK or (end & _MASK and end != self.size_bytes):
            with self._copy_up:
                self._write_parts(offset_bytes, end, buffers)
        else:
            self._write_blocks(offset_bytes, buffers, runs, sums, in_place=in_place)

    def _write_apart(
        self,
        offset_bytes: int,
        length_bytes: int,
        buffers: Sequence[Buffer],
        runs: Sequence[Run],
        sums: bytes | None,
    ) -> None:
        """A write to blocks of which the reopened layer has some: they go there, the others as any write.

        Parts of a block go there only as long as nobody lifts the block, which may be for a write to others.
        """
        data = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        for number, part in self._parts(runs, offset_bytes, length_bytes):
            start = part.offset_bytes - offset_bytes
            piece = (data[start : start + part.length_bytes],)
            its_sums = None
            if sums is not None:
                first = start >> _SHIFT << 3
                last = first + (block_count(part.length_bytes) << 3)
                its_sums = sums[first:last]
            if number != self.reopened_number:
                self.write(part.offset_bytes, piece, its_sums)
            elif self._is_whole(part):
                self.layers[number].file.write(part.offset_bytes, piece, its_sums)
            else:
                with self._copy_up:
                    runs_now = self._find(part.offset_bytes, part.length_bytes)
                    if is_there := len(runs_now) == 1 and runs_now[0][0] == number:
                        self.layers[number].file.write(part.offset_bytes, piece)
                if not is_there:
                    self.write(part.offset_bytes, piece)

    def _is_whole(self, part: Extent) -> bool:
        end = part.end_bytes
        return not part.offset_bytes & _MASK and (not end & _MASK or end == self.size_bytes)

    def _write_blocks(
        self,
        offset_bytes: int,
        buffers: Sequence[Buffer],
        runs: Sequence[Run],
        sums: bytes | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        """Write blocks, the parts of which that the head does not hold are whole, and hold them all.

        `runs` say which they are and who has them; layers below may change that meanwhile, among each other.
        A kill before they are held may leave the word that says that they are being written: what is
        forgotten then does not count.
        """
        first = runs[0][1]
        count = runs[-1][1] + runs[-1][2] - first
        try:
            self._head.file.write(offset_bytes, buffers, sums, in_place=in_place)
            self._mark(runs)
        except StorageError:
            self._give_up(first, count)
            raise
        self.index.put(first, count, self._number)

    def _mark(self, runs: Iterable[Run]) -> None:
        """The head holds these blocks.  Those that it held already keep their mark: one that says STABLE must
        not go back.
        """
        for number, start, length in runs:
            if number != self._number:
                self._held.mark(start, length)

    def _give_up(self, first: int, count: int) -> None:
        """A write has failed: the map may have taken a part of it."""
        self.index.drop(first, count)
        self.torn.update(range(first // CHUNK_BLOCKS, (first + count - 1) // CHUNK_BLOCKS + 1))

    @contextmanager
    def _holding(self, first: int, count: int) -> Iterator[None]:
        """In the body the head's file gets what these blocks are from then on.

        The map first, then the table: see `layer_index.load`.
        """
        try:
            yield
            self._mark(self._find(first << _SHIFT, count << _SHIFT))
        except StorageError:
            self._give_up(first, count)
            raise
        self.index.put(first, count, self._number)

    def _write_parts(self, offset_bytes: int, end_bytes: int, buffers: Sequence[Buffer]) -> None:
        start, spoilt = offset_bytes, []
        data = list(buffers)
        low = self._block(offset_bytes)
        if low.offset_bytes < offset_bytes and not self._holds(low):
            old, bad = self._old(low)
            data.insert(0, memoryview(old)[: offset_bytes - low.offset_bytes])
            start = low.offset_bytes
            spoilt += [low] if bad else []
        high = self._block(end_bytes - 1)
        if end_bytes < high.end_bytes and not self._holds(high):
            old, bad = self._old(high)
            data.append(memoryview(old)[end_bytes - high.offset_bytes :])
            spoilt += [high] if bad else []
        first = low.offset_bytes >> _SHIFT
        count = (high.offset_bytes >> _SHIFT) + 1 - first
        if not spoilt:
            self._write_blocks(start, data, self._find(first << _SHIFT, count << _SHIFT))
            return
        with self._holding(first, count):  # after it is bad: a kill in between must not make it believed
            self._head.file.write(start, data)
            for block in spoilt:
                self._head.file.spoil(block.offset_bytes)

    def _block(self, offset_bytes: int) -> Extent:
        start = offset_bytes & ~_MASK
        return Extent(start, min(SUM_BLOCK_BYTES, self.size_bytes - start))

    def _holds(self, block: Extent) -> bool:
        return self._find(block.offset_bytes, 1)[0][0] == self._number

    def _old(self, block: Extent) -> tuple[Buffer, bool]:
        """What a block that the head does not hold has, and whether that is not what was written."""
        file = self.layers[self._find(block.offset_bytes, 1)[0][0]].file
        old = file.read_unverified(block.offset_bytes, block.length_bytes)
        return old, bool(file.bad_blocks(block.offset_bytes, old))

    def lift(self, extent: Extent) -> None:
        """Copy the blocks of `extent` into the head, as far as it does not hold them.  Nothing reads
        otherwise.
        """
        with self._copy_up:
            for number, first, count in self._find(extent.offset_bytes, extent.length_bytes):
                if number != self._number:
                    for start in range(first, first + count, _LIFT_BLOCKS):
                        self._lift_run(
                            self.layers[number].file, start, min(_LIFT_BLOCKS, first + count - start)
                        )

    def _lift_run(self, below: CheckedFile, first: int, count: int) -> None:
        start = first << _SHIFT
        blocks = Extent(start, min(count << _SHIFT, self.size_bytes - start))
        with self._holding(first, count):
            self._head.file.punch(blocks.offset_bytes, blocks.length_bytes)
            for part in whole_blocks(below.allocated(blocks), self.size_bytes):
                copy_blocks(below, self._head.file, part)

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """See CheckedFile."""
        if not length_bytes:
            return
        end = offset_bytes + length_bytes
        first = min(end, -(-offset_bytes >> _SHIFT) << _SHIFT)
        last = end if end == self.size_bytes else max(first, end & ~_MASK)
        for edge in (Extent(offset_bytes, first - offset_bytes), Extent(last, end - last)):
            for part in self.allocated(edge) if edge.length_bytes else ():
                self.write(part.offset_bytes, (bytes(part.length_bytes),))
        for number, part in self._parts_of(Extent(first, last - first)):
            if number == self._number or number == self.reopened_number:
                self.layers[number].file.punch(part.offset_bytes, part.length_bytes)
                continue
            for data in whole_blocks(self.layers[number].file.allocated(part), self.size_bytes):
                with self._holding(data.offset_bytes >> _SHIFT, block_count(data.length_bytes)):
                    self._head.file.punch(data.offset_bytes, data.length_bytes)

    def spoil(self, offset_bytes: int) -> None:
        """See CheckedFile; the block has just been written."""
        self.layers[self._find(offset_bytes, 1)[0][0]].file.spoil(offset_bytes)

    def sync_data(self) -> None:
        """See CheckedFile."""
        with self._sync:  # nobody may find nothing to do while another one is still at it
            if self.reopened_number >= 0:
                self.layers[self.reopened_number].file.sync_data()
            self._head.sync_data()

    def sync_sums(self) -> None:
        """See CheckedFile.  Those of layers that take no writes were synced when they were sealed."""
        if self.reopened_number >= 0:
            self.layers[self.reopened_number].file.sync_sums()
        self._head.file.sync_sums()

    def forget_table(self, extents: Iterable[Extent]) -> None:
        """The maps may have changed there: look at them again."""
        for extent in extents:
            self.index.drop(extent.offset_bytes >> _SHIFT, block_count(extent.length_bytes))

    def load_all(self) -> None:
        """Let the table know every block, as far as its memory reaches."""
        for chunk in range(-(-self.index.blocks // CHUNK_BLOCKS)):
            if not self.index.is_loaded(chunk):
                self._load_chunk(chunk)

    def _find(self, offset_bytes: int, length_bytes: int) -> list[Run]:
        if not length_bytes:
            return []
        first = offset_bytes >> _SHIFT
        count = ((offset_bytes + length_bytes - 1) >> _SHIFT) + 1 - first
        runs = self.index.find(first, count)
        if runs is not None:
            return runs
        runs = []
        for start in range(first & -CHUNK_BLOCKS, first + count, CHUNK_BLOCKS):  # each may be dropped again
            low, high = max(first, start), min(first + count, start + CHUNK_BLOCKS)
            while (found := self.index.find(low, high - low)) is None:
                self._load_chunk(start // CHUNK_BLOCKS)
            runs += found
        return runs

    def _load_chunk(self, chunk: int) -> None:
        blocks = self.index.blocks_of(chunk)
        loaded = False
        while not loaded:
            seen = self.index.changes
            rest = (1 << blocks) - 1
            held: list[tuple[int, int]] = []
            for number in range(len(self.layers) - 1, -1, -1):
                own = self.layers[number].bits(chunk, blocks) & rest
                if own:
                    held.append((number, own))
                    rest ^= own
                    if not rest:
                        break
            loaded = self.index.load(chunk, held, seen)

    def _find_in_memory(self, first: int, count: int) -> list[Run] | None:
        """Who has the blocks, where the table knows, or nothing was written there above the lowest layer, as
        after a first snapshot; None: the disk must be asked.
        """
        runs = self.index.find(first, count)
        if runs is not None:
            return runs
        for chunk in range(first // CHUNK_BLOCKS, (first + count - 1) // CHUNK_BLOCKS + 1):
            if not self.index.is_loaded(chunk):
                seen = self.index.changes
                blocks = self.index.blocks_of(chunk)
                number = len(self.layers) - 1
                while (held := self.layers[number].held) is not None:
                    if held.present >> chunk & 1:
                        return None
                    number -= 1
                self.index.load(chunk, [(number, (1 << blocks) - 1)], seen)
        return self.index.find(first, count)

    def _parts_of(self, extent: Extent) -> Iterable[tuple[int, Extent]]:
        runs = self._find(extent.offset_bytes, extent.length_bytes)
        return self._parts(runs, extent.offset_bytes, extent.length_bytes)

    def _parts(
        self, runs: Iterable[Run], offset_bytes: int, length_bytes: int
    ) -> Iterable[tuple[int, Extent]]:
        """`runs` as bytes, clipped to the range."""
        end_bytes = offset_bytes + length_bytes
        for number, first, count in runs:
            start = max(offset_bytes, first << _SHIFT)
            yield number, Extent(start, min(end_bytes, (first + count) << _SHIFT) - start)

    def self_check(self) -> None:
        """The table agrees with the maps, wherever it is loaded; nothing is in flight."""
        self.index.self_check()
        for chunk in range(-(-self.index.blocks // CHUNK_BLOCKS)):
            first, blocks = chunk * CHUNK_BLOCKS, self.index.blocks_of(chunk)
            known = [layer.bits(chunk, blocks) for layer in self.layers]
            for number, start, count in self.index.find(first, blocks) or ():
                ones = ((1 << count) - 1) << start - first
                assert known[number] & ones == ones
                assert not any(bits & ones for bits in known[number + 1 :])
