"""Times without I/O, as pictures of a volume show them."""

import attrs

from pyjiva.controller.outages import Outage, Outages
from pyjiva.controller.status import VolumeState, VolumeStatus

HEALTHY = VolumeStatus("demo", "0", 1 << 20, 512, VolumeState.HEALTHY, "", 3, (), None)
DEGRADED = attrs.evolve(HEALTHY, state=VolumeState.DEGRADED, reason="one is out")
PARKED = attrs.evolve(HEALTHY, state=VolumeState.PARKED, reason="waits for replica 2", epoch=2)


def seen(*pictures: VolumeStatus) -> list[Outage]:
    found: list[Outage] = []
    outages = Outages(found.append, 100.0)
    for at_s, picture in enumerate(pictures, 101):
        outages.look(float(at_s), picture)
    return found


def test_the_first_one_begins_with_the_controller() -> None:
    assert seen(PARKED, PARKED, HEALTHY, HEALTHY) == [
        Outage(True, 100.0, 103.0, "waits for replica 2", 3, 0),
    ]


def test_later_ones_begin_when_the_volume_stops_taking_io() -> None:
    again = attrs.evolve(PARKED, reason="one of three")
    assert seen(HEALTHY, PARKED, again, DEGRADED, HEALTHY)[1:] == [
        Outage(False, 102.0, 104.0, "one of three", 3, 0),
    ]


def test_one_that_goes_on_is_not_told_of() -> None:
    assert len(seen(HEALTHY, DEGRADED, PARKED)) == 1
