"""Each failure of docs/reference/failures.md, made on purpose: outcome, reason, and how long a host waits.

In virtual time, so what is measured here is the waiting that pyjiva decides on, not the speed of a machine;
`make bench-stall` measures that.
"""

import copy
from random import Random

import pytest
import trio
from trio.testing import MockClock

from pyjiva.block import Flush, Write
from pyjiva.controller import VolumeState, volume_io
from pyjiva.errors import StorageFailure
from pyjiva.testing.memory_file import MemoryDisk, no_fault
from tests.sim.lab import BLOCK_BYTES, SIZE_BYTES, ask, open_lab

AT_ONCE_S = 0.5  # some trips over the simulated network and to its disks
DETECTION_S = 5.0  # what is promised for the death of one of three
STUCK_DISK_S = 31.0  # the deadline of a disk at most, and the pings that bring its age


async def test_a_killed_process_is_given_up_at_once_and_rebuilt_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        await lab.machines[2].kill()
        await lab.wait_out(2)
        await trio.sleep(2)
        assert lab.longest_wait_s() < AT_ONCE_S
        assert set(lab.told(2)) & {"closed", "not-running", "unreachable"}
        lab.machines[2].start(lab.network, lab.nursery)
        await lab.heal()
        assert lab.errors == []


async def test_a_machine_that_reboots_may_lack_unflushed_writes_and_gets_them_again(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        await lab.machines[2].cut_power()
        await lab.wait_out(2)
        assert lab.longest_wait_s() < AT_ONCE_S
        lab.machines[2].start(lab.network, lab.nursery)
        await lab.heal()
        text = [e.text for e in lab.volume.history.events if e.kind == "rebuild"]
        assert any("everything is compared" in line for line in text), text
        assert lab.errors == []


async def test_when_all_machines_lose_power_what_was_flushed_is_there(autojump_clock: MockClock) -> None:
    """No copy is whole, and the controller cannot know what the host was promised: it ends, and the next one
    takes what is on the disks.
    """
    async with open_lab() as lab:
        first, data, offset = lab.controller, b"kept" * (BLOCK_BYTES // 4), SIZE_BYTES - BLOCK_BYTES
        assert await ask(lab.volume, lambda done: Write(offset, BLOCK_BYTES, (data,), done)) is None
        assert await ask(lab.volume, Flush) is None
        for machine in lab.machines.values():
            await machine.cut_power()
        for machine in lab.machines.values():
            machine.start(lab.network, lab.nursery)
        await lab.wait(lambda: first in lab.ended)
        lab.forget_unflushed()
        lab.volume = await lab.start_controller()
        await lab.heal()
        for machine in lab.machines.values():
            assert machine.disk.read("volume-head-000.img", offset, BLOCK_BYTES) == data
        assert lab.errors == []


async def test_a_stuck_disk_behind_a_live_network_is_found_by_the_age_of_its_operation(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        lab.machines[2].hangs = trio.Event()
        await lab.wait_out(2)
        assert lab.told(2)[0] == "stuck-disk"
        await trio.sleep(1)
        assert DETECTION_S - 1 < lab.longest_wait_s() < STUCK_DISK_S + AT_ONCE_S
        lab.machines[2].hangs.set()
        lab.machines[2].hangs = None
        await lab.heal()
        assert lab.errors == []


async def test_a_slow_disk_delays_flushes_by_as_much_as_it_is_slow_and_stays_in(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        for _ in range(5):
            lab.machines[2].hangs = hangs = trio.Event()
            await trio.sleep(3)
            hangs.set()
            lab.machines[2].hangs = None
            await trio.sleep(1)
        assert 2 < lab.longest_wait_s() < 3 + AT_ONCE_S
        assert lab.losses() == []
        await lab.heal()
        assert lab.errors == []


@pytest.mark.parametrize("way", ["both ways", "to the replica", "from the replica"])
async def test_a_network_that_is_cut_is_felt_for_the_detection_time(
    way: str, autojump_clock: MockClock
) -> None:
    """Nothing is closed, and nothing comes: also when it is cut in one direction only."""
    async with open_lab() as lab:
        controller, replica = lab.controller, lab.machines[2].name
        ends = (replica, controller) if way == "from the replica" else (controller, replica)
        lab.network.cut(*ends, one_way=way != "both ways")
        await lab.wait_out(2)
        await trio.sleep(5)
        assert 1 < lab.longest_wait_s() <= DETECTION_S
        assert lab.told(2)[0] == "silent"
        lab.network.mend()
        await lab.heal()
        assert lab.errors == []


async def test_a_process_that_stands_still_is_given_up_and_one_that_goes_on_in_time_is_not(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        for _ in range(3):
            lab.network.freeze(lab.machines[2].name)
            await trio.sleep(2)
            lab.network.thaw(lab.machines[2].name)
            await trio.sleep(2)
        assert lab.losses() == []
        lab.longest_wait_s()
        lab.network.freeze(lab.machines[2].name)
        await lab.wait_out(2)
        await trio.sleep(1)
        assert lab.longest_wait_s() <= DETECTION_S
        lab.network.thaw(lab.machines[2].name)
        await lab.heal()
        assert lab.errors == []


async def test_a_partition_leaves_the_volume_to_the_side_with_a_majority(autojump_clock: MockClock) -> None:
    """The old controller, cut off with one replica, answers nothing more: no write, and after its lease no
    read.
    """
    async with open_lab() as lab:
        old, cut_off = lab.volume, lab.controller
        lab.network.cut("controller-1", lab.machines[1].name)
        for replica in (2, 3):
            lab.network.cut(cut_off, lab.machines[replica].name)
        await trio.sleep(10)
        assert lab.longest_wait_s() > 5, "the host waits, with a controller that cannot know"
        lab.volume = await lab.start_controller()
        assert old.status().state is not VolumeState.HEALTHY
        lab.network.mend()
        await lab.wait(lambda: cut_off in lab.ended)
        await lab.heal()
        assert lab.errors == []


async def test_two_controllers_at_once_leave_one_and_it_has_every_write(autojump_clock: MockClock) -> None:
    async with open_lab() as lab:
        first = lab.controller
        newer = await lab.start_controller()
        await lab.wait(lambda: first in lab.ended)
        lab.volume = newer
        await trio.sleep(1)
        await lab.heal()
        assert lab.errors == []


async def test_a_controller_that_dies_is_followed_by_one_that_has_every_write(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        lab.kill_controller()
        lab.volume = await lab.start_controller()
        await trio.sleep(1)
        await lab.heal()
        assert lab.errors == []


async def test_without_enough_replicas_the_host_waits_and_goes_on_when_they_are_back(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        for replica in (1, 2, 3):
            await lab.machines[replica].kill()
        await trio.sleep(60)
        status = lab.volume.status()
        assert status.state is VolumeState.PARKED
        assert "too-few-copies" in lab.told(None) or "no-good-copy" in lab.told(None), lab.told(None)
        for replica in (1, 2, 3):
            lab.machines[replica].start(lab.network, lab.nursery)
        await lab.heal()
        assert lab.errors == []
        assert 60 <= lab.longest_wait_s() < 70


async def test_after_the_limit_the_host_is_told_not_ready_and_nothing_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        for replica in (2, 3):
            await lab.machines[replica].kill()
        await trio.sleep(130)
        assert {error.failure for error in lab.errors} == {StorageFailure.NOT_READY}
        for replica in (2, 3):
            lab.machines[replica].start(lab.network, lab.nursery)
        await lab.heal()
        lab.errors.clear()
        await trio.sleep(2)
        assert lab.errors == []


async def test_a_full_disk_on_one_replica_is_the_end_of_that_copy_alone(autojump_clock: MockClock) -> None:
    async with open_lab() as lab:
        lab.machines[2].refuse("write", StorageFailure.NO_SPACE)
        await lab.wait_out(2)
        await trio.sleep(5)
        assert lab.told(2)[0] == "disk-full"
        assert lab.longest_wait_s() < AT_ONCE_S
        lab.machines[2].disk.before_step = no_fault
        await lab.heal()
        assert lab.errors == []


async def test_full_disks_on_all_replicas_are_told_to_the_host_which_goes_on_reading(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        for machine in lab.machines.values():
            machine.refuse("write", StorageFailure.NO_SPACE)
        await lab.wait(lambda: bool(lab.errors))
        assert {error.failure for error in lab.errors} == {StorageFailure.NO_SPACE}
        assert lab.longest_wait_s() < AT_ONCE_S
        await trio.sleep(20)
        told = {cause for replica in lab.machines for cause in lab.told(replica)}
        assert "disk-full" in told
        assert "disk-error" not in told, "that no membership record can be stored has the same cause"
        for machine in lab.machines.values():
            machine.disk.before_step = no_fault
        await lab.heal()
        lab.errors.clear()
        await trio.sleep(2)
        assert lab.errors == []


@pytest.mark.parametrize(
    ("verb", "failure"),
    [
        ("write", StorageFailure.WRITE_ERROR),
        ("read", StorageFailure.READ_ERROR),
        ("sync", StorageFailure.WRITE_ERROR),
    ],
)
async def test_a_disk_that_fails_is_the_end_of_that_copy_alone(
    verb: str, failure: StorageFailure, autojump_clock: MockClock
) -> None:
    """After a failed flush nobody knows what is on the disk: its process says so until it ends.  The host
    reads from the first of those with the least to do.
    """
    async with open_lab() as lab:
        lab.machines[1].refuse(verb, failure)
        await lab.wait_out(1)
        await trio.sleep(2)
        assert lab.told(1)[0] == "disk-error"
        assert lab.longest_wait_s() < AT_ONCE_S
        lab.machines[1].disk.before_step = no_fault
        await lab.machines[1].kill()
        lab.machines[1].start(lab.network, lab.nursery)
        await lab.heal()
        assert lab.errors == []


async def test_a_directory_of_an_older_time_is_not_taken_for_what_it_was(autojump_clock: MockClock) -> None:
    """Somebody restores a backup of a replica's directory: no map says
    what that lacks.
    """
    async with open_lab() as lab:
        await lab.machines[2].kill()
        await lab.wait_out(2)
        older = copy.deepcopy(lab.machines[2].disk)
        lab.machines[2].start(lab.network, lab.nursery)
        await lab.heal()
        data, offset = b"once" * (BLOCK_BYTES // 4), SIZE_BYTES - BLOCK_BYTES
        assert await ask(lab.volume, lambda done: Write(offset, BLOCK_BYTES, (data,), done)) is None
        await lab.machines[2].kill()
        lab.machines[2].disk = older
        lab.machines[2].start(lab.network, lab.nursery)
        await lab.wait_out(2)
        await lab.heal()
        assert older.read("volume-head-000.img", offset, BLOCK_BYTES) == data
        assert lab.errors == []


async def test_a_blank_disk_is_filled_from_the_others(autojump_clock: MockClock) -> None:
    async with open_lab() as lab:
        await lab.machines[2].kill()
        lab.machines[2].disk = MemoryDisk(Random(99))
        lab.machines[2].start(lab.network, lab.nursery)
        await lab.wait_out(2)
        await lab.heal()
        assert "rebuilding" in lab.told(2)
        assert lab.volume.status().replicas[1].rebuilds.copied_bytes >= BLOCK_BYTES
        assert lab.errors == []


@pytest.mark.parametrize("jump_s", [-365 * 86400.0, 365 * 86400.0])
async def test_a_clock_that_is_set_changes_the_times_of_events_alone(
    jump_s: float, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_lab() as lab:
        now_s = volume_io.time.time()  # type: ignore[attr-defined]  # the module's own view of the clock
        monkeypatch.setattr("pyjiva.controller.volume_io.time.time", lambda: now_s + jump_s)
        await trio.sleep(10)
        assert lab.losses() == []
        assert lab.longest_wait_s() < AT_ONCE_S
        await lab.machines[2].kill()
        await lab.wait_out(2)
        assert lab.volume.history.events[-1].at_s == now_s + jump_s


async def test_a_controller_that_stood_still_blames_nobody(autojump_clock: MockClock) -> None:
    """SIGSTOP, or a virtual machine that is paused: its own time leapt, with requests in flight."""
    async with open_lab() as lab:
        for _ in range(20):
            autojump_clock.jump(30)
            await trio.sleep(0.37)
        await lab.heal()
        assert lab.losses() == []
        assert lab.errors == []
