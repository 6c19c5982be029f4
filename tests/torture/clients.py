"""The torture's clients: iSCSI sessions that write their own registers, read everybody's, and check all.

Each client does one command at a time on a session of its own, so several are under way at once.  A command
that is not answered GOOD is over or not as `model` says; the client logs in again where the volume is now,
and goes on.  A stall is the time from when a client wanted something done until a command of it was answered
GOOD.
"""

import struct
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

import attrs
import trio

from pyjiva.testing.initiator import Answer, ConnectionEnded, Initiator
from tests.torture.model import SECTOR_BYTES, Content, Model, Register, WrongRead

__all__ = ["Client", "Clients", "Refused", "open_session", "read_register"]

IQN: Final = "iqn.2016-09.com.openebs.jiva:torture"
CONNECT_S: Final = 2.0
LOGIN_S: Final = 5.0
ANSWER_S: Final = 150.0  # parked for 120 s, then NOT READY
PAUSE_S: Final = 0.2  # between two attempts to log in
THINK_S: Final = 0.02
FUA_SHARE: Final = 0.015  # each flushes all that was written before: with many, little is ever unflushed
SUSPECT_READS: Final = 12  # of a register whose write was not answered: some from every replica
LOST: Final = (
    ConnectionEnded,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)

GOOD, CHECK_CONDITION = 0x00, 0x02
BUSY: Final = frozenset({0x08, 0x28, 0x40})  # BUSY, TASK SET FULL, TASK ABORTED
NOT_READY, UNIT_ATTENTION, DATA_PROTECT, ABORTED_COMMAND, MISCOMPARE = 0x2, 0x6, 0x7, 0xB, 0xE
SPACE_ALLOCATION_FAILED: Final = 0x2707

_BLOCK_CDB: Final = struct.Struct(">BBQIBB")  # READ(16), WRITE(16), WRITE SAME(16), SYNCHRONIZE CACHE(16)
READ, WRITE, WRITE_SAME, SYNCHRONIZE_CACHE, COMPARE_AND_WRITE, UNMAP = 0x88, 0x8A, 0x93, 0x91, 0x89, 0x42
FORCE_UNIT_ACCESS, UNMAP_BIT = 0x08, 0x08


class Refused(Exception):
    """A command was answered, and not GOOD."""


