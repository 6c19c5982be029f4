"""Which layers a replica has and which of them the head stands on: `pyjiva-chain.json`.  Pure.

This file is the truth.  `volume.meta` and the `.meta` of each layer say the same in Jiva's and Longhorn's
words and are written from it: a snapshot changes three of them and renames a file, which no crash does at
once, while this one is replaced whole.  It is there from the first snapshot on; without it the replica is
one head, as `volume.meta` says.

Layers form a tree by their parents.  The head is no member of `layers`: it has a number, and the name of the
layer below it.  A layer that has a parent has a map of the blocks that it holds; the lowest one holds all.

`chain_file` has its format.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.lineage import NOTHING, SNAPSHOT_NAME, Lineage, Snapshot
from pyjiva.snapshot.layer_index import LAYERS_MAX
from pyjiva.snapshot.metadata import META_SUFFIX, VOLUME_META, DiskMeta, VolumeMeta, layer_names
from pyjiva.snapshot.state import STATE_FILE

__all__ = [
    "CHAIN_FILE",
    "DATA_SUFFIXES",
    "HEAD",
    "MAP_SUFFIX",
    "SUMS_SUFFIX",
    "Chain",
    "Layer",
    "head_alone",
    "head_number",
    "snapshot_file",
]

CHAIN_FILE: Final = "pyjiva-chain.json"
SUMS_SUFFIX: Final = ".sums"
MAP_SUFFIX: Final = ".held"
DATA_SUFFIXES: Final = ("", SUMS_SUFFIX, MAP_SUFFIX)
"""What is put behind a layer's file name for its data, their checksums, and the map of its blocks."""
HEAD: Final = ""
"""The head where a layer is named: no snapshot has this name."""
_HEAD: Final = re.compile(r"volume-head-(\d{3,9})\.img", re.ASCII)


@attrs.frozen(kw_only=True)
class Layer:
    """A snapshot: a layer that is not written to any more, but for what its fields say.

    Raises ValueError: a field is impossible.
    """

    name: str
    parent: str = ""
    """The layer below; "" for the lowest."""
    created: str = ""
    """RFC 3339."""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    user_created: bool = False
    removed: bool = False
    """Deleted: no snapshot any more, and gone as soon as what is above it does not need it."""
    sealed: bool = True
    """False: it is being received, and belongs to nothing yet."""
    number: int = 0
    """See `lineage.Snapshot`; 0 in a directory that belongs to no volume of replicas."""
    whole: bool = True
    """See `lineage.Snapshot`."""
    filling: bool = False
    """See `lineage.Snapshot`."""
    reopened: bool = False
    """A removed layer that takes writes again, until the head, which stands on it, is merged into it."""

    @property
    def unsettled(self) -> bool:
        """Whether it is still written to."""
        return self.filling or self.reopened or not self.whole

    def __attrs_post_init__(self) -> None:
        texts = (self.name, self.parent, self.created, *self.labels, *self.labels.values())
        if not all(type(text) is str for text in texts):
            raise ValueError("names, times and labels are strings")
        flags = (self.user_created, self.removed, self.sealed, self.whole, self.filling, self.reopened)
        if not all(type(flag) is bool for flag in flags):
            raise ValueError("user_created, removed, sealed, whole, filling and reopened are booleans")
        if self.reopened and (self.filling or not (self.removed and self.sealed and self.whole)):
            raise ValueError("only a removed layer that was whole is reopened")
        if type(self.number) is not int or self.number < 0:
            raise ValueError("number is a count from 0")
        if not SNAPSHOT_NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} is no name for a snapshot: up to 128 letters, digits and ._- that begin with "
                f"a letter or a digit"
            )


