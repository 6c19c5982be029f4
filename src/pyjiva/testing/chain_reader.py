"""What a replica's directory holds, live and as of each snapshot, read from the files of its disk.

A second reader, for checks: of the product's code it takes only how the chain file is decoded.  Each block
is looked for from its layer downwards, by the `.held` files, as docs/explanation/chain.md says; there is no
table, no checksum and no cache in between.

Not checked: checksums, and what a block that no layer shows has in a layer's file.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from pyjiva.extent import Extent
from pyjiva.lineage import Lineage
from pyjiva.snapshot.chain import CHAIN_FILE, MAP_SUFFIX, Chain
from pyjiva.snapshot.chain_file import decode_chain
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.testing.memory_file import MemoryDisk

__all__ = ["LIVE", "ChainReader"]

LIVE: Final = ""
"""The live volume where a snapshot is named."""
BLOCK_BYTES: Final = 4096
STABLE: Final = 0xCC


@attrs.define(eq=False)
class ChainReader:
    """Reads the directory on `disk` as the running machine sees it."""

    disk: MemoryDisk
    _decoded: tuple[bytes, Chain] | None = None
    """The chain file when it was last looked at, which it is at every write."""

    def chain(self) -> Chain:
        """Which layers there are; none, in a directory that has had no snapshot."""
        if CHAIN_FILE not in self.disk.inodes():
            return Chain()
        content = self.disk.content(CHAIN_FILE)
        if self._decoded is None or self._decoded[0] != content:
            self._decoded = content, decode_chain(content)
        return self._decoded[1]

    @property
    def size_bytes(self) -> int:
        """Of the volume."""
        return decode_state(self.disk.content(STATE_FILE)).size_bytes

    def lineage(self) -> Lineage:
        """Which snapshots it has."""
        return self.chain().lineage(self.size_bytes)

    def has_live(self) -> bool:
        """Whether there is a volume at all."""
        return self._file(LIVE) in self.disk.inodes()

    def everything(self, snapshot: str = LIVE) -> bytes:
        """All that the volume holds, or held as of `snapshot`."""
        return self.read(snapshot, Extent(0, self.size_bytes))

    def read(self, snapshot: str, extent: Extent) -> bytes:
        """A part of it."""
        path = self._path(snapshot)
        return b"".join(self._read(path, piece) for piece in extent.split(BLOCK_BYTES))

    def _read(self, path: list[tuple[str, str]], piece: Extent) -> bytes:
        """A piece of one block: from the highest layer that holds it; the lowest one holds everything."""
        for file, held in path:
            if not held or self.disk.read(held, piece.offset_bytes // BLOCK_BYTES, 1) != b"\0":
                return self.disk.read(file, piece.offset_bytes, piece.length_bytes)
        raise AssertionError("the lowest layer has a map")

    def _path(self, name: str) -> list[tuple[str, str]]:
        """The files of a layer and of all below it, the highest first: data and map ("" for the lowest)."""
        chain = self.chain()
        parents = {layer.name: layer.parent for layer in chain.layers}
        path = []
        while True:
            parent = parents[name] if name != LIVE else chain.head_parent
            path.append((self._file(name), self._file(name, MAP_SUFFIX) if parent else ""))
            if not parent:
                return path
            name = parent

    def _file(self, name: str, suffix: str = "") -> str:
        """Under which name a layer's file lies there: as long as it has its old one, it is to be renamed."""
        chain = self.chain()
        file = f"volume-snap-{name}.img" if name else f"volume-head-{chain.head_number:03}.img"
        old = {new: old for old, new in chain.renames}.get(file + suffix)
        return old if old is not None and old in self.disk.inodes() else file + suffix

    def self_check(self) -> None:
        """What must hold of layers that nobody changes any more, when nothing is under way."""
        for layer in self.chain().layers:
            assert layer.sealed and layer.whole, f"{layer.name} is still to be compared"
            if layer.parent:
                held = self.disk.content(self._file(layer.name, MAP_SUFFIX))
                assert set(held) <= {0, STABLE}, f"{layer.name} is sealed, and not stable"

    def to_merge(self) -> Iterator[str]:
        """Deleted snapshots that only one layer stands on: they are to be merged with it."""
        chain = self.chain()
        parents = [layer.parent for layer in chain.layers] + [chain.head_parent]
        return (layer.name for layer in chain.layers if layer.removed and parents.count(layer.name) < 2)
