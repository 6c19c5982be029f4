"""What is done to the machines of a run, drawn from its seed.

One fault after the other, of every kind once, then by weight; now and then two at once.  A fault leaves
everything running again, but perhaps not yet healthy; mostly the next one waits until the volume is,
sometimes it does not.  Faults that touch several machines come alone.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from tests.torture.machine_faults import MachineFaults
from tests.torture.machines import CONTROLLERS
from tests.torture.takeover import Takeover

__all__ = ["KINDS", "Faults"]

RUN_IN_S: Final = 3.0  # so that the first fault meets something
HEALTHY_S: Final = 120.0
TWO_AT_ONCE: Final = 0.2
IMPATIENT: Final = 0.25

#: Kind → how often, and whether it has all machines to itself.
KINDS: Final[dict[str, tuple[int, bool]]] = {
    "replica killed": (4, False),
    "replica stopped": (4, False),
    "replica cut off": (4, False),
    "replica heard or hears one way": (3, False),
    "disk full": (3, False),
    "power cut": (5, False),
    "controller killed": (4, False),
    "controller stopped": (2, False),
    "client cut off": (2, False),
    "two replicas down": (2, True),
    "all disks full": (1, True),
    "controller alone with one replica": (2, True),
    "controller killed and power cut": (3, True),
    "controller killed while a replica is silent": (4, True),
    "blackout": (3, True),
    "takeover": (2, True),
    "takeover from a cut-off controller": (2, True),
    "takeover from a stopped controller": (2, True),
    "takeover from a stopped and cut-off controller": (2, True),
}


@attrs.define(eq=False)
class Faults(MachineFaults):
    """The driver."""

    counts: dict[str, int] = attrs.field(factory=dict)
    _deck: list[str] = attrs.field(factory=list)

    async def run(self, deadline: float) -> None:
        """Inject faults until `deadline` (`time.monotonic`)."""
        await trio.sleep(RUN_IN_S)
        while time.monotonic() < deadline:
            kinds = [self._draw(alone=None)]
            if not KINDS[kinds[0]][1] and self.random.random() < TWO_AT_ONCE:
                kinds.append(self._draw(alone=False))
            async with trio.open_nursery() as nursery:
                for kind in kinds:
                    nursery.start_soon(self._inject, kind)
            if self.random.random() < IMPATIENT:
                await trio.sleep(self.random.uniform(0, 4))
            else:
                await self.heal()

    async def heal(self) -> None:
        """Wait until the volume is healthy; everything runs.  Fails when it takes too long."""
        began = time.monotonic()
        assert await self.watch.wait_healthy(HEALTHY_S), (
            f"not healthy within {HEALTHY_S:g} s without a fault: {self.watch.status}"
        )
        self.note(f"healthy after {time.monotonic() - began:.1f} s")

    def _draw(self, *, alone: bool | None) -> str:
        """The next kind: each one once, then as often as `KINDS` says, in an order that the seed gives."""
        while True:
            for kind in self._deck:
                if alone is None or KINDS[kind][1] == alone:
                    self._deck.remove(kind)
                    return kind
            often = [kind for kind, (weight, _) in KINDS.items() for _ in range(weight)]
            deck = often if self.counts else list(KINDS)
            self.random.shuffle(deck)
            self._deck += deck

    async def _inject(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.watch.kind = kind
        await self._carry_out[kind]()
        self.note(f"over: {kind}")

    @property
    def _carry_out(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "replica killed": self.kill_replica,
            "replica stopped": self.stop_replica,
            "replica cut off": self.cut_replica_off,
            "replica heard or hears one way": self.mute_replica,
            "disk full": self.fill_disk,
            "power cut": self.cut_power,
            "controller killed": self.kill_controller,
            "controller stopped": self.stop_controller,
            "client cut off": self.cut_client_off,
            "two replicas down": self._kill_two,
            "all disks full": self._fill_all,
            "controller alone with one replica": self._leave_alone,
            "controller killed and power cut": self._kill_controller_and_cut_power,
            "controller killed while a replica is silent": self._kill_controller_over_silent_replica,
            "blackout": self._black_out,
            "takeover": self._take_over,
            "takeover from a cut-off controller": self._take_over_from_cut_off,
            "takeover from a stopped controller": self._take_over_from_stopped,
            "takeover from a stopped and cut-off controller": self._take_over_from_stopped_and_cut_off,
        }

    # Several machines

    async def _kill_two(self) -> None:
        pair = self.random.sample(self.place.replicas, 2)
        for replica in pair:
            self.note(f"kill -9: {replica.daemon.name}")
            replica.daemon.kill()
        for replica in pair:
            await trio.sleep(self.random.uniform(0, 6))
            replica.start()

    async def _fill_all(self) -> None:
        for replica in self.place.replicas:
            replica.fill()
        self.note("all disks are full")
        await trio.sleep(self.random.uniform(1, 8))
        for replica in self.place.replicas:
            self.make_room(replica)

    async def _leave_alone(self) -> None:
        plug_in = self._cut_controller_off()
        await trio.sleep(self.random.uniform(1, 12))
        plug_in()

    async def _kill_controller_and_cut_power(self) -> None:
        replica = self.random.choice(self.place.replicas)
        self.note(f"kill -9: {self.active}, power cut: {replica.daemon.name}")
        self.controller.daemon.kill()
        self.lose_power([replica])
        starts = [replica.start, self.controller.start]
        self.random.shuffle(starts)
        for start in starts:
            await trio.sleep(self.random.random() * 3)
            start()
        await self.wait_ready(self.controller)

    async def _kill_controller_over_silent_replica(self) -> None:
        """What was in flight is on the others and not on this one, or arrives there after the kill."""
        replica = self.random.choice(self.place.replicas)
        stop = bool(self.random.getrandbits(1))
        self.note(f"{'SIGSTOP' if stop else 'link cut'}: {replica.daemon.name}, then kill -9: {self.active}")
        replica.reachable = False
        if stop:
            replica.daemon.stop()
            undo = replica.daemon.go_on
        else:
            undo = self.place.cut(replica.daemon.name, "back")
        await trio.sleep(self.random.choice((0.5, 3)) * self.random.random())
        self.controller.daemon.kill()
        steps = [undo, self.controller.start]
        self.random.shuffle(steps)
        for step in steps:
            step()
            await trio.sleep(self.random.random() * 2)
        replica.reachable = True
        await self.wait_ready(self.controller)

    async def _black_out(self) -> None:
        self.note("blackout")
        self.controller.daemon.kill()
        self.lose_power(list(self.place.replicas))
        starts = [self.controller.start, *(replica.start for replica in self.place.replicas)]
        self.random.shuffle(starts)
        for start in starts:
            await trio.sleep(self.random.random())
            start()
        await self.wait_ready(self.controller)

    # Two controllers

    async def _take_over(self) -> None:
        await self._takeover().run()

    async def _take_over_from_cut_off(self) -> None:
        """The first one sees one replica, the second one the others."""
        plug_in = self._cut_controller_off()
        takeover = self._takeover()
        await trio.sleep(self.random.random() * 3)
        await takeover.run(after=plug_in)

    async def _take_over_from_stopped(self) -> None:
        old, takeover = self.controller, self._takeover()
        old.daemon.stop()
        await trio.sleep(self.random.random() * 3)
        await takeover.run(before=old.daemon.go_on)

    async def _take_over_from_stopped_and_cut_off(self) -> None:
        """When the first one goes on, it does not know that most replicas are out of its reach."""
        old, plug_in = self.controller, self._cut_controller_off()
        old.daemon.stop()
        await self._takeover().run(before=old.daemon.go_on, after=plug_in)

    def _cut_controller_off(self) -> Callable[[], None]:
        """Leave it one replica; how to undo that."""
        old, replica = self.controller, self.random.choice(self.place.replicas)
        for machine in (old.daemon.name, replica.daemon.name):
            self.place.move(machine, "island")
        replica.reachable = old.reachable = False
        self.note(f"{old.daemon.name} sees {replica.daemon.name} alone")

        def plug_in() -> None:
            for machine in (old.daemon.name, replica.daemon.name):
                self.place.move(machine, "back")
            replica.reachable = old.reachable = True

        return plug_in

    def _takeover(self) -> Takeover:
        name = next(name for name in CONTROLLERS if name != self.active)
        self.switching = True

        def switch() -> None:
            self.active, self.switching = name, False

        new = self.place.controllers[name]
        return Takeover(self.controller, new, self.clients, self.random, self.note, self.wait_ready, switch)
