"""Read all of a volume on all its members, so that rot is found while another copy is good.  Pure.

    pace ──▶ lock a chunk (shared) ──▶ ask every readable member to verify and hash it ──▶ next chunk
                          ▲                  │ there is none
                          └───────────── parked

A member with a bad block is repaired there (`repairs`).  Members whose blocks are all as they were written
and yet differ from one another have diverged, which is a bug: the fewer are rebuilt from the more.  One walk
goes from the start of the volume to its end and is over; `pyjiva scrub` begins it.
"""

import enum
from typing import Final, Protocol

import attrs

from pyjiva.block import Lock
from pyjiva.controller.background import Turn
from pyjiva.extent import Extent
from pyjiva.replication import Frame, Status
from pyjiva.units import MIB

__all__ = ["SCRUB_CHUNK_BYTES", "Scrub", "ScrubPort", "ScrubStep"]

SCRUB_CHUNK_BYTES: Final = 1 * MIB  # what writers may have to wait for: reading so much from a disk


class ScrubPort(Protocol):
    """What a scrub needs of the volume."""

    def acquire_shared(self, extent: Extent, owner: "Scrub") -> None:
        """Call `owner.lock_held(lock)` when nobody writes to `extent` any more."""

    def release(self, lock: Lock) -> None:
        """Let writers in again."""

    def readable(self) -> list[int]:
        """The members that have everything."""

    def ask_verify(self, member: int, extent: Extent, scrub: "Scrub") -> None:
        """Have `member` verify and hash `extent`; `scrub.answered(member, frame)` gets the answer."""

    def may_go_on(self, scrub: "Scrub") -> bool:
        """Whether the next chunk may be begun now; if not, `scrub.go_on()` is called when it may."""

    def spent(self, scrub: "Scrub", length_bytes: int) -> None:
        """So much was read on each member."""

    def found_bad(self, finder: "Scrub", member: int, extent: Extent) -> None:
        """`member` has a bad block in `extent`."""

    def found_good(self, member: int, extent: Extent) -> None:
        """All blocks of `member` in `extent` are as they were written."""

    def found_different(self, member: int, extent: Extent) -> None:
        """`member` holds something else than most others, and its checksums are right."""

    def scrubbed(self, scrub: "Scrub") -> None:
        """It is over."""


class ScrubStep(enum.Enum):
    """What the machine waits for."""

    PACING = "its turn"
    PARKED = "a member that has everything"
    LOCKING = "a lock"
    VERIFYING = "hashes"
    OVER = "nothing"


@attrs.define(eq=False)
class Scrub:
    """One walk over `size_bytes`."""

    size_bytes: int
    port: ScrubPort
    position: int = attrs.field(default=0, init=False)
    bad: int = attrs.field(default=0, init=False)
    """Chunks with a block that is not what was written, counted once for each member."""
    different: int = attrs.field(default=0, init=False)
    """Chunks in which members differ."""
    step: ScrubStep = attrs.field(default=ScrubStep.PACING, init=False)
    turn: Turn = attrs.field(factory=Turn, init=False)
    """When its next chunk may be begun: the port's business."""
    _lock: Lock | None = attrs.field(default=None, init=False)
    _waiting: set[int] = attrs.field(factory=set, init=False)
    _digests: dict[int, bytes] = attrs.field(factory=dict, init=False)

    def start(self) -> None:
        """Begin."""
        self._next()

    def cancel(self) -> None:
        """Stop; `scrubbed` is not called."""
        self.step = ScrubStep.OVER
        self._unlock()

    def go_on(self) -> None:
        """Part of pacing: see ScrubPort.may_go_on."""
        if self.step is ScrubStep.PACING:
            self._next()

    def tick(self) -> None:
        """To be called now and then: a walk that found nobody to ask looks again."""
        if self.step is ScrubStep.PARKED and self.port.readable():
            self._next()

    @property
    def _chunk(self) -> Extent:
        return Extent(self.position, min(SCRUB_CHUNK_BYTES, self.size_bytes - self.position))

    def _next(self) -> None:
        if self.position >= self.size_bytes:
            self.step = ScrubStep.OVER
            self.port.scrubbed(self)
        elif not self.port.may_go_on(self):
            self.step = ScrubStep.PACING
        else:
            self.step = ScrubStep.LOCKING
            self.port.acquire_shared(self._chunk, self)

    def lock_held(self, lock: Lock) -> None:
        """Writers are out of the chunk that was asked for."""
        if self.step is ScrubStep.OVER:
            self.port.release(lock)
            return
        self._lock = lock
        self._digests = {}
        members = self.port.readable()
        self._waiting = set(members)
        if not members:
            self.step = ScrubStep.PARKED
            self._unlock()
            return
        self.step = ScrubStep.VERIFYING
        for member in members:
            self.port.ask_verify(member, self._chunk, self)

    def answered(self, member: int, frame: Frame | None) -> None:
        """An answer, or None: the member is lost, and will be compared when it comes back."""
        if self.step is not ScrubStep.VERIFYING:
            return
        if frame is None:  # what it has said counts no more: who differs from it may be the last one left
            self._digests.pop(member, None)
        if member not in self._waiting:
            return
        self._waiting.discard(member)
        if frame is not None and frame.code == Status.OK:
            self._digests[member] = bytes(frame.payload)
            self.port.found_good(member, self._chunk)
        elif frame is not None and frame.code == Status.BAD_CHECKSUM:
            self.bad += 1
            self.port.found_bad(self, member, self._chunk)
        if not self._waiting:
            self._chunk_done()

    def _chunk_done(self) -> None:
        chunk, digests = self._chunk, self._digests
        self.port.spent(self, chunk.length_bytes)
        self.position = chunk.end_bytes
        self._unlock()
        if len(set(digests.values())) > 1:
            self.different += 1
            votes = [digests[member] for member in sorted(digests)]
            right = max(votes, key=votes.count)  # of equally many, what the lowest member has
            for member, digest in list(digests.items()):  # who is lost is taken out
                if digest != right:
                    self.port.found_different(member, chunk)
        self._next()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            self.port.release(lock)
