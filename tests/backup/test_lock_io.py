"""Holding a lock, waiting for others, and noticing that it was taken away."""

import attrs
import pytest
import trio
import trio.testing

from pyjiva.backup.lock_io import BusyError, HeldLock, under_lock
from pyjiva.backup.locks import EXPIRY_S, TRUST_S, Lock, LockKind
from pyjiva.errors import BackupError
from tests.backup.worlds import MemoryObjects, open_process

CREATE, COLLECT = LockKind.CREATE, LockKind.COLLECT


async def hold_for(seconds: float, lock: HeldLock) -> str:
    """Work."""
    await trio.sleep(seconds)
    await lock.check()
    return lock.key


async def test_it_is_there_while_it_is_held_and_renewed(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    keys: set[str] = set()

    async def body(lock: HeldLock) -> str:
        for _ in range(10):
            await trio.sleep(30)
            assert objects.keys("locks/") == {lock.key}
            keys.add(lock.key)
            await lock.check()
        return "done"

    assert await under_lock(open_process(objects), CREATE, body) == "done"
    assert len(keys) >= 4
    assert not objects.keys("locks/")


async def test_a_backup_waits_for_a_collection_and_says_so(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    said: list[str] = []
    ends: list[float] = []

    async def body(lock: HeldLock) -> None:
        ends.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_lock, open_process(objects), COLLECT, lambda lock: hold_for(300, lock))
        await trio.sleep(1)
        start_s = trio.current_time()
        await under_lock(open_process(objects), CREATE, body, on_wait=said.append)
    assert 298 < ends[0] - start_s < 305
    assert len(said) == 1
    assert "another process collects chunks" in said[0]


async def test_two_collections_do_not_run_at_once(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(under_lock, open_process(objects), COLLECT, lambda lock: hold_for(10, lock))
        await trio.sleep(1)
        with pytest.raises(BusyError, match="collects chunks"):
            await under_lock(open_process(objects), COLLECT, lambda lock: hold_for(1, lock))


async def test_the_lock_of_a_process_that_is_gone_is_removed(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    left = HeldLock(open_process(objects), lock=_lock(CREATE, "killed"), name="left")
    await left.put()
    with pytest.raises(BusyError):
        await under_lock(open_process(objects), COLLECT, lambda lock: hold_for(0, lock))
    store = open_process(objects, dead=lambda name: name == "killed")
    await under_lock(store, COLLECT, lambda lock: hold_for(0, lock))
    assert not objects.keys("locks/")
    with pytest.raises(BackupError, match="stood still"):
        await left.renew()


async def test_a_lock_that_nobody_renews_is_removed_in_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    left = HeldLock(open_process(objects), lock=_lock(COLLECT, "elsewhere"), name="left")
    await left.put()
    start_s = trio.current_time()
    store = open_process(objects)
    store.poll_s = 60.0
    await under_lock(store, CREATE, lambda lock: hold_for(0, lock))
    assert EXPIRY_S - 120 < trio.current_time() - start_s < EXPIRY_S + 200


@attrs.define(eq=False)
class RenewedMeanwhile(MemoryObjects):
    """A process that was taken for dead renews its lock just before that is removed."""

    def delete(self, key: str) -> None:
        """See Objects."""
        if key == "locks/left.0":
            self.put("locks/left.1", self.get(key))
        super().delete(key)


async def test_who_removes_a_dead_lock_looks_again(autojump_clock: trio.testing.MockClock) -> None:
    objects = RenewedMeanwhile()
    left = HeldLock(open_process(objects), lock=_lock(CREATE, "slow"), name="left")
    await left.put()
    await trio.sleep(EXPIRY_S + 1)
    with pytest.raises(BusyError, match="makes a backup"):
        await under_lock(open_process(objects), COLLECT, lambda lock: hold_for(0, lock))
    assert objects.keys("locks/") == {"locks/left.1"}


async def test_a_process_that_stood_still_does_not_believe_in_its_lock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    held = HeldLock(open_process(objects), lock=_lock(CREATE, "slow"), name="held")
    await held.put()
    await trio.sleep(TRUST_S + 1)
    with pytest.raises(BackupError, match="stood still"):
        held.check_time()
    with pytest.raises(BackupError, match="stood still"):
        await held.check()


async def test_a_lock_of_a_kind_that_nobody_knows_is_in_the_way_of_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    objects.put("locks/new.0", b'{"kind": "compact"}')
    with pytest.raises(BusyError, match="since an unknown time"):
        await under_lock(open_process(objects), COLLECT, lambda lock: hold_for(0, lock))
    with trio.move_on_after(600) as scope:
        await under_lock(open_process(objects), CREATE, lambda lock: hold_for(0, lock))
    assert scope.cancelled_caught


async def test_the_error_of_the_body_comes_out_alone(autojump_clock: trio.testing.MockClock) -> None:
    async def body(_: HeldLock) -> None:
        raise BackupError("broken")

    objects = MemoryObjects()
    with pytest.raises(BackupError, match="broken"):
        await under_lock(open_process(objects), CREATE, body)
    assert not objects.keys("locks/")


def _lock(kind: LockKind, process: str) -> Lock:
    return Lock(kind, process, "today")
