"""A sparse file whose every block has a checksum beside it, in a file of its own.  Blocking calls only.

The checksum of a block of 4 KiB is the xxh3-64 of its content; 0 says *unknown*: never written, punched, or
being written.  A read compares what is known, so that what the disk has changed or lost is never given out
for what was written (DESIGN G4): `read` refuses it with BAD_CHECKSUM.

*A kill* between the data and its checksum must not look like rot.  So a write first makes its checksums
unknown, then writes the data, then the checksums: all of it goes to the page cache, which outlives the
process.  Where one thread alone writes in place, a word of memory, which outlives the process too, says which
blocks these are (`slot_sys`) in place of the first step: a call of the system less.  Whoever opens the file
after a kill makes those unknown that the word tells of.

*A power cut* keeps any mixture of what was not synced, of both files.  Whoever owns the file remembers
durably which regions were written since both were last synced (`sync_data`, then `sync_sums`), and makes
them unknown (`forget`) when the machine has gone down meanwhile.  So a torn or lost block is not taken for
rot, and what had been stable before keeps its checksum.  A flush need not sync the checksums.

*A bad block* that is known, since `read` or `verify` met it, keeps its wrong checksum until its new data is
there: a repair that fails, or is killed half way, must not let what rotted be believed.

*A part of a block* is written by reading the rest of it: a lock keeps two such writes to one block apart.
If what was there did not match its checksum, the new one is made wrong on purpose: the block stays bad until
it is written whole.

*Reads beside writes* are safe: a mismatch counts only if the block is not just being written in place, if the
checksum was the same before and after the data was read, as every other write makes it unknown first, and if
it is one while no part is written.  Two writes at once must not overlap; the controller's locks see to that.

512-byte sectors at the end of the file that fill no block make a short one.
"""

import struct
import threading
from collections.abc import Sequence
from typing import Final

import attrs
import xxhash

from pyjiva.block_sums import first_bad, known_sums, sums_of, sums_of_all
from pyjiva.buffers import Buffer
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.sparse.file_sys import DataFile
from pyjiva.units import KIB, MIB, STORED_BLOCK_BYTES, align_down

__all__ = ["SUM_BLOCK_BYTES", "CheckedFile", "extent_under_way", "sums_size_bytes"]

SUM_BLOCK_BYTES: Final = STORED_BLOCK_BYTES
_SHIFT: Final = 12
_MASK: Final = SUM_BLOCK_BYTES - 1
_SUM: Final = struct.Struct("<Q")
_SUM_SHIFT: Final = 3  # 8 bytes
_UNKNOWN: Final = bytes(KIB << _SUM_SHIFT)
_UNKNOWN_ONE: Final = bytes(_SUM.size)
_VERIFY_STEP_BYTES: Final = MIB
_ALL_ONES: Final = 2**64 - 1
_COUNT_BITS: Final = 16  # of a slot's word, which has the number of the first block above them
_COUNT_MASK: Final = (1 << _COUNT_BITS) - 1
_SLOT_BYTES_MAX: Final = _COUNT_MASK << _SHIFT
_GAP_BLOCKS_MAX: Final = 512  # a page of checksums that need not change
_BAD_MAX: Final = 65536  # far above what is under repair at any time; what is beyond is written as any other

_hash: Final = xxhash.xxh3_64_intdigest


