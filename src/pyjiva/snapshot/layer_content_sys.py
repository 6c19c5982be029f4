"""What single layers hold: for lists, incremental copies, and rebuilds layer by layer.  Blocking calls only.

A layer's content is which blocks it holds and what they are.  Two replicas have the same layer if both are
the same; where in its file a hole is, or what it has in blocks that it does not hold, does not count.  The
lowest layer of a chain holds all blocks.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.chain import HEAD, Layer
from pyjiva.snapshot.chunk_blocks import CHUNK_BYTES
from pyjiva.snapshot.hash_sys import Hasher
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, runs_of_bits
from pyjiva.snapshot.layer_stack_sys import LayerStack, OpenLayer, block_count
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer

__all__ = ["LayerContent", "LayerInfo", "LayerParts"]

_RUN: Final = struct.Struct("<QQ")


@attrs.frozen
class LayerInfo:
    """A layer, for people; the head has no name."""

    name: str
    parent: str
    file: str
    allocated_bytes: int
    """What it takes on the disk, without its checksums and map."""
    is_live: bool
    """Whether the head stands on it, or it is the head."""
    layer: Layer | None
    """None for the head."""


@attrs.frozen
class LayerParts:
    """What a layer holds of an extent: the rest is what the layers below say."""

    data: list[Extent]
    zeros: list[Extent]
    """Blocks that are zeros here, whatever is below; empty for the lowest layer, which holds all."""


@attrs.frozen
class LayerContent:
    """The content of the layers in `layers`."""

    layers: Layers

    def infos(self) -> tuple[LayerInfo, ...]:
        """All layers, the head last."""
        chain = self.layers.chain
        live = set(chain.path(HEAD))
        everything = Extent(0, self.layers.size_bytes)
        infos = []
        for name in (*(layer.name for layer in chain.layers), HEAD):
            parts = self.layers.open_layers[name].file.allocated(everything)
            infos.append(
                LayerInfo(
                    name=name,
                    parent=chain.parent_of(name),
                    file=chain.file_of(name),
                    allocated_bytes=sum(part.length_bytes for part in parts),
                    is_live=name in live,
                    layer=None if name == HEAD else chain.layer(name),
                )
            )
        return tuple(infos)

    def _open(self, name: str) -> OpenLayer:
        if name != HEAD:
            self.layers.chain.layer(name)
        return self.layers.open_layers[name]

    def _check(self, extent: Extent) -> None:
        if extent.offset_bytes < 0 or extent.end_bytes > self.layers.size_bytes:
            raise StorageError(
                StorageFailure.OUT_OF_RANGE, f"{extent}: the volume has {self.layers.size_bytes} bytes"
            )

    def parts(self, name: str, extent: Extent) -> LayerParts:
        """What the layer `name` holds of `extent`."""
        self._check(extent)
        layer = self._open(name)
        data: list[Extent] = []
        zeros: list[Extent] = []
        if layer.held is None:
            return LayerParts(layer.file.allocated(extent), zeros)
        for run in _held_runs(layer, extent):
            position = run.offset_bytes
            for part in layer.file.allocated(run):
                zeros.append(Extent(position, part.offset_bytes - position))
                data.append(part)
                position = part.end_bytes
            zeros.append(Extent(position, run.end_bytes - position))
        return LayerParts(merge_extents(data), merge_extents(zeros))

    def read(self, name: str, extent: Extent) -> Buffer:
        """What the layer's file has there; of use only where it holds data.

        Raises StorageError BAD_CHECKSUM: it is not what was written.
        """
        self._check(extent)
        return self._open(name).file.read(extent.offset_bytes, extent.length_bytes)

    def hash(self, name: str, extent: Extent) -> bytes:
        """The xxh3-128 digest of what the layer holds of `extent`, and where: equal on two replicas whose
        layers are equal there.
        """
        self._check(extent)
        layer = self._open(name)
        hasher = Hasher(layer.file)
        if layer.held is None:
            hasher.add(extent)
            return hasher.digest()
        for run in _held_runs(layer, extent):
            hasher.update(_RUN.pack(run.offset_bytes - extent.offset_bytes, run.length_bytes))
            hasher.add(run)
        return hasher.digest()

    def changed(self, older: str, newer: str) -> list[Extent]:
        """Where the volume as of the snapshot `newer` (HEAD for now) may differ from that of `older` ("" for
        an empty volume).
        """
        chain = self.layers.chain
        for name in (older, newer):
            if name:
                chain.snapshot(name)
        old_path = chain.path(older) if older else ()
        new_path = chain.path(newer)
        shared = 0
        for one, other in zip(old_path, new_path, strict=False):
            if one != other:
                break
            shared += 1
        if not old_path:  # below the first snapshot all was zeros
            lowest = self.layers.open_layers[new_path[0]]
            everything = Extent(0, self.layers.size_bytes)
            extents = list(lowest.file.allocated(everything))
            new_path = new_path[1:]
        elif not shared:
            return [Extent(0, self.layers.size_bytes)]
        else:
            extents = []
        for name in (*old_path[shared:], *new_path[shared:]):
            extents += _held_runs(self.layers.open_layers[name], Extent(0, self.layers.size_bytes))
        return merge_extents(extents)

    def begin(self, layer: Layer) -> None:
        """Make an empty layer that is being received; `layer.parent` must be there already."""
        self.layers.settle()
        chain = self.layers.chain.with_received(layer)
        made = self.layers.create_files(chain.file_of(layer.name), mapped=bool(layer.parent))
        try:
            self.layers.commit(chain)
        except BaseException:
            made.close()
            raise
        self.layers.open_layers[layer.name] = made

    def _receiving(self, name: str) -> OpenLayer:
        if self.layers.chain.layer(name).sealed:
            raise ConfigError(f"snapshot {name!r} is not being received")
        return self.layers.open_layers[name]

    def write(self, name: str, extent: Extent, data: Buffer | None) -> None:
        """Give blocks to a layer that is being received; None: they are zeros.  Stable when it is sealed."""
        self._check_blocks(extent)
        layer = self._receiving(name)
        if data is None:
            layer.file.punch(extent.offset_bytes, extent.length_bytes)
        else:
            layer.file.write(extent.offset_bytes, (data,))
        if layer.held is not None:
            layer.held.mark(extent.offset_bytes // SUM_BLOCK_BYTES, block_count(extent.length_bytes))

    def repair(self, name: str, extent: Extent, data: Buffer) -> None:
        """Write blocks of a sealed layer again that have rotted.

        The data becomes stable before their checksums are touched: a power cut in between leaves bad blocks
        bad, not believed.
        """
        self._check_blocks(extent)
        self.layers.chain.layer(name)
        layer = self.layers.open_layers[name]
        if layer.held is not None and list(_held_runs(layer, extent)) != [extent]:
            raise StorageError(StorageFailure.OUT_OF_RANGE, f"{extent}: layer {name} does not hold all of it")
        with self.layers.stamp.moving():
            layer.file.data.write(extent.offset_bytes, (data,))
            with self.layers.sync_lock:
                self.layers.owner.guard(layer.file.sync_data)
            layer.file.write(extent.offset_bytes, (data,))
        with self.layers.sync_lock:
            self.layers.owner.guard(layer.file.sync_data)
            self.layers.owner.guard(layer.file.sync_sums)

    def patch(self, name: str, extent: Extent, buffers: Sequence[Buffer] | None) -> None:
        """Change what the volume held as of the snapshot `name`, which is not whole or is being filled; None:
        to zeros.

        What stands on it shows the new content, where it holds nothing of its own.  Stable after `settle`.
        """
        self._check(extent)
        layer = self.layers.chain.snapshot(name)
        if layer.whole and not layer.filling:
            raise ConfigError(f"snapshot {name!r} is whole: nobody changes it")
        view = self.layers.view(name)
        with self.layers.stamp.moving():
            try:
                if buffers is None:
                    view.punch(extent.offset_bytes, extent.length_bytes)
                else:
                    view.write(extent.offset_bytes, buffers)
            finally:
                if isinstance(self.layers.top, LayerStack):
                    self.layers.top.forget_table([extent])

    def make_stable(self, name: str) -> None:
        """Bring what `patch` did to the snapshot `name` to stable storage."""
        view = self.layers.view(name)
        with self.layers.sync_lock:
            self.layers.owner.guard(view.sync_data)
            self.layers.owner.guard(view.sync_sums)

    def _check_blocks(self, extent: Extent) -> None:
        self._check(extent)
        ends = extent.end_bytes in (
            self.layers.size_bytes,
            extent.end_bytes // SUM_BLOCK_BYTES * SUM_BLOCK_BYTES,
        )
        if extent.offset_bytes % SUM_BLOCK_BYTES or not ends or not extent.length_bytes:
            raise StorageError(StorageFailure.OUT_OF_RANGE, f"{extent}: layers have whole blocks")

    def checkpoint(self, name: str) -> None:
        """Bring what a layer that is being received was given to stable storage."""
        layer = self._receiving(name)
        taken = {} if layer.held is None else layer.held.take_unstable()
        self.layers.owner.guard(layer.file.sync_data)
        self.layers.owner.guard(layer.file.sync_sums)
        if layer.held is not None:
            self.layers.owner.guard(partial(layer.held.settle, taken))

    def seal(self, name: str) -> None:
        """The layer is whole: make it stable, and a snapshot like others."""
        self.checkpoint(name)
        self.layers.change(self.layers.chain.with_sealed(name))

    def discard(self, name: str) -> None:
        """Give up a layer that is being received."""
        self.layers.change(self.layers.chain.without_received(name))


def _held_runs(layer: OpenLayer, extent: Extent) -> Iterable[Extent]:
    """The blocks that a layer with a map holds of `extent`, joined over the borders of chunks."""
    assert layer.held is not None
    runs = []
    chunks = range(extent.offset_bytes // CHUNK_BYTES, -(-extent.end_bytes // CHUNK_BYTES))
    present = layer.held.chunks() if len(chunks) > 1 else chunks
    for chunk in present:
        if chunk in chunks:
            for start, count in runs_of_bits(layer.bits(chunk, CHUNK_BLOCKS)):
                run = Extent(chunk * CHUNK_BYTES + start * SUM_BLOCK_BYTES, count * SUM_BLOCK_BYTES)
                clipped = run.clip(extent)
                if clipped is not None:
                    runs.append(clipped)
    return merge_extents(runs)
