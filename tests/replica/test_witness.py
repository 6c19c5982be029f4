"""What a witness whose vote is in a register decides, over all votes and questions; and several processes
that stand for one vote, over a register that loses answers.
"""

import itertools
from random import Random

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from pyjiva.membership import MembershipRecord
from pyjiva.replica.promise import Fenced
from pyjiva.replica.session import Phase, Session
from pyjiva.replica.witness import Standing, accepted, promised, standing
from pyjiva.replica.witness_io import WitnessDaemon, WitnessIdentity
from pyjiva.replication import ANSWER, PROTOCOL_VERSION, FrameType, Hello, Status, encode_message
from pyjiva.testing.votes import VoteRegister
from pyjiva.transport import EndOfBatch
from pyjiva.vote import Vote
from tests.replica.peers import FakePeer, request

EPOCHS = (1, 2, 3)
CONTROLLERS = ("a", "b")


def record(epoch: int, version: int, controller: str) -> MembershipRecord:
    return MembershipRecord(epoch, version, controller, (1, 2, 3), (1, 2), clean=False, witnesses=(3,))


RECORDS = [
    None,
    *(record(e, v, c) for e, v, c in itertools.product(EPOCHS, (1, 2), CONTROLLERS)),
]
VOTES = [
    Vote(),
    *(
        Vote(epoch, controller, held, 5)
        for epoch, controller, held in itertools.product(EPOCHS, CONTROLLERS, RECORDS)
        if held is None or held.epoch <= epoch
    ),
]
ASKED = list(itertools.product((0, *EPOCHS, 4), CONTROLLERS))


@pytest.mark.parametrize(("epoch", "controller"), ASKED)
def test_a_promise_stands_for_its_controller_and_its_epoch_alone(epoch: int, controller: str) -> None:
    for vote in VOTES:
        found = standing(vote, epoch=epoch, controller_id=controller)
        if vote.promised_to != controller:
            assert found is Standing.OVERTAKEN
        else:
            assert found is (Standing.STANDS if vote.promised_epoch == epoch else Standing.SUPERSEDED)


@pytest.mark.parametrize(("epoch", "controller"), ASKED)
def test_every_promise_is_written_and_none_goes_back(epoch: int, controller: str) -> None:
    for vote in VOTES:
        given_before = (vote.promised_epoch, vote.promised_to)
        if epoch > vote.promised_epoch or (epoch, controller) == given_before != (0, ""):
            after = promised(vote, epoch=epoch, controller_id=controller)
            assert after == attrs.evolve(
                vote, promised_epoch=epoch, promised_to=controller, writes=vote.writes + 1
            )
        else:
            with pytest.raises(Fenced) as fenced:
                promised(vote, epoch=epoch, controller_id=controller)
            assert fenced.value.promised_epoch == vote.promised_epoch


@pytest.mark.parametrize(("epoch", "controller"), ASKED)
def test_a_record_is_taken_from_the_controller_of_the_promise_alone(epoch: int, controller: str) -> None:
    for vote, offered in itertools.product(VOTES, RECORDS[1:]):
        assert offered is not None
        stands = (epoch, controller) == (vote.promised_epoch, vote.promised_to) != (0, "")
        if stands and offered.epoch == epoch and not (vote.record is not None and offered < vote.record):
            after = accepted(vote, offered, epoch=epoch, controller_id=controller)
            if vote.record == offered:
                assert after is vote
            else:
                assert after == attrs.evolve(vote, record=offered, writes=vote.writes + 1)
        else:
            with pytest.raises(Fenced):
                accepted(vote, offered, epoch=epoch, controller_id=controller)


# --- several processes


@attrs.define(eq=False)
class Asker:
    """A controller at one process, as far as the fence is concerned: it asks, and notes what it is told."""

    name: str
    daemon: WitnessDaemon
    world: "World"
    epoch: int = 0
    peer: FakePeer = attrs.field(factory=FakePeer)
    session: Session = attrs.field(init=False)
    asked: dict[int, tuple[FrameType, int, int, MembershipRecord | None]] = attrs.field(factory=dict)
    """By request: type, epoch, and how many promises had been answered when it was asked."""
    number: int = 0

    def __attrs_post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.peer, self.asked = FakePeer(), {}
        hello = Hello((PROTOCOL_VERSION,), "v", self.name, "00" * 32)
        self.session = Session(self.peer, "cd" * 32, Phase.KNOWN, hello)

    def ask(self, type_: FrameType, held: MembershipRecord | None = None) -> None:
        self.number += 1
        self.asked[self.number] = (type_, self.epoch, len(self.world.answered), held)
        payload = encode_message(held) if held is not None else b""
        frame = request(type_, epoch=self.epoch, request_id=self.number, payload=payload)
        self.daemon._control(self.session, frame)

    def hear(self) -> None:
        for frame in self.peer.answers():
            type_, epoch, known, held = self.asked.pop(frame.request_id)
            assert frame.type == type_ | ANSWER
            self.world.heard(self.name, type_, epoch, known, frame.code, held)


