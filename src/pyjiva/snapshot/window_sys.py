"""A window: the files of a replica of this machine, read by another process.  Calls that never wait.

Theory.  What lies in the page cache is there for every process, so a controller need not ask a replica beside
it for a block that is in memory: it reads the replica's files itself, checksums first, then data, then the
stamp (`stamp_sys`).  Three system calls take the place of two messages between two processes that have to
be woken for them.

Why what a window gives is what the replica would have answered, if whoever reads holds a lock on the range
as for a READ (nobody writes to it) and may rely on the replica (it is in sync, and the lease has not ended):

- Every write that was answered lies in the page cache, for all processes; so do its checksum and the byte of
  the map that says which layer has the block.
- *Which layer has a block* is looked up in the maps once, and kept in a table.  Writes change that.  All of
  them are this process's own, which tells the window (`written`, `changed`) when they have ended, before it
  gives back the lock.  Of a write that began before the window was opened it cannot say who has its blocks by
  then, and tells of a change: the maps say it.  A write that has not ended may have moved a block to the head
  of which it writes a part, and the table may still name the layer below: the other part is the same in both.
- *What the replica moves by itself* it moves after it has changed the stamp; the look at the stamp comes
  after the read.  If it has changed, the window is shut, for ever.
- *Rot*: a block that does not match its checksum is not given.  The replica is asked, and finds out more.
- *A process that died*: its files are as it left them until the next one opens the directory, which changes
  the stamp first.

What is not in memory, or seems to be wrong, is not given either (None): the replica is asked.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from pyjiva.errors import StorageError
from pyjiva.snapshot.held_map_sys import bits_of
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, LayerIndex
from pyjiva.snapshot.layer_stack_sys import block_count
from pyjiva.snapshot.stamp_sys import STAMP_BYTES
from pyjiva.snapshot.window import NO_MAP, WindowName
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer, CheckedFile, DataFile, SparseFile

__all__ = ["Window", "WindowLayerFiles", "open_window", "window_over"]

_SHIFT: Final = SUM_BLOCK_BYTES.bit_length() - 1


@attrs.frozen(eq=False)
class WindowLayerFiles:
    """A layer's files, of which nothing but `read_nowait` is used."""

    file: CheckedFile
    held: DataFile | None
    """None: it is the lowest layer, and holds all."""

    def close(self) -> None:
        """Give the files back."""
        self.file.close()
        if self.held is not None:
            self.held.close()


