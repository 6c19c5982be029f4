"""Who is in: promises, membership records, and which replica may come back when.  Pure.

The theory is DESIGN §5.  In short:

- *Gather.*  Ask every replica that can be reached to promise an epoch above all that were seen.  With
  promises from a majority of the configured replicas, the newest record among them is the truth: only its
  in-sync members may serve.
- *Settle.*  Unless that record says `clean`, in-sync members may differ in writes that were in flight when
  the last controller ended: make them equal from one of them (`Reconcile`) before anything is served.
- *Commit* a record of our own epoch to a majority; then serve.
- A member that fails is taken out by committing a record without it; until then no write that it misses is
  answered.  A member that comes back is rebuilt, then taken in by committing a record with it.

Invariants, which `self_check` states and the tests hold over all events:

I1. Every write that is answered was acknowledged by all of `required()`: the in-sync members of the
    committed record, of a proposed one, of one that was withdrawn since, and members about to join.  So
    whichever of these records survives a crash, its members have the write.
I2. Removal takes effect when its record is committed, admission when it is proposed.
I3. At most one record is on its way; its version is one above that of the last proposed one.
I4. `in_sync` of a record is never empty: the last copy is never given up; it is waited for (mode ABSENT).
I5. A record's configured set differs from that of the record before it by one replica at most.
I6. A record that takes members out is stored first by one that it leaves and that is whole, then by the
    others.  When none of those can be waited for, a newer record takes its place; and an activation that
    finds it stored by none but those, who lost their power since, goes by the one before it.

- *Wait* until the read lease of the controller before us has ended (`lease`), unless its record is clean;
  and in a new volume until each replica that is in sync has stored our record, so that nobody takes one
  that has answered writes for a blank disk.

- *Witnesses* vote and hold no data: they are never chosen, rebuilt or in sync.

The configured set changes by one replica at a time, by a record that a majority of the old set and a
majority of the new one accept (I5).  A new replica is copied to first, as a *learner* without a vote; the
record that configures it also says that it is in sync.  Why this is safe: sets that differ by one replica
have no two majorities without a common member.  A controller takes the newest record among the promises, and
needs promises from a majority of the set that *this record* names.  Say it names C, and a newer record with
C' was committed: a majority of C has accepted that one too, so somebody who promised has it, and it would
have been the newest.  Say it names C', and C' was never committed: a majority of C' meets every majority of
C, so all that was committed with C has been seen.
"""

import enum
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

import attrs

from pyjiva.controller.lease import WAIT_OUT_S
from pyjiva.controller.quorum import REPLICAS_MAX, is_majority
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
from pyjiva.errors import LocalProtocolError
from pyjiva.extent import Extent, merge_extents
from pyjiva.membership import REPLICA_ID_MAX, MembershipRecord
from pyjiva.replication import PromiseAnswer, ReplicaReport

__all__ = ["NEXT_MODE", "PAUSE_S", "Change", "Member", "Mode", "Phase", "Roster"]

GRACE_S: Final = 3.0  # how long an activation waits for in-sync members that have not come yet
PAUSE_S: Final = 0.25  # between bids, while others bid too: doubled each time, and of that a random part
PAUSE_DOUBLINGS_MAX: Final = 7  # that is, at most half a minute


class Mode(enum.Enum):
    """What a member is to the volume."""

    OUT = "out"  # may miss writes: only a rebuild brings it back
    REBUILDING = "rebuilding"  # takes writes to what was copied already: never read from
    JOINING = "joining"  # copied; takes every write and flush; not in a record yet
    IN_SYNC = "in-sync"  # holds every acknowledged write
    ABSENT = "absent"  # in sync by the record, cannot be reached, cannot be given up: writes wait for it


class Change(enum.Enum):
    """Why a mode changes."""

    CHOSEN = "chosen by the activation"
    FAILED = "failed, and the volume goes on without it"
    VANISHED = "failed, and the volume cannot go on without it"
    RETURNED = "came back with all it had"
    REBUILD_STARTED = "rebuild started"
    COPIED = "everything is copied"
    ADMITTED = "a record that names it is committed"


#: A pair that is absent is a bug of ours.
NEXT_MODE: Final[dict[tuple[Mode, Change], Mode]] = {
    (Mode.OUT, Change.CHOSEN): Mode.IN_SYNC,
    (Mode.OUT, Change.FAILED): Mode.OUT,
    (Mode.OUT, Change.REBUILD_STARTED): Mode.REBUILDING,
    (Mode.REBUILDING, Change.COPIED): Mode.JOINING,
    (Mode.REBUILDING, Change.FAILED): Mode.OUT,
    (Mode.JOINING, Change.ADMITTED): Mode.IN_SYNC,
    (Mode.JOINING, Change.FAILED): Mode.OUT,
    (Mode.IN_SYNC, Change.FAILED): Mode.OUT,
    (Mode.IN_SYNC, Change.VANISHED): Mode.ABSENT,
    (Mode.ABSENT, Change.FAILED): Mode.OUT,
    (Mode.ABSENT, Change.RETURNED): Mode.IN_SYNC,
}


class Phase(enum.Enum):
    """How far the volume has come."""

    GATHERING = "gathering"  # asking for promises
    SETTLING = "settling"  # making in-sync members equal
    COMMITTING = "committing"  # our first record is on its way
    ACTIVE = "active"
    STOPPING = "stopping"  # the clean record is on its way
    STOPPED = "stopped"
    FENCED = "fenced"  # another controller has taken over, or the next one has to find out: for ever


