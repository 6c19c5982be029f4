"""Clients of a simulated volume, which know what each block may hold and check what they read.

Every block has one client, so operations of different clients do not overlap; one client's own may: then
either order is right.  After an answer that did not come both the old and the new contents are possible,
until a read has shown one of them.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import attrs
import trio

from pyjiva.block import Flush, Read, Unmap, Write
from pyjiva.controller import Volume
from pyjiva.units import KIB

__all__ = [
    "BLOCKS_PER_PAGE",
    "BLOCK_BYTES",
    "PAGE_STRIDE_BYTES",
    "ZEROS",
    "Clients",
    "Collection",
    "name_of",
    "offset_of",
]

BLOCK_BYTES: Final = 512  # what a disk writes whole: a power cut may tear anything larger
BLOCKS_PER_PAGE: Final = 8  # blocks of different clients share a page
PAGE_STRIDE_BYTES: Final = 512 * KIB  # so that a rebuild has several chunks to copy, with holes between
ASTRIDE_BYTES: Final = 3 * BLOCK_BYTES  # of a page lie below its multiple of the stride

ZEROS: Final[dict[bytes, None]] = {bytes(BLOCK_BYTES): None}


@attrs.define(eq=False)
class Register:
    """What a block may hold, as its client knows."""

    possible: list[bytes]
    in_flight: list[bytes] = attrs.field(factory=list)
    raced: list[bytes] = attrs.field(factory=list)
    """Acknowledged while others of `in_flight` were not answered yet."""
    since_flush: list[bytes] = attrs.field(factory=list)
    """Values that a power cut of all that have it could bring back or leave."""


Collection = dict[int, dict[bytes, None]]
"""What each block may have held; none is listed for blocks that were not there yet: zeros."""


@attrs.define(eq=False)
class Clients:
    """What the clients of one world share."""

    blocks: int
    random: Random
    current_volume: Callable[[], Volume | None]
    """The volume that takes requests now."""
    overtaken_volumes: Callable[[], Sequence[Volume]]
    """Others that were ready once and still run."""
    on_acknowledged: Callable[[Write, Volume], None]
    """Called at the moment when a write is answered."""
    note: Callable[[str, object], None]
    registers: list[Register] = attrs.field(init=False)
    _write_number: int = attrs.field(default=0, init=False)
    _losses: int = attrs.field(default=0, init=False)
    """How often everything that was not flushed may have been lost, or the contents were reverted."""
    collections: list[Collection] = attrs.field(factory=list, init=False)
    """Of what blocks may hold from some moment on."""
    reverting: int = attrs.field(default=0, init=False)
    """Reverts that may happen at any moment: then what was read or written just now may be gone again."""

    def __attrs_post_init__(self) -> None:
        zero = bytes(BLOCK_BYTES)
        self.registers = [Register([zero], [], [], [zero]) for _ in range(self.blocks)]

    async def run(self) -> None:
        """Four clients that ask for ever."""
        async with trio.open_nursery() as nursery:
            for client in range(4):
                mine = [b for b in range(self.blocks) if b // 2 % 4 == client]
                nursery.start_soon(self.run_client, client, mine)

    async def run_client(self, client: int, blocks: list[int]) -> None:
        random = Random(self.random.random())
        while True:
            await trio.sleep(random.random() * 0.2)
            volume = self.current_volume()
            if volume is None:
                continue
            mine = [*blocks, *(b for b in range(self.blocks, len(self.registers)) if b // 2 % 4 == client)]
            block = random.choice(mine)
            overtaken = self.overtaken_volumes()
            if overtaken and random.random() < 0.5:
                await self._read_from_overtaken(random.choice(overtaken), block)
                continue
            pair = [block - block % 2, block - block % 2 + 1]
            match random.choices(("write", "pair", "race", "read", "unmap", "flush"), (4, 2, 1, 6, 1, 1))[0]:
                case "write":
                    await self._write(volume, [block])
                case "pair":
                    await self._write(volume, pair)
                case "race":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._write, volume, pair)
                        nursery.start_soon(self._write, volume, [block])
                case "unmap":
                    await self._unmap(volume, pair)
                case "read":
                    await self.read(volume, block)
                case _:
                    await self._flush(volume, mine)

    async def ask(self, volume: Volume, make: Callable[[Callable[[object], None]], object]) -> bool:
        """Submit and wait; False when the controller died before it answered."""
        answered = trio.Event()

        def done(request: object) -> None:
            if isinstance(request, Write) and request.error is None:
                self.on_acknowledged(request, volume)
            answered.set()

        request = make(done)
        volume.submit(request)  # type: ignore[arg-type]
        volume.batch.end()
        while not answered.is_set():
            with trio.move_on_after(0.5):
                await answered.wait()
            if self.current_volume() is not volume and not answered.is_set():
                return False
        return getattr(request, "error", None) is None

    async def _write(self, volume: Volume, blocks: list[int]) -> None:
        self._write_number += 1
        value = (self._write_number.to_bytes(8, "big") * 64)[:BLOCK_BYTES]
        data = value * len(blocks)
        fua = self._write_number % 8 == 0
        await self._change(
            volume, blocks, value, lambda done: Write(offset_of(blocks[0]), len(data), (data,), done, fua)
        )

    async def _unmap(self, volume: Volume, blocks: list[int]) -> None:
        length = len(blocks) * BLOCK_BYTES
        await self._change(
            volume, blocks, bytes(BLOCK_BYTES), lambda done: Unmap(offset_of(blocks[0]), length, done)
        )

    async def _change(
        self,
        volume: Volume,
        blocks: list[int],
        value: bytes,
        make: Callable[[Callable[[object], None]], object],
    ) -> None:
        registers = [self.registers[block] for block in blocks]
        for register in registers:
            register.possible.append(value)
            register.since_flush.append(value)
            register.in_flight.append(value)
        for block in blocks:
            self._offer(block, (value,))
        losses = self._losses
        good = await self.ask(volume, make)
        for register in registers:
            register.in_flight.remove(value)
            if good:
                # What was in flight at the same time may have come before or after; and an answer that was
                # on its way when the power went says nothing of what came back.
                lost = register.since_flush if self._disturbed(losses) else []
                register.possible = [value, *register.raced, *register.in_flight, *lost]
                register.raced = [value, *register.raced] if register.in_flight else []
            elif not register.in_flight:
                register.raced = []
        self.note("acknowledged" if good else "unanswered", f"blocks {blocks} {name_of(value)}")

    async def read(self, volume: Volume, block: int) -> None:
        request: list[Read] = []

        def make(done: Callable[[object], None]) -> Read:
            request.append(Read(offset_of(block), BLOCK_BYTES, done))
            return request[0]

        losses, before = self._losses, self.registers[block].possible
        if await self.ask(volume, make):
            self._check(block, b"".join(request[0].data), losses, before)

    async def _read_from_overtaken(self, volume: Volume, block: int) -> None:
        """An initiator that has not heard of the new controller: it gets the newest contents, or no
        answer.
        """
        answered, losses, before = trio.Event(), self._losses, self.registers[block].possible
        request = Read(offset_of(block), BLOCK_BYTES, lambda _: answered.set())
        volume.submit(request)
        volume.batch.end()
        with trio.move_on_after(1):
            await answered.wait()
        if answered.is_set() and request.error is None:
            self.note("read from an overtaken controller", block)
            self._check(block, b"".join(request.data), losses, before)

    def _check(self, block: int, value: bytes, losses: int, before: list[bytes]) -> None:
        """What was read is what may be there, and stays; unless the power went, or the volume was reverted,
        while it was on its way: then it may also be what was there `before`.
        """
        register, disturbed = self.registers[block], self._disturbed(losses)
        possible = [*register.possible, *before] if disturbed else register.possible
        assert value in possible, (
            f"block {block} holds {name_of(value)}, may hold {[name_of(v) for v in possible]}"
        )
        if not disturbed:
            register.possible = [value]
        self.note("read", f"block {block} {name_of(value)}")

    async def _flush(self, volume: Volume, blocks: list[int]) -> None:
        before = {b: list(self.registers[b].possible) for b in blocks}
        losses = self._losses
        if await self.ask(volume, Flush):
            self.note("flushed", blocks)
            if self._disturbed(losses):
                return  # flushed is what came back, whichever that is
            for block, values in before.items():
                # This client's blocks do not change meanwhile: what they may hold now is all that is left.
                self.registers[block].since_flush = values

    def lose_unflushed(self) -> None:
        """Nobody may have what was not flushed."""
        self._losses += 1
        for block, register in enumerate(self.registers):
            register.possible = list(dict.fromkeys([*register.possible, *register.since_flush]))
            self._offer(block, register.possible)

    # --- for the client that makes snapshots

    def collect(self) -> Collection:
        """Begin to collect what blocks may hold, until it is taken out of `collections`."""
        collection = {b: dict.fromkeys(register.possible) for b, register in enumerate(self.registers)}
        self.collections.append(collection)
        return collection

    def revert_begins(self, contents: Collection) -> Collection:
        """From now on blocks may hold `contents`; begins to collect what they may hold besides afterwards."""
        self._losses += 1
        self.reverting += 1
        since = {b: dict.fromkeys(register.in_flight) for b, register in enumerate(self.registers)}
        for block, register in enumerate(self.registers):
            values = contents.get(block, ZEROS)
            register.possible = list(dict.fromkeys([*register.possible, *values]))
            register.since_flush = list(dict.fromkeys([*register.since_flush, *values]))
            self._offer(block, values)
        self.collections.append(since)
        return since

    def revert_ended(self, contents: Collection, since: Collection, *, happened: bool) -> None:
        """It is known that the revert has happened, or that nothing more will come of it."""
        self._losses += 1
        self.reverting -= 1
        self.collections[:] = [each for each in self.collections if each is not since]
        if happened and not self.reverting:
            for block, register in enumerate(self.registers):
                register.possible = list({**contents.get(block, ZEROS), **since.get(block, {})})
                register.since_flush = list(register.possible)

    def flushed_as(self, contents: Collection, losses: int) -> None:
        """What blocks held at some moment since `losses` was `now` is on stable storage."""
        if not self._disturbed(losses):
            for block, register in enumerate(self.registers):
                register.since_flush = list(contents.get(block, ZEROS))

    @property
    def now(self) -> int:
        """For `flushed_as`."""
        return self._losses

    def grow(self, pages: int) -> None:
        """There are blocks on so many more pages."""
        zero = bytes(BLOCK_BYTES)
        for _ in range(pages * BLOCKS_PER_PAGE):
            self.registers.append(Register([zero], [], [], [zero]))

    def _offer(self, block: int, values: Iterable[bytes]) -> None:
        """A block may hold these too, from now on."""
        for collection in self.collections:
            collection.setdefault(block, dict(ZEROS)).update(dict.fromkeys(values))

    def _disturbed(self, losses: int) -> bool:
        """Whether contents may have changed by themselves since `losses` was the count."""
        return self.reverting > 0 or losses != self._losses


def offset_of(block: int) -> int:
    """Where a client's block is in the volume."""
    page, place = divmod(block, BLOCKS_PER_PAGE)
    return page * PAGE_STRIDE_BYTES + place * BLOCK_BYTES - (ASTRIDE_BYTES if page else 0)


def name_of(value: bytes) -> str:
    return f"write {int.from_bytes(value[:8], 'big')}" if any(value) else "zeros"
