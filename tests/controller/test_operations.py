"""What takes a while, from its beginning to its end, as pictures of the volume show it."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.operations import (
    ADD,
    CANCELLED,
    DONE,
    ENDED_MAX,
    FAILED,
    FILL,
    MERGE,
    REBUILD,
    REMOVE,
    RUNNING,
    SCRUB,
    Operation,
    Operations,
)
from pyjiva.controller.rebuild_totals import RebuildTotals
from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.status import (
    FillStatus,
    MergeStatus,
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


def picture(
    *replicas: ReplicaStatus,
    scrub: tuple[bool, int] | None = None,
    adding: int | None = None,
    removing: int | None = None,
    filled: int | None = None,
) -> VolumeStatus:
    walk = None if scrub is None else ScrubStatus(*scrub, bad=0, different=0)
    status = VolumeStatus("demo", "0", SIZE, 512, VolumeState.HEALTHY, "", 1, replicas, walk)
    filling = None if filled is None else FillStatus(filled, 1000, over=filled == 1000)
    return attrs.evolve(status, adding=adding, removing=removing, filling=filling)


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


@pytest.mark.parametrize(
    ("then", "state", "reason"),
    [
        (picture(replica("in-sync")), DONE, ""),
        (picture(replica("witness")), DONE, ""),
        (picture(), CANCELLED, "it is not to be added any more"),
    ],
)
def test_how_the_adding_of_a_replica_ends(then: VolumeStatus, state: str, reason: str) -> None:
    (ended,) = seen(picture(replica("out"), adding=2), then, then)
    assert ended == Operation("1", ADD, 2, state, 0.0, 1.0, reason=reason)


def test_a_replica_that_is_added_has_the_progress_of_its_rebuild() -> None:
    copying = replica("rebuilding", begun=1, copied=300)
    rebuild, adding = seen(picture(copying, adding=2))
    assert (rebuild.kind, adding.kind) == (REBUILD, ADD)
    assert (adding.done_bytes, adding.total_bytes, adding.eta_s) == (400, 1000, 2.5)


def test_when_its_rebuild_breaks_off_it_is_still_being_added() -> None:
    copying = picture(replica("rebuilding", begun=1, copied=300), adding=2)
    rebuild, adding = seen(copying, picture(replica("out", begun=1, reason="no answer"), adding=2))
    assert (rebuild.state, adding.state) == (FAILED, RUNNING)


@pytest.mark.parametrize(
    ("then", "state", "reason"),
    [
        (picture(), DONE, ""),
        (picture(replica("in-sync")), FAILED, "it still belongs to the volume"),
    ],
)
def test_how_the_removal_of_a_replica_ends(then: VolumeStatus, state: str, reason: str) -> None:
    (ended,) = seen(picture(replica("in-sync"), removing=2), then, then)
    assert ended == Operation("1", REMOVE, 2, state, 0.0, 1.0, reason=reason)


def test_another_replica_is_another_operation() -> None:
    first, second = seen(picture(replica("out"), adding=2), picture(replica("out"), adding=3))
    assert (first.replica, first.state, second.replica, second.state) == (2, DONE, 3, RUNNING)
    first, second = seen(picture(removing=2), picture(removing=3))
    assert (first.replica, first.state, second.replica, second.state) == (2, DONE, 3, RUNNING)


def test_a_volume_is_filled_until_everything_is_there() -> None:
    (begun,) = seen(picture(), picture(filled=0))
    assert begun == Operation("1", FILL, None, RUNNING, 1.0, None, 0, 1000)
    (running,) = seen(picture(filled=0), picture(filled=250), picture(filled=250))
    assert (running.done_bytes, running.total_bytes, running.eta_s) == (250, 1000, 6.0)
    (done,) = seen(picture(filled=250), picture(filled=1000), picture(filled=1000))
    assert done == Operation("1", FILL, None, DONE, 0.0, 1.0, 1000, 1000)


def test_of_those_that_have_ended_the_newest_are_kept() -> None:
    steps = [picture(scrub=(True, 0)), picture(scrub=(False, SIZE))] * (ENDED_MAX + 3)
    found = seen(*steps)
    assert [each.id for each in found] == [str(n) for n in range(4, ENDED_MAX + 4)]


def test_they_are_found_by_their_id() -> None:
    operations = Operations()
    operations.look(0.0, REBUILDING)
    assert operations.find("1") is not None
    assert operations.find("2") is None
    assert operations.running(REBUILD, 2) == operations.find("1")
    assert operations.running(REBUILD, 3) is None
    operations.look(1.0, picture())
    assert operations.running(REBUILD, 2) is None


PICTURES = st.builds(
    lambda mode, begun, copied, scrub, there, adding, removing, filled: picture(
        *([replica(mode, begun=begun, copied=copied if mode == "rebuilding" else None)] if there else []),
        scrub=scrub,
        adding=adding,
        removing=removing,
        filled=filled,
    ),
    st.sampled_from(["in-sync", "out", "rebuilding", "witness"]),
    st.integers(0, 2),
    st.none() | st.integers(0, 900),
    st.none() | st.tuples(st.booleans(), st.integers(0, SIZE)),
    st.booleans(),
    st.sampled_from([None, 2, 3]),
    st.sampled_from([None, 2, 3]),
    st.none() | st.integers(0, 1000),
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


def merging(mode: str, done: int | None = None, left: int = 0) -> ReplicaStatus:
    merge = None if done is None else MergeStatus(done, left)
    return attrs.evolve(replica(mode), merge=merge, reason="no answer" if mode == "out" else "")


def test_space_that_is_given_back_is_an_operation_of_each_replica() -> None:
    pictures = [picture(merging("in-sync", done, left)) for done, left in ((0, 0), (0, 800), (200, 600))]
    (under_way,) = seen(*pictures)
    assert under_way == Operation("1", MERGE, 2, RUNNING, 0.0, None, 200, 800, eta_s=6.0)
    more = picture(merging("in-sync", 300, 900))  # another snapshot was deleted
    assert seen(*pictures, more)[0].total_bytes == 1200
    (ended,) = seen(*pictures, more, picture(merging("in-sync")))
    assert ended == Operation("1", MERGE, 2, DONE, 0.0, 4.0, 1200, 1200)


@pytest.mark.parametrize(
    ("then", "state", "reason"),
    [
        (picture(merging("out")), FAILED, "the replica was lost; it goes on when it is back"),
        (picture(), CANCELLED, "the replica is no longer configured"),
    ],
)
def test_a_merge_of_a_replica_that_goes(then: VolumeStatus, state: str, reason: str) -> None:
    (ended,) = seen(picture(merging("in-sync", 100, 700)), then)
    assert (ended.state, ended.reason, ended.done_bytes, ended.total_bytes) == (state, reason, 100, 800)


def test_whoever_asks_is_told_of_each_end_once() -> None:
    operations, told = Operations(), list[Operation]()
    operations.on_ended = told.append
    for at_s, each in enumerate([picture(merging("in-sync", 1, 1)), picture(merging("in-sync")), picture()]):
        operations.look(float(at_s), each)
    assert told == list(operations)
