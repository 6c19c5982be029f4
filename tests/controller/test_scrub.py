"""Who is right when a scrub finds members that differ, though their checksums are as they should be."""

import attrs
import pytest

from pyjiva.block import Lock
from pyjiva.controller.scrub import Scrub, ScrubStep
from pyjiva.extent import Extent
from pyjiva.replication import ANSWER, Frame, FrameType


@attrs.define(eq=False)
class Port:
    """Three members, and what the scrub said of them."""

    members: list[int] = attrs.field(factory=lambda: [1, 2, 3])
    different: list[int] = attrs.field(factory=list)

    def acquire_shared(self, _extent: Extent, owner: Scrub) -> None:
        owner.lock_held(Lock(0, 1, exclusive=False, owner=owner))

    def release(self, lock: Lock) -> None:
        pass

    def readable(self) -> list[int]:
        return self.members

    def ask_verify(self, member: int, extent: Extent, scrub: Scrub) -> None:
        pass

    def may_go_on(self, _scrub: Scrub) -> bool:
        return True

    def spent(self, scrub: Scrub, length_bytes: int) -> None:
        pass

    def found_bad(self, finder: Scrub, member: int, extent: Extent) -> None:
        pass

    def found_good(self, member: int, extent: Extent) -> None:
        pass

    def found_different(self, member: int, _extent: Extent) -> None:
        self.different.append(member)

    def scrubbed(self, scrub: Scrub) -> None:
        pass


def digest(content: bytes) -> Frame:
    return Frame(FrameType.HASH | ANSWER, 0, 1, 1, 0, 0, 0, memoryview(content))


@pytest.mark.parametrize(
    ("answers", "different"),
    [
        ([(1, b"a"), (2, b"a"), (3, b"b")], [3]),
        ([(3, b"b"), (2, b"a"), (1, b"a")], [3]),
        ([(1, b"a"), (2, b"b"), (3, b"b")], [1]),
        ([(3, b"c"), (2, b"b"), (1, b"a")], [2, 3]),
        ([(1, None), (3, b"b"), (2, b"a")], [3]),
        ([(2, b"b"), (1, b"a"), (3, None)], [2]),
    ],
)
def test_the_fewer_differ_from_the_more_and_of_equally_many_all_from_the_lowest(
    answers: list[tuple[int, bytes | None]], different: list[int]
) -> None:
    port = Port()
    scrub = Scrub(1, port)
    scrub.start()
    for member, content in answers:
        scrub.answered(member, digest(content) if content is not None else None)
    assert scrub.step is ScrubStep.OVER
    assert sorted(port.different) == different


@pytest.mark.parametrize(("last", "different"), [(b"a", []), (b"c", [3])])
def test_a_member_that_is_lost_after_its_answer_is_not_right(last: bytes, different: list[int]) -> None:
    """Else the last one in sync could be taken out for differing from one that is gone."""
    port = Port()
    scrub = Scrub(1, port)
    scrub.start()
    scrub.answered(1, digest(b"b"))
    scrub.answered(2, digest(b"a"))
    scrub.answered(1, None)
    scrub.answered(3, digest(last))
    assert scrub.step is ScrubStep.OVER
    assert port.different == different
