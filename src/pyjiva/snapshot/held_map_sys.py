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

In memory a chunk's blocks are the bits of a number, the first block the lowest.  The file has a page for each
chunk.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, runs_of_bits
from pyjiva.sparse import DataFile
from pyjiva.units import MIB

__all__ = ["HeldMap", "Unstable", "bits_of"]

HELD: Final = 0x33
STABLE: Final = 0xCC
_HELD_ONE: Final = bytes((HELD,))
_DIGITS: Final = bytes(
    ord("0") if value == 0 else ord("1") if value in (HELD, STABLE) else ord("x") for value in range(256)
)
_ONLY_STABLE: Final = bytes(0 if value == HELD else value for value in range(256))
_ONLY_HELD: Final = bytes(HELD if value == HELD else 0 for value in range(256))
_WHOLE_BYTES: Final = bytes(0xFF if value == ord("1") else 0 for value in range(256))
_STEP_BLOCKS: Final = MIB

Unstable = dict[int, int]
"""By chunk, the blocks that are held and may not be stable; a chunk without any is not there."""


@attrs.define(eq=False)
class HeldMap:  # hot
    """The map of a layer of `blocks` blocks; it owns `_file`.  One thread at a time settles or releases."""

    _file: DataFile
    blocks: int
    present: int = 0
    """A bit for each chunk of which a byte may not be 0."""
    in_doubt: bool = attrs.field(default=False, init=False)
    """The disk may lack what the file has, of that which `take_unstable` does not name."""
    _unstable: Unstable = attrs.field(factory=dict)
    """Marked since the last `take_unstable`; all its chunks are `present`."""
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
                if bits := held._unstable_bits(chunk):
                    held._unstable[chunk] = bits
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
        with self._lock:
            try:
                if count == 1:  # as nearly always
                    self._file.write(first, (_HELD_ONE,))
                    self._note(first // CHUNK_BLOCKS, 1 << first % CHUNK_BLOCKS)
                    return
                for start in range(first, first + count, _STEP_BLOCKS):
                    length = min(_STEP_BLOCKS, first + count - start)
                    self._file.write(start, (_HELD_ONE * length,))
            except StorageError:  # a full disk: what is marked all the same is held, and must become stable
                for chunk, bits in _by_chunk(first, count):
                    self._note(chunk, bits & self._perhaps_unstable_bits(chunk))
                raise
            for chunk, bits in _by_chunk(first, count):
                self._note(chunk, bits)

    def _note(self, chunk: int, bits: int) -> None:
        """These blocks are marked as held, and not as stable."""
        before = self._unstable.get(chunk, 0)
        if not before:
            if not bits:
                return
            self.present |= 1 << chunk
        self._unstable[chunk] = before | bits

    def _perhaps_unstable_bits(self, chunk: int) -> int:
        """As `_unstable_bits`; all, if nobody can tell."""
        try:
            return self._unstable_bits(chunk)
        except StorageError:
            return _ones_below(CHUNK_BLOCKS)

    def take_unstable(self) -> Unstable:
        """What was marked since the last call, for `settle` once its data is stable."""
        with self._lock:
            taken, self._unstable = self._unstable, {}
        return taken

    def settle(self, taken: Mapping[int, int]) -> None:
        """The data of these blocks is stable: say so durably."""
        self.mark_blocks_stable(taken)
        self.sync()

    def mark_blocks_stable(self, blocks: Mapping[int, int]) -> None:
        """As `mark_stable`, of blocks by chunk."""
        self.in_doubt = True
        for chunk, bits in blocks.items():
            with self._lock:
                self.present |= 1 << chunk
                self._put(chunk, bits, STABLE)

    def mark_stable(self, ranges: Iterable[Extent]) -> None:
        """The data of these ranges of blocks is stable: say so; durably after `sync`.

        Raises StorageError: a part of it is done; the map is in doubt.
        """
        stable: dict[int, int] = {}
        for part in ranges:
            for chunk, bits in _by_chunk(part.offset_bytes, part.length_bytes):
                stable[chunk] = stable.get(chunk, 0) | bits
        self.mark_blocks_stable(stable)

    def _put(self, chunk: int, bits: int, mark: int) -> None:
        """With one write for what may be thousands of blocks: hosts that write to the file wait for each."""
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length, first = bits.bit_length(), chunk * CHUNK_BLOCKS + skipped
        chosen = int.from_bytes(f"{bits:b}".encode().translate(_WHOLE_BYTES), "big")
        marks = chosen & int.from_bytes(bytes((mark,)) * length, "big")
        content = int.from_bytes(self._file.read(first, length), "little")
        self._file.write(first, ((content & ~chosen | marks).to_bytes(length, "little"),))

    def release(self, released: Mapping[int, int]) -> None:
        """These blocks, by chunk, are not held any more, durably; none of them is being written."""
        self.in_doubt = True
        for chunk, bits in released.items():
            with self._lock:
                self._put(chunk, bits, 0)
                if left := self._unstable.pop(chunk, 0) & ~bits:
                    self._unstable[chunk] = left
        self.sync()
        for chunk in released:
            with self._lock:
                if not self.bits(chunk):
                    self.present &= ~(1 << chunk)

    def sweep(self) -> list[int]:
        """The machine went down: what was HELD is not.  The chunks in which something was."""
        swept = []
        self._unstable = {}
        for chunk in self.chunks():
            if bits := self._unstable_bits(chunk):
                for start, count in runs_of_bits(bits):
                    self._file.write(chunk * CHUNK_BLOCKS + start, (bytes(count),))
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
            there = {
                each: bits & _ones_below(blocks - each * CHUNK_BLOCKS)
                for each, bits in self._unstable.items()
            }
            self._unstable = {each: bits for each, bits in there.items() if bits}

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

    def _unstable_bits(self, chunk: int) -> int:
        """The blocks of the chunk that the file says are held, and does not say are stable."""
        return bits_of(self._read(chunk).translate(_ONLY_HELD), chunk)


def _by_chunk(first: int, count: int) -> list[tuple[int, int]]:
    """The blocks, of each chunk as bits."""
    chunk, start = divmod(first, CHUNK_BLOCKS)
    pieces = []
    while count > 0:
        length = min(count, CHUNK_BLOCKS - start)
        pieces.append((chunk, _ones_below(length) << start))
        chunk, start, count = chunk + 1, 0, count - length
    return pieces


def _ones_below(blocks: int) -> int:
    """The first `blocks` blocks of a chunk; it may have fewer, or they may be fewer than none."""
    return (1 << max(0, min(blocks, CHUNK_BLOCKS))) - 1


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
