"""What a backup reads, takes over, and what nobody needs any more.  Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from pyjiva.backup.manifest import Checkpoint, Manifest
from pyjiva.backup.table import ChunkTable
from pyjiva.extent import Extent

__all__ = ["CHECKPOINT_BYTES", "Previous", "Step", "bases", "count", "is_whole", "plan", "touched_runs"]

CHECKPOINT_BYTES: Final = 1 << 30  # read between two checkpoints: a table of 32 MiB at most for each TiB

#: (index of the chunk, its name if it is known; None: it is to be read).  Chunks without a step are zeros.
Step = tuple[int, bytes | None]


@attrs.frozen
class Previous:
    """What is known before anything is read."""

    base: ChunkTable | None
    """The table of an older backup; what has not changed since is as there."""
    checkpoint: Checkpoint | None
    """How far an interrupted one of the same snapshot had come."""
    stored: frozenset[bytes] | set[bytes]
    """Names of the chunks that the store has: what it lost is read again."""


def bases(
    manifests: Iterable[Manifest], volume_id: str, snapshots: Mapping[str, str], size_bytes: int
) -> list[Manifest]:
    """The backups that a new one may stand on, the best first: those of a snapshot that the volume still has,
    the same one: `snapshots` gives name and time of creation.

    Without a time one snapshot cannot be told from a later one of its name: then it is not taken.
    """
    fit = [
        manifest
        for manifest in manifests
        if manifest.volume_id == volume_id
        and manifest.size_bytes <= size_bytes
        and manifest.snapshot_created
        and snapshots.get(manifest.snapshot) == manifest.snapshot_created
    ]
    return sorted(fit, key=lambda manifest: (manifest.snapshot_created, manifest.id), reverse=True)


def touched_runs(changed: Sequence[Extent], chunk_bytes: int) -> list[tuple[int, int]]:
    """The chunks (first, end) in which an extent of `changed` lies, sorted and apart."""
    runs: list[tuple[int, int]] = []
    for extent in sorted(changed):
        if not extent.length_bytes:
            continue
        first, end = extent.offset_bytes // chunk_bytes, -(-extent.end_bytes // chunk_bytes)
        if runs and first <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
        else:
            runs.append((first, end))
    return runs


def plan(changed: Sequence[Extent], chunk_bytes: int, previous: Previous) -> Iterator[Step]:
    """The steps of a backup, by index.  `changed`: since the base, or what is allocated if there is none."""
    inherited = iter(previous.base) if previous.base is not None else iter(())
    entry = next(inherited, None)
    for first, end in touched_runs(changed, chunk_bytes):
        while entry is not None and entry[0] < first:
            yield _if_stored(entry, previous)
            entry = next(inherited, None)
        while entry is not None and entry[0] < end:
            entry = next(inherited, None)
        for index in range(first, end):
            yield from _step_of(index, previous)
    while entry is not None:
        yield _if_stored(entry, previous)
        entry = next(inherited, None)


def _step_of(index: int, previous: Previous) -> Iterator[Step]:
    checkpoint = previous.checkpoint
    if checkpoint is None or index >= checkpoint.position:
        yield index, None
    elif (name := checkpoint.table.name_at(index)) is not None:
        yield _if_stored((index, name), previous)


def _if_stored(entry: tuple[int, bytes], previous: Previous) -> Step:
    return entry if entry[1] in previous.stored else (entry[0], None)


def count(steps: Iterable[Step]) -> int:
    """How many chunks are to be read."""
    return sum(name is None for _, name in steps)


def is_whole(table: ChunkTable, manifest: Manifest) -> bool:
    """Whether `table` is what `manifest` says."""
    return (
        table.hash() == manifest.table_hash
        and table.size_bytes == manifest.size_bytes
        and table.chunk_bytes == manifest.chunk_bytes
        and table.chunks == manifest.chunks
    )
