"""Writes that a crash leaves whole or undone (SBC-4 WRITE ATOMIC): what they replace is kept first.
Blocking calls only.

An ordinary write may stop half way, at a page when its process is killed and at a sector when the power goes.
An atomic one saves the old content of its range in a file of its own, durably, then writes in place.  The
file holds one write at a time:

- *empty*: no valid entry.
- *pending*: a valid entry; the range may hold a mixture.  Whoever opens the directory puts the old content
  back.
- *over in boot B*: a valid entry with B's mark, which is put there without waiting for the disk when the
  write has ended, well or badly.  Later writes may have changed the range since.  Under B the entry means
  nothing, as the page cache has all that was written.  After a power cut the range may again hold a mixture,
  so the old content is put back: nothing written since the last flush had been promised to survive.

`keep` may replace an entry, and `forget` must remove one durably, only when the head has been synced since
that entry's write ended.  A replaced entry that is torn is invalid, which is then right for the old one, as
it is stable, and for the new one, as its write has not begun.  One that comes back whole undoes a write that
no flush was answered for, since a flush ends with `forget`.

The caller sees to it that one thread at a time uses the log, and that no other write overlaps an atomic one.
"""

import struct
from collections.abc import Sequence
from typing import Final

import attrs
import xxhash

from pyjiva.block import ATOMIC_BYTES_MAX
from pyjiva.errors import ConfigError
from pyjiva.extent import Extent, merge_extents
from pyjiva.sparse import Buffer, CheckedFile, DataFile, Directory, ReadableFile
from pyjiva.units import KIB

__all__ = ["UNDO_FILE", "UndoLog", "pending_undo"]

UNDO_FILE: Final = "atomic.undo"

# One sector: magic, version, number of kept parts, offset and length of the write, xxh3-64 of the table of
# the parts and their data, xxh3-64 of the fields before it.
_HEADER: Final = struct.Struct("<8sIIQQQQ")
_PART: Final = struct.Struct("<QQ")  # offset and length of a part that was not a hole
_MAGIC: Final = b"pjatomic"
_VERSION: Final = 1
_NO_HEADER: Final = bytes(_HEADER.size)
_MARK_OFFSET: Final = 512  # a sector of its own: the boot during which the write ended
_MARK_BYTES: Final = 64
_BODY_OFFSET: Final = 4 * KIB
_PARTS_MAX: Final = ATOMIC_BYTES_MAX // 512 // 2 + 1
_FILE_BYTES: Final = _BODY_OFFSET + _PARTS_MAX * _PART.size + ATOMIC_BYTES_MAX


@attrs.frozen
class _Kept:
    """What the range of a write held: `parts` are its data, the rest of it was holes."""

    range: Extent
    parts: Sequence[tuple[Extent, Buffer]]


