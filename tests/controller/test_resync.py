"""Copies from one member to another: any contents become equal, and whatever happens leaves no lock."""

from collections.abc import Callable, Sequence, Set

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.block import Buffer, IntervalLocks, Lock
from pyjiva.controller import dirty_map, range_copy
from pyjiva.controller import resync as module
from pyjiva.controller.dirty_map import DirtyMap, FixedWork, Work
from pyjiva.controller.range_copy import RangeCopy, RangeStep
from pyjiva.controller.resync import Resync, ResyncStep
from pyjiva.errors import LocalProtocolError, RemoteProtocolError
from pyjiva.extent import Extent, merge_extents
from pyjiva.replication import ANSWER, Flag, Frame, FrameType, Status, encode_extents

PAGE, CHUNK, SPAN, RANGES = 4, 16, 64, 3
SIZE = 256
SOURCE, TARGET = 1, 2

Waiting = ResyncStep | RangeStep


@pytest.fixture(autouse=True, scope="module")
def _small() -> object:
    """Chunks of 16 bytes and spans of 64, steps of three ranges: every path of the walk in little volumes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_copy, "STORED_BLOCK_BYTES", PAGE)
        patch.setattr(module, "CHUNK_BYTES", CHUNK)
        patch.setattr(module, "RANGES_MAX", RANGES)
        patch.setattr(module, "SPAN_BYTES", SPAN)
        yield


class Disk:
    """Pages that hold data; the others are holes."""

    def __init__(self, pages: dict[int, bytes] | None = None) -> None:
        self.pages = dict(pages or {})

    def read(self, extent: Extent) -> bytes:
        whole = b"".join(self.pages.get(n, bytes(PAGE)) for n in range(SIZE // PAGE))
        return whole[extent.offset_bytes : extent.end_bytes]

    def write(self, extent: Extent, data: bytes) -> None:
        for n in range(extent.offset_bytes // PAGE, -(-extent.end_bytes // PAGE)):
            page = bytearray(self.pages.get(n, bytes(PAGE)))
            for at in range(PAGE):
                where = n * PAGE + at - extent.offset_bytes
                if 0 <= where < extent.length_bytes:
                    page[at] = data[where]
            self.pages[n] = bytes(page)

    def unmap(self, extent: Extent) -> None:
        for n in range(SIZE // PAGE):
            if (cut := Extent(n * PAGE, PAGE).clip(extent)) is not None:
                if cut.length_bytes == PAGE:
                    self.pages.pop(n, None)
                elif n in self.pages:
                    self.write(cut, bytes(cut.length_bytes))

    def allocated(self, extent: Extent) -> list[Extent]:
        pages = merge_extents(Extent(n * PAGE, PAGE) for n in self.pages)
        return [part for page in pages if (part := page.clip(extent)) is not None]


class Port:
    """What a resync needs; answers wait until they are given, unless `member` is not connected."""

    def __init__(
        self,
        source: Disk,
        target: Disk,
        extents: Sequence[Extent] = (Extent(0, SIZE),),
        *,
        compare_first: bool = True,
        work: Work | None = None,
    ) -> None:
        self.disks = {SOURCE: source, TARGET: target}
        self.locks = IntervalLocks()
        self.gone: set[int] = set()
        self.asked: list[tuple[int, FrameType, Extent, bytes, Callable[[Frame | None], None]]] = []
        self.codes: dict[Callable[[Frame | None], None], int] = {}
        self.log: list[tuple[int, FrameType, Extent]] = []
        self.outcomes: list[tuple[int | None, str]] = []
        self.on_answer: dict[int, Callable[[Frame | None], None]] = {}
        self.sources = [SOURCE]
        self.bad: list[tuple[int, Extent]] = []
        self.rotten: dict[int, set[int]] = {}
        self.unpaced = True
        self.spent_bytes = 0
        self.resync = Resync(SOURCE, TARGET, work or FixedWork(list(extents), compare_first), self)
        self.at_advance: Callable[[], None] = lambda: None
        self.breaks_writes = False

    def acquire_shared(self, extent: Extent, owner: RangeCopy) -> None:
        lock = self.locks.acquire(extent.offset_bytes, extent.length_bytes, exclusive=False, owner=owner)
        if lock.held:
            owner.lock_held(lock)

    def release(self, lock: Lock) -> None:
        for held in self.locks.release(lock):
            if isinstance(held.owner, RangeCopy):
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
            return
        self.on_answer[member] = on_answer
        self.codes[on_answer] = code
        self.asked.append((member, type_, extent, b"".join(payload), on_answer))
        self.log.append((member, type_, extent))

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        fit = [member for member in self.sources if member not in without and member not in self.gone]
        return fit[0] if fit else None

    def found_bad(self, finder: Resync, member: int, extent: Extent) -> None:
        self.bad.append((member, extent))

    def may_go_on(self, resync: Resync) -> bool:
        return self.unpaced

    def spent(self, resync: Resync, length_bytes: int) -> None:
        self.spent_bytes += length_bytes

    def advanced(self, resync: Resync) -> None:
        self.at_advance()

    def finished(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        self.outcomes.append((failed_member, reason))

    def reply(self, number: int = 0) -> None:
        """Carry out one question and answer it."""
        member, type_, extent, payload, on_answer = self.asked.pop(number)
        disk, said = self.disks[member], b""
        squeezable = bool(self.codes[on_answer] & Flag.LZ4)
        match type_:
            case FrameType.BLOCK_STATUS:
                said = encode_extents(disk.allocated(extent))
            case FrameType.HASH if self.codes[on_answer] & Flag.VERIFY and self.is_rotten(member, extent):
                on_answer(_answer(type_, b"", Status.BAD_CHECKSUM))
                return
            case FrameType.HASH:
                said = b"#" + disk.read(extent)
            case FrameType.READ if self.is_rotten(member, extent):
                on_answer(_answer(type_, b"", Status.BAD_CHECKSUM))
                return
            case FrameType.READ:
                said = disk.read(extent)
                if squeezable and (squeezed := pretend_to_squeeze(said)):
                    on_answer(_answer(type_, squeezed, length_bytes=extent.length_bytes))
                    return
            case FrameType.SPOIL:
                disk.unmap(extent)
                self.rotten.setdefault(member, set()).add(extent.offset_bytes // PAGE)
            case FrameType.UNMAP:
                disk.unmap(extent)
                self.cure(member, extent)
            case FrameType.WRITE:
                if squeezable:
                    payload = payload[:1] * extent.length_bytes
                disk.write(extent, payload if not self.breaks_writes else payload[:-1] + b"!")
                self.cure(member, extent)
        on_answer(_answer(type_, said))

    def is_rotten(self, member: int, extent: Extent) -> bool:
        return any(extent.overlaps(Extent(n * PAGE, PAGE)) for n in self.rotten.get(member, ()))

    def cure(self, member: int, extent: Extent) -> None:
        self.rotten.get(member, set()).difference_update(
            range(-(-extent.offset_bytes // PAGE), extent.end_bytes // PAGE)
        )

    def say(self, member: int, type_: FrameType, said: bytes = b"", status: int = Status.OK) -> None:
        self.on_answer[member](_answer(type_, said, status))

    def run(self, until: Callable[[], bool] = lambda: False, order: Sequence[int] = ()) -> None:
        """Answer until nothing is asked any more; `order`: which of the questions is answered next."""
        places = iter(order)
        while self.asked and not until():
            self.reply(next(places, 0) % len(self.asked))

    @property
    def waits_for(self) -> Waiting:
        """What the resync waits for: of several ranges, the first."""
        return self.resync.ranges[0].step if self.resync.ranges else self.resync.step

    def reach(self, step: Waiting) -> None:
        """Go on until the resync waits for `step`."""
        if step is RangeStep.LOCKING:
            self.locks.acquire(0, SIZE, exclusive=True)  # a host's write
        self.unpaced = step is not ResyncStep.PACING
        if step is RangeStep.CHECKING:
            self.resync.if_bad = True
            self.rotten = {TARGET: {5}}
        self.resync.start()
        self.run(lambda: self.waits_for is step)
        assert self.waits_for is step


def pretend_to_squeeze(whole: bytes) -> bytes | None:
    """The same byte again and again in one."""
    return whole[:1] if len(set(whole)) == 1 else None


def _answer(type_: FrameType, said: bytes, status: int = Status.OK, *, length_bytes: int = 0) -> Frame:
    return Frame(type_ | ANSWER, status, 0, 1, 0, length_bytes, 0, memoryview(said))


ORDER = st.lists(st.integers(0, 7), max_size=60)
PAGES = st.dictionaries(
    st.integers(0, SIZE // PAGE - 1), st.binary(min_size=PAGE, max_size=PAGE), max_size=SIZE // PAGE
)


def different() -> Port:
    """Data, a hole and data in the source's second chunk; other data at the target."""
    return Port(Disk({4: b"aaaa", 6: b"bbbb"}), Disk({5: b"cccc", 6: b"dddd"}))


