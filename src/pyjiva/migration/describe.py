"""What a replica's directory that Longhorn or Jiva wrote holds, and what of it cannot be taken.  Pure.

Both keep one sparse file per layer with a `.meta` that names the parent, and `volume.meta` that names the
head (`snapshot.metadata`).  What they read, and so what counts here:

- a layer is known by the *file name* of its `.meta`; the field Name in it is ignored, and is that of the old
  head after a snapshot (longhorn-engine `pkg/replica/replica.go`, readDiskData and createDisk);
- the chain follows from the `.meta` files; Parent in `volume.meta` is only a copy;
- a sector of 4 KiB of which a layer's file has something allocated belongs to the layer, and a hole means
  "look below", at last into the backing file.  So what was unmapped above a snapshot shows that snapshot's
  data again: there is nothing in the directory that tells it from what was never written;
- a layer may be shorter than the volume, which was grown since (Longhorn), or longer, if a crash interrupted
  growing (Jiva).

A crash leaves more than that: a new head that nothing names yet, an old one under its old and its new name, a
`.meta` without its layer.  `describe` says of each whether it is harmless.

Left out: restoring what a crash of Longhorn or Jiva has damaged; backups and their blocks.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.migration.foreign import (
    BACKING_NAME,
    IMAGE,
    MARKER,
    REVISION_FILE,
    DirectoryFacts,
    Finding,
    ForeignLayer,
    ForeignReplica,
    Hinders,
    pyjiva_layer,
)
from pyjiva.snapshot import Chain, DiskMeta, VolumeMeta
from pyjiva.snapshot.chain import CHAIN_FILE, HEAD, MAP_SUFFIX, SUMS_SUFFIX, snapshot_file
from pyjiva.snapshot.layer_index import LAYERS_MAX
from pyjiva.snapshot.metadata import META_SUFFIX, VOLUME_META
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.units import format_size

__all__ = ["describe", "parse_revision_counter"]

JOURNAL_FILE: Final = (
    "journal.log"  # of Longhorn's snapshot changes, in its newest versions; replayed at opening
)
_OURS: Final = ("volume-head-", "volume-snap-")  # what pyjiva removes when its chain does not name it
_CHECKSUM_SUFFIX: Final = ".checksum"
_TEMPORARY_SUFFIX: Final = ".tmp"  # of all three systems
_KNOWN: Final = frozenset({VOLUME_META, REVISION_FILE, JOURNAL_FILE, "peer.details", MARKER, "lost+found"})
_SECTORS_BYTES: Final = (512, 4096)
_SIZE_BYTES_MAX: Final = 2**63 - 4096
_REVISION: Final = re.compile(rb"[0-9]{1,19}")
_UNFINISHED_CLONES: Final = ("inProgress", "error")


def parse_revision_counter(content: bytes) -> int | None:
    """The number of writes in `revision.counter`: decimal digits, then zeros; None: something else."""
    digits = content.rstrip(b"\0")
    return int(digits) if _REVISION.fullmatch(digits) else None


def describe(facts: DirectoryFacts) -> ForeignReplica:
    """What the directory holds, and what speaks against taking it.

    Raises ConfigError: it is no directory of Longhorn's or Jiva's.
    """
    if STATE_FILE in facts.names:
        raise ConfigError("is a pyjiva replica already")
    if VOLUME_META not in facts.names and not facts.sizes:
        raise ConfigError("holds nothing that Longhorn or Jiva wrote: no volume.meta, no volume-head-000.img")
    return _Description(facts).run()


@attrs.define
class _Description:
    """`describe` under way."""

    facts: DirectoryFacts
    findings: list[Finding] = attrs.field(factory=list)
    leftovers: list[str] = attrs.field(factory=list)
    disks: dict[str, DiskMeta] = attrs.field(factory=dict)
    """File name → its `.meta`, of all that can be read."""
    damaged: dict[str, str] = attrs.field(factory=dict)
    """File name → why its `.meta` cannot be read."""
    whole: dict[str, bool] = attrs.field(factory=dict)
    """File name → whether it is live, of the layers that are whole; each after the one that it stands on."""

    def run(self) -> ForeignReplica:
        volume = self.read_volume()
        self.read_disks()
        if self.facts.in_use:
            self.find(Hinders.READING, "a process has the head open for writing: stop the volume first")
        layers: tuple[ForeignLayer, ...] = ()
        if volume is not None:
            self.check_flags(volume)
            if self.find_live(volume):
                self.find_branches(volume)
                self.check_sizes(volume)
                layers = self.make_layers(volume)
                self.check_others()
        revision = self.facts.contents.get(REVISION_FILE)
        return ForeignReplica(
            system=_system_of(volume),
            volume=volume,
            layers=layers,
            backing_file=_backing_file(volume),
            revision_counter=None if revision is None else parse_revision_counter(revision),
            findings=tuple(self.findings),
            leftovers=tuple(sorted(self.leftovers)),
        )

    def find(self, hinders: Hinders, text: str) -> None:
        self.findings.append(Finding(hinders, text))

    def read_volume(self) -> VolumeMeta | None:
        content = self.facts.contents.get(VOLUME_META, b"")
        if not content.strip():
            what = "is empty or no metadata" if VOLUME_META in self.facts.names else "is missing"
            self.find(
                Hinders.READING,
                f"{VOLUME_META} {what}, so nothing says which file is the head: take another replica, or let "
                f"the system that wrote it open and close the volume once",
            )
            return None
        try:
            volume = VolumeMeta.decode(content)
        except ConfigError as error:
            self.find(Hinders.READING, str(error))
            return None
        if volume.size_bytes > _SIZE_BYTES_MAX or volume.size_bytes % 512:
            self.find(Hinders.READING, f"{VOLUME_META} is damaged: Size {volume.size_bytes}")
            return None
        if volume.sector_size_bytes not in _SECTORS_BYTES:
            self.find(Hinders.READING, f"{VOLUME_META}: SectorSize {volume.sector_size_bytes} is not known")
        return volume

    def read_disks(self) -> None:
        for name in sorted(self.facts.names):
            file = name.removesuffix(META_SUFFIX)
            if name == file or IMAGE.fullmatch(file) is None:
                continue
            content = self.facts.contents.get(name)
            try:
                if content is None:
                    raise ConfigError(f"{name} is too large to be metadata")
                self.disks[file] = DiskMeta.decode(file, content, any_name=True)
            except ConfigError as error:
                self.damaged[file] = str(error)

    def check_flags(self, volume: VolumeMeta) -> None:
        if volume.rebuilding:
            self.find(
                Hinders.READING, "Rebuilding: it was being rebuilt, and lacks data: take another replica"
            )
        clone = volume.other.get("CloneStatus")
        if clone in _UNFINISHED_CLONES:
            self.find(Hinders.READING, f"CloneStatus {clone}: it was being cloned, and lacks data")
        if volume.dirty:
            journal = f"; {JOURNAL_FILE} may hold a change of snapshots that was cut"
            self.find(
                Hinders.DIRTY,
                f"Dirty: it was not closed, so it is in use, or its process was killed, and another replica "
                f"may have newer writes{journal if JOURNAL_FILE in self.facts.names else ''}",
            )
        if error := volume.other.get("Error"):
            self.find(Hinders.DIRTY, f"Error: it noted {str(error)[:200]!r}")
        if volume.other.get("Encrypted") is True:
            self.find(Hinders.NOTHING, "Encrypted: what it holds is what LUKS made of the volume")

    def fault_of(self, file: str) -> str:
        """Why a layer cannot be read; "" if it can, as far as it alone goes."""
        if file in self.damaged:
            return self.damaged[file]
        if file not in self.disks:
            return f"{file}{META_SUFFIX} is missing"
        return "" if file in self.facts.sizes else f"{file} is missing"

    def find_live(self, volume: VolumeMeta) -> bool:
        """Go down from the head; False: the volume cannot be read."""
        path: list[str] = []
        file = volume.head
        while file:
            fault = f"the layers go round in a circle at {file}" if file in path else self.fault_of(file)
            if not fault and len(path) > LAYERS_MAX:
                fault = f"there are more than {LAYERS_MAX} layers"
            if fault:
                self.find(Hinders.READING, f"the chain of layers is broken: {fault}")
                return False
            path.append(file)
            file = self.disks[file].parent
        match = IMAGE.fullmatch(volume.head)
        if match is None or match[1] is None:
            self.find(Hinders.READING, f"{VOLUME_META} is damaged: {volume.head!r} is no head")
            return False
        if Chain(head_number=int(match[1])).head_file != volume.head:
            self.find(Hinders.UPGRADE, f"{volume.head}: the number is written in another way than usual")
        for below in path[1:]:
            if not _is_snapshot(below):
                self.find(Hinders.READING, f"the chain of layers is broken: {below} is another head")
                return False
        self.whole = dict.fromkeys(reversed(path), True)
        return True

    def find_branches(self, volume: VolumeMeta) -> None:
        """The layers that the head does not stand on: snapshots that a revert left, and what a crash did."""
        parents = {disk.parent for disk in self.disks.values()}
        pending = [file for file in (*self.disks, *self.damaged) if file not in self.whole]
        heads = [file for file in pending if not _is_snapshot(file)]
        for file in heads:
            self.judge_old_head(file, volume)
        pending = [file for file in pending if file not in heads]
        for file in pending:
            if not self.fault_of(file):
                continue
            if file in self.disks and file not in parents:  # the layer goes first, then its .meta
                self.let_go(file + META_SUFFIX, f"{file} was removed, but for its {META_SUFFIX}")
            else:
                self.find(
                    Hinders.UPGRADE, f"snapshot {_name_of(file)} cannot be taken: {self.fault_of(file)}"
                )
        pending = [file for file in pending if not self.fault_of(file)]
        grown = True
        while grown:
            grown = False
            for file in pending:
                parent = self.disks[file].parent
                stands = not parent or (parent in self.whole and parent != volume.head)
                if file not in self.whole and stands:
                    self.whole[file] = False
                    grown = True
        for file in pending:
            if file not in self.whole:
                below = self.disks[file].parent
                self.find(
                    Hinders.UPGRADE,
                    f"snapshot {_name_of(file)} cannot be taken: {below}, on which it stands, is not whole",
                )

    def judge_old_head(self, file: str, volume: VolumeMeta) -> None:
        """A head that `volume.meta` does not name: a crash came before it was used, or before it went."""
        if file not in self.facts.sizes:
            self.let_go(file + META_SUFFIX, f"{file} was removed, but for its {META_SUFFIX}")
        elif not self.facts.allocated[file] or _is_snapshot(self.facts.same_file.get(file, "")):
            self.let_go(file, f"{file} is not in use any more, or not yet")
            if file + META_SUFFIX in self.facts.names:
                self.leftovers.append(file + META_SUFFIX)
        else:
            self.find(
                Hinders.UPGRADE,
                f"{file} holds data, and {VOLUME_META} says that {volume.head} is the head: move it away if "
                f"it is not needed",
            )

    def let_go(self, name: str, why: str) -> None:
        self.leftovers.append(name)
        self.find(Hinders.NOTHING, f"{why}: an upgrade removes it")

    def check_sizes(self, volume: VolumeMeta) -> None:
        size = volume.size_bytes
        for file in self.whole:
            has = self.facts.sizes[file]
            if has < size and file == volume.head:
                self.find(Hinders.READING, f"{file} has {has} bytes, and {VOLUME_META} says {size}")
            elif has < size:
                grown = f"{file} has {format_size(has)}: the volume was grown after it"
                self.find(Hinders.NOTHING, f"{grown}; what is beyond counts as not written")
            elif has > size:
                self.find(
                    Hinders.NOTHING,
                    f"{file} has {has} bytes, more than the volume: what is beyond is no part of it",
                )
            other = self.facts.same_file.get(file)
            if other is not None and other in self.whole and file < other:
                self.find(
                    Hinders.UPGRADE,
                    f"{file} and {other} are one file: a crash interrupted a snapshot; let the system that "
                    f"wrote them delete it",
                )

    def make_layers(self, volume: VolumeMeta) -> tuple[ForeignLayer, ...]:
        layers = []
        for file in (*(each for each in self.whole if each != volume.head), volume.head):
            disk = self.disks[file]
            layer = ForeignLayer(
                name=HEAD if file == volume.head else _name_of(file),
                file=file,
                parent=_name_of(disk.parent) if disk.parent else "",
                meta=disk,
                size_bytes=self.facts.sizes[file],
                allocated_bytes=self.facts.allocated[file],
                is_live=self.whole[file],
            )
            layers.append(layer)
            if layer.name != HEAD:
                self.check_name(layer, volume)
        if len(layers) + 1 > LAYERS_MAX:
            self.find(Hinders.UPGRADE, f"there are {len(layers)} layers: more than pyjiva can keep")
        return tuple(layers)

    def check_name(self, layer: ForeignLayer, volume: VolumeMeta) -> None:
        try:
            pyjiva_layer(layer, "")
        except ValueError as error:
            self.find(Hinders.UPGRADE, f"snapshot {layer.name!r} cannot be taken: {error}")
        if layer.name == BACKING_NAME and _backing_file(volume):
            self.find(Hinders.UPGRADE, f"snapshot {BACKING_NAME} has a name that the upgrade needs")

    def check_others(self) -> None:
        """Every other file: ours from an upgrade that was cut, of no use, or not known."""
        unfinished = set(_unfinished((*self.whole, snapshot_file(BACKING_NAME))))
        upgrading = MARKER in self.facts.names
        if upgrading:
            self.find(Hinders.NOTHING, "an upgrade was interrupted: upgrading again begins anew")
        used = {file + suffix for file in self.whole for suffix in ("", META_SUFFIX)}
        seen = used | _KNOWN | set(self.leftovers)
        faulty = set(self.disks) | set(self.damaged)
        for name in sorted(self.facts.names - seen):
            file = name.removesuffix(META_SUFFIX)
            if upgrading and name in unfinished:
                continue
            if file in faulty:
                continue  # said already
            if name.endswith((_CHECKSUM_SUFFIX, META_SUFFIX + _TEMPORARY_SUFFIX)):
                if name.startswith((*_OURS, VOLUME_META)):
                    self.leftovers.append(name)
            elif name in self.facts.allocated and not self.facts.allocated[name]:
                self.let_go(name, f"{name} is empty and has no {META_SUFFIX}")
            elif name.startswith((*_OURS, CHAIN_FILE)):
                self.find(Hinders.UPGRADE, f"{name} is not known: an upgrade would remove it; move it away")
            else:
                self.find(Hinders.NOTHING, f"{name} is not known, and is left as it is")


def _unfinished(files: Iterable[str]) -> Iterator[str]:
    """What an upgrade that was cut may leave."""
    for file in files:
        yield from (file + SUMS_SUFFIX, file + MAP_SUFFIX)
    yield from (
        snapshot_file(BACKING_NAME),
        *(name for base in (CHAIN_FILE, STATE_FILE, MARKER) for name in (base, base + _TEMPORARY_SUFFIX)),
    )


def _is_snapshot(file: str) -> bool:
    match = IMAGE.fullmatch(file)
    return match is not None and match[2] is not None


def _name_of(file: str) -> str:
    """The snapshot's name; what is not one keeps its file name."""
    match = IMAGE.fullmatch(file)
    return file if match is None or match[2] is None else match[2]


def _system_of(volume: VolumeMeta | None) -> str:
    if volume is not None and "CloneStatus" in volume.other:
        return "Jiva"
    return "Longhorn" if volume is not None and "Error" in volume.other else "Longhorn or Jiva"


def _backing_file(volume: VolumeMeta | None) -> str:
    if volume is None:
        return ""
    jivas = volume.other.get("BackingFileName")
    return volume.backing_file_path or (jivas if isinstance(jivas, str) else "")