@attrs.define
class Member:
    """What we know of one replica."""

    id: int
    witness: bool = False
    """Whether it only votes; its mode stays OUT."""
    mode: Mode = Mode.OUT
    report: ReplicaReport | None = None
    """Set while a connection with a proved key exists."""
    answer: PromiseAnswer | None = None
    """Set while it has promised our epoch on this connection."""
    flushed: bool = False
    """JOINING: what was copied to it is on its stable storage, so the next record may name it."""
    reason: str = "not connected yet"
    """Why it is not in sync, for people."""

    kept_everything: bool = False
    """Its directory is the one that was with us in this epoch, and its machine lost nothing since."""
    accepted_version: int = 0
    """Of the newest record of our epoch that it has accepted."""
    restored: bool = False
    """Its directory does not show that record: it was replaced by a copy from before, or by a blank one."""

    replaced: bool = False
    """It is in sync by the record, and its directory is another one now: it has nothing."""

    @property
    def promised(self) -> bool:
        """Whether it votes for us and may be sent data."""
        return self.answer is not None


@attrs.define
class Proposal:
    """A record on its way to a majority."""

    record: MembershipRecord
    admits: set[int]
    """Members that had joined when it was proposed.  Another one that it names may have been lost since, and
    be joining again: it was not told by this record that it is equal.
    """
    accepted: set[int] = attrs.field(factory=set)