@settings(max_examples=200)
@given(source=PAGES, target=PAGES, order=ORDER)
def test_any_two_contents_become_equal_and_holes_stay_holes(
    source: dict[int, bytes], target: dict[int, bytes], order: list[int]
) -> None:
    port = Port(Disk(source), Disk(target))
    before = Disk(target)
    port.resync.start()
    port.run(order=order)
    assert port.outcomes == [(None, "")]
    whole = Extent(0, SIZE)
    assert port.disks[SOURCE].pages == source, "nothing is written to the source"
    assert port.disks[TARGET].read(whole) == port.disks[SOURCE].read(whole)
    assert len(port.locks) == 0
    assert port.resync.fraction_done() == 1.0
    for chunk in whole.split(CHUNK):
        touched = [t for m, t, e in port.log if m == TARGET and t != FrameType.HASH and e.overlaps(chunk)]
        if before.read(chunk) == Disk(source).read(chunk):
            assert set(touched) <= {FrameType.BLOCK_STATUS}, "an equal chunk is not copied"
        else:
            assert port.disks[TARGET].allocated(chunk) == port.disks[SOURCE].allocated(chunk)


@settings(max_examples=100)
@given(
    source=PAGES,
    target=PAGES,
    parts=st.lists(st.tuples(st.integers(0, 250), st.integers(1, 40)), max_size=4),
    order=ORDER,
)
@example(source={1: b"aaaa"}, target={}, parts=[], order=[])
def test_only_the_extents_that_were_asked_for_are_touched(
    source: dict[int, bytes], target: dict[int, bytes], parts: list[tuple[int, int]], order: list[int]
) -> None:
    extents = merge_extents(Extent(at, min(length, SIZE - at)) for at, length in parts)
    port = Port(Disk(source), Disk(target), extents)
    expected = bytearray(Disk(target).read(Extent(0, SIZE)))
    for extent in extents:
        expected[extent.offset_bytes : extent.end_bytes] = Disk(source).read(extent)
    port.resync.start()
    port.run(order=order)
    assert port.outcomes == [(None, "")]
    assert port.disks[TARGET].read(Extent(0, SIZE)) == expected


