"""Reads through a window: who is asked for one and when, and what of the data path it has to be told."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pyjiva.block import Buffer, Read, Unmap, Write, WriteZeroes
from pyjiva.controller import Volume, VolumeState
from pyjiva.controller.change_request import ChangeRequest
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.windows import AGAIN_S, UNREACHABLE_S, Windows
from pyjiva.errors import StorageFailure
from pyjiva.lineage import Change, ChangeKind
from pyjiva.replication import (
    ANSWER,
    STATUS_OF_FAILURE,
    Frame,
    FrameType,
    Status,
    encode_message,
)
from pyjiva.snapshot import WindowName
from pyjiva.snapshot.window import NO_MAP, WindowLayer
from pyjiva.testing.cluster import open_cluster, wait_state
from pyjiva.units import KIB, MIB
from tests.controller.members import SIZE_BYTES, Bench
from tests.suites.block_device import Driver, noise

NAME = WindowName(1, 5, "00" * 16, 1 << 20, (WindowLayer(3, 4, NO_MAP),))
READABLE = 0b111


@attrs.define
class FakeWindow:
    """What it is given back, and what it was told."""

    content: bytes | None = b"w" * 512
    is_shut: bool = False
    told: list[tuple[str, int, int]] = attrs.field(factory=list)
    closed: bool = False
    looks: int = 0

    def look(self) -> None:
        self.looks += 1

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        return None if self.content is None else (self.content * length_bytes)[:length_bytes]

    def written(self, offset_bytes: int, length_bytes: int) -> None:
        self.told.append(("written", offset_bytes, length_bytes))

    def changed(self, offset_bytes: int, length_bytes: int) -> None:
        self.told.append(("changed", offset_bytes, length_bytes))

    def close(self) -> None:
        self.closed = True


class Asked:
    """What members were asked, and how they answer."""

    def __init__(self) -> None:
        self.open: list[tuple[int, Callable[[Frame | None], None]]] = []
        self.window = FakeWindow()
        self.reachable = True
        self.now_s = 0.0
        self.windows = Windows(self.open_window, lambda: self.now_s)

    def open_window(self, name: WindowName) -> FakeWindow:
        assert name == NAME
        if not self.reachable:
            raise OSError("another namespace")
        return self.window

    def ask(self, member: int, type_: FrameType, on_answer: Callable[[Frame | None], None]) -> None:
        assert type_ is FrameType.WINDOW
        self.open.append((member, on_answer))

    def tick(self, now_s: float, readable: int = READABLE) -> list[int]:
        """Who is asked at this moment."""
        before, self.now_s = len(self.open), now_s
        self.windows.tick(NAME.size_bytes, readable, self.ask)
        return [member for member, _ in self.open[before:]]

    def miss(self, readable: int = READABLE) -> None:
        """A read was not answered."""
        self.windows.want(NAME.size_bytes, readable, self.ask)

    def answer(self, code: int = Status.OK, payload: bytes | None = None) -> None:
        _, on_answer = self.open[-1]
        said = encode_message(NAME) if payload is None else payload
        on_answer(Frame(FrameType.WINDOW | ANSWER, code, 1, 1, 0, 0, 0, memoryview(said)))


class TestWhoIsAsked:
    """One at a time, of those that are on this machine and can be read from."""

    def test_nobody_while_nobody_is_near_or_readable(self) -> None:
        asked = Asked()
        assert asked.tick(1.0) == []
        asked.windows.near(2, 2)
        assert asked.tick(1.0, 0b001) == []
        assert asked.tick(1.0) == [2]

    def test_nobody_by_a_volume_without_windows(self) -> None:
        asked = Asked()
        asked.windows = Windows()
        asked.windows.near(1, 1)
        assert asked.tick(1.0) == []

    def test_one_alone_until_it_is_lost(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.windows.near(2, 2)
        assert asked.tick(1.0) == [1]
        assert asked.tick(9.0) == []
        asked.answer()
        assert asked.windows.bit == 1
        assert asked.tick(99.0) == []
        asked.windows.lost(2)
        assert asked.windows.bit == 1
        asked.windows.near(2, 2)
        asked.windows.lost(1)
        assert asked.windows.bit == 0
        assert asked.window.closed
        assert asked.tick(99.0) == [2]

    def test_an_answer_of_before_it_was_lost_opens_nothing(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.windows.lost(1)
        asked.answer()
        assert asked.windows.window is None
        asked.windows.near(2, 2)
        assert asked.tick(2.0) == [2]
        asked.open[-1][1](None)
        asked.windows.lost(2)
        assert asked.windows.window is None

    def test_who_refuses_is_asked_again_later(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer(STATUS_OF_FAILURE[StorageFailure.NOT_READY], b"{}")
        assert asked.tick(1.0) == []
        assert asked.tick(1.0 + AGAIN_S) == [1]

    def test_who_cannot_be_reached_is_asked_much_later(self) -> None:
        asked = Asked()
        asked.reachable = False
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer()
        assert asked.tick(1.0 + AGAIN_S) == []
        assert asked.tick(1.0 + UNREACHABLE_S) == [1]

    def test_who_can_never_give_one_is_asked_much_later(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer(STATUS_OF_FAILURE[StorageFailure.NOT_READY], b"{}")
        assert asked.tick(1.0 + AGAIN_S) == [1]
        asked.answer(STATUS_OF_FAILURE[StorageFailure.NOT_SUPPORTED], b"{}")
        assert asked.tick(1.0 + 2 * AGAIN_S) == []

    def test_one_of_another_size_is_not_opened(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer(payload=encode_message(attrs.evolve(NAME, size_bytes=2**62)))
        assert asked.windows.window is None
        assert asked.tick(1.0 + AGAIN_S) == [1]

    def test_one_that_nobody_reads_through_is_looked_at(self) -> None:
        """It keeps files of layers that are gone."""
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer()
        asked.tick(2.0)
        assert (asked.window.looks, asked.window.closed) == (1, False)
        asked.window.is_shut = True
        asked.tick(3.0)
        assert asked.window.closed
        assert asked.windows.bit == 0

    def test_one_that_is_shut_is_given_back_and_asked_for_again(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(1.0)
        asked.answer()
        asked.window.content = None
        assert asked.windows.read(0, 512) is None
        assert asked.windows.bit == 1  # it was not in memory
        asked.window.is_shut = True
        assert asked.windows.read(0, 512) is None
        assert asked.windows.bit == 0
        assert asked.window.closed
        asked.window = FakeWindow()
        assert asked.tick(1.5) == []
        assert asked.tick(1.0 + AGAIN_S) == [1]
        asked.answer()
        assert asked.windows.read(0, 3) == b"www"

    def test_a_read_asks_again_when_it_is_time(self) -> None:
        asked = Asked()
        asked.windows.near(1, 1)
        asked.tick(0.5)
        asked.answer()
        asked.window.content, asked.window.is_shut = None, True
        asked.windows.read(0, 512)
        asked.now_s += AGAIN_S - 0.01
        asked.miss()
        assert len(asked.open) == 1
        asked.now_s += 0.02
        asked.miss()
        assert len(asked.open) == 2

    def test_a_read_that_finds_none_asks_nobody_who_was_asked_or_may_not_be(self) -> None:
        asked = Asked()
        asked.miss()
        asked.windows.near(1, 0b1)
        asked.windows.near(2, 0b10)
        asked.miss(readable=0b100)
        assert asked.open == []
        asked.miss(readable=0b10)
        asked.miss()
        assert [member for member, _ in asked.open] == [2]


class Path1:
    """A data path with a window of member 1."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.asked = Asked()
        self.window = self.asked.window
        self.bench.data.windows = self.asked.windows
        self.asked.windows.near(1, 1)
        self.asked.tick(0.0)
        self.asked.answer()

    def read(self, offset: int = 0) -> Read:
        return self.bench.submit(Read(offset, 512, self.bench.done))  # type: ignore[no-any-return]


