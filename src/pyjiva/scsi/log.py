"""LOG SENSE (SPC-4 §6.8, §7.3): the lists of pages, and how much room is left (SBC-3 §6.4).  Pure.

The pages with counters are left out.  The logical block provisioning page (0Ch) is there if somebody knows
what it asks for; while the figures are not known yet, it has no parameters.
"""

import struct
from collections.abc import Callable
from typing import Final

from pyjiva.scsi.sense import invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.threshold import sets_of
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["log_sense"]

Parameters = list[tuple[int, bytes]]
"""(parameter code, parameter with its header), in ascending order."""

_SUPPORTED: Final = (0x00, 0x00)  # page, subpage: supported log pages
_SUPPORTED_SUBPAGES: Final = (0x00, 0xFF)
_PROVISIONING: Final = (0x0C, 0x00)
_SUBPAGE_FORMAT: Final = 0x40
_DISABLE_SAVE: Final = 0x80
_PARAMETER_POINTER_BYTE: Final = 5

_RESOURCE_COUNT: Final = struct.Struct(">HBBIB3x")  # SBC-3: code, control, length 8, count, scope
_BINARY_LIST: Final = 0x23  # parameter control: not saved by itself (TSD), binary format list
_AVAILABLE: Final = 0x0001
_USED: Final = 0x0002
_DEDICATED: Final = 0b01  # what this unit uses nobody else does
_NOT_DEDICATED: Final = 0b10  # what is available others may take


def log_sense(unit: LogicalUnit, task: Task) -> None:
    """LOG SENSE: cumulative values, threshold values and defaults of a list of pages, and of a list of
    parameters, are all the same.
    """
    page, subpage, pointer, allocation = struct.unpack_from(">BBxHH", task.cdb, 2)
    asked = (page & 0x3F, subpage)
    if asked in (_SUPPORTED, _SUPPORTED_SUBPAGES):
        if pointer:  # they have no parameters
            task.fail(invalid_field_in_cdb(_PARAMETER_POINTER_BYTE))
        else:
            task.give(_list_of_pages(unit, with_subpages=asked == _SUPPORTED_SUBPAGES), allocation)
        return
    parameters_of = _pages(unit).get(asked)
    if parameters_of is None:
        task.fail(invalid_field_in_cdb(3 if page & 0x3F in {code for code, _ in _all(unit)} else 2))
        return
    parameters = parameters_of(unit)
    if pointer and not any(code >= pointer for code, _ in parameters):
        task.fail(invalid_field_in_cdb(_PARAMETER_POINTER_BYTE))
        return
    data = b"".join(parameter for code, parameter in parameters if code >= pointer)
    task.give(struct.pack(">BBH", _DISABLE_SAVE | asked[0], asked[1], len(data)) + data, allocation)


def _pages(unit: LogicalUnit) -> dict[tuple[int, int], Callable[[LogicalUnit], Parameters]]:
    return {_PROVISIONING: _provisioning} if unit.space_source is not None else {}


def _all(unit: LogicalUnit) -> list[tuple[int, int]]:
    return sorted([_SUPPORTED, _SUPPORTED_SUBPAGES, *_pages(unit)])


def _list_of_pages(unit: LogicalUnit, *, with_subpages: bool) -> bytes:
    """SPC-4 §7.3.20, §7.3.21."""
    if with_subpages:
        data = b"".join(map(bytes, _all(unit)))
        return struct.pack(">BBH", _SUBPAGE_FORMAT, 0xFF, len(data)) + data
    data = bytes(code for code, subpage in _all(unit) if not subpage)
    return struct.pack(">BBH", 0x00, 0x00, len(data)) + data


def _provisioning(unit: LogicalUnit) -> Parameters:
    """Available and used LBA mapping resource count, in threshold sets."""
    assert unit.space_source is not None
    space = unit.space_source.space
    if space is None:
        return []
    set_bytes = unit.threshold_set_bytes
    return [
        (code, _RESOURCE_COUNT.pack(code, _BINARY_LIST, 8, sets_of(size, set_bytes), scope))
        for code, size, scope in (
            (_AVAILABLE, space.available_bytes, _NOT_DEDICATED),
            (_USED, space.used_bytes, _DEDICATED),
        )
    ]
