"""What a replica may promise and accept: the fence.  Pure.

A promise is for ever: once a replica has promised epoch E to controller C, it refuses every lower epoch and
every other controller of epoch E, also after a restart.  So of two controllers at most one can hold the
promises of a majority, and only it can commit records and, since every in-sync member must answer a write,
get a write acknowledged (DESIGN G3).
"""

from typing import TypeVar

import attrs

from pyjiva.errors import PyjivaError
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import ReplicaState
from pyjiva.vote import Vote

__all__ = ["Fenced", "accept", "promise"]

_State = TypeVar("_State", ReplicaState, Vote)
"""What a replica keeps in its directory, or a witness in a register."""


class Fenced(PyjivaError):
    """The asker was overtaken by another controller; `promised_epoch` is what it would have to exceed."""

    def __init__(self, promised_epoch: int, reason: str) -> None:
        super().__init__(reason)
        self.promised_epoch = promised_epoch


def promise(state: _State, *, epoch: int, controller_id: str) -> _State:
    """The state after promising `epoch` to `controller_id`; the same object when that promise stands
    already.

    Raises Fenced: a higher epoch is promised, or this epoch to another controller.
    """
    if epoch < 1 or epoch < state.promised_epoch:
        raise Fenced(state.promised_epoch, f"epoch {epoch} asked, epoch {state.promised_epoch} is promised")
    if epoch == state.promised_epoch:
        if controller_id != state.promised_to:
            raise Fenced(epoch, f"epoch {epoch} is promised to another controller")
        return state
    return attrs.evolve(state, promised_epoch=epoch, promised_to=controller_id)


def accept(state: _State, record: MembershipRecord, *, epoch: int) -> _State:
    """The state after accepting `record` from the controller of `epoch`; the same object when it is held
    already.

    Raises Fenced: `epoch` is not the promised one.
    """
    if epoch != state.promised_epoch or record.epoch != epoch:
        raise Fenced(
            state.promised_epoch, f"record of epoch {record.epoch}, epoch {state.promised_epoch} is promised"
        )
    if state.record is not None and record < state.record:
        raise Fenced(state.promised_epoch, f"record version {record.version} is older than the one held")
    return state if state.record == record else attrs.evolve(state, record=record)
