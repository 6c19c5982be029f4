"""A volume that is served while it is filled from elsewhere: a clone, or a backup that is restored.

The new volume's first snapshot, its *origin*, is what the source holds; the live volume stands on it.  Pieces
of GRANULE_BYTES are given to the origin (`FillRequest`), never to the live volume, so a fill cannot overwrite
what a host has written, in whatever order they come, also when it is done twice.  So nothing needs to be
remembered durably of how far it is: after a restart of the controller it begins anew.

    request ──all its pieces are there──▶ volume
       │ else
       ▼
    its pieces go to the head of the queue ──▶ read from the source ──▶ given to all replicas ──▶ volume

Whole blocks that are written, and flushes, wait for nothing: what a block held is of no interest then.  When
every piece is there the origin is no longer filled and is deleted: its blocks sink into the live volume.

Replicas may differ in pieces that are on their way; so nothing looks at a piece before it is there: no scrub,
no read of a snapshot, and a replica that is rebuilt is first compared in the origin (`catch_up`).
"""

import collections
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

import attrs
import structlog
import trio

from pyjiva.block import BlockStatus, Flush, Request, Write
from pyjiva.controller.change_request import FillRequest
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.status import FillStatus
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.units import KIB, MIB, STORED_BLOCK_BYTES

__all__ = ["GRANULE_BYTES", "FillSource", "FillingDevice", "SourceLost"]

GRANULE_BYTES: Final = 1 * MIB
WORKERS: Final = 4  # pieces on their way at once: one is read while others are written
ORIGIN: Final = "origin"
RETRY_S: Final = 2.0  # after the source gave no answer
LOOK_S: Final = 1.0  # between two looks at how long requests have waited

RUN_BYTES: Final = 64 * KIB  # a hole smaller than this is not kept
_ZEROS: Final = bytes(RUN_BYTES)
_Answer = TypeVar("_Answer")
_log = structlog.get_logger(__name__)


class SourceLost(Exception):
    """The source gave no answer, or a wrong one; it is asked again."""


class FillSource(Protocol):
    """Where the content comes from; it does not change."""

    async def size_bytes(self) -> int:
        """Of the source; the volume may be larger.  Raises SourceLost."""

    async def extents(self) -> list[Extent]:
        """Where it may hold something else than zeros.  Raises SourceLost."""

    async def read(self, extent: Extent) -> bytes:
        """What it holds there.  Raises SourceLost."""


@attrs.define(eq=False)
class _Waiting:
    """A request, and how many of its pieces are missing."""

    request: Request
    missing: int
    since_s: float


