"""Making a pyjiva replica of a directory of Longhorn or Jiva, in place.  Blocking calls only.

The layers' files stay what and where they are.  What pyjiva needs is put beside them, under names that
neither system looks at; all that comes before 6 is stable before 6:

1. the marker `pyjiva.upgrading`: whatever is pyjiva's here is unfinished from now on;
2. what an interrupted upgrade left is removed;
3. the backing file is copied, as one more layer below all;
4. for each layer: its file gets the volume's size, its data is synced, and it gets checksums and, above
   another one, the map of the blocks that it holds;
5. `pyjiva-chain.json` is written, and with it all new names become stable;
6. `pyjiva.json`: the moment from which on the directory is pyjiva's;
7. the marker goes.

Up to 6 the directory is still one that the other system opens as before; upgrading again begins at 1, since
that system may have written to it meanwhile.  After 6 upgrading again does 7.

A block of 4 KiB in which a layer's file has something allocated is held by it; a hole is not.  That is what
both systems do.  So a block that was unmapped above a snapshot shows that snapshot's data, as it did there.
Space that was allocated and never written (an unwritten extent, fallocate(2)) counts as a hole.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.migration.foreign import BACKING_NAME, MARKER, ForeignReplica
from pyjiva.migration.image_sys import FileImage
from pyjiva.snapshot import Chain, ReplicaState
from pyjiva.snapshot.chain import (
    CHAIN_FILE,
    HEAD,
    MAP_SUFFIX,
    SUMS_SUFFIX,
    snapshot_file,
)
from pyjiva.snapshot.chain_file import encode_chain
from pyjiva.snapshot.held_map_sys import HeldMap
from pyjiva.snapshot.layer_stack_sys import block_count
from pyjiva.snapshot.state import STATE_FILE, encode_state
from pyjiva.sparse import (
    SUM_BLOCK_BYTES,
    TEMPORARY_SUFFIX,
    CheckedFile,
    DataFile,
    Directory,
    replace_file,
    sums_size_bytes,
)
from pyjiva.units import MIB

__all__ = ["Progress", "Upgrade", "finish", "first_state"]

_STEP_BYTES: Final = MIB
_MARKER_TEXT: Final = b"This directory is being upgraded to a pyjiva replica; see pyjiva import.\n"

Progress = Callable[[int], None]
"""Called with bytes that were read since the last call."""


def first_state(
    *, volume_id: str, replica_id: int, volume_name: str, size_bytes: int, block_size_bytes: int
) -> ReplicaState:
    """The state of a replica that has all of a volume which has no other yet.

    Its record says so: a controller that is told of empty replicas too serves from this one alone, and takes
    them in only when they have been copied to.  Raises ConfigError: an id or a size is impossible.
    """
    try:
        record = MembershipRecord(
            epoch=1,
            version=1,
            controller_id="import",
            configured=(replica_id,),
            in_sync=(replica_id,),
            clean=True,
        )
        return ReplicaState(
            volume_id=volume_id,
            replica_id=replica_id,
            volume_name=volume_name,
            size_bytes=size_bytes,
            block_size_bytes=block_size_bytes,
            promised_epoch=record.epoch,
            promised_to=record.controller_id,
            record=record,
            told_equal=True,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


@attrs.define(eq=False)
class Upgrade:
    """One upgrade of the directory that `replica` describes, which the caller owns and closes."""

    directory: Directory
    replica: ForeignReplica
    state: ReplicaState
    backing: DataFile | None = None
    """What the directory's backing file holds, as a raw image; stays the caller's."""
    progress: Progress = lambda _count: None

    def run(self) -> None:
        """Upgrade.

        Raises ConfigError: it is a pyjiva replica by now.  Raises StorageError: the disk refused; if that was
        before the directory became pyjiva's, what was made is removed again, as far as the disk lets.
        """
        names = self.directory.names()
        if STATE_FILE in names:
            raise ConfigError(f"{self.directory.path}: is a pyjiva replica already")
        chain = self.replica.chain(backing=self.backing is not None)
        if MARKER in names:
            self._remove_unfinished()
        else:
            replace_file(self.directory, MARKER, _MARKER_TEXT)
        try:
            self._make_files(chain)
        except StorageError:
            with contextlib.suppress(StorageError):  # the first error is the one to tell
                self._remove_unfinished()
                finish(self.directory)
            raise
        replace_file(self.directory, STATE_FILE, encode_state(self.state))
        finish(self.directory)

    def _make_files(self, chain: Chain) -> None:
        """Steps 3 to 5."""
        if self.backing is not None:
            self._copy_backing(FileImage(self.backing, self.state.size_bytes))
        for name in (*(layer.name for layer in chain.layers), HEAD):
            self._complete(chain.file_of(name), mapped=bool(chain.parent_of(name)))
        replace_file(self.directory, CHAIN_FILE, encode_chain(chain))

    def _remove_unfinished(self) -> None:
        theirs = {layer.file for layer in self.replica.layers}  # one may have the backing file's name
        unfinished = {
            CHAIN_FILE,
            *(base + TEMPORARY_SUFFIX for base in (CHAIN_FILE, STATE_FILE, MARKER)),
            *({snapshot_file(BACKING_NAME)} - theirs),
        }
        for file in {snapshot_file(BACKING_NAME)} | theirs:
            unfinished |= {file + SUMS_SUFFIX, file + MAP_SUFFIX}
        found = [name for name in self.directory.names() if name in unfinished]
        for name in found:
            self.directory.remove(name)
        self.directory.sync()

    def _copy_backing(self, backing: FileImage) -> None:
        with self._created(snapshot_file(BACKING_NAME), backing.size_bytes) as file:
            for part in backing.blocks(Extent(0, backing.size_bytes)):
                for piece in part.split(_STEP_BYTES):
                    data = backing.read(piece.offset_bytes, piece.length_bytes)
                    file.write(piece.offset_bytes, (data,))
                    self.progress(piece.length_bytes)

    def _complete(self, name: str, *, mapped: bool) -> None:
        """Step 4, for the layer whose file is `name`."""
        size_bytes = self.state.size_bytes
        data = self.directory.open(name)
        try:
            if data.size_bytes() < size_bytes:
                data.truncate(size_bytes)
            data.sync_data()  # neither system does; and what is not written back yet has no place
            held = FileImage(data, size_bytes).blocks(Extent(0, size_bytes))
            with self._created(name + SUMS_SUFFIX, sums_size_bytes(size_bytes)) as sums:
                checked = CheckedFile(data, sums, size_bytes)
                for part in held:
                    for piece in part.split(_STEP_BYTES):
                        checked.adopt(piece)
                        self.progress(piece.length_bytes)
            if mapped:
                with self._created(name + MAP_SUFFIX, block_count(size_bytes)) as file:
                    blocks = [
                        Extent(part.offset_bytes // SUM_BLOCK_BYTES, block_count(part.length_bytes))
                        for part in held
                    ]
                    HeldMap(file, block_count(size_bytes)).mark_stable(blocks)
        finally:
            data.close()

    @contextlib.contextmanager
    def _created(self, name: str, size_bytes: int) -> Iterator[DataFile]:
        """A new file, synced at the end."""
        file = self.directory.create(name)
        try:
            file.truncate(size_bytes)
            yield file
            file.sync_data()
        finally:
            file.close()


def finish(directory: Directory) -> None:
    """Step 7."""
    if MARKER in directory.names():
        directory.remove(MARKER)
    directory.sync()
