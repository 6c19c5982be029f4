"""A volume: links to the replicas, the roster's effects carried out, and host I/O through the data path.
The trio shell.

One object, `Volume`, owns all of it; it is a `block.BlockDevice`.  Everything happens in one task's turn at
a time, so there are no locks: an event (a frame, a lost link, a tick) is applied to the roster or the data
path, and what follows from it is done before anything else runs.
"""

import collections
import secrets
import time
from collections.abc import Callable, Sequence, Set
from contextlib import AbstractAsyncContextManager, closing
from functools import partial
from typing import Final, assert_never

import attrs
import structlog
import trio

from pyjiva.block import Buffer, Flush, Hosts, Lock, Request, Sampler, Space, Yielding
from pyjiva.controller.answers import Answers
from pyjiva.controller.background import Background
from pyjiva.controller.change_request import ChangeRequest, FillRequest
from pyjiva.controller.data_path import DataPath, Link
from pyjiva.controller.dirty_map import DirtyMap, FixedWork
from pyjiva.controller.disk_deadline import DiskDeadline, overdue
from pyjiva.controller.history import History
from pyjiva.controller.lease import LEASE_S, Lease
from pyjiva.controller.link_io import shake_hands
from pyjiva.controller.operations import Operations
from pyjiva.controller.options import ControllerOptions, ReplicaAddress
from pyjiva.controller.pace import UNBOUND, Pace
from pyjiva.controller.parameter_saves import ParameterSaves
from pyjiva.controller.past import NOWHERE, Past
from pyjiva.controller.path_times import PathTimes
from pyjiva.controller.picture import picture_of_replica, picture_of_scrub, state_of
from pyjiva.controller.range_copy import RangeCopy
from pyjiva.controller.rebuild_totals import RebuildBook
from pyjiva.controller.repairs import Repairs
from pyjiva.controller.resync import Resync
from pyjiva.controller.roster import Member, Mode, Phase, Roster
from pyjiva.controller.roster_event import (
    Accepted,
    AddReplica,
    Alive,
    AskAccept,
    AskAlive,
    AskPromise,
    CancelReconcile,
    Connect,
    Copied,
    Disconnect,
    Diverged,
    Drop,
    Effect,
    Event,
    Fence,
    Fenced,
    Forgot,
    GiveUp,
    Joined,
    Level,
    Levelled,
    LinkDown,
    LinkUp,
    MembersChanged,
    Promised,
    Reconcile,
    Reconciled,
    RemoveReplica,
    Replay,
    SaveParameters,
    Serve,
    StartRebuild,
    Stopped,
    StopRequested,
    Tick,
    Unsettled,
)
from pyjiva.controller.scrub import Scrub, ScrubStep
from pyjiva.controller.sharing_link import Memory, Sharing
from pyjiva.controller.status import (
    FillStatus,
    MergeStatus,
    ReplicaStatus,
    VolumeStatus,
)
from pyjiva.controller.traced_links import TracedLinks
from pyjiva.controller.windows import OpenWindow, Windows
from pyjiva.errors import ConfigError, PyjivaError, RemoteProtocolError, StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind, Lineage
from pyjiva.membership import MembershipRecord
from pyjiva.replication import (
    Flag,
    Frame,
    FrameDecoder,
    FrameType,
    LineageMark,
    PingAnswer,
    PromiseAnswer,
    Status,
    decode_message,
    encode_message,
)
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.near_io import open_nearest

__all__ = ["CONNECT_S", "ConnectTo", "Volume", "VolumeEnded", "VolumeFenced", "VolumeUnsure"]

TICK_S: Final = 0.25  # resolution of every time limit below
WITNESS_REST_S: Final = 4.5  # between pings of a witness that the lease does not need
PING_S: Final = 0.5  # how often a member is asked for a sign of life, which also renews the lease
QUIET_PING_S: Final = 1.0  # while no host asks for anything: ticks and pings are what an idle volume costs
CONNECT_S: Final = 3.0  # connecting and shaking hands: a stopped process accepts but does not answer
RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 2.0  # a replica that comes back is noticed within this
STALLED_S: Final = 1.0  # a tick that comes so late says that this process stood still, not the members
STOP_S: Final = 8.0  # a clean stop that takes longer is given up: the next start reconciles

_log = structlog.get_logger(__name__)


ConnectTo = Callable[[ReplicaAddress], AbstractAsyncContextManager[Stream]]
"""Raises OSError or trio.TooSlowError: the replica cannot be reached."""


class VolumeEnded(PyjivaError):
    """This controller must end and answer nothing more."""


class VolumeFenced(VolumeEnded):
    """Another controller has taken the volume over."""


class VolumeUnsure(VolumeEnded):
    """What the replicas hold is known to none but the next activation: start again."""


@attrs.define(eq=False)
class Heard:
    """When a member last gave a sign of life."""

    stream: Stream
    received_bytes: int
    at_s: float
    ping_at_s: float
    pinging: bool = False
    space: Space | None = None
    """On its disk, as it last said."""
    merge: MergeStatus | None = None
    """As it last said."""
    deletions: int = 0
    """How often it was left something to merge: what it said before that says nothing of it."""


