"""`maya.kube.lease`: what each event means in each role, and the record that is written."""

from typing import Any

import attrs
import pytest

from pyjiva.errors import ConfigError, LocalProtocolError
from pyjiva.maya.kube import Object
from pyjiva.maya.kube.lease import (
    Due,
    Effect,
    Election,
    Event,
    Failed,
    Lead,
    LeaseSettings,
    Lose,
    Read,
    Refused,
    Role,
    Seen,
    Stopped,
    Wait,
    Write,
    Written,
)

NOW = "2024-01-01T00:00:00.000000Z"


def lease(holder: str = "us", renewed: int = 0, **record: Any) -> Object:
    return {
        "metadata": {"name": "l", "namespace": "ns", "resourceVersion": "7", "labels": {"theirs": "1"}},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": "t0",
            "renewTime": f"t{renewed}",
            "leaseTransitions": 3,
            **record,
        },
    }


def election(role: Role) -> Election:
    """In this role since second 100; a leader has renewed at 110, and leads until 120."""
    made = Election("ns", "l", "us")
    if role is Role.CANDIDATE:
        made.apply(Seen(100, NOW, lease("other")))
    if role is Role.LEADER:
        made.apply(Written(110, 110.5, lease("us")))
    if role is Role.OVER:
        made.apply(Stopped(NOW))
    assert made.role is role
    return made


RETRY = [Wait(2.0)]
#: Event → what it means for a candidate, and for a leader: the kinds of effects, and the role afterwards.
TABLE: list[tuple[Event, list[type[Effect]], Role, list[type[Effect]], Role]] = [
    (Due(NOW), [Read], Role.CANDIDATE, [Write], Role.LEADER),
    (Seen(111, NOW, None), [Write], Role.CANDIDATE, [Write], Role.LEADER),
    (Seen(111, NOW, lease("other")), [Wait], Role.CANDIDATE, [Lose], Role.OVER),
    (Seen(111, NOW, lease("us")), [Write], Role.CANDIDATE, [Write], Role.LEADER),
    (Seen(111, NOW, lease("")), [Write], Role.CANDIDATE, [Write], Role.LEADER),
    (Seen(115, NOW, lease("other")), [Write], Role.CANDIDATE, [Lose], Role.OVER),
    (Seen(115, NOW, lease("other", 1)), [Wait], Role.CANDIDATE, [Lose], Role.OVER),
    (Written(111, 112, lease("us", 2)), [Lead, Wait], Role.LEADER, [Lead, Wait], Role.LEADER),
    (Written(111, 121, lease("us", 2)), [Wait], Role.CANDIDATE, [Lose], Role.OVER),
    (Refused(112), [Wait], Role.CANDIDATE, [Read], Role.LEADER),
    (Failed(112), [Wait], Role.CANDIDATE, [Wait], Role.LEADER),
    (Failed(120), [Wait], Role.CANDIDATE, [Lose], Role.OVER),
    (Stopped(NOW), [], Role.OVER, [Write], Role.OVER),
]


def test_the_table_has_every_event() -> None:
    assert {type(row[0]) for row in TABLE} == {Due, Seen, Written, Refused, Failed, Stopped}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_what_each_event_means_in_each_role(
    row: tuple[Event, list[type[Effect]], Role, list[type[Effect]], Role],
) -> None:
    event, candidate_does, candidate_is, leader_does, leader_is = row
    for role, effects, after in (
        (Role.CANDIDATE, candidate_does, candidate_is),
        (Role.LEADER, leader_does, leader_is),
    ):
        machine = election(role)
        assert [type(effect) for effect in machine.apply(event)] == effects, role
        assert machine.role is after, role
    machine = election(Role.OVER)
    if isinstance(event, Stopped):
        assert machine.apply(event) == []
    else:
        with pytest.raises(LocalProtocolError):
            machine.apply(event)


def written(effects: list[Effect]) -> tuple[Object, bool]:
    (effect,) = effects
    assert isinstance(effect, Write)
    return effect.lease, effect.create


def test_the_record_that_makes_takes_over_renews_and_gives_back() -> None:
    first, create = written(Election("ns", "l", "us").apply(Seen(0, NOW, None)))
    record = {"holderIdentity": "us", "leaseDurationSeconds": 15, "leaseTransitions": 0}
    assert create
    assert first["spec"] == {**record, "acquireTime": NOW, "renewTime": NOW}
    assert first["metadata"] == {"name": "l", "namespace": "ns"}

    taken, create = written(Election("ns", "l", "us").apply(Seen(0, NOW, lease("", more="kept"))))
    assert not create
    assert taken["metadata"] == lease()["metadata"]
    expected = {"acquireTime": NOW, "renewTime": NOW, "leaseTransitions": 4}
    assert taken["spec"] == lease("us", more="kept")["spec"] | expected

    renewed, _ = written(election(Role.LEADER).apply(Due(NOW)))
    assert renewed["spec"] == lease("us")["spec"] | {"renewTime": NOW}

    back, _ = written(election(Role.LEADER).apply(Stopped(NOW)))
    assert back["spec"]["holderIdentity"] == ""
    assert (back["spec"]["leaseDurationSeconds"], back["spec"]["leaseTransitions"]) == (1, 3)


def test_another_is_left_alone_for_as_long_as_it_says_from_when_we_saw_it_renew() -> None:
    machine = Election("ns", "l", "us")
    held = lease("other", leaseDurationSeconds=60, renewTime="1970-01-01T00:00:00.000000Z")
    for at_s in (100, 130, 159):
        assert machine.apply(Seen(at_s, NOW, held)) == RETRY, at_s
    assert machine.apply(Seen(159.5, NOW, {**held, "spec": {**held["spec"], "renewTime": "later"}})) == RETRY
    assert machine.apply(Seen(219, NOW, {**held, "spec": {**held["spec"], "renewTime": "later"}})) == RETRY
    written(machine.apply(Seen(219.5, NOW, {**held, "spec": {**held["spec"], "renewTime": "later"}})))


def test_it_leads_from_when_it_asked_and_not_from_the_answer() -> None:
    machine = Election("ns", "l", "us")
    assert machine.apply(Written(100, 107, lease("us"))) == [Lead(110), Wait(2.0)]


def test_candidates_scatter_their_tries() -> None:
    machine = election(Role.CANDIDATE)
    assert machine.apply(Failed(101, chance=0.5)) == [Wait(2 * 1.6)]
    assert machine.apply(Seen(101, NOW, lease("other"), chance=1.0)) == [Wait(2 * 2.2)]


def test_what_we_hold_without_knowing_is_given_back_too() -> None:
    machine = Election("ns", "l", "us")
    machine.apply(Seen(100, NOW, lease("us")))  # of a write whose answer was lost
    back, _ = written(machine.apply(Stopped(NOW)))
    assert back["spec"]["holderIdentity"] == ""


def test_times_that_do_not_go_together_are_refused() -> None:
    assert attrs.astuple(LeaseSettings()) == (15, 10, 2)
    for settings in ((10, 10, 2), (15, 2.4, 2), (15.5, 10, 2), (15, 10, 0)):
        with pytest.raises(ConfigError, match="renew deadline"):
            LeaseSettings(*settings)
