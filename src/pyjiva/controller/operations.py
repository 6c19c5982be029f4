"""What takes a while, as things that can be asked about, under way and ended: rebuilds, scrubs, replicas that
are added and removed, a volume that is filled from elsewhere, space of deleted snapshots that is given back.
Pure.

As the history they are read off pictures of the volume (`status.VolumeStatus`), so whatever began one, and
whatever ended it, is seen.

    running ─▶ done
       ├─────▶ failed      the replica was lost; it was not removed
       └─────▶ cancelled   by somebody, or the replica belongs to the volume no more

A replica that is added is rebuilt meanwhile: these are two operations, and the rebuild may be begun again.
"""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from pyjiva.controller.status import ReplicaStatus, VolumeStatus

__all__ = [
    "ADD",
    "CANCELLED",
    "DONE",
    "ENDED_MAX",
    "FAILED",
    "FILL",
    "MERGE",
    "REBUILD",
    "REMOVE",
    "RUNNING",
    "SCRUB",
    "Operation",
    "Operations",
]

ENDED_MAX: Final = 100
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
REBUILD: Final = "rebuild"
SCRUB: Final = "scrub"
ADD: Final = "add-replica"
REMOVE: Final = "remove-replica"
FILL: Final = "fill"
MERGE: Final = "merge"
_OF_REPLICAS: Final = (REBUILD, MERGE)
_REBUILDING: Final = "rebuilding"
_OUT: Final = "out"


@attrs.frozen
class Operation:
    """One that was begun."""

    id: str
    """Never used again by this controller."""
    kind: str
    """`rebuild`, `scrub`, `add-replica`, `remove-replica`, `fill` or `merge`."""
    replica: int | None
    """Which one it is about; None: all."""
    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    begun_at_s: float
    """Seconds since 1970 UTC, by the controller's clock; so is the next."""
    ended_at_s: float | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    """None: not known yet."""
    eta_s: float | None = None
    """Seconds that it will take if it goes on as fast; None: not known, or it has ended."""
    reason: str = ""
    """Why it failed, or was cancelled."""


