"""Replicas' directories as Longhorn and Jiva leave them, and a reader of such directories.

Written from what is known of the two formats, and on purpose without anything of `pyjiva.migration` or
`pyjiva.snapshot`: tests compare the product with it.  Facts: longhorn-engine `pkg/replica/replica.go` and
`diff_disk.go`, jiva `replica/replica.go`.

- `volume.meta` and `NAME.img.meta` are one JSON object and a newline, as Go's encoder writes them;
- after a snapshot its `.meta` still has the Name of the head that it was;
- a sector of 4 KiB is a layer's if anything of it is allocated in the layer's file; else it is looked for
  below, at last in the backing file.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.extent import Extent
from pyjiva.sparse import DataFile, Directory

__all__ = ["SECTOR_BYTES", "FixtureLayer", "FixtureVolume", "put_file", "read_foreign", "write_foreign"]

SECTOR_BYTES: Final = 4096


@attrs.frozen(kw_only=True)
class FixtureLayer:
    """A layer that a test wants; its sectors are what was written to it."""

    name: str
    """"" for the head."""
    parent: str = ""
    sectors: Mapping[int, bytes] = attrs.field(factory=dict, repr=False)
    """Number of the sector → its content; the volume's last one may be short."""
    removed: bool = False
    user_created: bool = True
    created: str = "2024-05-01T10:00:00Z"
    labels: Mapping[str, str] | None = None
    size_bytes: int | None = None
    """None: the volume's."""


@attrs.frozen(kw_only=True, repr=False)
class FixtureVolume:
    """A directory that a test wants."""

    size_bytes: int
    layers: tuple[FixtureLayer, ...]
    """In any order; one of them is the head."""
    is_jiva: bool = False
    head_number: int = 3
    dirty: bool = False
    rebuilding: bool = False
    backing: bytes | None = None
    backing_name: str = "/images/base.raw"
    revision_counter: int | None = None
    other: Mapping[str, Any] = attrs.field(factory=dict)
    """More fields of `volume.meta`."""

    def __repr__(self) -> str:
        """Without the contents, which would fill the screen when a test fails."""
        return f"FixtureVolume({', '.join(layer.name or 'head' for layer in self.layers)})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """The same for hypothesis."""
        printer.text(repr(self))

    @property
    def head_file(self) -> str:
        """The head's file."""
        return f"volume-head-{self.head_number:03d}.img"

    def file_of(self, name: str) -> str:
        """A layer's file."""
        return f"volume-snap-{name}.img" if name else self.head_file

    def layer(self, name: str) -> FixtureLayer:
        """The layer of this name."""
        return next(layer for layer in self.layers if layer.name == name)

    def content(self, name: str) -> bytes:
        """The volume as of a snapshot, or of the head."""
        backing = (self.backing or b"")[: self.size_bytes]
        data = bytearray(backing.ljust(self.size_bytes, b"\0"))
        path = [self.layer(name)]
        while path[-1].parent:
            path.append(self.layer(path[-1].parent))
        for layer in reversed(path):
            for number, sector in layer.sectors.items():
                data[number * SECTOR_BYTES : number * SECTOR_BYTES + len(sector)] = sector
        return bytes(data)

    def contents(self) -> dict[str, bytes]:
        """Every snapshot that is not removed, and the head as ""."""
        return {layer.name: self.content(layer.name) for layer in self.layers if not layer.removed}


