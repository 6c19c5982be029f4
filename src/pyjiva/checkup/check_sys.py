"""Looking at a whole replica directory, in a way that changes nothing in it.  Blocking calls only."""

import contextlib
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.checkup.facts import UNDO_FILE, DataFacts, FileFacts, Listing, MapFacts, is_small
from pyjiva.checkup.finding import FILE_UNREADABLE, Finding, Severity
from pyjiva.checkup.layer_scan import LayerScan, findings_of_data, findings_of_map, scan_of
from pyjiva.checkup.report import LayerReport, Report
from pyjiva.checkup.scan_sys import Progress, scan_data, scan_map, size_of_scan
from pyjiva.checkup.structure import LayerFiles, Structure, understand
from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot.under_way_sys import under_way
from pyjiva.snapshot.undo_log_sys import pending_undo
from pyjiva.sparse import SUM_BLOCK_BYTES, ReadableDirectory, ReadableFile, read_file

__all__ = ["check"]

_ORDER: Final = (Severity.DAMAGE, Severity.WARNING, Severity.NOTE)


def _no_progress(_total_bytes: int) -> Progress:
    return lambda _: None


def check(
    directory: ReadableDirectory,
    *,
    boot_id: str,
    quick: bool = False,
    begin: Callable[[int], Progress] = _no_progress,
) -> Report:
    """Look at the directory; `quick`: at all but the data.

    `begin` is called with the bytes of data that will be looked at, and gives what is told of each step.
    Raises ConfigError: it is no replica of this pyjiva.  Raises StorageError: its names cannot be read.
    """
    try:
        listing = _list(directory, boot_id)
        structure = understand(listing, boot_id=boot_id)
        if structure.state is not None:
            extents = under_way(directory, structure.state, boot_id)
            listing = attrs.evolve(listing, under_way=tuple(extents))
    except ConfigError as error:
        raise ConfigError(f"{directory.path}: {error}") from error
    findings = list(structure.findings)
    scans = [scan_of(structure, listing, files) for files in structure.layers if files.data]
    total_bytes = 0 if quick else sum(size_of_scan(directory, scan) for scan in scans)
    progress = begin(total_bytes)
    layers = []
    for files in structure.layers:
        held = _scan_map(directory, structure, files)
        if held is not None:
            findings += findings_of_map(files, held)
        data = None
        for scan in scans if not quick else ():
            if scan.files is files:
                data, found = _scan_data(directory, scan, progress)
                findings += found
        layers.append(LayerReport(files, _allocated(listing, files), held, data))
    findings.sort(key=lambda each: _ORDER.index(each.kind.severity))
    used_bytes = sum(each.allocated_bytes for each in listing.files.values())
    return Report(directory.path, listing, structure, tuple(layers), tuple(findings), used_bytes, quick)


def _allocated(listing: Listing, files: LayerFiles) -> int:
    return listing[files.data].allocated_bytes if files.data else 0


def _scan_map(directory: ReadableDirectory, structure: Structure, files: LayerFiles) -> MapFacts | None:
    assert structure.state is not None
    if not files.held:
        return None
    return scan_map(directory, files.held, -(-structure.state.size_bytes // SUM_BLOCK_BYTES))


def _scan_data(
    directory: ReadableDirectory, scan: LayerScan, progress: Progress
) -> tuple[DataFacts | None, list[Finding]]:
    try:
        data = scan_data(directory, scan, progress)
    except StorageError as error:
        return None, [Finding(FILE_UNREADABLE, scan.files.data, error.detail)]
    return data, findings_of_data(scan.files, data)


def _list(directory: ReadableDirectory, boot_id: str) -> Listing:
    files = {name: _facts(directory, name) for name in directory.names()}
    undo = None
    if UNDO_FILE in files and not files[UNDO_FILE].error:
        try:
            with contextlib.closing(directory.open(UNDO_FILE)) as file:
                undo = pending_undo(file, boot_id)
        except StorageError as error:
            files[UNDO_FILE] = FileFacts(error=error.detail)
    return Listing(files, undo)


def _facts(directory: ReadableDirectory, name: str) -> FileFacts:
    try:
        with contextlib.closing(directory.open(name)) as file:
            size_bytes, allocated_bytes = file.size_bytes(), _allocated_in(file)
        content = read_file(directory, name) if is_small(name) else None
    except StorageError as error:
        return FileFacts(error=error.detail)
    return FileFacts(size_bytes, allocated_bytes, content)


def _allocated_in(file: ReadableFile) -> int:
    size_bytes = file.size_bytes()
    return sum(part.length_bytes for part in file.allocated(Extent(0, size_bytes))) if size_bytes else 0