class TestDataPath:
    """What a read may take from a window, and what a window is told."""

    def test_a_read_is_answered_at_once_and_nobody_is_asked(self) -> None:
        path = Path1()
        request = path.read()
        assert path.bench.answered == [request]
        assert request.data == (b"w" * 512,)
        assert not any(path.bench.asked(FrameType.READ).values())
        assert path.asked.windows.reads == 1
        assert path.bench.data.hosts.requests == 1

    def test_what_it_does_not_give_is_asked_for(self) -> None:
        path = Path1()
        path.window.content = None
        path.read()
        assert sum(path.bench.asked(FrameType.READ).values()) == 1
        assert path.bench.answered == []

    def test_a_member_that_is_not_readable_is_not_read_from(self) -> None:
        path = Path1()
        path.bench.now(2, 3)
        path.read()
        assert path.bench.answered == []
        assert path.bench.asked(FrameType.READ)[1] == 0

    def test_a_member_that_is_lost_is_forgotten(self) -> None:
        path = Path1()
        path.bench.down(1)
        path.bench.up(1)
        path.bench.now(1, 2, 3)
        assert path.window.closed
        path.read()
        assert path.bench.answered == []

    def test_without_a_lease_a_replica_is_asked(self) -> None:
        path = Path1()
        now = [100.0]
        path.bench.data.clock = lambda: now[0]
        path.bench.data.renew_lease(102.0)
        path.read()
        now[0] = 102.0
        path.read()
        assert len(path.bench.answered) == 1
        assert sum(path.bench.asked(FrameType.READ).values()) == 1

    def test_a_read_waits_for_the_write_that_it_overlaps(self) -> None:
        path = Path1()
        write = path.bench.submit(Write(0, 512, (b"x" * 512,), path.bench.done))
        request = path.read()
        path.bench.reply(1, 2)
        assert path.bench.answered == []
        path.bench.reply(3)
        assert path.bench.answered == [request, write]  # the lock is given back first
        assert path.window.told == [("written", 0, 512)]

    def test_it_is_told_before_the_read_that_waits_goes_on(self) -> None:
        path = Path1()
        told: list[Any] = []
        path.bench.submit(Write(0, 512, (b"x" * 512,), path.bench.done))
        path.bench.submit(Read(0, 512, lambda _: told.extend(path.window.told)))
        path.bench.reply(1, 2, 3)
        assert told == [("written", 0, 512)]

    @pytest.mark.parametrize("change", [Unmap, WriteZeroes])
    def test_it_is_told_of_other_changes(self, change: Any) -> None:
        path = Path1()
        path.bench.submit(change(4096, 8192, path.bench.done))
        path.bench.reply(1, 2, 3)
        assert path.window.told == [("changed", 4096, 8192)]

    def test_one_that_refuses_something_is_not_believed(self) -> None:
        path = Path1()
        path.bench.submit(Write(0, 512, (b"x" * 512,), path.bench.done))
        path.bench.reply(1, status=STATUS_OF_FAILURE[StorageFailure.WRITE_ERROR])
        assert path.window.closed
        path.read(4096)
        assert path.bench.answered == []

    def test_a_write_that_began_before_it_was_opened_is_a_change(self) -> None:
        """Its replica may have carried it out, and moved the blocks again, before it gave the window."""
        path = Path1()
        for end_s in (2.0, 4.0):
            path.bench.submit(Write(0, 512, (b"x" * 512,), path.bench.done))
            path.bench.reply(1)
            path.window.is_shut = True
            path.asked.tick(end_s)
            assert path.window.closed
            path.asked.window = path.window = FakeWindow()
            path.asked.tick(end_s + AGAIN_S)
            path.asked.answer()
            path.bench.submit(Write(4096, 512, (b"y" * 512,), path.bench.done))
            path.bench.reply(2, 3)
            assert path.window.told[:1] == [("changed", 0, 512)]
            path.bench.reply(1, 2, 3)
            assert path.window.told[1:] == [("written", 4096, 512)]

    def test_a_read_that_finds_none_asks_for_one_at_once(self) -> None:
        path = Path1()
        change = Change(kind=ChangeKind.GROW, before=0, after=1, size_bytes=2 << 20)
        path.bench.data.submit(ChangeRequest(change, SIZE_BYTES, path.bench.done))
        path.bench.reply(1, 2, 3)
        path.read()
        path.read(4096)
        assert path.bench.asked(FrameType.WINDOW) == {1: 1, 2: 0, 3: 0}
        assert sum(path.bench.asked(FrameType.READ).values()) == 2

    def test_what_is_not_in_memory_asks_for_no_other_one(self) -> None:
        path = Path1()
        path.window.content = None
        path.read()
        assert sum(path.bench.asked(FrameType.WINDOW).values()) == 0

    def test_a_change_of_the_snapshots_ends_it(self) -> None:
        """The volume may have another size from now on, and layers may be gone."""
        path = Path1()
        change = Change(kind=ChangeKind.GROW, before=0, after=1, size_bytes=2 << 20)
        path.bench.data.submit(ChangeRequest(change, SIZE_BYTES, path.bench.done))
        path.bench.reply(1, 2, 3)
        assert path.window.closed


