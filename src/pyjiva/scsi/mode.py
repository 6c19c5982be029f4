"""MODE SENSE and MODE SELECT, 6 and 10 (SPC-4 §6.11-6.14, §7.5; SBC-3 §6.4).  Pure.

What can be changed are D_SENSE and SWP of the control mode page, LBPERE of the read-write error recovery
page and the threshold of the logical block provisioning page (`threshold`), for all initiators together;
they can be saved.  Everything else is what the unit is: a MODE SELECT that would change it is refused.  So is
clearing WCE: FUA and SYNCHRONIZE CACHE do what an initiator without a write cache wants, where it wants it.
The disconnect-reconnect page (02h) is not there, since over iSCSI its limits are negotiated by text keys.
"""

import enum
import struct
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.errors import StorageError
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.saved import ModeParameters
from pyjiva.scsi.sense import (
    PARAMETER_LIST_LENGTH_ERROR,
    Sense,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
    sense_of,
)
from pyjiva.scsi.task import Task
from pyjiva.scsi.threshold import COUNT_MAX, DESCRIPTOR_OFFSET
from pyjiva.scsi.unit import LogicalUnit

__all__ = [
    "mode_select_6",
    "mode_select_10",
    "mode_sense_6",
    "mode_sense_10",
    "parameter_list_6_bytes",
    "parameter_list_10_bytes",
    "parse_mode_select",
]

_DISABLE_BLOCK_DESCRIPTORS: Final = 0x08
_LONG_LBA_ACCEPTED: Final = 0x10
_LONG_LBA: Final = 0x01
_WRITE_PROTECTED: Final = 0x80  # device-specific parameter (SBC-3 table 171)
_DPO_AND_FUA_SUPPORTED: Final = 0x10
_ALL_PAGES: Final = 0x3F
_ALL_SUBPAGES: Final = 0xFF
_PAGE_FORMAT: Final = 0x10
_SAVE_PAGES: Final = 0x01
_PARAMETERS_SAVEABLE: Final = 0x80
_SUBPAGE_FORMAT: Final = 0x40
_SHORT_DESCRIPTOR: Final = struct.Struct(">II")  # SBC-3 table 173
_LONG_DESCRIPTOR: Final = struct.Struct(">Q4xI")  # SBC-3 table 174
_EVERY_BLOCK: Final = 0xFFFF_FFFF
_EVERY_BLOCK_LONG: Final = 0xFFFF_FFFF_FFFF_FFFF


