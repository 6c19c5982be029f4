"""A register for a vote in memory, and what can go wrong on the way to it.

Each read and each replacement takes effect at one moment.  Before and after it there is a delay; an answer
may be lost, and a replacement may take effect after its caller has given up, as a request that lies in a
network does.  Who is cut off hears nothing, and what it had asked for arrives when the cut ends.
"""

from random import Random

import attrs
import trio

from pyjiva.vote import Kept, Vote, VoteUnknown

__all__ = ["VoteClient", "VoteRegister"]


@attrs.define(eq=False)
class VoteRegister:
    """What is kept, and all that ever was."""

    random: Random
    nursery: trio.Nursery
    """Of the network: what has left its sender arrives, whatever becomes of the sender."""
    delay_s_max: float = 0.05
    losses: float = 0.0
    """The share of answers that are lost."""
    interference: float = 0.0
    """The share of replacements that another writer of the object is faster than."""
    history: list[Vote] = attrs.field(factory=lambda: [Vote()])
    version: int = 0
    reads: int = 0
    """How many there were, by all."""
    _cuts: dict[str, trio.Event] = attrs.field(factory=dict, init=False)

    @property
    def vote(self) -> Vote:
        """What is kept now."""
        return self.history[-1]

    def client(self, name: str) -> "VoteClient":
        """The register as the process `name` sees it."""
        return VoteClient(self, name)

    def cut(self, name: str) -> None:
        """Let nothing pass between `name` and the register."""
        self._cuts.setdefault(name, trio.Event())

    def mend(self) -> None:
        """End all cuts."""
        cuts, self._cuts = self._cuts, {}
        for mended in cuts.values():
            mended.set()

    async def travel(self, name: str) -> None:
        """One way."""
        await trio.sleep(self.random.random() * self.delay_s_max)
        while (mended := self._cuts.get(name)) is not None:
            await mended.wait()
            await trio.sleep(self.random.random() * self.delay_s_max)

    def is_lost(self) -> bool:
        """Whether this answer is."""
        return self.random.random() < self.losses

    def replace_now(self, before: Kept, vote: Vote) -> Kept | None:
        """The moment of a replacement."""
        if self.random.random() < self.interference:
            self.version += 1
        if before.version != self.version:
            return None
        self.version += 1
        self.history.append(vote)
        return Kept(vote, self.version)

    def put_back(self, vote: Vote) -> None:
        """As a restored backup does."""
        self.version += 1
        self.history.append(vote)


@attrs.define(eq=False)
class VoteClient:
    """A VoteStore."""

    register: VoteRegister
    name: str
    asked: int = attrs.field(default=0, init=False)
    """How many reads there were."""

    async def read(self) -> Kept:
        """As VoteStore's."""
        self.asked += 1
        register = self.register
        register.reads += 1
        await register.travel(self.name)
        kept = Kept(register.vote, register.version)
        await register.travel(self.name)
        if register.is_lost():
            raise VoteUnknown("the answer was lost")
        return kept

    async def replace(self, before: Kept, vote: Vote) -> Kept | None:
        """As VoteStore's."""
        answers: list[Kept | None] = []
        arrived = trio.Event()

        async def carry() -> None:
            await self.register.travel(self.name)
            answers.append(self.register.replace_now(before, vote))
            arrived.set()

        self.register.nursery.start_soon(carry)
        await arrived.wait()
        await self.register.travel(self.name)
        if self.register.is_lost():
            raise VoteUnknown("the answer was lost")
        return answers[0]
