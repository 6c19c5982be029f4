"""Which chunk of a volume has which content: the table of a backup.  Pure.

A table names every chunk that is not all zeros, so a backup needs no other one.  Chunks have one size, and
the last one is filled up with zeros to it: a volume that grows changes no chunk that it had.

In the store, little-endian:

    u64 size_bytes, u32 chunk_bytes, u32 0, u64 runs, u64 chunks
    runs × (u64 first chunk, u64 how many)        ascending, no two that touch
    chunks × 32 bytes                              their names, in order

Memory and space go by the data, not by the volume's size: 32 bytes for each chunk.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Self

import attrs

from pyjiva.backup.configuration import NAME_BYTES
from pyjiva.backup.objects import DamagedError
from pyjiva.extent import Extent

__all__ = ["ChunkTable", "TableBuilder", "table_bytes_max"]

_HEADER: Final = struct.Struct("<QIIQQ")
_RUN: Final = struct.Struct("<QQ")
SIZE_BYTES_MAX: Final = 1 << 60


def table_bytes_max(size_bytes: int, chunk_bytes: int) -> int:
    """The most that an encoded table of such a volume takes: every chunk, each in a run of its own."""
    return _HEADER.size + (_RUN.size + NAME_BYTES) * -(-size_bytes // chunk_bytes)


@attrs.frozen
class ChunkTable:
    """The chunks of one volume as of one time."""

    size_bytes: int
    chunk_bytes: int
    runs: tuple[tuple[int, int], ...]
    """(first chunk, how many)."""
    names: bytes
    """Those of all runs, one after the other."""
    _before: tuple[int, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        before, total = [], 0
        for _, count in self.runs:
            before.append(total)
            total += count
        object.__setattr__(self, "_before", tuple(before))
        assert total * NAME_BYTES == len(self.names)

    @property
    def chunks(self) -> int:
        """How many chunks are not zeros."""
        return len(self.names) // NAME_BYTES

    def name_at(self, index: int) -> bytes | None:
        """The name of chunk `index`; None: it is all zeros."""
        position = bisect_right(self.runs, (index, SIZE_BYTES_MAX)) - 1
        if position < 0:
            return None
        first, count = self.runs[position]
        if index >= first + count:
            return None
        start = (self._before[position] + index - first) * NAME_BYTES
        return self.names[start : start + NAME_BYTES]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(index, name) of every chunk that is not zeros, in order."""
        position = 0
        for first, count in self.runs:
            for index in range(first, first + count):
                yield index, self.names[position : position + NAME_BYTES]
                position += NAME_BYTES

    def extent_of(self, index: int) -> Extent:
        """Where chunk `index` lies in the volume; the last one may be cut."""
        start = index * self.chunk_bytes
        return Extent(start, min(self.chunk_bytes, self.size_bytes - start))

    def holes(self) -> Iterator[Extent]:
        """The parts of the volume without a chunk: zeros."""
        position = 0
        for first, count in (*self.runs, (-(-self.size_bytes // self.chunk_bytes), 0)):
            start = min(first * self.chunk_bytes, self.size_bytes)
            if start > position:
                yield Extent(position, start - position)
            position = min((first + count) * self.chunk_bytes, self.size_bytes)

    def encode(self) -> bytes:
        """The table as it lies in the store."""
        header = _HEADER.pack(self.size_bytes, self.chunk_bytes, 0, len(self.runs), self.chunks)
        return header + b"".join(_RUN.pack(*run) for run in self.runs) + self.names

    def hash(self) -> str:
        """The hash of all the volume: of the hashes of its chunks and where they are."""
        return hash_of(self.encode())

    @classmethod
    def decode(cls, content: bytes, what: str) -> Self:
        """What `encode` gave.  Raises DamagedError, which names `what`: it is anything else."""
        if len(content) < _HEADER.size:
            raise DamagedError(f"{what}: a table of {len(content)} bytes")
        size_bytes, chunk_bytes, zero, run_count, chunk_count = _HEADER.unpack_from(content)
        expected = _HEADER.size + run_count * _RUN.size + chunk_count * NAME_BYTES
        if zero or not chunk_bytes > 0 or not 0 < size_bytes <= SIZE_BYTES_MAX or len(content) != expected:
            raise DamagedError(f"{what}: the table's sizes contradict each other")
        names_at = len(content) - chunk_count * NAME_BYTES
        runs = tuple(_RUN.iter_unpack(content[_HEADER.size : names_at]))
        end, total = -1, 0
        for first, count in runs:
            if first <= end or not count:
                raise DamagedError(f"{what}: the table's runs are out of order")
            end = first + count
            total += count
        if total != chunk_count or end > -(-size_bytes // chunk_bytes):
            raise DamagedError(f"{what}: the table's runs do not fit the volume")
        return cls(size_bytes, chunk_bytes, runs, content[names_at:])


@attrs.define
class TableBuilder:
    """A table that is made chunk by chunk, in their order."""

    size_bytes: int
    chunk_bytes: int
    _runs: list[tuple[int, int]] = attrs.field(factory=list, init=False)
    _names: bytearray = attrs.field(factory=bytearray, init=False)

    def add(self, index: int, name: bytes) -> None:
        """Chunk `index`, above all before, has the content `name`."""
        assert len(name) == NAME_BYTES
        first, count = self._runs[-1] if self._runs else (-1, 0)
        assert index >= first + count
        if count and index == first + count:
            self._runs[-1] = (first, count + 1)
        else:
            self._runs.append((index, 1))
        self._names += name

    def table(self) -> ChunkTable:
        """What was added until now."""
        return ChunkTable(self.size_bytes, self.chunk_bytes, tuple(self._runs), bytes(self._names))


def hash_of(encoded: bytes) -> str:
    """Of an encoded table: 64 hexadecimal digits."""
    return hashlib.blake2b(encoded, digest_size=NAME_BYTES, person=b"pyjiva-table").hexdigest()