class PageControl(enum.IntEnum):
    """Which values of a page are asked for (SPC-4 table 197)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


CHANGED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.MODE_PARAMETERS_CHANGED)

_DESCRIPTOR_SENSE: Final = 0x04  # byte 2 of the control mode page
_SOFTWARE_WRITE_PROTECT: Final = 0x08  # byte 4
_UNRESTRICTED_REORDERING: Final = 0x10
_WRITE_CACHE_ENABLED: Final = 0x04
_REPORT_THRESHOLDS: Final = 0x80  # LBPERE, byte 7 of the read-write error recovery mode page
_ENABLED: Final = 0x80
_THRESHOLD: Final = struct.Struct(">BB2xI")  # SBC-3 §6.5: a threshold descriptor
_SOFT_AND_DECREASING: Final = 0x00
_AVAILABLE: Final = 0x01  # parameter code of log page 0Ch
_BEFORE_DESCRIPTORS: Final = bytes(DESCRIPTOR_OFFSET - 4)  # SITUA 0: every initiator is told


@attrs.frozen
class _Page:
    """A mode page without its header."""

    code: int
    subpage: int
    values: Callable[[LogicalUnit, ModeParameters], bytes]
    """What it says under certain parameters."""
    changeable: bytes | None = None
    """A 1 for each bit that can be changed; None: nothing can be."""
    change: Callable[[LogicalUnit, ModeParameters, bytes], ModeParameters] = lambda _unit, mode, _values: mode
    """The parameters when these values have been selected."""
    needs_space: bool = False
    """Only there if somebody knows how much room is left."""

    def header(self, length: int, *, saveable: bool) -> bytes:
        first = self.code | (_PARAMETERS_SAVEABLE if saveable else 0)
        if self.subpage:
            return struct.pack(">BBH", first | _SUBPAGE_FORMAT, self.subpage, length)
        return bytes([first, length])


def _control_values(_unit: LogicalUnit, mode: ModeParameters) -> bytes:
    """SPC-4 table 455: one task set for all initiators, TAS 0, QERR 00b."""
    return bytes(
        [
            _DESCRIPTOR_SENSE if mode.descriptor_sense else 0,
            _UNRESTRICTED_REORDERING,
            _SOFTWARE_WRITE_PROTECT if mode.write_protected else 0,
            *bytes(7),
        ]
    )


def _change_control(_unit: LogicalUnit, mode: ModeParameters, values: bytes) -> ModeParameters:
    return attrs.evolve(
        mode,
        descriptor_sense=bool(values[0] & _DESCRIPTOR_SENSE),
        write_protected=bool(values[2] & _SOFTWARE_WRITE_PROTECT),
    )


def _recovery_values(_unit: LogicalUnit, mode: ModeParameters) -> bytes:
    """SBC-3 table 183: nothing is reassigned, nothing retried."""
    return bytes(5) + bytes([_REPORT_THRESHOLDS if mode.report_thresholds else 0]) + bytes(4)


def _change_recovery(_unit: LogicalUnit, mode: ModeParameters, values: bytes) -> ModeParameters:
    return attrs.evolve(mode, report_thresholds=bool(values[5] & _REPORT_THRESHOLDS))


def _provisioning_values(unit: LogicalUnit, mode: ModeParameters) -> bytes:
    enabled = _ENABLED if mode.threshold_enabled else 0
    count = unit.threshold_count(mode)
    return _BEFORE_DESCRIPTORS + _THRESHOLD.pack(enabled | _SOFT_AND_DECREASING, _AVAILABLE, count)


def _change_provisioning(unit: LogicalUnit, mode: ModeParameters, values: bytes) -> ModeParameters:
    flags, _, count = _THRESHOLD.unpack_from(values, len(_BEFORE_DESCRIPTORS))
    same = count == unit.threshold_count(mode)  # then a default stays one, also when the unit grows
    return attrs.evolve(
        mode,
        threshold_enabled=bool(flags & _ENABLED),
        threshold_count=mode.threshold_count if same else count,
    )


_RECOVERY: Final = 0x01
_ALL_PAGES_OF_OURS: Final = (
    _Page(_RECOVERY, 0, lambda _unit, _mode: bytes(10)),
    _Page(_RECOVERY, 0, _recovery_values, bytes(5) + bytes([_REPORT_THRESHOLDS]) + bytes(4), _change_recovery,
          needs_space=True),
    _Page(0x08, 0, lambda _unit, _mode: bytes([_WRITE_CACHE_ENABLED]) + bytes(17)),  # SBC-3 table 175
    _Page(0x0A, 0, _control_values, bytes([_DESCRIPTOR_SENSE, 0, _SOFTWARE_WRITE_PROTECT, *bytes(7)]),
          _change_control),
    _Page(0x1C, 0, lambda _unit, _mode: bytes(10)),  # SPC-4 table 405: no reporting
    _Page(0x1C, 0x02, _provisioning_values, _BEFORE_DESCRIPTORS + _THRESHOLD.pack(_ENABLED, 0, COUNT_MAX),
          _change_provisioning, needs_space=True),
)  # fmt: skip
_WITHOUT_SPACE: Final = {(p.code, p.subpage): p for p in _ALL_PAGES_OF_OURS if not p.needs_space}
_WITH_SPACE: Final = _WITHOUT_SPACE | {(p.code, p.subpage): p for p in _ALL_PAGES_OF_OURS if p.needs_space}


def _pages_of(unit: LogicalUnit) -> dict[tuple[int, int], _Page]:
    return _WITHOUT_SPACE if unit.space_source is None else _WITH_SPACE


# MODE SENSE


def mode_sense_6(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(6): four bytes of header."""
    flags, page, subpage, allocation = struct.unpack_from(">BBBB", task.cdb, 1)
    pages = _pages(unit, task, page, subpage)
    if pages is None:
        return
    descriptor = b"" if flags & _DISABLE_BLOCK_DESCRIPTORS else _short_descriptor(unit)
    length = 3 + len(descriptor) + len(pages)
    header = struct.pack(">BBBB", length, 0, _device_specific(unit), len(descriptor))
    task.give(header + descriptor + pages, allocation)


