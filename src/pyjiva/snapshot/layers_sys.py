"""A replica's layers: their files, and the changes of the chain, each of which a crash leaves done or undone.
Blocking calls only.

Every change goes the same way:

1. what the new chain needs is made and brought to stable storage: files that nothing names yet;
2. `pyjiva-chain.json` is replaced: this is the change;
3. what follows from it is done: files get their names, Jiva's `.meta` files are written, files that nothing
   names any more go (`tidy`).

A crash before 2 leaves files that nothing names, which the next `open` removes; one after it leaves step 3 to
the next `open`, which does it again from the start.  So no step needs a log of its own.

When step 1 fails, nothing has happened.  When step 2 fails, nobody knows which chain is on the disk, and the
store is broken, as after a failed flush (`Owner.guard`).  When step 3 fails, it is tried again with the next
change.

Nothing else may be in flight during a change: the caller holds requests back.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.chain import (
    CHAIN_FILE,
    DATA_SUFFIXES,
    HEAD,
    MAP_SUFFIX,
    SUMS_SUFFIX,
    Chain,
    Layer,
)
from pyjiva.snapshot.chain_file import decode_chain, encode_chain
from pyjiva.snapshot.chunk_blocks import CHUNK_BYTES, bits_of, extents_of
from pyjiva.snapshot.held_map_sys import HeldMap
from pyjiva.snapshot.layer_copy_sys import whole_blocks
from pyjiva.snapshot.layer_files_sys import open_data, open_map, open_sums
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.snapshot.layer_stack_sys import LayerStack, OpenLayer, block_count
from pyjiva.snapshot.metadata import META_SUFFIX
from pyjiva.snapshot.owner import Nobody, Owner
from pyjiva.snapshot.stamp_sys import Stamp
from pyjiva.sparse import (
    TEMPORARY_SUFFIX,
    CheckedFile,
    DataFile,
    Directory,
    prepare_file,
    put_in_place,
    read_file,
    replace_file,
    sums_size_bytes,
)

__all__ = ["Layers", "read_chain"]


_OURS: Final = ("volume-head-", "volume-snap-")


def read_chain(directory: Directory, names: list[str]) -> Chain | None:
    """What the directory says of its layers; None if it has had no snapshot yet."""
    return decode_chain(read_file(directory, CHAIN_FILE)) if CHAIN_FILE in names else None


@attrs.define(eq=False)
class Layers:
    """All layers of a replica, open."""

    directory: Directory
    chain: Chain
    size_bytes: int
    boot_id: str
    recorded: bool
    """Whether the directory has a chain file."""
    stamp: Stamp
    """Changed before blocks move that nobody has written."""
    open_layers: dict[str, OpenLayer] = attrs.field(factory=dict)
    """By name, the head as HEAD."""
    owner: Owner = attrs.field(factory=Nobody)
    sync_lock: threading.Lock = attrs.field(factory=threading.Lock)
    """Held while files that the head consists of are synced: the kernel tells a failure to one caller."""
    top: "CheckedFile | LayerStack" = attrs.field(init=False)
    """What answers for the volume: the head alone, or the stack of all layers."""
    unsure: bool = attrs.field(default=False, init=False)
    """Whether the directory may show another chain than `chain`: its disk failed."""
    _metas: dict[str, bytes] = attrs.field(factory=dict, init=False)
    """The `.meta` files as they are on the disk."""
    _told: Chain | None = attrs.field(default=None, init=False)
    """The chain that they are known to agree with."""
    _path: tuple[str, ...] = attrs.field(default=(), init=False)
    """The layers that `top` consists of."""
    dropped: list[OpenLayer] = attrs.field(factory=list, init=False)
    """What the chain has no more, still open: as long as it is, removing its files gives no space back, which
    takes the file system long where they have many runs of blocks.
    """
    _spare: tuple[str, OpenLayer] | None = attrs.field(default=None, init=False)
    """File name and files of the next head, made ahead."""
    _views: dict[str, "CheckedFile | LayerStack"] = attrs.field(factory=dict, init=False)

    @classmethod
    def open(
        cls,
        directory: Directory,
        chain: Chain,
        size_bytes: int,
        *,
        boot_id: str,
        recorded: bool,
        unstable: bool,
        stamp: Stamp,
    ) -> "Layers":
        """The layers in `directory`, after what a crash left to be done.

        `unstable`: writes were made that were not flushed.  Raises ConfigError: a file is missing, or is
        not what it should be.
        """
        layers = cls(directory, chain, size_bytes, boot_id, recorded, stamp)
        if recorded:
            layers._metas = _read_metas(directory)
            layers._rename()
            # The rest is good without: Jiva's files say what the chain does, and space comes back later.
            with contextlib.suppress(StorageError):
                layers.tidy()
        else:
            layers._remove_unborn()
        try:
            names = set(directory.names())
            for name in (HEAD, *(layer.name for layer in chain.layers)):
                layers.open_layers[name] = layers._open_layer(name, names, unstable=unstable and name == HEAD)
        except BaseException:
            layers.close()
            raise
        layers.remake_top()
        return layers

    @property
    def head(self) -> OpenLayer:
        """The layer that takes the writes."""
        return self.open_layers[HEAD]

    def _open_layer(self, name: str, names: set[str], *, unstable: bool) -> OpenLayer:
        file = self.chain.file_of(name)
        data = open_data(self.directory, file, names, self.size_bytes, may_be_longer=self.recorded)
        try:
            sums = open_sums(
                self.directory, file + SUMS_SUFFIX, names, self.size_bytes, may_be_longer=self.recorded
            )
            checked = CheckedFile(data, sums, self.size_bytes)
        except BaseException:
            data.close()
            raise
        if name != HEAD and not self.chain.layer(name).whole:
            checked.forget(Extent(0, self.size_bytes))  # it was written to, and never settled
        if not self.chain.parent_of(name):
            return OpenLayer(checked, None)
        try:
            held = open_map(self.directory, file + MAP_SUFFIX, names, self.size_bytes, unstable=unstable)
            if name != HEAD and not (self.chain.layer(name).sealed and self.chain.layer(name).whole):
                held.sweep()  # it is sent, or compared, again
            return OpenLayer(checked, held)
        except BaseException:
            checked.close()
            raise

    def remake_top(self) -> None:
        """Let `top` be what the chain says, with an empty table."""
        self._views.clear()
        self.top = self._reader(HEAD)
        self._path = self.chain.path(HEAD)
        self._tell_reopened()
        self.owner.take_top()

    def _tell_reopened(self) -> None:
        if isinstance(self.top, LayerStack):
            self.top.reopened_number = len(self._path) - 2 if self.chain.reopened else -1

    def reopen(self, name: str) -> None:
        """The removed layer `name` takes writes from now on, durably; nothing is in flight."""
        self.commit(self.chain.with_reopened(name))
        self._tell_reopened()

    def close_reopened(self) -> None:
        """The head alone takes writes again, durably; nothing is in flight."""
        self.owner.settle_all()
        self.commit(self.chain.closed())
        self._tell_reopened()

    @property
    def reopened_layer(self) -> OpenLayer | None:
        """The layer that takes writes besides the head, if there is one."""
        return self.open_layers[self.chain.reopened] if self.chain.reopened else None

    def _reader(self, name: str) -> "CheckedFile | LayerStack":
        path = [self.open_layers[each] for each in self.chain.path(name)]
        return path[0].file if len(path) == 1 else LayerStack(path, self.size_bytes)

    def view(self, name: str) -> "CheckedFile | LayerStack":
        """The volume as of the snapshot `name`; only for reading, and only until the next `forget_views`."""
        self.chain.snapshot(name)
        view = self._views.get(name)
        if view is None:
            self._views.clear()  # one at a time: each has a table of its own
            view = self._views[name] = self._reader(name)
        return view

    def forget_views(self) -> None:
        """The maps of sealed layers change: what a view's table says is no longer right."""
        self._views.clear()

    def sweep(self, extents: Iterable[Extent]) -> None:
        """After the machine went down, once in every boot: forget what it may have left half written.

        `extents` are where writes were made that were not flushed.
        """
        if self.chain.swept_boot_id == self.boot_id or (self.head.held is None and self.filling is None):
            return
        if self.head.held is not None:
            self.head.held.sweep()
            for extent in extents:
                self.drop_unheld(self.head, extent)
        if self.filling is not None:
            self.filling.file.forget(Extent(0, self.size_bytes))
            if self.filling.held is not None:
                self.filling.held.sweep()
        self.commit(attrs.evolve(self.chain.with_doubts(), swept_boot_id=self.boot_id))

    @property
    def filling(self) -> OpenLayer | None:
        """The layer that is being filled, if there is one."""
        return next((self.open_layers.get(layer.name) for layer in self.chain.layers if layer.filling), None)

    def drop_unheld(self, layer: OpenLayer, extent: Extent) -> None:
        """Give back the space of what a layer's file has in `extent` and the layer does not hold."""
        assert layer.held is not None
        for part in whole_blocks(layer.file.allocated(extent), self.size_bytes):
            for piece in part.split(CHUNK_BYTES):
                chunk = piece.offset_bytes // CHUNK_BYTES
                unheld = bits_of(piece) & ~layer.bits(chunk, CHUNK_BLOCKS)
                for each in extents_of(chunk, unheld, self.size_bytes):
                    layer.file.punch(each.offset_bytes, each.length_bytes)

    def commit(self, chain: Chain) -> None:
        """Step 2: `chain` is the chain from now on."""
        if chain.renames != self.chain.renames:  # nothing would know of the old ones any more
            self._rename()
        self._prepare_commit(chain)()

    def _prepare_commit(self, chain: Chain) -> Callable[[], None]:
        """What is left of `commit` when all that needs space is done."""
        self.stamp.change()
        temporary = prepare_file(self.directory, CHAIN_FILE, encode_chain(chain))

        def put() -> None:
            try:
                self.owner.guard(lambda: put_in_place(self.directory, temporary, CHAIN_FILE))
            except StorageError:
                self.unsure = True
                raise
            self.chain, self.recorded = chain, True

        return put

    def settle(self) -> None:
        """Before a change: end what the one before left to do, and forget its renames, durably.

        Otherwise a crash could give a file made from now on the name that an earlier one was to get.
        """
        if self.chain.renames:
            self._rename()
            self.commit(attrs.evolve(self.chain, renames=()))

    def tidy(self) -> None:
        """Step 3.  May be done again at any time.  Raises StorageError: some of it is left to do."""
        self._rename()
        spare = {self._spare[0] + suffix for suffix in DATA_SUFFIXES} if self._spare else set()
        wanted = self.chain.files() | spare
        names = set(self.directory.names())
        for layer in (HEAD, *(layer.name for layer in self.chain.layers)):
            if self.chain.file_of(layer) not in names:  # nothing is removed by a list that cannot be right
                raise StorageError(StorageFailure.READ_ERROR, f"{self.chain.file_of(layer)} is missing")
        unwanted = [name for name in sorted(names) if _is_ours(name) and name not in wanted]
        for name in unwanted:  # first, as it gives space
            self.directory.remove(name)
            self._metas.pop(name, None)
        if unwanted:
            self.directory.sync()
        for name, content in self.chain.metas(self.size_bytes, self._told).items():
            if self._metas.get(name) != content:
                replace_file(self.directory, name, content)
                self._metas[name] = content
        self._told = self.chain

    def _remove_unborn(self) -> None:
        """Remove what is left of a first snapshot that was not made."""
        following = attrs.evolve(self.chain, head_number=self.chain.head_number + 1).head_file
        unborn = {CHAIN_FILE + TEMPORARY_SUFFIX, *(following + suffix for suffix in DATA_SUFFIXES)}
        found = [name for name in self.directory.names() if name in unborn]
        for name in found:
            self.directory.remove(name)
        if found:
            self.directory.sync()

    def _rename(self) -> None:
        names = set(self.directory.names())
        waiting = [(old, new) for old, new in self.chain.renames if old in names]
        for old, new in waiting:
            self.directory.rename(old, new)
        if waiting:
            self.directory.sync()

    def _tidy_later(self) -> None:
        """Step 3, which a full disk may put off: the change has happened, and is good without."""
        with contextlib.suppress(StorageError):
            self.tidy()

    def create_files(self, file: str, *, mapped: bool) -> OpenLayer:
        """Step 1: the files of an empty layer, on stable storage under names that nothing uses yet."""
        blocks = block_count(self.size_bytes)
        sizes = (self.size_bytes, sums_size_bytes(self.size_bytes), blocks)
        present = self.directory.names()
        made: list[DataFile] = []
        try:
            for suffix, size_bytes in zip(
                DATA_SUFFIXES if mapped else DATA_SUFFIXES[:2], sizes, strict=False
            ):
                if file + suffix in present:  # left by an attempt that failed
                    self.directory.remove(file + suffix)
                made.append(self.directory.create(file + suffix))
                made[-1].truncate(size_bytes)
                made[-1].sync_data()
            self.directory.sync()
        except BaseException:
            for each in made:
                each.close()
            raise
        return OpenLayer(
            CheckedFile(made[0], made[1], self.size_bytes), HeldMap(made[2], blocks) if mapped else None
        )

    def prepare(self) -> None:
        """Do ahead, beside requests, what the next snapshot needs."""
        self.settle()
        following = attrs.evolve(self.chain, head_number=self.chain.head_number + 1).head_file
        if self._spare is None or self._spare[0] != following:
            self.drop_spare()
            self._spare = following, self.create_files(following, mapped=True)

    def drop_spare(self) -> None:
        """Give up the head that was made ahead."""
        if self._spare is not None:
            self._spare[1].close()
            self._spare = None

    def create_snapshot(self, layer: Layer, *, tidy: bool, generation: int | None = None) -> None:
        """Seal the head as `layer`, and put a new one on it; without `tidy`, the caller does that later."""
        self.settle()
        self._free_name(layer.name)
        self.owner.settle_all()
        new_head = self._commit_new_head(self._in(self.chain.with_snapshot(layer), generation))
        self.open_layers[layer.name], self.open_layers[HEAD] = self.head, new_head
        if isinstance(self.top, LayerStack):
            self._views.clear()
            self.top.push(new_head)
            self._path = self.chain.path(HEAD)
            self.owner.take_top()
        else:
            self.remake_top()
        if tidy:
            self._tidy_later()

    def _in(self, chain: Chain, generation: int | None) -> Chain:
        return chain if generation is None else attrs.evolve(chain, generation=generation)

    def _free_name(self, name: str) -> None:
        """Let no removed layer, whose merge is still to come, keep its name from a new snapshot."""
        if name in self.chain and self.chain.layer(name).removed:
            before = self.chain
            self.commit(before.with_spare_name(name))
            new = next(layer.name for layer in self.chain.layers if layer.name not in before)
            self.open_layers[new] = self.open_layers.pop(name)
            self._views.clear()
            self._path = self.chain.path(HEAD)
            self.settle()

    def revert(self, name: str, *, keep_newer: bool, generation: int | None = None) -> None:
        """A new head on top of the snapshot `name`; see `Chain.reverted`."""
        self.settle()
        self.owner.settle_all()
        chain = self.chain.reverted(name, keep_newer=keep_newer)
        if generation is not None and generation != chain.generation:  # else only this replica is brought up
            chain = attrs.evolve(chain, last_revert=generation)
        new_head = self._commit_new_head(self._in(chain, generation))
        self.dropped.append(self.head)
        self.open_layers[HEAD] = new_head
        self._path = ()  # the names may be the same: the head is not
        self.let_go()

    def _commit_new_head(self, chain: Chain) -> OpenLayer:
        """Steps 1 and 2 of a change that gives an empty head, which has nothing to be swept in this boot."""
        if self._spare is not None and self._spare[0] == chain.head_file and chain.head_parent:
            new_head = self._spare[1]
        else:
            self.drop_spare()
            new_head = self.create_files(chain.head_file, mapped=bool(chain.head_parent))
        self._spare = chain.head_file, new_head
        self.commit(attrs.evolve(chain, swept_boot_id=self.boot_id))
        self._spare = None
        return new_head

    def change(self, chain: Chain, generation: int | None = None) -> None:
        """Make a change that needs no new file, and after which the head is as it was."""
        self.commit(self._in(chain, generation))
        self.let_go()

    def let_go(self) -> None:
        """Drop the layers that the chain has no more, and do what follows from a change."""
        for name in [name for name in self.open_layers if name != HEAD and name not in self.chain]:
            self.dropped.append(self.open_layers.pop(name))
        self._views.clear()
        if self.chain.path(HEAD) != self._path:
            self.remake_top()
        self._tidy_later()

    def grow(self, size_bytes: int, generation: int | None) -> Callable[[], None]:
        """Make the files of all layers ready for `size_bytes`, durably; the state says when they have it.

        What it returns notes the generation then, and is for `set_size`; it needs no space.
        """
        self.settle()
        self.drop_spare()  # it has the old size
        self.commit(attrs.evolve(self.chain, growing_to=size_bytes))
        for layer in self.open_layers.values():
            layer.file.make_room(size_bytes)
            if layer.held is not None:
                layer.held.make_room(block_count(size_bytes))
        for layer in self.open_layers.values():
            self.owner.guard(layer.file.sync_data)
            self.owner.guard(layer.file.sync_sums)
            if layer.held is not None:
                self.owner.guard(layer.held.sync)
        if generation is None:
            return lambda: None
        return self._prepare_commit(attrs.evolve(self.chain, growing_to=0, generation=generation))

    def set_size(self, size_bytes: int, note_generation: Callable[[], None]) -> None:
        """The state says that the volume has `size_bytes`."""
        self.size_bytes = size_bytes
        for layer in self.open_layers.values():
            layer.file.set_size(size_bytes)
            if layer.held is not None:
                layer.held.set_blocks(block_count(size_bytes))
        self.remake_top()
        note_generation()
        if self.chain.growing_to:
            with contextlib.suppress(StorageError):  # it is true without
                self.commit(attrs.evolve(self.chain, growing_to=0))
        self._tidy_later()

    def close(self) -> None:
        """Give all files back."""
        self.stamp.close()  # first: a descriptor that becomes another file's must not look like a window's
        self.drop_spare()
        self.free_dropped()
        for layer in self.open_layers.values():
            layer.close()

    def free_dropped(self) -> None:
        """Close what was dropped, which gives its space back.  No request needs to wait for it."""
        while self.dropped:
            self.dropped.pop().close()

    def self_check(self) -> None:
        """The open layers are those of the chain, and only the lowest of a path has no map."""
        assert set(self.open_layers) == {HEAD, *(layer.name for layer in self.chain.layers)}
        for name, layer in self.open_layers.items():
            assert (layer.held is None) == (not self.chain.parent_of(name))
        if isinstance(self.top, LayerStack):
            self.top.self_check()


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS) or (
        name.removesuffix(TEMPORARY_SUFFIX) != name and name.startswith(("volume.meta", CHAIN_FILE))
    )


def _read_metas(directory: Directory) -> dict[str, bytes]:
    names = [name for name in directory.names() if name.endswith(META_SUFFIX)]
    return {name: read_file(directory, name) for name in names}
