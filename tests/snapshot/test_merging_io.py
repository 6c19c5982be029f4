"""How much of the time a merge takes, beside hosts and alone."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from pyjiva.block import Read, Space
from pyjiva.block.yielding import REST
from pyjiva.snapshot import ChainDevice, MergeProgress, Merger, ReplicaState, Store
from pyjiva.snapshot.device_io import FREE_AFTER_S
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.snapshot.merge_sys import STEP_BYTES, Merge
from pyjiva.snapshot.merging_io import CHANGE_S, SPACE_BYTES
from pyjiva.testing import MemoryDisk
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB

SIZE_BYTES = 32 * MIB
STEP_S = 0.1  # of whatever runs in a thread


async def slowly(call: Callable[[], None]) -> None:
    """Instead of a thread: a disk that takes its time."""
    await trio.sleep(STEP_S)
    call()


def with_a_deleted_snapshot() -> Store:
    """A store whose removed layer and head hold as much, in other places."""
    identity = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
    store = Store.open_in(MemoryDisk(Random(1)).open_directory(), identity, boot_id="b-1")
    store.write(0, SIZE_BYTES // 2, [b"o" * (SIZE_BYTES // 2)])
    store.flush()
    store.create_snapshot("kept")
    store.write(SIZE_BYTES // 2, SIZE_BYTES // 2, [b"n" * (SIZE_BYTES // 2)])
    store.delete_snapshot("kept")
    return store


async def host(device: ChainDevice) -> None:
    """Read now and then; what is read is in the page cache."""
    while True:
        device.submit(Read(0, 4096, lambda _: None))
        device._batch.end()
        await trio.sleep(STEP_S / 4)


@asynccontextmanager
async def device_of_a_merger() -> AsyncIterator[tuple[ChainDevice, Merger, trio.Nursery]]:
    """What there is to merge is above; whoever wants it merged starts `run`."""
    store = with_a_deleted_snapshot()
    device = ChainDevice(store, EndOfBatch(), slowly)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        yield device, Merger(device), nursery
        nursery.cancel_scope.cancel()
    store.close()


async def merged(device: ChainDevice) -> None:
    while device.store.chain.next_merge() is not None:
        await trio.sleep(STEP_S / 10)


async def merge(*, hosts: bool) -> float:
    """How long it takes to merge them."""
    async with device_of_a_merger() as (device, merger, nursery):
        if hosts:
            nursery.start_soon(host, device)
        began_at_s = trio.current_time()
        nursery.start_soon(merger.run)
        await merged(device)
        return trio.current_time() - began_at_s


async def test_a_merge_rests_longer_while_there_are_reads(autojump_clock: MockClock) -> None:
    """Alone for as long as a step took, with the flush before it, beside them for REST times as long."""
    longer_s = (REST - 1) * 2 * STEP_S * (SIZE_BYTES // 2 // STEP_BYTES)
    assert longer_s <= await merge(hosts=True) - await merge(hosts=False) < 2 * longer_s


@pytest.mark.parametrize("wanted", [0b1, 0b100, 0b101, 0b111_1111])
async def test_what_hosts_wrote_is_flushed_before_the_steps_that_want_it(
    wanted: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in it, when those who overlap it, and with the last one all of them, would wait for that."""
    seen: list[str] = []
    for owner, name in ((Store, "flush"), (Merge, "step")):
        monkeypatch.setattr(owner, name, noted(seen, name, getattr(owner, name)))
    monkeypatch.setattr(Merge, "wants_flush", property(lambda _: bool(wanted >> seen.count("step") & 1)))
    await merge(hosts=False)
    steps = seen.count("step")
    assert steps > 2
    expected = ["flush step" if wanted >> number & 1 else "step" for number in range(steps)]
    assert " ".join(expected) in " ".join(seen)


