"""What a replica's directory is, by its names, sizes and small files: who the replica is, which layers it
has, which files belong to them, and what is wrong with all that.  Pure.

Left out: what is in the data and the maps (`scan_sys`, `layer_findings`).
"""

from collections.abc import Iterable
from typing import Final

import attrs

from pyjiva.checkup import finding
from pyjiva.checkup.chain_source import LAYER_PREFIXES, ChainSource, KnownChain, find_chain, refuse_newer
from pyjiva.checkup.facts import (
    BLOCK_BYTES,
    FLUSH_FAILED_FILE,
    KEPT_PREFIX,
    MARKER,
    SLOT_FILE,
    STAMP_FILE,
    SUM_BYTES,
    TEMPORARY_SUFFIX,
    UNDO_FILE,
    Listing,
)
from pyjiva.checkup.finding import Finding, Kind
from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import CHAIN_FILE, DATA_SUFFIXES, HEAD, MAP_SUFFIX, SUMS_SUFFIX, Chain
from pyjiva.snapshot.metadata import FIRST_HEAD, META_SUFFIX, VOLUME_META
from pyjiva.snapshot.state import (
    FLUSH_FAILED,
    FORMAT_VERSION,
    REPAIRED,
    STATE_FILE,
    ReplicaState,
    decode_state,
)
from pyjiva.units import format_size

__all__ = ["LayerFiles", "Structure", "understand"]

VOLUME_DESCRIPTION: Final = "volume.json"
_IGNORED: Final = frozenset({"lost+found"})
_CREATED: Final = (FIRST_HEAD, FIRST_HEAD + META_SUFFIX, VOLUME_META, MARKER, STATE_FILE)
_SINGLES: Final = frozenset(
    {STATE_FILE, CHAIN_FILE, UNDO_FILE, STAMP_FILE, SLOT_FILE, FLUSH_FAILED_FILE, VOLUME_META}
)
_NAMES_SHOWN: Final = 3


@attrs.frozen
class LayerFiles:
    """The files of one layer, by the names that they have now; "" where there is none that can be read."""

    name: str
    """HEAD for the head."""
    data: str
    sums: str
    held: str
    has_map: bool
    """Whether it should have a map: it stands on another layer."""


@attrs.frozen
class Structure:
    """A directory, understood as far as that goes."""

    boot_id: str
    """The present boot of this machine."""
    state: ReplicaState | None = None
    known: KnownChain | None = None
    layers: tuple[LayerFiles, ...] = ()
    """The head last."""
    findings: tuple[Finding, ...] = ()

    @property
    def written_boot_id(self) -> str:
        """Of the state."""
        return "" if self.state is None else self.state.written_boot_id


def understand(listing: Listing, *, boot_id: str) -> Structure:
    """What the directory is.

    Raises ConfigError: it is none of pyjiva's, or a newer version has written it.
    """
    state, findings = _find_state(listing)
    if state is None:
        return Structure(boot_id, findings=tuple(findings))
    if FLUSH_FAILED_FILE in listing:  # the disk did not even take the state that says so
        state = attrs.evolve(state, written_boot_id=FLUSH_FAILED)
    findings += _about_state(state, boot_id)
    known, about_chain = find_chain(listing, state.size_bytes)
    findings += about_chain
    if known is None:
        return Structure(boot_id, state, findings=(*findings, *_others(listing, None)))
    layers = []
    for name in (*(layer.name for layer in known.chain.layers), HEAD):
        files, found = _files_of(listing, known, name, state)
        layers.append(files)
        findings += found
    findings += _about_chain(listing, known, state)
    findings += _others(listing, known)
    return Structure(boot_id, state, known, tuple(layers), tuple(findings))


# --- the state


def _find_state(listing: Listing) -> tuple[ReplicaState | None, list[Finding]]:
    if STATE_FILE not in listing:
        return None, [_without_state(listing)]
    content = listing[STATE_FILE].content
    if content is None:
        return None, [Finding(finding.STATE_DAMAGED, STATE_FILE, listing[STATE_FILE].error)]
    refuse_newer(STATE_FILE, content, FORMAT_VERSION)
    try:
        return decode_state(content), []
    except ConfigError as error:
        return None, [Finding(finding.STATE_DAMAGED, STATE_FILE, _inner(str(error)))]


