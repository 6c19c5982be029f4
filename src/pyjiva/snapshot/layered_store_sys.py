"""A replica's directory with its snapshots: everything that changes or looks at the chain.
Blocking calls only.

The rules of `store_sys` hold throughout.  The locks are the caller's; one change or step is under way at a
time.

- *The volume*: no request to it, to a snapshot or to a layer is in flight, and none begins: for
  `create_snapshot`, `revert`, `grow`, `shrink`, and the last step of a merge.
- *Its past*: the same, but for requests to the volume: for `delete_snapshot`, `seal_layer`, `discard_layer`.
- *An extent*: no request that overlaps it: for the steps of a merge, and `repair_layer`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_never

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import NOTHING, Change, ChangeKind, Lineage
from pyjiva.snapshot.chain import HEAD, Chain, Layer
from pyjiva.snapshot.hash_sys import hash_of_range
from pyjiva.snapshot.layer_content_sys import LayerContent, LayerInfo, LayerParts
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.snapshot.merge_sys import Merge
from pyjiva.snapshot.regions import marks_of, regions_of
from pyjiva.snapshot.shrink_sys import clear_beyond, cut_files
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, encode_state
from pyjiva.snapshot.store_sys import LOST_BLOCK, VolumeStore
from pyjiva.snapshot.under_way_sys import UnderWay
from pyjiva.snapshot.window import NO_MAP, WINDOW_LAYERS_MAX, WindowLayer, WindowName
from pyjiva.sparse import SUM_BLOCK_BYTES, Buffer, CheckedFile, prepare_file, put_in_place
from pyjiva.units import align_down, align_up, format_size

__all__ = ["Store"]


@attrs.define(eq=False)
class Store(VolumeStore):
    """An open replica directory, owned by this process.

    Raises ConfigError, in one line for the operator, when a snapshot is not there, has a name that is taken,
    and the like; nothing was changed.
    """

    _under_way: UnderWay | None = attrs.field(default=None, init=False)
    """Once `begin_in_place` was called, if it could have one."""

    def begin_in_place(self) -> None:
        """From now on one thread writes in place: let it do so with fewer calls of the system.

        To be called once.  Raises StorageError: the disk fails; then such writes are as all others.
        """
        begun = UnderWay.begin(self._directory)
        with self._state_lock:
            self._under_way = begun
            self._give_slot()

    def take_top(self) -> None:
        """See VolumeStore."""
        with self._state_lock:
            super().take_top()
            self._give_slot()

    def _give_slot(self) -> None:
        word = None if self._under_way is None else self._under_way.word
        for name, layer in list(self._layers.open_layers.items()):
            layer.file.slot = word if name == HEAD else None

    def close(self) -> None:
        """See VolumeStore."""
        if self._under_way is not None:
            self._under_way.close()
        super().close()

    @property
    def chain(self) -> Chain:
        """Which layers there are and how they stand on each other."""
        return self._layers.chain

    @property
    def lineage(self) -> Lineage:
        """What the replicas of a volume agree on.  Raises ConfigError: no volume of replicas made this."""
        return self.chain.lineage(self._size_bytes)

    def refuse_if_unsure(self) -> None:
        """Raises StorageError: which snapshots there are is known to the next process alone."""
        if self._layers.unsure:
            reason = "its disk failed when its snapshots changed: start the replica again"
            raise StorageError(StorageFailure.WRITE_ERROR, reason)

    def change(self, change: Change) -> None:
        """Carry out a change of the volume's lineage, durably, and note the generation with it.

        A change that was carried out before is not done again.  Raises ConfigError: it cannot be, and
        nothing was changed.  Raises StorageError: as the methods below.
        """
        if change.before != change.after == self.chain.generation and self._has_made(change):
            return
        self.lineage.apply(change)  # only to see that it can be
        if change.kind is ChangeKind.CREATE:
            layer = _layer(
                change.name,
                created=change.created,
                labels=dict(change.labels),
                user_created=change.user_created,
                number=change.number,
                whole=change.whole,
                filling=change.filling,
            )
            self._refuse_if_broken(StorageFailure.WRITE_ERROR)
            self._layers.create_snapshot(layer, tidy=False, generation=change.after)
            return
        name = self.name_of(change.number)
        match change.kind:
            case ChangeKind.DELETE:
                self.delete_snapshot(name, generation=change.after)
            case ChangeKind.REVERT:
                self.revert(name, keep_newer=change.keep_newer, generation=change.after)
            case ChangeKind.GROW:
                self.grow(change.size_bytes, generation=change.after)
            case ChangeKind.SHRINK:
                self.shrink(change.size_bytes)
            case ChangeKind.WHOLE | ChangeKind.FILLED:
                self._refuse_if_broken(StorageFailure.WRITE_ERROR)
                self._content.make_stable(name)
                filled = change.kind is ChangeKind.FILLED
                chain = self.chain.with_filled(name) if filled else self.chain.with_whole(name)
                self._layers.change(chain, change.after)
            case ChangeKind.LEVEL:
                self._refuse_if_broken(StorageFailure.WRITE_ERROR)
                self._layers.change(attrs.evolve(self.chain, last_revert=change.last_revert), change.after)
            case _:
                assert_never(change.kind)

    def _has_made(self, change: Change) -> bool:
        """Whether it was this change that led to the present generation, as far as can be told."""
        snapshots = {snapshot.number: snapshot for snapshot in self.lineage.snapshots}
        match change.kind:
            case ChangeKind.CREATE:
                made = snapshots.get(change.number)
                return made is not None and (made.name, made.created) == (change.name, change.created)
            case ChangeKind.DELETE:
                return change.number not in snapshots
            case ChangeKind.REVERT:
                return self.chain.last_revert == change.after
            case ChangeKind.GROW:
                return self._size_bytes == change.size_bytes
            case ChangeKind.FILLED:
                filled = snapshots.get(change.number)
                return filled is not None and not filled.filling
            case ChangeKind.SHRINK | ChangeKind.WHOLE | ChangeKind.LEVEL:
                return True
            case _:
                assert_never(change.kind)

    def name_of(self, number: int) -> str:
        """The snapshot that has this number; "" for none.  Raises ConfigError: there is no such."""
        return "" if number == NOTHING else self.lineage.numbered(number).name

    @property
    def _content(self) -> LayerContent:
        return LayerContent(self._layers)

    def create_snapshot(
        self,
        name: str,
        *,
        created: str = "",
        labels: Mapping[str, str] | None = None,
        user_created: bool = True,
        tidy: bool = True,
    ) -> None:
        """Keep what the volume holds as the snapshot `name`, durably; costs a flush, whatever its size.

        `created` is a time as RFC 3339 has it.  Requests wait shortest if `prepare_snapshot` is called ahead,
        and the method `tidy` afterwards instead of here.

        Raises StorageError: there is no such snapshot, or the store is broken.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._layers.create_snapshot(
            _layer(name, created=created, labels=dict(labels or {}), user_created=user_created), tidy=tidy
        )

    def prepare_snapshot(self) -> None:
        """Make ahead, while requests go on, what the next snapshot needs."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._layers.prepare()

    def tidy(self) -> None:
        """Do what a change left to be done, while requests go on: names, Jiva's files, files of no more use.

        Raises StorageError: some of it is left, for the next time.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._layers.tidy()

    @property
    def has_dropped(self) -> bool:
        """Whether a change has left layers behind whose space `free_dropped` gives back."""
        return bool(self._layers.dropped)

    def free_dropped(self) -> None:
        """Give back the space of layers that are needed no more, beside requests, changes and steps.

        One thread at a time.
        """
        self._layers.free_dropped()

    def delete_snapshot(self, name: str, *, generation: int | None = None) -> None:
        """Delete the snapshot `name`, durably.  What others do not need of it goes by `next_merge`."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        if not self.chain.snapshot(name).whole:  # what stands on it may have been compared with this below it
            self._content.make_stable(name)
        self._layers.change(self.chain.with_removed(name), generation)

    def next_merge(self) -> Merge | None:
        """What is to be done to give back the space of a deleted snapshot; None: there is nothing.

        Flush where it `wants_flush`, lock `extent`, call `step`, and so on until `extent` is None; then ask
        again.  Only one at a time.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        pair = self.chain.next_merge()
        return None if pair is None else Merge(self._layers, pair[0], pair[1])

    def revert(self, name: str, *, keep_newer: bool = False, generation: int | None = None) -> None:
        """Make the volume what it was as of the snapshot `name`, durably.

        The snapshots that were made since go, unless `keep_newer`, or as far as others stand on them.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._layers.revert(name, keep_newer=keep_newer, generation=generation)

    def grow(self, size_bytes: int, *, generation: int | None = None) -> None:
        """Make the volume larger, durably; what is added is zeros.

        Raises StorageError: it has the old size, or the store is broken.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        if size_bytes < self._size_bytes or size_bytes % self._state.block_size_bytes:
            raise ConfigError(
                f"{size_bytes} bytes: a volume of {format_size(self._size_bytes)} can only grow, by "
                f"blocks of {self._state.block_size_bytes}"
            )
        self.settle_all()
        note_generation = self._layers.grow(size_bytes, generation)
        with self._state_lock:
            self._save_or_break(attrs.evolve(self._state, size_bytes=size_bytes))
            self._marks = self._marks + bytearray(len(marks_of(self._state)) - len(self._marks))
        self._size_bytes = size_bytes
        self._layers.set_size(size_bytes, note_generation)

    def shrink(self, size_bytes: int) -> None:
        """Make the volume smaller, durably; what lies beyond the new end is given up in every layer.

        Only for a replica whose content does not count (see `shrink_sys`).

        Raises StorageError: it has the old size and may have lost what is beyond, or the store is broken.
        """
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        if not 0 < size_bytes <= self._size_bytes or size_bytes % self._state.block_size_bytes:
            raise ConfigError(
                f"{size_bytes} bytes: a volume of {format_size(self._size_bytes)} can only shrink here, by "
                f"blocks of {self._state.block_size_bytes}"
            )
        self.settle_all()
        clear_beyond(self._layers, size_bytes)
        with self._state_lock:
            smaller = attrs.evolve(self._state, size_bytes=size_bytes)
            marks = self._marks[: len(marks_of(smaller))]
            self._save_or_break(attrs.evolve(smaller, written_regions=regions_of(marks)))
            self._marks = marks
        self._size_bytes = size_bytes
        self._layers.set_size(size_bytes, lambda: None)
        cut_files(self._layers)

    def _save_or_break(self, new_state: ReplicaState) -> None:
        """As `_save`, where nobody must be in doubt: a full disk, before the old one is replaced, is none."""
        temporary = prepare_file(self._directory, STATE_FILE, encode_state(new_state))
        self.guard(partial(put_in_place, self._directory, temporary, STATE_FILE))
        self._state = new_state

    def layers(self) -> tuple[LayerInfo, ...]:
        """All layers, the head last."""
        return self._content.infos()

    def diff(self, older: str, newer: str) -> list[Extent]:
        """Where the volume as of `newer` ("": now) may differ from that as of `older` ("": an empty one)."""
        return self._content.changed(older, newer)

    def read_at(self, snapshot: str, extent: Extent) -> Buffer:
        """What the volume held there as of `snapshot`."""
        self._refuse_outside(extent)
        return self._layers.view(snapshot).read(extent.offset_bytes, extent.length_bytes)

    def hash_at(self, snapshot: str, extent: Extent) -> bytes:
        """The xxh3-128 of what the volume held there as of `snapshot`."""
        self._refuse_outside(extent)
        return hash_of_range(self._layers.view(snapshot), extent)

    def patch(self, snapshot: str, extent: Extent, buffers: Sequence[Buffer] | None) -> None:
        """Change what the volume held there as of `snapshot`, which is not whole, or is being filled.

        None: to zeros.  Stable when a change says that it is whole, or filled.
        """
        self._refuse_outside(extent)
        # As a write: a reboot may lose it, and the state on disk has to tell.
        with self._counted():
            self._prepare(extent.offset_bytes, extent.length_bytes)
            self._content.patch(snapshot, extent, buffers)

    def spoil_at(self, snapshot: str, extent: Extent) -> None:
        """As `patch`, for blocks that nobody has any more: reads of them fail."""
        self._refuse_outside(extent)
        start = align_down(extent.offset_bytes, SUM_BLOCK_BYTES)
        end = min(align_up(extent.end_bytes, SUM_BLOCK_BYTES), self._size_bytes)
        with self._layers.stamp.moving():
            for block in Extent(start, end - start).split(SUM_BLOCK_BYTES):
                self._content.patch(snapshot, block, (LOST_BLOCK[: block.length_bytes],))
                self._layers.view(snapshot).spoil(block.offset_bytes)

    def allocated_at(self, snapshot: str, extent: Extent) -> list[Extent]:
        """The parts of `extent` that held data as of `snapshot`; the rest was zeros."""
        self._refuse_outside(extent)
        return self._layers.view(snapshot).allocated(extent)

    def allocated_in_layer(self, name: str, extent: Extent) -> LayerParts:
        """What the layer `name` ("" for the head) holds of `extent`."""
        self._refuse_outside(extent)
        return self._content.parts(name, extent)

    def read_layer(self, name: str, extent: Extent) -> Buffer:
        """What the layer `name` has there; of use only where it holds data."""
        self._refuse_outside(extent)
        return self._content.read(name, extent)

    def hash_layer(self, name: str, extent: Extent) -> bytes:
        """The xxh3-128 of what the layer holds of `extent`, and where it does."""
        self._refuse_outside(extent)
        return self._content.hash(name, extent)

    def begin_layer(
        self,
        name: str,
        *,
        parent: str,
        created: str = "",
        labels: Mapping[str, str] | None = None,
        user_created: bool = True,
    ) -> None:
        """Begin to receive a layer that stands on the snapshot `parent` ("" for the lowest), durably."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._content.begin(
            _layer(name, parent=parent, created=created, labels=dict(labels or {}), user_created=user_created)
        )

    def write_layer(self, name: str, extent: Extent, data: Buffer | None) -> None:
        """Give whole blocks to a layer that is being received; None: zeros.  After a crash they are gone,
        unless `checkpoint_layer` came after.
        """
        self._refuse_outside(extent)
        self._content.write(name, extent, data)

    def checkpoint_layer(self, name: str) -> None:
        """Make what was given to a layer that is being received stable."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._content.checkpoint(name)

    def seal_layer(self, name: str) -> None:
        """The layer that was being received is whole: a snapshot like others from now on, durably."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._content.seal(name)

    def discard_layer(self, name: str) -> None:
        """Give up a layer that was being received."""
        self._refuse_if_broken(StorageFailure.WRITE_ERROR)
        self._content.discard(name)

    def repair_layer(self, name: str, extent: Extent, data: Buffer) -> None:
        """Write whole blocks of the layer `name` again, which have rotted; `data` is what they were."""
        self._refuse_outside(extent)
        self._content.repair(name, extent, data)

    def window(self, pid: int) -> WindowName:
        """Where the process `pid`, which this is, has what another one needs to read the volume as it is now.

        No change of the chain is under way.  Raises StorageError: the store is broken, there are too many
        layers, no room for a stamp, or whoever looks could not tell where a write went.
        """
        self._refuse_if_broken(StorageFailure.READ_ERROR)
        if self.chain.reopened:
            raise StorageError(StorageFailure.NOT_READY, "some writes go to the layer below the head")
        path = [self._layers.open_layers[name] for name in self.chain.path(HEAD)]
        if len(path) > WINDOW_LAYERS_MAX:
            raise StorageError(StorageFailure.NOT_SUPPORTED, f"{len(path)} layers: too many for a window")
        stamp_descriptor, stamp = self._layers.stamp.tell()
        if self._broken is not None:  # by a flush, just now
            self._layers.stamp.change()
            self._refuse_if_broken(StorageFailure.READ_ERROR)
        layers = tuple(
            WindowLayer(*layer.file.descriptors, NO_MAP if layer.held is None else layer.held.descriptor)
            for layer in path
        )
        return WindowName(pid, stamp_descriptor, stamp.hex(), self._size_bytes, layers)

    def view(self, snapshot: str) -> CheckedFile | LayerStack:
        """The volume as of `snapshot` ("" for now), to read what is there, also where it has rotted; until
        the next change of the chain.
        """
        return self._layers.view(snapshot) if snapshot else self._layers.top

    def layer_file(self, name: str) -> CheckedFile:
        """The file of a layer ("" for the head), as `view`; `allocated_in_layer` says what counts."""
        if name:
            self.chain.layer(name)
        return self._layers.open_layers[name].file

    def warm(self) -> None:
        """Let the table of layers know every block now instead of when it is first asked for."""
        if isinstance(self._head, LayerStack):
            self._head.load_all()

    def self_check(self) -> None:
        """The layers agree with each other; nothing is in flight."""
        self._layers.self_check()
        assert self._head is self._layers.top and self._undo_log.head is self._layers.head.file
        assert self._size_bytes == self._layers.size_bytes == self._state.size_bytes

    def _refuse_outside(self, extent: Extent) -> None:
        if extent.offset_bytes < 0 or extent.end_bytes > self._size_bytes or self._broken:
            self._refuse(extent.offset_bytes, extent.length_bytes, StorageFailure.READ_ERROR)


def _layer(
    name: str,
    *,
    parent: str = "",
    created: str,
    labels: Mapping[str, str],
    user_created: bool,
    number: int = 0,
    whole: bool = True,
    filling: bool = False,
) -> Layer:
    try:
        return Layer(
            name=name,
            parent=parent,
            created=created,
            labels=labels,
            user_created=user_created,
            number=number,
            whole=whole,
            filling=filling,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