@attrs.define(eq=False)
class Operations:
    """Those of one controller."""

    ended: collections.deque[Operation] = attrs.field(
        factory=lambda: collections.deque(maxlen=ENDED_MAX), init=False
    )
    """The newest last."""
    on_ended: Callable[[Operation], None] | None = None
    """Called with each that has ended."""
    _running: dict[tuple[str, int | None], Operation] = attrs.field(factory=dict, init=False)
    _begun: dict[int, int] = attrs.field(factory=dict, init=False)
    """By replica, how many rebuilds had been begun at the last look."""
    _count: int = attrs.field(default=0, init=False)

    def __iter__(self) -> Iterator[Operation]:
        """All that are known, in the order of their beginning."""
        return iter(sorted((*self.ended, *self._running.values()), key=lambda each: int(each.id)))

    def find(self, id_: str) -> Operation | None:
        """The one of this id, if it is still known."""
        return next((each for each in self if each.id == id_), None)

    def running(self, kind: str, replica: int | None = None) -> Operation | None:
        """The one of this kind that is under way."""
        return self._running.get((kind, replica))

    def look(self, at_s: float, now: VolumeStatus) -> None:
        """Take over how they are."""
        replicas = {replica.id: replica for replica in now.replicas}
        for kind, i in [key for key in self._running if key[0] in _OF_REPLICAS and key[1] not in replicas]:
            self._end(at_s, (kind, i), CANCELLED, "the replica is no longer configured")
        for replica in now.replicas:
            self._look_at(at_s, replica)
            self._look_at_merge(at_s, replica)
        self._look_at_scrub(at_s, now)
        self._look_at_members(at_s, now, replicas)
        self._look_at_filling(at_s, now)

    def _look_at(self, at_s: float, replica: ReplicaStatus) -> None:
        key, begun = (REBUILD, replica.id), replica.rebuilds.begun
        another = begun != self._begun.get(replica.id, 0)
        self._begun[replica.id] = begun
        if replica.mode != _REBUILDING:
            state = DONE if replica.mode == "in-sync" else FAILED
            self._end(at_s, key, state, replica.reason)
            return
        if another:  # it broke off and was begun again between two looks
            self._end(at_s, key, FAILED, "it was begun again")
        self._begin(at_s, key)
        if (copy := replica.rebuild) is not None:
            done = copy.compared_bytes + copy.copied_bytes
            self._update(key, done, done + copy.remaining_bytes, copy.eta_s)

    def _look_at_merge(self, at_s: float, replica: ReplicaStatus) -> None:
        key, merge = (MERGE, replica.id), replica.merge
        if merge is not None:
            self._begin(at_s, key)
            total = merge.done_bytes + merge.remaining_bytes
            self._update(key, merge.done_bytes, total, self._eta_s(at_s, key, merge.done_bytes, total))
        elif replica.mode == _OUT:
            self._end(at_s, key, FAILED, "the replica was lost; it goes on when it is back")
        elif (running := self._running.get(key)) is not None:
            # What was not to be copied in the end was counted too.
            self._update(key, running.total_bytes or 0, running.total_bytes or 0, None)
            self._end(at_s, key, DONE, "")

    def _eta_s(self, at_s: float, key: tuple[str, int | None], done: int, total: int) -> float | None:
        elapsed_s = at_s - self._running[key].begun_at_s
        return elapsed_s * (total - done) / done if done and elapsed_s > 0 else None

    def _look_at_scrub(self, at_s: float, now: VolumeStatus) -> None:
        key = (SCRUB, None)
        if now.scrub is None:
            return
        if now.scrub.running:
            self._begin(at_s, key)
            self._update(key, now.scrub.position_bytes, now.size_bytes, None)
        elif key in self._running:
            whole = now.scrub.position_bytes >= now.size_bytes
            self._update(key, now.scrub.position_bytes, now.size_bytes, None)
            self._end(at_s, key, DONE if whole else CANCELLED, "")

    def _look_at_members(self, at_s: float, now: VolumeStatus, replicas: Mapping[int, ReplicaStatus]) -> None:
        for kind, i in list(self._running):
            if kind == ADD and i != now.adding:
                was_added = i in replicas
                reason = "" if was_added else "it is not to be added any more"
                self._end(at_s, (ADD, i), DONE if was_added else CANCELLED, reason)
            if kind == REMOVE and i != now.removing:
                stays = i in replicas
                self._end(at_s, (REMOVE, i), FAILED if stays else DONE, "it still belongs to the volume")
        if now.removing is not None:
            self._begin(at_s, (REMOVE, now.removing))
        if now.adding is not None:
            self._begin(at_s, (ADD, now.adding))
            if (rebuild := self.running(REBUILD, now.adding)) is not None and rebuild.total_bytes is not None:
                self._update((ADD, now.adding), rebuild.done_bytes, rebuild.total_bytes, rebuild.eta_s)

    def _look_at_filling(self, at_s: float, now: VolumeStatus) -> None:
        key = (FILL, None)
        if now.filling is None or (now.filling.share == 1 and key not in self._running):
            return
        self._begin(at_s, key)
        done, total = now.filling.done_bytes, now.filling.total_bytes
        if now.filling.over:
            self._update(key, done, total, None)
            self._end(at_s, key, DONE, "")
            return
        self._update(key, done, total, self._eta_s(at_s, key, done, total))

    def _begin(self, at_s: float, key: tuple[str, int | None]) -> None:
        if key not in self._running:
            self._count += 1
            self._running[key] = Operation(str(self._count), *key, RUNNING, at_s)

    def _update(self, key: tuple[str, int | None], done: int, total: int, eta_s: float | None) -> None:
        before = self._running[key]
        self._running[key] = attrs.evolve(before, done_bytes=done, total_bytes=total, eta_s=eta_s)

    def _end(self, at_s: float, key: tuple[str, int | None], state: str, reason: str) -> None:
        if (running := self._running.pop(key, None)) is not None:
            reason = "" if state == DONE else reason
            self.ended.append(attrs.evolve(running, state=state, ended_at_s=at_s, eta_s=None, reason=reason))
            if self.on_ended is not None:
                self.on_ended(self.ended[-1])
