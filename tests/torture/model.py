"""What every block of the volume may hold, as the torture's client knows it.  Pure, and nothing of pyjiva.

A *register* is a run of sectors that is always written whole, by one client; anybody may read it.  Its
writes are numbered: the *versions* 1, 2, 3 …; version 0 is the zeros of a new volume.  Every sector of 512
bytes says in itself which register, sector and version it is, with a hash that fills it to its end; so a
read tells for each sector which write it shows, and anything else is a wrong read.

For each sector the model keeps (`Cell`):

- `floor`: no read that begins now may show an older version.  It rises when a write is answered, and to
  what a read has shown: a register's versions only go up (linearizable, one writer).
- `dead`: versions above the floor that must not appear any more: a read that began after they were over
  has shown an older one.  A write that was never answered may have happened or not, but must not change
  its mind.
- `stable`, `buried`: floor and dead as they were when a flush began that was answered.  When nobody is left
  who holds what was not flushed (`lose_unflushed`) the cells fall back to these, and no further.

A write is *over* when it was answered (well or badly), or when its client has logged in again after its
connection was lost: nothing that a session left behind may land after that.

Sectors are judged one by one, as an unanswered write may stop at any sector and a power cut may keep any
sectors.  Not checked: that a write of many sectors that was in flight at a crash is whole; order between
different registers.
"""

import enum
import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

__all__ = ["SECTOR_BYTES", "Cell", "Content", "Model", "ReadTicket", "Register", "WrongRead"]

SECTOR_BYTES: Final = 512
_HEADER: Final = struct.Struct("<8sIIQ")  # magic, register, sector (or _ANY_SECTOR), version
_MAGIC: Final = b"torture1"
_DIGEST_BYTES: Final = 61
_COPIES: Final = 8  # 24 + 8 * 61 = 512
_ANY_SECTOR: Final = 0xFFFF_FFFF  # written by WRITE SAME: all sectors are equal
_ZEROS: Final = bytes(SECTOR_BYTES)
_OLD_CONTENTS: Final = 64  # versions below the floor: a read that began long ago may still show one


class WrongRead(AssertionError):
    """A read showed what it must not."""


class Content(enum.Enum):
    """What a write puts into its sectors."""

    DATA = "data"
    SAME = "same"  # the same sector again and again
    ZERO = "zero"


@attrs.frozen
class Cell:
    """What a sector may hold; see the module."""

    floor: int = 0
    dead: frozenset[int] = frozenset()
    stable: int = 0
    buried: frozenset[int] = frozenset()


@attrs.frozen
class ReadTicket:
    """What was known when a read began."""

    cells: tuple[Cell, ...]
    sent: int
    open: int
    """The version that was not over; 0: none."""
    losses: int


def sector(register: int, number: int, version: int, content: Content) -> bytes:
    """One sector of one version."""
    if content is Content.ZERO:
        return _ZEROS
    place = _ANY_SECTOR if content is Content.SAME else number
    header = _HEADER.pack(_MAGIC, register, place, version)
    return header + hashlib.blake2b(header, digest_size=_DIGEST_BYTES).digest() * _COPIES