@attrs.define
class Roster:
    """The decider: `apply(event)` answers what the shell must do, in order."""

    controller_id: str
    configured: tuple[int, ...]
    """As the command line says; which replicas the volume has is in its newest record."""
    new_volume: bool = False
    """Whether all replicas may be blank: the volume has never held data."""
    grace_s: float = GRACE_S
    wait_out_s: float = WAIT_OUT_S
    """How long another controller's read lease may last from now."""
    witnesses: frozenset[int] = frozenset()
    addresses: Mapping[int, str] = attrs.field(factory=dict)
    """HOST:PORT, for the records."""
    members: dict[int, Member] = attrs.field(init=False)
    adding: int | None = attrs.field(default=None, init=False)
    """The learner: it is to belong to the volume when it has everything."""
    removing: int | None = attrs.field(default=None, init=False)
    phase: Phase = attrs.field(default=Phase.GATHERING, init=False)
    epoch: int = attrs.field(default=0, init=False)
    """Ours, once chosen; 0 before."""
    committed: MembershipRecord | None = attrs.field(default=None, init=False)
    """The newest record of our epoch that a majority holds."""
    proposal: Proposal | None = attrs.field(default=None, init=False)
    parameters: bytes = attrs.field(default=b"", init=False)
    """The logical unit's: from the newest record, later as it sets them; the next record carries them."""
    waiting_for: str = attrs.field(default="the replicas to be reached", init=False)
    """While not ACTIVE: what for, for people."""
    _now_s: float = attrs.field(default=0.0, init=False)
    _wait_out: bool = attrs.field(default=False, init=False)
    """Whether the controller before us may still hold a read lease."""
    _heard_by_s: float | None = attrs.field(default=None, init=False)
    """A moment when a majority had promised our epoch: no older controller's lease is renewed after it."""
    _majority_since_s: float | None = attrs.field(default=None, init=False)
    _newest: MembershipRecord | None = attrs.field(default=None, init=False)
    """The newest record that any replica has shown."""
    _chosen_from: tuple[int, ...] = attrs.field(default=(), init=False)
    """The configured set of the record that counts, once a majority of it has promised."""
    _addresses: dict[int, str] = attrs.field(init=False)
    _highest_epoch: int = attrs.field(default=0, init=False)
    _to_bid: bool = attrs.field(default=True, init=False)
    """Whether an epoch is to be chosen as soon as a majority is connected."""
    _pause_until_s: float | None = attrs.field(default=None, init=False)
    _pauses: int = attrs.field(default=0, init=False)
    _doubtful: set[int] = attrs.field(factory=set, init=False)
    """In-sync members that have not been heard since the last one was lost."""
    _version: int = attrs.field(default=0, init=False)
    """Of the last record that was proposed."""
    _withdrawn: set[int] = attrs.field(factory=set, init=False)
    """In-sync members of records that were withdrawn since the last one was committed."""
    _withheld: dict[int, AskAccept] = attrs.field(factory=dict, init=False)
    """By member, what it is not asked yet: see `_ask_accept`."""
    _unfit: set[int] = attrs.field(factory=set, init=False)
    """In-sync members whose disks kept the others from being made equal: left behind, if another is whole."""
    _settling: tuple[int, ...] = attrs.field(default=(), init=False)
    """Members that take part in the activation under way."""
    _to_reconcile: Reconcile | None = attrs.field(default=None, init=False)
    """What is to be done when they have the same snapshots."""
    _effects: list[Effect] = attrs.field(factory=list, init=False)
    _changed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.members = {i: Member(i, witness=i in self.witnesses) for i in self.configured}
        self._addresses = dict(self.addresses)

    # --- what the data path asks

    def configurations(self) -> list[tuple[int, ...]]:
        """Sets of replicas of each of which a majority counts: two while a record changes the set (I5)."""
        records = [self.committed, self.proposal.record if self.proposal is not None else None]
        sets = [record.configured for record in records if record is not None]
        if not sets:
            seen = self._newest.configured if self._newest is not None else self.configured
            sets = [self._chosen_from or seen]
        return sets

    def is_majority(self, ids: Iterable[int]) -> bool:
        """Whether `ids` may decide."""
        return is_majority(ids, self.configurations())

    def is_configured(self, member_id: int) -> bool:
        """Whether it belongs to the volume, as far as is known."""
        return any(member_id in configuration for configuration in self.configurations())

    def required(self) -> set[int]:
        """Whose acknowledgement a write needs (I1)."""
        ids = {m.id for m in self.members.values() if m.mode is Mode.JOINING}
        if self.committed is not None:
            ids.update(self.committed.in_sync)
        if self.proposal is not None:
            ids.update(self.proposal.record.in_sync)
        return ids | self._withdrawn

    def readable(self) -> set[int]:
        """Who may answer a read: in sync by mode and by the committed record, and connected."""
        if self.committed is None:
            return set()
        return {
            i
            for i in self.committed.in_sync
            if self.members[i].mode is Mode.IN_SYNC and self.members[i].promised
        }

    def has_stored(self, parameters: bytes) -> bool:
        """Whether these are the newest, the committed record has them, and none with others is on its way."""
        proposed = self.proposal.record if self.proposal is not None else self.committed
        return self.parameters == parameters and all(
            record is not None and record.parameters == parameters for record in (self.committed, proposed)
        )

    @property
    def settling(self) -> tuple[int, ...]:
        """Members that take part in the activation, the one that the others are made equal to first."""
        return self._settling

    def self_check(self) -> None:
        """Raise AssertionError if an invariant does not hold."""
        if self.proposal is not None:
            assert self.proposal.record.in_sync
            assert self.committed is None or self.proposal.record > self.committed
            sets = [set(configuration) for configuration in self.configurations()]
            assert len(sets) == 1 or len(sets[0] ^ sets[1]) <= 1, "one replica at a time (I5)"
        for member in self.members.values():
            assert not member.witness or member.mode is Mode.OUT, f"{member} has no data"
            if member.mode is Mode.IN_SYNC and self.phase in (Phase.ACTIVE, Phase.STOPPING):
                assert member.id in self.required(), f"{member} is in sync and not required"
            if member.mode in (Mode.REBUILDING, Mode.JOINING, Mode.IN_SYNC) and self.phase is Phase.ACTIVE:
                assert member.promised, f"{member} is not connected"

    # --- events

    def apply(self, event: Event) -> list[Effect]:
        """What the shell must do, in order, now that `event` has happened."""
        if self.phase in (Phase.FENCED, Phase.STOPPED):
            return []
        if not isinstance(event, AddReplica) and getattr(event, "member", None) not in {None, *self.members}:
            return []  # of one that was removed meanwhile
        match event:
            case LinkUp():
                self._link_up(event)
            case LinkDown():
                self._link_down(event)
            case Diverged():
                self._diverged(self.members[event.member], event.reason)
            case Promised():
                self._promised(event)
            case Alive():
                self._doubtful.discard(event.member)
            case Fenced():
                self._refused(event)
            case Accepted():
                self._accepted(event)
            case Levelled():
                self._levelled()
            case Reconciled():
                self._reconciled()
            case Unsettled():
                self._unfit.add(event.member)
            case Copied():
                self._change(self.members[event.member], Change.COPIED)
            case Joined():
                self._joined(self.members[event.member])
            case Tick():
                self._now_s = event.at_s
                if self._heard_by_s is None and self._has_majority():
                    self._heard_by_s = event.at_s  # not the time of the tick before the last promise
                if self.phase is Phase.GATHERING:
                    self._end_pause_if_due()
                    self._choose()
                self._serve_if_due()
            case SaveParameters():
                self.parameters = event.parameters
            case AddReplica():
                self._add(event)
            case RemoveReplica():
                self._remove(self.members[event.member])
            case StopRequested():
                self._stop()
            case _:
                assert_never(event)
        if self.phase in (Phase.COMMITTING, Phase.ACTIVE):
            self._begin_again_if_stuck()
        if self.phase is Phase.ACTIVE:
            self._keep_up()
        # Whom to wait for comes first: an admission must hold before any replica hears of it (I2).
        effects: list[Effect] = [MembersChanged()] if self._changed else []
        effects += self._effects
        self._effects, self._changed = [], False
        return effects

    def _keep_up(self) -> None:
        """What an active volume owes after every event, whatever it was."""
        self._give_up_absent()
        self._ask_withheld()
        self._withdraw_if_vain()
        self._propose_if_needed()
        if self.readable():
            for member in self.members.values():
                if (
                    member.mode is Mode.OUT
                    and member.promised
                    and not member.witness
                    and self._belongs(member)
                ):
                    self._change(member, Change.REBUILD_STARTED)
                    member.reason = "being rebuilt"
                    self._effects.append(StartRebuild(member.id))

    def _begin_again_if_stuck(self) -> None:
        """End, for an activation to decide, when every member that is waited for came back incomplete."""
        if any(m.mode is Mode.IN_SYNC for m in self.members.values()):
            return
        if all(m.promised for m in self.members.values() if m.mode is Mode.ABSENT):
            self._fence(
                "no member is whole: their machines went down with writes not yet flushed", again=True
            )

    def _change(self, member: Member, change: Change) -> None:
        mode = NEXT_MODE.get((member.mode, change))
        if mode is None:
            raise LocalProtocolError(f"replica {member.id} is {member.mode.value} and {change.value}")
        member.mode, member.flushed = mode, False
        member.replaced = member.replaced and change is not Change.ADMITTED
        self._changed = True

    # --- gathering

    def _link_up(self, event: LinkUp) -> None:
        member = self.members[event.member]
        report = event.report
        if report.record is not None:
            self._learn(report.record)
        if report.witness != member.witness:
            what = (
                "is a witness, and was given as a replica"
                if report.witness
                else "is a replica, not a witness"
            )
            self._effects.append(Drop(member.id, what))
            member.reason = what
            return
        member.report, member.answer = report, None
        self._highest_epoch = max(self._highest_epoch, report.promised_epoch)
        ours = report.promised_epoch == self.epoch and report.promised_to == self.controller_id
        held = report.record.version if report.record and report.record.epoch == self.epoch else 0
        member.restored = held < member.accepted_version
        member.kept_everything = ours and report.intact and not member.restored
        if member.mode is Mode.ABSENT and report.promised_epoch < self.epoch:  # it had promised ours
            member.replaced = True
        if self.phase is Phase.GATHERING and not self._asking:
            self._bid_if_possible(report)
        elif report.promised_epoch < self.epoch or ours:
            self._effects.append(AskPromise(member.id, self.epoch))
        elif self.phase is Phase.GATHERING:
            self._bid_again()
        else:
            self._overtaken(member, report.promised_epoch)

    def _learn(self, record: MembershipRecord) -> None:
        """Somebody has this record: who belongs to the volume may be others than we were told."""
        if self.committed is not None or (self._newest is not None and record <= self._newest):
            return
        self._newest = record
        for n, i in enumerate(record.configured):
            if i not in self.members:
                self._addresses[i] = record.addresses[n] if record.addresses else ""
                self.members[i] = Member(i)
                self._effects.append(Connect(i, self._addresses[i]))
        for member in self.members.values():
            member.witness = member.id in record.witnesses or (
                member.witness and member.id not in record.configured
            )

    @property
    def _asking(self) -> bool:
        """Whether promises of our epoch are wanted: neither before it is chosen nor in a pause."""
        return not self._to_bid and self._pause_until_s is None

    def _bid_if_possible(self, report: ReplicaReport) -> None:
        if self.epoch and report.record is not None and report.record.epoch > self.epoch:
            # While we paused, another one got through.  To begin again would take the volume from it.
            self._fence(f"another controller has taken over with epoch {report.record.epoch}")
        elif self._to_bid and self.is_majority(m.id for m in self.members.values() if m.report is not None):
            self._choose_epoch()

    def _bid_again(self) -> None:
        """Our epoch is not enough any more: ask for a higher one, unless another controller does the same.

        Two that begin at once would outbid each other for ever, neither getting as far as its first record.
        So each pause is longer than the last one, and of a random length.
        """
        if not self._asking:
            return
        longest_s = PAUSE_S * (2 ** min(self._pauses, PAUSE_DOUBLINGS_MAX) - 1)
        self._pauses += 1
        if not longest_s:  # what is in the way can be what a dead one left
            self._choose_epoch()
            return
        chance = zlib.crc32(f"{self.controller_id} {self.epoch}".encode()) / 2**32
        self._pause_until_s = self._now_s + chance * longest_s
        self.waiting_for = "another controller that is starting too"

    def _end_pause_if_due(self) -> None:
        if self._pause_until_s is not None and self._now_s >= self._pause_until_s:
            self._pause_until_s, self._to_bid = None, True
            for member in self.members.values():  # what they said is old: see _bid_if_possible
                if member.report is not None:
                    self._effects.append(Drop(member.id, "asked anew after a pause"))

    def _choose_epoch(self) -> None:
        self.epoch = max(self.epoch, self._highest_epoch) + 1
        self._to_bid, self._majority_since_s, self._heard_by_s, self._chosen_from = False, None, None, ()
        for member in self.members.values():
            member.answer, member.accepted_version = None, 0
            if member.report is not None:
                self._effects.append(AskPromise(member.id, self.epoch))

    def _refused(self, event: Fenced) -> None:
        self._highest_epoch = max(self._highest_epoch, event.promised_epoch)
        if self.phase is not Phase.GATHERING:
            self._overtaken(self.members[event.member], event.promised_epoch)
        elif event.promised_epoch >= self.epoch:
            self._bid_again()

    def _overtaken(self, member: Member, epoch: int) -> None:
        """`member` has promised `epoch`, which is not ours.  A learner has no vote: it says nothing of us."""
        if self.is_configured(member.id):
            self._fence(f"replica {member.id} has promised epoch {epoch} to another controller")
            return
        why = f"being added, but it has promised epoch {epoch} to another controller: empty its directory"
        self._effects.append(Drop(member.id, why))

    def _fence(self, reason: str, *, again: bool = False) -> None:
        self.phase = Phase.FENCED
        self.waiting_for = reason
        self._effects.append(Fence(reason, again))

    def _promised(self, event: Promised) -> None:
        member = self.members[event.member]
        if event.epoch != self.epoch or member.report is None:
            return  # an answer to a question that we have asked anew since
        member.answer = event.answer
        if event.answer.record is not None:
            self._learn(event.answer.record)
        match self.phase:
            case Phase.GATHERING:
                self._choose()
            case Phase.SETTLING:
                pass
            case Phase.COMMITTING | Phase.ACTIVE | Phase.STOPPING:
                self._welcome(member)
            case Phase.STOPPED | Phase.FENCED:
                raise LocalProtocolError(f"promise after the end: {self.phase.value}")

    def _choose(self) -> None:
        """With a majority: whose data counts, and who must be made equal before it is served.

        Who holds no record has no vote in this, unless all are there: its disk may have been replaced, and
        the newest record gone with it, so that one who was left behind would seem to have everything.
        """
        if not self._asking:
            return
        promised = {m.id: m.answer for m in self.members.values() if m.answer is not None}
        newest = max((a.record for a in promised.values() if a.record is not None), default=None)
        configured = newest.configured if newest is not None else self.configured
        voters = {i for i, answer in promised.items() if newest is None or answer.record is not None}
        if not is_majority(voters, [configured]) and not set(configured) <= set(promised):
            missing = [i for i in configured if i not in promised]
            unknown = [i for i in missing if not self._addresses.get(i, "?")]
            where = f" (give the address of {_names(unknown)})" if unknown else ""
            blank = [i for i in configured if i in promised and i not in voters]
            if blank:
                where += f"; blank, so without a vote: {_names(blank)}"
            self.waiting_for = f"a majority of the replicas: no answer from {_names(missing)}{where}"
            self._majority_since_s, self._heard_by_s, self._chosen_from = None, None, ()
            return
        if self._majority_since_s is None:
            self._majority_since_s = self._now_s
        self._chosen_from = configured
        if newest is None:
            self._choose_blank(promised)
            return
        self.parameters, self._wait_out = newest.parameters, not newest.clean
        candidates, missing = self._candidates(newest, promised)
        if not candidates:
            whom = _names(missing) or "none of those that are there is known to"
            self.waiting_for = f"a replica that holds every write: {whom}"
            return
        intact = {i: a for i, a in candidates.items() if a.intact or newest.clean}
        late = missing or [i for i in configured if not intact and i not in promised]
        if late and self._now_s - self._majority_since_s < self.grace_s:
            self.waiting_for = f"replica {_names(late)}, a little longer"
            return
        before = self._before(newest, promised) if not intact else None
        if before is not None:
            others, missing = self._candidates(before, promised)
            intact = {i: a for i, a in others.items() if a.intact}
            if intact:
                self._chosen_from = before.configured
        if not intact and missing:
            self.waiting_for = (
                f"replica {_names(missing)}: the machines of the others went down with writes not yet flushed"
            )
            return
        fit = {i: a for i, a in intact.items() if i not in self._unfit}
        self._settle(fit or intact or candidates, clean=newest.clean, memory_counts=bool(intact))

    def _candidates(
        self, record: MembershipRecord, promised: Mapping[int, PromiseAnswer]
    ) -> tuple[dict[int, PromiseAnswer], list[int]]:
        """Who may have what `record` says, and who is to be waited for."""
        unborn = self._is_unborn(record, promised)
        candidates = {
            i: promised[i] for i in record.in_sync if i in promised and (unborn or self._took_part(i, record))
        }
        return candidates, [i for i in record.in_sync if i not in promised]

    def _is_unborn(self, record: MembershipRecord, promised: Mapping[int, PromiseAnswer]) -> bool:
        """Whether `record` is of a new volume of which no replica with data has ever stored a record.

        The controller that proposed it died when witnesses alone had stored it.  It names directories that
        have shown nothing yet; they can be believed to be those that it names, and the volume begins:

        - Nothing can have been answered: a write is answered when a majority has stored a record, and where
          a majority needs a replica with data, one of those has it, durably.  So every one that may have it
          must be here and have none: one that cannot be reached may have it, and writes of its own.
        - Where witnesses are a majority by themselves, writes may have been answered before a replica had
          stored its copy of the record.  Those are on all that the newest record names (I1), and they alone
          begin.  As it is not clean and they have no memory that counts, they are compared first.
        - A blank disk in the place of one that held data looks the same.  That there is none is the
          operator's word (`new_volume`), as it is where no witness has a record either.
        """
        known = {*self.configured, *record.configured}
        return (
            self.new_volume
            and known <= set(promised)
            and all(a.record is None or self.members[i].witness for i, a in promised.items())
        )

    def _before(
        self, newest: MembershipRecord, promised: Mapping[int, PromiseAnswer]
    ) -> MembershipRecord | None:
        """The record that `newest` was to replace, if `newest` certainly was never committed.

        Then nothing was answered without the in-sync members of the one before (I1).  One that `newest` left
        may have stored it, and lost its power before another one did (I6).
        """
        before = max(
            (a.record for a in promised.values() if a.record is not None and a.record != newest), default=None
        )
        if before is None or (before.epoch, before.version + 1) != (newest.epoch, newest.version):
            return None
        if not is_majority(promised, [before.configured]):
            return None
        sets = [newest.configured, before.configured]
        may_hold_it = {i for each in sets for i in each if i not in promised}
        may_hold_it |= {i for i, a in promised.items() if a.record is None or a.record == newest}
        return None if is_majority(may_hold_it, sets) else before

    def _took_part(self, member_id: int, record: MembershipRecord) -> bool:
        """Whether this replica can be the one that `record` names, by what it says of itself.

        Who was in sync in an epoch had promised it and held some record.  A blank disk in its place, or an
        old copy of the directory, has the name and not the data.
        """
        member = self.members[member_id]
        assert member.answer is not None
        assert member.report is not None
        held = member.answer.record
        if held is None or not member.answer.told_equal:
            return False
        # What it reported when it connected may be older than what another controller has told it since.
        return max(member.report.promised_epoch, held.epoch) >= record.epoch

    def _choose_blank(self, promised: dict[int, PromiseAnswer]) -> None:
        if not set(self.configured) <= set(promised):
            missing = [i for i in self.configured if i not in promised]
            what = "a new volume begins with all its replicas" if self.new_volume else "the others are blank"
            self.waiting_for = f"replica {_names(missing)}: {what}"
        elif self.new_volume:
            chosen = {i: promised[i] for i in self.configured if not self.members[i].witness}
            self._settle(chosen, clean=True, memory_counts=True)
        else:
            self._effects.append(GiveUp("all replicas are blank, but this volume has held data before"))

    def _settle(self, chosen: dict[int, PromiseAnswer], *, clean: bool, memory_counts: bool) -> None:
        """Let the chosen members have the same snapshots first, and then the same bytes.

        They differ by one change of the snapshots at most: the next one is begun when all have the last.  It
        was made while no write was in flight, so whoever has not made it can do so now, and has the same.
        """
        newest = max(answer.lineage.generation for answer in chosen.values())
        if (
            not memory_counts
        ):  # what they had not flushed when it was made is gone: they would not have the same
            chosen = {i: a for i, a in chosen.items() if a.lineage.generation == newest}
        self._settling = tuple(sorted(chosen))
        source, *targets = self._settling
        extents = _to_compare(chosen.values()) if memory_counts else None
        nothing = clean or not targets or extents == ()
        self._to_reconcile = None if nothing else Reconcile(source, tuple(targets), extents)
        self.phase, self._changed = Phase.SETTLING, True
        self.waiting_for = "the replicas to be made equal after an unclean end"
        if newest or len({answer.lineage.digest for answer in chosen.values()}) > 1:
            first = min(i for i, answer in chosen.items() if answer.lineage.generation == newest)
            self._effects.append(Level(first, self._settling))
        else:
            self._levelled()

    def _levelled(self) -> None:
        if self.phase is not Phase.SETTLING:
            raise LocalProtocolError(f"levelled while {self.phase.value}")
        if self._to_reconcile is None:
            self._propose_first()
        else:
            self._effects.append(self._to_reconcile)

    def _reconciled(self) -> None:
        if self.phase is not Phase.SETTLING:
            raise LocalProtocolError(f"reconciled while {self.phase.value}")
        self._propose_first()

    def _propose_first(self) -> None:
        self.phase = Phase.COMMITTING
        self.waiting_for = "a majority to accept the membership record"
        for i in self._settling:
            self._change(self.members[i], Change.CHOSEN)
            self.members[i].reason = ""
        for member in list(self.members.values()):
            if not self.is_configured(member.id):
                self._forget(member, "it is not one of the volume's replicas: see pyjiva replica add")
            elif member.mode is Mode.OUT and member.promised and not member.witness:
                member.reason = "it missed writes"
        self._propose(self._settling, clean=False)

    # --- records

    def _propose(
        self, in_sync: Iterable[int], *, clean: bool, configured: tuple[int, ...] | None = None
    ) -> None:
        assert self.proposal is None
        configured = configured or self.configurations()[0]
        record = MembershipRecord(
            epoch=self.epoch,
            version=self._version + 1,
            controller_id=self.controller_id,
            configured=configured,
            in_sync=tuple(sorted(in_sync)),
            clean=clean,
            parameters=self.parameters,
            witnesses=tuple(i for i in configured if self.members[i].witness),
            addresses=tuple(self._addresses.get(i, "") for i in configured),
        )
        self._version = record.version
        self.proposal = Proposal(record, {i for i in record.in_sync if self.members[i].mode is Mode.JOINING})
        self._changed = True
        for m in self.members.values():
            if m.promised:
                # Who was in sync before has said so already, and may have lost its memory since.
                equal = m.mode is Mode.JOINING or self.committed is None
                withheld = self._withheld.pop(m.id, None)  # with one that was withdrawn
                took_part = withheld is not None and withheld.took_part
                self._ask_accept(
                    AskAccept(m.id, record, equal=equal and m.id in record.in_sync, took_part=took_part)
                )

    def _ask_accept(self, asked: AskAccept) -> None:
        """Have a record stored, now or when one that it leaves in sync has stored it.

        While none has, those that it takes out may be all that is whole: the others' machines may have lost
        their power, unnoticed; and wherever it is stored, the next activation believes it.
        """
        if self._stands(asked.record) or asked.member in self._left_whole(asked.record):
            self._effects.append(asked)
        else:
            self._withheld[asked.member] = asked

    def _stands(self, record: MembershipRecord) -> bool:
        """Whether everybody may store this record, the proposed or the committed one."""
        if self.committed is None or set(record.in_sync).issuperset(self.committed.in_sync):
            return True
        assert self.proposal is not None
        return not self.proposal.accepted.isdisjoint(record.in_sync)

    def _left_whole(self, record: MembershipRecord) -> set[int]:
        """Who of those that the proposed record names has everything, as far as is known."""
        assert self.proposal is not None
        in_sync = {m.id for m in self.members.values() if m.mode is Mode.IN_SYNC}
        return (in_sync | self.proposal.admits).intersection(record.in_sync)

    def _withdraw_if_vain(self) -> None:
        """Give up a record that nobody is left to store first: `_propose_if_needed` proposes a newer one.

        Somebody may hold it and have lost its power before the answer came, so the newer one is needed even
        if it says what the committed one does.
        """
        if self.proposal is None or self._stands(self.proposal.record):
            return
        record = self.proposal.record
        left = self._left_whole(record) | {m.id for m in self.members.values() if m.mode is Mode.ABSENT}
        wanted = self._wanted()
        if left.isdisjoint(record.in_sync) and wanted and self._one_was_heard(wanted):
            self._withdrawn.update(record.in_sync)
            self.proposal, self._changed = None, True

    def _ask_withheld(self) -> None:
        record = self.proposal.record if self.proposal is not None else self.committed
        assert record is not None
        if self._withheld and self._stands(record):
            withheld, self._withheld = self._withheld, {}
            for member_id, asked in withheld.items():
                if member_id in self.members:
                    self._effects.append(attrs.evolve(asked, record=record))

    def _accepted(self, event: Accepted) -> None:
        member, proposal = self.members[event.member], self.proposal
        member.accepted_version = max(member.accepted_version, event.version)
        if proposal is None or event.version != proposal.record.version:
            self._serve_if_due()  # if it was the last one
            return  # one more than the majority needed, or an older record
        proposal.accepted.add(event.member)
        if not self.is_majority(proposal.accepted):
            return
        self.committed, self.proposal = proposal.record, None
        self._withdrawn.clear()
        self._configuration_committed(self.committed)
        for i in proposal.admits:
            self._change(self.members[i], Change.ADMITTED)
            self.members[i].reason = ""
        self._changed = True
        if self.phase is Phase.STOPPING:
            self._stopped()
        elif self.phase is Phase.COMMITTING:
            self.waiting_for = "the lease of the controller before it to end"
            self._serve_if_due()

    def _has_majority(self) -> bool:
        return self.is_majority(m.id for m in self.members.values() if m.promised)

    def _serve_if_due(self) -> None:
        if self.phase is not Phase.COMMITTING or self.committed is None:
            return
        if unborn := [m.id for m in self.members.values() if self._has_no_record(m)]:
            self.waiting_for = f"the first record of the new volume to be stored by {_names(unborn)}"
            return
        over_at_s = self._heard_by_s + self.wait_out_s if self._heard_by_s is not None else math.inf
        if self._wait_out and self.wait_out_s and self._now_s < over_at_s:
            return
        self.phase, self.waiting_for, self._changed = Phase.ACTIVE, "", True
        self._effects.append(Serve())

    def _has_no_record(self, member: Member) -> bool:
        """Whether a member of a volume that begins would, killed now, look like one that never took part.

        What it answered would be overlooked then, if the others have lost their memory.
        """
        new = member.answer is not None and member.answer.record is None
        return member.mode is Mode.IN_SYNC and new and not member.accepted_version

    def _joined(self, member: Member) -> None:
        if member.mode is not Mode.JOINING:
            raise LocalProtocolError(f"replica {member.id} joined while {member.mode.value}")
        member.flushed = True

    def _wanted(self) -> set[int]:
        """Who ought to be in the next record."""
        return {
            m.id
            for m in self.members.values()
            if (m.mode in (Mode.IN_SYNC, Mode.ABSENT) or (m.mode is Mode.JOINING and m.flushed))
            and m.id != self._leaving
        }

    @property
    def _leaving(self) -> int | None:
        """Who is to be removed, if another one that was heard has everything: as in `_give_up_absent`."""
        stay = (m for m in self.members.values() if m.mode is Mode.IN_SYNC and m.id not in self._doubtful)
        return self.removing if any(m.id != self.removing for m in stay) else None

    def _wanted_configured(self, configured: tuple[int, ...]) -> tuple[int, ...]:
        """Which replicas the next record ought to configure."""
        if self.adding is not None:
            learner = self.members[self.adding]
            ready = learner.promised if learner.witness else learner.mode is Mode.JOINING and learner.flushed
            return (*configured, learner.id) if ready else configured
        return tuple(i for i in configured if i != self._leaving)

    def _propose_if_needed(self) -> None:
        """Commit the next record if the last one is not up to date, and nothing is on its way."""
        committed, wanted = self.committed, self._wanted()
        assert committed is not None
        configured = self._wanted_configured(committed.configured)
        changed = (
            wanted != set(committed.in_sync)
            or any(self.members[i].mode is Mode.JOINING for i in wanted)  # also if named: see Proposal.admits
            or self.parameters != committed.parameters
            or configured != committed.configured
            or self._version != committed.version  # one was withdrawn
        )
        if self.proposal is None and wanted and changed and self._one_was_heard(wanted):
            self._propose(wanted, clean=False, configured=configured)

    def _one_was_heard(self, wanted: set[int]) -> bool:
        """Whether nobody is to be taken out, or one that stays was heard since the last member was lost."""
        assert self.committed is not None
        return wanted.issuperset(self.committed.in_sync) or any(
            m.id in wanted and m.mode is Mode.IN_SYNC and m.id not in self._doubtful
            for m in self.members.values()
        )

    # --- replicas that are added and removed

    def _belongs(self, member: Member) -> bool:
        return member.id == self.adding or self.is_configured(member.id)

    def why_not_add(self, member_id: int) -> str:
        """Why this one cannot be added now; empty when it can."""
        if self.phase is not Phase.ACTIVE:
            return f"the volume waits for {self.waiting_for or 'its end'}"
        if not 1 <= member_id <= REPLICA_ID_MAX:
            return f"replica {member_id}: numbers go from 1 to {REPLICA_ID_MAX}"
        if member_id in self.members:
            return f"replica {member_id} is there already"
        if self.adding is not None or self.removing is not None:
            return f"replica {self.adding or self.removing} is being added or removed: one at a time"
        if sum(self.is_configured(i) for i in self.members) >= REPLICAS_MAX:
            return f"a volume has at most {REPLICAS_MAX} replicas, witnesses included"
        return ""

    def why_not_remove(self, member_id: int) -> str:
        """Why this one cannot be removed now; empty when it can."""
        if self.phase is not Phase.ACTIVE:
            return f"the volume waits for {self.waiting_for or 'its end'}"
        if member_id not in self.members:
            return f"there is no replica {member_id}"
        if member_id == self.adding:
            proposed = self.proposal is not None and member_id in self.proposal.record.configured
            return f"replica {member_id} is just being taken in" if proposed else ""
        if self.adding is not None or self.removing is not None:
            return f"replica {self.adding or self.removing} is being added or removed: one at a time"
        if not self.readable() - {member_id}:
            return f"replica {member_id} is the last one in sync"
        return ""

    def _add(self, event: AddReplica) -> None:
        if why_not := self.why_not_add(event.member):
            raise LocalProtocolError(why_not)
        self.adding = event.member
        self._addresses[event.member] = event.address
        self.members[event.member] = Member(event.member, event.witness, reason="being added")
        self._effects.append(Connect(event.member, event.address))
        self._changed = True

    def _remove(self, member: Member) -> None:
        if why_not := self.why_not_remove(member.id):
            raise LocalProtocolError(why_not)
        if member.id == self.adding:
            self.adding = None
            self._forget(member, "it is not to be added any more")
        else:
            self.removing = member.id

    def _configuration_committed(self, record: MembershipRecord) -> None:
        if self.adding in record.configured:
            assert self.adding is not None
            if self.members[self.adding].witness:
                self.members[self.adding].reason = ""
            self.adding = None
        if self.removing is not None and self.removing not in record.configured:
            self._forget(self.members[self.removing], "it was removed from the volume")
            self.removing = None

    def _forget(self, member: Member, reason: str) -> None:
        del self.members[member.id]
        self._effects.append(Disconnect(member.id, reason))
        self._changed = True

    # --- members that go and come

    def _link_down(self, event: LinkDown) -> None:
        member = self.members[event.member]
        if member.report is None:
            if member.mode in (Mode.OUT, Mode.ABSENT):  # it could not be reached, or was given up already
                member.reason = event.reason
            return
        member.report, member.answer = None, None
        member.reason = event.reason
        self._withheld.pop(member.id, None)
        self._changed = True
        match self.phase:
            case Phase.GATHERING:
                pass
            case Phase.SETTLING:
                if member.id in self._settling:
                    self._effects.append(CancelReconcile())
                    self.phase = Phase.GATHERING
                    # What they said of themselves is not true any more: some have got copies of writes that
                    # only the lost one remembers.
                    self._bid_again()
            case Phase.COMMITTING | Phase.ACTIVE | Phase.STOPPING:
                self._lost(member)
            case Phase.STOPPED | Phase.FENCED:
                raise LocalProtocolError("a link after the end")

    def _lost(self, member: Member) -> None:
        if member.mode in (Mode.REBUILDING, Mode.JOINING):
            self._change(member, Change.FAILED)
            if self.proposal is not None:
                self.proposal.admits.discard(member.id)
        elif member.mode is Mode.IN_SYNC:
            self._change(member, Change.VANISHED)
            self._doubtful = {m.id for m in self.members.values() if m.mode is Mode.IN_SYNC}
            self._effects += map(AskAlive, sorted(self._doubtful))

    def _diverged(self, member: Member, reason: str) -> None:
        """Its bytes are not those of the others: nothing but a rebuild brings it back, majority or not."""
        if member.promised:
            raise LocalProtocolError(f"replica {member.id} has diverged and is still connected")
        if member.mode is Mode.ABSENT:
            self._change(member, Change.FAILED)
        member.reason = reason

    def _give_up_absent(self) -> None:
        """Go on without members that cannot be reached, if a copy is left and a majority can say so (I4).

        A copy that has been heard since the last member was lost.  Else the one that is given up may have
        been the last that is whole, while the machine of the other lost its power unnoticed (DESIGN G1).
        """
        if not self._has_majority():
            return
        if any(m.mode is Mode.IN_SYNC and m.id not in self._doubtful for m in self.members.values()):
            for member in self.members.values():
                if member.mode is Mode.ABSENT:
                    self._change(member, Change.FAILED)

    def _welcome(self, member: Member) -> None:
        """A member has promised while the volume is up, or nearly so."""
        assert member.answer is not None
        record = self.proposal.record if self.proposal is not None else self.committed
        assert record is not None
        equal = took_part = False
        if member.mode is Mode.ABSENT and self._has_everything(member):
            equal, took_part = self.required() == {member.id}, True
            self._change(member, Change.RETURNED)
            self._doubtful.discard(member.id)
            member.reason = ""
            if not member.answer.intact:
                self._effects.append(Forgot(member.id))
            self._effects.append(Replay(member.id))
        elif member.witness:
            member.reason = ""
        # Also one that is behind may hold the record, even one that names it: its vote counts.  Not one that
        # was replaced, if that can be helped: to the next activation it would seem to have everything.
        if not member.replaced or self.proposal is not None or member.id not in record.in_sync:
            self._ask_accept(AskAccept(member.id, record, equal=equal, took_part=took_part))
        self._changed = True

    def _has_everything(self, member: Member) -> bool:
        """Whether an absent member lost nothing while it was away.

        It was never taken out of the record, so nothing was acknowledged without it; only its machine can
        have lost something.  The only copy there is counts all the same: it has everything that was
        flushed.
        """
        assert member.answer is not None
        assert member.report is not None
        if member.replaced or member.restored:  # a blank disk in its place, or an old copy
            return False
        return member.answer.intact or self.required() == {member.id}

    # --- the end

    def _stop(self) -> None:
        everyone = self.committed is not None and all(
            self.members[i].mode is Mode.IN_SYNC and self.members[i].promised for i in self.committed.in_sync
        )
        if self.phase is not Phase.ACTIVE or self.proposal is not None or not everyone:
            self._stopped()
            return
        assert self.committed is not None
        self.phase = Phase.STOPPING
        self._propose(self.committed.in_sync, clean=True)

    def _stopped(self) -> None:
        self.phase = Phase.STOPPED
        self._effects.append(Stopped())


def _to_compare(answers: Iterable[PromiseAnswer]) -> tuple[Extent, ...] | None:
    """The union of what the members remember; None if one of them cannot remember."""
    extents: list[Extent] = []
    for answer in answers:
        if answer.unstable is None:
            return None
        extents += [Extent(offset, length) for offset, length in answer.unstable]
    return tuple(merge_extents(extents))


def _names(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