@attrs.define(eq=False)
class Volume:
    """The replicated block device of one controller process; made inside a trio run."""

    options: ControllerOptions
    batch: EndOfBatch
    connect: ConnectTo | None = None
    """How to reach a replica; None: over TCP.  Simulations give their own network."""
    clock: Callable[[], float] = trio.current_time
    """In seconds, steady; for the lease it must count on in a suspended machine (`clock_sys`)."""
    controller_id: str = attrs.field(factory=partial(secrets.token_hex, 8))
    memory: Memory | None = None
    """What is shared with replicas on this machine."""
    open_window: OpenWindow | None = None
    """How to read the files of replicas on this machine; None: they are asked for everything."""
    sampler: Sampler | None = None
    """What is traced; None: nothing."""
    clock_ns: Callable[[], int] | None = None
    """Steady, for how long things take; None: `clock`."""
    ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when host I/O is carried out for the first time."""
    _roster: Roster = attrs.field(init=False)
    submit: Callable[[Request | ChangeRequest | FillRequest], None] = attrs.field(init=False)
    """Start a host request; it waits (parked) while the volume cannot carry it out: `DataPath.submit`."""
    _data: DataPath = attrs.field(init=False)
    _saves: ParameterSaves = attrs.field(init=False)
    _lease: Lease = attrs.field(init=False)
    _sharing: Sharing = attrs.field(init=False)
    _traced: TracedLinks | None = attrs.field(default=None, init=False)
    _heard: dict[int, Heard] = attrs.field(factory=dict, init=False)
    _disks: dict[int, DiskDeadline] = attrs.field(factory=dict, init=False)
    _resyncs: dict[int, Resync] = attrs.field(factory=dict, init=False)
    """By target."""
    past: Past = attrs.field(init=False)
    """Its snapshots."""
    on_resized: Callable[[], None] | None = None
    """Called when the volume has become larger while it is served."""
    fill_status: Callable[[], FillStatus | None] = lambda: None
    """Told by who fills it."""
    _rebuilds: RebuildBook = attrs.field(factory=RebuildBook, init=False)
    _held_rebuilds: set[int] = attrs.field(factory=set, init=False)
    """Who goes on being rebuilt when the snapshots have changed."""
    _repairs: Repairs = attrs.field(init=False)
    _rot_to_repair: dict[tuple[int, Extent], None] = attrs.field(factory=dict, init=False)
    """What was met before the volume was served: until then there is nobody to repair it from."""
    background: Background = attrs.field(init=False)
    """When what no host has asked for may go on."""
    _rebuild_pace: Pace = attrs.field(init=False)
    _scrub: Scrub | None = attrs.field(default=None, init=False)
    """The one under way, or the last one."""
    _scrub_pace: Pace = attrs.field(factory=partial(Pace, None), init=False)
    history: History = attrs.field(factory=History, init=False)
    operations: Operations = attrs.field(factory=Operations, init=False)
    on_look: Callable[[float, VolumeStatus], None] | None = None
    """Called with each picture of the volume and its time, in seconds since 1970."""
    _addresses: dict[int, ReplicaAddress] = attrs.field(init=False)
    _links: dict[int, trio.CancelScope] = attrs.field(factory=dict, init=False)
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _directories: dict[int, str] = attrs.field(factory=dict, init=False)
    _events: collections.deque[Event] = attrs.field(factory=collections.deque, init=False)
    _applying: bool = attrs.field(default=False, init=False)
    _stopped: trio.Event = attrs.field(factory=trio.Event, init=False)
    _over: PyjivaError | None = attrs.field(default=None, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _ticked_at_s: float = attrs.field(default=0.0, init=False)
    _requests_before: int = attrs.field(default=0, init=False)
    """Of hosts, ever, as it was one tick ago."""

    def __attrs_post_init__(self) -> None:
        ids = tuple(r.replica_id for r in self.options.replicas)
        park_limit_s = self.options.tuning.park_limit_s
        self._roster = Roster(
            self.controller_id,
            ids,
            self.options.new_volume,
            witnesses=frozenset(r.replica_id for r in self.options.replicas if r.witness),
            addresses={r.replica_id: str(r) for r in self.options.replicas},
        )
        self._addresses = {r.replica_id: r for r in self.options.replicas}
        self.past = Past(Lineage(size_bytes=self.options.size_bytes), self)
        self._repairs = Repairs(self.options.size_bytes, self)
        self._rebuild_pace = Pace(self.options.tuning.rebuild_rate)
        yielding = Yielding(self.options.tuning.background_floor)
        self.background = Background(yielding, self.clock, self._hosts, self._call_later)
        self._data = DataPath(
            ids,
            self.options.size_bytes,
            self._failed,
            self._has_diverged,
            self._fenced,
            self._repairs.found,
            self._snapshots_changed,
            self.past.takes_fills,
            park_limit_s,
            lambda: self.past.lineage.generation,
            self._snapshots_are_changing,
            times=PathTimes(self.clock_ns or self._clock_ns),
            windows=Windows(self.open_window, self.clock),
        )
        self.submit = self._data.submit
        self._data.now_s = self.clock()
        self._data.clock = self.clock
        self._lease = Lease()
        self._sharing = Sharing(self.memory, self._ask)
        if self.sampler is not None:
            self._traced = TracedLinks(self.sampler, self._data.request_of)
        self._saves = ParameterSaves(
            lambda new: self._apply(SaveParameters(new)), self._roster.has_stored, park_limit_s
        )

    # --- the block device

    @property
    def size_bytes(self) -> int:
        """Size of the volume."""
        return self.past.lineage.size_bytes

    def waits_for(self, request: Request | ChangeRequest) -> str:
        """What a request that was submitted and not sent to any replica waits for, in words."""
        return self._data.waits_for(request)

    @property
    def parameters(self) -> bytes:
        """Part of ParameterStore; what the newest record has once `ready` is set."""
        return self._saves.answered

    def save_parameters(self, parameters: bytes, done: Callable[[StorageError | None], None]) -> None:
        """Part of ParameterStore: a majority of the replicas stores them, with the next membership record."""
        self._saves.save(parameters, done, self.clock())

    @property
    def space(self) -> Space | None:
        """Part of SpaceSource: what the largest in-sync replica takes, and what the fullest disk has left."""
        spaces = [s for i in self.readable() if (s := self._heard[i].space) is not None]
        if not spaces:
            return None
        return Space(max(s.used_bytes for s in spaces), min(s.available_bytes for s in spaces))

    def _clock_ns(self) -> int:
        return int(self.clock() * 1e9)

    @property
    def window_reads(self) -> int:
        """Reads of hosts for which no replica was asked (`windows`)."""
        return self._data.windows.reads

    @property
    def times(self) -> PathTimes:
        """How long its replicas take."""
        return self._data.times

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the volume up until it is stopped or cancelled.

        Raises VolumeFenced: another controller has the volume; VolumeUnsure: it has to be started again.
        Raises ConfigError: the replicas hold something else than this controller was told.
        """
        with self._scope, closing(self._data.windows):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._ticked_at_s = self.clock()
                self._apply(Tick(self._ticked_at_s))  # its clock does not begin at 0
                for address in self.options.replicas:
                    self._start_link(address)
                nursery.start_soon(self._keep_time)
                task_status.started()
        self.history.close()
        if self._over is not None:
            raise self._over

    async def stop(self) -> None:
        """Flush, commit a clean record, end `run`.  Host I/O must have ended: what is still parked is
        forgotten.
        """
        with trio.move_on_after(STOP_S) as limit:
            if self._roster.phase is Phase.ACTIVE:
                # A clean record is believed: who names it is not compared, nor doubted after a power cut.
                self._repairs.stop()
                while self._data.writing or self._data.changing or self._repairs.running:
                    await trio.sleep(TICK_S)
                flushed = trio.Event()
                self._data.submit(Flush(lambda _: flushed.set()))
                self.batch.end()
                await flushed.wait()
            self.history.close()  # who listens hears of the end before the API ends
            self._apply(StopRequested())
            self.batch.end()
            await self._stopped.wait()
        if limit.cancelled_caught:
            _log.warning("not stopped cleanly: the next start compares the replicas", waited_s=STOP_S)
        self._scope.cancel()

    async def _keep_time(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            now = self.clock()
            stalled = now - self._ticked_at_s > STALLED_S
            self._ticked_at_s = now
            if self._is_quiet() and not self._lease_is_due(now):
                self._data.now_s = now
                for heard in self._heard.values():  # nobody owes an answer
                    heard.received_bytes, heard.at_s = heard.stream.received_bytes, now
                continue
            self._data.tick(now)
            self._saves.tick(now)
            self._rebuild_pace.tick(now)
            self._scrub_pace.tick(now)
            if self._scrub is not None:
                self._scrub.tick()
            self._apply(Tick(now))
            for member_id, heard in list(self._heard.items()):
                if member_id in self._heard:  # else the loss of another one has ended it too
                    self._check_life(member_id, heard, now, stalled)
            self._check_disks(now)
            self._data.windows.tick(self.size_bytes, self._data.readable, self._ask)
            self.look()
            self.batch.end()

    def _is_quiet(self) -> bool:
        """Whether no host has asked for anything since the last tick, nothing is under way and nobody owes an
        answer, so that no time limit runs but that of the lease.
        """
        before, self._requests_before = self._requests_before, self._data.hosts.requests
        return (
            self._requests_before == before
            and self._data.at_rest
            and self._saves.at_rest
            and self._roster.phase is Phase.ACTIVE
            and all(member.witness or member.mode is Mode.IN_SYNC for member in self._roster.members.values())
            and self._roster.adding is None
            and self._roster.removing is None
            and not self._scrubbing
            and not self._resyncs
            and not self._repairs.running
            and all(heard.merge is None for heard in self._heard.values())
        )

    def _lease_is_due(self, now: float) -> bool:
        """Whether what it stands on is QUIET_PING_S old, as nearly as ticks can tell."""
        return self._data.lease_until_s - now < LEASE_S - QUIET_PING_S + TICK_S / 2

    def _check_life(self, member_id: int, heard: Heard, now: float, stalled: bool) -> None:
        """Ping a member, or give it up when it owes an answer and is silent."""
        in_flight = self._data.members[member_id].in_flight
        if heard.stream.received_bytes != heard.received_bytes or not in_flight or stalled:
            heard.received_bytes, heard.at_s = heard.stream.received_bytes, now
        silent_s = now - heard.at_s
        if silent_s > self.options.tuning.member_timeout_s:
            self._failed(member_id, f"no answer for {silent_s:.1f} s")
        elif not heard.pinging and now >= heard.ping_at_s and not self._may_rest(member_id, heard, now):
            heard.pinging = True
            confirms = self._roster.members[member_id].promised
            answered = partial(self._ponged, member_id, heard, now if confirms else None, heard.deletions)
            self._data.call(member_id, FrameType.PING, answered)

    def _may_rest(self, member_id: int, heard: Heard, now: float) -> bool:
        """Whether a witness need not be asked yet: the copies keep the lease."""
        member = self._roster.members[member_id]
        if not (member.witness and member.promised) or now >= heard.ping_at_s + WITNESS_REST_S:
            return False
        witnesses = [each.id for each in self._roster.members.values() if each.witness]
        return not self._lease.needs(witnesses, self._roster.configurations(), now)

    def _ponged(
        self,
        member_id: int,
        heard: Heard,
        promised_before_s: float | None,
        deletions_before: int,
        frame: Frame | None,
    ) -> None:
        """The answer to a ping; it confirms our epoch if that was promised on this connection before."""
        heard.pinging = False
        heard.ping_at_s = self._ticked_at_s + PING_S
        if frame is None or frame.code != Status.OK:
            return
        if promised_before_s is not None:
            self._confirmed(member_id, promised_before_s)
        said = decode_message(frame.payload, PingAnswer)
        if said.used_bytes is not None and said.available_bytes is not None:
            heard.space = Space(said.used_bytes, said.available_bytes)
        if heard.deletions == deletions_before:
            merges = said.merged_bytes is not None
            heard.merge = MergeStatus(said.merged_bytes or 0, said.to_merge_bytes or 0) if merges else None
        self._disk(member_id).seen(said.oldest_operation_s, self.clock())

    def _disk(self, member_id: int) -> DiskDeadline:
        if member_id not in self._disks:
            tuning = self.options.tuning
            self._disks[member_id] = DiskDeadline(tuning.member_timeout_s, tuning.disk_timeout_s)
        return self._disks[member_id]

    def _check_disks(self, now: float) -> None:
        """Give up members whose disk does not come back."""
        connected = {member_id: self._disk(member_id) for member_id in self._heard}
        for member_id in overdue(connected, self._roster.readable(), now):
            age_s = self._disks[member_id].age_s
            self._failed(member_id, f"its oldest disk operation is {age_s:.1f} s old")

    def _confirmed(self, member_id: int, asked_at_s: float) -> None:
        self._lease.confirm(member_id, asked_at_s)
        self._data.renew_lease(self._lease.until_s(self._roster.configurations()))

    # --- links

    def _start_link(self, address: ReplicaAddress) -> None:
        assert self._nursery is not None
        scope = self._links[address.replica_id] = trio.CancelScope()
        self._nursery.start_soon(self._keep_link, address, scope)

    async def _keep_link(self, address: ReplicaAddress, scope: trio.CancelScope) -> None:
        with scope:
            await self._connect_again_and_again(address)

    async def _connect_again_and_again(self, address: ReplicaAddress) -> None:
        member_id = address.replica_id
        retry_s, by_tcp = RETRY_S_MIN, False
        while True:
            reason, connected = "it closed the connection", False
            try:
                async with self._open_link(address, by_tcp) as stream:
                    by_tcp = not by_tcp  # if nothing comes of this: next time by the other door
                    decoder = FrameDecoder(stream.buffer)
                    with trio.fail_after(CONNECT_S):
                        report = await shake_hands(
                            stream, decoder, self.options, address, self.controller_id, self.batch
                        )
                    retry_s, connected, by_tcp = RETRY_S_MIN, True, False
                    now = self.clock()
                    self._directories[member_id] = report.directory
                    self._heard[member_id] = Heard(stream, stream.received_bytes, now, now + PING_S)
                    link: Link = self._sharing.link(member_id, stream)
                    if self._traced is not None:
                        link = self._traced.link(member_id, link)
                    self._data.member_up(member_id, link)
                    self._apply(LinkUp(member_id, report))
                    self._sharing.offer(member_id)
                    if stream.is_local:
                        self._data.windows.near(member_id, self._data.members[member_id].bit)
                    self.batch.end()
                    answers = Answers(
                        member_id, decoder, self._data, self._sharing, self.times, self.batch,
                        None if self._traced is None else self._traced.answered,
                    )  # fmt: skip
                    await stream.serve(answers.wanted_bytes, answers.arrived)
            except OSError as error:
                reason = f"not reachable: {error.strerror or error}"
            except trio.TooSlowError:
                reason = f"no answer within {CONNECT_S:g} s"
            except RemoteProtocolError as error:
                reason = str(error)
            if not connected or member_id in self._heard:  # else we ended it, and said why
                self._lose(member_id, reason)
            self.batch.end()
            await trio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_S_MAX)

    def _open_link(self, address: ReplicaAddress, by_tcp: bool) -> AbstractAsyncContextManager[Stream]:
        if self.connect is not None:
            return self.connect(address)
        return open_nearest(address.host, address.port, self.batch, CONNECT_S, by_tcp=by_tcp)

    def _failed(self, member_id: int, reason: str) -> None:
        """The data path, a timer or a resync found a member failing."""
        if member_id in self._heard:
            self._lose(member_id, reason)

    def _has_diverged(self, member_id: int, reason: str) -> None:
        self._failed(member_id, reason)
        self._apply(Diverged(member_id, reason))

    def _lose(self, member_id: int, reason: str) -> None:
        heard = self._heard.pop(member_id, None)
        if heard is not None:
            _log.warning("replica lost", replica=member_id, reason=reason)
            heard.stream.shut_down()
            self._sharing.lost(member_id)
            self._data.windows.lost(member_id)  # first: what the next lines let go on must not read there
            self._disk(member_id).lost()
            self._end_resyncs_with(member_id)
            not_repaired = self._repairs.lost(member_id)
            if self._traced is not None:
                self._traced.lost(member_id, reason)
            self._data.member_down(member_id)
            if (dirty := self._data.dirty.get(member_id)) is not None:
                for extent in not_repaired:
                    dirty.mark(extent.offset_bytes, extent.length_bytes)
            if self._scrub is not None:
                self._scrub.answered(member_id, None)
        self._apply(LinkDown(member_id, reason))

    def _end_resyncs_with(self, member_id: int) -> None:
        """Now, not with the next answer: once it is back, its bytes are those of a replica that is behind."""
        if self._roster.phase is Phase.SETTLING and member_id in self._roster.settling:
            self._cancel_resyncs()  # the roster begins again
            return
        self.past.lost(member_id)
        self._held_rebuilds.discard(member_id)
        for resync in list(self._resyncs.values()):
            if resync.target == member_id:
                self._resyncs.pop(member_id, None)
                resync.cancel()
                self._rebuilds.end(member_id, self.clock())
            else:
                resync.member_lost(member_id)

    def lose_member(self, member: int, reason: str) -> None:
        """Part of PastPort."""
        self._failed(member, reason)

    def _fenced(self, member_id: int, promised_epoch: int) -> None:
        self._apply(Fenced(member_id, promised_epoch))

    def _tell(self, kind: str, replica: int | None, text: str) -> None:
        self.history.add(time.time(), kind, replica, text)

    # --- the roster's effects

    def _apply(self, event: Event) -> None:
        """Apply `event` and carry out what follows; events that come up meanwhile wait their turn."""
        self._events.append(event)
        if self._applying:
            return
        self._applying = True
        try:
            while self._events:
                before = self._roster.committed
                effects = self._roster.apply(self._events.popleft())
                self._data.epoch = self._roster.epoch
                for effect in effects:
                    self._carry_out(effect)
                if self._roster.committed is not before:
                    assert self._roster.committed is not None
                    self._saves.committed(self._roster.committed.parameters)
                self._saves.review()
        finally:
            self._applying = False
        if not isinstance(event, Tick):
            self.look()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case MembersChanged():
                self._members_changed()
            case AskPromise(member, epoch):
                self._ask_promise(member, epoch)
            case AskAccept(member, record, equal, took_part):
                code = (Flag.EQUAL if equal else 0) | (Flag.TOOK_PART if took_part else 0)
                self._ask_accept(member, record, code)
            case AskAlive(member):
                self._ask(member, FrameType.PING, partial(self._answered_since, member))
            case Drop(member, reason):
                self._failed(member, reason)
            case Connect(member, address):
                self._connect_to(member, address)
            case Disconnect(member, reason):
                self._disconnect(member, reason)
            case Level(source, members):
                self.past.level(source, members)
            case Reconcile(source, targets, extents):
                self._reconcile(source, targets, extents)
            case CancelReconcile():
                self._cancel_resyncs()
            case Serve():
                _log.info("volume takes I/O", epoch=self._roster.epoch)
                self._saves.answered = self._roster.parameters
                self.ready.set()
                self._repair_what_was_found()
            case StartRebuild(member):
                self._start_rebuild(member)
            case Forgot(member):
                self._data.distrust_others(member)
                self._data.forgot()
                if self.past.lineage.filling is not None:
                    self._end(VolumeUnsure("what the volume was filled with may be gone: it begins anew"))
            case Replay(member):
                if member in self._heard:  # else it was lost again: LinkDown waits for its turn
                    self._data.replay(member)
            case Fence(reason, again):
                self._end(VolumeUnsure(reason) if again else VolumeFenced(reason))
            case GiveUp(reason):
                self._end(ConfigError(reason))
            case Stopped():
                self._stopped.set()
            case _:
                assert_never(effect)

    def _connect_to(self, member_id: int, text: str) -> None:
        witness = self._roster.members[member_id].witness
        address = ReplicaAddress.parse(member_id, text, witness=witness)
        self._data.add_member(member_id)
        if address is None:
            _log.error("a replica of the volume has no known address", replica=member_id)
            return
        self._addresses[member_id] = address
        self._start_link(address)

    def _disconnect(self, member_id: int, reason: str) -> None:
        _log.warning("replica disconnected", replica=member_id, reason=reason)
        self._lose(member_id, reason)
        self._members_changed()  # what waited for its answer need not any more
        self._addresses.pop(member_id, None)
        self._directories.pop(member_id, None)
        self._data.forget(member_id)
        if (scope := self._links.pop(member_id, None)) is not None:
            scope.cancel()

    def _members_changed(self) -> None:
        roster, data = self._roster, self._data
        by_mode: dict[Mode, set[int]] = {mode: set() for mode in Mode}
        for member in roster.members.values():
            if member.promised and member.id in self._heard:
                by_mode[member.mode].add(member.id)
        data.set_members(
            must_ack=data.mask(roster.required()),
            writable=data.mask(by_mode[Mode.IN_SYNC] | by_mode[Mode.JOINING]),
            readable=data.mask(roster.readable() & set(self._heard)),
            rebuilding=data.mask(by_mode[Mode.REBUILDING]),
            # While the set changes, as many as the old one and the new one ask for.
            min_copies=max(map(self._min_copies, roster.configurations())),
            serving=roster.phase is Phase.ACTIVE,
        )

    def _ask(
        self,
        member: int,
        type_: FrameType,
        on_answer: Callable[[Frame | None], None],
        payload: Sequence[Buffer] = (),
        code: int = 0,
    ) -> None:
        if member in self._heard:
            self._data.call(member, type_, on_answer, payload=payload, code=code)

    def _answered_since(self, member: int, frame: Frame | None) -> None:
        if frame is not None:
            self._apply(Alive(member))

    def _ask_promise(self, member: int, epoch: int) -> None:
        asked_at_s = self.clock()

        def answered(frame: Frame | None) -> None:
            if frame is None:
                return
            if frame.code != Status.OK:
                self._failed(member, f"could not store its promise (status {frame.code})")
            else:
                promised = decode_message(frame.payload, PromiseAnswer)
                for offset, length in promised.unstable or ():
                    if offset < 0 or length < 0 or offset + length > promised.lineage.size_bytes:
                        raise RemoteProtocolError(f"remembers a write of {length} bytes at {offset}")
                self._confirmed(member, asked_at_s)
                self._apply(Promised(member, epoch, promised))

        self._ask(member, FrameType.PROMISE, answered)

    def _ask_accept(self, member: int, record: MembershipRecord, code: int) -> None:
        def answered(frame: Frame | None) -> None:
            if frame is None:
                return
            if frame.code != Status.OK:
                self._failed(member, f"could not store the membership record (status {frame.code})")
            else:
                self._apply(Accepted(member, record.version))

        self._ask(member, FrameType.ACCEPT, answered, [encode_message(record)], code)

    def _end(self, error: PyjivaError) -> None:
        _log.error("volume ends", reason=str(error))
        self._over = error
        self._scope.cancel()

    # --- rebuilds (see `resync.ResyncPort`)

    def _reconcile(self, source: int, targets: Sequence[int], extents: Sequence[Extent] | None) -> None:
        what = extents if extents is not None else [Extent(0, self.size_bytes)]
        size = sum(e.length_bytes for e in what)
        _log.info("comparing replicas after an unclean end", source=source, targets=list(targets), bytes=size)
        self._resyncs = {
            target: Resync(source, target, FixedWork(list(what)), self, keep_lost=True) for target in targets
        }
        for resync in list(self._resyncs.values()):
            resync.start()

    def _cancel_resyncs(self) -> None:
        self.past.cancel()
        for resync in self._resyncs.values():
            resync.cancel()
        self._resyncs = {}

    def _start_rebuild(self, target: int) -> None:
        """Give `target` the snapshots that it lacks first, and then what the live volume has."""
        if target not in self._heard:
            return
        if target not in self._data.dirty or not self._roster.members[target].kept_everything:
            self.compare_all(target)
        answer = self._roster.members[target].answer
        assert answer is not None
        if self._data.changing:  # what it ought to have is not known
            self._held_rebuilds.add(target)
        else:
            self._bring_up(target, answer.lineage)

    def _bring_up(self, target: int, mark: LineageMark | None) -> None:
        if self.past.bring_up(target, mark):
            self._tell("rebuild", target, "it is given the snapshots that it lacks")
        else:
            self.copy_live(target)

    def compare_all(self, target: int) -> None:
        """Part of PastPort."""
        self._data.dirty[target] = DirtyMap(self.size_bytes, everything=True)

    def copy_live(self, target: int) -> None:
        """Part of PastPort."""
        if self._roster.phase is not Phase.ACTIVE:  # it stops: there is no map any more of what is missing
            return
        source = self.choose_reader({target})
        if source is None:  # it was lost while the target got its snapshots; a rebuild begins when it is back
            self._failed(target, "could not be given the volume's data: no other replica is in sync")
            return
        work = self._data.dirty[target]
        resync = self._resyncs[target] = Resync(source, target, work, self)
        self._rebuilds.begin(resync, self.clock())
        what = "everything is compared" if work.compare_first else "it gets what it missed"
        self._tell("rebuild", target, f"begun from replica {source}: {what}")
        _log.info(
            "rebuild starts",
            replica=target,
            source=source,
            compares="everything" if work.compare_first else "what it missed",
            bytes=resync.remaining_bytes(),
        )
        resync.start()

    def acquire_shared(self, extent: Extent, owner: RangeCopy | Scrub) -> None:
        """Part of ResyncPort and ScrubPort."""
        self._data.acquire(extent, owner)

    def acquire_exclusive(self, extent: Extent, owner: RangeCopy) -> None:
        """Part of RepairPort."""
        self._data.acquire(extent, owner, exclusive=True)

    def release(self, lock: Lock) -> None:
        """Part of ResyncPort."""
        self._data.release(lock)

    def ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer],
        on_answer: Callable[[Frame | None], None],
        code: int = 0,
    ) -> None:
        """Part of ResyncPort and RepairPort."""
        self.call(member, type_, on_answer, extent=extent, payload=payload, code=code)

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        """Part of ResyncPort: the least busy one.  While the volume settles, the one that the roster chose;
        for what that has lost, the lowest that has it, so that all take the same: also the target itself.
        """
        if self._roster.phase is Phase.SETTLING:
            return next((i for i in self._roster.settling if i not in without), None)
        return self.choose_reader({*without, resync.target})

    def choose_reader(self, without: Set[int]) -> int | None:
        """The least busy member that has everything and is not among `without`."""
        fit = (self._roster.readable() & set(self._heard)) - without
        return min(fit, key=lambda i: self._data.members[i].in_flight, default=None)

    def may_go_on(self, resync: Resync | Scrub) -> bool:
        """Part of ResyncPort and ScrubPort."""
        at_once = len(self._resyncs) + self._scrubbing
        return self.background.may_go_on(resync, self._pace_of(resync), at_once=at_once)

    def _pace_of(self, resync: Resync | Scrub) -> Pace:
        if isinstance(resync, Scrub):
            return self._scrub_pace
        settles = self._roster.phase is Phase.SETTLING  # hosts wait for it
        return UNBOUND if settles else self._rebuild_pace

    @property
    def _scrubbing(self) -> bool:
        return self._scrub is not None and self._scrub.step is not ScrubStep.OVER

    def spent(self, resync: Resync | Scrub, length_bytes: int) -> None:
        """Part of ResyncPort and ScrubPort."""
        self._pace_of(resync).spent(length_bytes)
        resync.turn.spent_bytes += length_bytes

    def _hosts(self) -> Hosts | None:
        """Writes that wait for copies wait for a rebuild: it does not wait for them."""
        served = self._data.writes_open and self._roster.phase is Phase.ACTIVE
        return self._data.hosts if served else None

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        async def later() -> None:
            await trio.sleep(seconds)
            call()
            self.batch.end()

        assert self._nursery is not None
        self._nursery.start_soon(later)

    def advanced(self, resync: Resync) -> None:
        """Part of ResyncPort."""
        self._data.members[resync.target].synced_until = resync.position

    def finished(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        """Part of ResyncPort."""
        self._resyncs.pop(resync.target, None)
        self._rebuilds.end(resync.target, self.clock(), complete=failed_member is None)
        if failed_member is not None:
            # A rebuild starts again with the target's next connection; a source that refused a read is lost
            # itself.
            _log.warning("copy failed", source=resync.source, target=resync.target, reason=reason)
            self._tell("rebuild", resync.target, f"the copy to it broke off: {reason}")
            if self._roster.phase is Phase.SETTLING:
                self._apply(Unsettled(failed_member))
            for member_id in dict.fromkeys((failed_member, resync.target)):
                self._failed(member_id, f"copy from replica {resync.source} failed: {reason}")
            return
        counts = f"{resync.copied_bytes} bytes copied, {resync.compared_bytes} bytes compared"
        self._tell("rebuild", resync.target, f"the copy to it is complete: {counts}")
        _log.info(
            "copy finished",
            source=resync.source,
            target=resync.target,
            compared_bytes=resync.compared_bytes,
            copied_bytes=resync.copied_bytes,
            sent_bytes=resync.sent_bytes,
        )
        if self._roster.phase is Phase.SETTLING:
            if not self._resyncs:
                self._apply(Reconciled())
            return
        if self._data.changing:  # it does not get the change that is under way
            self._held_rebuilds.add(resync.target)
            return
        self._data.copied(resync.target)
        self._apply(Copied(resync.target))
        self._ask(resync.target, FrameType.FLUSH, partial(self._flushed, resync.target))

    # --- snapshots (see `past.PastPort`)

    def _snapshots_are_changing(self) -> None:
        """A change begins: what a snapshot is copied from may not have it any more, and is none the worse."""
        for target in self.past.targets:
            self.past.lost(target)
            self._stop_copy_to(target)
            self._held_rebuilds.add(target)

    def _stop_copy_to(self, target: int) -> None:
        if (resync := self._resyncs.pop(target, None)) is not None:
            resync.cancel()
            self._rebuilds.end(target, self.clock())

    def _snapshots_changed(self, change: Change, carried_out: bool | None) -> None:
        """A change is over; replicas that are being rebuilt did not take part in it."""
        if carried_out is None:
            reason = "the disks of all replicas failed while the snapshots changed: the next start finds out"
            self._end(VolumeUnsure(reason))
            return
        held, self._held_rebuilds = self._held_rebuilds, set()
        if carried_out:
            self.past.changed(change)
            self._tell("snapshot", None, f"{change.kind.value} {change.name}".strip())
            if change.kind in (ChangeKind.DELETE, ChangeKind.REVERT):
                self._expect_merges()
            if change.kind is ChangeKind.GROW:
                self._take_size()
                if self.on_resized is not None:
                    self.on_resized()
            rebuilding = {i for i, m in self._roster.members.items() if m.mode is Mode.REBUILDING}
            held |= rebuilding & set(self._heard)
        for target in sorted(held):
            self._stop_copy_to(target)
            self._data.members[target].synced_until = 0
            # What was copied to it stays copied.  What it said when it came may not be so any more.
            self._bring_up(target, None)

    def _expect_merges(self) -> None:
        """At once, not with the next sign of life: who waits for their end must not take this for it."""
        for member_id in self.readable():
            heard = self._heard[member_id]
            heard.deletions += 1
            heard.merge = heard.merge or MergeStatus(0, 0)
        self.look()

    def _take_size(self) -> None:
        self._data.resize(self.size_bytes)
        self._repairs.size_bytes = self.size_bytes

    def levelled(self) -> None:
        """Part of PastPort."""
        self._take_size()
        self._apply(Levelled())

    def call(
        self,
        member: int,
        type_: FrameType,
        on_answer: Callable[[Frame | None], None],
        *,
        extent: Extent = NOWHERE,
        payload: Sequence[Buffer] = (),
        code: int = 0,
        number: int | None = None,
    ) -> None:
        """Part of PastPort."""
        if member not in self._heard:
            on_answer(None)
            return
        self._data.call(
            member,
            type_,
            on_answer,
            offset_bytes=extent.offset_bytes,
            length_bytes=extent.length_bytes,
            payload=payload,
            code=code,
            number=number,
        )

    def copy_begins(self, resync: Resync) -> None:
        """Part of PastPort."""
        self._resyncs[resync.target] = resync
        self._rebuilds.begin(resync, self.clock())

    def copy_ended(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        """Part of PastPort."""
        self._resyncs.pop(resync.target, None)
        self._rebuilds.end(resync.target, self.clock())
        if failed_member is not None:
            _log.warning("copy of a snapshot failed", target=resync.target, reason=reason)
            for member_id in dict.fromkeys((failed_member, resync.target)):
                self._failed(member_id, f"copy of a snapshot from replica {resync.source} failed: {reason}")

    def past_is_bad(self, member: int, number: int, extent: Extent) -> None:
        """Part of PastPort."""
        name = self.past.lineage.numbered(number).name
        _log.error("a block of a snapshot is not what was written", replica=member, snapshot=name)
        self._tell("rot", member, f"{extent} of the snapshot {name} is not what was written")

    def _flushed(self, member_id: int, frame: Frame | None) -> None:
        if frame is None:
            return
        if frame.code != Status.OK:
            self._failed(member_id, f"could not flush what was copied to it (status {frame.code})")
        else:
            self._apply(Joined(member_id))

    # --- replicas that are added and removed

    def add_replica(self, address: ReplicaAddress) -> str:
        """Begin to make it one of the volume's; why not, or "" when it was begun."""
        if not (why_not := self._roster.why_not_add(address.replica_id)):
            self._tell("replica", address.replica_id, f"to be added, at {address}")
            self._apply(AddReplica(address.replica_id, str(address), address.witness))
            self.batch.end()
        return why_not

    def remove_replica(self, member_id: int) -> str:
        """Begin to take it out of the volume; why not, or "" when it was begun."""
        why_not = self._roster.why_not_remove(member_id)
        rest = tuple(i for i in self._roster.configurations()[-1] if i != member_id)
        if not why_not and member_id != self._roster.adding:
            left, needed = len(self._roster.readable() - {member_id}), self._min_copies(rest)
            if left < needed:
                why_not = f"{left} replicas in sync would be left, a write would need {needed}"
        if not why_not:
            self._tell("replica", member_id, "to be removed")
            self._apply(RemoveReplica(member_id))
            self.batch.end()
        return why_not

    @property
    def leaving(self) -> int | None:
        """Who is to be removed, until that is committed."""
        return self._roster.removing

    def _min_copies(self, configured: Sequence[int]) -> int:
        witnesses = sum(i in self._roster.members and self._roster.members[i].witness for i in configured)
        return self.options.tuning.min_copies_of(len(configured) - witnesses, witnesses)

    # --- rot (see `repairs.RepairPort`, `scrub.ScrubPort`)

    def repair_ended(self, member: int, extent: Extent, why_not: str) -> None:
        """Part of RepairPort."""
        place = {"replica": member, "offset": extent.offset_bytes, "bytes": extent.length_bytes}
        if why_not:
            _log.error("a block is not what was written, and cannot be repaired", **place, reason=why_not)
            self._tell("rot", member, f"{extent} cannot be repaired: {why_not}")
        else:
            _log.warning("a block was not what was written: repaired from another replica", **place)
            self._tell("rot", member, f"{extent} repaired from another replica")

    def too_much_rot(self, member: int) -> None:
        """Part of RepairPort."""
        self._data.distrust(member)
        self._has_diverged(member, "too many of its blocks are not what was written")

    def start_scrub(self, rate: int | None) -> bool:
        """Begin to read all of the volume on all in-sync replicas, at most `rate` bytes per second on each.

        False: the volume is not served, or is being filled, or a scrub is under way.
        """
        if self.past.lineage.filling is not None:  # members may differ where nobody has read yet
            return False
        if self._roster.phase is not Phase.ACTIVE or self._scrubbing:
            return False
        _log.info("scrub starts", bytes=self.size_bytes, rate=rate)
        self._tell("scrub", None, f"begun over {self.size_bytes} bytes")
        self._scrub_pace = Pace(rate)
        self._scrub = Scrub(self.size_bytes, self)
        self._scrub.start()
        self.look()
        self.batch.end()
        return True

    def stop_scrub(self) -> bool:
        """Give up the scrub under way.  False: there is none."""
        if self._scrub is None or self._scrub.step is ScrubStep.OVER:
            return False
        self._scrub.cancel()
        self._tell("scrub", None, f"given up at {self._scrub.position} bytes")
        self.look()
        self.batch.end()
        return True

    def readable(self) -> list[int]:
        """Part of ScrubPort."""
        return sorted(self._roster.readable() & set(self._heard))

    def ask_verify(self, member: int, extent: Extent, scrub: Scrub) -> None:
        """Part of ScrubPort."""
        self.ask(member, FrameType.HASH, extent, (), partial(scrub.answered, member), Flag.VERIFY)

    def found_bad(self, finder: Resync | Scrub, member: int, extent: Extent) -> None:
        """Part of ResyncPort and ScrubPort."""
        if self._roster.phase is Phase.SETTLING:
            self._rot_to_repair[member, extent] = None
        else:
            self._repairs.found(member, extent)

    def _repair_what_was_found(self) -> None:
        found, self._rot_to_repair = self._rot_to_repair, {}
        for member, extent in found:
            if member in self._roster.readable():
                self._repairs.found(member, extent)

    def found_good(self, member: int, extent: Extent) -> None:
        """Part of ScrubPort."""
        self._repairs.good(member, extent)

    def found_different(self, member: int, extent: Extent) -> None:
        """Part of ScrubPort."""
        self._data.distrust(member)
        self._has_diverged(member, f"a scrub found that it differs from the others in {extent}")

    def scrubbed(self, scrub: Scrub) -> None:
        """Part of ScrubPort."""
        _log.info("scrub finished", bytes=scrub.size_bytes, bad=scrub.bad, different=scrub.different)
        self._tell("scrub", None, f"over: {scrub.bad} chunks with rot, {scrub.different} that differ")

    # --- status

    def required(self) -> set[int]:
        """Whose acknowledgement a write needs now."""
        return self._roster.required()

    def self_check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        self._roster.self_check()

    def look(self) -> None:
        """Put down what has changed since the last look; what begins or ends something calls it at once."""
        at_s, now = time.time(), self.status()
        self.history.look(at_s, now)
        self.operations.look(at_s, now)
        if self.on_look is not None:
            self.on_look(at_s, now)

    def status(self) -> VolumeStatus:
        """A picture of this moment."""
        replicas = tuple(self._picture_of(member) for member in self._roster.members.values())
        state, reason = state_of(self._roster, replicas, writes_open=self._data.writes_open)
        return VolumeStatus(
            name=self.options.volume_name,
            volume_id=self.options.volume_id,
            size_bytes=self.size_bytes,
            block_size_bytes=self.options.block_size_bytes,
            state=state,
            reason=reason,
            epoch=self._roster.epoch,
            replicas=replicas,
            scrub=picture_of_scrub(self._scrub),
            parked_requests=self._data.parked,
            locked_requests=self._data.waiting_for_others,
            adding=self._roster.adding,
            removing=self._roster.removing,
            filling=self.fill_status(),
        )

    def _picture_of(self, member: Member) -> ReplicaStatus:
        heard = self._heard.get(member.id)
        return picture_of_replica(
            member,
            address=str(self._addresses.get(member.id, "")),
            directory=self._directories.get(member.id, ""),
            resync=self._resyncs.get(member.id),
            rebuilds=self._rebuilds,
            rot=self._repairs.counts(member.id),
            space=None if heard is None else heard.space,
            lacks=self._data.dirty.get(member.id),
            merge=None if heard is None else heard.merge,
            requests_in_flight=self._data.members[member.id].in_flight,
            now_s=self.clock(),
        )