def read_cdb(register: Register) -> bytes:
    """READ(16) of all of a register."""
    return _BLOCK_CDB.pack(READ, 0, register.offset_bytes // SECTOR_BYTES, register.sectors, 0, 0)


@attrs.define(eq=False)
class Shared:
    """What all clients of a run share."""

    model: Model
    portal: Callable[[], str]
    """Host of the controller that they are to use."""
    expects_full: Callable[[], bool]
    """Whether some disk is, or was a moment ago, full on purpose."""
    counts: dict[str, int] = attrs.field(factory=dict)
    suspects: list[Register] = attrs.field(factory=list)
    """What anybody is to read next: replicas may differ in a write that was not answered."""
    stalled: Callable[[float, float], None] = lambda _began, _ended: None

    def count(self, what: str, by: int = 1) -> None:
        """One more of these."""
        self.counts[what] = self.counts.get(what, 0) + by


async def open_session(host: str, name: str, isid: int) -> Initiator:
    """Log in.  Raises one of LOST."""
    with trio.fail_after(CONNECT_S):
        stream = await trio.open_tcp_stream(host, 3260)
    initiator = Initiator(stream, isid=b"\x80\x12\x34\x56" + isid.to_bytes(2, "big"), answer_time_s=ANSWER_S)
    try:
        with trio.fail_after(LOGIN_S):
            answer = await initiator.login(IQN, InitiatorName=f"iqn.2026-01.test:{name}")
            if answer.status:
                raise ConnectionEnded(f"login status {answer.status:#x}")
            await initiator.command(bytes(6))  # TEST UNIT READY takes the unit attention of a new session
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return initiator


def check_answer(answer: Answer, *, full: bool) -> None:
    """Raises Refused: not GOOD, in a way that a target may answer here; AssertionError: in another."""
    if answer.status == GOOD:
        return
    if answer.status in BUSY:
        raise Refused(f"status {answer.status:#x}")
    assert answer.status == CHECK_CONDITION, f"status {answer.status:#x}"
    key, code = answer.sense_code
    fits = key in (NOT_READY, UNIT_ATTENTION, ABORTED_COMMAND)
    fits = fits or (full and (key, code) == (DATA_PROTECT, SPACE_ALLOCATION_FAILED))
    assert fits, f"answered with sense key {key:#x}, code {code:#06x}"
    raise Refused(f"sense key {key:#x}, code {code:#06x}")


async def read_register(initiator: Initiator, register: Register) -> None:
    """Read and check.  Raises WrongRead, Refused, or one of LOST."""
    ticket = register.begin_read()
    answer = await initiator.command(read_cdb(register), read_bytes=register.length_bytes)
    check_answer(answer, full=False)
    register.finish_read(ticket, bytes(answer.data))


@attrs.define(eq=False)
class Client:
    """One client."""

    number: int
    shared: Shared
    random: Random
    own: list[Register]
    began_at: float | None = None
    """Since when it has been waiting for what it wants done."""
    _initiator: Initiator | None = None
    _writing: Register | None = None
    """Whose write may not be over, as no answer came."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def move_over(self) -> None:
        """The volume is somewhere else now: give up what is under way, and log in there."""
        self._scope.cancel()

    async def run(self, may_go_on: Callable[[], bool]) -> None:
        """Ask for ever, while `may_go_on()`.  Raises WrongRead, or AssertionError for a wrong answer."""
        try:
            while may_go_on():
                await trio.sleep(self.random.random() * THINK_S)
                self.began_at = time.monotonic()
                while not await self._try():
                    self.shared.count("attempts without an answer")
                self.shared.stalled(self.began_at, time.monotonic())
                self.began_at = None
        finally:
            await self._disconnect()

    async def _try(self) -> bool:
        """One command; whether it was answered GOOD."""
        done = False
        with trio.CancelScope() as self._scope:
            try:
                if self._initiator is None:
                    await self._connect()
                await self._command()
                done = True
            except Refused as refused:
                self.shared.count(f"answered with {refused}")
                await trio.sleep(PAUSE_S)
            except LOST as lost:
                if isinstance(lost, trio.TooSlowError) and self._initiator is not None:
                    raise AssertionError(f"no answer at all within {ANSWER_S:g} s") from lost
                await self._disconnect()
                await trio.sleep(PAUSE_S)
        if self._scope.cancelled_caught:
            await self._disconnect()
        return done

    async def _connect(self) -> None:
        self._initiator = await open_session(self.shared.portal(), f"client-{self.number}", self.number)
        if self._writing is not None:  # nothing of the old session may land from here on
            self._writing.give_up()
            self.shared.suspects += [self._writing] * SUSPECT_READS
            self._writing = None

    async def _disconnect(self) -> None:
        if self._initiator is not None:
            await trio.aclose_forcefully(self._initiator.stream)
            self._initiator = None

    async def _command(self) -> None:
        register = self.random.choice(self.own)
        verbs = (self._write, self._read, self._unmap, self._write_same, self._compare_and_write)
        verb = self.random.choices((*verbs, None), (40, 40, 6, 4, 4, 1.5))[0]
        if verb is None:
            await self._flush()
        elif verb == self._read:
            suspects = self.shared.suspects
            await self._read(suspects.pop() if suspects else self.random.choice(self.shared.model.registers))
        else:
            await verb(register)

    async def _ask(self, cdb: bytes, **options: Any) -> Answer:
        assert self._initiator is not None
        return await self._initiator.command(cdb, **options)

    async def _read(self, register: Register) -> None:
        assert self._initiator is not None
        await read_register(self._initiator, register)
        self.shared.count("reads")

    async def _flush(self) -> None:
        ticket = self.shared.model.begin_flush()
        check_answer(await self._ask(_BLOCK_CDB.pack(SYNCHRONIZE_CACHE, 0, 0, 0, 0, 0)), full=False)
        self.shared.model.finish_flush(ticket)
        self.shared.count("flushes")

    async def _write(self, register: Register) -> None:
        fua = self.random.random() < FUA_SHARE
        await self._change(register, Content.DATA, WRITE, FORCE_UNIT_ACCESS if fua else 0, stable=fua)

    async def _write_same(self, register: Register) -> None:
        content = self.random.choice((Content.SAME, Content.ZERO))
        flags = UNMAP_BIT if content is Content.ZERO and self.random.getrandbits(1) else 0
        await self._change(register, content, WRITE_SAME, flags, sectors=1)

    async def _unmap(self, register: Register) -> None:
        descriptor = struct.pack(">QI4x", register.offset_bytes // SECTOR_BYTES, register.sectors)
        data = struct.pack(">HH4x", len(descriptor) + 6, len(descriptor)) + descriptor
        cdb = struct.pack(">BB4xBHB", UNMAP, 0, 0, len(data), 0)
        await self._carry_out(register, Content.ZERO, cdb, data)

    async def _change(
        self,
        register: Register,
        content: Content,
        code: int,
        flags: int,
        *,
        sectors: int = 0,
        stable: bool = False,
    ) -> None:
        place = register.offset_bytes // SECTOR_BYTES
        cdb = _BLOCK_CDB.pack(code, flags, place, register.sectors, 0, 0)
        await self._carry_out(register, content, cdb, None, sectors=sectors, stable=stable)

    async def _compare_and_write(self, register: Register) -> None:
        known = register.known()
        if known is None or register.sectors > 128:
            await self._write(register)
            return
        place = register.offset_bytes // SECTOR_BYTES
        cdb = struct.pack(">BBQ3xBBB", COMPARE_AND_WRITE, 0, place, register.sectors, 0, 0)
        await self._carry_out(register, Content.DATA, cdb, None, before=register.data(known))

    async def _carry_out(
        self,
        register: Register,
        content: Content,
        cdb: bytes,
        data: bytes | None,
        *,
        before: bytes = b"",
        sectors: int = 0,
        stable: bool = False,
    ) -> None:
        """Change all of `register`; `data` None: send what it is to hold, or its first `sectors`."""
        losses = self.shared.model.losses
        version = register.begin_write(content)
        self._writing = register
        if data is None:
            data = register.data(version)
            data = before + (data[: sectors * SECTOR_BYTES] if sectors else data)
        answer = await self._ask(cdb, data=data)
        self._writing = None  # answered: it is over
        try:
            check_answer(answer, full=self.shared.expects_full())
        except Refused:
            register.give_up()
            raise
        except AssertionError:
            if before and answer.sense_code[0] == MISCOMPARE and losses == self.shared.model.losses:
                raise WrongRead(
                    f"register {register.number} is not version {version - 1}: MISCOMPARE"
                ) from None
            raise
        register.acknowledge(losses=losses, stable=stable)
        self.shared.count("writes" if content is not Content.ZERO else "unmaps")


@attrs.define(eq=False)
class Clients:
    """All of them, and what they write to."""

    shared: Shared
    random: Random
    size_bytes: int
    count: int = 6
    clients: list[Client] = attrs.field(factory=list)
    forbidden: list[Register] = attrs.field(factory=list)
    """Zeros for ever: only a client that must not succeed writes there."""

    def __attrs_post_init__(self) -> None:
        self._lay_out()
        for number in range(self.count):
            own = [register for register in self.shared.model.registers if register.writer == number]
            self.clients.append(Client(number, self.shared, Random(self.random.random()), own))

    def _lay_out(self) -> None:
        """Groups of registers all over the volume, each in a slot of its own with a hole behind it."""
        #  sectors of each register, their number, offset of the first in its slot in sectors, slots
        kinds = (
            *((1, 8, 0, 12), (8, 1, 0, 120), (128, 1, 0, 16), (8, 1, 3, 30), (8, 8, 8, 20)),
            *((100, 1, 5, 8), (3, 5, 6, 10), (8, 1, 0, 2)),
        )
        slots = [(sectors, number, at) for sectors, number, at, count in kinds for _ in range(count)]
        forbidden = slots[-2:]
        stride = self.size_bytes // len(slots) // SECTOR_BYTES // 8 * 8
        order = list(range(len(slots)))
        self.random.shuffle(order)
        model = self.shared.model
        for slot, (sectors, number, at) in zip(order, slots, strict=True):
            for index in range(number):
                # Neighbours in a page belong to different clients.
                writer = (slot + index) % self.count
                offset = (slot * stride + at + index * sectors) * SECTOR_BYTES
                model.add(offset_bytes=offset, sectors=sectors, writer=writer)
        for register in model.registers[-len(forbidden) :]:
            register.writer = -1
            self.forbidden.append(register)
