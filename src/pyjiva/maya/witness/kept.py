"""A vote as `status.witness` of a JivaVolume.  Pure.

The reconciler writes a blank one when it gives the witness its number, before anything runs (`blank`).  From
then on only the witness' processes change it.  So one that is not there was lost, with the rest of the status
of an object that was restored; it is never taken for a vote that has not promised anything yet.

It says of which object and which witness it is, and has a checksum: what was edited, put into another
JivaVolume, or pruned by a definition that does not know a field, is not believed.  The record is a text, so
that no definition prunes anything out of it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs
import xxhash

from pyjiva.membership import MembershipRecord
from pyjiva.vote import Vote, VoteUnknown

__all__ = ["FIELD", "VoteOf", "blank", "vote_of", "with_vote"]

FIELD: Final = "witness"
"""Of a JivaVolume's status."""
_RENEW: Final = "when all copies are in sync, set spec.policy.witness to false, and then to true again"


@attrs.frozen
class VoteOf:
    """Whose vote it is."""

    namespace: str
    name: str
    uid: str
    """Of the JivaVolume: another object of the same name has nothing of its."""
    replica_id: int

    def __str__(self) -> str:
        """For people."""
        return f"JivaVolume {self.namespace}/{self.name}"


def blank(uid: str, replica_id: int) -> dict[str, Any]:
    """The vote of a witness that has not promised anything yet."""
    return _written(uid, replica_id, Vote())


def vote_of(whose: VoteOf, value: Mapping[str, Any] | None) -> Vote:
    """What the object holds.  Raises VoteUnknown: no vote of this witness that could be believed."""
    if value is None:
        raise VoteUnknown(f"there is no {whose}")
    if value["metadata"].get("uid") != whose.uid:
        raise VoteUnknown(f"{whose} was deleted and made anew: it is not the one that this witness is of")
    field = (value.get("status") or {}).get(FIELD)
    if not isinstance(field, dict):
        raise VoteUnknown(f"{whose} has lost its status.{FIELD}: {_RENEW}")
    if field.get("replicaID") != whose.replica_id:
        other = field.get("replicaID")
        raise VoteUnknown(f"{whose} has the vote of witness {other}, and not of {whose.replica_id}")
    try:
        vote = _read(field)
        intact = field == _written(whose.uid, whose.replica_id, vote)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VoteUnknown(f"{whose}: status.{FIELD} is damaged ({error}): {_RENEW}") from error
    if not intact:
        raise VoteUnknown(f"{whose}: status.{FIELD} is not what a witness wrote there: {_RENEW}")
    return vote


def with_vote(whose: VoteOf, value: Mapping[str, Any], vote: Vote) -> dict[str, Any]:
    """The object with `vote` in it, and all else as it was."""
    status = {**(value.get("status") or {}), FIELD: _written(whose.uid, whose.replica_id, vote)}
    return {**value, "status": status}


def _read(field: Mapping[str, Any]) -> Vote:
    record = field.get("record", "")
    return Vote(
        promised_epoch=field["promisedEpoch"],
        promised_to=field.get("promisedTo", ""),
        record=MembershipRecord.from_dict(json.loads(record)) if record else None,
        writes=field["writes"],
    )


def _written(uid: str, replica_id: int, vote: Vote) -> dict[str, Any]:
    field: dict[str, Any] = {
        "replicaID": replica_id,
        "promisedEpoch": vote.promised_epoch,
        "writes": vote.writes,
    }
    if vote.promised_to:
        field["promisedTo"] = vote.promised_to
    if vote.record is not None:
        field["record"] = json.dumps(vote.record.to_dict(), sort_keys=True, separators=(",", ":"))
    canonical = json.dumps([uid, field], sort_keys=True, separators=(",", ":"))
    return {**field, "checksum": xxhash.xxh3_64_hexdigest(canonical.encode())}
