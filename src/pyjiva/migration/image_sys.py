"""The volume as the files of Longhorn or Jiva show it, without changing them.  Blocking calls only.

A block of 4 KiB comes from the highest layer whose file has anything allocated there, else from the backing
file, else it is zeros.  Nothing is remembered: each read asks each layer, from the head down, what it has
(lseek(2), SEEK_DATA); so it is slower with every snapshot, and costs no memory.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import attrs

from pyjiva.extent import Extent, merge_extents
from pyjiva.migration.foreign import ForeignReplica
from pyjiva.migration.foreign_sys import ReadableDirectory
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer, DataFile
from pyjiva.units import align_down, align_up

__all__ = ["FileImage", "Image", "LayeredImage", "blocks_of", "open_image"]

_NOTHING: Final[list[Extent]] = []


class Image(Protocol):
    """A volume that can be read."""

    @property
    def size_bytes(self) -> int:
        """Its size."""

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """The range, which lies inside."""

    def allocated(self, extent: Extent) -> list[Extent]:
        """The parts of `extent` that hold data, sorted and disjoint; the rest is zeros."""


@attrs.define(eq=False)
class FileImage:
    """A file whose size is not the volume's: what is beyond its end is zeros."""

    file: DataFile
    size_bytes: int
    """The volume's."""
    _has_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._has_bytes = self.file.size_bytes()

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See Image."""
        there = max(0, min(length_bytes, self._has_bytes - offset_bytes))
        data = self.file.read(offset_bytes, there) if there else b""
        return data if there == length_bytes else bytes(data) + bytes(length_bytes - there)

    def allocated(self, extent: Extent) -> list[Extent]:
        """See Image."""
        there = extent.clip(Extent(0, self._has_bytes))
        return self.file.allocated(there) if there is not None else _NOTHING

    def blocks(self, extent: Extent) -> list[Extent]:
        """The whole blocks of `extent` in which something is allocated."""
        return blocks_of(self.allocated(extent), self.size_bytes)


def blocks_of(extents: list[Extent], size_bytes: int) -> list[Extent]:
    """`extents`, made larger to whole blocks of a volume of `size_bytes`."""
    whole = []
    for extent in extents:
        start = align_down(extent.offset_bytes, SUM_BLOCK_BYTES)
        end = min(align_up(extent.end_bytes, SUM_BLOCK_BYTES), size_bytes)
        whole.append(Extent(start, end - start))
    return merge_extents(whole)


@attrs.define(eq=False)
class LayeredImage:
    """An Image over `layers`, the lowest first, and what is below them all."""

    size_bytes: int
    layers: list[FileImage]
    backing: Image | None

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See Image."""
        data = bytearray(length_bytes)
        for image, part in self._parts(Extent(offset_bytes, length_bytes)):
            start = part.offset_bytes - offset_bytes
            data[start : start + part.length_bytes] = image.read(part.offset_bytes, part.length_bytes)
        return data

    def allocated(self, extent: Extent) -> list[Extent]:
        """See Image."""
        return merge_extents(part for _, part in self._parts(extent))

    def _parts(self, extent: Extent) -> Iterator[tuple[Image, Extent]]:
        """Who has what of `extent`; what nobody has is zeros."""
        missing = [extent] if extent.length_bytes else []
        for layer in reversed(self.layers):
            rest: list[Extent] = []
            for part in missing:
                position = part.offset_bytes
                for block in layer.blocks(_whole(part, self.size_bytes)):
                    held = block.clip(part)
                    if held is not None:
                        yield layer, held
                        rest.append(Extent(position, held.offset_bytes - position))
                        position = held.end_bytes
                rest.append(Extent(position, part.end_bytes - position))
            missing = [part for part in rest if part.length_bytes]
        if self.backing is not None:
            for part in missing:
                for held in self.backing.allocated(part):
                    yield self.backing, held

    def close(self) -> None:
        """Give the layers' files back."""
        for layer in self.layers:
            layer.file.close()


def _whole(extent: Extent, size_bytes: int) -> Extent:
    return blocks_of([extent], size_bytes)[0]


def open_image(
    directory: ReadableDirectory, replica: ForeignReplica, name: str, backing: DataFile | None
) -> LayeredImage:
    """The volume as of the snapshot `name` (HEAD for now).  `backing` stays the caller's.

    Raises ConfigError: there is no such snapshot.
    """
    size_bytes = replica.size_bytes
    below = None if backing is None else FileImage(backing, size_bytes)
    image = LayeredImage(size_bytes, [], below)
    try:
        for layer in replica.path(name):
            image.layers.append(FileImage(directory.open(layer.file), size_bytes))
    except BaseException:
        image.close()
        raise
    return image
