"""Two controllers at once: one takes the volume over while the other one lives.

The first one is in touch with all replicas, or cut off together with one of them, or stopped meanwhile, or
both.  When the second one is ready the clients move over.  From then on *ghosts* go on using the first one,
as an initiator does that has not heard of it: no write of theirs may be answered GOOD, and what they read
must not be old.
"""

import struct
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import attrs
import trio

from tests.torture.clients import LOST, WRITE, Clients, Refused, open_session, read_register
from tests.torture.machines import Controller
from tests.torture.model import SECTOR_BYTES, Content, sector

__all__ = ["Takeover"]

EXIT_FENCED: Final = 3
EXIT_UNSURE: Final = 5
GHOST_S: Final = (2.0, 6.0)
GHOST_AFTERWARDS_S: Final = 3.0
PAUSE_S: Final = 0.02
_WRITE_CDB: Final = struct.Struct(">BBQIBB")


def nothing() -> None:
    """Nothing is wrong."""


@attrs.define(eq=False)
class Takeover:
    """One takeover, from `old` to `new`."""

    old: Controller
    new: Controller
    clients: Clients
    random: Random
    note: Callable[[str], None]
    wait_ready: Callable[[Controller], Awaitable[None]]
    switch: Callable[[], None]
    """Makes `new` the one that clients are to use."""

    async def run(self, *, before: Callable[[], None] = nothing, after: Callable[[], None] = nothing) -> None:
        """From the start of `new` to the end of `old`.

        What is wrong with `old` is taken away `before` it is used again, and `after` that.
        """
        self.note(f"takeover: {self.new.daemon.name} starts while {self.old.daemon.name} lives")
        self.new.start()
        await self.wait_ready(self.new)
        self.switch()
        for client in self.clients.clients:
            client.move_over()
        before()
        with trio.move_on_after(self.random.uniform(*GHOST_S)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
        after()
        with trio.move_on_after(GHOST_AFTERWARDS_S):
            await self.random.choice((self._read, self._write))()
        code = self.old.daemon.ended()
        assert code in (None, EXIT_FENCED, EXIT_UNSURE), f"the old controller ended with {code}"
        self.note(f"the old controller {'still runs' if code is None else 'has ended as fenced'}")
        self.old.daemon.kill()

    async def _read(self) -> None:
        while True:
            try:
                initiator = await open_session(self.old.host, "ghost", 101)
                async with initiator.stream:
                    while True:
                        await read_register(
                            initiator, self.random.choice(self.clients.shared.model.registers)
                        )
                        self.clients.shared.count("reads from an overtaken controller")
                        await trio.sleep(PAUSE_S)
            except (Refused, *LOST):
                await self._tried()

    async def _write(self) -> None:
        while True:
            try:
                initiator = await open_session(self.old.host, "ghost", 102)
                async with initiator.stream:
                    while True:
                        register = self.random.choice(self.clients.forbidden)
                        place = register.offset_bytes // SECTOR_BYTES
                        data = b"".join(
                            sector(register.number, at, 1, Content.DATA) for at in range(register.sectors)
                        )
                        cdb = _WRITE_CDB.pack(WRITE, 0, place, register.sectors, 0, 0)
                        answer = await initiator.command(cdb, data=data)
                        assert answer.status, "an overtaken controller answered a write GOOD"
                        await trio.sleep(PAUSE_S)
            except LOST:
                await self._tried()

    async def _tried(self) -> None:
        self.clients.shared.count("attempts to use an overtaken controller")
        await trio.sleep(5 * PAUSE_S)