def write_foreign(directory: Directory, volume: FixtureVolume) -> None:
    """Fill the empty `directory`; all of it is stable then."""
    for number, layer in enumerate(volume.layers):
        file = directory.create(volume.file_of(layer.name))
        file.truncate(volume.size_bytes if layer.size_bytes is None else layer.size_bytes)
        for sector, content in layer.sectors.items():
            file.write(sector * SECTOR_BYTES, (content,))
        file.sync_data()
        file.close()
        meta: dict[str, Any] = {
            "Name": volume.head_file if not layer.name else f"volume-head-{number:03d}.img",
            "Parent": volume.file_of(layer.parent) if layer.parent else "",
            "Removed": layer.removed,
            "UserCreated": layer.user_created,
            "Created": layer.created,
        }
        meta |= {"RevisionCounter": 7} if volume.is_jiva else {"Labels": layer.labels}
        put_file(directory, volume.file_of(layer.name) + ".meta", _json(meta))
    put_file(directory, "volume.meta", _json(_volume_meta(volume)))
    if volume.revision_counter is not None:
        put_file(directory, "revision.counter", str(volume.revision_counter).encode().ljust(4096, b"\0"))
    directory.sync()


def _volume_meta(volume: FixtureVolume) -> dict[str, Any]:
    head = volume.layer("")
    meta: dict[str, Any] = {
        "Size": volume.size_bytes,
        "Head": volume.head_file,
        "Dirty": volume.dirty,
        "Rebuilding": volume.rebuilding,
        "Parent": volume.file_of(head.parent) if head.parent else "",
        "SectorSize": 4096 if volume.is_jiva else 512,
    }
    backing = "" if volume.backing is None else volume.backing_name
    if volume.is_jiva:
        meta |= {"BackingFileName": backing, "CloneStatus": "NA", "Checkpoint": "", "RevisionCounter": 9}
    else:
        meta |= {"Error": "", "BackingFilePath": backing}
    return meta | dict(volume.other)


def put_file(directory: Directory, name: str, content: bytes) -> None:
    """A small file; its name is stable after the directory's next sync."""
    file = directory.create(name)
    file.truncate(len(content))
    file.write(0, (content,))
    file.sync_data()
    file.close()


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def read_foreign(directory: Directory, backing: bytes = b"") -> dict[str, bytes]:
    """What Longhorn or Jiva would show of `directory`: every snapshot that is not removed, the head as "".

    Raises AssertionError: it would not open it.
    """
    volume = json.loads(_content(directory, "volume.meta"))
    suffix = ".img.meta"
    names = [name for name in directory.names() if name.endswith(suffix)]
    disks = {name.removesuffix(".meta"): json.loads(_content(directory, name)) for name in names}
    assert not volume["Rebuilding"]
    assert volume["Head"] in disks, "the head has no .meta"
    shown = {}
    for file, disk in disks.items():
        if file == volume["Head"]:
            shown[""] = _shown(directory, disks, file, volume["Size"], backing)
        elif not disk["Removed"]:
            name = file.removeprefix("volume-snap-").removesuffix(".img")
            shown[name] = _shown(directory, disks, file, volume["Size"], backing)
    return shown


def _shown(
    directory: Directory, disks: Mapping[str, Any], file: str, size_bytes: int, backing: bytes
) -> bytes:
    data = bytearray(backing[:size_bytes].ljust(size_bytes, b"\0"))
    path = [file]
    while disks[path[-1]]["Parent"]:
        path.append(disks[path[-1]]["Parent"])
        assert path[-1] in disks, f"{path[-1]} has no .meta"
        assert len(path) <= len(disks), "a circle"
    for name in reversed(path):
        opened = directory.open(name)
        for sector in _sectors(opened):
            start = sector * SECTOR_BYTES
            length = min(SECTOR_BYTES, opened.size_bytes() - start)
            data[start : start + length] = opened.read(start, length)
        opened.close()
    return bytes(data[:size_bytes])


def _sectors(file: DataFile) -> set[int]:
    """The sectors that a layer has."""
    owned: set[int] = set()
    for extent in file.allocated(Extent(0, file.size_bytes())):
        owned |= set(range(extent.offset_bytes // SECTOR_BYTES, -(-extent.end_bytes // SECTOR_BYTES)))
    return owned


def _content(directory: Directory, name: str) -> bytes:
    file = directory.open(name)
    content = bytes(file.read(0, file.size_bytes()))
    file.close()
    return content