@settings(max_examples=100)
@given(
    source=PAGES,
    target=PAGES,
    parts=st.lists(st.tuples(st.integers(0, 250), st.integers(1, 40)), max_size=4),
    order=ORDER,
)
def test_what_was_missed_is_copied_without_a_look_at_the_rest(
    source: dict[int, bytes], target: dict[int, bytes], parts: list[tuple[int, int]], order: list[int]
) -> None:
    extents = merge_extents(Extent(at, min(length, SIZE - at)) for at, length in parts)
    port = Port(Disk(source), Disk(target), extents, compare_first=False)
    expected = bytearray(Disk(target).read(Extent(0, SIZE)))
    for extent in extents:
        expected[extent.offset_bytes : extent.end_bytes] = Disk(source).read(extent)
    port.resync.start()
    port.run(order=order)
    assert port.outcomes == [(None, "")]
    assert port.disks[TARGET].read(Extent(0, SIZE)) == expected
    asked = merge_extents(extent for _, _, extent in port.log)
    assert sum(e.length_bytes for e in asked) <= sum(e.length_bytes for e in extents)
    assert port.resync.copied_bytes <= sum(e.length_bytes for e in extents)
    assert port.resync.fraction_done() == 1.0


WRITES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, SIZE - 8), st.integers(1, 8)), max_size=12)


