"""Changes of the snapshots in the data path: what a refusal says of who has made one."""

import pytest

from pyjiva.controller.change_request import ChangeRequest
from pyjiva.errors import StorageFailure
from pyjiva.lineage import Change, ChangeKind
from pyjiva.replication import FrameType, Refusal, Status, encode_message
from tests.controller.members import SIZE_BYTES, Bench, answer

CREATE = Change(kind=ChangeKind.CREATE, before=0, after=1, number=1, name="one")


def ask(bench: Bench, change: Change = CREATE) -> ChangeRequest:
    request = ChangeRequest(change, SIZE_BYTES, bench.done)
    bench.data.submit(request)
    return request


def refuse(bench: Bench, id_: int, status: Status) -> None:
    frame = bench.frame(id_, FrameType.CHANGE)
    bench.members[id_].inbox.remove(frame)
    bench.data.answered(id_, answer(frame, status, payload=encode_message(Refusal("its disk"))))


def test_what_all_refuse_for_certain_has_not_happened_and_nobody_is_lost() -> None:
    bench = Bench()
    request = ask(bench)
    for id_ in (1, 2, 3):
        refuse(bench, id_, Status.NO_SPACE)
    assert request.error is not None
    assert request.error.failure is StorageFailure.NO_SPACE
    assert bench.changes == [(CREATE, False)]
    assert bench.lost == bench.diverged == []


def test_who_may_have_made_what_the_others_refuse_comes_back_only_by_a_rebuild() -> None:
    """It would have a snapshot that the others do not, of a number that they give to the next one."""
    bench = Bench()
    request = ask(bench)
    refuse(bench, 1, Status.WRITE_ERROR)
    refuse(bench, 2, Status.NO_SPACE)
    refuse(bench, 3, Status.NOT_SUPPORTED)
    assert bench.diverged == [1]
    assert bench.answered == []
    bench.down(1)
    bench.now(2, 3)
    assert bench.answered == [request]
    assert request.error is not None
    assert bench.changes == [(CREATE, False)]


def test_when_nobody_is_sure_nobody_says_that_it_did_not_happen() -> None:
    """Campaign seed 224: a snapshot was deleted on the only disk, which then failed; so the next one that was
    made seemed to be there already.
    """
    bench = Bench()
    ask(bench)
    for id_ in (1, 2, 3):
        refuse(bench, id_, Status.WRITE_ERROR)
    assert bench.changes == [(CREATE, None)]


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_change_of_what_was_before_another_change_is_refused(carried_out: bool) -> None:
    """Who asked for the first one did not wait for its end."""
    bench = Bench()
    first = ask(bench)
    second = ask(bench, Change(kind=ChangeKind.CREATE, before=0, after=1, number=1, name="two"))
    generation = [0]
    bench.data.present_generation = lambda: generation[0]
    bench.data.on_changed = lambda change, done: generation.append(generation.pop() + bool(done))
    if carried_out:
        for id_ in (1, 2, 3):
            frame = bench.frame(id_, FrameType.CHANGE)
            bench.members[id_].inbox.remove(frame)
            bench.data.answered(id_, answer(frame))
        assert bench.answered == [second, first]
        assert second.error is not None
        assert second.error.failure is StorageFailure.NOT_READY
    else:
        for id_ in (1, 2, 3):
            refuse(bench, id_, Status.NO_SPACE)
        assert bench.answered == [first]
        assert bench.frame(1, FrameType.CHANGE)
