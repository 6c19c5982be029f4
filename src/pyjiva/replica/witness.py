"""What a witness whose vote is in a register decides.  Pure.

The rules are those of every replica (`promise`).  What differs is that others stand for the same vote, and
that a write whose outcome was not heard may still take effect later.  So every promise is written, also one
that stands already: from then on no older write takes effect, as what it was to replace is gone
(docs/decisions/0020-witness-in-the-jivavolume.md).
"""

import enum

import attrs

from pyjiva.membership import MembershipRecord
from pyjiva.replica.promise import Fenced, accept, promise
from pyjiva.vote import Vote

__all__ = ["Standing", "accepted", "promised", "standing"]


class Standing(enum.Enum):
    """What has become of a promise."""

    STANDS = "stands"
    SUPERSEDED = "superseded"  # its controller has another epoch
    OVERTAKEN = "overtaken"  # another controller was promised one


def standing(vote: Vote, *, epoch: int, controller_id: str) -> Standing:
    """What has become of the promise of `epoch` to `controller_id`, by the vote as it is."""
    if vote.promised_to != controller_id:
        return Standing.OVERTAKEN
    return Standing.STANDS if vote.promised_epoch == epoch else Standing.SUPERSEDED


def promised(vote: Vote, *, epoch: int, controller_id: str) -> Vote:
    """The vote to be kept before the promise is answered.  Raises Fenced."""
    after = promise(vote, epoch=epoch, controller_id=controller_id)
    return attrs.evolve(after, writes=vote.writes + 1)


def accepted(vote: Vote, record: MembershipRecord, *, epoch: int, controller_id: str) -> Vote:
    """The vote to be kept before the record is answered; the same object when it is kept already.

    Raises Fenced.
    """
    if standing(vote, epoch=epoch, controller_id=controller_id) is not Standing.STANDS:
        raise Fenced(vote.promised_epoch, f"epoch {vote.promised_epoch} is promised, to another controller")
    after = accept(vote, record, epoch=epoch)
    return after if after is vote else attrs.evolve(after, writes=vote.writes + 1)
