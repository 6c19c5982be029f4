"""Writing what a pyjiva replica holds as a directory that Longhorn opens.  Blocking calls only.

One file per layer, as here; but there a hole always means "look below".  So a block that a layer holds as
zeros is written as real zeros wherever a layer below has data in its file, and left a hole elsewhere: below
the lowest layer nothing is.

`volume.meta` is written last.  Then the directory is read back as those of Longhorn are, and every snapshot
is compared with what it is here.
"""

from typing import Final

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.migration.describe import describe
from pyjiva.migration.export_sys import STEP_BYTES, CheckedReader
from pyjiva.migration.foreign import Hinders
from pyjiva.migration.foreign_sys import look
from pyjiva.migration.image_sys import blocks_of, open_image
from pyjiva.migration.upgrade_sys import Progress
from pyjiva.snapshot import Chain, LayerParts, Store, VolumeMeta
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.metadata import SECTOR_BYTES, VOLUME_META
from pyjiva.sparse import DataFile, Directory, replace_file

__all__ = ["LonghornExport", "exported_chain"]

LAYERS_MAX: Final = 250  # longhorn-engine pkg/types/types.go, MaximumTotalSnapshotCount: of the live chain
_SECTOR_SIZE: Final = (
    512  # what Longhorn writes into volume.meta; its layers have sectors of 4 KiB all the same
)
_ZEROS: Final = bytes(STEP_BYTES)


def exported_chain(chain: Chain, snapshot: str, size_bytes: int) -> Chain:
    """What is exported: all layers, or those of `snapshot` with an empty head above.

    Raises ConfigError: Longhorn could not open it, or there is no such snapshot.
    """
    if size_bytes % SECTOR_BYTES:
        raise ConfigError(f"{size_bytes} bytes: Longhorn's volumes are multiples of {SECTOR_BYTES}")
    if snapshot:
        chain.snapshot(snapshot)
        layers = tuple(chain.layer(name) for name in chain.path(snapshot))
        exported = Chain(head_number=0, head_parent=snapshot, layers=layers)
    else:
        layers = tuple(layer for layer in chain.layers if layer.sealed)
        exported = Chain(head_number=chain.head_number, head_parent=chain.head_parent, layers=layers)
    if len(exported.path(HEAD)) > LAYERS_MAX:
        raise ConfigError(f"{len(exported.path(HEAD))} layers: Longhorn opens at most {LAYERS_MAX}")
    return exported


@attrs.define(eq=False)
class LonghornExport:
    """One export of `store` into the empty directory `target`; both stay the caller's."""

    store: Store
    snapshot: str
    """"" for all layers and the head."""
    target: Directory
    reader: CheckedReader
    progress: Progress = lambda _count: None

    def run(self) -> None:
        """Write it and compare it.

        Raises ConfigError: as `exported_chain`, or the target is not empty.  Raises StorageError: as
        `CheckedReader`, or what was written cannot be read back.
        """
        chain = exported_chain(self.store.chain, self.snapshot, self.store.size_bytes)
        if self.target.names():
            raise ConfigError(f"{self.target.path}: is not empty; give a new directory")
        for layer in chain.layers:
            self._write_layer(chain, layer.name)
        self._write_head(chain)
        self.target.sync()
        contents = chain.metas(self.store.size_bytes)
        volume = VolumeMeta.decode(contents.pop(VOLUME_META))
        for name, content in contents.items():
            replace_file(self.target, name, content)
        volume = attrs.evolve(volume, sector_size_bytes=_SECTOR_SIZE, other={"Error": ""})
        replace_file(self.target, VOLUME_META, volume.encode())
        self._compare(chain)

    def _write_head(self, chain: Chain) -> None:
        if not self.snapshot:
            self._write_layer(chain, HEAD)
            return
        file = self.target.create(chain.head_file)
        try:
            file.truncate(self.store.size_bytes)
            file.sync_data()
        finally:
            file.close()

    def _write_layer(self, chain: Chain, name: str) -> None:
        file = self.target.create(chain.file_of(name))
        try:
            file.truncate(self.store.size_bytes)
            for extent in Extent(0, self.store.size_bytes).split(64 * STEP_BYTES):
                self._write_part(chain, name, extent, file)
            file.sync_data()
        finally:
            file.close()

    def _write_part(self, chain: Chain, name: str, extent: Extent, file: DataFile) -> None:
        parts = self._whole(self.store.allocated_in_layer(name, extent))
        source = self.store.layer_file(name)
        for part in parts.data:
            for piece in part.split(STEP_BYTES):
                file.write(piece.offset_bytes, (self.reader.read(source, piece),))
                self.progress(piece.length_bytes)
        for part in parts.zeros:
            self.reader.check_hole(source, part)
            for covered in self._data_below(chain, name, part):
                for piece in covered.split(STEP_BYTES):
                    file.write(piece.offset_bytes, (memoryview(_ZEROS)[: piece.length_bytes],))

    def _whole(self, parts: LayerParts) -> LayerParts:
        """The same in whole blocks: one in which there is any data is data."""
        data = blocks_of(parts.data, self.store.size_bytes)
        zeros = []
        for part in parts.zeros:
            position = part.offset_bytes
            for held in (clipped for each in data if (clipped := each.clip(part)) is not None):
                zeros.append(Extent(position, held.offset_bytes - position))
                position = held.end_bytes
            zeros.append(Extent(position, part.end_bytes - position))
        return LayerParts(data, merge_extents(zeros))

    def _data_below(self, chain: Chain, name: str, extent: Extent) -> list[Extent]:
        found: list[Extent] = []
        for below in chain.path(name)[:-1]:
            found += self.store.allocated_in_layer(below, extent).data
        clipped = (part.clip(extent) for part in blocks_of(found, self.store.size_bytes))
        return [part for part in clipped if part is not None]

    def _compare(self, chain: Chain) -> None:
        """Read back what was written.  Raises StorageError: it is not what the replica holds."""
        replica = describe(look(self.target))
        for finding in replica.hindrances(Hinders.READING, Hinders.UPGRADE, Hinders.DIRTY):
            raise StorageError(StorageFailure.WRITE_ERROR, f"read back: {finding.text}")
        shown = [layer.name for layer in chain.layers if not layer.removed]
        for name in shown if self.snapshot else (*shown, HEAD):
            self._compare_snapshot(name)

    def _compare_snapshot(self, name: str) -> None:
        image = open_image(self.target, describe(look(self.target)), name, None)
        try:
            source = self.store.view(name)
            for extent in Extent(0, self.store.size_bytes).split(64 * STEP_BYTES):
                for part in merge_extents((*image.allocated(extent), *source.allocated(extent))):
                    for piece in part.split(STEP_BYTES):
                        wanted = source.read_unverified(piece.offset_bytes, piece.length_bytes)
                        if image.read(piece.offset_bytes, piece.length_bytes) != wanted:
                            where = f"{piece} of {name or 'the head'}"
                            raise StorageError(
                                StorageFailure.WRITE_ERROR,
                                f"read back: {where} are not what was written; does the file system have "
                                f"blocks of more than 4 KiB?",
                            )
                        self.progress(piece.length_bytes)
        finally:
            image.close()
