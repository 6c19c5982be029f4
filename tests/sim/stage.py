"""What scenarios are made of: the world of one, waiting for frames and states, small steps."""

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from pyjiva.controller import Volume, VolumeState
from pyjiva.testing.clients import BLOCKS_PER_PAGE
from pyjiva.testing.faults import Faults
from pyjiva.testing.network import FRAME_TYPE
from pyjiva.testing.world import World

__all__ = [
    "LOOK_S",
    "NEW",
    "OLD",
    "Scenario",
    "come",
    "healthy",
    "mode",
    "start",
    "successor",
    "until",
    "watch",
]

OLD: Final = "controller-0"
NEW: Final = "controller-1"
LOOK_S: Final = 0.02
PATIENCE_S: Final = 30.0  # for what must come: a script that waits longer is out of date


@attrs.frozen
class Scenario:
    """A script, and the world in which it is played."""

    script: Callable[[World], Awaitable[None]]
    replicas: int = 3
    witnesses: int = 0
    seed: int = 1
    """Of the delays."""
    snapshots: bool = False
    """Whether the script makes some: what becomes of them is watched, and all replicas' are compared."""

    def world(self) -> World:
        """A new one."""
        faults = Faults(snapshots=float(self.snapshots))  # as there is a script, none comes by chance
        return World(self.seed, self.replicas, self.witnesses, faults=faults, script=self.script)


def watch(world: World, here: str, there: str, type_: int, *, hold_back: bool = False) -> trio.Event:
    """Set when the next frame of this type leaves; with `hold_back` it waits there until cuts are mended."""
    seen = trio.Event()

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if (sender, receiver, frame[FRAME_TYPE]) == (here, there, bytes([type_])) and not seen.is_set():
            seen.set()
            if hold_back:
                world.network.cut(here, there, one_way=True)

    world.network.taps.append(tap)
    return seen


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so.  Raises trio.TooSlowError."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(LOOK_S)


async def come(seen: trio.Event) -> None:
    """Wait for a frame.  Raises trio.TooSlowError."""
    with trio.fail_after(PATIENCE_S):
        await seen.wait()


async def healthy(world: World) -> Volume:
    """The first controller, when all replicas are in sync and every page was written to."""

    def is_healthy() -> bool:
        return world.volume is not None and world.volume.status().state is VolumeState.HEALTHY

    await until(is_healthy)
    assert world.volume is not None
    for block in range(0, world.blocks, BLOCKS_PER_PAGE):
        assert await world.clients.write(world.volume, [block])
    return world.volume


async def successor(world: World, old: Volume) -> Volume:
    """Start another controller beside `old`, and wait until it serves."""
    world.next_controller.set()
    await until(lambda: world.volume not in (None, old))
    assert world.volume is not None
    return world.volume


def mode(volume: Volume, replica: int) -> str:
    """As the status says."""
    return next(r.mode for r in volume.status().replicas if r.id == replica)


def start(world: World, *ids: int) -> None:
    """Start replicas that are down."""
    for i in ids:
        world.machines[i].start(world.network, world.nursery)
