"""Which of several processes leads, by a Lease object, with client-go's rules (`tools/leaderelection`).
Pure.

The holder writes its name and the time into the Lease every RETRY_S.  Others look at it as often; one takes
it over when it has not changed for as long as its holder said (`leaseDurationSeconds`), counted from when
*it* saw the last change: nobody's time of day is compared with another's.  Every write is conditional on
the version that was read, so of several that try only one succeeds.

Why no two lead at once: a holder leads until RENEW_DEADLINE_S after it *sent* its last successful write.
Others saw that write's effect later than it was sent, and wait DURATION_S from there.  Between the two lies
the time for the old leader to stop (5 s), and for clocks that do not run at the same rate.  Assumed: an
identity is used by one process only, and nobody deletes the Lease by hand.

Stricter than client-go, which counts the deadline from when it begins to try.
"""

import enum
from collections.abc import Mapping
from typing import Any, Final, assert_never

import attrs

from pyjiva.errors import ConfigError, LocalProtocolError
from pyjiva.maya.kube.cluster import Object
from pyjiva.maya.kube.resource import LEASES

__all__ = [
    "Due",
    "Effect",
    "Election",
    "Event",
    "Failed",
    "Lead",
    "LeaseSettings",
    "Lose",
    "Read",
    "Refused",
    "Role",
    "Seen",
    "Stopped",
    "Wait",
    "Write",
    "Written",
]

DURATION_S: Final = 15.0  # client-go's, these four
RENEW_DEADLINE_S: Final = 10.0
RETRY_S: Final = 2.0
JITTER: Final = 1.2


@attrs.frozen
class LeaseSettings:
    """How long things take.  Raises ConfigError: they do not go together."""

    duration_s: float = DURATION_S
    """Others leave the holder alone for so long after they saw it renew; whole seconds."""
    renew_deadline_s: float = RENEW_DEADLINE_S
    """The holder stops leading so long after it asked for its last successful renewal."""
    retry_s: float = RETRY_S

    def __attrs_post_init__(self) -> None:
        if not self.duration_s > self.renew_deadline_s > self.retry_s * JITTER > 0 or self.duration_s % 1:
            raise ConfigError(
                f"lease: the duration ({self.duration_s} s, whole seconds) must be longer than the renew "
                f"deadline ({self.renew_deadline_s} s), and that than {JITTER} times the retry period "
                f"({self.retry_s} s)"
            )


class Role(enum.Enum):
    """What this process is."""

    CANDIDATE = "candidate"
    LEADER = "leader"
    OVER = "over"  # it has lost, or given up, what it had; for good


# --- what happens


@attrs.frozen
class Due:
    """It is time to try (again)."""

    now: str
    """The time of day as MicroTime, for people."""


@attrs.frozen
class Seen:
    """The Lease was read; None: there is none."""

    at_s: float
    """When the answer had come."""
    now: str
    lease: Object | None
    chance: float = 0.0
    """0 to 1, for the delay."""


@attrs.frozen
class Written:
    """Our write took effect."""

    sent_at_s: float
    at_s: float
    lease: Object
    """As it is now."""


@attrs.frozen
class Refused:
    """Our write was refused: the Lease is not as we knew it."""

    at_s: float
    chance: float = 0.0


@attrs.frozen
class Failed:
    """Nobody knows what became of a read or a write, or it is not allowed."""

    at_s: float
    chance: float = 0.0


@attrs.frozen
class Stopped:
    """What the leader did has ended, whyever."""

    now: str


Event = Due | Seen | Written | Refused | Failed | Stopped


# --- what to do


@attrs.frozen
class Read:
    """Read the Lease; Seen or Failed follows."""


@attrs.frozen
class Write:
    """Create or update it; Written, Refused or Failed follows."""

    lease: Object
    create: bool = False


@attrs.frozen
class Wait:
    """Due follows after so long."""

    seconds: float


@attrs.frozen
class Lead:
    """Begin, or go on, to lead; until this moment and no longer."""

    until_s: float


@attrs.frozen
class Lose:
    """Stop at once; Stopped follows when that is done."""

    reason: str


Effect = Read | Write | Wait | Lead | Lose


