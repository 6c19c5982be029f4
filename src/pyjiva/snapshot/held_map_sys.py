"""Which blocks a layer holds: a byte for each block of 4 KiB, in a sparse file beside the layer.
Blocking calls only.

A block that a layer above others *holds* is what its file has there, so a hole is zeros; one that it does not
hold is what the layers below say, whatever its file has.  The byte says

- 0: not held;
- HELD: held, written after the block's data, without waiting for the disk.  It counts as long as the machine
  has not gone down since: what is in the page cache outlives the process;
- STABLE: held, written when the data is on stable storage (`settle`).  It counts always.

So a power cut leaves of a block that was written for the first time either nothing, and the old content below
shows again, or all, if a flush was answered.  Without the difference a block of 4 KiB of which 512 bytes were
written, and which the power cut tore, would hide the old 3.5 KiB, which were stable.  Whoever opens the file
after the machine went down `sweep`s it first.

What the file has may be in the page cache alone: a process that was killed between writing and syncing
leaves marks that say STABLE, and a power cut takes them away.  So a map is `in_doubt` from its opening on,
and whenever such marks were written, until a `sync` succeeds; whoever answers for the marks (a flush, the end
of a merge) syncs it then, also if there is no mark to be written.  After a sync that failed the marks are
neither on the disk nor to be brought there by another one: the next process writes them again (`rewrite`).

No two values differ in fewer than four bits: a byte that rotted is noticed, not believed.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Final

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, runs_of_bits
from pyjiva.sparse import DataFile
from pyjiva.units import MIB

__all__ = ["HeldMap", "bits_of"]

HELD: Final = 0x33
STABLE: Final = 0xCC
_HELD_RUN: Final = re.compile(bytes((HELD,)) + b"+")
_DIGITS: Final = bytes(
    ord("0") if value == 0 else ord("1") if value in (HELD, STABLE) else ord("x") for value in range(256)
)
_ONLY_STABLE: Final = bytes(0 if value == HELD else value for value in range(256))
_STEP_BLOCKS: Final = MIB
_PAGE_BLOCKS: Final = 4096  # what the page cache writes at least, whatever was changed in it


@attrs.define(eq=False)
class HeldMap:
    """The map of a layer of `blocks` blocks; it owns `_file`.  One thread at a time settles or releases."""

    _file: DataFile
    blocks: int
    present: int = 0
    """A bit for each chunk of which a byte may not be 0."""
    in_doubt: bool = attrs.field(default=False, init=False)
    """The disk may lack what the file has, of that which `take_unstable` does not name."""
    _unstable: list[Extent] = attrs.field(factory=list)
    """Held since the last `take_unstable`, as ranges of blocks."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Held while bytes of the file, `present` or `_unstable` are changed."""

    @classmethod
    def open(cls, file: DataFile, blocks: int, *, unstable: bool) -> "HeldMap":
        """The map in `file`; `unstable`: a process that was killed may have left bytes that say HELD."""
        held = cls(file, blocks)
        held.in_doubt = True
        for part in file.allocated(Extent(0, blocks)):
            first = part.offset_bytes // CHUNK_BLOCKS
            last = (part.end_bytes - 1) // CHUNK_BLOCKS
            held.present |= ((1 << last + 1 - first) - 1) << first
        if unstable:
            for chunk in held.chunks():
                held._unstable += held._runs_of_held(chunk)
        return held

    def chunks(self) -> list[int]:
        """The chunks of which a byte may not be 0."""
        return [start + at for start, count in runs_of_bits(self.present) for at in range(count)]

    def bits(self, chunk: int) -> int:
        """The blocks of the chunk that are held, the first as the lowest bit.

        Raises StorageError BAD_CHECKSUM: a byte is none that was written.
        """
        return bits_of(self._read(chunk), chunk)

    def stable_bits(self, chunk: int) -> int:
        """As `bits`, of those blocks alone that are marked as stable; on the disk too, if not `in_doubt`."""
        return bits_of(self._read(chunk).translate(_ONLY_STABLE), chunk)

    def mark(self, first: int, count: int) -> None:
        """The blocks are held from now on; their data has been written."""
        marked = [Extent(first, count)]
        try:
            self._mark_held(first, count)
        except StorageError:  # a full disk: what is marked all the same is held, and must become stable
            marked = self._find_held(marked[0])
            raise
        finally:
            with self._lock:
                self._unstable += marked

    def take_unstable(self) -> list[Extent]:
        """What was marked since the last call, for `settle` once its data is stable."""
        with self._lock:
            taken, self._unstable = self._unstable, []
        return taken

    def settle(self, ranges: Iterable[Extent]) -> None:
        """The data of these ranges of blocks is stable: say so durably."""
        self.mark_stable(ranges)
        self.sync()

    def mark_stable(self, ranges: Iterable[Extent]) -> None:
        """The first half of `settle`.  Raises StorageError: a part of it is done; the map is in doubt.

        A page at a time, with one write for what may be hundreds of blocks: hosts that write to the file wait
        for each.
        """
        self.in_doubt = True
        runs = (piece for part in merge_extents(ranges) for piece in _cut_at_pages(part))
        for _, page in groupby(runs, key=lambda run: run.offset_bytes // _PAGE_BLOCKS):
            self._mark_stable_in_page(list(page))

    def _mark_stable_in_page(self, runs: Sequence[Extent]) -> None:
        first, end = runs[0].offset_bytes, runs[-1].end_bytes
        with self._changing(first, end - first):
            content = bytearray(self._file.read(first, end - first))
            for run in runs:
                at = run.offset_bytes - first
                content[at : at + run.length_bytes] = bytes((STABLE,)) * run.length_bytes
            self._file.write(first, (content,))

    def release(self, chunk: int, bits: int) -> None:
        """Blocks of a chunk are not held any more, durably; none of them is being written."""
        self.in_doubt = True
        with self._lock:
            for start, count in runs_of_bits(bits):
                self._file.write(chunk * CHUNK_BLOCKS + start, (bytes(count),))
        self.sync()
        with self._lock:
            if not self.bits(chunk):
                self.present &= ~(1 << chunk)

    def sweep(self) -> list[int]:
        """The machine went down: what was HELD is not.  The chunks in which something was."""
        swept = []
        self._unstable = []
        for chunk in self.chunks():
            runs = self._runs_of_held(chunk)
            for run in runs:
                self._file.write(run.offset_bytes, (bytes(run.length_bytes),))
            if runs:
                swept.append(chunk)
        if swept or self.in_doubt:  # an earlier process may have swept, and not have come to the sync
            self.sync()
        return swept

    def rewrite(self) -> None:
        """A sync has failed: let the next one bring all that the file has to the disk."""
        self.in_doubt = True
        for chunk in self.chunks():
            self._file.write(chunk * CHUNK_BLOCKS, (self._read(chunk),))

    def make_room(self, blocks: int) -> None:
        """Make the file large enough for `blocks`; then comes `sync`, and `blocks` is set."""
        if self._file.size_bytes() < blocks:
            self._file.truncate(blocks)

    @property
    def descriptor(self) -> int:
        """Of its file."""
        return self._file.descriptor

    def set_blocks(self, blocks: int) -> None:
        """The layer has so many blocks from now on; `make_room` was called for them if they are more."""
        with self._lock:
            self.blocks = blocks
            self.present &= (1 << -(-blocks // CHUNK_BLOCKS)) - 1
            there = [each.clip(Extent(0, blocks)) for each in self._unstable]
            self._unstable = [each for each in there if each is not None]

    def cut(self) -> None:
        """Let the file end where the map does."""
        if self._file.size_bytes() > self.blocks:
            self._file.truncate(self.blocks)

    def sync(self) -> None:
        """Bring the map to stable storage."""
        self._file.sync_data()
        self.in_doubt = False

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _read(self, chunk: int) -> bytes:
        first = chunk * CHUNK_BLOCKS
        return bytes(self._file.read(first, min(CHUNK_BLOCKS, self.blocks - first)))

    def _runs_of_held(self, chunk: int) -> list[Extent]:
        first = chunk * CHUNK_BLOCKS
        found = _HELD_RUN.finditer(self._read(chunk))
        return [Extent(first + run.start(), run.end() - run.start()) for run in found]

    def _find_held(self, blocks: Extent) -> list[Extent]:
        """The runs of `blocks` that say HELD."""
        chunks = range(blocks.offset_bytes // CHUNK_BLOCKS, (blocks.end_bytes - 1) // CHUNK_BLOCKS + 1)
        runs = [run.clip(blocks) for chunk in chunks for run in self._runs_of_held(chunk)]
        return [run for run in runs if run is not None]

    def _mark_held(self, first: int, count: int) -> None:
        with self._changing(first, count):
            for start in range(first, first + count, _STEP_BLOCKS):
                length = min(_STEP_BLOCKS, first + count - start)
                self._file.write(start, (bytes((HELD,)) * length,))

    @contextmanager
    def _changing(self, first: int, count: int) -> Iterator[None]:
        """The body marks some of these blocks; if it fails, it may have marked a part of them."""
        chunk, last = first // CHUNK_BLOCKS, (first + count - 1) // CHUNK_BLOCKS
        with self._lock:
            try:
                yield
            finally:
                self.present |= ((1 << last + 1 - chunk) - 1) << chunk


def _cut_at_pages(run: Extent) -> Iterator[Extent]:
    start = run.offset_bytes
    while start < run.end_bytes:
        end = min(run.end_bytes, (start // _PAGE_BLOCKS + 1) * _PAGE_BLOCKS)
        yield Extent(start, end - start)
        start = end


def bits_of(content: bytes, chunk: int) -> int:
    """The blocks that are held by `content`, the bytes of a chunk, as `HeldMap.bits` gives them.

    Raises StorageError BAD_CHECKSUM: a byte is none that was written.
    """
    digits = content.translate(_DIGITS)
    try:
        return int(digits[::-1], 2)
    except ValueError as error:
        raise StorageError(
            StorageFailure.BAD_CHECKSUM,
            f"the map of held blocks is damaged at block {chunk * CHUNK_BLOCKS + digits.index(b'x')}",
        ) from error
