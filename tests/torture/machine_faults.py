"""What is done to one machine of a torture run at a time; and what all faults share.

A fault leaves everything running again.  When a machine loses power and no other is left that holds
everything (`machines.hold_everything`), the clients are told that what was not flushed may be gone.
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
from tests.torture.watch import Watch

__all__ = ["MachineFaults"]

READY_S: Final = 60.0
FULL_EXCUSE_S: Final = 10.0  # a write may be answered so long after there was room again


@attrs.define(eq=False)
class MachineFaults:
    """Faults of one machine each, and what all faults share."""

    place: Place
    clients: Clients
    watch: Watch
    random: Random
    note: Callable[[str], None]
    active: str = CONTROLLERS[0]
    """The machine of the controller that clients are to use."""
    full_until: float = 0.0
    switching: bool = False
    """A second controller starts: the first one may end as fenced."""
    _busy: set[str] = attrs.field(factory=set)

    @property
    def controller(self) -> Controller:
        """The one that clients are to use."""
        return self.place.controllers[self.active]

    @property
    def expects_full(self) -> bool:
        """See `clients.Shared`."""
        return time.monotonic() < self.full_until or any(replica.full for replica in self.place.replicas)

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

    async def kill_replica(self) -> None:
        """`kill -9`, and a start a while later."""

        async def do(replica: Replica) -> None:
            replica.daemon.kill()
            await trio.sleep(self.random.choice((0, 1, 6, 10)) * self.random.random())
            replica.start()

        await self._with_replica("kill -9", do)

    async def stop_replica(self) -> None:
        """SIGSTOP and SIGCONT."""

        async def do(replica: Replica) -> None:
            replica.daemon.stop()
            await trio.sleep(self.random.choice((0.5, 3, 8, 15)) * self.random.random())
            replica.daemon.go_on()

        await self._with_replica("SIGSTOP", do)

    async def cut_replica_off(self) -> None:
        """Nothing reaches it, and nothing of it gets out."""

        async def do(replica: Replica) -> None:
            replica.reachable = False
            plug_in = self.place.cut(replica.daemon.name, "back")
            await trio.sleep(self.random.choice((1, 6, 12)) * self.random.random())
            plug_in()
            replica.reachable = True

        await self._with_replica("link cut", do)

    async def mute_replica(self) -> None:
        """Nothing gets through in one of the two directions."""

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

    async def fill_disk(self) -> None:
        """No room on its file system."""

        async def do(replica: Replica) -> None:
            replica.fill()
            await trio.sleep(self.random.uniform(1, 10))
            self.make_room(replica)

        await self._with_replica("disk full", do)

    def make_room(self, replica: Replica) -> None:
        """There is room again."""
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

    async def cut_power(self) -> None:
        """Its machine loses power."""

        async def do(replica: Replica) -> None:
            self.lose_power([replica])
            await trio.sleep(self.random.choice((0, 1, 8)) * self.random.random())
            replica.start()

        await self._with_replica("power cut", do)

    def lose_power(self, replicas: list[Replica]) -> None:
        """These machines lose power at once."""
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

    async def kill_controller(self) -> None:
        """`kill -9`, and a start a moment later."""

        async def do() -> None:
            self.controller.daemon.kill()
            await trio.sleep(self.random.choice((0, 2)) * self.random.random())
            self.controller.start()
            await self.wait_ready(self.controller)

        await self._with_controller("kill -9", do)

    async def stop_controller(self) -> None:
        """SIGSTOP and SIGCONT."""

        async def do() -> None:
            self.controller.daemon.stop()
            await trio.sleep(self.random.choice((1, 5, 15)) * self.random.random())
            self.controller.daemon.go_on()

        await self._with_controller("SIGSTOP", do)

    async def cut_client_off(self) -> None:
        """Nobody reaches the controller over iSCSI."""

        async def do() -> None:
            self.controller.reachable = False
            plug_in = self.place.cut("client", "front")
            await trio.sleep(self.random.choice((1, 8)) * self.random.random())
            plug_in()
            self.controller.reachable = True

        await self._with_controller("client cut off", do)

    async def wait_ready(self, controller: Controller) -> None:
        """Other faults may be under way, so the time is generous; `watch` judges what is too slow."""
        with trio.fail_after(READY_S):
            while not controller.ready:
                assert controller.daemon.ended() is None, f"{controller.daemon.name} ended while it started"
                await trio.sleep(0.05)
