"""One replica's directory: its bytes, its durable state, and what of them survives a power cut.  Blocking
calls only.

*Data.*  Without snapshots every read and write goes to the head, the one layer that there is.  Above
snapshots a `LayerStack` has the head's place here: it knows which layer has which block.  The changes of the
chain itself are in `LayeredStore`.

*Flush* is fdatasync of the head, and then of the map of the blocks that it holds, if that changed; nothing
else is needed to find the data, as names and sizes were made stable when the layer was created.  When an
fdatasync fails, Linux reports it once and then takes the pages for clean, so a second one would succeed over
lost data (the PostgreSQL "fsyncgate" of 2018).  Therefore a store whose flush failed is *broken*: that flush
and all that follow are refused, and so are reads and writes, since the page cache may give back old data for
an acknowledged write.  The state file remembers it, so that the next process does not take the data for
whole either; and it writes all again that may be clean in the page cache and not on the disk, so that its own
flushes say the truth.

*What a reboot may lose.*  `written_boot_id` in the state says during which boot writes were made that may
not be stable.  It is set, durably, before the first write after a clean point (`mark_clean`), so a write
costs one test.  A store opened under another boot than that one is not `intact`: acknowledged writes may be
missing, and it stays so until `mark_intact`, which is called when a rebuild has made its content whole.

Any number of threads may call the verbs at once.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Self

import attrs

from pyjiva.block import ATOMIC_BYTES_MAX, Space
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.snapshot.failed_flush_sys import flush_has_failed, note_failed_flush, recover
from pyjiva.snapshot.hash_sys import hash_of_range
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.snapshot.layout_sys import open_layout
from pyjiva.snapshot.regions import marked_extents, marks_of, regions_of
from pyjiva.snapshot.state import FLUSH_FAILED, REGION_BYTES, STATE_FILE, ReplicaState, encode_state
from pyjiva.snapshot.under_way_sys import under_way
from pyjiva.snapshot.undo_log_sys import UndoLog
from pyjiva.snapshot.write_counts_sys import WriteCounts
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer, CheckedFile, Directory, open_directory, replace_file
from pyjiva.units import align_down, align_up

__all__ = ["LOST_BLOCK", "VolumeStore"]

LOST_BLOCK: Final = b"pyjiva: no replica has this block any more.\n".ljust(64) * (SUM_BLOCK_BYTES // 64)
_REGION_SHIFT: Final = REGION_BYTES.bit_length() - 1


@attrs.define(eq=False)
class VolumeStore:  # hot
    """An open replica directory, owned by this process, as one volume."""

    _directory: Directory
    _layers: Layers
    _head: CheckedFile | LayerStack
    """What takes the verbs: `Layers.top`."""
    _undo_log: UndoLog
    _state: ReplicaState
    _boot_id: str
    _size_bytes: int
    _intact: bool
    _marks: bytearray
    """For each region: 0, or that the state on disk says that writes to it may not be stable: 1 if there was
    none since `retire_regions`, 2 if there was.
    """
    _writes: WriteCounts
    _writes_flushed: int = attrs.field(default=0, init=False)
    """How many had ended when the last successful flush began."""
    _broken: StorageError | None = attrs.field(default=None, init=False)
    _state_known: bool = attrs.field(default=True, init=False)
    """False after a save that failed: the file may hold the new state or the old one."""
    _flush_lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _state_lock: threading.RLock = attrs.field(factory=threading.RLock, init=False)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        *,
        volume_id: str,
        replica_id: int,
        volume_name: str,
        size_bytes: int,
        block_size_bytes: int,
        witness: bool = False,
        boot_id: str | None = None,
    ) -> Self:
        """The replica in the directory `path`; an absent or empty one becomes a new replica, all zeros.

        Raises ConfigError, in one line for the operator, with nothing changed: the directory is open
        elsewhere, is not a replica or another one, or is damaged.  Raises StorageError: the disk fails.
        """
        try:
            identity = ReplicaState(
                volume_id, replica_id, volume_name, size_bytes, block_size_bytes, witness=witness
            )
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
        present = read_boot_id() if boot_id is None else boot_id
        return cls.open_in(open_directory(path), identity, boot_id=present)

    @classmethod
    def open_in(cls, directory: Directory, identity: ReplicaState, *, boot_id: str) -> Self:
        """As `open_or_create`, in a directory that is owned already; it is closed if this fails."""
        try:
            state, layers = open_layout(directory, identity, boot_id=boot_id)
        except BaseException:
            directory.close()
            raise
        try:
            if flush_has_failed(directory):
                state = attrs.evolve(state, written_boot_id=FLUSH_FAILED)
            written = state.written_boot_id
            head = layers.head.file
            undo_log = UndoLog.open_beside(head, directory, boot_id)
            # If the machine went down, what was written to these regions, and its checksums, may be gone.
            # What a process was writing in place when it was killed is the head's: no other has a slot.
            forgotten = under_way(directory, state, boot_id) if written == boot_id else marked_extents(state)
            for extent in forgotten:
                head.forget(extent)
                if written != boot_id and layers.reopened_layer is not None:
                    layers.reopened_layer.file.forget(extent)
            if written == FLUSH_FAILED:
                recover(directory, state, layers, marked_extents(state))
            if written not in ("", boot_id):
                layers.sweep(marked_extents(state))
        except BaseException:
            layers.close()
            directory.close()
            raise
        unflushed = 1 if written else 0
        store = cls(
            directory=directory,
            layers=layers,
            head=layers.top,
            undo_log=undo_log,
            state=state,
            boot_id=boot_id,
            size_bytes=state.size_bytes,
            intact=written in ("", boot_id),
            marks=marks_of(state),
            writes=WriteCounts.after(unflushed),
        )
        layers.owner = store
        layers.sync_lock = store._flush_lock
        return store

    @property
    def path(self) -> str:
        """The directory, as the operator named it."""
        return self._directory.path

    @property
    def size_bytes(self) -> int:
        """Size of the volume."""
        return self._size_bytes

    @property
    def state(self) -> ReplicaState:
        """What is durable of the replica's state."""
        return self._state

    @property
    def intact(self) -> bool:
        """False: the machine went down with unflushed writes, or a flush failed; no rebuild came since."""
        return self._intact

    def marked(self, offset_bytes: int, length_bytes: int) -> bool:
        """Whether a write to the range can go ahead without first making the state durable.

        One beyond the end can: it is refused.
        """
        first = offset_bytes >> _REGION_SHIFT
        last = (offset_bytes + length_bytes - 1) >> _REGION_SHIFT
        if first == last < len(self._marks):  # as nearly always; a slice takes five times as long
            return bool(self._marks[first])
        return 0 not in self._marks[first : last + 1]

    def writes_in_place(self, offset_bytes: int, length_bytes: int) -> bool:
        """Whether a write to the range only copies into the page cache, and does not wait for the disk."""
        if not self.marked(offset_bytes, length_bytes):
            return False
        head = self._head
        return not isinstance(head, LayerStack) or head.writes_in_place(offset_bytes, length_bytes)

    def _prepare(self, offset_bytes: int, length_bytes: int) -> None:
        """Before a write: see that the state on disk tells of it."""
        first = offset_bytes >> _REGION_SHIFT
        last = (offset_bytes + length_bytes - 1) >> _REGION_SHIFT
        if first == last:
            marks = self._marks
            if marks[first]:
                marks[first] = 2
            else:
                self._mark(first, last)
        elif 0 in self._marks[first : last + 1]:
            self._mark(first, last)
        else:
            self._marks[first : last + 1] = b"\x02" * (last + 1 - first)

    @property
    def mismatches(self) -> int:
        """Reads that were refused since the store was opened, because a block was not what was written."""
        return self._head.mismatches

    @property
    def broken(self) -> StorageError | None:
        """Why every verb is refused, after a flush that failed."""
        return self._broken

    def space(self) -> Space:
        """What the directory takes, and what its file system has left.  Raises StorageError."""
        return Space(self._directory.used_bytes(), self._directory.available_bytes())

    def save_state(self, new_state: ReplicaState) -> None:
        """Make `new_state` durable, except what was written in which boot, which is the store's own business.

        Raises StorageError: it may or may not be durable; `state` is still the old one.
        """
        with self._state_lock:
            old = self._state
            self._save(
                attrs.evolve(
                    new_state, written_boot_id=old.written_boot_id, written_regions=old.written_regions
                )
            )

    def _save(self, new_state: ReplicaState) -> None:
        if new_state == self._state and self._state_known:
            return
        self._state_known = False
        replace_file(self._directory, STATE_FILE, encode_state(new_state))
        self._state_known = True
        self._state = new_state

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """The range if it is all in memory, else None."""
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.READ_ERROR)
        return self._head.read_nowait(offset_bytes, length_bytes)

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """The range; holes are zeros."""
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.READ_ERROR)
        return self._head.read(offset_bytes, length_bytes)

    def write(
        self,
        offset_bytes: int,
        length_bytes: int,
        buffers: Sequence[Buffer],
        sums: bytes | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        """Write `buffers`; the rest is as CheckedFile has it.  Stable after a flush that begins later."""
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.WRITE_ERROR)
        # Before the test of the mark, so that mark_clean sees this write or this write its mark gone.
        self._writes.begin(in_place=in_place)
        try:
            self._prepare(offset_bytes, length_bytes)
            self._head.write(offset_bytes, buffers, sums, in_place=in_place)
        finally:
            self._writes.end(in_place=in_place)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """A write or a zeroing is under way in the body.  `write` is called too often for this."""
        self._writes.begin()
        try:
            yield
        finally:
            self._writes.end()

    def write_atomic(self, offset_bytes: int, length_bytes: int, buffers: Sequence[Buffer]) -> None:
        """As `write`, and a crash leaves all of it or nothing; so does an error; if the
        old content cannot be put back, the store is broken.  At most ATOMIC_BYTES_MAX.  Waits for the disk.
        """
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.WRITE_ERROR)
        if length_bytes > ATOMIC_BYTES_MAX:
            reason = f"atomic write of {length_bytes} bytes: at most {ATOMIC_BYTES_MAX}"
            raise StorageError(StorageFailure.OUT_OF_RANGE, reason)
        with self._counted():
            self._prepare(offset_bytes, length_bytes)
            with self._flush_lock:
                self._refuse_if_broken(StorageFailure.WRITE_ERROR)
                self._write_with_undo(offset_bytes, length_bytes, buffers)

    def _write_with_undo(self, offset_bytes: int, length_bytes: int, buffers: Sequence[Buffer]) -> None:
        if isinstance(self._head, LayerStack):  # the log keeps what the head's file has
            self._head.lift(Extent(offset_bytes, length_bytes))
        log = self._undo_log
        if log.held:  # what it holds may be replaced when the write that it is for is stable
            self.guard(self._head.sync_data)
        kept = log.keep(offset_bytes, length_bytes)
        self.guard(log.sync)
        try:
            self._head.write(offset_bytes, buffers)
        except StorageError:
            self.guard(partial(log.put_back, kept))
            self.guard(log.end_write)
            raise
        self.guard(log.end_write)

    def zero(self, offset_bytes: int, length_bytes: int) -> None:
        """Make the range a hole: it reads as zeros for ever, and its space is free."""
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.WRITE_ERROR)
        with self._counted():
            self._prepare(offset_bytes, length_bytes)
            self._head.punch(offset_bytes, length_bytes)

    def spoil(self, extent: Extent) -> None:
        """Make the blocks of `extent` bad: no replica has them, and reads fail until they are written whole.

        A power cut soon after may make them zeros that nobody knows to be wrong: their checksum is gone then,
        as that of any other block that was just written.
        """
        if extent.offset_bytes < 0 or extent.end_bytes > self._size_bytes or self._broken:
            self._refuse(extent.offset_bytes, extent.length_bytes, StorageFailure.WRITE_ERROR)
        with self._counted():
            self._prepare(extent.offset_bytes, extent.length_bytes)
            start = align_down(extent.offset_bytes, SUM_BLOCK_BYTES)
            end = min(align_up(extent.end_bytes, SUM_BLOCK_BYTES), self._size_bytes)
            with self._layers.stamp.moving():
                for block in Extent(start, end - start).split(SUM_BLOCK_BYTES):
                    # Neither a hole nor zeros: a copy that is blank there must not seem to be equal.
                    self._head.write(block.offset_bytes, (LOST_BLOCK[: block.length_bytes],))
                    self._head.spoil(block.offset_bytes)

    def allocated(self, extent: Extent) -> list[Extent]:
        """The parts of `extent` that hold data (or zeros that were written); the rest are holes."""
        if extent.offset_bytes < 0 or extent.end_bytes > self._size_bytes or self._broken:
            self._refuse(extent.offset_bytes, extent.length_bytes, StorageFailure.READ_ERROR)
        return self._head.allocated(extent)

    def hash_range(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The xxh3-128 digest of the range's content, to compare replicas.

        A range that is one hole costs nothing after the first of its length; other holes are hashed as
        zeros without reading them.
        """
        extent = Extent(offset_bytes, length_bytes)
        if offset_bytes < 0 or extent.end_bytes > self._size_bytes or self._broken:
            self._refuse(offset_bytes, length_bytes, StorageFailure.READ_ERROR)
        return hash_of_range(self._head, extent)

    def verify(self, extent: Extent) -> None:
        """Read `extent` from the disk, and compare it with the checksums; nobody writes to it meanwhile.

        Raises StorageError BAD_CHECKSUM: a block is not what was written.
        """
        if extent.offset_bytes < 0 or extent.end_bytes > self._size_bytes or self._broken:
            self._refuse(extent.offset_bytes, extent.length_bytes, StorageFailure.READ_ERROR)
        bad = self._head.verify(extent)
        if bad:
            length = sum(part.length_bytes for part in bad)
            raise StorageError(
                StorageFailure.BAD_CHECKSUM,
                f"{length} bytes are not what was written, the first at {bad[0].offset_bytes}",
            )

    def flush(self) -> None:
        """Return when every write that had ended before the call is on stable storage.

        Raises StorageError: it is not, and the store is broken from now on.
        """
        with self._flush_lock:  # the kernel tells a failure to one caller: no second one may overtake it
            self._refuse_if_broken(StorageFailure.WRITE_ERROR)
            ended = self._writes.ended()
            self.guard(self._head.sync_data)
            if (filling := self._layers.filling) is not None:
                self.guard(filling.sync_data)
            if self._undo_log.held:
                self.guard(self._undo_log.forget)
            self._writes_flushed = ended

    def keep_atomic_writes(self) -> None:
        """See `owner.Owner`."""
        if self._undo_log.held:
            self.flush()

    def settle_all(self) -> None:
        """Flush, and make the checksums stable too; nothing may be in flight."""
        self.flush()
        if self._writes.under_way():
            raise StorageError(StorageFailure.NOT_READY, f"{self.path}: writes are in flight")
        with self._flush_lock:
            self.guard(self._head.sync_sums)

    def take_top(self) -> None:
        """The layers have another top, which takes the verbs from now on."""
        self._head = self._layers.top
        self._undo_log.head = self._layers.head.file

    def mark_clean(self) -> bool:
        """Say durably that everything written is stable, if it is: no write since the last flush began.

        False: a write came since then.  A store that is not intact keeps saying so.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        with self._state_lock:
            if not self._intact:
                return False
            marks, self._marks = self._marks, bytearray(len(self._marks))
            stable = self._writes.begun() == self._writes_flushed
            if not stable:
                self._marks = marks
                return False
            self.guard(self._head.sync_sums)
            if self._layers.filling is not None:
                self.guard(self._layers.filling.file.sync_sums)
            self._save(attrs.evolve(self._state, written_boot_id="", written_regions=""))
            return True

    def retire_regions(self) -> None:
        """Say durably that all is stable in the regions that nothing was written to since the last call.

        To be called now and then, so that a power cut costs the checksums of few blocks; costs least just
        after a flush.
        """
        with self._flush_lock, self._state_lock:  # the first: a merge may be about to sync the head's map
            marks = self._marks
            if not self._intact or 1 not in marks:
                self._marks = marks.replace(b"\x02", b"\x01")
                return
            # From here on a write to a retired region waits in `_mark` for the lock.
            self._marks = marks.replace(b"\x01", b"\x00").replace(b"\x02", b"\x01")
            if self._writes.under_way():  # a write under way may have seen the old marks
                self._marks = marks
                return
            self.guard(self._head.sync_data)
            self.guard(self._head.sync_sums)
            self._save(attrs.evolve(self._state, written_regions=regions_of(self._marks)))

    def mark_intact(self) -> None:
        """Say durably that the content is whole again: a rebuild has made it equal to a good one."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        with self._state_lock:
            self._save(attrs.evolve(self._state, written_boot_id=self._boot_id))
            self._intact = True

    def close(self) -> None:
        """Give the directory back.  Flushes nothing: the caller does, if it wants to."""
        self._undo_log.close()
        self._layers.close()
        self._directory.close()

    def _mark(self, first: int, last: int) -> None:
        """Before the first write to regions after a clean point: say durably that a reboot may lose it."""
        with self._state_lock:
            marks = bytearray(self._marks)
            marks[first : last + 1] = b"\x02" * (last + 1 - first)
            # A store that is not intact already says so, and the boot that it names must not be forgotten.
            boot_id = self._boot_id if self._intact else self._state.written_boot_id
            self._save(attrs.evolve(self._state, written_boot_id=boot_id, written_regions=regions_of(marks)))
            self._marks = marks

    def guard(self, step: Callable[[], None]) -> None:
        """Take a step after whose failure nobody knows what is stable: the store is broken then."""
        try:
            step()
        except StorageError as error:
            self._break(error)
            raise

    def _break(self, error: StorageError) -> None:
        self._broken = error
        with contextlib.suppress(StorageError):  # then windows go on until this process ends, which is soon
            self._layers.stamp.change()
        with self._state_lock:
            self._intact = False
            try:
                self._save(attrs.evolve(self._state, written_boot_id=FLUSH_FAILED))
            except StorageError as second:
                note_failed_flush(self._directory)
                # The disk takes nothing any more.  The membership record on the other replicas says it
                # then.
                error.add_note(f"and the failure could not be recorded: {second}")

    def _refuse(self, offset_bytes: int, length_bytes: int, failure: StorageFailure) -> None:
        if offset_bytes < 0 or offset_bytes + length_bytes > self._size_bytes:
            reason = f"{length_bytes} bytes at {offset_bytes}: the volume has {self._size_bytes}"
            raise StorageError(StorageFailure.OUT_OF_RANGE, reason)
        self._refuse_if_broken(failure)

    def _refuse_if_broken(self, failure: StorageFailure) -> None:
        if self._broken is not None:
            raise StorageError(failure, f"{self.path}: refused since a flush failed ({self._broken})")
