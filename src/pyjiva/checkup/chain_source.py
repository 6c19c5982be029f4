"""Which layers a directory has, also when the file that says so is damaged or gone.  Pure.

*The chain file* is the truth, when it is whole.

*Without one* there has been no snapshot, and `volume.meta` names the head.  If that is lost, the head is the
one `volume-head-NNN.img` without a map; the next head, which a first snapshot that was cut has left, has a
map or nothing in it.

*From the `.meta` files.*  They are written from the chain after each change, so they say the same as the last
chain, or the one before it if a change was cut between the two; and they have no checksum.  So they are
believed only if all of this holds:

- they decode, `volume.meta` has the volume's size, and their parents make a tree;
- there are exactly the data files and maps that this tree needs, none is missing and there is no other: a
  snapshot, a revert or a received layer that was cut has left a head or layer that the old `.meta` files do
  not know, and a merge that was cut has taken a file away that they do know;
- nothing that was being written when it was cut (`.tmp`) lies beside them;
- every layer stands below the head.  The `.meta` files cannot say whether a layer of another branch has been
  received whole, or only a part of it.

What is left is a deletion that was cut just after it was decided: the snapshot shows again, which loses
nothing, as long as its merge has not begun; and that begins only after `tidy`, unless the disk was full.  A
replica whose chain was made like this counts as behind in any case (`plan`).
"""

import enum
import json
from collections.abc import Mapping
from typing import Final

import attrs

from pyjiva.checkup.facts import TEMPORARY_SUFFIX, Listing
from pyjiva.checkup.finding import CHAIN_DAMAGED, CHAIN_LOST, CHAIN_MISSING, META_DAMAGED, Finding, Kind
from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import (
    CHAIN_FILE,
    DATA_SUFFIXES,
    HEAD,
    MAP_SUFFIX,
    Chain,
    Layer,
    head_alone,
    head_number,
)
from pyjiva.snapshot.chain_file import FORMAT_VERSION, decode_chain
from pyjiva.snapshot.metadata import META_SUFFIX, VOLUME_META, DiskMeta, VolumeMeta

__all__ = ["LAYER_PREFIXES", "ChainSource", "KnownChain", "find_chain", "refuse_newer"]

LAYER_PREFIXES: Final = ("volume-head-", "volume-snap-")
_SNAPSHOT: Final = ("volume-snap-", ".img")


class ChainSource(enum.Enum):
    """Where the chain was found."""

    CHAIN_FILE = "chain file"
    HEAD_ALONE = "head alone"
    """There has been no snapshot."""
    REBUILT = "rebuilt"
    """Made from other files; to be written."""


@attrs.frozen
class KnownChain:
    """The chain of a directory."""

    chain: Chain
    source: ChainSource


def find_chain(listing: Listing, size_bytes: int) -> tuple[KnownChain | None, list[Finding]]:
    """The chain, if anything says it, and what is wrong with what says it.

    Raises ConfigError: a newer version has written it.
    """
    if CHAIN_FILE in listing:
        return _from_chain_file(listing, size_bytes)
    strays = _strays(listing)
    try:
        if strays:
            raise ConfigError(f"{', '.join(strays)} would belong to no layer")
        metas = {name: _content(listing, name) for name in listing.files if name.endswith(META_SUFFIX)}
        return KnownChain(head_alone(metas, size_bytes), ChainSource.HEAD_ALONE), []
    except ConfigError as error:
        problem = str(error)
    if strays:
        return _from_metas(listing, size_bytes, CHAIN_MISSING, "it is not there")
    head = _only_head(listing)
    if head is None:
        return None, [Finding(CHAIN_LOST, VOLUME_META, problem)]
    chain = Chain(head_number=head)
    return KnownChain(chain, ChainSource.REBUILT), [Finding(META_DAMAGED, VOLUME_META, problem)]


def _from_chain_file(listing: Listing, size_bytes: int) -> tuple[KnownChain | None, list[Finding]]:
    try:
        content = _content(listing, CHAIN_FILE)
        refuse_newer(CHAIN_FILE, content, FORMAT_VERSION)
    except _UnreadableError as error:
        return _from_metas(listing, size_bytes, CHAIN_DAMAGED, str(error))
    try:
        return KnownChain(decode_chain(content), ChainSource.CHAIN_FILE), []
    except ConfigError as error:
        problem = str(error).partition("(")[2].rpartition(")")[0]
        return _from_metas(listing, size_bytes, CHAIN_DAMAGED, problem)


def _from_metas(
    listing: Listing, size_bytes: int, kind: Kind, problem: str
) -> tuple[KnownChain | None, list[Finding]]:
    try:
        chain = _chain_of_metas(listing, size_bytes)
    except (ConfigError, ValueError) as error:
        return None, [Finding(CHAIN_LOST, CHAIN_FILE, f"{problem}; and the .meta files: {error}")]
    return KnownChain(chain, ChainSource.REBUILT), [Finding(kind, CHAIN_FILE, problem)]


class _UnreadableError(ConfigError):
    """A file cannot be read."""


def _content(listing: Listing, name: str) -> bytes:
    if name not in listing:
        raise _UnreadableError(f"{name} is missing")
    content = listing[name].content
    if content is None:
        raise _UnreadableError(listing[name].error)
    return content