def _without_state(listing: Listing) -> Finding:
    names = [name for name in listing.files if name not in _IGNORED]
    remains = {*_CREATED, *(name + TEMPORARY_SUFFIX for name in _CREATED)}
    if names and set(names) <= (remains if MARKER in names else {MARKER + TEMPORARY_SUFFIX}):
        return Finding(finding.CREATION_CUT, MARKER, "")
    if VOLUME_DESCRIPTION in names:
        raise ConfigError("is a volume's directory: give that of one of its replicas, replica-1 and so on")
    ours = (STATE_FILE, CHAIN_FILE, UNDO_FILE, KEPT_PREFIX, MARKER)
    if not any(name.startswith(ours) or name.endswith((SUMS_SUFFIX, MAP_SUFFIX)) for name in names):
        what = f"holds other files ({_some(names)})" if names else "is empty"
        raise ConfigError(f"is not a pyjiva replica: {what}")
    return Finding(finding.STATE_MISSING, STATE_FILE, "")


def _about_state(state: ReplicaState, boot_id: str) -> list[Finding]:
    found = []
    written = state.written_boot_id
    if written == FLUSH_FAILED:
        found.append(Finding(finding.FLUSH_HAS_FAILED, "", ""))
    elif written == REPAIRED:
        found.append(Finding(finding.WAS_REPAIRED, "", ""))
    elif written == boot_id:
        found.append(Finding(finding.UNCLEAN, "", ""))
    elif written:
        found.append(Finding(finding.REBOOTED, "", f"it was written to in boot {written}"))
    record = state.record
    if record is not None:
        if state.replica_id not in record.configured:
            found.append(Finding(finding.NOT_CONFIGURED, "", ""))
        elif state.replica_id not in (*record.in_sync, *record.witnesses):
            found.append(Finding(finding.OUT, "", ""))
        elif not state.told_equal and not state.witness:
            found.append(Finding(finding.NOT_EQUAL_YET, "", ""))
    return found


# --- the layers