@attrs.define(eq=False)
class Election:
    """One process that wants to lead."""

    namespace: str
    name: str
    identity: str
    settings: LeaseSettings = attrs.field(factory=LeaseSettings)
    role: Role = attrs.field(default=Role.CANDIDATE, init=False)
    until_s: float = attrs.field(default=0.0, init=False)
    """It leads until then, if it leads."""
    _known: Object | None = attrs.field(default=None, init=False)
    """The Lease as last read or written."""
    _changed_at_s: float = attrs.field(default=0.0, init=False)
    """When we saw its record change."""

    @property
    def holder(self) -> str:
        """Who holds it, as far as we know."""
        return str(_record(self._known).get("holderIdentity") or "")

    def apply(self, event: Event) -> list[Effect]:
        """What to do now.  Raises LocalProtocolError: it is over, and this cannot happen any more."""
        if self.role is Role.OVER:
            if isinstance(event, Stopped):
                return []
            raise LocalProtocolError(f"the election is over: {event}")
        match event:
            case Due(now):
                return [Read()] if self.role is Role.CANDIDATE else [self._renewal(now)]
            case Seen():
                return self._look(event)
            case Written():
                return self._hold(event)
            case Refused(at_s, chance):
                # A leader has to know at once whether somebody else holds it; others have time.
                return [Read()] if self.role is Role.LEADER else self._again(at_s, chance)
            case Failed(at_s, chance):
                return self._again(at_s, chance)
            case Stopped(now):
                return self._release(now)
            case _:
                assert_never(event)

    def _look(self, event: Seen) -> list[Effect]:
        self._observe(event.lease, event.at_s)
        if event.lease is None:
            return [Write(self._lease({}, self._ours({}, event.now)), create=True)]
        record = _record(event.lease)
        if self.holder not in ("", self.identity):
            if self.role is Role.LEADER:
                self.role = Role.OVER
                return [Lose(f"{self.holder} holds the lease {self.namespace}/{self.name}")]
            valid_s = float(record.get("leaseDurationSeconds") or 0)
            if self._changed_at_s + valid_s > event.at_s:
                return self._again(event.at_s, event.chance)
        return [self._renewal(event.now)]

    def _hold(self, event: Written) -> list[Effect]:
        self._observe(event.lease, event.at_s)
        until_s = event.sent_at_s + self.settings.renew_deadline_s
        if until_s <= event.at_s:  # ours, but the answer took so long that nothing may be begun upon it
            return self._again(event.at_s, 0.0)
        self.role, self.until_s = Role.LEADER, until_s
        return [Lead(until_s), Wait(self.settings.retry_s)]

    def _again(self, at_s: float, chance: float) -> list[Effect]:
        if self.role is Role.CANDIDATE:
            return [Wait(self.settings.retry_s * (1 + JITTER * chance))]
        if at_s >= self.until_s:
            self.role = Role.OVER
            reason = f"the lease {self.namespace}/{self.name} could not be renewed in time"
            return [Lose(reason)]
        return [Wait(self.settings.retry_s)]

    def _release(self, now: str) -> list[Effect]:
        """Let others have it without waiting, if it is ours."""
        self.role = Role.OVER
        if self._known is None or self.holder != self.identity:
            return []
        record = dict(_record(self._known))
        record |= {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        return [Write(self._lease(self._known, record))]

    def _observe(self, lease: Object | None, at_s: float) -> None:
        if self._known is None or lease is None or _record(lease) != _record(self._known):
            self._changed_at_s = at_s
        self._known = lease

    def _renewal(self, now: str) -> Write:
        assert self._known is not None
        return Write(self._lease(self._known, self._ours(_record(self._known), now)))

    def _ours(self, before: Mapping[str, Any], now: str) -> Object:
        """The record with which we hold it."""
        still = before.get("holderIdentity") == self.identity
        transitions = int(before.get("leaseTransitions") or 0) + (0 if still or not before else 1)
        return {
            **before,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.settings.duration_s),
            "acquireTime": before.get("acquireTime", now) if still else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _lease(self, before: Object, record: Object) -> Object:
        metadata = before.get("metadata") or {"name": self.name, "namespace": self.namespace}
        kind = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        return {**before, **kind, "metadata": metadata, "spec": record}


def _record(lease: Object | None) -> Object:
    return (lease or {}).get("spec") or {}
