"""What a witness without a folder must not forget, and where it is kept: the vote.  Pure.

Several processes may stand for one vote at once: one beside each controller that still runs somewhere.  So it
is kept in a register that all of them read and replace, and each change is a compare-and-swap.  Who answers
(`replica.witness_io`) and where the register is (`maya.witness`) know each other by this module alone.
"""

from typing import Protocol

import attrs

from pyjiva.errors import PyjivaError
from pyjiva.membership import MembershipRecord

__all__ = ["Kept", "Vote", "VoteStore", "VoteUnknown"]


@attrs.frozen
class Vote:
    """One witness' promise and record.  Raises ValueError: a field is impossible."""

    promised_epoch: int = 0
    """The highest epoch it has promised; 0 before the first."""
    promised_to: str = ""
    """The controller that it promised it to."""
    record: MembershipRecord | None = None
    """The newest membership record that it has accepted."""
    writes: int = 0
    """How often it was written.  It only grows: one with a smaller number is of an older time."""

    def __attrs_post_init__(self) -> None:
        counts = (self.promised_epoch, self.writes)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("promised_epoch and writes are counts from 0")
        if type(self.promised_to) is not str or bool(self.promised_to) != bool(self.promised_epoch):
            raise ValueError("promised_to is a string, empty before the first promise and only then")
        if self.record is not None and self.record.epoch > self.promised_epoch:
            raise ValueError("no record is of a higher epoch than the promised one")


@attrs.frozen
class Kept:
    """A vote as it was read or written."""

    vote: Vote
    version: object = attrs.field(eq=False, repr=False)
    """The store's own mark of what it read: `replace` succeeds only while that is what is kept."""


class VoteUnknown(PyjivaError):
    """The store cannot be asked, or nobody knows whether it did what was asked, or it holds no such vote.

    Nothing may be answered on the strength of it.
    """


class VoteStore(Protocol):
    """One register.  Reads and replacements are linearizable: each takes effect at one moment between its
    call and its return.  One whose outcome is not known may take effect later, but only while what it
    replaces is still what is kept.
    """

    async def read(self) -> Kept:
        """What is kept now, never what was known before the call.  Raises VoteUnknown."""
        ...

    async def replace(self, before: Kept, vote: Vote) -> Kept | None:
        """Keep `vote` in the place of `before`; None: another process has replaced that.

        Raises VoteUnknown: it may or may not be kept.
        """
        ...