async def test_it_is_told_once_when_hosts_write_faster_than_it_is_merged(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    real_step = Merge.step

    def step(merge: Merge) -> int:
        steps.append(1)
        if len(steps) == 2:
            merge.reopen()
        return real_step(merge)

    monkeypatch.setattr(Merge, "step", step)
    with structlog.testing.capture_logs() as lines:
        await merge(hosts=False)
    assert [line["snapshot"] for line in lines if "takes writes" in line["event"]] == ["kept"]
    assert len(steps) > 4


async def test_a_merge_that_turns_goes_on_upwards(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at all before that, while nobody waits."""
    seen: list[str] = []
    real_step, real_turn = Merge.step, Merge.turn_up

    def step(merge: Merge) -> int:
        copied_bytes = real_step(merge)
        seen.append("down" if merge.goes_down else "up")
        if len(seen) == 2:
            merge.turns_up, merge.extent = True, None
        return copied_bytes

    def turn_up(merge: Merge) -> None:
        seen.append("turns")
        real_turn(merge)

    monkeypatch.setattr(Merge, "step", step)
    monkeypatch.setattr(Merge, "turn_up", turn_up)
    async with device_of_a_merger() as (device, merger, nursery):
        monkeypatch.setattr(Merge, "_count_up", lambda _: 1 << 40)  # it begins downwards
        nursery.start_soon(merger.run)
        await merged(device)
    assert seen[:4] == ["down", "down", "turns", "up"]
    assert "down" not in seen[3:]


def noted(seen: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, and its name in `seen` each time."""

    def instead(*arguments: Any) -> Any:
        seen.append(name)
        return call(*arguments)

    return instead


async def test_the_progress_ends_with_the_last_merge_and_begins_with_a_change(
    autojump_clock: MockClock,
) -> None:
    seen: list[MergeProgress] = []
    async with device_of_a_merger() as (device, merger, nursery):
        assert merger.progress is not None, "nobody has looked yet"
        nursery.start_soon(merger.run)
        while (progress := merger.progress) is not None:
            seen.append(progress)
            await trio.sleep(STEP_S / 10)
        assert device.store.chain.next_merge() is None
        await device.change(partial(device.store.create_snapshot, "another", created="now"))
        assert merger.progress == MergeProgress(0, 0), "it may have left something to do"
        while merger.progress is not None:
            await trio.sleep(STEP_S / 10)
    started = [each for each in seen if each.done_bytes + each.left_bytes]
    total = started[0].done_bytes + started[0].left_bytes
    assert total == SIZE_BYTES // 2
    assert [each.done_bytes for each in started] == sorted(each.done_bytes for each in started)
    assert all(each.done_bytes + each.left_bytes == total for each in started)
    assert len({each.done_bytes for each in started}) > 3, "told between the steps"


@pytest.mark.parametrize("flushes", [True, False])
@pytest.mark.parametrize("announced_in", [0.25, 0.75])
async def test_a_change_that_was_announced_finds_no_step_and_no_flush_under_way(
    announced_in: float, flushes: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announced amid a flush for a step, or amid a step: that ends, and no other begins."""
    monkeypatch.setattr(Merge, "wants_flush", flushes)
    async with device_of_a_merger() as (device, merger, nursery):
        nursery.start_soon(merger.run)
        while not merger.copied_bytes:
            await trio.sleep(STEP_S / 10)
        while merger.merge is not None and not device._one_alone.locked():
            await trio.sleep(STEP_S / 100)
        await trio.sleep(announced_in * STEP_S)
        merger.change_comes()
        await device.aside(device.store.flush)
        before = merger.copied_bytes
        await trio.sleep(8 * STEP_S)
        assert merger.copied_bytes == before > 0
        began_at_s = trio.current_time()
        merger.change_is_here()
        await device.change(partial(device.store.create_snapshot, "another", created="now"))
        assert trio.current_time() - began_at_s == pytest.approx(STEP_S)
        await merged(device)


async def test_a_change_that_does_not_come_is_waited_for_no_longer_than_it_may_take(
    autojump_clock: MockClock,
) -> None:
    async with device_of_a_merger() as (_, merger, nursery):
        merger.change_comes()
        nursery.start_soon(merger.run)
        await trio.sleep(CHANGE_S - STEP_S / 10)
        assert merger.merge is None
        await trio.sleep(2 * STEP_S)
        assert merger.merge is not None


async def test_the_files_that_a_merge_leaves_are_given_back_while_nobody_waits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take long: neither requests nor changes wait for it."""
    seen: list[bool] = []
    free = Layers.free_dropped

    def freed(layers: Layers) -> None:
        if layers.dropped:
            seen.append(device._one_alone.locked())
        free(layers)

    monkeypatch.setattr(Layers, "free_dropped", freed)
    async with device_of_a_merger() as (device, merger, nursery):
        nursery.start_soon(merger.run)
        await merged(device)
        await trio.sleep(FREE_AFTER_S - STEP_S)
        assert device.store.has_dropped, "a controller may have them open"
        await trio.sleep(3 * STEP_S)
        assert seen == [False]
        assert not device.store.has_dropped


@pytest.mark.parametrize(
    ("space", "early"),
    [
        (None, True),
        (Space(0, SPACE_BYTES + SIZE_BYTES - 1), True),
        (Space(0, SPACE_BYTES + SIZE_BYTES), False),
    ],
    ids=["not known", "short", "enough"],
)
async def test_what_was_moved_is_given_back_early_where_space_is_short(
    space: Space | None, early: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the volume is to be moved: for a while it may be there twice."""
    seen: set[bool] = set()
    step = Merge.step

    def noted_step(merge: Merge) -> int:
        seen.add(merge.frees_early)
        return step(merge)

    monkeypatch.setattr(Merge, "step", noted_step)
    store = with_a_deleted_snapshot()
    device = ChainDevice(store, EndOfBatch(), slowly)
    device.space = space  # as it does not run, nobody looks again
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Merger(device).run)
        await merged(device)
        nursery.cancel_scope.cancel()
    assert seen == {early}
    assert store.read(0, SIZE_BYTES) == b"o" * (SIZE_BYTES // 2) + b"n" * (SIZE_BYTES // 2)
    store.close()
