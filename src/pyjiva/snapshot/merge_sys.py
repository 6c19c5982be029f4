"""Giving back the space of a deleted snapshot, in steps that go on beside reads and writes.
Blocking calls only.

A removed layer and the one that stands on it, its child, become one.  There are two ways, and the one that
has less to copy is taken:

- *up*: what the child does not hold is copied from the removed layer into it.  The child only grows, so this
  ends whatever is written meanwhile.
- *down*: what the child holds is copied into the removed layer and then let go of in the child, until the
  child is empty; then the removed layer takes its place and its name.  This is how a small snapshot on top
  of a large one goes.  A head takes writes meanwhile, so it is gone through again until little is left, which
  the last step, for which all requests wait, does.

A head may take more than is moved.  If a way through it leaves more than half, and it takes little more to
go up, the merge does; else the removed layer is *reopened*: from then on it takes the writes to the blocks
that it has (`layer_stack_sys`).  So a block that was moved does not come back, unless an atomic write takes
it up; and what neither of the two has comes to the head once.  If more than half is left all the same, the
layer is closed, and the merge goes up.  So it ends, whatever is written.  What is written to a reopened layer
is stable when it was flushed, and not before, as with a head.  To close it, as the next snapshot does too,
all is made stable.

| after a way down, what is left of what there was | the next is |
|---|---|
| 1 MiB, or up to 16 MiB that another way would not halve | the last step |
| up to half | another way down |
| more, between two sealed layers | another way down |
| more, and up is at most twice as much | the way up |
| more otherwise | a step that reopens, and another way down |
| more though reopened | a step that closes, and the way up |

Each step moves the blocks of one extent: data first, made stable, then the maps.  Where they are scattered
the extent has several chunks, as its syncs are the most of a step that moves little.

What is copied over a block is held durably where it comes from, and hides it until the copy is stable too; so
of a head only those blocks move that a flush has marked as stable (`held_map_sys`), whatever was written over
them since.  What has been written for the first time since then is left for later: a step does not wait for
the disk to take the data of all requests.  So wherever a crash comes, every block reads as before, from the
one layer or the other, and the chain says that there is a merge to be done: it begins again from the start,
where little is left to do.  The last step replaces the chain.

The caller keeps reads and writes away from `extent` during `step`; the last one's is the whole volume.
"""

import collections
import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, assert_never

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.chunk_blocks import (
    CHUNK_BYTES,
    Blocks,
    bits_of,
    blocks_of,
    bytes_of,
    extent_of,
    extents_of,
)
from pyjiva.snapshot.layer_copy_sys import copy_chunk
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, runs_of_bits
from pyjiva.snapshot.layer_stack_sys import LayerStack, OpenLayer
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.sparse import SUM_BLOCK_BYTES
from pyjiva.units import KIB, MIB

__all__ = ["Merge"]

STEP_BYTES: Final = 4 * MIB  # some 5 ms of copying, and three or four syncs: requests to it wait so long
RUN_BYTES: Final = 16 * KIB  # what a run of blocks counts more than its bytes, for calls of the system
SPAN_BYTES_MAX: Final = 256 * MIB
SPANS: Final = 32  # of the requests all over a small volume so few meet a step
LAST_BYTES_MAX: Final = 16 * MIB  # what the last step, for which all requests wait, may copy
LAST_BYTES_GOOD: Final = 1 * MIB  # more only if another way through would not halve it
UP_SHARE: Final = 2  # times what is left to go down: for so little more a merge goes up, which is sure to end


class Next(enum.Enum):
    """What a step does."""

    MOVE = "copies, in a part of the volume"
    REOPEN = "lets the removed layer take writes"
    CLOSE = "lets it take none any more"
    LAST = "does the rest, and replaces the chain"