@attrs.define(eq=False)
class FillingDevice:
    """The block device of `volume`, complete from its first moment; run it before it is used."""

    volume: Volume
    snapshots: Snapshots
    source: FillSource
    rate: int | None = None
    """Bytes per second that are fetched unasked; None: no limit."""
    ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when requests may come."""
    _there: bytearray = attrs.field(factory=bytearray, init=False)
    """A byte for each piece: 1 when the replicas have it, or it is zeros."""
    _source_bytes: int = attrs.field(default=0, init=False)
    """How large the source is."""
    _number: int = attrs.field(default=0, init=False)
    _position: int = attrs.field(default=0, init=False)
    """Pieces before it are there, or on their way."""
    _wanted: collections.deque[int] = attrs.field(factory=collections.deque, init=False)
    """Pieces that requests wait for."""
    _waiting: dict[int, list[_Waiting]] = attrs.field(factory=dict, init=False)
    """By piece."""
    _under_way: set[int] = attrs.field(factory=set, init=False)
    _work: trio.Event = attrs.field(factory=trio.Event, init=False)
    _full: bool = attrs.field(default=False, init=False)
    _missing_at_first: int = attrs.field(default=0, init=False)
    """Pieces."""

    @property
    def size_bytes(self) -> int:
        """Of the volume."""
        return self.volume.size_bytes

    def status(self) -> FillStatus:
        """How far it is, in whole pieces."""
        total = self._missing_at_first
        missing = 0 if self._full else self._there.count(0)
        return FillStatus((total - missing) * GRANULE_BYTES, total * GRANULE_BYTES, self._full)

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        if self._full or isinstance(request, Flush) or _is_whole(request):
            self.volume.submit(request)
        elif isinstance(request, BlockStatus):
            request.done = _with_missing(request, self._missing_extents(request), request.done)
            self.volume.submit(request)
        else:
            self._submit_when_there(request)

    def _pieces(self, offset_bytes: int, length_bytes: int) -> range:
        last = min(-(-(offset_bytes + length_bytes) // GRANULE_BYTES), len(self._there))
        return range(offset_bytes // GRANULE_BYTES, last)

    def _submit_when_there(self, request: Request) -> None:
        assert not isinstance(request, Flush)
        pieces = self._pieces(request.offset_bytes, request.length_bytes)
        missing = [piece for piece in pieces if not self._there[piece]]
        if not missing:
            self.volume.submit(request)
            return
        waiting = _Waiting(request, len(missing), trio.current_time())
        for piece in missing:
            if piece not in self._waiting:
                self._waiting[piece] = []
                self._wanted.append(piece)
            self._waiting[piece].append(waiting)
        self._work.set()

    def _missing_extents(self, request: BlockStatus) -> list[Extent]:
        asked = Extent(request.offset_bytes, request.length_bytes)
        pieces = self._pieces(request.offset_bytes, request.length_bytes)
        missing = [self._extent(piece).clip(asked) for piece in pieces if not self._there[piece]]
        return [extent for extent in missing if extent is not None]

    def _extent(self, piece: int) -> Extent:
        start = piece * GRANULE_BYTES
        return Extent(start, min(GRANULE_BYTES, self.size_bytes - start))

    # --- filling

    async def run(self) -> None:
        """Fill, until everything is there.  Raises ConfigError: the source does not fit."""
        self._full = not await self._begin()
        self.volume.fill_status = self.status
        self.volume.look()
        self.ready.set()
        if self._full:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            async with trio.open_nursery() as workers:
                for _ in range(WORKERS):
                    workers.start_soon(self._fill)
            nursery.cancel_scope.cancel()
        await self._end()
        self.volume.look()

    async def _begin(self) -> bool:
        """Make the origin, if it is not there, and learn what the source holds; False: all was done."""
        lineage = self.volume.past.lineage
        if lineage.filling is None and lineage.generation:
            if any(s.name == ORIGIN and not s.user_created for s in lineage.snapshots):
                await _until_done(partial(self.snapshots.delete, ORIGIN))
            return False
        origin = lineage.filling
        source_bytes = await _until_done(self.source.size_bytes)
        if origin is None and source_bytes > self.size_bytes:
            has = f"the source has {source_bytes} bytes"
            raise ConfigError(f"{has}: the volume, of {self.size_bytes}, is too small")
        # It fitted when this began: the volume that it is of has grown since, and its snapshot has not.
        self._source_bytes = min(source_bytes, self.size_bytes)
        self._there = bytearray(b"\1" * -(-self.size_bytes // GRANULE_BYTES))
        for extent in await _until_done(self.source.extents):
            last = -(-min(extent.end_bytes, self._source_bytes) // GRANULE_BYTES)
            for piece in range(extent.offset_bytes // GRANULE_BYTES, last):
                self._there[piece] = 0
        if origin is None:
            origin = await _until_done(
                partial(self.snapshots.create, ORIGIN, user_created=False, filling=True)
            )
        self._number = origin.number
        self._missing_at_first = self._there.count(0)
        _log.info("volume is filled from elsewhere", missing_pieces=self._missing_at_first)
        return True

    async def _fill(self) -> None:
        """One worker, until nothing is missing."""
        while (piece := await self._next_piece()) is not None:
            extent = self._extent(piece)
            held = extent.clip(Extent(0, self._source_bytes))
            assert held is not None
            asked = piece in self._waiting
            began_at = trio.current_time()
            try:
                data = await self.source.read(held)
                for run in _runs_of_data(data):
                    await self._give(held.offset_bytes + run.start, data[run])
            except (SourceLost, StorageError) as error:
                _log.warning(
                    "a piece could not be filled: tried again", extent=str(extent), reason=str(error)
                )
                self._under_way.discard(piece)
                self._position = min(self._position, piece)
                if piece in self._waiting:
                    self._wanted.append(piece)
                await trio.sleep(RETRY_S)
                continue
            self._under_way.discard(piece)
            self._there[piece] = 1
            self._release(piece)
            if not asked:
                took_s, length = trio.current_time() - began_at, extent.length_bytes
                rest_s = self.volume.background.rest_s(took_s, length, at_once=WORKERS)
                await trio.sleep(max(rest_s, WORKERS * length / self.rate - took_s if self.rate else 0.0))

    async def _next_piece(self) -> int | None:
        """What is to be filled next: what somebody waits for, else the first that is missing."""
        while True:
            while self._wanted:
                piece = self._wanted.popleft()
                if not self._there[piece] and piece not in self._under_way:
                    self._under_way.add(piece)
                    return piece
            while self._position < len(self._there):
                piece = self._there.find(0, self._position)
                if piece < 0:
                    break
                self._position = piece + 1
                if piece not in self._under_way:
                    self._under_way.add(piece)
                    return piece
            if self._there.find(0) < 0:
                self._work.set()
                return None
            self._work = trio.Event() if self._work.is_set() else self._work
            await self._work.wait()

    async def _give(self, offset_bytes: int, data: bytes) -> None:
        over = trio.Event()
        request = FillRequest(self._number, offset_bytes, len(data), data, lambda _: over.set())
        self.volume.submit(request)
        self.volume.batch.end()
        await over.wait()
        if request.error is not None:
            raise request.error

    def _release(self, piece: int) -> None:
        """Let go on what waited for `piece`; the workers look again when the last one is there."""
        for waiting in self._waiting.pop(piece, ()):
            waiting.missing -= 1
            if not waiting.missing:
                self.volume.submit(waiting.request)
        self.volume.batch.end()
        if self._there.find(0) < 0:
            self._work.set()

    async def _watch(self) -> None:
        """Do not let hosts wait for a source for ever."""
        limit_s = self.volume.options.tuning.park_limit_s
        while True:
            await trio.sleep(LOOK_S)
            before = trio.current_time() - limit_s
            late = {id(w): w for some in self._waiting.values() for w in some if w.since_s < before}
            for piece, some in list(self._waiting.items()):
                self._waiting[piece] = [w for w in some if id(w) not in late]
            for waiting in late.values():
                waiting.request.error = StorageError(
                    StorageFailure.NOT_READY, f"the volume's source gave no answer for {limit_s:g} s"
                )
                waiting.request.done(waiting.request)  # type: ignore[arg-type]
            self.volume.batch.end()

    async def _end(self) -> None:
        """Everything is there: let the origin go."""
        await _until_done(partial(self.snapshots.filled, self._number))
        self._full = True
        await _until_done(partial(self.snapshots.delete, ORIGIN))
        _log.info("volume is filled")


async def _until_done(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask again and again while the source, or the volume, cannot."""
    while True:
        try:
            return await ask()
        except (SourceLost, StorageError) as error:
            _log.warning("the volume cannot be filled now: tried again", reason=str(error))
            await trio.sleep(RETRY_S)


def _runs_of_data(data: bytes) -> list[slice]:
    """Where `data` is not zeros: what is zeros there already need not be given."""
    runs: list[slice] = []
    for start in range(0, len(data), RUN_BYTES):
        end = min(start + RUN_BYTES, len(data))
        if data[start:end] == _ZEROS[: end - start]:
            continue
        if runs and runs[-1].stop == start:
            runs[-1] = slice(runs[-1].start, end)
        else:
            runs.append(slice(start, end))
    return runs


def _is_whole(request: Request) -> bool:
    """Whether it is a write of whole blocks."""
    return (
        isinstance(request, Write)
        and not request.offset_bytes % STORED_BLOCK_BYTES
        and not request.length_bytes % STORED_BLOCK_BYTES
        and not request.atomic
    )


def _with_missing(
    request: BlockStatus, missing: list[Extent], done: Callable[[BlockStatus], None]
) -> Callable[[BlockStatus], None]:
    """`done`, with pieces that are to come counted as data."""

    def with_missing(answered: BlockStatus) -> None:
        if answered.error is None and missing:
            answered.allocated = merge_extents([*answered.allocated, *missing])
        done(answered)

    return with_missing