@attrs.define(eq=False)
class UndoLog:
    """The file beside `head`, made when it is first needed."""

    _directory: Directory
    head: CheckedFile
    """May be replaced while nothing is held."""
    _boot_id: str
    _file: DataFile | None = None
    held: bool = False
    """The disk may have a valid entry."""

    @classmethod
    def open_beside(cls, head: CheckedFile, directory: Directory, boot_id: str) -> "UndoLog":
        """The log of `head`, after undoing what a crash left half done.

        Raises StorageError, and ConfigError: a newer version wrote the log."""
        log = cls(directory, head, boot_id)
        if UNDO_FILE in directory.names():
            log._file = directory.open(UNDO_FILE)
            try:
                log._recover()
            except BaseException:
                log._file.close()
                raise
        return log

    def _recover(self) -> None:
        kept = self._read_entry()
        if kept is None:
            # A process that was killed in `keep` may have taken an entry out of the page cache alone: the
            # disk still has it, and the next flush must remove it.
            self.held = self._file is not None
            return
        assert self._file is not None
        self.held = True
        if bytes(self._file.read(_MARK_OFFSET, _MARK_BYTES)) == self._mark():
            return
        self.put_back(kept)
        self.head.sync_data()
        self.head.sync_sums()  # the region may have been retired since the write: nothing else forgets them
        self.forget()

    def keep(self, offset_bytes: int, length_bytes: int) -> _Kept:
        """Save what the range holds; `sync` makes it stable.  Raises StorageError: nothing is kept."""
        wanted = Extent(offset_bytes, length_bytes)
        parts = merge_extents(self.head.allocated(wanted))
        head = self.head.data
        kept = _Kept(wanted, [(p, head.read(p.offset_bytes, p.length_bytes)) for p in parts])
        if self._file is None:
            self._file = self._create()
        table = b"".join(_PART.pack(part.offset_bytes, part.length_bytes) for part in parts)
        body = (table, *(data for _, data in kept.parts))
        fields = _HEADER.pack(_MAGIC, _VERSION, len(parts), offset_bytes, length_bytes, _hash(body), 0)[:-8]
        # In this order: a process that is killed between any two leaves no entry, never the old one unmarked.
        self._file.write(0, (_NO_HEADER,))
        self._file.write(_MARK_OFFSET, (bytes(_MARK_BYTES),))
        self._file.write(_BODY_OFFSET, body)
        self._file.write(0, (fields, struct.pack("<Q", _hash((fields,)))))
        self.held = True
        return kept

    def sync(self) -> None:
        """Make what was kept stable.  Raises StorageError: nobody knows what is, and the log is of no use."""
        assert self._file is not None
        self._file.sync_data()

    def put_back(self, kept: _Kept) -> None:
        """Undo a write that failed.  Raises StorageError: the range holds a mixture."""
        self.head.forget(kept.range)
        position = kept.range.offset_bytes
        for part, data in kept.parts:
            self._punch(position, part.offset_bytes)
            self.head.data.write(part.offset_bytes, (data,))
            position = part.end_bytes
        self._punch(position, kept.range.end_bytes)

    def _punch(self, start_bytes: int, end_bytes: int) -> None:
        if start_bytes < end_bytes:
            self.head.data.punch(start_bytes, end_bytes - start_bytes)

    def end_write(self) -> None:
        """The write is over, well or badly.  Raises StorageError: the log may undo later writes."""
        assert self._file is not None
        self._file.write(_MARK_OFFSET, (self._mark(),))

    def forget(self) -> None:
        """Remove the entry durably; the head must be stable.  Raises StorageError, as `sync`."""
        assert self._file is not None
        self._file.write(0, (_NO_HEADER,))
        self._file.sync_data()
        self.held = False

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _mark(self) -> bytes:
        return _mark_of(self._boot_id)

    def _create(self) -> DataFile:
        """The file, with all its space, so that no sync of it can find the disk full.

        What an earlier attempt left has no valid entry (`_recover` would have found it).
        """
        present = UNDO_FILE in self._directory.names()
        file = self._directory.open(UNDO_FILE) if present else self._directory.create(UNDO_FILE)
        try:
            file.truncate(_FILE_BYTES)
            file.write(0, (bytes(_FILE_BYTES),))
            file.sync_data()
            self._directory.sync()
        except BaseException:
            file.close()
            raise
        return file

    def _read_entry(self) -> _Kept | None:
        """The entry, if it is whole; else None.  A file whose creation was cut is let go of."""
        assert self._file is not None
        if self._file.size_bytes() != _FILE_BYTES:  # its creation was cut
            self._file.close()
            self._file = None
            return None
        return _read_entry(self._file)


def pending_undo(file: ReadableFile, boot_id: str) -> Extent | None:
    """Where opening the directory in this boot would put old content back; None: nowhere.

    Raises StorageError, and ConfigError: a newer version wrote the log.
    """
    if file.size_bytes() != _FILE_BYTES:
        return None
    kept = _read_entry(file)
    if kept is None or bytes(file.read(_MARK_OFFSET, _MARK_BYTES)) == _mark_of(boot_id):
        return None
    return kept.range


def _mark_of(boot_id: str) -> bytes:
    return boot_id.encode()[:_MARK_BYTES].ljust(_MARK_BYTES, b"\0")


def _read_entry(file: ReadableFile) -> _Kept | None:
    """The entry in a log of the right size, if it is whole."""
    header = bytes(file.read(0, _HEADER.size))
    magic, version, count, offset, length, body_hash, own_hash = _HEADER.unpack(header)
    if magic != _MAGIC or own_hash != _hash((header[:-8],)):
        return None
    if version != _VERSION:
        raise ConfigError(
            f"{UNDO_FILE} has format {version}, this pyjiva reads {_VERSION}: take the newer one"
        )
    table = bytes(file.read(_BODY_OFFSET, count * _PART.size))
    hasher = xxhash.xxh3_64(table)
    parts = []
    position = _BODY_OFFSET + len(table)
    for part_offset, part_length in _PART.iter_unpack(table):
        if position + part_length > _FILE_BYTES:  # a torn table
            return None
        data = file.read(position, part_length)
        hasher.update(data)
        parts.append((Extent(part_offset, part_length), data))
        position += part_length
    return _Kept(Extent(offset, length), parts) if hasher.intdigest() == body_hash else None


def _hash(buffers: Sequence[Buffer]) -> int:
    hasher = xxhash.xxh3_64()
    for buffer in buffers:
        hasher.update(buffer)
    return hasher.intdigest()