@attrs.define(eq=False)
class Merge:
    """The merge of the removed layer `name` and `child`, as long as the chain stays as it is."""

    layers: Layers
    name: str
    child: str
    goes_down: bool = attrs.field(init=False)
    extent: Extent | None = attrs.field(default=None, init=False)
    """What the next step works on; None when there is none left, or when the chain has changed meanwhile."""
    turns_up: bool = attrs.field(default=False, init=False)
    """Whether `turn_up` is to be called before the next step."""
    next: Next = attrs.field(default=Next.MOVE, init=False)
    frees_early: bool = attrs.field(default=True, init=False)
    """Whether what was moved down is given back at once, or with the child's files at the end.  It is half of
    the work where the file system tells the disk of each run of blocks (`discard`).
    """
    total_bytes: int = attrs.field(default=0, init=False)
    """How much there is to copy, as it was at the start."""
    left_bytes: int = attrs.field(default=0, init=False)
    """How much of it is left, as it was when this way through all of it began, less what was copied since."""
    _held_bytes: int = attrs.field(default=0, init=False)
    """What the child held when this way through all of it began."""
    _pieces: Sequence[Extent] = attrs.field(default=(), init=False)
    """Of `extent`, what the plan has; each lies in one chunk."""
    _chunks: collections.deque[int] = attrs.field(factory=collections.deque, init=False)
    """The plan, as far as nobody has looked how much there is to copy."""
    _looked_at: collections.deque[tuple[Extent, int]] = attrs.field(factory=collections.deque, init=False)
    """What comes before that: pieces, and how much there is to copy in each, runs counted too."""
    _chain: object = attrs.field(init=False)
    _lower: OpenLayer = attrs.field(init=False)
    _upper: OpenLayer = attrs.field(init=False)
    _begins: bool = attrs.field(default=True, init=False)
    """Whether the next step is the first one of a way through all extents."""

    def __attrs_post_init__(self) -> None:
        self._chain = self.layers.chain
        self._lower = self.layers.open_layers[self.name]
        self._upper = self.layers.open_layers[self.child]
        up_bytes = self._count_up()
        down_bytes = self._count_down()
        goes_down = down_bytes < up_bytes or self.is_reopened
        self.total_bytes = self.left_bytes = down_bytes if goes_down else up_bytes
        self._held_bytes = down_bytes
        self.choose(goes_down=goes_down)

    def choose(self, *, goes_down: bool) -> None:
        """Begin again, in the way that is given instead of the shorter one.

        There is but one once the removed layer is reopened: what it got over a hole would not be copied up.
        """
        self.goes_down = goes_down or self.is_reopened
        self._plan()
        self._advance()

    def turn_up(self) -> None:
        """Begin again, upwards.  It may take long, as all is looked at: so it is no part of a step."""
        self.turns_up = False
        if self.layers.chain is self._chain:
            self.left_bytes = self._count_up()
            self.choose(goes_down=False)

    def reopen(self) -> None:
        """Let the next step reopen the removed layer, and begin again, down."""
        assert self.child == HEAD and not self.is_reopened
        self.goes_down = True
        self._set_next(Next.REOPEN)

    @property
    def is_reopened(self) -> bool:
        """Whether the removed layer takes writes."""
        return self.layers.chain.reopened == self.name

    @property
    def wants_flush(self) -> bool:
        """Whether the store had better be flushed before the next step.

        Then the step need not do it while requests wait for it, or can move what a head holds.  One before
        each step down would delay all that hosts do, for the little that they wrote since the last.
        """
        if self.next is Next.MOVE:
            return self.child == HEAD and (self._begins or not self.goes_down)
        return self.next is not Next.REOPEN

    def _count_up(self) -> int:
        held = self._lower.held
        if held is None:
            everything = Extent(0, self.layers.size_bytes)
            return sum(part.length_bytes for part in self._lower.file.allocated(everything))
        blocks = 0
        for chunk in held.chunks():
            blocks += (held.bits(chunk) & ~self._upper.bits(chunk, CHUNK_BLOCKS)).bit_count()
        return blocks * SUM_BLOCK_BYTES

    def _count_down(self) -> int:
        held = self._upper.held
        assert held is not None, "what stands on a layer has a map"
        return sum(held.bits(chunk).bit_count() for chunk in held.chunks()) * SUM_BLOCK_BYTES

    def _plan(self) -> None:
        """Go through all chunks from the start."""
        assert self._upper.held is not None
        if self.goes_down:
            chunks = set(self._upper.held.chunks())
            if self.frees_early:  # also what was moved when there was space, by this merge or another one
                chunks |= self._allocated_chunks(self._upper)
        elif self._lower.held is not None:
            chunks = set(self._lower.held.chunks())
        else:  # the child will hold all: also what it has without holding it must go
            chunks = self._allocated_chunks(self._lower) | self._allocated_chunks(self._upper)
        self._chunks, self._begins = collections.deque(sorted(chunks)), True
        self._looked_at.clear()

    def _allocated_chunks(self, layer: OpenLayer) -> set[int]:
        chunks: set[int] = set()
        for part in layer.file.allocated(Extent(0, self.layers.size_bytes)):
            last = (part.end_bytes - 1) // CHUNK_BYTES
            chunks.update(range(part.offset_bytes // CHUNK_BYTES, last + 1))
        return chunks

    def _advance(self) -> None:
        """Choose the next step."""
        pieces = self._take_pieces()
        if pieces:
            self._set_next(Next.MOVE, pieces)
        elif self.goes_down:
            self._choose_after_a_way_down()
        else:
            self._set_next(Next.LAST)

    def _set_next(self, step: Next, pieces: Sequence[Extent] = ()) -> None:
        self.next, self._pieces = step, pieces
        start, end = 0, self.layers.size_bytes
        if pieces:
            start, end = pieces[0].offset_bytes, pieces[-1].end_bytes
        self.extent = Extent(start, end - start)

    def _choose_after_a_way_down(self) -> None:
        before_bytes, self._held_bytes = self._held_bytes, self._count_down()
        self.left_bytes = self._held_bytes
        is_halved = self._held_bytes <= before_bytes // 2
        if self._held_bytes <= (LAST_BYTES_GOOD if is_halved else LAST_BYTES_MAX):
            self._set_next(Next.LAST)
        elif is_halved or self.child != HEAD:
            self._go_down_again()
        elif self.is_reopened:
            self._set_next(Next.CLOSE)
        elif self._count_up() <= UP_SHARE * self._held_bytes:
            self.turns_up, self.extent = True, None
        elif self.layers.chain.layer(self.name).unsettled:
            self._go_down_again()
        else:
            self.reopen()

    def _go_down_again(self) -> None:
        self._plan()
        self._advance()

    def _take_pieces(self) -> list[Extent]:
        """The next of the plan, as many as make a step; none: there are no more.

        All are looked at before any is taken, so none is lost where that fails.
        """
        count = work_bytes = 0
        while True:
            if count == len(self._looked_at):
                if not self._chunks:
                    break
                self._looked_at.extend(self._look_at(self._chunks[0]))
                self._chunks.popleft()
            piece, piece_bytes = self._looked_at[count]
            work_bytes += piece_bytes
            span_bytes = piece.end_bytes - self._looked_at[0][0].offset_bytes
            if count and (work_bytes > STEP_BYTES or span_bytes > self._span_bytes_max):
                break
            count += 1
        return [self._looked_at.popleft()[0] for _ in range(count)]

    @property
    def _span_bytes_max(self) -> int:
        return max(STEP_BYTES, min(self.layers.size_bytes // SPANS, SPAN_BYTES_MAX))

    def _look_at(self, chunk: int) -> list[tuple[Extent, int]]:
        """A chunk in pieces that are no larger than a step may be, with the work that each is."""
        extent = extent_of(chunk, self.layers.size_bytes)
        work_bytes = self._work_bytes(chunk, extent)
        if work_bytes <= STEP_BYTES and extent.length_bytes <= self._span_bytes_max:
            return [(extent, work_bytes)]
        return [(piece, self._work_bytes(chunk, piece)) for piece in extent.split(STEP_BYTES)]

    def _work_bytes(self, chunk: int, piece: Extent) -> int:
        """What there is to copy, each run of it counted as more."""
        if not self.goes_down and self._lower.held is None:
            return sum(part.length_bytes + RUN_BYTES for part in self._lower.file.allocated(piece))
        assert self._upper.held is not None
        bits = self._upper.bits(chunk, CHUNK_BLOCKS)
        if not self.goes_down:
            bits = self._lower.bits(chunk, CHUNK_BLOCKS) & ~bits
        bits &= bits_of(piece)
        runs = (bits & ~(bits << 1)).bit_count()
        return bits.bit_count() * SUM_BLOCK_BYTES + runs * RUN_BYTES

    def step(self) -> int:
        """Do what is to be done in `extent`, and choose the next; the bytes that were copied.

        Raises StorageError: it may be done again.
        """
        if self.layers.chain is not self._chain or self.extent is None:
            self.extent = None
            return 0
        self._refuse_if_broken()
        copied_bytes = 0
        match self.next:
            case Next.MOVE:
                copied_bytes = self._moving(self._move)
                self._begins = False
                self.left_bytes = max(0, self.left_bytes - copied_bytes)
                self._advance()
            case Next.REOPEN:
                self.layers.reopen(self.name)
                self._chain = self.layers.chain
                self._go_down_again()
            case Next.CLOSE:
                self.layers.close_reopened()
                self._chain = self.layers.chain
                self.turns_up, self.extent = True, None
            case Next.LAST if self.goes_down and self._count_down() > LAST_BYTES_MAX:
                # Hosts have written that much since it was chosen.
                self._held_bytes = self.left_bytes = self._count_down()
                self._go_down_again()
            case Next.LAST:
                copied_bytes = self._moving(self._finish)
                self.left_bytes, self.extent = 0, None
            case _:
                assert_never(self.next)
        return copied_bytes

    def _moving(self, step: Callable[[], int]) -> int:
        self.layers.forget_views()
        self.layers.stamp.change()
        try:
            return step()
        finally:  # reads of other extents may have looked at the maps amid the step
            self.layers.forget_views()

    def _refuse_if_broken(self) -> None:
        """What the page cache shows may not be what was written, and must not take the place of it."""
        if (error := self.layers.owner.broken) is not None:
            raise StorageError(StorageFailure.WRITE_ERROR, f"nothing is moved since a flush failed ({error})")

    def _move(self) -> int:
        return self._move_down() if self.goes_down else self._move_up()

    def _move_up(self) -> int:
        lower, upper = self._lower, self._upper
        copied_bytes = 0
        held: Blocks = {}
        for piece in self._pieces:
            chunk = piece.offset_bytes // CHUNK_BYTES
            blocks = blocks_of(chunk, self.layers.size_bytes)
            wanted = lower.bits(chunk, blocks) & ~upper.bits(chunk, blocks) & bits_of(piece)
            data = self._copy(lower, upper, chunk, wanted)
            copied_bytes += bytes_of(chunk, data, self.layers.size_bytes)
            # Below the lowest layer all is zeros: a hole in it need not be held by the child.
            if held_now := wanted if lower.held is not None else data:
                held[chunk] = held.get(chunk, 0) | held_now
        if held:
            self._settle(upper, held)
            self._tell_table(self.name, self.child, held)
        return copied_bytes

    def _move_down(self) -> int:
        lower, upper = self._lower, self._upper
        copied_bytes = 0
        moved: Blocks = {}
        not_held: list[Extent] = []
        for piece in self._pieces:
            chunk = piece.offset_bytes // CHUNK_BYTES
            moving, staying = self._bits_to_move(chunk)
            inside = bits_of(piece)
            if bits := moving & inside:
                moved[chunk] = moved.get(chunk, 0) | bits
                copied_bytes += bytes_of(chunk, self._copy(upper, lower, chunk, bits), self.layers.size_bytes)
            not_held += extents_of(chunk, inside & ~staying, self.layers.size_bytes)
        if moved:
            self._settle(lower, moved)
            assert upper.held is not None
            with self.layers.sync_lock:
                self.layers.owner.guard(partial(upper.held.release, moved))
            self._tell_table(self.child, self.name, moved)
        if self.frees_early:
            # All that the child does not hold there now: a call for each part would hold up whoever writes to
            # the file, hundreds of times, and one for all of them for long.
            for part in merge_extents(not_held):
                for each in part.split(STEP_BYTES):
                    upper.file.punch(each.offset_bytes, each.length_bytes)
        return copied_bytes

    def _copy(self, source: OpenLayer, target: OpenLayer, chunk: int, bits: int) -> int:
        """Make the target's file equal to the source's in these blocks; those of them that are data."""
        return copy_chunk(source.file, target.file, chunk, bits, self.layers.size_bytes) if bits else 0

    def _bits_to_move(self, chunk: int) -> tuple[int, int]:
        """Of the blocks that the child holds in a chunk: those that may be moved, and the others.

        A head is written to.  A power cut while a block is copied must leave it there, whole, to hide what is
        half written below: so only those are moved that the disk knows to be held.  What was written for the
        first time and not flushed yet stays until the next time; the last step finds none of that.  And an
        atomic write must not be undone in what stays of it alone.
        """
        held = self._upper.held
        assert held is not None
        if self.child != HEAD:
            return held.bits(chunk), 0
        self.layers.owner.keep_atomic_writes()
        while True:
            with self.layers.sync_lock:
                self._refuse_if_broken()
                if not held.in_doubt:
                    moving = held.stable_bits(chunk)
                    return moving, held.bits(chunk) & ~moving
            self.layers.owner.flush()

    def _settle(self, layer: OpenLayer, blocks: Blocks) -> None:
        """`layer` has what these blocks are: make it stable, and then say that it holds them."""
        with self.layers.sync_lock:
            self.layers.owner.guard(layer.file.sync_data)
            self.layers.owner.guard(layer.file.sync_sums)
            if layer.held is None:
                return
            try:
                layer.held.mark_blocks_stable(blocks)
            except StorageError:  # a full disk: what was marked all the same is held
                if isinstance(self.layers.top, LayerStack):
                    for chunk in blocks:
                        self.layers.top.forget_table([extent_of(chunk, self.layers.size_bytes)])
                raise
            self.layers.owner.guard(layer.held.sync)

    def _tell_table(self, old: str, new: str, blocks: Blocks) -> None:
        """What the table says the layer `old` has there, `new` has now; layers above both go on hiding it."""
        top = self.layers.top
        path = self.layers.chain.path(HEAD)
        if isinstance(top, LayerStack) and new in path:
            before, now = path.index(old), path.index(new)
            for chunk, bits in blocks.items():
                for first, count in runs_of_bits(bits):
                    top.index.replace(chunk * CHUNK_BLOCKS + first, count, before, now)

    def _finish(self) -> int:
        copied = 0
        self.layers.owner.settle_all()
        self.layers.settle()
        self._chain = self.layers.chain  # the same one, without the renames of the one before
        if self.goes_down:
            copied = self._copy_what_is_left()
            chain = self.layers.chain.sunk(self.name, child=self.child)
            self.layers.commit(chain)
            self.layers.open_layers[self.child] = self.layers.open_layers.pop(self.name)
            self.layers.dropped.append(self._upper)
        else:
            self._drop_torn()
            self._settle(self._upper, {})
            chain = self.layers.chain.absorbed(self.name, child=self.child)
            self.layers.commit(chain)
            if self._lower.held is None:
                assert self._upper.held is not None
                self._upper.held.close()
                self._upper.held = None
        self.layers.let_go()
        return copied

    def _copy_what_is_left(self) -> int:
        """As `_move_down` of all, with one sync for it: all requests wait.

        Until the new chain stands on the disk the child goes on holding these blocks, and hides what is
        copied; then its files go, so nothing is let go of there.
        """
        held, size_bytes = self._upper.held, self.layers.size_bytes
        assert held is not None
        copied_bytes = 0
        blocks: Blocks = {}
        for chunk in held.chunks():
            moving, staying = self._bits_to_move(chunk)
            if staying:  # they would go with the child's files
                left_bytes = staying.bit_count() * SUM_BLOCK_BYTES
                raise StorageError(StorageFailure.NOT_READY, f"{left_bytes} bytes are not flushed")
            if moving:
                blocks[chunk] = moving
                data = self._copy(self._upper, self._lower, chunk, moving)
                copied_bytes += bytes_of(chunk, data, size_bytes)
        self._settle(self._lower, blocks)
        return copied_bytes

    def _drop_torn(self) -> None:
        """Where writes failed meanwhile the head may have what it does not hold: it must not show."""
        top = self.layers.top
        if self.child == HEAD and self._lower.held is None and isinstance(top, LayerStack):
            for chunk in sorted(top.torn):
                self.layers.drop_unheld(self._upper, extent_of(chunk, self.layers.size_bytes))
