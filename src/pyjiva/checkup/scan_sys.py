"""Looking at what is in the data, the checksums and the maps of layers, without changing anything.
Blocking calls only.

Data is read from the disk, not from the page cache, but for what may be in the page cache alone
(`LayerScan.cached`).  Holes cost nothing.  What the disk refuses is noted block by block; looking goes on.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from pyjiva.block_sums import sums_of
from pyjiva.checkup.facts import DataFacts, MapFacts
from pyjiva.checkup.layer_scan import LayerScan
from pyjiva.errors import StorageError
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.held_map_sys import HELD, STABLE
from pyjiva.sparse import (
    SUM_BLOCK_BYTES,
    ReadableDirectory,
    ReadableFile,
    sums_size_bytes,
)
from pyjiva.units import MIB, align_down, align_up

__all__ = ["Progress", "scan_data", "scan_map", "size_of_scan"]

Progress = Callable[[int], None]
"""Called with the number of bytes that have been looked at since the last call."""

STEP_BYTES: Final = MIB
_SUM_BYTES: Final = 8
_NO_SUM: Final = bytes(_SUM_BYTES)
_IS_HELD: Final = bytes(value in (HELD, STABLE) for value in range(256))
_IS_STABLE: Final = bytes(value == STABLE for value in range(256))
_IS_BAD: Final = bytes(value not in (0, HELD, STABLE) for value in range(256))


@attrs.define
class _Open:
    """The files of a layer; what is not there is as if it were empty."""

    data: ReadableFile
    sums: ReadableFile | None
    held: ReadableFile | None
    hider: ReadableFile | None
    """The map of the layer that hides what it holds."""


def scan_map(directory: ReadableDirectory, name: str, blocks: int) -> MapFacts:
    """What the map in the file `name` has for the first `blocks` blocks."""
    held = bad = first_bad = 0
    try:
        with contextlib.closing(directory.open(name)) as file:
            present = min(file.size_bytes(), blocks)
            for part in file.allocated(Extent(0, present)) if present else ():
                for piece in part.split(STEP_BYTES):
                    content = bytes(file.read(piece.offset_bytes, piece.length_bytes))
                    held += content.translate(_IS_HELD).count(1)
                    wrong = content.translate(_IS_BAD)
                    if not bad and 1 in wrong:
                        first_bad = piece.offset_bytes + wrong.index(1)
                    bad += wrong.count(1)
    except StorageError as error:
        return MapFacts(held, bad, first_bad, error=error.detail)
    return MapFacts(held, bad, first_bad)


def size_of_scan(directory: ReadableDirectory, scan: LayerScan) -> int:
    """How many bytes `scan_data` will look at."""
    try:
        with _files(directory, scan) as files:
            return sum(extent.length_bytes for extent in _extents(files, scan.size_bytes))
    except StorageError:
        return 0  # which scan_data will say


def scan_data(directory: ReadableDirectory, scan: LayerScan, progress: Progress) -> DataFacts:
    """What is in those blocks of a layer that count.  Raises StorageError: nothing can be read at all."""
    good = unknown = 0
    bad: list[Extent] = []
    unreadable: list[Extent] = []
    with _files(directory, scan) as files:
        for extent in _extents(files, scan.size_bytes):
            for piece in extent.split(STEP_BYTES):
                progress(piece.length_bytes)
                if _is_hole(files, piece):
                    continue
                for part in _readable_parts(files, scan, piece, unreadable):
                    found = _look_at(files, scan, *part)
                    good, unknown = good + found.good_blocks, unknown + found.unknown_blocks
                    bad += found.bad
    return DataFacts(good, unknown, tuple(merge_extents(bad)), tuple(merge_extents(unreadable)))


@contextlib.contextmanager
def _files(directory: ReadableDirectory, scan: LayerScan) -> Iterator[_Open]:
    names = scan.files
    with contextlib.ExitStack() as stack:

        def take(name: str) -> ReadableFile:
            return stack.enter_context(contextlib.closing(directory.open(name)))

        yield _Open(
            take(names.data),
            take(names.sums) if names.sums else None,
            take(names.held) if names.held else None,
            take(scan.hidden_by) if scan.hidden_by else None,
        )


def _extents(files: _Open, size_bytes: int) -> list[Extent]:
    """Where there is data or a checksum, in whole blocks, within what the file of the data has."""
    present = min(files.data.size_bytes(), size_bytes)
    parts = files.data.allocated(Extent(0, present)) if present else []
    if files.sums is not None:
        sums = min(files.sums.size_bytes(), sums_size_bytes(size_bytes))
        scale = SUM_BLOCK_BYTES // _SUM_BYTES
        for part in files.sums.allocated(Extent(0, sums)) if sums else ():
            parts.append(Extent(part.offset_bytes * scale, part.length_bytes * scale))
    whole = []
    for part in parts:
        start = align_down(part.offset_bytes, SUM_BLOCK_BYTES)
        end = min(align_up(part.end_bytes, SUM_BLOCK_BYTES), present)
        if start < end:
            whole.append(Extent(start, end - start))
    return merge_extents(whole)


def _is_hole(files: _Open, piece: Extent) -> bool:
    """Whether there is neither data nor a checksum.  A page of checksums stands for 2 MiB of blocks."""
    if files.data.allocated(piece):
        return False
    first, count = piece.offset_bytes // SUM_BLOCK_BYTES, -(-piece.length_bytes // SUM_BLOCK_BYTES)
    return not any(_bytes_of(files.sums, first * _SUM_BYTES, count * _SUM_BYTES))


def _readable_parts(
    files: _Open, scan: LayerScan, piece: Extent, unreadable: list[Extent]
) -> Iterator[tuple[Extent, bytes]]:
    """What can be read of `piece`: all at once, or block by block."""
    try:
        yield piece, _read(files, scan, piece)
        return
    except StorageError:
        blocks = list(piece.split(SUM_BLOCK_BYTES))
    for block in blocks:
        try:
            data = _read(files, scan, block)
        except StorageError:
            unreadable.append(block)
        else:
            yield block, data


def _read(files: _Open, scan: LayerScan, extent: Extent) -> bytes:
    if not any(part.overlaps(extent) for part in scan.cached):
        files.data.drop_cache(extent.offset_bytes, extent.length_bytes)
    return bytes(files.data.read(extent.offset_bytes, extent.length_bytes))


def _look_at(files: _Open, scan: LayerScan, extent: Extent, data: bytes) -> DataFacts:
    """The blocks of `extent`, which has `data`."""
    first, count = extent.offset_bytes // SUM_BLOCK_BYTES, -(-extent.length_bytes // SUM_BLOCK_BYTES)
    known = _bytes_of(files.sums, first * _SUM_BYTES, count * _SUM_BYTES)
    right = sums_of(data)
    counts = _counting(files, scan, first, count)
    forgotten = any(part.overlaps(extent) for part in scan.forgotten)
    if known == right and not forgotten and 0 not in counts:
        return DataFacts(good_blocks=count)
    allocated = files.data.allocated(extent)
    good = unknown = 0
    bad = []
    for number, block in enumerate(extent.split(SUM_BLOCK_BYTES)):
        place = number * _SUM_BYTES
        have, want = known[place : place + _SUM_BYTES], right[place : place + _SUM_BYTES]
        if not counts[number]:
            continue
        if have == _NO_SUM or (forgotten and any(part.overlaps(block) for part in scan.forgotten)):
            unknown += any(part.overlaps(block) for part in allocated)
        elif have == want:
            good += 1
        else:
            bad.append(block)
    return DataFacts(good, unknown, tuple(bad))


def _counting(files: _Open, scan: LayerScan, first: int, count: int) -> bytes:
    """A byte for each of `count` blocks: whether what the layer has there is shown by anything."""
    counts = b"\x01" * count
    if scan.files.has_map:
        counts = _bytes_of(files.held, first, count).translate(_IS_STABLE if scan.swept else _IS_HELD)
    if files.hider is None:
        return counts
    hidden = _bytes_of(files.hider, first, count).translate(_IS_STABLE if scan.hider_swept else _IS_HELD)
    return bytes(shown > hides for shown, hides in zip(counts, hidden, strict=True))


def _bytes_of(file: ReadableFile | None, offset_bytes: int, length_bytes: int) -> bytes:
    """A part of a file; what it does not have is zeros."""
    if file is None:
        return bytes(length_bytes)
    present = max(0, min(file.size_bytes() - offset_bytes, length_bytes))
    return bytes(file.read(offset_bytes, present) if present else b"").ljust(length_bytes, b"\0")
