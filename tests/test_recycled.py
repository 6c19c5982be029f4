"""Buffers are used again, and never while somebody looks at them."""

import ctypes
import mmap

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.recycled import KEPT_MAX, RecycledBuffers
from pyjiva.units import KIB, MIB


def test_a_buffer_that_nobody_looks_at_is_used_again() -> None:
    buffers = RecycledBuffers()
    first = buffers.take(1000)
    storage = first.obj
    del first
    assert buffers.take(1000).obj is storage
    assert buffers.take(600).obj is storage


def test_a_slice_of_a_view_keeps_the_buffer() -> None:
    buffers = RecycledBuffers()
    part = buffers.take(1000)[10:20]
    assert buffers.take(1000).obj is not part.obj


def test_a_small_one_does_not_keep_a_large_buffer() -> None:
    buffers = RecycledBuffers()
    large = buffers.take(1000).obj
    assert buffers.take(100).obj is not large


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), max_size=60))
def test_what_is_held_never_changes(steps: list[tuple[int, int]]) -> None:
    """Takes and releases in any order: no two live views share a byte, and few buffers are kept."""
    buffers = RecycledBuffers(2000)
    held: list[tuple[memoryview, bytes]] = []
    for number, (size, release) in enumerate(steps):
        view = buffers.take(size)
        assert len(view) == size
        content = bytes([number % 256]) * size
        view[:] = content
        held.append((view[: max(1, size // 2)], content[: max(1, size // 2)]))
        del view
        for kept, expected in held:
            assert kept == expected
        if release < len(held):
            del held[release]
        assert len(buffers._kept) <= KEPT_MAX
        assert sum(kept.room_bytes for kept in buffers._kept) == buffers._kept_bytes <= 2000


@given(st.lists(st.integers(1, 3 * MIB), max_size=10))
def test_each_begins_at_a_page(sizes: list[int]) -> None:
    """Also when it is used again: to copy a page to 16 bytes behind a page takes five times as long."""
    buffers = RecycledBuffers()
    views = [buffers.take(size) for size in sizes]
    del views
    for size in sizes:
        view = buffers.take(size)
        assert len(view) == size
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % mmap.PAGESIZE == 0


def test_as_many_bytes_are_kept_as_it_was_told() -> None:
    buffers = RecycledBuffers(4 * MIB)
    views = [buffers.take(MIB) for _ in range(6)]
    assert [kept.storage for kept in buffers._kept] == [view.obj for view in views[2:]]
    large = buffers.take(8 * MIB)
    assert [kept.storage for kept in buffers._kept] == [large.obj]  # the last one in any case


def test_no_more_are_kept_than_can_be_looked_through() -> None:
    buffers = RecycledBuffers(4 * MIB)
    views = [buffers.take(KIB) for _ in range(KEPT_MAX + 3)]
    assert [kept.storage for kept in buffers._kept] == [view.obj for view in views[3:]]
