"""What takes a while, from its beginning to its end, as pictures of the volume show it."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.operations import (
    CANCELLED,
    DONE,
    ENDED_MAX,
    FAILED,
    REBUILD,
    RUNNING,
    SCRUB,
    Operation,
    Operations,
)
from pyjiva.controller.rebuild_totals import RebuildTotals
from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.status import (
    RebuildStatus,
    ReplicaStatus,
    ScrubStatus,
    VolumeState,
    VolumeStatus,
)

SIZE = 1 << 20


def replica(mode: str, *, begun: int = 0, copied: int | None = None, reason: str = "") -> ReplicaStatus:
    copy = None if copied is None else RebuildStatus(1, 100, copied, copied, 900 - copied, 2.5)
    totals = RebuildTotals(begun=begun)
    return ReplicaStatus(2, "", "", mode, None, copy, RotCounts(), None, None, reason, rebuilds=totals)


def picture(*replicas: ReplicaStatus, scrub: tuple[bool, int] | None = None) -> VolumeStatus:
    walk = None if scrub is None else ScrubStatus(*scrub, bad=0, different=0)
    return VolumeStatus("demo", "0", SIZE, 512, VolumeState.HEALTHY, "", 1, replicas, walk)


def seen(*pictures: VolumeStatus) -> list[Operation]:
    operations = Operations()
    for at_s, each in enumerate(pictures):
        operations.look(float(at_s), each)
    return list(operations)


def test_a_rebuild_has_its_progress() -> None:
    (running,) = seen(picture(replica("out")), picture(replica("rebuilding", begun=1, copied=300)))
    assert running == Operation("1", REBUILD, 2, RUNNING, 1.0, None, 400, 1000, 2.5)


REBUILDING = picture(replica("rebuilding", begun=1, copied=300))


@pytest.mark.parametrize(
    ("then", "state", "reason"),
    [
        (picture(replica("in-sync", begun=1)), DONE, ""),
        (picture(replica("out", begun=1, reason="no answer")), FAILED, "no answer"),
        (picture(), CANCELLED, "the replica is no longer configured"),
    ],
)
def test_how_it_ends(then: VolumeStatus, state: str, reason: str) -> None:
    (ended,) = seen(REBUILDING, then, then)
    assert (ended.state, ended.reason, ended.ended_at_s, ended.eta_s) == (state, reason, 1.0, None)
    assert (ended.done_bytes, ended.total_bytes) == (400, 1000)


def test_one_that_was_begun_again_between_two_looks_is_another_one() -> None:
    first, second = seen(REBUILDING, picture(replica("rebuilding", begun=2, copied=0)))
    assert (first.state, first.reason) == (FAILED, "it was begun again")
    assert (second.state, second.begun_at_s, second.done_bytes) == (RUNNING, 1.0, 100)


def test_when_everything_is_copied_it_has_not_ended() -> None:
    (running,) = seen(REBUILDING, picture(replica("rebuilding", begun=1)))
    assert (running.state, running.done_bytes) == (RUNNING, 400)


def test_a_scrub_that_came_to_the_end_is_done_and_any_other_cancelled() -> None:
    running = picture(scrub=(True, 4096))
    done, cancelled, third = seen(
        picture(), running, picture(scrub=(False, SIZE)), running, picture(scrub=(False, 8192)), running
    )
    assert done == Operation("1", SCRUB, None, DONE, 1.0, 2.0, SIZE, SIZE)
    assert (cancelled.state, cancelled.done_bytes) == (CANCELLED, 8192)
    assert third.state == RUNNING


def test_of_those_that_have_ended_the_newest_are_kept() -> None:
    steps = [picture(scrub=(True, 0)), picture(scrub=(False, SIZE))] * (ENDED_MAX + 3)
    found = seen(*steps)
    assert [each.id for each in found] == [str(n) for n in range(4, ENDED_MAX + 4)]


def test_they_are_found_by_their_id() -> None:
    operations = Operations()
    operations.look(0.0, REBUILDING)
    assert operations.find("1") is not None
    assert operations.find("2") is None


PICTURES = st.builds(
    lambda mode, begun, copied, scrub, there: picture(
        *([replica(mode, begun=begun, copied=copied if mode == "rebuilding" else None)] if there else []),
        scrub=scrub,
    ),
    st.sampled_from(["in-sync", "out", "rebuilding", "witness"]),
    st.integers(0, 2),
    st.none() | st.integers(0, 900),
    st.none() | st.tuples(st.booleans(), st.integers(0, SIZE)),
    st.booleans(),
)


@given(st.lists(PICTURES, max_size=30))
def test_any_pictures_leave_at_most_one_running_of_a_kind(pictures: list[VolumeStatus]) -> None:
    found = seen(*pictures)
    running = [(each.kind, each.replica) for each in found if each.state == RUNNING]
    assert len(set(running)) == len(running)
    assert len({each.id for each in found}) == len(found)
    for each in found:
        assert (each.ended_at_s is None) == (each.state == RUNNING)
        assert each.total_bytes is None or 0 <= each.done_bytes <= each.total_bytes
        assert attrs.asdict(each)