def refuse_newer(name: str, content: bytes, known_format: int) -> None:
    """Raise ConfigError if a newer pyjiva has written this file: whether it is whole is for that to say."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return  # damaged, which is found when it is decoded
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is int and version > known_format:
        raise ConfigError(
            f"{name} has format {version}, this pyjiva reads {known_format}: take the newer one"
        )


# --- without a chain file


def _heads(listing: Listing) -> dict[int, str]:
    numbers = ((head_number(name), name) for name in listing.files)
    return {number: name for number, name in numbers if number is not None}


def _strays(listing: Listing) -> list[str]:
    """Files that there cannot be without a chain: snapshots, and a later head that has something in it."""
    strays = [name for name in listing.files if name.startswith(_SNAPSHOT[0]) and name.endswith(_SNAPSHOT[1])]
    heads = _heads(listing)
    later = [number for number in heads if number > min(heads)]
    for number in later:
        parts = [heads[number] + suffix for suffix in DATA_SUFFIXES]
        if any(listing[part].allocated_bytes for part in parts if part in listing):
            strays.append(heads[number])
    return strays


def _only_head(listing: Listing) -> int | None:
    """The number of the head of a directory that has had no snapshot; None: that cannot be told.

    A later head beside it is an empty one, or it would be a stray.
    """
    heads = _heads(listing)
    if not heads or heads[min(heads)] + MAP_SUFFIX in listing:
        return None
    metas = (VOLUME_META, heads[min(heads)] + META_SUFFIX)
    return None if any(_tells_of_more(listing, name) for name in metas) else min(heads)


def _tells_of_more(listing: Listing, name: str) -> bool:
    """Whether a file that is whole says that something lies below the head."""
    try:
        content = _content(listing, name)
        if name != VOLUME_META:
            return bool(DiskMeta.decode(name.removesuffix(META_SUFFIX), content).parent)
        volume = VolumeMeta.decode(content)
    except ConfigError:
        return False
    return bool(volume.parent or volume.backing_file_path)


# --- from the .meta files


def _chain_of_metas(listing: Listing, size_bytes: int) -> Chain:
    """The chain that they tell.  Raises ConfigError, ValueError: they are not to be believed."""
    volume = VolumeMeta.decode(_content(listing, VOLUME_META))
    number = head_number(volume.head)
    if number is None or volume.size_bytes != size_bytes or volume.backing_file_path:
        raise ValueError(f"{VOLUME_META} is of another volume")
    layers = {}
    for file in [name.removesuffix(META_SUFFIX) for name in listing.files if name.endswith(META_SUFFIX)]:
        if file.startswith(LAYER_PREFIXES):
            disk = DiskMeta.decode(file, _content(listing, file + META_SUFFIX))
            if file == volume.head:
                if disk.parent != volume.parent:
                    raise ValueError(f"{file}{META_SUFFIX} and {VOLUME_META} differ")
            else:
                layers[_name_of(file)] = _layer_of(disk)
    chain = Chain(head_number=number, head_parent=_name_of(volume.parent), layers=_lowest_first(layers))
    if len(chain.path(HEAD)) != len(layers) + 1:
        raise ValueError("a layer does not stand below the head, and may have been received in part")
    _check_files(listing, chain)
    # They do not say whether the one below the head was reopened; if it was not, that does no harm.
    below = chain.head_parent
    return chain.with_reopened(below) if below and chain.layer(below).removed else chain


def _check_files(listing: Listing, chain: Chain) -> None:
    """There are the files that the chain needs, and no others."""
    needed = chain.files() - {VOLUME_META, CHAIN_FILE}
    optional = {name for name in needed if name.endswith(".sums")}  # they can be made anew
    present = {name for name in listing.files if name.startswith((*LAYER_PREFIXES, VOLUME_META))}
    present -= {VOLUME_META}
    if missing := sorted(needed - optional - present):
        raise ValueError(f"{missing[0]} is missing")
    if others := sorted(present - needed):
        kind = "a change was cut" if others[0].endswith(TEMPORARY_SUFFIX) else "they do not know"
        raise ValueError(f"{kind}: {others[0]}")


def _name_of(file: str) -> str:
    """The name of the snapshot in this file; "" for no file."""
    before, after = _SNAPSHOT
    if not file:
        return ""
    if not (file.startswith(before) and file.endswith(after)):
        raise ValueError(f"{file} is no snapshot's file")
    return file.removeprefix(before).removesuffix(after)


def _layer_of(disk: DiskMeta) -> Layer:
    return Layer(
        name=_name_of(disk.name),
        parent=_name_of(disk.parent),
        created=disk.created,
        labels=dict(disk.labels or {}),
        user_created=disk.user_created,
        removed=disk.removed,
    )


def _lowest_first(layers: Mapping[str, Layer]) -> tuple[Layer, ...]:
    """The layers, each after the one that it stands on.  Raises ValueError: they are no tree."""
    known = {layer.name: layer for layer in Chain(layers=tuple(layers.values())).layers}
    depth = dict.fromkeys(known, 0)
    for name in known:
        below = known[name].parent
        while below:
            depth[name] += 1
            below = known[below].parent
    return tuple(sorted(known.values(), key=lambda layer: (depth[layer.name], layer.name)))
