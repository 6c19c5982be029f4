"""Tables of chunks, against a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup.objects import DamagedError
from pyjiva.backup.table import ChunkTable, TableBuilder, table_bytes_max

CHUNK_BYTES = 100
NAMES = st.integers(0, 3).map(lambda n: bytes([n + 1]) * 32)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, dict[int, bytes], ChunkTable]:
    """(size, what each chunk is, the table)."""
    size_bytes = draw(st.integers(1, 2000))
    chunks = -(-size_bytes // CHUNK_BYTES)
    model = draw(st.dictionaries(st.integers(0, chunks - 1), NAMES))
    builder = TableBuilder(size_bytes, CHUNK_BYTES)
    for index in sorted(model):
        builder.add(index, model[index])
    return size_bytes, model, builder.table()


@given(made=tables())
def test_it_has_what_was_added(made: tuple[int, dict[int, bytes], ChunkTable]) -> None:
    size_bytes, model, table = made
    assert dict(table) == model
    assert [table.name_at(index) for index in range(25)] == [model.get(index) for index in range(25)]
    assert table.chunks == len(model)
    covered = bytearray(size_bytes)
    for index in model:
        extent = table.extent_of(index)
        covered[extent.offset_bytes : extent.end_bytes] = b"\1" * extent.length_bytes
    for hole in table.holes():
        assert not any(covered[hole.offset_bytes : hole.end_bytes])
        covered[hole.offset_bytes : hole.end_bytes] = b"\1" * hole.length_bytes
    assert covered == b"\1" * size_bytes


@given(made=tables())
def test_it_comes_back_from_the_store(made: tuple[int, dict[int, bytes], ChunkTable]) -> None:
    size_bytes, _, table = made
    encoded = table.encode()
    assert ChunkTable.decode(encoded, "t") == table
    assert len(encoded) <= table_bytes_max(size_bytes, CHUNK_BYTES)


@given(made=tables(), other=tables())
def test_its_hash_is_that_of_the_whole(
    made: tuple[int, dict[int, bytes], ChunkTable], other: tuple[int, dict[int, bytes], ChunkTable]
) -> None:
    assert (made[2].hash() == other[2].hash()) == (made[:2] == other[:2])


@given(made=tables(), data=st.data())
def test_any_change_is_refused_or_gives_another_table(
    made: tuple[int, dict[int, bytes], ChunkTable], data: st.DataObject
) -> None:
    table = made[2]
    encoded = bytearray(table.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = ChunkTable.decode(bytes(encoded), "t")
    except DamagedError:
        return
    assert read.encode() == bytes(encoded)
    assert read.hash() != table.hash()
    assert all(0 <= index * read.chunk_bytes < read.size_bytes for index, _ in read)


@given(anything=st.binary(max_size=200))
def test_any_bytes_are_damage_or_a_table(anything: bytes) -> None:
    try:
        read = ChunkTable.decode(anything, "tables/x")
    except DamagedError as error:
        assert "tables/x" in str(error)  # noqa: PT017
        return
    assert read.encode() == anything


def test_counts_that_do_not_fit_are_refused_before_memory_is_taken() -> None:
    builder = TableBuilder(1000, CHUNK_BYTES)
    builder.add(0, bytes(32))
    encoded = bytearray(builder.table().encode())
    encoded[16:24] = b"\xff" * 8
    with pytest.raises(DamagedError, match="contradict"):
        ChunkTable.decode(bytes(encoded), "t")
