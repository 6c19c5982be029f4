"""Repairs and a scrub over three members with any rot, in any order of answers, with losses: what can be made
good is, what cannot is said once, nothing waits for ever and no lock is left.
"""

import functools
from collections.abc import Callable, Sequence, Set

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.block import Buffer, IntervalLocks, Lock
from pyjiva.controller.range_copy import RangeCopy
from pyjiva.controller.repairs import QUEUE_MAX, Repairs, RotCounts
from pyjiva.controller.resync import Resync
from pyjiva.controller.scrub import Scrub, ScrubStep
from pyjiva.extent import Extent
from pyjiva.replication import ANSWER, Flag, Frame, FrameType, Status, encode_extents
from pyjiva.units import STORED_BLOCK_BYTES

BLOCKS = 8
SIZE = BLOCKS * STORED_BLOCK_BYTES
MEMBERS = (1, 2, 3)
STEPS_MAX = 20_000


def block(value: int) -> bytes:
    return bytes([value]) * STORED_BLOCK_BYTES


def answer(type_: FrameType, said: bytes = b"", status: int = Status.OK) -> Frame:
    return Frame(type_ | ANSWER, status, 0, 1, 0, 0, 0, memoryview(said))


class Members:
    """Three disks of equal contents with bad blocks, and the questions that they have not answered yet."""

    def __init__(self, rotten: Sequence[Set[int]]) -> None:
        self.good = [block(1 + n) for n in range(BLOCKS)]
        self.disks = {member: list(self.good) for member in MEMBERS}
        self.rotten = {member: set(bad) for member, bad in zip(MEMBERS, rotten, strict=True)}
        self.gone: set[int] = set()
        self.locks = IntervalLocks()
        self.asked: list[tuple[int, FrameType, Extent, bytes, Callable[[Frame | None], None], int]] = []
        self.repairs = Repairs(SIZE, self)
        self.scrub = Scrub(SIZE, self)
        self.ended: list[tuple[int, Extent, str]] = []
        self.given_up: set[int] = set()
        self.different: list[int] = []
        self.unpaced = True
        self.spent_bytes = 0

    def take(self, extent: Extent, owner: RangeCopy | Scrub, exclusive: bool) -> None:
        lock = self.locks.acquire(extent.offset_bytes, extent.length_bytes, exclusive=exclusive, owner=owner)
        if lock.held:
            owner.lock_held(lock)

    def acquire_shared(self, extent: Extent, owner: Scrub) -> None:
        self.take(extent, owner, exclusive=False)

    def acquire_exclusive(self, extent: Extent, owner: RangeCopy) -> None:
        self.take(extent, owner, exclusive=True)

    def release(self, lock: Lock) -> None:
        for held in self.locks.release(lock):
            held.owner.lock_held(held)

    def ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer],
        on_answer: Callable[[Frame | None], None],
        code: int = 0,
    ) -> None:
        if member in self.gone:
            on_answer(None)
        else:
            self.asked.append((member, type_, extent, b"".join(payload), on_answer, code))

    def ask_verify(self, member: int, extent: Extent, scrub: Scrub) -> None:
        self.ask(
            member, FrameType.HASH, extent, (), functools.partial(scrub.answered, member), code=Flag.VERIFY
        )

    def readable(self) -> list[int]:
        return [member for member in MEMBERS if member not in self.gone]

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        return next((member for member in self.readable() if member not in without), None)

    def too_much_rot(self, member: int) -> None:
        self.given_up.add(member)

    def repair_ended(self, member: int, extent: Extent, why_not: str) -> None:
        self.ended.append((member, extent, why_not))

    def found_bad(self, finder: Scrub | None, member: int, extent: Extent) -> None:
        self.repairs.found(member, extent)

    def found_good(self, member: int, extent: Extent) -> None:
        self.repairs.good(member, extent)

    def found_different(self, member: int, extent: Extent) -> None:
        self.different.append(member)

    def may_go_on(self, scrub: Scrub) -> bool:
        return self.unpaced

    def spent(self, scrub: Scrub, length_bytes: int) -> None:
        self.spent_bytes += length_bytes

    def scrubbed(self, scrub: Scrub) -> None:
        pass

    def reply(self, number: int = 0) -> None:
        member, type_, extent, payload, on_answer, code = self.asked.pop(number % len(self.asked))
        blocks = range(extent.offset_bytes // STORED_BLOCK_BYTES, extent.end_bytes // STORED_BLOCK_BYTES)
        disk, bad = self.disks[member], self.rotten[member]
        said = b""
        match type_:
            case FrameType.BLOCK_STATUS:
                said = encode_extents([extent])
            case FrameType.READ | FrameType.HASH:
                checked = type_ is FrameType.READ or code & Flag.VERIFY
                if checked and bad.intersection(blocks):
                    on_answer(answer(type_, status=Status.BAD_CHECKSUM))
                    return
                said = b"".join(b"?" * STORED_BLOCK_BYTES if n in bad else disk[n] for n in blocks)
            case FrameType.WRITE:
                for at, n in enumerate(blocks):
                    disk[n] = payload[at * STORED_BLOCK_BYTES : (at + 1) * STORED_BLOCK_BYTES]
                bad.difference_update(blocks)
        on_answer(answer(type_, said))

    def lose(self, member: int) -> list[Extent]:
        self.gone.add(member)
        theirs = [asked for asked in self.asked if asked[0] == member]
        self.asked = [asked for asked in self.asked if asked[0] != member]
        left = self.repairs.lost(member)
        for _, _, _, _, on_answer, _ in theirs:
            on_answer(None)
        self.scrub.answered(member, None)
        return left

    def run(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.asked:
                return
            self.reply()
        raise AssertionError(f"still busy after {STEPS_MAX} answers: {self.asked[:3]}")

    def check(self) -> None:
        """Nothing is held, and all that could be repaired is."""
        assert not self.asked
        assert self.locks.acquire(0, SIZE, exclusive=True, owner=None).held
        for member in set(MEMBERS) - self.gone:
            assert self.repairs.counts(member).repairing == 0
            assert self.disks[member] == self.good


ROTS = st.lists(st.sets(st.integers(0, BLOCKS - 1)), min_size=3, max_size=3)


@settings(max_examples=300)
@given(rotten=ROTS, order=st.lists(st.integers(0, 5), max_size=60))
@example(rotten=[{3}, {3}, {3}], order=[])
def test_a_scrub_finds_all_rot_and_another_copy_takes_its_place(
    rotten: list[set[int]], order: list[int]
) -> None:
    members = Members(rotten)
    members.scrub.start()
    for number in order:
        if members.asked:
            members.reply(number)
    members.run()
    hopeless = set.intersection(*rotten)
    members.check()
    assert str(members.scrub.step) == str(ScrubStep.OVER)
    assert members.scrub.bad == sum(map(bool, rotten))
    assert members.spent_bytes == SIZE
    assert set(members.different) == set()
    for member in MEMBERS:
        assert members.rotten[member] == hopeless
        assert members.repairs.counts(member).hopeless == len(hopeless)
    ends = [extent for _, extent, why_not in members.ended if why_not]
    assert {extent.offset_bytes // STORED_BLOCK_BYTES for extent in ends} == hopeless


@settings(max_examples=300)
@given(
    rotten=ROTS,
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(MEMBERS), st.integers(0, BLOCKS - 1)),  # the host met rot there
            st.integers(0, 5),  # an answer
        ),
        max_size=60,
    ),
    lost=st.sampled_from(MEMBERS),
)
def test_a_loss_amid_repairs_leaves_its_queue_to_the_rebuild_and_the_others_go_on(
    rotten: list[set[int]], steps: list[int | tuple[int, int]], lost: int
) -> None:
    members = Members(rotten)
    found: set[tuple[int, int]] = set()
    for step in steps:
        if isinstance(step, tuple):
            if step[1] in members.rotten[step[0]]:
                found.add(step)
                members.repairs.found(step[0], Extent(step[1] * STORED_BLOCK_BYTES + 512, 512))
        elif members.asked:
            members.reply(step)
    ended = {(m, e.offset_bytes // STORED_BLOCK_BYTES) for m, e, _ in members.ended}
    left = members.lose(lost)
    queued = {n for member, n in found if member == lost} - {n for member, n in ended if member == lost}
    assert queued <= {extent.offset_bytes // STORED_BLOCK_BYTES for extent in left}
    members.gone.discard(lost)  # back at once, as after a rebuild: others may need it
    members.run()
    members.gone.add(lost)
    members.check()
    for member, n in found:
        if member != lost and n in members.rotten[member]:
            told = {(m, e.offset_bytes // STORED_BLOCK_BYTES) for m, e, why_not in members.ended if why_not}
            assert (member, n) in told, "there was no good copy while one was away"


def test_rot_in_all_copies_is_tried_again_when_the_host_reads_it_and_counted_once() -> None:
    members = Members([{2}, {2}, {2}])
    for _ in range(3):
        members.repairs.found(1, Extent(2 * STORED_BLOCK_BYTES, STORED_BLOCK_BYTES))
        members.run()
    assert [members.repairs.counts(m) for m in MEMBERS] == [RotCounts(0, 0, 1, 1)] * 3
    members.rotten[3].clear()  # the host wrote it, and two of the writes rotted as well
    members.repairs.found(1, Extent(2 * STORED_BLOCK_BYTES, STORED_BLOCK_BYTES))
    members.run()
    assert members.repairs.counts(1) == RotCounts(0, 1, 0, 1)
    members.scrub.start()
    members.run()
    assert [members.repairs.counts(m).hopeless for m in MEMBERS] == [0, 0, 0]


def test_the_last_member_has_nobody_to_repair_it_and_says_so_however_much_it_is() -> None:
    members = Members([set(range(BLOCKS)), set(), set()])
    members.gone = {2, 3}
    for n in range(BLOCKS):
        members.repairs.found(1, Extent(n * STORED_BLOCK_BYTES, STORED_BLOCK_BYTES))
    assert [why for _, _, why in members.ended] == ["no other replica is in sync"] * BLOCKS


def test_a_member_with_more_rot_than_the_queue_holds_is_given_up() -> None:
    members = Members([set(), set(), set()])
    members.repairs.size_bytes = (QUEUE_MAX + 1) * STORED_BLOCK_BYTES
    for n in range(QUEUE_MAX):
        members.repairs.found(1, Extent(n * STORED_BLOCK_BYTES, STORED_BLOCK_BYTES))
    assert members.given_up == set()
    members.repairs.found(1, Extent(QUEUE_MAX * STORED_BLOCK_BYTES, STORED_BLOCK_BYTES))
    assert members.given_up == {1}


def test_a_scrub_without_members_waits_for_one_and_then_goes_on_where_it_was() -> None:
    members = Members([set(), set(), {1}])
    members.gone = {1, 2, 3}
    members.scrub.start()
    assert members.scrub.step is ScrubStep.PARKED
    members.scrub.tick()
    assert members.scrub.step is ScrubStep.PARKED
    members.gone = {1}
    members.scrub.tick()
    members.run()
    assert str(members.scrub.step) == str(ScrubStep.OVER)
    assert members.scrub.bad == 1
    assert members.rotten[3] == set()


def test_the_minority_that_differs_with_right_checksums_is_named() -> None:
    members = Members([set(), set(), set()])
    members.disks[1][5] = block(99)
    members.scrub.start()
    members.run()
    assert (members.different, members.scrub.different) == ([1], 1)


def test_a_cancelled_scrub_lets_go_of_its_lock() -> None:
    members = Members([set(), set(), set()])
    members.scrub.start()
    members.scrub.cancel()
    members.run()
    members.check()
    assert members.scrub.position == 0
