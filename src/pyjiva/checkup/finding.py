"""What can be wrong with a replica's directory: each kind with what it means and what to do.  Pure.

A test holds that docs/howto/check-and-repair.md has every kind.
"""

import enum
from typing import Final

import attrs

__all__ = ["KINDS", "Finding", "Kind", "Remedy", "Severity"]


class Severity(enum.Enum):
    """How bad it is."""

    NOTE = "note"
    """All is well; good to know."""
    WARNING = "warning"
    """The directory is as it should be, but this copy may lack something that others have."""
    DAMAGE = "damage"
    """Something is not what was written, or not there."""


class Remedy(enum.Enum):
    """Who puts it right."""

    NOTHING = "nothing"
    """Nothing needs to be done."""
    OPENING = "opening"
    """The replica itself, when it is started the next time; a repair does nothing."""
    VOLUME = "volume"
    """The volume, from its other replicas, when this one is back among them."""
    REPAIR = "repair"
    """`pyjiva repair`."""
    REBUILD = "rebuild"
    """Only a rebuild of the whole replica, from the others."""


@attrs.frozen
class Kind:
    """One kind of finding."""

    name: str
    severity: Severity
    remedy: Remedy
    means: str
    todo: str


@attrs.frozen
class Finding:
    """One thing that was found."""

    kind: Kind
    subject: str
    """Names of files, or "" for the replica as a whole."""
    detail: str


_NOTHING_TO_DO: Final = "Nothing."
_REPAIR: Final = "Run `pyjiva repair`; the replica counts as behind then, and is compared with the others."
_MOVE_AWAY: Final = (
    "Move the directory away and start the replica with an empty one: it is rebuilt from the others. Keep "
    "the old directory until that is done; if this was the last copy, for good."
)


def _note(name: str, remedy: Remedy, means: str, todo: str = _NOTHING_TO_DO) -> Kind:
    return Kind(name, Severity.NOTE, remedy, means, todo)


def _warning(name: str, means: str, todo: str) -> Kind:
    return Kind(name, Severity.WARNING, Remedy.VOLUME, means, todo)


def _damage(name: str, remedy: Remedy, means: str, todo: str = "") -> Kind:
    return Kind(
        name, Severity.DAMAGE, remedy, means, todo or (_REPAIR if remedy is Remedy.REPAIR else _MOVE_AWAY)
    )


# --- the state

STATE_MISSING: Final = _damage(
    "state-missing",
    Remedy.REBUILD,
    "The file that says who this replica is, what it has promised and which record it has accepted is gone. "
    "Nothing else says so, and it must not be made up.",
)
STATE_DAMAGED: Final = _damage(
    "state-damaged",
    Remedy.REBUILD,
    "The file that says who this replica is, what it has promised and which record it has accepted is not "
    "what was written. Nothing else says so, and it must not be made up.",
)
CREATION_CUT: Final = _note(
    "creation-cut",
    Remedy.OPENING,
    "The directory was being made when its machine or process stopped; it has never held data. It is made "
    "again when the replica is started.",
)
UNCLEAN: Final = _note(
    "not-flushed",
    Remedy.VOLUME,
    "The replica did not stop cleanly. All that was written is in this machine's memory or on its disk, as "
    "the machine has not been down since.",
)
REBOOTED: Final = _warning(
    "machine-went-down",
    "This machine went down after writes that were not flushed: some of them may be gone here. Another "
    "replica is preferred, and this one is compared with it.",
    "Start the replica. If it is the only one left, start it all the same: what was flushed is there.",
)
FLUSH_HAS_FAILED: Final = _warning(
    "flush-failed",
    "The disk refused to make writes stable: some of them may be gone. Another replica is preferred, and "
    "this one is compared with it.",
    "Look at the disk (dmesg, SMART), then start the replica.",
)
WAS_REPAIRED: Final = _warning(
    "repaired",
    "`pyjiva repair` mended damage here. The replica counts as behind until the volume has compared it with "
    "another one, or rebuilt it.",
    "Start the replica.",
)
NOT_EQUAL_YET: Final = _note(
    "not-equal-yet",
    Remedy.VOLUME,
    "No controller has said yet that this directory holds what the others do: it is new, or was repaired. It "
    "is rebuilt.",
)
OUT: Final = _note(
    "not-in-sync",
    Remedy.VOLUME,
    "The newest record that this replica knows does not name it as in sync: it is behind, and is rebuilt.",
)
NOT_CONFIGURED: Final = _note(
    "not-a-member",
    Remedy.NOTHING,
    "The newest record that this replica knows does not name it at all: it was removed from the volume.",
    "If that was meant, the directory can go.",
)

# --- the chain

