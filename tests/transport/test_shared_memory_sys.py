"""Shared memory: nobody is given what somebody looks at, and another process sees what was meant for it."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.transport.shared_memory_sys import (
    PAGE_BYTES,
    SLOT_BYTES,
    SLOTS_MAX,
    TAKE_BYTES_MIN,
    MappedMemory,
    MemoryName,
    SharedBuffers,
)

READER = """
import sys
from pyjiva.transport.shared_memory_sys import MappedMemory, MemoryName
pid, descriptor, size, secret, place = sys.stdin.readline().split()
memory = MappedMemory.of(MemoryName(int(pid), int(descriptor), int(size), secret))
view = memory.view(int(place), 5)
print(bytes(view).decode(), flush=True)
view[:] = b"heard"
sys.stdin.readline()
print(bytes(view).decode(), flush=True)
"""


@pytest.fixture
def buffers() -> Iterator[SharedBuffers]:
    """Closed afterwards."""
    made = SharedBuffers()
    yield made
    made.close()


def name_of(buffers: SharedBuffers) -> MemoryName:
    """What a replica is told."""
    name = buffers.name
    assert name is not None
    return name


def place_of(buffers: SharedBuffers, view: memoryview) -> int:
    """Where it lies, as it does."""
    place = buffers.place(view)
    assert place is not None
    return place


def test_who_maps_it_sees_what_was_written_and_writes_what_is_seen(buffers: SharedBuffers) -> None:
    view = buffers.take(200_000)
    view[100:105] = b"hello"
    mapped = MappedMemory.of(name_of(buffers))
    part = mapped.view(place_of(buffers, view[100:]), 5)
    assert bytes(part) == b"hello"
    part[:] = b"heard"
    assert bytes(view[100:105]) == b"heard"


def test_another_process_sees_it_too_and_keeps_it_when_it_is_abandoned(buffers: SharedBuffers) -> None:
    view = buffers.take(TAKE_BYTES_MIN)
    view[:5] = b"hello"
    name = name_of(buffers)
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(f"{name.pid} {name.descriptor} {name.size_bytes} {name.secret} ")
        reader.stdin.write(f"{place_of(buffers, view)}\n")
        assert reader.stdout.readline() == "hello\n"
        while bytes(view[:5]) != b"heard":
            pass
        buffers.abandon()
        buffers.take(TAKE_BYTES_MIN)[:5] = b"other"
        reader.stdin.write("\n")
        assert reader.stdout.readline() == "heard\n"
    assert reader.returncode == 0


def test_a_slot_that_nobody_looks_at_is_used_again(buffers: SharedBuffers) -> None:
    first = buffers.take(TAKE_BYTES_MIN)
    place = place_of(buffers, first)
    second = buffers.take(TAKE_BYTES_MIN)
    assert place_of(buffers, second) != place
    part = first[10:20]
    del first
    assert place_of(buffers, buffers.take(SLOT_BYTES)) != place
    del part
    assert place_of(buffers, buffers.take(SLOT_BYTES)) == place


def test_what_is_too_small_or_too_large_or_too_much_is_not_shared(buffers: SharedBuffers) -> None:
    assert buffers.take_shared(TAKE_BYTES_MIN - 1) is None
    assert buffers.take_shared(SLOT_BYTES + 1) is None
    for size in (TAKE_BYTES_MIN - 1, SLOT_BYTES + 1):
        assert len(buffers.take(size)) == size
    held = [buffers.take_shared(TAKE_BYTES_MIN) for _ in range(SLOTS_MAX)]
    assert None not in held
    assert buffers.take_shared(TAKE_BYTES_MIN) is None
    assert buffers.place(buffers.take(TAKE_BYTES_MIN)) is None
    del held[7]
    assert buffers.take_shared(TAKE_BYTES_MIN) is not None


def test_what_lies_elsewhere_has_no_place(buffers: SharedBuffers) -> None:
    for other in (b"bytes", bytearray(10), memoryview(bytearray(10)), memoryview(b"const")):
        assert buffers.place(other) is None


def test_nothing_of_an_abandoned_memory_is_given_out_again(buffers: SharedBuffers) -> None:
    old = buffers.take(TAKE_BYTES_MIN)
    mapped = MappedMemory.of(name_of(buffers)).view(place_of(buffers, old), TAKE_BYTES_MIN)
    old[:] = b"o" * len(old)
    old_name = buffers.name
    buffers.abandon()
    assert (buffers.generation, buffers.place(old)) == (1, None)
    assert buffers.name != old_name
    for view in [buffers.take(TAKE_BYTES_MIN) for _ in range(SLOTS_MAX)]:
        view[:] = b"n" * len(view)
    assert bytes(mapped) == b"o" * len(mapped)


def test_without_a_new_one_nothing_is_shared_any_more(
    buffers: SharedBuffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    buffers.abandon()
    assert buffers.name is None
    assert buffers.take_shared(TAKE_BYTES_MIN) is None
    assert len(buffers.take(TAKE_BYTES_MIN)) == TAKE_BYTES_MIN


def allocated_bytes(buffers: SharedBuffers) -> int:
    """What the kernel holds for it."""
    return os.stat(f"/proc/self/fd/{name_of(buffers).descriptor}").st_blocks * 512


def test_memory_that_is_not_used_any_more_is_given_back(buffers: SharedBuffers) -> None:
    views = [buffers.take(SLOT_BYTES) for _ in range(4)]
    for view in views:
        view[:] = b"x" * SLOT_BYTES
    kept = views[0]
    del views, view
    buffers.trim()  # all were used since the last time
    assert allocated_bytes(buffers) >= 4 * SLOT_BYTES
    buffers.trim()
    assert allocated_bytes(buffers) <= SLOT_BYTES + 2 * PAGE_BYTES
    assert bytes(kept) == b"x" * SLOT_BYTES


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(TAKE_BYTES_MIN, SLOT_BYTES), st.integers(0, 12), st.booleans()), max_size=40
    )
)
def test_what_is_held_never_changes(steps: list[tuple[int, int, bool]]) -> None:
    buffers = SharedBuffers()
    held: list[tuple[memoryview, int]] = []
    for number, (size, release, abandon) in enumerate(steps):
        view = buffers.take(size)
        assert len(view) == size
        view[:8] = view[-8:] = number.to_bytes(8, "big")
        held.append((view[-8:], number))
        del view
        assert [int.from_bytes(view, "big") for view, _ in held] == [number for _, number in held]
        if release < len(held):
            del held[release]
        if abandon:
            buffers.abandon()
    buffers.close()


def test_a_wrong_name_is_refused(buffers: SharedBuffers, tmp_path: Path) -> None:
    name = name_of(buffers)
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(name.size_bytes))
    unsealed = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, name.size_bytes)
    reader, writer = os.pipe()
    with plain.open("r+b") as file:
        for wrong in (
            attrs.evolve(name, secret="00" * 32),
            attrs.evolve(name, secret=""),
            attrs.evolve(name, size_bytes=name.size_bytes + PAGE_BYTES),
            attrs.evolve(name, size_bytes=2**40),
            attrs.evolve(name, size_bytes=0),
            attrs.evolve(name, pid=2**22 + 1),
            attrs.evolve(name, descriptor=9999),
            attrs.evolve(name, descriptor=-1),
            attrs.evolve(name, descriptor=file.fileno()),
            attrs.evolve(name, descriptor=unsealed),
            attrs.evolve(name, descriptor=reader),
        ):
            with pytest.raises(OSError, match=r"\[Errno"):
                MappedMemory.of(wrong)
    for descriptor in (unsealed, reader, writer):
        os.close(descriptor)


def test_nobody_can_cut_it_short(buffers: SharedBuffers) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(name_of(buffers).descriptor, PAGE_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(name_of(buffers).descriptor, 2 * name_of(buffers).size_bytes)
    assert fcntl.fcntl(name_of(buffers).descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@given(offset=st.integers(0, 2**64 - 1), length=st.integers(0, 2**32 - 1))
def test_no_view_leaves_the_memory(offset: int, length: int) -> None:
    buffers = SharedBuffers()
    try:
        size = name_of(buffers).size_bytes
        mapped = MappedMemory.of(name_of(buffers))
        if offset >= PAGE_BYTES and length > 0 and offset + length <= size:
            assert len(mapped.view(offset, length)) == length
        else:
            with pytest.raises(RemoteProtocolError):
                mapped.view(offset, length)
        with pytest.raises(RemoteProtocolError):  # where the secret is
            mapped.view(0, PAGE_BYTES + 1)
    finally:
        buffers.close()
