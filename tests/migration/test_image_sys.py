"""The volume as Longhorn's files show it, read in any pieces."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.migration import describe, look, open_image
from pyjiva.snapshot.chain import HEAD
from pyjiva.testing.foreign_directory import FixtureVolume
from tests.migration.volumes import BRANCHED, VOLUMES, backing_of, disk_with


@settings(deadline=None)
@given(volume=VOLUMES, start=st.integers(0, 6 * 4096), length=st.integers(0, 6 * 4096))
def test_every_snapshot_reads_as_it_was(volume: FixtureVolume, start: int, length: int) -> None:
    directory = disk_with(volume).open_directory()
    replica = describe(look(directory))
    length = min(length, volume.size_bytes - start)
    for layer in volume.layers:
        content = volume.content(layer.name)
        with closing(open_image(directory, replica, layer.name, backing_of(volume))) as image:
            assert image.size_bytes == volume.size_bytes
            assert image.read(0, volume.size_bytes) == content
            assert image.read(start, length) == content[start : start + length]
            parts = image.allocated(Extent(start, length)) if length else []
            assert all(start <= part.offset_bytes and part.end_bytes <= start + length for part in parts)
            covered = bytearray(content[start : start + length])
            for part in parts:
                covered[part.offset_bytes - start : part.end_bytes - start] = bytes(part.length_bytes)
            assert not any(covered), "what is not named is zeros"


def test_a_snapshot_that_is_not_there() -> None:
    directory = disk_with(BRANCHED).open_directory()
    with pytest.raises(ConfigError, match="there is no snapshot 'x'"):
        open_image(directory, describe(look(directory)), "x", None)


def test_reading_changes_nothing() -> None:
    disk = disk_with(BRANCHED)
    before = {name: disk.content(name) for name in disk.inodes()}
    steps: list[str] = []
    disk.before_step = steps.append
    directory = disk.open_directory()
    with closing(open_image(directory, describe(look(directory)), HEAD, None)) as image:
        image.read(0, image.size_bytes)
        image.allocated(Extent(0, image.size_bytes))
    assert {step.partition(" ")[0] for step in steps} <= {"list", "open", "stat", "map", "read"}
    assert {name: disk.content(name) for name in disk.inodes()} == before