CHAIN_DAMAGED: Final = _damage(
    "chain-damaged",
    Remedy.REPAIR,
    "The file that says which layers there are is not what was written. The .meta files say the same, and "
    "agree with each other and with the files that are there.",
)
CHAIN_MISSING: Final = _damage(
    "chain-missing",
    Remedy.REPAIR,
    "There are layers, but the file that says how they stand on each other is gone. The .meta files say the "
    "same, and agree with each other and with the files that are there.",
)
CHAIN_LOST: Final = _damage(
    "chain-lost",
    Remedy.REBUILD,
    "Nothing says reliably which layers there are: neither the file for that, nor the .meta files.",
)
RENAMES_LEFT: Final = _note(
    "renames-left",
    Remedy.OPENING,
    "A change of the snapshots was made and its files have not all got their new names yet.",
)
GROWING: Final = _note(
    "growing",
    Remedy.NOTHING,
    "The volume was about to get another size, and that was cut: files may be larger than the volume.",
)
METAS_DIFFER: Final = _note(
    "metas-differ",
    Remedy.OPENING,
    "Files that only tell Jiva and Longhorn which layers there are do not say what the chain does. pyjiva "
    "does not read them here, and writes them anew.",
)
META_UNREADABLE: Final = _damage(
    "meta-unreadable",
    Remedy.REPAIR,
    "A .meta file cannot be read, so the replica does not start. pyjiva knows what has to be in it.",
)
META_DAMAGED: Final = _damage(
    "meta-damaged",
    Remedy.REPAIR,
    "The replica has had no snapshot, so .meta files say which file has its data, and they are missing or "
    "not what was written. There is one such file alone.",
)

# --- the files of the layers

DATA_MISSING: Final = _damage("data-missing", Remedy.REBUILD, "The data of a layer is gone.")
DATA_SHORT: Final = _damage("data-short", Remedy.REBUILD, "The end of a layer's data was cut off.")
FILE_UNREADABLE: Final = _damage(
    "file-unreadable", Remedy.REBUILD, "A file of a layer cannot be opened or read."
)
TOO_LONG: Final = _damage(
    "too-long",
    Remedy.REPAIR,
    "A file is larger than the volume, which has not grown. The replica does not start like this; what is "
    "beyond the end of the volume is of no use.",
)
GROWN: Final = _note(
    "longer-than-volume",
    Remedy.NOTHING,
    "A file is larger than the volume: a change of its size was cut. What is beyond the end is not used.",
)
SUMS_NOT_MADE: Final = _note(
    "sums-not-made",
    Remedy.OPENING,
    "A layer without data has no checksums yet.",
)
SUMS_LOST: Final = _damage(
    "sums-lost",
    Remedy.REPAIR,
    "Checksums are missing. What the disk may have changed in these blocks goes unnoticed.",
    "Run `pyjiva repair`: the volume compares what it shows now with its other replicas, and the blocks get "
    "checksums again when they are written or scrubbed. What only snapshots show is not compared: if they "
    "matter, move the directory away instead, for a whole rebuild.",
)
MAP_LOST: Final = _damage(
    "map-lost",
    Remedy.REBUILD,
    "The map of the blocks that a layer holds is missing or cut off. It cannot be made from the data: a "
    "block that was unmapped looks like one that was never written, and shows zeros, not older data.",
)
MAP_DAMAGED: Final = _damage(
    "map-damaged",
    Remedy.REBUILD,
    "The map of the blocks that a layer holds is not what was written; reads of 16 MiB around each such "
    "place fail. It cannot be made from the data.",
)
BAD_BLOCKS: Final = _damage(
    "bad-blocks",
    Remedy.VOLUME,
    "Blocks are not what was written: the disk has changed or lost them, or no replica had them any more. "
    "Reads of them fail here and are answered by another replica.",
    "Start the replica, then `pyjiva scrub`: blocks of the volume are repaired from the others. Blocks of a "
    "snapshot alone need a whole rebuild: move the directory away. Look at the disk (dmesg, SMART).",
)
UNREADABLE_BLOCKS: Final = _damage(
    "unreadable-blocks",
    Remedy.VOLUME,
    "The disk refuses to give blocks. Reads of them fail here and are answered by another replica.",
    "Look at the disk (dmesg, SMART) and replace it; the replica is rebuilt.",
)
UNKNOWN_BLOCKS: Final = _note(
    "unknown-blocks",
    Remedy.VOLUME,
    "Blocks have no checksum, as after a power cut or a kill: what they hold is believed.",
    "Nothing. `pyjiva scrub` gives them one.",
)

# --- other files

UNDO_PENDING: Final = _note(
    "undo-pending",
    Remedy.OPENING,
    "An atomic write was cut; its old content is put back when the replica is started.",
)
UNDO_UNREADABLE: Final = _damage(
    "undo-unreadable",
    Remedy.REBUILD,
    "What an atomic write replaced cannot be read, so the replica does not start.",
)
LEFT_OVER: Final = _note(
    "left-over",
    Remedy.OPENING,
    "Files that nothing names any more, or not yet. The replica removes them when it is started, or writes "
    "over them when it needs their names.",
    "Nothing. If you have put one there yourself, take it away first.",
)
KEPT: Final = _note(
    "kept-by-repair",
    Remedy.NOTHING,
    "Files that an earlier repair replaced and kept.",
    "Remove them when the replica is in sync again.",
)
FOREIGN: Final = _note(
    "foreign",
    Remedy.NOTHING,
    "Files that are not pyjiva's. It does not touch them.",
)

KINDS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
