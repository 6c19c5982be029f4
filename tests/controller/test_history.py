"""What changed between two pictures of a volume is an event."""

import attrs
import pytest

from pyjiva.controller import ReplicaStatus, VolumeState, VolumeStatus
from pyjiva.controller.history import EVENTS_MAX, History
from pyjiva.controller.repairs import RotCounts


def replica(id_: int, mode: str, reason: str = "") -> ReplicaStatus:
    return ReplicaStatus(id_, f"10.0.0.{id_}:9502", "", mode, None, None, RotCounts(), None, None, reason)


def volume(state: VolumeState, *replicas: ReplicaStatus, reason: str = "", epoch: int = 1) -> VolumeStatus:
    return VolumeStatus("v", "0" * 32, 1 << 20, 512, state, reason, epoch, replicas, None)


HEALTHY = volume(VolumeState.HEALTHY, replica(1, "in-sync"), replica(2, "in-sync"))


@pytest.mark.parametrize(
    ("now", "texts"),
    [
        (HEALTHY, []),
        (
            volume(VolumeState.DEGRADED, replica(1, "in-sync"), replica(2, "out", "gone"), reason="of 2"),
            [(2, "in-sync → out: gone"), (None, "healthy → degraded, epoch 1: of 2")],
        ),
        (attrs.evolve(HEALTHY, epoch=7), [(None, "healthy → healthy, epoch 7")]),
        (volume(VolumeState.HEALTHY, replica(1, "in-sync")), [(2, "no longer configured")]),
        (
            volume(VolumeState.HEALTHY, *HEALTHY.replicas, replica(3, "out", "new")),
            [(3, "not heard of → out: new")],
        ),
    ],
)
def test_what_changed_is_put_down(now: VolumeStatus, texts: list[tuple[int | None, str]]) -> None:
    history = History()
    history.look(1.0, HEALTHY)
    history.events.clear()
    history.look(2.0, now)
    assert [(event.replica, event.text) for event in history.events] == texts
    assert {event.at_s for event in history.events} <= {2.0}


def test_another_reason_for_the_same_is_an_event_too() -> None:
    history = History()
    for reason in ("gone", "gone", "no answer"):
        history.look(0.0, volume(VolumeState.DEGRADED, replica(1, "out", reason)))
    assert [event.text for event in history.events if event.kind == "replica"] == [
        "not heard of → out: gone",
        "still out: no answer",
    ]


def test_the_oldest_are_dropped_and_numbers_go_on() -> None:
    history = History()
    for number in range(EVENTS_MAX + 5):
        history.add(float(number), "rot", 1, "found")
    assert len(history.events) == EVENTS_MAX
    assert (history.events[0].number, history.events[-1].number) == (6, EVENTS_MAX + 5)