@attrs.define(eq=False)
class Register:
    """One run of sectors.  Version 0 is there from the start."""

    number: int
    offset_bytes: int
    sectors: int
    writer: int
    """The client that writes it."""
    model: "Model"
    sent: int = 0
    open: int = 0
    """The version whose write is not over; 0: none."""
    cells: tuple[Cell, ...] = attrs.field(init=False)
    contents: dict[int, Content] = attrs.field(factory=lambda: {0: Content.ZERO})
    """Of every version that may still show."""

    def __attrs_post_init__(self) -> None:
        self.cells = (Cell(),) * self.sectors

    @property
    def length_bytes(self) -> int:
        """Its size."""
        return self.sectors * SECTOR_BYTES

    def data(self, version: int) -> bytes:
        """All of a version."""
        content = self.contents[version]
        if content is not Content.DATA:
            return sector(self.number, 0, version, content) * self.sectors
        return b"".join(sector(self.number, at, version, content) for at in range(self.sectors))

    def known(self) -> int | None:
        """The version that it must hold; None if it may hold several."""
        cell = self.cells[0]
        certain = not self.open and all(one.floor == self.sent for one in {cell, *self.cells})
        return self.sent if certain else None

    # Writes

    def begin_write(self, content: Content) -> int:
        """The version of the next write."""
        assert not self.open, "one write at a time"
        self.sent += 1
        self.open = self.sent
        self.contents[self.sent] = content
        return self.sent

    def acknowledge(self, *, losses: int, stable: bool = False) -> None:
        """The write was answered GOOD; `losses` as it was when it began; `stable`: it had FUA."""
        version, self.open = self.open, 0
        if losses != self.model.losses:
            return  # an answer that was under way when everything went down says nothing of what came back
        self.cells = tuple(
            {
                cell: attrs.evolve(
                    cell, floor=version, dead=frozenset(), stable=version if stable else cell.stable
                )
                for cell in set(self.cells)
            }[cell]
            for cell in self.cells
        )
        self._forget_contents()

    def give_up(self) -> None:
        """The write is over without GOOD: it may have happened or not."""
        self.open = 0

    # Reads

    def begin_read(self) -> ReadTicket:
        """To be called before the command is sent."""
        return ReadTicket(self.cells, self.sent, self.open, self.model.losses)

    def finish_read(self, ticket: ReadTicket, data: bytes) -> None:
        """What the read gave.  Raises WrongRead."""
        if len(data) != self.length_bytes:
            raise WrongRead(f"register {self.number}: {len(data)} bytes instead of {self.length_bytes}")
        seen = self._versions(data)
        judged: dict[tuple[Cell, Cell, int | None], Cell] = {}
        cells = []
        for at, (before, now, version) in enumerate(zip(ticket.cells, self.cells, seen, strict=True)):
            key = (before, now, version)
            if key not in judged:
                judged[key] = self._judge(ticket, before, now, version, at)
            cells.append(judged[key])
        self.cells = tuple(cells)

    def _judge(self, ticket: ReadTicket, before: Cell, now: Cell, version: int | None, at: int) -> Cell:
        """The cell after a read that showed `version` (None: zeros).  Raises WrongRead."""
        whole = ticket.losses == self.model.losses
        lowest = before.floor if whole else min(before.floor, now.stable)
        candidates = [version] if version is not None else self._zero_versions(lowest)
        fit = [v for v in candidates if lowest <= v <= self.sent and not (whole and v in now.dead)]
        if not fit:
            shown = "zeros" if version is None else f"version {version}"
            raise WrongRead(
                f"register {self.number} (offset {self.offset_bytes}, {self.sectors} sectors) shows {shown} "
                f"in sector {at}; at least {lowest}, at most {self.sent}, not {sorted(now.dead)}; "
                f"now {now}, when the read began {ticket.sent} sent, {ticket.open} open"
            )
        if not whole:
            return now
        # Whatever was over when the read began and is newer than what it showed did not happen.
        missing = {v for v in range(max(fit) + 1, ticket.sent + 1) if v != ticket.open}
        if now.floor in missing:
            raise WrongRead(f"register {self.number}: version {now.floor} was there, and now an older one is")
        floor = max(now.floor, min(fit))
        dead = frozenset(v for v in now.dead | missing if v > floor)
        return now if floor == now.floor and dead == now.dead else attrs.evolve(now, floor=floor, dead=dead)

    def _zero_versions(self, lowest: int) -> list[int]:
        return [v for v, content in self.contents.items() if content is Content.ZERO and v >= lowest]

    def _versions(self, data: bytes) -> Sequence[int | None]:
        """Which version each sector shows.  Raises WrongRead: it is none of this register's."""
        first = self._version(data, 0)
        if first is None:
            if data == bytes(len(data)):
                return (None,) * self.sectors
        elif first in self.contents and data == self.data(first):
            return (first,) * self.sectors
        return [self._version(data, at) for at in range(self.sectors)]

    def _version(self, data: bytes, at: int) -> int | None:
        piece = data[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]
        if piece == _ZEROS:
            return None
        magic, register, place, version = _HEADER.unpack_from(piece)
        content = self.contents.get(version)
        if magic == _MAGIC and register == self.number and place in (at, _ANY_SECTOR):
            if content is None and version <= self.sent:
                raise WrongRead(
                    f"register {self.number} sector {at} shows version {version}, long overwritten"
                )
            if content is not None and piece == sector(register, at, version, content):
                return int(version)
        raise WrongRead(
            f"register {self.number} (offset {self.offset_bytes}) sector {at} shows what was never written "
            f"there: {piece[:32].hex()}…: {magic!r}, register {register}, sector {place}, version {version}"
        )

    # Flushes

    def flushed(self, snapshot: tuple[Cell, ...]) -> None:
        """Everything that was in `snapshot`, taken when a flush began, is on stable storage."""
        if snapshot is self.cells and all(cell.stable == cell.floor for cell in set(snapshot)):
            return
        made: dict[tuple[Cell, Cell], Cell] = {}
        for then, now in dict.fromkeys(zip(snapshot, self.cells, strict=True)):
            made[then, now] = now
            if then.floor >= now.stable:
                made[then, now] = attrs.evolve(now, stable=then.floor, buried=then.dead)
        self.cells = tuple(made[pair] for pair in zip(snapshot, self.cells, strict=True))
        self._forget_contents()

    def lose_unflushed(self) -> None:
        """Nobody may have what was not flushed."""
        fallen = {cell: attrs.evolve(cell, floor=cell.stable, dead=cell.buried) for cell in set(self.cells)}
        self.cells = tuple(fallen[cell] for cell in self.cells)

    def _forget_contents(self) -> None:
        lowest = min(min(cell.floor, cell.stable) for cell in set(self.cells))
        if len(self.contents) > 2 * _OLD_CONTENTS:
            lowest -= _OLD_CONTENTS
            self.contents = {v: content for v, content in self.contents.items() if v >= lowest}


@attrs.define(eq=False)
class Model:
    """All registers."""

    registers: list[Register] = attrs.field(factory=list)
    losses: int = 0
    """How often everything that was not flushed may have been lost."""

    def add(self, *, offset_bytes: int, sectors: int, writer: int) -> Register:
        """One more register."""
        register = Register(len(self.registers), offset_bytes, sectors, writer, self)
        self.registers.append(register)
        return register

    def begin_flush(self) -> tuple[int, list[tuple[Cell, ...]]]:
        """To be called before the command is sent."""
        return self.losses, [register.cells for register in self.registers]

    def finish_flush(self, ticket: tuple[int, Iterable[tuple[Cell, ...]]]) -> None:
        """The flush was answered GOOD."""
        losses, snapshots = ticket
        if losses != self.losses:
            return
        for register, snapshot in zip(self.registers, snapshots, strict=True):
            register.flushed(snapshot)

    def lose_unflushed(self) -> None:
        """No machine is left that holds what was not flushed."""
        self.losses += 1
        for register in self.registers:
            register.lose_unflushed()
