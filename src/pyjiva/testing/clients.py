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
#: What a client asks for, and how often.
OPERATIONS: Final = {"write": 4, "pair": 2, "race": 1, "read": 4, "read pair": 2, "unmap": 1, "flush": 1}
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
    changes: int = 0
    """How many were asked for."""


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
    on_acknowledged: Callable[[Write | Unmap, Volume], None]
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
                await self.read_from_overtaken(random.choice(overtaken), block)
                continue
            pair = [block - block % 2, block - block % 2 + 1]
            match random.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]:
                case "write":
                    await self.write(volume, [block])
                case "pair":
                    await self.write(volume, pair)
                case "race":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(random.choice((self.write, self.unmap)), volume, pair)
                        nursery.start_soon(self.write, volume, [block])
                case "unmap":
                    await self.unmap(volume, pair)
                case "read":
                    await self.read(volume, block)
                case "read pair":  # the blocks of some lie in two blocks that have a checksum each
                    await self.read(volume, pair[0], 2)
                case _:
                    await self.flush(volume, mine)

    async def ask(
        self,
        volume: Volume,
        make: Callable[[Callable[[object], None]], object],
        late: Callable[[], None] | None = None,
    ) -> bool:
        """Submit and wait; False when the controller died before it answered, or another one was there:
        `late` is called when it answers all the same.
        """
        answered = trio.Event()
        given_up = False

        def done(request: object) -> None:
            error = getattr(request, "error", None)
            if isinstance(request, Write | Unmap) and error is None:
                self.on_acknowledged(request, volume)
            if given_up and error is None and late is not None:
                late()
            answered.set()

        request = make(done)
        volume.submit(request)  # type: ignore[arg-type]
        volume.batch.end()
        while not answered.is_set():
            with trio.move_on_after(0.5):
                await answered.wait()
            if self.current_volume() is not volume and not answered.is_set():
                given_up = True
                return False
        return getattr(request, "error", None) is None

    async def write(self, volume: Volume, blocks: list[int], *, fua: bool | None = None) -> bool:
        """Write one value to `blocks`, which lie side by side; whether it was acknowledged."""
        self._write_number += 1
        value = (self._write_number.to_bytes(8, "big") * 64)[:BLOCK_BYTES]
        data = value * len(blocks)
        stable = self._write_number % 8 == 0 if fua is None else fua
        return await self._change(
            volume,
            blocks,
            value,
            lambda done: Write(offset_of(blocks[0]), len(data), (data,), done, stable),
            stable=stable,
        )

    async def unmap(self, volume: Volume, blocks: list[int]) -> bool:
        """Make `blocks`, which lie side by side, a hole; whether that was acknowledged."""
        length = len(blocks) * BLOCK_BYTES
        return await self._change(
            volume, blocks, bytes(BLOCK_BYTES), lambda done: Unmap(offset_of(blocks[0]), length, done)
        )

    async def _change(
        self,
        volume: Volume,
        blocks: list[int],
        value: bytes,
        make: Callable[[Callable[[object], None]], object],
        *,
        stable: bool = False,
    ) -> bool:
        registers = [self.registers[block] for block in blocks]
        alone = not any(register.in_flight for register in registers)
        for register in registers:
            register.possible.append(value)
            register.since_flush.append(value)
            register.in_flight.append(value)
            register.changes += 1
        changes = [register.changes for register in registers]
        for block in blocks:
            self._offer(block, (value,))
        losses = self._losses

        def late() -> None:
            if alone and losses == self._losses and changes == [register.changes for register in registers]:
                self._acknowledged_late(registers, value)

        good = await self.ask(volume, make, late)
        for register in registers:
            register.in_flight.remove(value)
            if good:
                # What was in flight at the same time may have come before or after; and an answer that was
                # on its way when the power went says nothing of what came back.
                lost = register.since_flush if self._disturbed(losses) else []
                register.possible = [value, *register.raced, *register.in_flight, *lost]
                register.raced = [value, *register.raced] if register.in_flight else []
                if stable and losses == self._losses:
                    register.since_flush = list(register.possible)
            elif not register.in_flight:
                register.raced = []
        self.note("acknowledged" if good else "unanswered", f"blocks {blocks} {name_of(value)}")
        return good

    def _acknowledged_late(self, registers: list[Register], value: bytes) -> None:
        """A controller that was overtaken answers a write that its client had given up, and nothing was
        written since: what reads have shown meanwhile may not exclude it, and from now on it is there.
        """
        for register in registers:
            assert value in register.possible, (
                f"{name_of(value)} is acknowledged, and {[name_of(v) for v in register.possible]} was read"
            )
            register.possible = [value]
        self.note("acknowledged late", name_of(value))

    async def read(self, volume: Volume, block: int, count: int = 1) -> bool:
        """Read `count` blocks that lie side by side, and look at what comes; whether anything did."""
        request: list[Read] = []

        def make(done: Callable[[object], None]) -> Read:
            request.append(Read(offset_of(block), count * BLOCK_BYTES, done))
            return request[0]

        losses = self._losses
        before = [self.registers[block + n].possible for n in range(count)]
        if not await self.ask(volume, make):
            return False
        data = b"".join(request[0].data)
        for n in range(count):
            self._check(block + n, data[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES], losses, before[n])
        return True

    async def read_from_overtaken(self, volume: Volume, block: int) -> bool:
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
            return True
        return False

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

    async def flush(self, volume: Volume, blocks: list[int]) -> bool:
        """Flush; what `blocks` hold, which nobody changes meanwhile, is stable then if this is True."""
        before = {b: list(self.registers[b].possible) for b in blocks}
        losses = self._losses
        if not await self.ask(volume, Flush):
            return False
        self.note("flushed", blocks)
        if not self._disturbed(losses):  # else flushed is what came back, whichever that is
            for block, values in before.items():
                # This client's blocks do not change meanwhile: what they may hold now is all that is left.
                self.registers[block].since_flush = values
        return True

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
