"""What a replica's directory that Longhorn or Jiva wrote holds: the facts that are read of it, and what
follows from them (`describe`).  Pure.
"""

import enum
import re
from collections.abc import Mapping
from typing import Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.snapshot import Chain, DiskMeta, Layer, VolumeMeta
from pyjiva.snapshot.chain import HEAD

__all__ = [
    "BACKING_NAME",
    "IMAGE",
    "MARKER",
    "REVISION_FILE",
    "DirectoryFacts",
    "Finding",
    "ForeignLayer",
    "ForeignReplica",
    "Hinders",
    "pyjiva_layer",
]

MARKER: Final = "pyjiva.upgrading"
"""There while an upgrade is under way: what is pyjiva's beside it is unfinished, and is made anew."""
BACKING_NAME: Final = "backing-file"
"""The snapshot that holds what was the backing file."""
REVISION_FILE: Final = "revision.counter"
IMAGE: Final = re.compile(r"volume-(?:head-(\d{3,9})|snap-([^/]{1,200}))\.img", re.ASCII | re.DOTALL)
"""A layer's file: the number of a head, or the name of a snapshot."""


class Hinders(enum.Enum):
    """What a finding stands in the way of."""

    READING = "reading"
    """The volume cannot be read: neither served nor upgraded."""
    UPGRADE = "upgrade"
    """It can be read, and not upgraded."""
    DIRTY = "dirty"
    """It can be read, and be upgraded if the operator says so: it may lack writes that another has."""
    NOTHING = "nothing"


@attrs.frozen
class Finding:
    """One thing that the operator should know."""

    hinders: Hinders
    text: str


@attrs.frozen(kw_only=True)
class DirectoryFacts:
    """What was read of a directory."""

    names: frozenset[str]
    sizes: Mapping[str, int]
    """Bytes of each layer's file."""
    allocated: Mapping[str, int]
    """How many of them are no holes."""
    contents: Mapping[str, bytes]
    """The `.meta` files and the revision counter."""
    same_file: Mapping[str, str] = attrs.field(factory=dict)
    """Layer's file → another name that the same file has."""
    in_use: bool = False
    """Whether a process has the head open for writing."""


@attrs.frozen(kw_only=True)
class ForeignLayer:
    """A layer that is whole."""

    name: str
    """"" is the head."""
    file: str
    parent: str
    """Name of the layer below; "" for none."""
    meta: DiskMeta
    size_bytes: int
    allocated_bytes: int
    is_live: bool
    """Whether the head stands on it, or it is the head."""


@attrs.frozen(kw_only=True)
class ForeignReplica:
    """What the directory holds."""

    system: str
    """Who wrote it, for people."""
    volume: VolumeMeta | None
    """None: that cannot be read."""
    layers: tuple[ForeignLayer, ...]
    """Those that are whole, each after the one that it stands on, the head last."""
    backing_file: str
    """What lies below the lowest layer, as the directory calls it; "" for nothing."""
    revision_counter: int | None
    findings: tuple[Finding, ...]
    leftovers: tuple[str, ...]
    """Files without use that an upgrade lets go."""

    def hindrances(self, *kinds: Hinders) -> tuple[Finding, ...]:
        """The findings that stand in the way of one of `kinds`."""
        return tuple(finding for finding in self.findings if finding.hinders in kinds)

    @property
    def can_be_read(self) -> bool:
        """Whether the volume can be served as it is."""
        return not self.hindrances(Hinders.READING)

    def can_be_upgraded(self, *, accept_dirty: bool) -> bool:
        """Whether it can become a pyjiva replica."""
        kinds = (Hinders.READING, Hinders.UPGRADE) + (() if accept_dirty else (Hinders.DIRTY,))
        return not self.hindrances(*kinds)

    @property
    def size_bytes(self) -> int:
        """Size of the volume, which can be read."""
        assert self.volume is not None
        return self.volume.size_bytes

    def layer(self, name: str) -> ForeignLayer:
        """The layer `name`.  Raises ConfigError: there is none that is whole."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ConfigError(f"there is no snapshot {name!r}")

    def path(self, name: str) -> tuple[ForeignLayer, ...]:
        """The layer `name` (HEAD for the head) and all below it, the lowest first."""
        path = [self.layer(name)]
        while parent := path[-1].parent:
            path.append(self.layer(parent))
        return tuple(reversed(path))

    def chain(self, *, backing: bool) -> Chain:
        """The same layers as pyjiva's chain; `backing`: with one more below all, that has the backing file.

        To be asked for what can be upgraded.
        """
        below = BACKING_NAME if backing else ""
        layers = [pyjiva_layer(each, below) for each in self.layers if each.name != HEAD]
        if backing:
            labels = {"backing-file": self.backing_file}
            layers.insert(0, Layer(name=BACKING_NAME, labels=labels))
        head = self.layers[-1]
        return Chain(
            head_number=_head_number(head.file),
            head_parent=head.parent or below,
            layers=_numbered(layers),
            generation=len(layers),
        )


def pyjiva_layer(layer: ForeignLayer, below: str) -> Layer:
    """A snapshot in pyjiva's words; `below`: what the lowest stands on.  Raises ValueError: it cannot be."""
    return Layer(
        name=layer.name,
        parent=layer.parent or below,
        created=layer.meta.created,
        labels=dict(layer.meta.labels or {}),
        user_created=layer.meta.user_created,
        removed=layer.meta.removed,
    )


def _numbered(layers: list[Layer]) -> tuple[Layer, ...]:
    """`layers`, each with a number above that of the one that it stands on (`lineage.Snapshot`)."""
    parents = {layer.name: layer.parent for layer in layers}

    def depth(layer: Layer) -> int:
        below, name = 0, layer.parent
        while name:
            below, name = below + 1, parents[name]
        return below

    in_order = sorted(layers, key=depth)
    return tuple(attrs.evolve(layer, number=number) for number, layer in enumerate(in_order, 1))


def _head_number(file: str) -> int:
    match = IMAGE.fullmatch(file)
    assert match is not None
    return int(match[1])
