"""Holding a lock of a store: `locks` has the rules.

A renewal puts the lock under a new key, looks whether the one before is still there, and removes it.  A lock
that was taken for dead is thus never put back by its owner: whoever removes dead locks looks again
afterwards, and sees the new key or has removed the old one.
"""

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from pyjiva.backup.locks import RENEW_S, TRUST_S, Lock, LockKind, SeenLock, Verdict, judge
from pyjiva.backup.manifest import LOCKS
from pyjiva.backup.objects import DamagedError, MissingError
from pyjiva.backup.store_io import BackupStore
from pyjiva.backup.work_io import ungrouped
from pyjiva.errors import BackupError

__all__ = ["BusyError", "HeldLock", "under_lock"]

GIVE_BACK_S: Final = 30.0

T = TypeVar("T")


class BusyError(BackupError):
    """Somebody is at work in the store whom the lock is not to disturb."""


@attrs.define(eq=False)
class HeldLock:
    """A lock of ours."""

    store: BackupStore
    lock: Lock
    name: str
    _generation: int = attrs.field(default=0, init=False)
    _renewed_at_s: float = attrs.field(init=False)
    _lost: bool = attrs.field(default=False, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._renewed_at_s = self.store.clock()

    @property
    def key(self) -> str:
        """Where it lies at this moment."""
        return self._key(self._generation)

    def _key(self, generation: int) -> str:
        return f"{LOCKS}{self.name}.{generation}"

    async def put(self) -> None:
        """Put it for the first time."""
        await self.store.run(partial(self.store.objects.put, self.key, self.lock.encode()))

    async def renew(self) -> None:
        """Show that we live.  Raises BackupError: somebody has taken us for dead."""
        async with self._turn:
            before, at_s = self.key, self.store.clock()
            after = self._key(self._generation + 1)
            await self.store.run(partial(self.store.objects.put, after, self.lock.encode()))
            self._generation += 1
            await self._look_for(before)
            await self.store.delete(before)
            self._renewed_at_s = at_s

    async def check(self) -> None:
        """Raises BackupError: it is not certain that others still heed the lock."""
        async with self._turn:
            await self._look_for(self.key)

    async def _look_for(self, key: str) -> None:
        try:
            await self.store.run(partial(self.store.objects.get, key))
        except MissingError:
            self._lost = True
        self.check_time()

    def check_time(self) -> None:
        """As `check`, without asking the store: by the clock alone, just before what must not come late."""
        if self._lost or self.store.clock() - self._renewed_at_s > TRUST_S:
            raise BackupError(
                f"{self.store.name}: this process stood still for too long, and others may have gone on "
                "without it; nothing was finished: begin again"
            )

    async def give_back(self) -> None:
        """Let others go on.  If that fails they will see that the process is gone."""
        with contextlib.suppress(BackupError):
            await self.store.delete(self.key)

    async def keep(self) -> None:
        """Renew it until cancelled."""
        while True:
            await trio.sleep(RENEW_S)
            await self.renew()


async def under_lock(
    store: BackupStore,
    kind: LockKind,
    body: Callable[[HeldLock], Awaitable[T]],
    *,
    on_wait: Callable[[str], None] | None = None,
) -> T:
    """What `body` gives, run while the lock is held.

    A maker of backups waits for a collector, and says so by `on_wait`.  A collector does not wait: BusyError.
    """
    began = datetime.now(UTC).isoformat(timespec="seconds")
    held = HeldLock(store, Lock(kind, store.process, began), secrets.token_hex(8))
    await held.put()
    try:
        with ungrouped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(held.keep)
                await _wait_until_free(held, on_wait)
                result = await body(held)
                nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(GIVE_BACK_S, shield=True):
            await held.give_back()
    return result


async def _wait_until_free(held: HeldLock, on_wait: Callable[[str], None] | None) -> None:
    said = False
    while True:
        verdict = await _look(held)
        for seen in verdict.dead:
            await held.store.delete(seen.key)
        if verdict.dead:
            continue  # its owner may have renewed it meanwhile: look again
        if not verdict.in_the_way:
            return
        other = verdict.in_the_way[0].lock
        what = "collects chunks" if other.kind is LockKind.COLLECT else "makes a backup"
        reason = f"{held.store.name}: another process {what}, since {other.began}"
        if held.lock.kind is LockKind.COLLECT:
            raise BusyError(reason)
        if on_wait is not None and not said:
            on_wait(f"{reason}; waiting for its end")
            said = True
        await trio.sleep(held.store.poll_s)


async def _look(held: HeldLock) -> Verdict:
    now_s = None
    others = []
    for listed in await held.store.listed(LOCKS):
        if listed.key == held.key:
            now_s = listed.modified_s
        elif not listed.key.startswith(f"{LOCKS}{held.name}."):
            try:
                content = await held.store.run(partial(held.store.objects.get, listed.key))
                others.append(SeenLock(listed.key, Lock.decode(content, listed.key), listed.modified_s))
            except MissingError:
                continue  # given back meanwhile
            except DamagedError:  # of a kind that nobody knows: as one that is in everybody's way
                unknown = Lock(LockKind.COLLECT, "", "an unknown time")
                others.append(SeenLock(listed.key, unknown, listed.modified_s))
    if now_s is None:
        await held.check()
        return await _look(held)
    return judge(held.lock.kind, others, now_s, held.store.is_gone)
