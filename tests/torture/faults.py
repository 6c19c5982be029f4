"""What is done to the machines of a run, drawn from its seed.

One fault after the other, of every kind once, then by weight; now and then two at once.  A fault leaves
everything running again, but perhaps not yet healthy; mostly the next one waits until the volume is,
sometimes it does not.  Faults that touch several machines come alone.

When a machine loses power and no other is left that holds everything (`machines.hold_everything`), the
clients are told that what was not flushed may be gone.
"""

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import attrs
import trio

from tests.torture.clients import Clients
from tests.torture.machines import CONTROLLERS, Controller, Replica, hold_everything
from tests.torture.place import Place
from tests.torture.takeover import Takeover
from tests.torture.watch import Watch

__all__ = ["KINDS", "Faults"]

RUN_IN_S: Final = 3.0  # so that the first fault meets something
READY_S: Final = 60.0
HEALTHY_S: Final = 120.0
FULL_EXCUSE_S: Final = 10.0  # a write may be answered so long after there was room again
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
    "blackout": (3, True),
    "takeover": (2, True),
    "takeover from a cut-off controller": (2, True),
    "takeover from a stopped controller": (2, True),
}


@attrs.define(eq=False)
class Faults:
    """The driver."""

    place: Place
    clients: Clients
    watch: Watch
    random: Random
    note: Callable[[str], None]
    active: str = CONTROLLERS[0]
    """The machine of the controller that clients are to use."""
    counts: dict[str, int] = attrs.field(factory=dict)
    full_until: float = 0.0
    switching: bool = False
    """A second controller starts: the first one may end as fenced."""
    _deck: list[str] = attrs.field(factory=list)
    _busy: set[str] = attrs.field(factory=set)

    @property
    def controller(self) -> Controller:
        """The one that clients are to use."""
        return self.place.controllers[self.active]

    @property
    def expects_full(self) -> bool:
        """See `clients.Shared`."""
        return time.monotonic() < self.full_until or any(replica.full for replica in self.place.replicas)

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
            "replica killed": self._kill_replica,
            "replica stopped": self._stop_replica,
            "replica cut off": self._cut_replica_off,
            "replica heard or hears one way": self._mute_replica,
            "disk full": self._fill_disk,
            "power cut": self._cut_power,
            "controller killed": self._kill_controller,
            "controller stopped": self._stop_controller,
            "client cut off": self._cut_client_off,
            "two replicas down": self._kill_two,
            "all disks full": self._fill_all,
            "controller alone with one replica": self._leave_alone,
            "controller killed and power cut": self._kill_controller_and_cut_power,
            "blackout": self._black_out,
            "takeover": self._take_over,
            "takeover from a cut-off controller": self._take_over_from_cut_off,
            "takeover from a stopped controller": self._take_over_from_stopped,
        }

    # One machine

    def _take_replica(self) -> Replica | None:
        """One that nothing else is done to at this moment."""
        free = [replica for replica in self.place.replicas if replica.daemon.name not in self._busy]
        if not free:
            return None
        replica = self.random.choice(free)
        self._busy.add(replica.daemon.name)
        return replica

    def _give_back(self, replica: Replica) -> None:
        self._busy.discard(replica.daemon.name)

    async def _with_replica(self, what: str, do: Callable[[Replica], Awaitable[None]]) -> None:
        replica = self._take_replica()
        if replica is None:
            return
        self.note(f"{what}: {replica.daemon.name}")
        try:
            await do(replica)
        finally:
            self._give_back(replica)

    async def _kill_replica(self) -> None:
        async def do(replica: Replica) -> None:
            replica.daemon.kill()
            await trio.sleep(self.random.choice((0, 1, 6, 10)) * self.random.random())
            replica.start()

        await self._with_replica("kill -9", do)

    async def _stop_replica(self) -> None:
        async def do(replica: Replica) -> None:
            replica.daemon.stop()
            await trio.sleep(self.random.choice((0.5, 3, 8, 15)) * self.random.random())
            replica.daemon.go_on()

        await self._with_replica("SIGSTOP", do)

    async def _cut_replica_off(self) -> None:
        async def do(replica: Replica) -> None:
            replica.reachable = False
            plug_in = self.place.cut(replica.daemon.name, "back")
            await trio.sleep(self.random.choice((1, 6, 12)) * self.random.random())
            plug_in()
            replica.reachable = True

        await self._with_replica("link cut", do)

    async def _mute_replica(self) -> None:
        async def do(replica: Replica) -> None:
            pair = [replica.daemon.name, self.active]
            self.random.shuffle(pair)
            self.note(f"nothing of {pair[0]} arrives at {pair[1]}")
            replica.reachable = False
            unmute = self.place.mute(*pair)
            await trio.sleep(self.random.choice((1, 6, 12)) * self.random.random())
            unmute()
            replica.reachable = True

        await self._with_replica("link cut one way", do)

    async def _fill_disk(self) -> None:
        async def do(replica: Replica) -> None:
            replica.fill()
            await trio.sleep(self.random.uniform(1, 10))
            self._make_room(replica)

        await self._with_replica("disk full", do)

    def _make_room(self, replica: Replica) -> None:
        replica.make_room()
        self.full_until = time.monotonic() + FULL_EXCUSE_S
        self._start_again(replica)

    def _start_again(self, replica: Replica) -> None:
        """A replica that could not start on a full disk, or ended there, is started by its supervisor."""
        code = replica.daemon.ended()
        if code is not None:
            self.note(f"{replica.daemon.name} ended with {code} on a full disk")
        if replica.daemon.process is None:
            replica.start()

    async def _cut_power(self) -> None:
        async def do(replica: Replica) -> None:
            self._lose_power([replica])
            await trio.sleep(self.random.choice((0, 1, 8)) * self.random.random())
            replica.start()

        await self._with_replica("power cut", do)

    def _lose_power(self, replicas: list[Replica]) -> None:
        for replica in replicas:
            replica.daemon.kill()
        for replica in replicas:
            undone = replica.cut_power(self.random)
            self.note(f"{replica.daemon.name}: {undone} changes were not stable")
        if not [one for one in hold_everything(self.place.replicas) if not one.witness]:
            self.note("nobody is left who holds what was not flushed")
            self.clients.shared.model.lose_unflushed()

    async def _with_controller(self, what: str, do: Callable[[], Awaitable[None]]) -> None:
        if "controller" in self._busy:
            return
        self._busy.add("controller")
        self.note(f"{what}: {self.active}")
        try:
            await do()
        finally:
            self._busy.discard("controller")

    async def _kill_controller(self) -> None:
        async def do() -> None:
            self.controller.daemon.kill()
            await trio.sleep(self.random.choice((0, 2)) * self.random.random())
            self.controller.start()
            await self._wait_ready(self.controller)

        await self._with_controller("kill -9", do)

    async def _stop_controller(self) -> None:
        async def do() -> None:
            self.controller.daemon.stop()
            await trio.sleep(self.random.choice((1, 5, 15)) * self.random.random())
            self.controller.daemon.go_on()

        await self._with_controller("SIGSTOP", do)

    async def _cut_client_off(self) -> None:
        async def do() -> None:
            self.controller.reachable = False
            plug_in = self.place.cut("client", "front")
            await trio.sleep(self.random.choice((1, 8)) * self.random.random())
            plug_in()
            self.controller.reachable = True

        await self._with_controller("client cut off", do)

    async def _wait_ready(self, controller: Controller) -> None:
        """Other faults may be under way, so the time is generous; `watch` judges what is too slow."""
        with trio.fail_after(READY_S):
            while not controller.ready:
                assert controller.daemon.ended() is None, f"{controller.daemon.name} ended while it started"
                await trio.sleep(0.05)

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
            self._make_room(replica)

    async def _leave_alone(self) -> None:
        replica = self.random.choice(self.place.replicas)
        self.note(f"{self.active} sees {replica.daemon.name} alone")
        self.controller.reachable = False
        for machine in (self.active, replica.daemon.name):
            self.place.move(machine, "island")
        await trio.sleep(self.random.uniform(1, 12))
        for machine in (self.active, replica.daemon.name):
            self.place.move(machine, "back")
        self.controller.reachable = True

    async def _kill_controller_and_cut_power(self) -> None:
        replica = self.random.choice(self.place.replicas)
        self.note(f"kill -9: {self.active}, power cut: {replica.daemon.name}")
        self.controller.daemon.kill()
        self._lose_power([replica])
        starts = [replica.start, self.controller.start]
        self.random.shuffle(starts)
        for start in starts:
            await trio.sleep(self.random.random() * 3)
            start()
        await self._wait_ready(self.controller)

    async def _black_out(self) -> None:
        self.note("blackout")
        self.controller.daemon.kill()
        self._lose_power(list(self.place.replicas))
        starts = [self.controller.start, *(replica.start for replica in self.place.replicas)]
        self.random.shuffle(starts)
        for start in starts:
            await trio.sleep(self.random.random())
            start()
        await self._wait_ready(self.controller)

    # Two controllers

    async def _take_over(self) -> None:
        await self._takeover().run(lambda: None)

    async def _take_over_from_cut_off(self) -> None:
        """The first one sees one replica, the second one the others."""
        old, replica = self.controller, self.random.choice(self.place.replicas)
        takeover = self._takeover()
        for machine in (old.daemon.name, replica.daemon.name):
            self.place.move(machine, "island")
        replica.reachable = old.reachable = False
        self.note(f"{old.daemon.name} sees {replica.daemon.name} alone")

        def plug_in() -> None:
            for machine in (old.daemon.name, replica.daemon.name):
                self.place.move(machine, "back")
            replica.reachable = old.reachable = True

        await trio.sleep(self.random.random() * 3)
        await takeover.run(plug_in)

    async def _take_over_from_stopped(self) -> None:
        old, takeover = self.controller, self._takeover()
        old.daemon.stop()
        await trio.sleep(self.random.random() * 3)
        await takeover.run(old.daemon.go_on, undo_first=True)

    def _takeover(self) -> Takeover:
        name = next(name for name in CONTROLLERS if name != self.active)
        self.switching = True

        def switch() -> None:
            self.active, self.switching = name, False

        new = self.place.controllers[name]
        return Takeover(self.controller, new, self.clients, self.random, self.note, self._wait_ready, switch)