def sums_size_bytes(size_bytes: int) -> int:
    """How long the file of the checksums is, for a file of `size_bytes`."""
    return -(-size_bytes // SUM_BLOCK_BYTES) << _SUM_SHIFT


def extent_under_way(word: int, size_bytes: int) -> Extent:
    """The blocks that a slot's `word` tells of, in a file of `size_bytes`; empty if it tells of none."""
    start = min(word >> _COUNT_BITS << _SHIFT, size_bytes)
    end = min(start + ((word & _COUNT_MASK) << _SHIFT), size_bytes)
    return Extent(start, end - start)


@attrs.define(eq=False)
class CheckedFile:  # hot
    """A file of `size_bytes` over `data` and `sums`; it owns both."""

    data: DataFile
    _sums: DataFile
    _size_bytes: int
    mismatches: int = attrs.field(default=0, init=False)
    """Reads that were refused because a block was not what had been written."""
    _bad: dict[int, None] = attrs.field(factory=dict, init=False)
    """Numbers of blocks that were seen to be bad and not written whole since, the first seen first."""
    _parts: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    """Held while a part of a block is written."""
    slot: memoryview | None = attrs.field(default=None, init=False)
    """The word that says what is being written in place; None: there is none."""

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See DataFile.  None also if a checksum does not match: `read` finds out why."""
        start = offset_bytes & _MASK
        if start or (length_bytes & _MASK and offset_bytes + length_bytes != self._size_bytes):
            blocks = self._whole_blocks(offset_bytes, length_bytes)
            whole = self.read_nowait(blocks.offset_bytes, blocks.length_bytes)
            return None if whole is None else memoryview(whole)[start : start + length_bytes]
        count = (length_bytes + _MASK) >> _SHIFT
        sums = self._sums.read_nowait(offset_bytes >> _SHIFT << _SUM_SHIFT, count << _SUM_SHIFT)
        if sums is None:
            return None
        data = self.data.read_nowait(offset_bytes, length_bytes)
        if data is None:
            return None
        return None if first_bad(sums, data) >= 0 else data

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See DataFile.  Raises StorageError BAD_CHECKSUM: a block is not what was written."""
        blocks = self._whole_blocks(offset_bytes, length_bytes)
        first = blocks.offset_bytes >> _SHIFT
        place, size = first << _SUM_SHIFT, sums_size_bytes(blocks.length_bytes)
        while True:  # again if a write was under way there
            sums = self._sums.read(place, size)
            data = self.data.read(blocks.offset_bytes, blocks.length_bytes)
            bad = first_bad(sums, data)
            while bad >= 0 and self._is_under_way(first + bad):
                sums = bytearray(sums)
                sums[bad << _SUM_SHIFT : (bad + 1) << _SUM_SHIFT] = _UNKNOWN_ONE
                bad = first_bad(sums, data)
            if bad < 0:
                start = offset_bytes - blocks.offset_bytes
                return data if len(data) == length_bytes else memoryview(data)[start : start + length_bytes]
            again = self._sums.read(place + (bad << _SUM_SHIFT), _SUM.size)
            if again == sums[bad << _SUM_SHIFT : (bad + 1) << _SUM_SHIFT] and self._is_bad(first + bad):
                self.mismatches += 1
                self._note_bad(first + bad)
                where = f"the block at {(first + bad) << _SHIFT}"
                raise StorageError(StorageFailure.BAD_CHECKSUM, f"{where} is not what was written")

    def write(
        self,
        offset_bytes: int,
        buffers: Sequence[Buffer],
        sums: bytes | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        """See DataFile.  `sums`: the checksums of the blocks, if they are known and all are whole
        (`block_sums`).  `in_place`: the caller is the one thread that writes so, with fewer calls.
        """
        length = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        end = offset_bytes + length
        slot = self.slot
        if offset_bytes & _MASK or (end & _MASK and end != self._size_bytes):
            with self._parts:
                self._write_parts(offset_bytes, buffers)
        elif in_place and slot is not None and not self._bad and length <= _SLOT_BYTES_MAX:
            self._write_in_place(slot, offset_bytes, length, buffers, sums)
        else:
            self._begin_write(offset_bytes, length)
            self.data.write(offset_bytes, buffers)
            self._end_write(offset_bytes, length, buffers, sums)

    def _write_in_place(
        self,
        slot: memoryview,
        offset_bytes: int,
        length_bytes: int,
        buffers: Sequence[Buffer],
        sums: bytes | None,
    ) -> None:
        """As `write`, of whole blocks; a kill at any step leaves a word that tells of them."""
        slot[0] = offset_bytes >> _SHIFT << _COUNT_BITS | (length_bytes + _MASK) >> _SHIFT
        try:
            self.data.write(offset_bytes, buffers)
            self._end_write(offset_bytes, length_bytes, buffers, sums)
        except StorageError:
            self.slot = None  # if the next step fails too, the word stays, for the process after this one
            self._begin_write(offset_bytes, length_bytes)
            self.slot = slot
            slot[0] = 0
            raise
        slot[0] = 0

    def take(self, source: "CheckedFile", base: int, runs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks of `source`, with their checksums: what is bad there is bad here.

        `runs` are first blocks, from block `base` on, and counts, in order.  Nobody reads these blocks until
        this returns, or will if it fails: so none is made unknown first.  Nobody writes to what lies between
        them, in either file, so that few calls read and write the checksums of all.
        """
        begin = 0
        for at, (start, count) in enumerate(runs, 1):
            if at == len(runs) or runs[at][0] - start - count > _GAP_BLOCKS_MAX:
                self._take_near(source, base, runs[begin:at])
                begin = at
        if source._bad or self._bad:
            self._take_bad(source, base, runs)

    def _take_near(self, source: "CheckedFile", base: int, runs: Sequence[tuple[int, int]]) -> None:
        first = base + runs[0][0]
        place, size = first << _SUM_SHIFT, (base + runs[-1][0] + runs[-1][1] - first) << _SUM_SHIFT
        theirs = bytes(source._sums.read(place, size))
        ours = bytearray(self._sums.read(place, size))
        for start, count in runs:
            end = base + start + count
            for number in range(base + start, end, KIB):
                offset = number << _SHIFT
                length = min(min(KIB, end - number) << _SHIFT, self._size_bytes - offset)
                data = source.data.read(offset, length)
                self.data.write(offset, (data,))
                low = (number - first) << _SUM_SHIFT
                high = low + ((length + _MASK) >> _SHIFT << _SUM_SHIFT)
                ours[low:high] = known_sums(theirs[low:high], data)
        self._sums.write(place, (ours,))

    def _take_bad(self, source: "CheckedFile", base: int, runs: Sequence[tuple[int, int]]) -> None:
        """What is known to be bad is so in the copy, and what was so before the copy is not."""
        for start, count in runs:
            offset = (base + start) << _SHIFT
            blocks = Extent(offset, min(count << _SHIFT, self._size_bytes - offset))
            self._forget_bad(self._bad_in(blocks))
            for number in source._bad_in(blocks):
                self._note_bad(number)

    def _is_bad(self, number: int) -> bool:
        """Whether a block is not what was written, while nobody writes a part of it."""
        at = self._block(number << _SHIFT)
        with self._parts:
            return bool(self.bad_blocks(at.offset_bytes, self.data.read(at.offset_bytes, at.length_bytes)))

    def _is_under_way(self, number: int) -> bool:
        """Whether it is being written in place just now."""
        word: int = 0 if self.slot is None else self.slot[0]
        return 0 <= number - (word >> _COUNT_BITS) < word & _COUNT_MASK

    def _begin_write(self, offset_bytes: int, length_bytes: int) -> None:
        """Make the checksums of whole blocks unknown, but of bad ones: a write to `data` may begin."""
        count = (length_bytes + _MASK) >> _SHIFT
        unknown: Buffer
        if self._bad and (bad := self._bad_in(Extent(offset_bytes, length_bytes))):
            unknown = self._unknown_but(bad, offset_bytes >> _SHIFT, count)
        elif count == 1:
            unknown = _UNKNOWN_ONE
        elif count <= KIB:
            unknown = memoryview(_UNKNOWN)[: count << _SUM_SHIFT]
        else:
            unknown = bytes(count << _SUM_SHIFT)
        self._sums.write(offset_bytes >> _SHIFT << _SUM_SHIFT, (unknown,))

    def _end_write(
        self, offset_bytes: int, length_bytes: int, buffers: Sequence[Buffer], sums: bytes | None = None
    ) -> None:
        """The write has ended, and the blocks hold `buffers`."""
        if sums is not None:
            assert len(sums) == sums_size_bytes(length_bytes)
        else:
            sums = sums_of_all(buffers)
        self._sums.write(offset_bytes >> _SHIFT << _SUM_SHIFT, (sums,))
        if self._bad:
            self._forget_bad(self._bad_in(Extent(offset_bytes, length_bytes)))

    def _unknown_but(self, bad: Sequence[int], first: int, count: int) -> bytearray:
        """`count` unknown checksums from block `first` on, but for those of `bad`, which stay as they are."""
        sums = bytearray(count << _SUM_SHIFT)
        for number in bad:
            at = (number - first) << _SUM_SHIFT
            sums[at : at + _SUM.size] = self._sums.read(number << _SUM_SHIFT, _SUM.size)
        return sums

    def _note_bad(self, number: int) -> None:
        while len(self._bad) >= _BAD_MAX:
            self._bad.pop(next(iter(self._bad)), None)
        self._bad[number] = None

    def _bad_in(self, extent: Extent) -> list[int]:
        """Numbers of the blocks in `extent`, which begins where a block does, that are known to be bad."""
        first, end = extent.offset_bytes >> _SHIFT, (extent.end_bytes + _MASK) >> _SHIFT
        if end - first < len(self._bad):
            return [number for number in range(first, end) if number in self._bad]
        return sorted(number for number in list(self._bad) if first <= number < end)

    def _forget_bad(self, numbers: Sequence[int]) -> None:
        """They have been written whole."""
        for number in numbers:
            self._bad.pop(number, None)

    def _write_parts(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        if not data:
            return
        blocks = self._whole_blocks(offset_bytes, len(data))
        start = offset_bytes - blocks.offset_bytes
        content = bytearray(blocks.length_bytes)
        first = self._block(blocks.offset_bytes)
        last = self._block(align_down(blocks.end_bytes - 1, SUM_BLOCK_BYTES))
        spoilt = []
        for edge in dict.fromkeys((first, last)):
            if edge.offset_bytes < offset_bytes or edge.end_bytes > offset_bytes + len(data):
                place = edge.offset_bytes - blocks.offset_bytes
                old = self.data.read(edge.offset_bytes, edge.length_bytes)
                content[place : place + edge.length_bytes] = old
                known = _SUM.unpack(self._sums.read(edge.offset_bytes >> _SHIFT << _SUM_SHIFT, _SUM.size))[0]
                if known and known != (_hash(old) or 1):
                    spoilt.append(place >> _SHIFT)
        content[start : start + len(data)] = data
        sums = bytearray(sums_of(content))
        begins = blocks.offset_bytes >> _SHIFT
        bad = self._bad_in(blocks) if self._bad else []
        meanwhile = self._unknown_but(bad, begins, len(sums) >> _SUM_SHIFT)
        for number in spoilt:  # wrong all the time: a kill in between must not make them believed
            right = _SUM.unpack_from(sums, number << _SUM_SHIFT)[0]
            for either in (sums, meanwhile):
                _SUM.pack_into(either, number << _SUM_SHIFT, right ^ _ALL_ONES or 1)
        place = blocks.offset_bytes >> _SHIFT << _SUM_SHIFT
        self._sums.write(place, (meanwhile,))
        self.data.write(offset_bytes, (data,))
        self._sums.write(place, (sums,))
        self._forget_bad([number for number in bad if number - begins not in spoilt])

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile.  What is punched has no checksum."""
        end = offset_bytes + length_bytes
        first = min(end, -(-offset_bytes >> _SHIFT) << _SHIFT)
        last = end if end == self._size_bytes else max(first, align_down(end, SUM_BLOCK_BYTES))
        for edge in (Extent(offset_bytes, first - offset_bytes), Extent(last, end - last)):
            for part in self.data.allocated(edge) if edge.length_bytes else ():
                self.write(part.offset_bytes, (bytes(part.length_bytes),))
        if last > first:
            self._punch_blocks(Extent(first, last - first))

    def _punch_blocks(self, blocks: Extent) -> None:
        bad = self._bad_in(blocks) if self._bad else []
        position = blocks.offset_bytes
        for number in bad:
            self._forget_between(position, number << _SHIFT)
            position = self._block(number << _SHIFT).end_bytes
        self._forget_between(position, blocks.end_bytes)
        self.data.punch(blocks.offset_bytes, blocks.length_bytes)
        self._forget_bad(bad)
        for number in bad:
            self.forget(self._block(number << _SHIFT))

    def _forget_between(self, start_bytes: int, end_bytes: int) -> None:
        if start_bytes < end_bytes:
            self.forget(Extent(start_bytes, end_bytes - start_bytes))

    def read_unverified(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """The range, whatever its checksums say."""
        return self.data.read(offset_bytes, length_bytes)

    def bad_blocks(self, offset_bytes: int, data: Buffer) -> list[int]:
        """Which of the whole blocks `data`, read at `offset_bytes` unverified, are not what was written."""
        count = (len(data) + _MASK) >> _SHIFT
        known = self._sums.read(offset_bytes >> _SHIFT << _SUM_SHIFT, count << _SUM_SHIFT)
        right = sums_of(data)
        if known == right:
            return []
        pairs = zip(_SUM.iter_unpack(known), _SUM.iter_unpack(right), strict=True)
        return [number for number, ((have,), (want,)) in enumerate(pairs) if have and have != want]

    def spoil(self, offset_bytes: int) -> None:
        """Make the checksum of a block wrong on purpose: nobody is to believe what it has."""
        block = self._block(align_down(offset_bytes, SUM_BLOCK_BYTES))
        right = _hash(self.data.read(block.offset_bytes, block.length_bytes)) or 1
        number = block.offset_bytes >> _SHIFT
        self._sums.write(number << _SUM_SHIFT, (_SUM.pack(right ^ _ALL_ONES or 1),))
        self._note_bad(number)

    def make_room(self, size_bytes: int) -> None:
        """Make the files ready for `size_bytes`; the caller syncs them, and then `set_size` makes use of it.

        Until then, and if that never comes, the file has its old size.  Nothing is in flight.

        Raises StorageError: as before, but for a checksum that may be forgotten.
        """
        tail = self._size_bytes & _MASK
        if tail and size_bytes > self._size_bytes:
            self._free_tail(self._block(self._size_bytes - tail), size_bytes)
        for file, wanted_bytes in ((self.data, size_bytes), (self._sums, sums_size_bytes(size_bytes))):
            if file.size_bytes() < wanted_bytes:  # an earlier attempt may have made it larger
                file.truncate(wanted_bytes)

    def _free_tail(self, tail: Extent, size_bytes: int) -> None:
        """Leave a short last block a checksum that is right, or wrong, for what it is and what it will be.

        Both must do, as a crash leaves either: so it is unknown if the block is good.  If it is bad, its
        checksum is wrong already, and stays.  What rotted on the disk alone would be believed from now on,
        so the disk is looked at, not the page cache.
        """
        place = tail.offset_bytes >> _SHIFT << _SUM_SHIFT
        known = _SUM.unpack(self._sums.read(place, _SUM.size))[0]
        if not known:
            return
        self.data.drop_cache(tail.offset_bytes, tail.length_bytes)
        content = self.data.read(tail.offset_bytes, tail.length_bytes)
        will_have_bytes = min(SUM_BLOCK_BYTES, size_bytes - tail.offset_bytes)
        right = _hash(content) or 1
        right_later = _hash(bytes(content).ljust(will_have_bytes, b"\0")) or 1
        if known == right:
            self.forget(tail)
            return
        self._note_bad(tail.offset_bytes >> _SHIFT)
        if known == right_later:
            wrong = next(value for value in (1, 2, 3) if value not in (right, right_later))
            self._sums.write(place, (_SUM.pack(wrong),))

    def set_size(self, size_bytes: int) -> None:
        """The file has `size_bytes` from now on; `make_room` or `clear_beyond` was called for them."""
        self._size_bytes = size_bytes

    def forget_beyond(self, size_bytes: int) -> None:
        """Make the checksums of all blocks unknown that do not lie whole before `size_bytes`.

        They are to be stable before `clear_beyond`, and that before `set_size`.  Nothing is in flight.
        """
        start = align_down(size_bytes, SUM_BLOCK_BYTES)
        if start < self._size_bytes:
            self.forget(Extent(start, self._size_bytes - start))

    def clear_beyond(self, size_bytes: int) -> None:
        """Make zeros of all that the file has from `size_bytes` on."""
        if size_bytes < self._size_bytes:
            self.data.punch(size_bytes, self._size_bytes - size_bytes)

    def cut(self) -> None:
        """Let the files end where they are to; beyond that they hold zeros."""
        wanted = (self._size_bytes, sums_size_bytes(self._size_bytes))
        for file, wanted_bytes in zip((self.data, self._sums), wanted, strict=True):
            if file.size_bytes() > wanted_bytes:
                file.truncate(wanted_bytes)

    def forget(self, extent: Extent) -> None:
        """Make the checksums of all blocks that `extent` touches unknown, also of bad ones."""
        blocks = self._whole_blocks(extent.offset_bytes, extent.length_bytes)
        if self._bad:
            self._forget_bad(self._bad_in(blocks))
        count = (blocks.length_bytes + _MASK) >> _SHIFT
        if count <= KIB:
            self._begin_write(blocks.offset_bytes, blocks.length_bytes)
        else:
            self._sums.punch(blocks.offset_bytes >> _SHIFT << _SUM_SHIFT, count << _SUM_SHIFT)

    def verify(self, extent: Extent) -> list[Extent]:
        """The blocks of `extent` that are not what was written; nobody writes to it meanwhile.

        They are read from the disk, not from the page cache.  Data of which no checksum is known gets one.
        """
        bad = []
        for piece in self._whole_blocks(extent.offset_bytes, extent.length_bytes).split(_VERIFY_STEP_BYTES):
            count = (piece.length_bytes + _MASK) >> _SHIFT
            place = piece.offset_bytes >> _SHIFT << _SUM_SHIFT
            raw = self._sums.read(place, count << _SUM_SHIFT)
            allocated = self.data.allocated(piece)
            if not allocated and not any(raw):
                continue
            self.data.drop_cache(piece.offset_bytes, piece.length_bytes)
            data = self.data.read(piece.offset_bytes, piece.length_bytes)
            right = sums_of(data)
            for number in range(count):
                start = number << _SUM_SHIFT
                known, computed = raw[start : start + 8], right[start : start + 8]
                block = self._block(piece.offset_bytes + (number << _SHIFT))
                if known == computed:
                    continue
                if any(known):
                    bad.append(block)
                    self._note_bad(block.offset_bytes >> _SHIFT)
                elif any(part.overlaps(block) for part in allocated):
                    self._sums.write(place + start, (computed,))
        return merge_extents(bad)

    def adopt(self, blocks: Extent) -> None:
        """Take what the file has in these whole blocks, which somebody else wrote, for what was written."""
        data = self.data.read(blocks.offset_bytes, blocks.length_bytes)
        self._sums.write(blocks.offset_bytes >> _SHIFT << _SUM_SHIFT, (sums_of(data),))

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile."""
        return self.data.allocated(extent)

    @property
    def descriptors(self) -> tuple[int, int]:
        """Of the data, and of the checksums."""
        return self.data.descriptor, self._sums.descriptor

    def sync_data(self) -> None:
        """See DataFile.  The checksums are not synced by this."""
        self.data.sync_data()

    def sync_sums(self) -> None:
        """Bring the checksums written before the call to stable storage."""
        self._sums.sync_data()

    def close(self) -> None:
        """See DataFile."""
        self._sums.close()
        self.data.close()

    def _whole_blocks(self, offset_bytes: int, length_bytes: int) -> Extent:
        start = offset_bytes & ~_MASK
        end = min((offset_bytes + length_bytes + _MASK) & ~_MASK, self._size_bytes)
        return Extent(start, end - start)

    def _block(self, offset_bytes: int) -> Extent:
        return Extent(offset_bytes, min(SUM_BLOCK_BYTES, self._size_bytes - offset_bytes))
