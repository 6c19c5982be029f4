"""The witness daemon on connections: what a controller sees of it, whatever becomes of the register."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import attrs
import pytest
import trio
from trio.testing import MockClock

from pyjiva.controller import ControllerOptions, ReplicaAddress
from pyjiva.controller.link_io import shake_hands
from pyjiva.errors import RemoteProtocolError
from pyjiva.membership import MembershipRecord
from pyjiva.replica import WitnessDaemon, WitnessIdentity
from pyjiva.replica.witness_io import STORE_S
from pyjiva.replication import (
    Frame,
    FrameDecoder,
    FrameType,
    PingAnswer,
    PromiseAnswer,
    Refusal,
    ReplicaReport,
    Status,
    decode_message,
    encode_header,
    encode_message,
)
from pyjiva.testing.network import MemoryStream, Network
from pyjiva.testing.votes import VoteClient, VoteRegister
from pyjiva.transport import EndOfBatch
from pyjiva.vote import Kept, Vote, VoteUnknown

KEY = b"k" * 32
A, B = "a" * 16, "b" * 16


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def record(epoch: int, version: int = 1, controller: str = A) -> MembershipRecord:
    return MembershipRecord(epoch, version, controller, (1, 2, 3), (1, 2), clean=False, witnesses=(3,))


@attrs.define(eq=False)
class Controller:
    """One connection, after its handshake."""

    stream: MemoryStream
    decoder: FrameDecoder
    report: ReplicaReport
    number: int = 0

    def send(self, type_: FrameType, epoch: int, payload: bytes = b"") -> None:
        self.number += 1
        body = [payload] if payload else []
        self.stream.send(encode_header(type_, request_id=self.number, epoch=epoch, payload=body), *body)

    async def hear(self) -> Frame | None:
        """The next answer; None: the connection has ended."""
        while (frame := self.decoder.next_frame()) is None:
            if not await self.stream.fill(self.decoder.wanted_bytes):
                return None
        return frame

    async def ask(self, type_: FrameType, epoch: int, payload: bytes = b"") -> Frame | None:
        self.send(type_, epoch, payload)
        return await self.hear()

    async def promised(self, epoch: int) -> PromiseAnswer:
        frame = await self.ask(FrameType.PROMISE, epoch)
        assert frame is not None
        assert frame.code == Status.OK
        return decode_message(frame.payload, PromiseAnswer)

    async def accepted(self, held: MembershipRecord) -> Frame | None:
        return await self.ask(FrameType.ACCEPT, held.epoch, encode_message(held))


@attrs.define(eq=False)
class Site:
    """A network with one register and processes of one witness."""

    network: Network
    register: VoteRegister
    nursery: trio.Nursery
    clients: dict[str, VoteClient] = attrs.field(factory=dict)

    def start(self, name: str, client: VoteClient | None = None) -> WitnessDaemon:
        self.clients[name] = client or self.register.client(name)
        identity = WitnessIdentity("v", 3, "the register")
        daemon = WitnessDaemon(identity, self.clients[name], KEY, EndOfBatch())
        self.nursery.start_soon(daemon.run)
        self.network.listen(name, daemon.serve_connection)
        return daemon

    @asynccontextmanager
    async def connect(
        self, name: str, controller: str = A, key: bytes = KEY, witness: int = 3
    ) -> AsyncIterator[Controller]:
        options = ControllerOptions(
            volume_name="v",
            volume_id="v",
            size_bytes=1 << 30,
            block_size_bytes=4096,
            replicas=(ReplicaAddress(1, name, 1), ReplicaAddress(witness, name, 0, witness=True)),
            key=key,
            new_volume=False,
        )
        batch = EndOfBatch()
        async with self.network.connect(f"controller-{controller}", name) as stream:
            decoder = FrameDecoder(stream.buffer)
            report = await shake_hands(stream, decoder, options, options.replicas[1], controller, batch)
            yield Controller(stream, decoder, report)


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    async with trio.open_nursery() as nursery:
        site = Site(Network(Random(1), nursery), VoteRegister(Random(2), nursery), nursery)
        site.start("w")
        yield site
        nursery.cancel_scope.cancel()


async def test_it_says_what_is_kept_promises_and_takes_records(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        async with site.connect("w") as controller:
            said = controller.report
            assert (said.replica_id, said.witness, said.promised_epoch, said.record) == (3, True, 0, None)
            assert (await controller.promised(4)).record is None
            frame = await controller.accepted(record(4))
            assert frame is not None
            assert frame.code == Status.OK
        assert site.register.vote == Vote(4, A, record(4), 2)
        async with site.connect("w", B) as other:
            assert (other.report.promised_epoch, other.report.promised_to) == (4, A)
            assert other.report.record == record(4)
            assert other.report.directory == "the register"


async def test_who_has_another_key_hears_nothing_of_it(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        with pytest.raises(RemoteProtocolError, match="another volume key"):
            async with site.connect("w", key=b"x" * 32):
                raise AssertionError("it was let in")
        assert site.clients["w"].asked == 0


async def test_another_number_is_not_taken_for_it(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        with pytest.raises(RemoteProtocolError, match="says that it is replica 3"):
            async with site.connect("w", witness=4):
                raise AssertionError("it was let in")


@pytest.mark.parametrize("type_", [FrameType.WRITE, FrameType.READ, FrameType.LINEAGE, FrameType.CHANGE])
async def test_it_takes_no_data(autojump_clock: MockClock, type_: FrameType) -> None:
    async with open_site() as site, site.connect("w") as controller:
        await controller.promised(1)
        assert await controller.ask(type_, 1) is None


async def test_nobody_is_promised_nothing(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        async with site.connect("w", "") as controller:
            assert await controller.ask(FrameType.PROMISE, 1) is None
        async with site.connect("w") as controller:
            await controller.promised(1)


async def test_memory_is_not_shared_with_it(autojump_clock: MockClock) -> None:
    async with open_site() as site, site.connect("w") as controller:
        frame = await controller.ask(FrameType.SHARE, 1)
        assert frame is not None
        assert frame.code == Status.NOT_SUPPORTED
        await controller.promised(1)


async def test_a_ping_is_answered_by_a_read_that_began_after_it(autojump_clock: MockClock) -> None:
    async with open_site() as site, site.connect("w") as controller:
        await controller.promised(1)
        before = site.clients["w"].asked
        for _ in range(5):
            frame = await controller.ask(FrameType.PING, 1)
            assert frame is not None
            assert decode_message(frame.payload, PingAnswer).oldest_operation_s == 0.0
        assert site.clients["w"].asked == before + 5


async def test_pings_that_come_during_a_read_share_the_next_one(autojump_clock: MockClock) -> None:
    async with open_site() as site, site.connect("w") as controller:
        await controller.promised(1)
        before = site.clients["w"].asked
        site.register.cut("w")
        controller.send(FrameType.PING, 1)
        await trio.sleep(0.1)
        for _ in range(3):
            controller.send(FrameType.PING, 1)
        await trio.sleep(0.1)
        site.register.mend()
        frames = [await controller.hear() for _ in range(4)]
        assert [frame.code for frame in frames if frame is not None] == [Status.OK] * 4
        assert site.clients["w"].asked == before + 2


@attrs.define(eq=False)
class Late(VoteClient):
    """What it reads is of the moment of the question, and arrives when it is let go."""

    let_go: trio.Event | None = None

    async def read(self) -> Kept:
        kept = await super().read()
        if self.let_go is not None:
            await self.let_go.wait()
        return kept


async def test_a_read_that_is_under_way_says_nothing_to_a_later_ping(autojump_clock: MockClock) -> None:
    """Between the two another controller may have been promised an epoch, and told so."""
    async with open_site() as site:
        client = Late(site.register, "late")
        site.start("late", client)
        async with site.connect("late") as old, site.connect("w", B) as new:
            await old.promised(1)
            client.let_go = trio.Event()
            old.send(FrameType.PING, 1)
            await trio.sleep(0.5)
            await new.promised(2)
            old.send(FrameType.PING, 1)
            await trio.sleep(0.1)
            client.let_go.set()
            first, second = await old.hear(), await old.hear()
            assert first is not None
            assert second is not None
            assert (first.code, second.code) == (Status.OK, Status.FENCED)


async def test_a_promise_at_another_process_ends_the_older_controller(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        site.start("other")
        async with site.connect("w") as old, site.connect("other", B) as new:
            await old.promised(1)
            await new.promised(2)
            frame = await old.ask(FrameType.PING, 1)
            assert frame is not None
            assert (frame.code, frame.epoch) == (Status.FENCED, 2)
            frame = await old.accepted(record(1))
            assert frame is not None
            assert (frame.code, frame.epoch) == (Status.FENCED, 2)
            frame = await old.ask(FrameType.PROMISE, 2)
            assert frame is not None
            assert (frame.code, frame.epoch) == (Status.FENCED, 2)


async def test_a_ping_before_the_promise_confirms_nothing(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        site.start("other")
        async with site.connect("w") as first, site.connect("other", B) as second:
            await first.promised(3)
            frame = await second.ask(FrameType.PING, 2)
            assert frame is not None
            assert frame.code == Status.NOT_READY
            # Its own older epoch does not end it: it has bid higher meanwhile.
            frame = await first.ask(FrameType.PING, 2)
            assert frame is not None
            assert frame.code == Status.NOT_READY


async def test_a_register_that_does_not_answer_takes_the_witness_out(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        async with site.connect("w") as controller:
            await controller.promised(1)
            site.register.cut("w")
            began_at = trio.current_time()
            assert await controller.ask(FrameType.PING, 1) is None
            assert trio.current_time() - began_at < STORE_S + 0.5
        with pytest.raises(RemoteProtocolError, match="refused: no answer within 2 s"):
            async with site.connect("w"):
                raise AssertionError("it has said what it does not know")
        site.register.mend()
        async with site.connect("w") as controller:
            await controller.promised(1)


@attrs.define(eq=False)
class Unheard(VoteClient):
    """What becomes of its replacements is not heard."""

    is_deaf: bool = False

    async def replace(self, before: Kept, vote: Vote) -> Kept | None:
        kept = await super().replace(before, vote)
        if self.is_deaf:
            raise VoteUnknown("the answer was lost")
        return kept


async def test_what_has_an_unknown_outcome_is_not_answered(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        client = Unheard(site.register, "deaf")
        site.start("deaf", client)
        async with site.connect("deaf") as controller:
            await controller.promised(1)
            client.is_deaf = True
            assert await controller.accepted(record(1)) is None
        async with site.connect("deaf") as controller:
            assert await controller.ask(FrameType.PROMISE, 1) is None
        client.is_deaf = False
        async with site.connect("deaf") as controller:
            assert (await controller.promised(1)).record == record(1)


@attrs.define(eq=False)
class Held(VoteClient):
    """Its replacements of records wait on their way, until they are let go."""

    let_go: trio.Event = attrs.field(factory=trio.Event)
    landed: list[bool] = attrs.field(factory=list)

    async def replace(self, before: Kept, vote: Vote) -> Kept | None:
        if vote.record is None or vote.record == before.vote.record:
            return await super().replace(before, vote)

        async def late() -> None:
            await self.let_go.wait()
            self.landed.append(self.register.replace_now(before, vote) is not None)

        self.register.nursery.start_soon(late)
        await trio.sleep_forever()
        raise VoteUnknown("not reached")


async def test_a_record_that_is_on_its_way_does_not_land_behind_a_new_promise(
    autojump_clock: MockClock,
) -> None:
    """The controller takes the answer to its promise for all that the witness has, and goes on from there."""
    async with open_site() as site:
        client = Held(site.register, "held")
        site.start("held", client)
        async with site.connect("held") as controller:
            await controller.promised(1)
            assert await controller.accepted(record(1)) is None
        async with site.connect("held") as controller:
            assert (await controller.promised(1)).record is None
            client.let_go.set()
            await trio.sleep(1)
            assert client.landed == [False]
        assert site.register.vote.record is None


async def test_a_vote_of_an_older_time_is_not_spoken_for(autojump_clock: MockClock) -> None:
    async with open_site() as site:
        async with site.connect("w") as controller:
            await controller.promised(1)
            before = site.register.vote
            await controller.promised(2)
            site.register.put_back(before)
            assert await controller.ask(FrameType.PING, 2) is None
        site.register.put_back(attrs.evolve(before, writes=99))  # others went on from there
        with pytest.raises(RemoteProtocolError, match="went back from write 2 to 1"):
            async with site.connect("w"):
                raise AssertionError("it has said what is not true any more")
        site.start("new")  # a process that knows nothing of it cannot tell
        async with site.connect("new"):
            pass


@pytest.mark.parametrize("frame", ["PROMISE", "ACCEPT"])
async def test_what_is_too_much_at_once_is_refused(autojump_clock: MockClock, frame: str) -> None:
    async with open_site() as site, site.connect("w") as controller:
        await controller.promised(1)
        site.register.cut("w")
        held = encode_message(record(1))
        ask: Callable[[], None] = partial(
            controller.send, FrameType[frame], 1, held if frame == "ACCEPT" else b""
        )
        for _ in range(70):
            ask()
        answer = await controller.hear()
        assert answer is not None
        assert answer.code == Status.NOT_READY
        assert "too many" in decode_message(answer.payload, Refusal).reason


async def test_its_port_is_a_replicas(nursery: trio.Nursery) -> None:
    register = VoteRegister(Random(1), nursery, delay_s_max=0.0)
    daemon = WitnessDaemon(WitnessIdentity("v", 3, "r"), register.client("w"), KEY, EndOfBatch())
    port = await nursery.start(daemon.serve, "127.0.0.1", 0)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stranger:
        await stranger.send_all(encode_header(FrameType.PROMISE, epoch=1))
        heard = b""
        while chunk := await stranger.receive_some():
            heard += chunk
        assert heard  # it is told that this is not allowed
    assert register.vote == Vote()
