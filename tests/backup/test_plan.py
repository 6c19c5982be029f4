"""What a backup reads and takes over, against a chunk by chunk account."""

import itertools
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup import Manifest
from pyjiva.backup.manifest import Checkpoint
from pyjiva.backup.plan import Previous, bases, count, plan, touched_runs
from pyjiva.backup.table import ChunkTable, TableBuilder
from pyjiva.extent import Extent
from tests.backup.test_manifest import MANIFEST

CHUNK_BYTES = 10
CHUNKS = 12
NAMES = st.integers(1, 5).map(lambda n: bytes([n]) * 32)


def table_of(model: dict[int, bytes]) -> ChunkTable:
    """A table with these chunks."""
    builder = TableBuilder(CHUNKS * CHUNK_BYTES, CHUNK_BYTES)
    for index in sorted(model):
        builder.add(index, model[index])
    return builder.table()


MODELS = st.dictionaries(st.integers(0, CHUNKS - 1), NAMES)
EXTENTS = st.lists(
    st.builds(Extent, st.integers(0, CHUNKS * CHUNK_BYTES - 11), st.integers(0, 11)), max_size=6
)


@given(
    changed=EXTENTS,
    base=st.none() | MODELS,
    interrupted=st.none() | st.tuples(st.integers(0, CHUNKS), MODELS),
    stored=st.frozensets(NAMES),
)
def test_each_chunk_is_known_read_or_zeros(
    changed: list[Extent],
    base: dict[int, bytes] | None,
    interrupted: tuple[int, dict[int, bytes]] | None,
    stored: frozenset[bytes],
) -> None:
    checkpoint = Checkpoint(interrupted[0], table_of(interrupted[1])) if interrupted else None
    previous = Previous(None if base is None else table_of(base), checkpoint, stored)
    steps = list(plan(changed, CHUNK_BYTES, previous))
    assert [index for index, _ in steps] == sorted({index for index, _ in steps})
    found = dict(steps)
    for index in range(CHUNKS):
        whole = Extent(index * CHUNK_BYTES, CHUNK_BYTES)
        touched = any(extent.length_bytes and extent.overlaps(whole) for extent in changed)
        if touched and not (interrupted and index < interrupted[0]):
            assert found[index] is None
            continue
        known = (interrupted[1] if touched and interrupted else base or {}).get(index)
        if known is None:
            assert index not in found
        else:
            assert found[index] == (known if known in stored else None)
    assert count(steps) == sum(name is None for name in found.values())


@given(changed=EXTENTS)
def test_touched_chunks_are_runs_apart(changed: list[Extent]) -> None:
    runs = touched_runs(changed, CHUNK_BYTES)
    assert all(first < end for first, end in runs)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(runs))


def test_a_base_is_of_a_snapshot_that_the_volume_still_has_and_the_newest_of_them() -> None:
    def manifest(snapshot: str, created: str, **more: Any) -> Manifest:
        return attrs.evolve(MANIFEST, snapshot=snapshot, snapshot_created=created, **more)

    fit = manifest("mon", "2026-01-01"), manifest("tue", "2026-01-02")
    unfit = (
        manifest("wed", "2026-01-03"),  # the snapshot went
        manifest("thu", "2026-01-04"),  # another one has its name now
        manifest("fri", ""),  # nobody knows which one it was
        manifest("tue", "2026-01-02", volume_id="1" * 32),
        manifest("tue", "2026-01-02", size_bytes=MANIFEST.size_bytes + 1),
    )
    present = {"mon": "2026-01-01", "tue": "2026-01-02", "thu": "2026-02-04", "fri": ""}
    found = bases([*fit, *unfit], MANIFEST.volume_id, present, MANIFEST.size_bytes)
    assert tuple(found) == fit[::-1]