def _files_of(
    listing: Listing, known: KnownChain, name: str, state: ReplicaState
) -> tuple[LayerFiles, list[Finding]]:
    """The files of the layer `name`, and what is wrong with them by their sizes."""
    chain = known.chain
    waiting = {new: old for old, new in chain.renames if old in listing}
    data, sums, held = (waiting.get(file, file) for file in _wanted(chain, name))
    blocks = -(-state.size_bytes // BLOCK_BYTES)
    found = _check_size(listing, known, data, state.size_bytes, finding.DATA_MISSING, finding.DATA_SHORT)
    has_data = data in listing and listing[data].allocated_bytes > 0
    lost = finding.SUMS_LOST if has_data else finding.SUMS_NOT_MADE
    if sums in listing and listing[sums].error:
        found.append(Finding(finding.SUMS_LOST, sums, listing[sums].error))
    else:
        found += _check_size(listing, known, sums, blocks * SUM_BYTES, lost, lost)
    has_map = bool(chain.parent_of(name))
    if has_map:
        found += _check_size(listing, known, held, blocks, finding.MAP_LOST, finding.MAP_LOST)
    return LayerFiles(
        name,
        data=_readable(listing, data),
        sums=_readable(listing, sums),
        held=_readable(listing, held) if has_map else "",
        has_map=has_map,
    ), found


def _wanted(chain: Chain, name: str) -> Iterable[str]:
    return (chain.file_of(name) + suffix for suffix in DATA_SUFFIXES)


def _readable(listing: Listing, file: str) -> str:
    return file if file in listing and not listing[file].error else ""


def _check_size(
    listing: Listing, known: KnownChain, file: str, wanted_bytes: int, missing: Kind, short: Kind
) -> list[Finding]:
    if file not in listing:
        return [Finding(missing, file, "it is not there")]
    facts = listing[file]
    if facts.error:
        return [Finding(finding.FILE_UNREADABLE, file, facts.error)]
    sizes = f"{facts.size_bytes} bytes instead of {wanted_bytes}"
    if facts.size_bytes < wanted_bytes:
        return [Finding(short, file, sizes)]
    if facts.size_bytes > wanted_bytes:
        grown = known.source is ChainSource.CHAIN_FILE
        return [Finding(finding.GROWN if grown else finding.TOO_LONG, file, sizes)]
    return []


# --- the chain and what tells of it


def _about_chain(listing: Listing, known: KnownChain, state: ReplicaState) -> list[Finding]:
    chain = known.chain
    found = []
    waiting = [f"{old} to {new}" for old, new in chain.renames if old in listing]
    if waiting:
        found.append(Finding(finding.RENAMES_LEFT, CHAIN_FILE, ", ".join(waiting)))
    if chain.growing_to not in (0, state.size_bytes):
        found.append(Finding(finding.GROWING, CHAIN_FILE, f"to {chain.growing_to} bytes"))
    if known.source is ChainSource.CHAIN_FILE:
        metas = [name for name in listing.files if name.endswith(META_SUFFIX)]
        found += [
            Finding(finding.META_UNREADABLE, name, listing[name].error)
            for name in metas
            if listing[name].content is None
        ]
        wanted = chain.metas(state.size_bytes)
        differ = [
            name
            for name in wanted
            if name not in listing or listing[name].content not in (None, wanted[name])
        ]
        if differ:
            found.append(Finding(finding.METAS_DIFFER, _some(differ), ""))
    return found


# --- everything else


def _others(listing: Listing, known: KnownChain | None) -> list[Finding]:
    """What lies there beside the layers."""
    found = []
    if UNDO_FILE in listing and listing[UNDO_FILE].error:
        found.append(Finding(finding.UNDO_UNREADABLE, UNDO_FILE, listing[UNDO_FILE].error))
    elif listing.undo is not None:
        found.append(Finding(finding.UNDO_PENDING, UNDO_FILE, str(listing.undo)))
    kept = [name for name in listing.files if name.startswith(KEPT_PREFIX)]
    rest = [name for name in listing.files if name not in {*_SINGLES, *_IGNORED, *kept}]
    if known is None:  # nobody can say which of them are used
        rest = [name for name in rest if not name.startswith((*LAYER_PREFIXES, VOLUME_META))]
    else:
        rest = [name for name in rest if name not in _used(known.chain)]
    left_over = [name for name in rest if _is_left_over(name, known)]
    foreign = [name for name in rest if name not in left_over]
    for kind, names in ((finding.LEFT_OVER, left_over), (finding.KEPT, kept), (finding.FOREIGN, foreign)):
        if names:
            takes = format_size(sum(listing[name].allocated_bytes for name in names))
            found.append(Finding(kind, _some(names), f"{len(names)} files, {takes}"))
    return found


def _used(chain: Chain) -> set[str]:
    return {*chain.files(), *(old for old, _ in chain.renames)}


def _is_left_over(name: str, known: KnownChain | None) -> bool:
    """Whether opening the directory removes it, or writes over it when that is needed."""
    if name in (STATE_FILE + TEMPORARY_SUFFIX, CHAIN_FILE + TEMPORARY_SUFFIX, MARKER):
        return True
    if known is None:
        return False
    if known.source is ChainSource.CHAIN_FILE:
        return name.startswith(LAYER_PREFIXES) or name == VOLUME_META + TEMPORARY_SUFFIX
    head = attrs.evolve(known.chain, head_number=known.chain.head_number + 1).head_file
    temporary = {each + TEMPORARY_SUFFIX for each in known.chain.metas(1)}
    return name in temporary or name in {head + suffix for suffix in DATA_SUFFIXES}


def _some(names: Iterable[str]) -> str:
    """The names, or the first of them."""
    listed = [name.encode(errors="backslashreplace").decode() for name in sorted(names)]
    rest = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(listed[:_NAMES_SHOWN]) + rest


def _inner(message: str) -> str:
    """What stands in brackets in `message`."""
    return message.partition("(")[2].rpartition(")")[0] or message
