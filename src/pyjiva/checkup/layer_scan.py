"""Which blocks of a layer count when its data is looked at, and what is concluded from what was found there.
Pure.

A block counts if the replica would give it out after it was started: so what opening the directory does first
is taken into account here, without doing it.
"""

import attrs

from pyjiva.checkup import finding
from pyjiva.checkup.facts import BLOCK_BYTES, DataFacts, Listing, MapFacts
from pyjiva.checkup.finding import Finding
from pyjiva.checkup.structure import LayerFiles, Structure
from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.chain import HEAD, Chain
from pyjiva.snapshot.regions import marked_extents
from pyjiva.snapshot.state import FLUSH_FAILED

__all__ = ["LayerScan", "findings_of_data", "findings_of_map", "scan_of"]


@attrs.frozen
class LayerScan:
    """What to look at, and how."""

    files: LayerFiles
    size_bytes: int
    swept: bool
    """Whether blocks that are held and not known to be stable will not be held any more."""
    forgotten: tuple[Extent, ...]
    """Where checksums will be forgotten: they say nothing."""
    hidden_by: str
    """The map of the layer into which this one, which was removed, is being merged: what that one holds is
    hidden here, and may be half written by a merge that was cut.  "" if there is none.
    """
    hider_swept: bool
    """As `swept`, for that layer."""
    cached: tuple[Extent, ...]
    """Where data must not leave the page cache: the disk may not have it, and cannot be asked to take it."""


def scan_of(structure: Structure, listing: Listing, files: LayerFiles) -> LayerScan:
    """How to look at a layer of `structure`."""
    state = structure.state
    assert state is not None
    name = files.name
    everything = (Extent(0, state.size_bytes),)
    takes_writes = name == HEAD or _chain(structure).layer(name).reopened
    marked = list(marked_extents(state)) if state.written_boot_id and takes_writes else []
    forgotten = marked if _may_lack(structure) else []
    undone = [listing.undo] if listing.undo is not None and name == HEAD else []
    under_way = listing.under_way if name == HEAD else ()
    doubtful = everything if _is_in_doubt(structure, name) else ()
    unsettled = name != HEAD and _chain(structure).layer(name).unsettled
    in_cache = state.written_boot_id == FLUSH_FAILED or (state.written_boot_id and unsettled)
    hider = _hider(structure, name)
    return LayerScan(
        files,
        state.size_bytes,
        swept=_is_swept(structure, name),
        forgotten=tuple(merge_extents([*forgotten, *undone, *under_way, *doubtful])),
        hidden_by="" if hider is None else hider.held,
        hider_swept=hider is not None and _is_swept(structure, hider.name),
        cached=everything if in_cache else tuple(merge_extents(marked)),
    )


def _may_lack(structure: Structure) -> bool:
    """Whether opening the directory finds that writes may be gone."""
    return structure.written_boot_id not in ("", structure.boot_id)


def _is_swept(structure: Structure, name: str) -> bool:
    """Whether opening the directory sweeps the map of this layer."""
    if name == HEAD:
        return _sweeps(structure)
    return not _chain(structure).layer(name).sealed or _is_in_doubt(structure, name)


def _is_in_doubt(structure: Structure, name: str) -> bool:
    """Whether opening the directory forgets all checksums of this layer."""
    if name == HEAD:
        return False
    layer = _chain(structure).layer(name)
    return not layer.whole or (layer.filling and _sweeps(structure))


def _sweeps(structure: Structure) -> bool:
    """Whether opening the directory forgets what the machine may have left half written when it went down."""
    return _may_lack(structure) and _chain(structure).swept_boot_id != structure.boot_id


def _hider(structure: Structure, name: str) -> LayerFiles | None:
    chain = _chain(structure)
    if name == HEAD or not chain.layer(name).removed or len(chain.children_of(name)) != 1:
        return None
    child = chain.children_of(name)[0]
    return next(files for files in structure.layers if files.name == child)


def _chain(structure: Structure) -> Chain:
    assert structure.known is not None
    return structure.known.chain


def findings_of_map(files: LayerFiles, facts: MapFacts) -> list[Finding]:
    """What is wrong with the map of a layer."""
    if facts.error:
        return [Finding(finding.MAP_DAMAGED, files.held, facts.error)]
    if facts.bad_blocks:
        where = f"{facts.bad_blocks} blocks, the first at offset {facts.first_bad_block * BLOCK_BYTES}"
        return [Finding(finding.MAP_DAMAGED, files.held, where)]
    return []


def findings_of_data(files: LayerFiles, facts: DataFacts) -> list[Finding]:
    """What is wrong with the data of a layer."""
    found = []
    for kind, extents in ((finding.BAD_BLOCKS, facts.bad), (finding.UNREADABLE_BLOCKS, facts.unreadable)):
        if extents:
            total = sum(part.length_bytes for part in extents)
            first = extents[0].offset_bytes
            where = f"{total} bytes at offset {first}"
            if len(extents) > 1:
                where = f"{total} bytes in {len(extents)} places, the first at offset {first}"
            found.append(Finding(kind, files.data, where))
    if facts.unknown_blocks:
        found.append(Finding(finding.UNKNOWN_BLOCKS, files.data, f"{facts.unknown_blocks} blocks"))
    return found