@attrs.define(eq=False)
class Window:  # hot
    """One, until it is shut.  It owns its files; one task's business."""

    size_bytes: int
    """Of the volume, as it was when the window was opened."""
    _stamp: bytes
    _stamp_file: DataFile
    _layers: Sequence[WindowLayerFiles]
    is_shut: bool = attrs.field(default=False, init=False)
    """The replica has moved something, or is about to: this one gives nothing any more."""
    _only: CheckedFile | None = attrs.field(init=False)
    """The only layer, if there is one alone."""
    _index: LayerIndex | None = attrs.field(init=False)
    """Which layer has a block, as far as somebody has asked."""

    def __attrs_post_init__(self) -> None:
        alone = len(self._layers) == 1
        self._only = self._layers[0].file if alone else None
        self._index = None if alone else LayerIndex(block_count(self.size_bytes))

    def look(self) -> None:
        """Look at the stamp, though nothing was read."""
        with contextlib.suppress(StorageError):
            stamp = self._stamp_file.read_nowait(0, STAMP_BYTES)
            changed = self._stamp_file.size_bytes() < STAMP_BYTES if stamp is None else stamp != self._stamp
            self.is_shut = self.is_shut or changed

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """The range, at least a byte, if it is all in memory and is what was written."""
        if offset_bytes + length_bytes > self.size_bytes or self.is_shut:
            return None
        try:
            if self._only is not None:
                data = self._only.read_nowait(offset_bytes, length_bytes)
            else:
                data = self._read_layers(offset_bytes, length_bytes)
            if data is None:
                return None
            stamp = self._stamp_file.read_nowait(0, STAMP_BYTES)
        except StorageError:  # the disk fails, or a map is damaged: the replica will meet it too, and say so
            return None
        if stamp == self._stamp:
            return data
        self.is_shut = stamp is not None
        return None

    def _read_layers(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        assert self._index is not None
        first = offset_bytes >> _SHIFT
        last = (offset_bytes + length_bytes - 1) >> _SHIFT
        runs = self._index.find(first, last + 1 - first)
        if runs is None:
            if not self._load(first, last):
                return None
            runs = self._index.find(first, last + 1 - first)
            if runs is None:  # the table is full: loading one chunk has put out another one
                return None
        if len(runs) == 1:
            return self._layers[runs[0][0]].file.read_nowait(offset_bytes, length_bytes)
        data = bytearray(length_bytes)
        end_bytes = offset_bytes + length_bytes
        for number, block, count in runs:
            start = max(offset_bytes, block << _SHIFT)
            end = min(end_bytes, (block + count) << _SHIFT)
            piece = self._layers[number].file.read_nowait(start, end - start)
            if piece is None:
                return None
            data[start - offset_bytes : end - offset_bytes] = piece
        return data

    def _load(self, first: int, last: int) -> bool:
        """Let the table know these blocks.  False: a map is not in memory."""
        assert self._index is not None
        for chunk in range(first // CHUNK_BLOCKS, last // CHUNK_BLOCKS + 1):
            if not self._index.is_loaded(chunk) and not self._load_chunk(chunk, self._index):
                return False
        return True

    def _load_chunk(self, chunk: int, index: LayerIndex) -> bool:
        blocks = index.blocks_of(chunk)
        rest = (1 << blocks) - 1
        held: list[tuple[int, int]] = []
        for number in range(len(self._layers) - 1, -1, -1):
            own = rest
            if (held_file := self._layers[number].held) is not None:
                content = held_file.read_nowait(chunk * CHUNK_BLOCKS, blocks)
                if content is None:
                    return False
                own &= bits_of(bytes(content), chunk)
            if own:
                held.append((number, own))
                rest ^= own
                if not rest:
                    break
        return index.load(chunk, held, index.changes)

    def written(self, offset_bytes: int, length_bytes: int) -> None:
        """A write to the range that began after the window was opened has ended well: the head has its
        blocks.
        """
        if self._index is not None and offset_bytes + length_bytes <= self.size_bytes:
            first = offset_bytes >> _SHIFT
            last = (offset_bytes + length_bytes - 1) >> _SHIFT
            self._index.put(first, last + 1 - first, len(self._layers) - 1)

    def changed(self, offset_bytes: int, length_bytes: int) -> None:
        """Something else has ended that changes the range: the maps say who has its blocks."""
        if self._index is not None and offset_bytes + length_bytes <= self.size_bytes:
            first = offset_bytes >> _SHIFT
            last = (offset_bytes + length_bytes - 1) >> _SHIFT
            self._index.drop(first, last + 1 - first)

    def close(self) -> None:
        """Give the files back."""
        self.is_shut = True
        self._stamp_file.close()
        for layer in self._layers:
            layer.close()


def window_over(name: WindowName, open_file: Callable[[int], DataFile]) -> Window:
    """The window of that name, through files that `open_file` gives for descriptors of the replica.

    Raises OSError: they cannot be reached, or are not what was meant any more.
    """
    opened: list[DataFile] = []

    def take(descriptor: int) -> DataFile:
        opened.append(open_file(descriptor))
        return opened[-1]

    try:
        stamp = bytes.fromhex(name.stamp)
        stamp_file = take(name.stamp_descriptor)
        layers = [
            WindowLayerFiles(
                CheckedFile(take(layer.data), take(layer.sums), name.size_bytes),
                None if layer.held == NO_MAP else take(layer.held),
            )
            for layer in name.layers
        ]
        # Last: else a descriptor might have become another file's before it was opened.
        if len(stamp) != STAMP_BYTES or stamp_file.read_nowait(0, STAMP_BYTES) != stamp:
            raise OSError(errno.ESTALE, "it has changed meanwhile, or is another replica's")
        return Window(name.size_bytes, stamp, stamp_file, layers)
    except BaseException as error:
        for file in opened:
            file.close()
        if isinstance(error, StorageError | ValueError):
            raise OSError(errno.EIO, str(error)) from error
        raise


def open_window(name: WindowName) -> Window:
    """As `window_over`, through /proc."""

    def open_file(descriptor: int) -> SparseFile:
        path = f"/proc/{int(name.pid)}/fd/{int(descriptor)}"
        # O_NONBLOCK: a pipe or a device that has the number by now is not waited for.
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise OSError(errno.ENOENT, "there is something else")
        except OSError:
            os.close(opened)
            raise
        return SparseFile(opened, "a file of a replica beside this process")

    return window_over(name, open_file)
