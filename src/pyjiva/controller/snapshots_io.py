"""What an operator does with a volume's snapshots: make, delete, revert, grow, look back.  The trio shell.

Each change goes the same way: see that it can be, let the replicas make ready what takes time, then hold all
requests back for as long as it takes them to do it (`DataPath._dispatch_change`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from pyjiva.block import Buffer
from pyjiva.controller.api_parameters import LABEL_CHARACTERS_MAX, LABELS_MAX, LENGTH_BYTES_MAX
from pyjiva.controller.change_request import ChangeRequest
from pyjiva.controller.past import NOWHERE
from pyjiva.controller.retention import SCHEDULE_LABEL, Retention, expired
from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import NOTHING, SNAPSHOT_NAME, Change, ChangeKind, Snapshot
from pyjiva.replication import (
    FAILURE_OF_STATUS,
    Flag,
    Frame,
    FrameType,
    LineageAnswer,
    Refusal,
    Status,
    decode_extents,
    decode_message,
)
from pyjiva.units import MIB, format_size

__all__ = ["Snapshots"]

PIECE_BYTES: Final = 1 * MIB  # of it are asked for at once: host I/O waits for so much at each place
PREPARE_S: Final = 10.0  # a replica that is not ready by then makes the others wait a little longer
SIZE_BYTES_MAX: Final = 2**63 - 4096  # off_t, in whole blocks

_log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class Snapshots:
    """Of one volume."""

    volume: Volume
    why_no_revert: Callable[[], str] = lambda: ""
    """Why the volume's content must not change now; empty: it may.  Initiators that are logged in remember
    what they have read.
    """
    trace_context: Callable[[], object] = lambda: None
    """What a trace that begins now belongs to."""
    now: Callable[[], datetime] = attrs.field(default=partial(datetime.now, UTC))
    """The time that new snapshots are given."""
    _one: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _reading: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held while a piece of a snapshot is read, and for the rest afterwards."""

    async def create(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        user_created: bool = True,
        filling: bool = False,
    ) -> Snapshot:
        """Keep what the volume holds now as the snapshot `name`.

        Raises ConfigError: the name cannot be.  Raises StorageError: NOT_READY, the volume is parked; no
        replica could.
        """
        labels = dict(labels or {})
        if not SNAPSHOT_NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r}: up to 128 letters, digits and ._- that begin with a letter or a digit"
            )
        if len(labels) > LABELS_MAX or any(
            not key or len(key) + len(value) > LABEL_CHARACTERS_MAX for key, value in labels.items()
        ):
            raise ConfigError(f"at most {LABELS_MAX} labels of {LABEL_CHARACTERS_MAX} characters")
        async with self._one:
            generation = self.volume.past.lineage.generation
            change = Change(
                kind=ChangeKind.CREATE,
                before=generation,
                after=generation + 1,
                number=generation + 1,
                name=name,
                created=self.now().isoformat(),
                labels=labels,
                user_created=user_created,
                filling=filling,
            )
            self.volume.past.lineage.apply(change)
            await self._prepare()
            await self._carry_out(change)
            return self.volume.past.lineage.named(name)

    async def delete(self, name: str) -> None:
        """Let a snapshot go; its space comes back in the background.  Raises as `create`."""
        async with self._one:
            snapshot = self.volume.past.lineage.named(name)
            if snapshot.filling:
                raise ConfigError(f"snapshot {name!r} is still being filled")
            change = self._change(ChangeKind.DELETE, number=snapshot.number)
            await self._prepare(Flag.NO_NEW_HEAD)
            await self._carry_out(change)

    async def filled(self, number: int) -> None:
        """The snapshot that was being filled has all that it is to have.  Raises as `create`."""
        async with self._one:
            change = self._change(ChangeKind.FILLED, number=number)
            await self._prepare(Flag.NO_NEW_HEAD)
            await self._carry_out(change)

    async def revert(self, name: str, *, keep_newer: bool = False) -> None:
        """Let the volume hold what it held when the snapshot was made.

        Raises ConfigError: an initiator is logged in.  Else as `create`.
        """
        async with self._one:
            number = self.volume.past.lineage.named(name).number
            change = self._change(ChangeKind.REVERT, number=number, keep_newer=keep_newer)
            await self._prepare()
            if why_not := self.why_no_revert():
                raise ConfigError(why_not)
            await self._carry_out(change)

    async def grow(self, size_bytes: int) -> None:
        """Make the volume larger.

        Raises ConfigError: it would not be, or a replica's file system has no file so large: asked for again
        that would be the same.  Else as `create`.
        """
        async with self._one:
            now, block = self.volume.size_bytes, self.volume.options.block_size_bytes
            if size_bytes < now or size_bytes % block:
                raise ConfigError(
                    f"{size_bytes} bytes: a volume of {now} can only grow, by blocks of {block}"
                )
            if size_bytes > SIZE_BYTES_MAX:
                raise ConfigError(f"size of {format_size(size_bytes)}: no file can be so large")
            if size_bytes == now:
                return
            change = self._change(ChangeKind.GROW, size_bytes=size_bytes)
            await self._prepare(Flag.NO_NEW_HEAD)
            try:
                await self._carry_out(change)
            except StorageError as error:
                if error.failure is not StorageFailure.NOT_SUPPORTED:
                    raise
                raise ConfigError(f"size of {format_size(size_bytes)}: {error.detail}") from error

    async def listing(self) -> LineageAnswer:
        """What there is, and what it takes on one replica.  Raises StorageError."""
        frame = await self._ask(FrameType.LINEAGE)
        return decode_message(frame.payload, LineageAnswer)

    async def read(self, name: str, extent: Extent) -> bytes:
        """What the volume held there when the snapshot was made; at most LENGTH_BYTES_MAX.

        Raises ConfigError: there is no such snapshot, or it has no such range.  Raises StorageError.
        """
        number = self.volume.past.lineage.named(name).number
        self._refuse_while_filling()
        if not 0 < extent.length_bytes <= LENGTH_BYTES_MAX:
            raise ConfigError(f"{extent.length_bytes} bytes: 1 to {LENGTH_BYTES_MAX}")
        if extent.offset_bytes < 0 or extent.end_bytes > self.volume.size_bytes:
            raise ConfigError(f"{extent}: the volume has {self.volume.size_bytes} bytes")
        return b"".join([await self._read(number, piece) for piece in extent.split(PIECE_BYTES)])

    async def _read(self, number: int, piece: Extent) -> bytes:
        """One at a time, as a backup asks for many; and it comes late where hosts ask for something else."""
        async with self._reading:
            began_at_s = self.volume.clock()
            frame = await self._ask(FrameType.PAST_READ, extent=piece, number=number)
            content = bytes(frame.payload)
            took_s = self.volume.clock() - began_at_s
            await trio.sleep(self.volume.background.rest_s(took_s, piece.length_bytes, at_once=1))
            return content

    async def changed(self, name: str, since: str) -> list[Extent]:
        """Where the snapshot ("": the live volume) may differ from an older one ("": all zeros).

        Raises ConfigError: there is no such snapshot.  Raises StorageError.
        """
        self._refuse_while_filling()
        lineage = self.volume.past.lineage
        number = lineage.named(name).number if name else NOTHING
        older = lineage.named(since).number if since else NOTHING
        frame = await self._ask(FrameType.PAST_CHANGED, extent=Extent(older, 0), number=number)
        return list(decode_extents(frame.payload, within=Extent(0, self.volume.size_bytes)))

    async def keep_schedule(self, retention: Retention) -> None:
        """Make a snapshot every so often, and delete those that need not be kept.  Until cancelled."""
        while True:
            await trio.sleep(retention.every_s)
            name = self.now().strftime("auto-%Y%m%dT%H%M%SZ")
            try:
                await self.create(name, labels={SCHEDULE_LABEL: "yes"}, user_created=False)
                for snapshot in expired(self.volume.past.lineage.snapshots, retention):
                    await self.delete(snapshot.name)
            except (ConfigError, StorageError) as error:
                _log.warning("no snapshot on schedule", name=name, reason=str(error))

    def _refuse_while_filling(self) -> None:
        if self.volume.past.lineage.filling is not None:
            raise ConfigError("the volume is still being filled: its snapshots can be read when that is over")

    def _change(self, kind: ChangeKind, *, number: int = NOTHING, **fields: object) -> Change:
        """A change of the present lineage.  Raises ConfigError: it cannot be."""
        before = self.volume.past.lineage.generation
        change = Change(kind=kind, before=before, after=before + 1, number=number, **fields)  # type: ignore[arg-type]
        self.volume.past.lineage.apply(change)
        return change

    async def _prepare(self, code: int = 0) -> None:
        """Let the members do ahead, while requests go on, what these would wait for amid a change.

        They write out what nobody has flushed (with a GiB of it requests waited for three seconds), make
        ready what a new head needs, unless `code` says that there is none, and begin no step of a merge until
        the change has come.  It is good to have, not needed: however it ends.
        """
        with trio.move_on_after(PREPARE_S):
            async with trio.open_nursery() as nursery:
                for member in self.volume.readable():
                    nursery.start_soon(partial(self._ask_one, member, FrameType.PREPARE, code=code))

    async def _carry_out(self, change: Change) -> None:
        if self.volume.status().state is VolumeState.PARKED:
            raise StorageError(StorageFailure.NOT_READY, "the volume is parked")
        over = trio.Event()
        request = ChangeRequest(change, self.volume.size_bytes, lambda _: over.set())
        self._submit(request)
        self.volume.batch.end()
        await over.wait()
        if request.error is not None:
            raise request.error

    def _submit(self, request: ChangeRequest) -> None:
        """To the volume; where traces are wanted, with one of the barrier over all replicas."""
        volume, sampler, change = self.volume, self.volume.sampler, request.change
        if sampler is None:
            volume.submit(request)
            return
        name = f"snapshot {change.kind.value}"
        step = sampler.begin(name, self.trace_context(), snapshot=change.name, generation=change.after)
        step.carry(request)
        volume.submit(request)
        if not step.went:
            step.stops(volume.waits_for(request), step.span.begin_ns)

    async def _ask(self, type_: FrameType, *, extent: Extent = NOWHERE, number: int | None = None) -> Frame:
        """The answer of the least busy member; of another one if that is lost."""
        tried: set[int] = set()
        while True:
            member = self.volume.choose_reader(tried)
            if member is None:
                raise StorageError(StorageFailure.NOT_READY, "no replica in sync can be asked")
            tried.add(member)
            frame = await self._ask_one(member, type_, extent=extent, number=number)
            if frame is None:
                continue
            if frame.code != Status.OK:
                failure = FAILURE_OF_STATUS.get(frame.code, StorageFailure.READ_ERROR)
                error = StorageError(failure, decode_message(frame.payload, Refusal).reason)
                if self.volume.choose_reader(tried) is None:
                    raise error
                continue
            return frame

    async def _ask_one(
        self,
        member: int,
        type_: FrameType,
        *,
        extent: Extent = NOWHERE,
        payload: Sequence[Buffer] = (),
        code: int = 0,
        number: int | None = None,
    ) -> Frame | None:
        answers: list[Frame | None] = []
        over = trio.Event()

        def answered(frame: Frame | None) -> None:
            answers.append(frame)
            over.set()

        self.volume.call(member, type_, answered, extent=extent, payload=payload, code=code, number=number)
        self.volume.batch.end()
        await over.wait()
        return answers[0]