@attrs.define(eq=False)
class World:
    """Two or three processes, each with a controller, over one register."""

    seed: int
    steps: int = 60
    answered: list[tuple[int, str]] = attrs.field(factory=list)
    """Promises: epoch and controller, in the order in which their controllers heard of them."""
    told: list[MembershipRecord] = attrs.field(factory=list)
    confirmed: int = 0

    async def play(self) -> None:
        random = Random(self.seed)
        async with trio.open_nursery() as nursery:
            register = VoteRegister(random, nursery, losses=0.1, interference=0.2)
            askers = []
            for name in CONTROLLERS + ("c",) * (self.seed % 2):
                identity = WitnessIdentity("v", 3, "the register")
                daemon = WitnessDaemon(identity, register.client(name), b"k" * 32, EndOfBatch())
                nursery.start_soon(daemon.run)
                askers.append(Asker(name, daemon, self))
            for _ in range(self.steps):
                self._step(random, register, random.choice(askers))
                await trio.sleep(random.random() * 0.2)
                for asker in askers:
                    asker.hear()
                    if asker.peer.is_shut_down:
                        asker.connect()
            register.mend()
            await trio.sleep(10)
            for asker in askers:
                asker.hear()
            self.check(register)
            nursery.cancel_scope.cancel()

    def _step(self, random: Random, register: VoteRegister, asker: Asker) -> None:
        match random.randrange(10):
            case 0:
                register.cut(asker.name)
            case 1:
                register.mend()
            case 2 | 3:
                asker.epoch = register.vote.promised_epoch + random.randrange(2)
                asker.epoch = max(1, asker.epoch)
                asker.ask(FrameType.PROMISE)
            case 4 | 5 if asker.session.phase is Phase.ATTACHED:
                version = 1 + sum(each.epoch == asker.epoch for each in self.told)
                asker.ask(FrameType.ACCEPT, record(asker.epoch, version, asker.name))
            case _:
                asker.ask(FrameType.PING)

    def heard(
        self, name: str, type_: FrameType, epoch: int, known: int, code: int, held: MembershipRecord | None
    ) -> None:
        if code != Status.OK:
            return
        if type_ is FrameType.PROMISE:
            self.answered.append((epoch, name))
        elif type_ is FrameType.ACCEPT:
            assert held is not None
            self.told.append(held)
        else:
            # What had been answered when the ping was sent counts: a lease counts from then.
            highest = max(self.answered[:known], default=(0, ""))
            stands = highest[0] < epoch or highest == (epoch, name)
            assert stands, f"{name} is told that {epoch} stands, asked after {highest} was promised"
            self.confirmed += 1

    def check(self, register: VoteRegister) -> None:
        of_epoch: dict[int, set[str]] = {}
        for epoch, name in self.answered:
            of_epoch.setdefault(epoch, set()).add(name)
        assert all(len(names) == 1 for names in of_epoch.values()), of_epoch
        promises = [vote.promised_epoch for vote in register.history]
        assert promises == sorted(promises)
        held = [vote.record for vote in register.history if vote.record is not None]
        assert held == sorted(held)
        for told in self.told:
            assert told in held


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_several_processes_promise_as_one(seed: int) -> None:
    world = World(seed)
    trio.run(world.play, clock=MockClock(autojump_threshold=0))


def test_those_worlds_are_not_empty() -> None:
    worlds = [World(seed) for seed in range(8)]
    for world in worlds:
        trio.run(world.play, clock=MockClock(autojump_threshold=0))
    assert sum(len(world.answered) for world in worlds) > 20
    assert sum(world.confirmed for world in worlds) > 20
    assert sum(len(world.told) for world in worlds) > 10
