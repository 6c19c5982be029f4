"""Volumes as Longhorn and Jiva would have them, for tests, and random ones."""

from random import Random
from typing import Any, Final

from hypothesis import note
from hypothesis import strategies as st

from pyjiva.sparse import DataFile
from pyjiva.testing import MemoryDisk
from pyjiva.testing.foreign_directory import (
    SECTOR_BYTES,
    FixtureLayer,
    FixtureVolume,
    put_file,
    write_foreign,
)

__all__ = ["BRANCHED", "SIZE_BYTES", "VOLUMES", "backing_of", "disk_with", "sector"]

SIZE_BYTES: Final = 10 * SECTOR_BYTES


def sector(seed: int, length_bytes: int = SECTOR_BYTES) -> bytes:
    """Content that tells where it belongs."""
    return Random(seed).randbytes(length_bytes)


#: A chain of three with a removed one, a branch that a revert left, written zeros, a smaller lowest layer.
BRANCHED: Final = FixtureVolume(
    size_bytes=SIZE_BYTES,
    layers=(
        FixtureLayer(
            name="a",
            sectors={0: sector(1), 1: sector(2), 7: sector(3)},
            size_bytes=8 * SECTOR_BYTES,
            labels={"for": "test"},
        ),
        FixtureLayer(name="b", parent="a", sectors={1: bytes(SECTOR_BYTES), 2: sector(4)}, removed=True),
        FixtureLayer(name="c", parent="b", sectors={2: sector(5), 9: sector(6)}, user_created=False),
        FixtureLayer(name="left", parent="a", sectors={0: sector(7), 4: sector(8)}),
        FixtureLayer(name="", parent="c", sectors={0: sector(9), 5: bytes(SECTOR_BYTES)}),
    ),
)


@st.composite
def _volumes(draw: Any) -> FixtureVolume:
    """Any tree of up to five snapshots, with a head on one of them or on nothing."""
    size_bytes = 6 * SECTOR_BYTES
    names = [f"s{number}" for number in range(draw(st.integers(0, 5)))]
    sectors = st.dictionaries(
        st.integers(0, 5), st.integers(0, 255).map(lambda byte: bytes((byte,)) * SECTOR_BYTES), max_size=6
    )
    layers = []
    for number, name in enumerate([*names, ""]):
        parent = draw(st.sampled_from(["", *names[:number]])) if name or names else ""
        layers.append(
            FixtureLayer(
                name=name,
                parent=parent,
                sectors=draw(sectors),
                removed=bool(name) and draw(st.booleans()),
            )
        )
        note(f"layer {name!r}: { ({at: content[0] for at, content in layers[-1].sectors.items()}) }")
    backing = draw(st.none() | st.binary(min_size=512, max_size=512).map(lambda part: part * 20))
    return FixtureVolume(size_bytes=size_bytes, layers=tuple(layers), backing=backing)


VOLUMES: Final[st.SearchStrategy[FixtureVolume]] = _volumes()


def disk_with(volume: FixtureVolume, seed: int = 0) -> MemoryDisk:
    """A disk in memory with the volume's directory."""
    disk = MemoryDisk(Random(seed))
    directory = disk.open_directory()
    write_foreign(directory, volume)
    directory.close()
    return disk


def backing_of(volume: FixtureVolume) -> DataFile | None:
    """The backing file, on a disk of its own."""
    if volume.backing is None:
        return None
    elsewhere = MemoryDisk(Random(1))
    directory = elsewhere.open_directory()
    put_file(directory, "base", volume.backing)
    return directory.open("base")