@attrs.frozen(kw_only=True)
class Chain:
    """All layers of a replica.  Raises ValueError: they are no tree.

    Each change is a method that gives the chain after it, and raises ConfigError when the operator asked for
    something that cannot be.
    """

    head_number: int = 0
    """Grows with every new head, so that a head's file name is never used again."""
    head_parent: str = ""
    generation: int = 0
    """See `lineage`."""
    last_revert: int = 0
    """See `lineage`."""
    layers: tuple[Layer, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    """Files that this change gives another name, once it is stable; to be done again after a crash."""
    growing_to: int = 0
    """Size that the files are being made ready for, while the state still names the old one; or that they
    had, while it may name a smaller one already.
    """
    swept_boot_id: str = ""
    """The boot that `HeldMap.sweep` was last done in."""
    _by_name: dict[str, Layer] = attrs.field(init=False, eq=False, repr=False)
    _children: dict[str, list[str]] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        by_name = {layer.name: layer for layer in self.layers}
        children: dict[str, list[str]] = {name: [] for name in by_name}
        children[""] = []
        for name, parent in [(layer.name, layer.parent) for layer in self.layers] + [
            (HEAD, self.head_parent)
        ]:
            if parent not in children:
                raise ValueError(f"{name or 'the head'} stands on {parent}, which is not there")
            children[parent].append(name)
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_children", children)
        if len(by_name) != len(self.layers):
            raise ValueError("two layers have the same name")
        if any(layer.reopened and children[layer.name] != [HEAD] for layer in self.layers):
            raise ValueError("a layer is reopened on which not the head alone stands")
        self._check_reach()

    def _check_reach(self) -> None:
        """From the layers that stand on nothing all are reached: there is no circle."""
        reached: list[str] = [""]
        for name in reached:
            reached += [child for child in self._children[name] if child != HEAD]
        if len(reached) != len(self.layers) + 1:
            raise ValueError("the layers go round in a circle")

    @property
    def head_file(self) -> str:
        """File name of the head."""
        return f"volume-head-{self.head_number:03}.img"

    def file_of(self, name: str) -> str:
        """File name of a layer, or of the head."""
        return self.head_file if name == HEAD else snapshot_file(name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def layer(self, name: str) -> Layer:
        """The snapshot `name`, whether it is removed or not.  Raises ConfigError: there is none."""
        layer = self._by_name.get(name)
        if layer is None:
            raise ConfigError(f"there is no snapshot {name!r}")
        return layer

    def snapshot(self, name: str) -> Layer:
        """As `layer`, and it is sealed and not removed."""
        layer = self.layer(name)
        if layer.removed or not layer.sealed:
            state = "removed" if layer.removed else "still being received"
            raise ConfigError(f"snapshot {name!r} is {state}")
        return layer

    def parent_of(self, name: str) -> str:
        """What a layer, or the head, stands on; "" for nothing."""
        return self.head_parent if name == HEAD else self.layer(name).parent

    def children_of(self, name: str) -> tuple[str, ...]:
        """What stands on the layer `name`; the head as HEAD."""
        return tuple(self._children[name])

    def path(self, name: str) -> tuple[str, ...]:
        """`name` (HEAD for the head) and all below it, the lowest first."""
        names = [name]
        while parent := self.parent_of(names[-1]):
            names.append(parent)
        return tuple(reversed(names))

    def with_snapshot(self, layer: Layer) -> "Chain":
        """The head becomes `layer`, and a new head stands on it."""
        self._check_new(layer.name)
        old, new = self.head_file, snapshot_file(layer.name)
        return attrs.evolve(
            self,
            head_number=self.head_number + 1,
            head_parent=layer.name,
            layers=(*self.closed().layers, attrs.evolve(layer, parent=self.head_parent)),
            renames=tuple((old + suffix, new + suffix) for suffix in DATA_SUFFIXES),
        )

    def with_received(self, layer: Layer) -> "Chain":
        """A layer that is being received, on top of `layer.parent`."""
        self._check_new(layer.name)
        if layer.parent:
            self.snapshot(layer.parent)
        received = attrs.evolve(layer, sealed=False)
        return attrs.evolve(self, layers=(*self.layers, received), renames=())

    def with_sealed(self, name: str) -> "Chain":
        """The layer that was being received is whole."""
        if self.layer(name).sealed:
            raise ConfigError(f"snapshot {name!r} is not being received")
        return self._changed(name, sealed=True)

    def without_received(self, name: str) -> "Chain":
        """The layer that was being received is given up."""
        if self.layer(name).sealed:
            raise ConfigError(f"snapshot {name!r} is not being received")
        return self._without({name})

    def _check_new(self, name: str) -> None:
        if name in self:
            raise ConfigError(f"there is a snapshot {name!r} already")
        if len(self.layers) + 2 > LAYERS_MAX:
            raise ConfigError(f"there are {len(self.layers)} snapshots, and no more are possible")

    @property
    def reopened(self) -> str:
        """The removed layer that takes writes; "" for none."""
        below = self._by_name.get(self.head_parent)
        return below.name if below is not None and below.reopened else ""

    def with_reopened(self, name: str) -> "Chain":
        """The removed layer `name` takes writes, where it has a block that the head does not hold."""
        assert self.layer(name).removed and self._children[name] == [HEAD]
        return self._changed(name, reopened=True)

    def closed(self) -> "Chain":
        """No layer but the head takes writes any more; what the one below it has is stable."""
        return self._changed(self.reopened, reopened=False) if self.reopened else self

    def with_spare_name(self, name: str) -> "Chain":
        """The removed layer `name`, which is still in the way of a snapshot of that name, gets another."""
        assert self.layer(name).removed
        spare = next(f"{name[:100]}.{n}" for n in itertools.count(1) if f"{name[:100]}.{n}" not in self)
        layers = [
            attrs.evolve(
                layer,
                name=spare if layer.name == name else layer.name,
                parent=spare if layer.parent == name else layer.parent,
            )
            for layer in self.layers
        ]
        old, new = snapshot_file(name), snapshot_file(spare)
        return attrs.evolve(
            self,
            head_parent=spare if self.head_parent == name else self.head_parent,
            layers=tuple(layers),
            renames=tuple((old + suffix, new + suffix) for suffix in DATA_SUFFIXES),
        )

    def with_whole(self, name: str) -> "Chain":
        """The snapshot needs no comparing any more."""
        self.snapshot(name)
        return self._changed(name, whole=True)

    def with_filled(self, name: str) -> "Chain":
        """The snapshot has all that its source has."""
        self.snapshot(name)
        return self._changed(name, filling=False, whole=True)

    def with_doubts(self) -> "Chain":
        """Whatever is being filled may have lost some of it with the power."""
        doubtful = [attrs.evolve(each, whole=each.whole and not each.filling) for each in self.layers]
        return attrs.evolve(self, layers=tuple(doubtful))

    def lineage(self, size_bytes: int) -> Lineage:
        """What the replicas of a volume agree on.  Raises ConfigError: the layers are of no such volume."""
        visible = {layer.name: layer for layer in self.layers if layer.sealed and not layer.removed}
        numbers = {"": NOTHING, **{name: layer.number for name, layer in visible.items()}}

        def standing_on(name: str) -> int:
            while name not in numbers:
                name = self.layer(name).parent
            return numbers[name]

        snapshots = [
            Snapshot(
                number=layer.number,
                name=layer.name,
                parent=standing_on(layer.parent),
                created=layer.created,
                labels=layer.labels,
                user_created=layer.user_created,
                filling=layer.filling,
                whole=layer.whole,
            )
            for layer in visible.values()
        ]
        try:
            return Lineage(
                size_bytes=size_bytes,
                generation=self.generation,
                standing_on=standing_on(self.head_parent),
                last_revert=self.last_revert,
                snapshots=tuple(sorted(snapshots, key=lambda snapshot: snapshot.number)),
            )
        except ValueError as error:
            raise ConfigError(
                f"the snapshots have no numbers that replicas could agree on: {error}"
            ) from error

    def with_removed(self, name: str) -> "Chain":
        """The snapshot is deleted: what is above it still needs its blocks, or nothing does.

        Nobody compares it any more; what it has is stable.
        """
        self.snapshot(name)
        return self._changed(name, removed=True, whole=True).pruned()

    def pruned(self) -> "Chain":
        """Without the removed layers that nothing stands on."""
        chain = self
        while unused := {
            layer.name for layer in chain.layers if layer.removed and not chain._children[layer.name]
        }:
            chain = chain._without(unused)
        return chain

    def next_merge(self) -> tuple[str, str] | None:
        """A removed layer and the only one that stands on it (HEAD for the head), if there is such a pair.

        None as long as a snapshot is being compared: it is written to.  One that takes writes comes first.
        """
        if not all(layer.whole for layer in self.layers):
            return None
        if self.reopened:
            return self.reopened, HEAD
        for layer in self.layers:
            children = self._children[layer.name]
            if (
                layer.removed
                and len(children) == 1
                and (children[0] == HEAD or self.layer(children[0]).sealed)
            ):
                return layer.name, children[0]
        return None

    def absorbed(self, name: str, *, child: str) -> "Chain":
        """`child` holds all that it needs of the removed layer `name` below it, which goes."""
        assert self.layer(name).removed and self._children[name] == [child]
        return self.closed()._lifted(name, child)._without({name})

    def sunk(self, name: str, *, child: str) -> "Chain":
        """The removed layer `name` holds all of `child` above it, and takes its place and its name."""
        absorbed = self.absorbed(name, child=child)
        old, new = snapshot_file(name), self.file_of(child)
        return attrs.evolve(absorbed, renames=tuple((old + suffix, new + suffix) for suffix in DATA_SUFFIXES))

    def _lifted(self, name: str, child: str) -> "Chain":
        parent = self.layer(name).parent
        if child == HEAD:
            return attrs.evolve(self, head_parent=parent)
        return self._changed(child, parent=parent)

    def reverted(self, name: str, *, keep_newer: bool) -> "Chain":
        """A new head on top of the snapshot `name`; "": on nothing.  What the old head stood on above it
        goes, unless `keep_newer`, or as far as another branch stands on it.
        """
        if name:
            self.snapshot(name)
        chain = attrs.evolve(self.closed(), head_number=self.head_number + 1, head_parent=name, renames=())
        if keep_newer:
            return chain.pruned()
        below = set(self.path(name)) if name else set()
        for above in reversed(self.path(self.head_parent) if self.head_parent else ()):
            if above in below or chain._children[above]:
                break
            chain = chain._without({above})
        return chain.pruned()

    def _changed(self, name: str, **fields: Any) -> "Chain":
        layers = [attrs.evolve(each, **fields) if each.name == name else each for each in self.layers]
        return attrs.evolve(self, layers=tuple(layers), renames=())

    def _without(self, names: set[str]) -> "Chain":
        rest = tuple(layer for layer in self.layers if layer.name not in names)
        return attrs.evolve(self, layers=rest, renames=())

    def files(self) -> frozenset[str]:
        """Every file that belongs to a layer or tells of one, after the renames."""
        names = {VOLUME_META, CHAIN_FILE}
        for name in (HEAD, *self._by_name):
            file = self.file_of(name)
            names |= {file, file + META_SUFFIX, file + SUMS_SUFFIX}
            if self.parent_of(name):
                names.add(file + MAP_SUFFIX)
        return frozenset(names)

    def metas(self, size_bytes: int, known: "Chain | None" = None) -> dict[str, bytes]:
        """Name and content of the files that say the same in Jiva's and Longhorn's words; but for layers that
        are the same in `known`.
        """
        old = {} if known is None else known._by_name
        parent = snapshot_file(self.head_parent) if self.head_parent else ""
        volume = VolumeMeta(size_bytes=size_bytes, head=self.head_file, parent=parent)
        head = DiskMeta(name=self.head_file, parent=parent)
        contents = {VOLUME_META: volume.encode(), self.head_file + META_SUFFIX: head.encode()}
        for layer in self.layers:
            if old.get(layer.name) is layer:
                continue
            file = snapshot_file(layer.name)
            disk = DiskMeta(
                name=file,
                parent=snapshot_file(layer.parent) if layer.parent else "",
                removed=layer.removed,
                user_created=layer.user_created,
                created=layer.created,
                labels=dict(layer.labels) or None,
            )
            contents[file + META_SUFFIX] = disk.encode()
        return contents


def snapshot_file(name: str) -> str:
    """File name of the snapshot `name`."""
    return f"volume-snap-{name}.img"


def head_number(file: str) -> int | None:
    """The number of the head with this file name; None: it is no head's."""
    head = _HEAD.fullmatch(file)
    return None if head is None else int(head[1])


def head_alone(metas: Mapping[str, bytes], size_bytes: int) -> Chain:
    """The chain of a volume of `size_bytes` that has had no snapshot, from `volume.meta` and `.meta` files.

    Raises ConfigError: they are damaged, or say something else.
    """
    if VOLUME_META not in metas:
        raise ConfigError(f"{VOLUME_META} is missing: move the directory away, the replica is rebuilt")
    volume = VolumeMeta.decode(metas[VOLUME_META])
    disks = {}
    for name in sorted(metas.keys() - {VOLUME_META}):
        layer = name.removesuffix(META_SUFFIX)
        disks[layer] = DiskMeta.decode(layer, metas[name])
    number = head_number(volume.head)
    if len(layer_names(volume, disks)) != 1 or volume.parent or volume.backing_file_path or number is None:
        raise ConfigError(
            "has layers below the head that pyjiva did not make, which this version cannot serve"
        )
    if volume.size_bytes != size_bytes:
        raise ConfigError(
            f"{VOLUME_META} says {volume.size_bytes} bytes and {STATE_FILE} {size_bytes}: it is damaged"
        )
    return Chain(head_number=number)