@settings(max_examples=200)
@given(
    contents=PAGES,
    missed=WRITES,
    meanwhile=WRITES,
    everything=st.booleans(),
    quiet=st.booleans(),
    order=ORDER,
    piece_bytes=st.sampled_from([PAGE, 2 * CHUNK]),
)
@example(
    contents={},
    missed=[(0, 100, 1)],
    meanwhile=[(1, 0, 8)],
    everything=False,
    quiet=False,
    order=[],
    piece_bytes=PAGE,
).via("simulated world 1014: a write before the first piece, after the walk had gone there")
@example(
    contents={},
    missed=[(0, 0, 1), (0, 40, 1), (0, 80, 1)],
    meanwhile=[(4, 80, 1), (4, 60, 1)],
    everything=False,
    quiet=False,
    order=[2, 2, 2, 2],
    piece_bytes=PAGE,
).via("the last of a step is done first, and it and what lies before it are written while the first is not")
def test_what_is_written_meanwhile_arrives_too(
    contents: dict[int, bytes],
    missed: list[tuple[int, int, int]],
    meanwhile: list[tuple[int, int, int]],
    everything: bool,
    quiet: bool,
    order: list[int],
    piece_bytes: int,
) -> None:
    """By the copy, or beside it: below the border a write goes to both sides.  A piece of the map may be
    larger than a chunk, as in a volume of many TiB.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dirty_map, "GRANULE_BYTES", piece_bytes)
        dirty = DirtyMap(SIZE, everything)
    port = Port(Disk(contents), Disk(contents), work=dirty)
    border = [0]
    port.at_advance = lambda: border.__setitem__(0, port.resync.position)

    def write(extent: Extent) -> None:
        port.disks[SOURCE].write(extent, b"w" * extent.length_bytes)
        for part in extent.split(1):
            if part.offset_bytes < border[0]:
                port.disks[TARGET].write(part, b"w")
            else:
                dirty.mark(part.offset_bytes, 1)

    for _, offset, length in missed:
        write(Extent(offset, length))
    port.resync.turn.quiet = quiet
    port.resync.start()
    steps, waiting, places = 0, sorted(meanwhile), iter(order)
    while port.asked:
        for when, offset, length in list(waiting):
            busy = any(e.overlaps(Extent(offset, length)) for e, _, _ in port.locks.extents())
            if when <= steps and not busy:
                waiting.remove((when, offset, length))
                write(Extent(offset, length))
        port.reply(next(places, 0) % len(port.asked))
        steps += 1
    assert port.outcomes == [(None, "")]
    for _, offset, length in waiting:  # the border stands behind the last piece: the member joins now
        border[0] = SIZE
        write(Extent(offset, length))
    whole = Extent(0, SIZE)
    assert port.disks[TARGET].read(whole) == port.disks[SOURCE].read(whole)


@pytest.mark.parametrize("fails_again", [False, True])
def test_after_a_piece_that_could_not_be_squeezed_some_go_as_they_are(fails_again: bool) -> None:
    again, last = 2 * module.SQUEEZE_AGAIN + 2, 2 * module.SQUEEZE_AGAIN + 10
    hard = {0, again} if fails_again else {0}
    source = Disk({n: b"abcd" if n in hard else b"aaaa" for n in range(0, last + 1, 2)})
    port = Port(source, Disk())
    asked = []
    port.resync.start()
    while port.asked:
        _, type_, extent, _, on_answer = port.asked[0]
        if type_ is FrameType.READ:
            asked.append((extent.offset_bytes // PAGE, bool(port.codes[on_answer])))
        port.reply()
    assert port.outcomes == [(None, "")]
    assert port.disks[TARGET].pages == source.pages
    tried = {0, again} if fails_again else {0, *range(again, last + 1)}
    assert asked == [(n, n in tried) for n in range(0, last + 1, 2)]
    assert port.resync.copied_bytes == len(asked) * PAGE
    squeezed = len(tried.intersection(range(0, last + 1, 2)) - hard)
    assert port.resync.sent_bytes == (len(asked) - squeezed) * PAGE + squeezed


def test_of_a_step_whose_pieces_cannot_be_squeezed_all_may_be_tried_but_of_the_next_none() -> None:
    """They are asked for before the first answer comes."""
    port = scattered([0, 2, 4, 6, 8, 10])
    port.resync.start()
    tried = []
    while port.asked:
        _, type_, _, _, on_answer = port.asked[0]
        if type_ is FrameType.READ:
            tried.append(bool(port.codes[on_answer]))
        port.reply()
    assert tried == [True] * RANGES + [False] * RANGES


@pytest.mark.parametrize(("said", "length_bytes"), [(b"a", 0), (b"a", PAGE - 1), (b"abcde", PAGE), (b"", 0)])
def test_an_answer_that_is_neither_whole_nor_squeezed_is_raised(said: bytes, length_bytes: int) -> None:
    port = different()
    port.reach(RangeStep.READING)
    with pytest.raises(RemoteProtocolError):
        port.on_answer[SOURCE](_answer(FrameType.READ, said, length_bytes=length_bytes))


def test_an_empty_volume_costs_one_question_a_span() -> None:
    port = Port(Disk(), Disk())
    port.resync.start()
    port.run()
    assert len(port.log) == 2 * SIZE // SPAN


def test_writes_are_kept_out_of_the_chunk_under_way_only() -> None:
    port = different()
    port.reach(RangeStep.READING)
    [(extent, exclusive, held)] = port.locks.extents()
    assert (extent, exclusive, held) == (Extent(CHUNK, CHUNK), False, True)
    assert port.resync.position == CHUNK
    waiting = port.locks.acquire(CHUNK, 1, exclusive=True, owner=None)
    assert not waiting.held
    assert port.locks.acquire(2 * CHUNK, 1, exclusive=True).held
    positions: list[int] = []
    port.at_advance = lambda: positions.append(port.resync.position if not waiting.held else -1)
    port.run(lambda: waiting.held)
    assert positions == [SPAN], "the write that goes on now goes to the target too; no more was left"


def test_a_copy_that_did_not_take_is_reported() -> None:
    port = different()
    port.breaks_writes = True
    port.resync.start()
    port.run()
    [(failed, reason)] = port.outcomes
    assert failed == TARGET
    assert "differs" in reason
    assert len(port.locks) == 0


ASKING = [step for step in RangeStep if step not in (RangeStep.LOCKING, RangeStep.OVER)]
WAITING: list[Waiting] = [ResyncStep.PACING, RangeStep.LOCKING, *ASKING]
CHANGING = (RangeStep.UNMAPPING, RangeStep.WRITING)


@pytest.mark.parametrize("member", [SOURCE, TARGET])
@pytest.mark.parametrize("step", WAITING)
def test_losing_either_side_ends_it_at_every_step(step: Waiting, member: int) -> None:
    """Also while it waits for a lock: when the lock comes the member may be back, and behind."""
    port = different()
    port.reach(step)
    port.resync.member_lost(member)
    if member == SOURCE and step in CHANGING:
        assert port.outcomes == []
        assert len([held for _, _, held in port.locks.extents() if held]) == 1
        port.reply()
        member = TARGET
    assert [failed for failed, _ in port.outcomes] == [member]
    assert [held for _, exclusive, held in port.locks.extents() if held and not exclusive] == []
    port.run()
    for lock in [k for locks in port.locks._granules.values() for k in locks if k.exclusive]:
        port.release(lock)
    assert len(port.locks) == 0
    assert len(port.outcomes) == 1
    port.resync.member_lost(member)
    assert len(port.outcomes) == 1


@pytest.mark.parametrize("gone", [SOURCE, TARGET])
@pytest.mark.parametrize("step", WAITING)
def test_a_member_that_cannot_be_asked_ends_it(step: Waiting, gone: int) -> None:
    port = different()
    port.reach(step)
    port.gone = {gone}
    port.unpaced = True
    port.resync.go_on()
    for lock in [k for locks in port.locks._granules.values() for k in locks if k.exclusive]:
        port.release(lock)
    port.run()
    assert [failed for failed, _ in port.outcomes] == [gone]
    assert len(port.locks) == 0


@pytest.mark.parametrize("step", ASKING)
def test_a_refusal_or_a_loss_as_answer_is_its_members_fault(step: Waiting) -> None:
    for status in (Status.READ_ERROR, None):
        port = different()
        port.reach(step)
        member, type_, _, _, _ = port.asked.pop()
        if status is None:
            port.on_answer[member](None)
        else:
            port.say(member, type_, status=status)
        assert [failed for failed, _ in port.outcomes] == [member]
        assert len(port.locks) == 0


@pytest.mark.parametrize("step", WAITING)
def test_cancelling_at_every_step_leaves_no_lock(step: Waiting) -> None:
    port = different()
    port.reach(step)
    port.resync.cancel()
    port.run()
    for lock in [k for locks in port.locks._granules.values() for k in locks if k.exclusive]:
        port.release(lock)
    assert port.outcomes == []
    assert len(port.locks) == 0


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (RangeStep.PROBING, b"no list of extents"),
        (RangeStep.PROBING, encode_extents([Extent(0, SIZE + 1)])),
        (RangeStep.HASHING, b""),
        (RangeStep.MAPPING, encode_extents([Extent(0, 4)])),
        (RangeStep.READING, b"short"),
    ],
)
def test_a_senseless_answer_is_raised_while_its_member_speaks(step: Waiting, said: bytes) -> None:
    """Else the connection of the other one would be closed for it."""
    port = different()
    port.reach(step)
    member, type_, _, _, _ = port.asked.pop(0)
    with pytest.raises(RemoteProtocolError):
        port.say(member, type_, said)
    port.resync.member_lost(member)  # what the volume does then
    assert [failed for failed, _ in port.outcomes] == [member]
    assert len(port.locks) == 0


def test_an_answer_that_nobody_waits_for_is_a_bug() -> None:
    port = different()
    port.reach(RangeStep.HASHING)
    say = port.on_answer[TARGET]
    port.resync.ranges[0].step = RangeStep.LOCKING
    with pytest.raises(LocalProtocolError):
        say(Frame(FrameType.HASH | ANSWER, 0, 0, 1, 0, 0, 0, memoryview(b"#")))


OTHER = 3


@pytest.mark.parametrize("step", CHANGING)
def test_what_the_target_was_to_change_ends_before_another_source_is_asked(step: RangeStep) -> None:
    """Else it could land after the lock is given back, on what a host has written."""
    port = different()
    port.disks[OTHER] = port.disks[SOURCE]
    port.sources = [SOURCE, OTHER]
    port.reach(step)
    port.gone = {SOURCE}
    port.resync.member_lost(SOURCE)
    assert [(member, type_.name) for member, type_, *_ in port.asked] == [
        (TARGET, {RangeStep.UNMAPPING: "UNMAP", RangeStep.WRITING: "WRITE"}[step])
    ]
    port.reply()
    assert port.asked
    assert all(type_ not in (FrameType.WRITE, FrameType.UNMAP) for _, type_, *_ in port.asked)
    port.run()
    assert port.outcomes == [(None, "")]


@settings(max_examples=200)
@given(
    source=PAGES,
    target=PAGES,
    answers=st.integers(0, 40),
    compare_first=st.booleans(),
    scattered=st.booleans(),
    order=ORDER,
)
def test_a_source_that_is_lost_is_replaced_wherever_it_stood(
    source: dict[int, bytes],
    target: dict[int, bytes],
    answers: int,
    compare_first: bool,
    scattered: bool,
    order: list[int],
) -> None:
    pages = Extent(0, SIZE).split(PAGE)
    extents = [Extent(0, SIZE)] if not scattered else list(pages)[::2]
    target = {n: data for n, data in target.items() if not scattered or n % 2 == 0}
    source = {n: data for n, data in source.items() if not scattered or n % 2 == 0}
    port = Port(Disk(source), Disk(target), extents, compare_first=compare_first)
    port.disks[OTHER] = Disk(source)
    port.sources = [SOURCE, OTHER]
    port.resync.start()
    places = iter(order)
    for _ in range(answers):
        if port.asked:
            port.reply(next(places, 0) % len(port.asked))
    port.gone = {SOURCE}
    port.resync.member_lost(SOURCE)
    port.asked = [question for question in port.asked if question[0] != SOURCE]
    port.run(order=list(places))
    assert port.outcomes == [(None, "")]
    assert port.disks[TARGET].read(Extent(0, SIZE)) == Disk(source).read(Extent(0, SIZE))
    assert len(port.locks) == 0


@settings(max_examples=200)
@given(
    source=PAGES,
    rotten=st.lists(st.sets(st.integers(0, SIZE // PAGE - 1)), min_size=2, max_size=2),
    compare_first=st.booleans(),
    order=ORDER,
)
def test_rot_in_the_sources_is_passed_by_unless_all_have_it_in_one_place(
    source: dict[int, bytes], rotten: list[set[int]], compare_first: bool, order: list[int]
) -> None:
    port = Port(Disk(source), Disk(dict.fromkeys(range(SIZE // PAGE), b"oooo")), compare_first=compare_first)
    port.disks[OTHER] = Disk(source)
    port.sources = [SOURCE, OTHER]
    port.rotten = dict(zip((SOURCE, OTHER), rotten, strict=True))
    port.resync.start()
    port.run(order=order)
    hopeless = rotten[0] & rotten[1] & set(source)
    assert port.outcomes == [(None, "")]
    assert port.rotten.get(TARGET, set()) == hopeless, "nobody has these, and the target says so"
    good = {n: data for n, data in source.items() if n not in hopeless}
    assert port.disks[TARGET].read(Extent(0, SIZE)) == Disk(good).read(Extent(0, SIZE))
    for member, extent in port.bad:
        assert any(extent.overlaps(Extent(n * PAGE, PAGE)) for n in port.rotten[member])
    assert len(port.locks) == 0


def test_each_range_is_copied_from_the_source_that_the_volume_chooses() -> None:
    data = dict.fromkeys(range(SIZE // PAGE), b"data")
    port = Port(Disk(data), Disk())
    port.disks[OTHER] = Disk(data)
    port.sources = [SOURCE, OTHER]
    port.at_advance = port.sources.reverse
    port.resync.start()
    port.run()
    assert port.outcomes == [(None, "")]
    readers = {member for member, type_, _ in port.log if type_ is FrameType.READ}
    assert readers == {SOURCE, OTHER}


def test_it_waits_for_its_turn_before_each_range_and_tells_what_it_read() -> None:
    data = dict.fromkeys(range(SIZE // PAGE), b"data")
    port = Port(Disk(data), Disk())
    port.unpaced = False
    port.resync.start()
    for _ in range(100):
        port.run()
        if port.outcomes:
            break
        assert port.resync.step is ResyncStep.PACING
        assert len(port.locks) == 0, "no writer waits meanwhile"
        port.unpaced = True
        port.resync.go_on()
        port.unpaced = False
    assert port.outcomes == [(None, "")]
    assert port.spent_bytes == 3 * SIZE  # compared, copied, proved


def scattered(pages: Sequence[int], *, compare_first: bool = False) -> Port:
    """These pages are to be copied."""
    data = dict.fromkeys(range(SIZE // PAGE), b"abcd")
    return Port(Disk(data), Disk(), [Extent(n * PAGE, PAGE) for n in pages], compare_first=compare_first)


def test_what_is_scattered_makes_up_a_step_together() -> None:
    """So what is asked for travels together."""
    port = scattered([0, 2, 5, 9, 12, 15, 20])
    steps: list[list[int]] = []
    port.resync.start()
    while port.asked:
        under_way = [range_.extent.offset_bytes // PAGE for range_ in port.resync.ranges]
        if not steps or under_way[0] > steps[-1][-1]:
            steps.append(under_way)
            assert len(port.asked) == len(under_way)
        port.reply()
    assert steps == [[0, 2, 5], [9, 12, 15], [20]]
    assert port.outcomes == [(None, "")]


def test_a_step_has_no_more_than_a_chunk_while_hosts_ask() -> None:
    work = FixedWork([Extent(0, 2 * PAGE), Extent(3 * PAGE, 4 * PAGE)], compare_first=False)
    port = Port(Disk(), Disk(), work=work)
    port.resync.turn.quiet = False
    port.resync.start()
    assert [r.extent for r in port.resync.ranges] == [Extent(0, 2 * PAGE), Extent(3 * PAGE, PAGE)]
    port.run(lambda: port.resync.position > 3 * PAGE)
    assert [r.extent for r in port.resync.ranges] == [Extent(4 * PAGE, 3 * PAGE)]


def test_while_hosts_are_quiet_a_step_has_several_chunks() -> None:
    work = FixedWork([Extent(PAGE, SIZE - PAGE)], compare_first=False)
    port = Port(Disk(), Disk(), work=work)
    port.resync.turn.quiet = True
    port.resync.start()
    first = Extent(PAGE, CHUNK - PAGE)
    assert [r.extent for r in port.resync.ranges] == [first, *(Extent(n * CHUNK, CHUNK) for n in (1, 2, 3))]
    assert len(port.asked) == 4


def test_where_pieces_of_the_map_are_larger_than_chunks_a_step_is_one_chunk() -> None:
    """A chunk that is done before the one below it would be left: volumes of many TiB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dirty_map, "GRANULE_BYTES", 2 * CHUNK)
        dirty = DirtyMap(SIZE, everything=True)
    port = Port(Disk(dict.fromkeys(range(SIZE // PAGE), b"data")), Disk(), work=dirty)
    port.resync.turn.quiet = True
    port.resync.start()
    port.run()
    assert port.outcomes == [(None, "")]
    assert port.resync.copied_bytes == SIZE
    hashed = [extent for member, type_, extent in port.log if type_ is FrameType.HASH and member == TARGET]
    assert hashed == [extent for chunk in Extent(0, SIZE).split(CHUNK) for extent in (chunk, chunk)]


def test_a_step_does_not_reach_beyond_what_was_probed() -> None:
    pages = {SPAN // PAGE - 1: b"data"}
    port = Port(Disk(pages), Disk())
    port.resync.turn.quiet = True
    port.resync.start()
    port.run()
    assert port.outcomes == [(None, "")]
    hashed = {extent for _, type_, extent in port.log if type_ is FrameType.HASH}
    assert hashed == {Extent(SPAN - CHUNK, CHUNK)}, "all of the chunk, as pieces of a map end there"
    probes = [
        extent for member, type_, extent in port.log if type_ is FrameType.BLOCK_STATUS and member == TARGET
    ]
    assert probes == list(Extent(0, SIZE).split(SPAN))


def test_a_source_that_was_lost_is_not_asked_again_when_there_is_no_other() -> None:
    """It may be back, and behind; the ranges under way have other sources."""
    port = scattered([0, 2, 5, 9])
    port.disks[OTHER] = port.disks[SOURCE]
    chosen = iter([OTHER, OTHER, SOURCE])
    choose = port.choose_source
    port.choose_source = lambda resync, without: next(chosen, None)  # type: ignore[method-assign]
    port.resync.start()
    while len(port.resync.ranges) == RANGES:
        port.reply(next(n for n, question in enumerate(port.asked) if question[2].offset_bytes == 5 * PAGE))
    assert {r.source for r in port.resync.ranges} == {OTHER}
    port.resync.member_lost(SOURCE)
    asked_before = len(port.log)
    port.choose_source = choose  # type: ignore[method-assign]
    port.sources = []
    port.run()
    assert SOURCE not in {member for member, _, _ in port.log[asked_before:]}
    assert port.outcomes == [(None, "")]


def test_hosts_that_write_without_end_do_not_keep_it_from_moving_on() -> None:
    """They write whatever is not locked, whenever a range is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dirty_map, "GRANULE_BYTES", PAGE)
        dirty = DirtyMap(SIZE)
    for n in range(0, SIZE // PAGE, 2):
        dirty.mark(n * PAGE, PAGE)
    port = Port(Disk(dict.fromkeys(range(SIZE // PAGE), b"abcd")), Disk(), work=dirty)
    border = [0]
    port.at_advance = lambda: border.__setitem__(0, port.resync.position)
    port.resync.start()
    for _ in range(10_000):
        if not port.asked:
            break
        locked = [extent for extent, _, _ in port.locks.extents()]
        for page in Extent(0, SIZE).split(PAGE):
            if page.offset_bytes >= border[0] and not any(page.overlaps(extent) for extent in locked):
                dirty.mark(page.offset_bytes, PAGE)
        port.reply(len(port.asked) - 1)
    assert port.outcomes == [(None, "")]
    assert port.resync.copied_bytes <= RANGES * SIZE


@pytest.mark.parametrize("status", [Status.READ_ERROR, None])
def test_when_one_range_of_a_step_fails_all_end(status: Status | None) -> None:
    port = scattered([0, 2, 5])
    port.resync.start()
    assert len(port.asked) == 3
    _, type_, _, _, on_answer = port.asked.pop(1)
    on_answer(None if status is None else _answer(type_, b"", status))
    assert [failed for failed, _ in port.outcomes] == [SOURCE]
    assert len(port.locks) == 0
    port.run()
    assert len(port.outcomes) == 1
    assert all(type_ is FrameType.BLOCK_STATUS for _, type_, _ in port.log), (
        "answers to the others count no more"
    )


def test_ranges_of_a_step_that_have_the_lost_source_get_another_and_the_others_go_on() -> None:
    port = scattered([0, 2, 5])
    port.disks[OTHER] = port.disks[SOURCE]
    port.sources = [SOURCE, OTHER]
    port.resync.start()
    for _ in range(2):
        port.reply(0)  # the first two read
    port.gone = {SOURCE}
    port.resync.member_lost(SOURCE)
    assert {r.source for r in port.resync.ranges} == {OTHER}
    port.asked = [question for question in port.asked if question[0] != SOURCE]
    port.run()
    assert port.outcomes == [(None, "")]


def test_when_no_other_source_is_left_for_several_ranges_it_ends_once() -> None:
    port = scattered([0, 2, 5])
    port.resync.start()
    port.gone = {SOURCE}
    port.resync.member_lost(SOURCE)
    assert [failed for failed, _ in port.outcomes] == [SOURCE]
    assert len(port.locks) == 0


def test_a_span_is_probed_once_however_scattered_its_data_are() -> None:
    pages = dict.fromkeys(range(0, SPAN // PAGE, 2 * CHUNK // PAGE), b"data")
    port = Port(Disk(pages), Disk(pages))
    port.resync.start()
    port.run()
    assert port.outcomes == [(None, "")]
    probes = [extent for _, type_, extent in port.log if type_ is FrameType.BLOCK_STATUS]
    assert len(probes) == 2 * SIZE // SPAN
    hashed = [extent for _, type_, extent in port.log if type_ is FrameType.HASH]
    assert sum(extent.length_bytes for extent in hashed) == 2 * len(pages) * CHUNK, "no chunk of holes"
