"""What a replica that is killed was writing in place just then.  Blocking calls only.

A write in place says where it is in a word of the machine's memory (`sparse.Slot`) until the block and its
checksum are both written; so the checksums of other blocks are right after a kill.  The file `pyjiva-slot`
in the directory has the name of the word.  It is written before the first such write, and emptied when the
directory is closed; nothing of it is synced, as it says nothing after another boot.

Who opens the directory makes the checksums unknown of what was `under_way`, gives itself another word, and
only then lets go of the old one; so a kill in between changes nothing.  If the file names a word that is not
there, such as one in another container's memory, any block may be it that was written since its region
was last made stable, as after a power cut.
"""

import contextlib
from typing import Final

import attrs

from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot.regions import marked_extents
from pyjiva.snapshot.state import ReplicaState
from pyjiva.sparse import DataFile, Directory, ReadableDirectory, Slot, extent_under_way, read_file

__all__ = ["SLOT_FILE", "UnderWay", "under_way"]

SLOT_FILE: Final = "pyjiva-slot"


def under_way(directory: ReadableDirectory, state: ReplicaState, boot_id: str) -> list[Extent]:
    """Of which blocks of the head the checksums say nothing, as a process of this boot may have been killed
    while it wrote there.  `boot_id` is that of this boot.

    Raises StorageError: the names in the directory cannot be read.
    """
    if state.written_boot_id != boot_id or SLOT_FILE not in directory.names():
        return []
    try:
        name = _name_in(directory)
    except StorageError:
        return list(marked_extents(state))
    if not name:
        return []
    word = directory.slots.look(name)
    if word is None:
        return list(marked_extents(state))
    extent = extent_under_way(word, state.size_bytes)
    return [extent] if extent.length_bytes else []


def _name_in(directory: ReadableDirectory) -> str:
    return read_file(directory, SLOT_FILE).strip(b"\0").decode("ascii", "replace")


@attrs.define(eq=False)
class UnderWay:
    """The word of this process, and the file that names it."""

    _slot: Slot
    _file: DataFile

    @classmethod
    def begin(cls, directory: Directory) -> "UnderWay | None":
        """A new word, in place of that of the process before; what that one said has been looked at.

        None: the machine gives none, or the disk does not take its name; then writes in place are as all
        others.  Raises StorageError: the names in the directory cannot be read.
        """
        present = SLOT_FILE in directory.names()
        try:
            slot = directory.slots.make()
        except StorageError:
            slot = None
        if slot is None and not present:
            return None
        try:
            old = _name_in(directory) if present else ""
            file = directory.open(SLOT_FILE) if present else directory.create(SLOT_FILE)
            try:
                _write(file, "" if slot is None else slot.name)
            except StorageError:
                file.close()
                raise
        except StorageError:  # the file goes on naming the old word, which stays
            if slot is not None:
                slot.remove()
            return None
        directory.slots.remove(old)
        if slot is None:
            file.close()
            return None
        return cls(slot, file)

    @property
    def word(self) -> memoryview:
        """What `CheckedFile.slot` is."""
        return self._slot.word

    def close(self) -> None:
        """Nothing is under way any more."""
        with contextlib.suppress(StorageError):  # else whoever opens the directory finds the word, which is 0
            _write(self._file, "")
            self._slot.remove()
        self._file.close()


def _write(file: DataFile, name: str) -> None:
    """Every name has the same length; what is new in a file holds zeros until it is written."""
    if file.size_bytes() != len(name):
        file.truncate(len(name))
    if name:
        file.write(0, (name.encode("ascii"),))
