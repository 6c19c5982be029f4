"""Snapshots on a schedule, over the minutes around an hour's end."""

from datetime import UTC, datetime, timedelta

import trio

from pyjiva.controller import Snapshots, Volume
from pyjiva.controller.retention import SCHEDULE_LABEL, Retention
from pyjiva.testing.world import World
from tests.sim.campaign import play_world
from tests.sim.stage import Scenario, healthy, mode, start, until

BEGINNING = datetime(2016, 9, 1, 22, 57, 20, tzinfo=UTC)


def now() -> datetime:
    return BEGINNING + timedelta(seconds=trio.current_time())


def names(volume: Volume) -> list[str]:
    """Those on schedule without their seconds."""
    return [snapshot.name[:18] for snapshot in volume.past.lineage.snapshots]


async def a_schedule(world: World) -> None:
    volume = await healthy(world)
    snapshots = Snapshots(volume, now=now)
    await snapshots.create("mine")
    retention = Retention(every_s=60, keep_last=2, keep_hourly=2)
    world.nursery.start_soon(snapshots.keep_schedule, retention)
    await trio.sleep(5.5 * 60)
    expected = ["mine", "auto-20160901T2259", "auto-20160901T2301", "auto-20160901T2302"]
    assert names(volume) == expected, "the last two, and the last of the hour before"
    made = volume.past.lineage.snapshots[1:]
    assert [(each.user_created, set(each.labels)) for each in made] == 3 * [(False, {SCHEDULE_LABEL})]
    for i in (2, 3):
        await world.machines[i].kill()
    await until(lambda: mode(volume, 3) == "out")
    await trio.sleep(2 * 60)
    assert names(volume) == expected, "a parked volume has none"
    start(world, 2, 3)
    await trio.sleep(3 * 60)
    expected = ["mine", "auto-20160901T2259", "auto-20160901T2306", "auto-20160901T2307"]
    assert names(volume) == expected, "what was asked for stays"


def test_snapshots_come_and_go_by_the_schedule() -> None:
    _, failure = play_world(Scenario(a_schedule).world(), 900)
    assert failure is None