async def wait_for_window(volume: Volume, driver: Driver) -> None:
    """Until reads are answered through one."""
    reads = volume.window_reads
    with trio.fail_after(60):
        while volume.window_reads == reads:
            await driver.check()
            await trio.sleep(0.05)


async def test_reads_go_through_the_files_of_a_replica_beside_it(tmp_path: Path) -> None:
    """Also when there are snapshots, and when the one whose files they are dies."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            driver = Driver(volume, batch)
            await driver.write(0, noise(256 * KIB))
            await wait_for_window(volume, driver)
            first = volume._data.windows._whose
            assert first is not None
            await cluster.stop_replica(first)
            await driver.write(0, noise(64 * KIB, seed=2))
            await driver.check()
            await wait_for_window(volume, driver)
            assert volume._data.windows._whose not in (first, None)
            await cluster.start_replica(first)
            await wait_state(volume, VolumeState.HEALTHY)
            await driver.check()
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2] == bytes(driver.model)


async def test_a_volume_that_grows_goes_on(tmp_path: Path) -> None:
    """What lies beyond the end that a window knows is written and unmapped before anybody has read."""
    async with (
        open_cluster(tmp_path) as cluster,
        cluster.open_volume(new_volume=True) as (volume, batch),
    ):
        await wait_state(volume, VolumeState.HEALTHY)
        snapshots = Snapshots(volume)
        await snapshots.create("s")
        driver = Driver(volume, batch)
        await driver.write(0, noise(64 * KIB))
        await wait_for_window(volume, driver)
        await snapshots.grow(6 * MIB)
        driver.model.extend(bytes(6 * MIB - len(driver.model)))
        await driver.write(5 * MIB, noise(64 * KIB))
        await driver.zero(Unmap, 5 * MIB, 4 * KIB)
        await wait_for_window(volume, driver)


async def test_files_of_layers_that_are_gone_are_given_back(tmp_path: Path) -> None:
    """Though nobody reads; and all of them when the volume has ended."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            await wait_state(volume, VolumeState.HEALTHY)
            snapshots = Snapshots(volume)
            driver = Driver(volume, batch)
            await driver.write(0, noise(64 * KIB))
            await snapshots.create("s")
            await wait_for_window(volume, driver)
            await snapshots.delete("s")
            with trio.fail_after(60):
                while (await snapshots.listing()).removed_bytes or _removed():
                    await trio.sleep(0.05)
            await wait_for_window(volume, driver)
        assert volume._data.windows.window is None
    assert not _removed()


def _removed() -> list[str]:
    """Files that this process holds and that have no name any more."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if name.endswith(" (deleted)") and "volume-" in name:
                found.append(name)
    return found
