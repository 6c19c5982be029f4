"""Hashes of ranges of sparse files, in which holes cost nothing to read.  Blocking calls only."""

from functools import lru_cache
from typing import Final, Protocol

import attrs
import xxhash

from pyjiva.extent import Extent
from pyjiva.sparse import Buffer
from pyjiva.units import MIB

__all__ = ["Hasher", "hash_of_range"]

HASH_STEP_BYTES: Final = MIB
_ZEROS: Final = bytes(HASH_STEP_BYTES)


class Hashed(Protocol):
    """What can be hashed: a file, or layers that look like one."""

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile."""

    def read_unverified(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See CheckedFile."""


@attrs.define(eq=False)
class Hasher:
    """An xxh3-128 of parts of `_file`."""

    _file: Hashed
    _hash: xxhash.xxh3_128 = attrs.field(factory=xxhash.xxh3_128, init=False)

    def add(self, extent: Extent) -> None:
        """Add what the file has there."""
        position = extent.offset_bytes
        for part in self._file.allocated(extent):
            _add_zeros(self._hash, part.offset_bytes - position)
            for piece in part.split(HASH_STEP_BYTES):
                self._hash.update(self._file.read_unverified(piece.offset_bytes, piece.length_bytes))
            position = part.end_bytes
        _add_zeros(self._hash, extent.end_bytes - position)

    def update(self, data: Buffer) -> None:
        """Add `data`."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Of all that was added."""
        return self._hash.digest()


def hash_of_range(file: Hashed, extent: Extent) -> bytes:
    """The xxh3-128 digest of the range's content.

    A range that is one hole costs nothing after the first of its length; other holes are hashed as zeros
    without reading them.
    """
    if not file.allocated(extent):
        return _hash_of_zeros(extent.length_bytes)
    hasher = Hasher(file)
    hasher.add(extent)
    return hasher.digest()


@lru_cache(maxsize=64)
def _hash_of_zeros(length_bytes: int) -> bytes:
    hasher = xxhash.xxh3_128()
    _add_zeros(hasher, length_bytes)
    return hasher.digest()


def _add_zeros(hasher: xxhash.xxh3_128, length_bytes: int) -> None:
    whole, rest = divmod(length_bytes, HASH_STEP_BYTES)
    for _ in range(whole):
        hasher.update(_ZEROS)
    hasher.update(memoryview(_ZEROS)[:rest])
