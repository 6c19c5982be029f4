"""What a replica is asked for while it is brought up to the volume's snapshots and size."""

from collections.abc import Callable

import attrs
import pytest

from pyjiva.controller.catch_up import CatchUp
from pyjiva.errors import RemoteProtocolError
from pyjiva.lineage import Change, ChangeKind, Lineage
from pyjiva.replication import Frame, FrameType, LineageAnswer, Status, decode_message, encode_message

GOAL = Lineage(size_bytes=4096, generation=3)
LARGER = Lineage(size_bytes=8192, generation=3)
"""It grew when the others made a snapshot, which they have deleted since."""


@attrs.define
class Target:
    """A replica of a volume that carries everything out, and the volume."""

    lineage: Lineage
    changes: list[Change] = attrs.field(factory=list)
    events: list[str] = attrs.field(factory=list)

    def ask_about_past(
        self, member: int, type_: FrameType, payload: bytes, on_answer: Callable[[Frame | None], None]
    ) -> None:
        answer = b""
        if type_ == FrameType.LINEAGE:
            answer = encode_message(LineageAnswer(self.lineage, 0, {}, 0))
        else:
            self.changes.append(decode_message(payload, Change))
            self.lineage = self.lineage.apply(self.changes[-1])
        on_answer(Frame(type_, 0, Status.OK, 1, 0, 0, 0, memoryview(answer)))

    def compare_snapshot(self, catch_up: CatchUp, number: int) -> None:
        self.events.append(f"compare {number}")

    def live_content_changes(self, catch_up: CatchUp) -> None:
        self.events.append("compare everything")

    def caught_up(self, catch_up: CatchUp) -> None:
        self.events.append("caught up")

    def could_not_catch_up(self, catch_up: CatchUp, reason: str) -> None:
        self.events.append(reason)


@pytest.mark.parametrize("generation", [2, 3, 4])
def test_a_target_that_is_larger_than_the_volume_becomes_smaller(generation: int) -> None:
    target = Target(attrs.evolve(LARGER, generation=generation))
    CatchUp(1, GOAL, target).start()
    assert target.lineage == GOAL
    kinds = [change.kind for change in target.changes]
    assert kinds == [ChangeKind.SHRINK] + [ChangeKind.LEVEL] * (generation != 3)
    assert target.events == ["caught up"], "what it lacks of the live content, its map says"


def test_a_member_in_sync_never_becomes_smaller() -> None:
    target = Target(LARGER)
    with pytest.raises(RemoteProtocolError, match="larger than the others"):
        CatchUp(1, GOAL, target, compares=False).start()
    assert target.changes == []
