"""The replica daemon: accepts controllers, keeps promises, serves data.  The trio shell.

A connection's task (`connections_io`) takes in all complete frames of a receive, starts what they ask for,
and ends the batch.  Data frames go to `DataPath` without a wait.  PROMISE and ACCEPT must be durable before
they are answered; they queue for one *keeper* task, which makes one at a time, in order, while data flows on.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from pyjiva.block import Buffer
from pyjiva.errors import RemoteProtocolError, StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Change
from pyjiva.membership import MembershipRecord
from pyjiva.replica.connections_io import Connections
from pyjiva.replica.data_path import DataPath, answer_read, refuse_storage
from pyjiva.replica.keeper_io import Keeper
from pyjiva.replica.past import PAST, start_past
from pyjiva.replica.promise import Fenced, accept, promise
from pyjiva.replica.session import Peer, Phase, Session, answer, refuse
from pyjiva.replica.snapshots_io import Snapshots
from pyjiva.replica.unstable import UnstableWrites
from pyjiva.replication import (
    ANSWER,
    Flag,
    Frame,
    FrameType,
    LineageMark,
    PingAnswer,
    PromiseAnswer,
    ReplicaReport,
    Status,
    decode_message,
    encode_header,
    squeeze,
)
from pyjiva.snapshot import ChainDevice, Hash, ReplicaState, Spoil, Store, WindowName
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.shared_memory_sys import MappedMemory, MemoryName
from pyjiva.transport.tls_sys import Tls

__all__ = ["ReplicaDaemon", "ReplicaStatistics"]

LOOK_S: Final = 1.0  # how often it is seen whether the store is broken

_log = structlog.get_logger(__name__)


def _nothing(_frame: Frame) -> bool:
    return False


async def _in_thread(call: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(call)


@attrs.frozen
class ReplicaStatistics:
    """What /metrics and the health page show."""

    attached: bool
    promised_epoch: int
    record_version: int
    in_sync: bool
    """Whether the last accepted record says so."""
    unstable_writes_known: bool
    received_bytes: int
    """On all data connections since the start, with headers and what strangers sent."""
    shared_bytes: int
    """Written out of memory that a controller on this machine shares: of these bytes nothing was received."""
    merged_bytes: int
    """Copied since the start to give back the space of deleted snapshots."""


@attrs.define(eq=False)
class ReplicaDaemon:
    """One replica of one volume, over an open store."""

    store: Store
    device: ChainDevice
    key: bytes = attrs.field(repr=False)
    batch: EndOfBatch
    in_thread: Callable[[Callable[[], None]], Awaitable[None]] = _in_thread
    """How to run a blocking call; simulations have no threads."""
    tls: Tls | None = None
    """What controllers have to speak; None: frames as they are."""
    pid: int = attrs.field(factory=os.getpid)
    """By which a controller on this machine finds its files; in simulations, the machine."""
    _unstable: UnstableWrites = attrs.field(factory=UnstableWrites, init=False)
    _data: DataPath = attrs.field(init=False)
    _snapshots: Snapshots = attrs.field(init=False)
    _connections: Connections = attrs.field(init=False)
    _keeper: Keeper = attrs.field(init=False)
    _attached: Session | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        promised = self.store.state.promised_epoch
        self._data = DataPath(self.device, self._unstable, promised, self._squeeze_soon, self.batch)
        self._snapshots = Snapshots(self.device)
        self._keeper = Keeper(self.batch)
        self._connections = Connections(
            self.batch,
            self.tls,
            _nothing if self.store.state.witness else self._data.handles,
            self._data.frame_received,
            self._control,
            self._left,
        )

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve controllers on `host`:`port` until cancelled; reports the port.  Raises OSError: it is
        taken.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            await self._connections.serve(host, port, task_status=task_status)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The tasks that all connections share: the disk's and the keeper's.  Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.device.run)
            nursery.start_soon(self._snapshots.merger.run)
            nursery.start_soon(self._keeper.run)
            task_status.started()

    async def stop(self) -> None:
        """Bring everything to stable storage and note that it is; nobody is served any more."""
        if self._attached is not None:
            self._replace(self._attached)
        await self.device.wait_idle()
        await self.in_thread(self._flush_and_mark_clean)

    def _flush_and_mark_clean(self) -> None:
        self.store.flush()
        self.store.mark_clean()

    async def wait_broken(self) -> StorageError:
        """Until the store refuses everything for good, and why: this process must end then.

        Whoever keeps it running starts the next one, which writes anew what it can, and is rebuilt.
        """
        while (error := self.store.broken) is None:
            await trio.sleep(LOOK_S)
        return error

    def statistics(self) -> ReplicaStatistics:
        """A picture of this moment."""
        state = self.store.state
        return ReplicaStatistics(
            attached=self._attached is not None,
            promised_epoch=state.promised_epoch,
            record_version=state.record.version if state.record else 0,
            in_sync=state.record is not None and state.replica_id in state.record.in_sync,
            unstable_writes_known=self._unstable.extents() is not None,
            received_bytes=self._connections.received_bytes,
            shared_bytes=self._data.shared_bytes,
            merged_bytes=self._snapshots.merger.copied_bytes,
        )

    # --- one connection
    # ---------------------------------------------------------------------------------------

    async def serve_connection(self, stream: Stream) -> None:
        """Serve one controller until its connection ends.  Needs `run` beside it."""
        await self._connections.serve_connection(stream)

    def _left(self, session: Session) -> None:
        if session is self._attached:
            self._attached = None
            _log.info("controller disconnected")

    def _control(self, session: Session, frame: Frame) -> None:
        session.check_allowed(frame)
        state = self.store.state
        match FrameType(frame.type):
            case FrameType.HELLO:
                session.greet(frame, key=self.key, volume_id=state.volume_id, replica_id=state.replica_id)
            case FrameType.AUTHENTICATE:
                session.authenticate(frame, key=self.key, replica_id=state.replica_id)
                self._connections.proved(session)
                session.reported_epoch = state.promised_epoch
                answer(session.peer, frame, message=self._report())
            case FrameType.PING:
                self._unstable.settle(frame.epoch, frame.stable)
                answer(session.peer, frame, message=self._sign_of_life())
            case FrameType.SHARE:
                self._share(session, frame)
            case FrameType.PROMISE:
                self._keeper.soon(session, frame, partial(self._promise, session, frame))
            case FrameType.ACCEPT:
                record = decode_message(frame.payload, MembershipRecord)
                self._keeper.soon(session, frame, partial(self._accept, session, frame, record))
            case _ if state.witness:
                raise RemoteProtocolError(f"frame type {frame.type} is not for a witness")
            case _ if frame.epoch != self._data.promised_epoch:
                refuse(session.peer, frame, Status.FENCED, "a higher epoch is promised")
            case _:
                self._rare(session, frame)

    def _rare(self, session: Session, frame: Frame) -> None:
        """What is neither control nor host I/O: copies, comparisons, snapshots."""
        match FrameType(frame.type):
            case FrameType.HASH:
                verify = bool(frame.code & Flag.VERIFY)
                hashed = partial(_answer_hash, session.peer, frame)
                self.device.submit(Hash(frame.offset_bytes, frame.length_bytes, verify, hashed))
            case FrameType.SPOIL:
                self._unstable.add(frame.epoch, frame.request_id, frame.offset_bytes, frame.length_bytes)
                spoilt = partial(_answer_spoil, session.peer, frame)
                self.device.submit(Spoil(frame.offset_bytes, frame.length_bytes, spoilt))
            case FrameType.LINEAGE | FrameType.PREPARE:
                self._keeper.soon(session, frame, partial(self._snapshots.ask, session, frame))
            case FrameType.CHANGE:
                change = decode_message(frame.payload, Change)
                self._keeper.soon(session, frame, partial(self._snapshots.change, session, frame, change))
            case FrameType.WINDOW:
                self._keeper.soon(session, frame, partial(self._offer_window, session, frame))
            case type_ if type_ in PAST:
                start_past(self.device, session.peer, frame, self._squeeze_soon)
            case _:
                raise RemoteProtocolError(f"frame type {frame.type} is not for a replica")

    def _share(self, session: Session, frame: Frame) -> None:
        name = decode_message(frame.payload, MemoryName)
        try:
            session.memory = MappedMemory.of(name)
        except OSError as error:  # it runs in another namespace, or as another user
            _log.info("controller's memory is not reachable", reason=error.strerror or str(error))
            refuse(session.peer, frame, Status.NOT_SUPPORTED, "the memory is not reachable from here")
        else:
            answer(session.peer, frame)

    def _sign_of_life(self) -> PingAnswer:
        space, merging = self.device.space, self._snapshots.merger.progress
        return PingAnswer(
            self.device.oldest_operation_s(),
            None if space is None else space.used_bytes,
            None if space is None else space.available_bytes,
            None if merging is None else merging.done_bytes,
            None if merging is None else merging.left_bytes,
        )

    def _report(self) -> ReplicaReport:
        state = self.store.state
        return ReplicaReport(
            volume_id=state.volume_id,
            replica_id=state.replica_id,
            size_bytes=state.size_bytes,
            block_size_bytes=state.block_size_bytes,
            directory=self.store.path,
            promised_epoch=state.promised_epoch,
            promised_to=state.promised_to,
            record=state.record,
            intact=self.store.intact,
            witness=state.witness,
        )

    def _squeeze_soon(self, peer: Peer, frame: Frame, data: Sequence[Buffer]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._squeeze, peer, frame, data)

    async def _squeeze(self, peer: Peer, frame: Frame, data: Sequence[Buffer]) -> None:
        """Answer a READ by less, if that helps; in a thread, as it takes some milliseconds."""
        squeezed: bytes | None = None

        def work() -> None:
            nonlocal squeezed
            squeezed = squeeze(data)

        await self.in_thread(work)
        answer_read(peer, frame, data, squeezed)
        self.batch.end()

    # --- the keeper
    # -------------------------------------------------------------------------------------------

    async def _promise(self, session: Session, frame: Frame) -> None:
        if session.phase is Phase.REPLACED:  # it left while it waited for its turn
            return
        assert session.hello is not None
        try:
            promised = promise(self.store.state, epoch=frame.epoch, controller_id=session.hello.controller_id)
        except Fenced as fenced:
            refuse(session.peer, frame, Status.FENCED, str(fenced), epoch=fenced.promised_epoch)
            return
        if session.phase is Phase.KNOWN and self.store.state.promised_epoch != session.reported_epoch:
            # What it was told of us is old, and it decides by that who has every write: it has to ask again.
            session.phase = Phase.REPLACED
            session.peer.shut_down()
            return
        # From here on nothing of an older connection may land; what is under way must end before we answer.
        if self._attached is not None and self._attached is not session:
            self._replace(self._attached)
        await self.device.wait_idle()
        epoch = promised.promised_epoch
        try:
            self.store.refuse_if_unsure()
            await self.in_thread(partial(self.store.save_state, promised))
        except StorageError as error:
            refuse_storage(session.peer, frame, error)
            return
        self._data.promised_epoch = epoch
        if session.phase is Phase.KNOWN:
            session.phase = Phase.ATTACHED
            self._attached = session
        extents = self._unstable.extents_within(Extent(0, self.store.size_bytes))
        unstable = None if extents is None else tuple((e.offset_bytes, e.length_bytes) for e in extents)
        state = self.store.state
        mark = LineageMark.of(self.store.lineage)
        promised_now = PromiseAnswer(state.record, self.store.intact, unstable, state.told_equal, mark)
        answer(session.peer, frame, message=promised_now)
        _log.info("epoch promised", epoch=epoch, controller=promised.promised_to)

    async def _offer_window(self, session: Session, frame: Frame) -> None:
        if session.phase is Phase.REPLACED:
            return
        names: list[WindowName] = []
        try:
            await self.device.aside(lambda: names.append(self.store.window(self.pid)), wait=False)
        except StorageError as error:
            refuse_storage(session.peer, frame, error)
        else:
            answer(session.peer, frame, message=names[0])

    def _replace(self, session: Session) -> None:
        session.phase = Phase.REPLACED
        session.peer.shut_down()
        self._attached = None

    async def _accept(self, session: Session, frame: Frame, record: MembershipRecord) -> None:
        if session.phase is Phase.REPLACED:  # it waited behind the promise that replaced it
            return
        in_sync = self.store.state.replica_id in record.in_sync
        # A record that names this replica may be older than what it has lost since: only the controller
        # knows.
        equal = in_sync and bool(frame.code & Flag.EQUAL)
        try:
            accepted = accept(self.store.state, record, epoch=frame.epoch)
            if in_sync and frame.code & (Flag.EQUAL | Flag.TOOK_PART) and not accepted.told_equal:
                accepted = attrs.evolve(accepted, told_equal=True)
            if record.clean:
                await self.device.wait_idle()
            await self.in_thread(partial(self._save, accepted, equal=equal, clean=record.clean))
        except Fenced as fenced:
            refuse(session.peer, frame, Status.FENCED, str(fenced), epoch=fenced.promised_epoch)
            return
        except StorageError as error:
            refuse_storage(session.peer, frame, error)
            return
        self._unstable.accepted(record.epoch, in_sync=in_sync, equal=equal)
        answer(session.peer, frame)
        names = ",".join(map(str, record.in_sync))
        _log.info("membership record accepted", epoch=record.epoch, version=record.version, in_sync=names)

    def _save(self, state: ReplicaState, *, equal: bool, clean: bool) -> None:
        if clean:
            self.store.flush()
        self.store.save_state(state)
        if equal and not self.store.intact:
            self.store.mark_intact()  # the rebuild has made up for what a reboot may have lost
        if clean:
            self.store.mark_clean()


def _answer_hash(peer: Peer, frame: Frame, request: Hash) -> None:
    if request.error is not None:
        refuse_storage(peer, frame, request.error)
        return
    header = encode_header(
        frame.type | ANSWER, request_id=frame.request_id, epoch=frame.epoch, payload=[request.digest]
    )
    peer.send(header, request.digest)


def _answer_spoil(peer: Peer, frame: Frame, request: Spoil) -> None:
    if request.error is not None:
        refuse_storage(peer, frame, request.error)
    else:
        answer(peer, frame)