def mode_sense_10(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(10): eight bytes of header, block descriptor with long addresses if LLBAA."""
    flags, page, subpage, allocation = struct.unpack_from(">BBB3xH", task.cdb, 1)
    pages = _pages(unit, task, page, subpage)
    if pages is None:
        return
    long_lba = 0
    if flags & _DISABLE_BLOCK_DESCRIPTORS:
        descriptor = b""
    elif flags & _LONG_LBA_ACCEPTED:
        long_lba = _LONG_LBA
        descriptor = _LONG_DESCRIPTOR.pack(unit.blocks, unit.block_size_bytes)
    else:
        descriptor = _short_descriptor(unit)
    length = 6 + len(descriptor) + len(pages)
    header = struct.pack(">HBBBBH", length, 0, _device_specific(unit), long_lba, 0, len(descriptor))
    task.give(header + descriptor + pages, allocation)


def _device_specific(unit: LogicalUnit) -> int:
    return _DPO_AND_FUA_SUPPORTED | (_WRITE_PROTECTED if unit.write_protected else 0)


def _short_descriptor(unit: LogicalUnit) -> bytes:
    return _SHORT_DESCRIPTOR.pack(min(unit.blocks, _EVERY_BLOCK), unit.block_size_bytes)


def _pages(unit: LogicalUnit, task: Task, page: int, subpage: int) -> bytes | None:
    """The pages asked for (SPC-4 table 196); None when the task was failed."""
    control, code, there = PageControl(page >> 6), page & 0x3F, _pages_of(unit)
    wanted = [
        each
        for key, each in sorted(there.items())
        if code in (_ALL_PAGES, key[0]) and subpage in (_ALL_SUBPAGES, key[1])
    ]
    if not wanted or (code == _ALL_PAGES and subpage not in (0, _ALL_SUBPAGES)):
        known = code == _ALL_PAGES or any(code == key[0] for key in there)
        task.fail(invalid_field_in_cdb(3) if known else invalid_field_in_cdb(2, bit=5))
        return None
    return b"".join(_page(unit, each, control) for each in wanted)


def _page(unit: LogicalUnit, page: _Page, control: PageControl) -> bytes:
    """One page with its header; what cannot be changed is its own default and saved value."""
    match control:
        case PageControl.CURRENT:
            values = page.values(unit, unit.mode)
        case PageControl.CHANGEABLE:
            values = page.changeable or bytes(len(page.values(unit, unit.mode)))
        case PageControl.DEFAULT:
            values = page.values(unit, ModeParameters())
        case PageControl.SAVED:
            values = page.values(unit, unit.saved.mode)
    return page.header(len(values), saveable=page.changeable is not None) + values


# MODE SELECT


def parameter_list_6_bytes(_unit: LogicalUnit, cdb: bytes) -> int:
    """The parameter list length of a MODE SELECT(6)."""
    return cdb[4]


def parameter_list_10_bytes(_unit: LogicalUnit, cdb: bytes) -> int:
    """The parameter list length of a MODE SELECT(10)."""
    return int.from_bytes(cdb[7:9], "big")


def mode_select_6(unit: LogicalUnit, task: Task) -> None:
    """MODE SELECT(6)."""
    _mode_select(unit, task, task.cdb[4], long_header=False)


def mode_select_10(unit: LogicalUnit, task: Task) -> None:
    """MODE SELECT(10)."""
    _mode_select(unit, task, int.from_bytes(task.cdb[7:9], "big"), long_header=True)


def _mode_select(unit: LogicalUnit, task: Task, length: int, *, long_header: bool) -> None:
    """All is checked before anything is changed or saved; then, in its turn, saved before it is answered."""
    flags = task.cdb[1]
    data = b"".join(task.data_out)[:length]
    if length and not flags & _PAGE_FORMAT:  # vendor specific parameters, of which there are none
        task.fail(invalid_field_in_cdb(1, bit=4))
    elif len(data) < length:
        task.fail(PARAMETER_LIST_LENGTH_ERROR)
    else:
        unit.turns.take(lambda: _select(unit, task, data, long_header, bool(flags & _SAVE_PAGES)))


def _select(unit: LogicalUnit, task: Task, data: bytes, long_header: bool, save_pages: bool) -> None:
    def end(answer: Callable[[], None]) -> None:
        answer()
        unit.turns.leave()

    def saved(error: StorageError | None) -> None:
        if error is not None:
            end(lambda: task.fail(sense_of(error)))
            return
        if unit.mode != mode:
            unit.set_mode(mode)
            unit.establish_attention(CHANGED, except_for=task.nexus)
        end(task.finish)

    mode = unit.mode
    if task.aborted:
        end(task.finish)
        return
    if data:
        parsed = parse_mode_select(unit, data, long_header=long_header)
        if isinstance(parsed, Sense):
            end(lambda: task.fail(parsed))
            return
        mode = parsed
    if save_pages:
        unit.save(attrs.evolve(unit.saved, mode=mode), saved)
    else:
        saved(None)


def parse_mode_select(unit: LogicalUnit, data: bytes, *, long_header: bool) -> ModeParameters | Sense:
    """The mode parameters that a parameter list asks for; or why the command fails (SPC-4 §6.11, §7.5.4)."""
    header_bytes = 8 if long_header else 4
    if len(data) < header_bytes:
        return PARAMETER_LIST_LENGTH_ERROR
    if long_header:
        medium_type, flags, descriptor_bytes = struct.unpack_from(">2xBxBxH", data)
        descriptor_struct = _LONG_DESCRIPTOR if flags & _LONG_LBA else _SHORT_DESCRIPTOR
    else:
        medium_type, descriptor_bytes = struct.unpack_from(">xBxB", data)
        descriptor_struct = _SHORT_DESCRIPTOR
    if medium_type:
        return invalid_field_in_parameter_list(2 if long_header else 1)
    if descriptor_bytes not in (0, descriptor_struct.size):
        return invalid_field_in_parameter_list(header_bytes - (2 if long_header else 1))
    position = header_bytes + descriptor_bytes
    if len(data) < position:
        return PARAMETER_LIST_LENGTH_ERROR
    if descriptor_bytes:
        blocks, block_size = descriptor_struct.unpack_from(data, header_bytes)
        # SBC-3 §6.4.2.2: none and all mean "as it is".
        if blocks not in (0, _EVERY_BLOCK, _EVERY_BLOCK_LONG, unit.blocks):
            return invalid_field_in_parameter_list(header_bytes)
        if block_size != unit.block_size_bytes:
            return invalid_field_in_parameter_list(position - 4)
    return _parse_pages(unit, data, position)


def _parse_pages(unit: LogicalUnit, data: bytes, position: int) -> ModeParameters | Sense:
    mode, there = unit.mode, _pages_of(unit)
    while position < len(data):
        code = data[position] & ~_PARAMETERS_SAVEABLE
        long_header = bool(code & _SUBPAGE_FORMAT)
        header_bytes = 4 if long_header else 2
        if len(data) - position < header_bytes:
            return PARAMETER_LIST_LENGTH_ERROR
        code &= ~_SUBPAGE_FORMAT
        subpage = data[position + 1] if long_header else 0
        page = there.get((code, subpage))
        if page is None or (long_header and not subpage):
            known = long_header and any(code == key[0] for key in there)
            return invalid_field_in_parameter_list(position + known, bit=None if known else 5)
        present = page.values(unit, mode)
        length = int.from_bytes(data[position + header_bytes // 2 : position + header_bytes], "big")
        if length != len(present):
            return invalid_field_in_parameter_list(position + header_bytes // 2)
        position += header_bytes
        values = data[position : position + length]
        if len(values) < length:
            return PARAMETER_LIST_LENGTH_ERROR
        changeable = page.changeable or bytes(length)
        for index, (new, old, mask) in enumerate(zip(values, present, changeable, strict=True)):
            wrong = (new ^ old) & ~mask
            if wrong:
                return invalid_field_in_parameter_list(position + index, bit=wrong.bit_length() - 1)
        mode = page.change(unit, mode, values)
        position += length
    return mode
