"""The small commands: what the unit is, how it is, and what it can be asked (SPC-4 clause 6, SBC-3 clause
5). Pure.
"""

import struct
from collections.abc import Sequence
from typing import Final

from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.sanitize import progress
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import PHYSICAL_BLOCK_BYTES, RELATIVE_TARGET_PORT, TARGET_PORT_GROUP, LogicalUnit

__all__ = [
    "prevent_allow_medium_removal",
    "read_capacity_10",
    "read_capacity_16",
    "report_lun_list",
    "report_luns",
    "report_supported_task_management_functions",
    "report_target_port_groups",
    "request_sense",
    "send_diagnostic",
    "start_stop_unit",
    "unit_is_ready",
]

_DESCRIPTOR_FORMAT: Final = 0x01
_EXTENDED_HEADER: Final = 1
_NO_SENSE: Final = Sense(SenseKey.NO_SENSE, AdditionalSense.NO_ADDITIONAL_SENSE_INFORMATION)
_PROVISIONING_ENABLED: Final = 0x80
_READS_ZEROS: Final = 0x40
_REPORT_LUNS_ALLOCATION_MIN: Final = 16  # SPC-4 §6.35
_WELL_KNOWN_ONLY: Final = 1
_ALL_LUNS: Final = 2


def unit_is_ready(_unit: LogicalUnit, task: Task) -> None:
    """TEST UNIT READY: a device that cannot answer says so when it is asked for data."""
    task.finish()


def request_sense(unit: LogicalUnit, task: Task) -> None:
    """REQUEST SENSE: a pending unit attention is reported and cleared (SPC-4 §6.39), or a progress."""
    sense = unit.take_attention(task.nexus) or progress(unit) or _NO_SENSE
    task.give(sense.encode(descriptors=bool(task.cdb[1] & _DESCRIPTOR_FORMAT)), task.cdb[4])


def report_luns(unit: LogicalUnit, task: Task) -> None:
    """REPORT LUNS addressed to a LUN that exists."""
    report_lun_list(unit.luns, task)


def report_lun_list(luns: Sequence[bytes], task: Task) -> None:
    """REPORT LUNS, to whatever LUN it was addressed."""
    select, allocation = task.cdb[2], int.from_bytes(task.cdb[6:10], "big")
    if select > _ALL_LUNS:
        task.fail(invalid_field_in_cdb(2))
    elif allocation < _REPORT_LUNS_ALLOCATION_MIN:
        task.fail(invalid_field_in_cdb(6))
    else:
        listed = b"" if select == _WELL_KNOWN_ONLY else b"".join(luns)
        task.give(struct.pack(">I4x", len(listed)) + listed, allocation)


def read_capacity_10(unit: LogicalUnit, task: Task) -> None:
    """READ CAPACITY(10): FFFFFFFFh if the last address does not fit."""
    if any(task.cdb[2:6]):  # an address means something only with PMI, which is obsolete
        task.fail(invalid_field_in_cdb(2))
        return
    task.give(struct.pack(">II", min(unit.blocks - 1, 0xFFFF_FFFF), unit.block_size_bytes), 8)


def read_capacity_16(unit: LogicalUnit, task: Task) -> None:
    """READ CAPACITY(16) (SBC-3 table 68)."""
    allocation = int.from_bytes(task.cdb[10:14], "big")
    exponent = (PHYSICAL_BLOCK_BYTES // unit.block_size_bytes).bit_length() - 1
    data = struct.pack(
        ">QIBBB17s",
        unit.blocks - 1,
        unit.block_size_bytes,
        0,  # no protection information
        exponent,
        _PROVISIONING_ENABLED | _READS_ZEROS,
        b"",
    )
    task.give(data, allocation)


def start_stop_unit(_unit: LogicalUnit, task: Task) -> None:
    """START STOP UNIT: the unit is always started, its medium cannot be ejected, it has no power
    conditions.
    """
    power, action = task.cdb[4] >> 4, task.cdb[4] & 0x03
    start, load_eject = action & 1, action & 2
    if power:
        task.fail(invalid_field_in_cdb(4, bit=7))
    elif load_eject:
        task.fail(invalid_field_in_cdb(4, bit=1))
    elif not start:
        task.fail(invalid_field_in_cdb(4, bit=0))
    else:
        task.finish()


def prevent_allow_medium_removal(_unit: LogicalUnit, task: Task) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL: nobody can remove the medium, so preventing it is already done."""
    task.finish()


def report_target_port_groups(_unit: LogicalUnit, task: Task) -> None:
    """REPORT TARGET PORT GROUPS (SPC-4 §6.37): one group with one port, always active/optimized."""
    layout, allocation = task.cdb[1] >> 5, int.from_bytes(task.cdb[6:10], "big")
    if layout > _EXTENDED_HEADER:
        task.fail(invalid_field_in_cdb(1, bit=7))
        return
    active_optimized, supports_only_that = 0x0, 0x01
    data = struct.pack(">BBH3xB", active_optimized, supports_only_that, TARGET_PORT_GROUP, 1)
    data += struct.pack(">2xH", RELATIVE_TARGET_PORT)
    if layout == _EXTENDED_HEADER:
        no_transition_takes_time = 0
        data = struct.pack(">BB2x", _EXTENDED_HEADER << 4, no_transition_takes_time) + data
    task.give(struct.pack(">I", len(data)) + data, allocation)


def send_diagnostic(_unit: LogicalUnit, task: Task) -> None:
    """SEND DIAGNOSTIC: the default self-test (SPC-4 §5.6.2); what answers is well."""
    task.finish()


def report_supported_task_management_functions(_unit: LogicalUnit, task: Task) -> None:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 table 306); see iscsi.task_management."""
    allocation = int.from_bytes(task.cdb[6:10], "big")
    if allocation < 4:
        task.fail(invalid_field_in_cdb(6))
        return
    abort_task, abort_task_set, clear_task_set, reset_unit = 0x80, 0x40, 0x10, 0x08
    warm_reset_target = 0x02
    functions = abort_task | abort_task_set | clear_task_set | reset_unit | warm_reset_target
    task.give(bytes([functions, 0, 0, 0]), allocation)
