"""The witness daemon: keeps promises in a register that other processes share.  The trio shell.

It speaks what replicas speak, as far as that is for a witness: handshake, promises, records and pings.  Every
answer stands on what the register says, never on what this process remembers:

- A *promise* and a *record* are kept by a compare-and-swap before they are answered; where that was lost to
  another process, it is decided anew.  What nobody knows the outcome of is not answered: the connection ends.
- A *ping* confirms an epoch, for the read lease, so it is answered by a read that began after it came in;
  pings that come while one is under way share the next.  When the register cannot be asked, the connections
  end, and the witness counts as out until it can.
- A vote that is older than one that this process has seen was put back by somebody, from a backup perhaps.
  Then it answers nothing any more: the promise that is missing may have been given.

Why that is enough, with several such processes: docs/decisions/0020-witness-in-the-jivavolume.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from pyjiva.errors import RemoteProtocolError
from pyjiva.lineage import Lineage
from pyjiva.membership import MembershipRecord
from pyjiva.replica.connections_io import Connections
from pyjiva.replica.keeper_io import Keeper
from pyjiva.replica.promise import Fenced
from pyjiva.replica.session import Phase, Session, answer, refuse
from pyjiva.replica.witness import Standing, accepted, promised, standing
from pyjiva.replication import (
    Frame,
    FrameType,
    LineageMark,
    PingAnswer,
    PromiseAnswer,
    ReplicaReport,
    Status,
    decode_message,
)
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.tls_sys import Tls
from pyjiva.vote import Kept, Vote, VoteStore, VoteUnknown

__all__ = ["WitnessDaemon", "WitnessIdentity"]

STORE_S: Final = 2.0  # less than a controller waits for a handshake, or for a sign of life
AGAIN_S: Final = 0.5  # until a register that did not answer is asked again, within that
PINGS_MAX: Final = 64  # a controller waits for its last one; more is a broken one

_NO_SNAPSHOTS: Final = LineageMark.of(Lineage(size_bytes=0))

_log = structlog.get_logger(__name__)


@attrs.frozen
class WitnessIdentity:
    """Who it is."""

    volume_id: str
    replica_id: int
    place: str
    """Where its vote is, for people: it has no directory."""


@attrs.define(eq=False)
class WitnessDaemon:
    """One of the processes that stand for one witness."""

    identity: WitnessIdentity
    votes: VoteStore
    key: bytes = attrs.field(repr=False)
    batch: EndOfBatch
    tls: Tls | None = None
    _connections: Connections = attrs.field(init=False)
    _keeper: Keeper = attrs.field(init=False)
    _attached: Session | None = attrs.field(default=None, init=False)
    _pings: list[tuple[Session, Frame]] = attrs.field(factory=list, init=False)
    """That have come since the last read began."""
    _pinged: trio.Event = attrs.field(factory=trio.Event, init=False)
    _seen_writes: int = attrs.field(default=0, init=False)
    """Of the newest vote that was ever seen."""
    _went_back: str = attrs.field(default="", init=False)
    """Why nothing is answered any more; "": it is."""
    _trouble: str = attrs.field(default="", init=False)
    """What was logged last of a register that does not answer; "": it does."""

    def __attrs_post_init__(self) -> None:
        self._keeper = Keeper(self.batch)
        self._connections = Connections(
            self.batch, self.tls, _no_data, _ignore_data, self._control, self._left
        )

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve controllers on `host`:`port` until cancelled; reports the port.  Raises OSError: it is
        taken.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            await self._connections.serve(host, port, task_status=task_status)

    async def run(self) -> None:
        """The tasks that all connections share.  Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._answer_pings)

    async def serve_connection(self, stream: Stream) -> None:
        """Serve one controller until its connection ends.  Needs `run` beside it."""
        await self._connections.serve_connection(stream)

    def _left(self, session: Session) -> None:
        if session is self._attached:
            self._attached = None
            _log.info("controller disconnected")

    def _control(self, session: Session, frame: Frame) -> None:
        session.check_allowed(frame)
        identity = self.identity
        match FrameType(frame.type):
            case FrameType.HELLO:
                session.greet(
                    frame, key=self.key, volume_id=identity.volume_id, replica_id=identity.replica_id
                )
            case FrameType.AUTHENTICATE:
                session.authenticate(frame, key=self.key, replica_id=identity.replica_id)
                self._connections.proved(session)
                self._keeper.soon(session, frame, partial(self._report, session, frame))
            case FrameType.PING if len(self._pings) < PINGS_MAX:
                self._pings.append((session, frame))
                self._pinged.set()
            case FrameType.PING:
                refuse(session.peer, frame, Status.NOT_READY, "too many pings at once")
            case FrameType.PROMISE if session.hello is None or not session.hello.controller_id:
                raise RemoteProtocolError("a controller without an id has asked for a promise")
            case FrameType.PROMISE:
                self._keeper.soon(session, frame, partial(self._promise, session, frame))
            case FrameType.ACCEPT:
                record = decode_message(frame.payload, MembershipRecord)
                self._keeper.soon(session, frame, partial(self._accept, session, frame, record))
            case FrameType.SHARE:
                refuse(session.peer, frame, Status.NOT_SUPPORTED, "a witness takes no data")
            case _:
                raise RemoteProtocolError(f"frame type {frame.type} is not for a witness")

    # --- the register

    async def _read(self) -> Kept:
        """What is kept now.  Raises VoteUnknown."""
        seen, trouble = self._seen_writes, VoteUnknown(f"no answer within {STORE_S:g} s")
        with trio.move_on_after(STORE_S):
            while True:
                self._refuse_if_it_went_back()
                try:
                    kept = await self.votes.read()
                except VoteUnknown as error:
                    trouble = error
                    await trio.sleep(AGAIN_S)
                else:
                    return self._saw(kept, seen)
        raise trouble

    def _saw(self, kept: Kept, at_least: int) -> Kept:
        """`at_least`: the number of writes that was known before the register was asked."""
        writes = kept.vote.writes
        if writes < at_least:
            self._went_back = (
                f"its vote went back from write {at_least} to {writes}, as from a backup: "
                "when all copies are in sync, take the witness away and add another"
            )
            _log.error("the witness answers nothing any more", reason=self._went_back)
        self._refuse_if_it_went_back()
        self._seen_writes = max(self._seen_writes, writes)
        if self._trouble:
            self._trouble = ""
            _log.info("the vote can be read again", place=self.identity.place)
        return kept

    def _refuse_if_it_went_back(self) -> None:
        if self._went_back:
            raise VoteUnknown(self._went_back)

    async def _change(self, decide: Callable[[Vote], Vote]) -> Vote:
        """Keep what `decide` makes of the vote, whoever changes it meanwhile.

        Raises Fenced, from `decide`; VoteUnknown.
        """
        with trio.move_on_after(STORE_S):
            while True:
                kept = await self._read()
                vote = decide(kept.vote)
                if vote is kept.vote:
                    return vote
                if (after := await self.votes.replace(kept, vote)) is not None:
                    return self._saw(after, vote.writes).vote
        raise VoteUnknown(f"not kept within {STORE_S:g} s")

    def _end(self, session: Session, error: VoteUnknown) -> None:
        """Nothing can be said to this controller: it has to ask again."""
        self._tell(error)
        session.phase = Phase.REPLACED
        session.peer.shut_down()

    def _tell(self, error: VoteUnknown) -> None:
        if self._trouble != str(error):
            self._trouble = str(error)
            _log.warning("the witness cannot answer", place=self.identity.place, reason=str(error))

    # --- answers

    async def _report(self, session: Session, frame: Frame) -> None:
        try:
            vote = (await self._read()).vote
        except VoteUnknown as error:
            self._tell(error)
            session.phase = Phase.REPLACED  # the controller ends the connection, and tells people why
            refuse(session.peer, frame, Status.NOT_READY, str(error))
            return
        report = ReplicaReport(
            volume_id=self.identity.volume_id,
            replica_id=self.identity.replica_id,
            size_bytes=0,
            block_size_bytes=0,
            directory=self.identity.place,
            promised_epoch=vote.promised_epoch,
            promised_to=vote.promised_to,
            record=vote.record,
            intact=True,
            witness=True,
        )
        answer(session.peer, frame, message=report)

    async def _answer_pings(self) -> None:
        while True:
            await self._pinged.wait()
            self._pinged = trio.Event()
            waiting, self._pings = self._pings, []
            try:
                vote = (await self._read()).vote
            except VoteUnknown as error:
                for session, _ in waiting:
                    self._end(session, error)
            else:
                for session, frame in waiting:
                    self._answer_ping(session, frame, vote)
            self.batch.end()

    def _answer_ping(self, session: Session, frame: Frame, vote: Vote) -> None:
        if session.phase is Phase.REPLACED:
            return
        assert session.hello is not None
        now = standing(vote, epoch=frame.epoch, controller_id=session.hello.controller_id)
        if now is Standing.STANDS:
            answer(session.peer, frame, message=PingAnswer(0.0, None, None, None, None))
        elif now is Standing.OVERTAKEN and session.phase is Phase.ATTACHED:
            told = f"epoch {vote.promised_epoch} is promised to another controller"
            refuse(session.peer, frame, Status.FENCED, told, epoch=vote.promised_epoch)
        else:  # a sign of life, which confirms nothing
            refuse(session.peer, frame, Status.NOT_READY, f"epoch {frame.epoch} is not promised")

    async def _kept_or_told(
        self, session: Session, frame: Frame, decide: Callable[[Vote], Vote]
    ) -> Vote | None:
        """`_change`; None: it was not done, and the controller has been told so, as far as it can be."""
        try:
            return await self._change(decide)
        except Fenced as fenced:
            refuse(session.peer, frame, Status.FENCED, str(fenced), epoch=fenced.promised_epoch)
        except VoteUnknown as error:
            self._end(session, error)
        return None

    async def _promise(self, session: Session, frame: Frame) -> None:
        if session.phase is Phase.REPLACED:  # it left while it waited for its turn
            return
        assert session.hello is not None
        controller_id = session.hello.controller_id
        decide = partial(promised, epoch=frame.epoch, controller_id=controller_id)
        vote = await self._kept_or_told(session, frame, decide)
        if vote is None:
            return
        if self._attached is not None and self._attached is not session:
            self._attached.phase = Phase.REPLACED
            self._attached.peer.shut_down()
            self._attached = None
        if session.phase is Phase.KNOWN:
            session.phase = Phase.ATTACHED
            self._attached = session
        answer(session.peer, frame, message=PromiseAnswer(vote.record, True, (), False, _NO_SNAPSHOTS))
        _log.info("epoch promised", epoch=frame.epoch, controller=controller_id)

    async def _accept(self, session: Session, frame: Frame, record: MembershipRecord) -> None:
        if session.phase is Phase.REPLACED:  # it waited behind the promise that replaced it
            return
        assert session.hello is not None
        decide = partial(
            accepted, record=record, epoch=frame.epoch, controller_id=session.hello.controller_id
        )
        if await self._kept_or_told(session, frame, decide) is None:
            return
        answer(session.peer, frame)
        names = ",".join(map(str, record.in_sync))
        _log.info("membership record accepted", epoch=record.epoch, version=record.version, in_sync=names)


def _no_data(_frame: Frame) -> bool:
    return False


def _ignore_data(session: Session, frame: Frame) -> None:
    raise AssertionError(f"frame type {frame.type} of {session} was taken for data")
