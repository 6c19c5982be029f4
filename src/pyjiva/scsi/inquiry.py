"""INQUIRY: standard data and vital product data pages (SPC-4 §6.6, §7.8; SBC-3 §6.6).  Pure."""

import struct
from typing import Final

from pyjiva.block import ATOMIC_BYTES_MAX
from pyjiva.scsi.codes import PeripheralType
from pyjiva.scsi.sense import invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.third_party_copy import RECEIVE_COPY_RESULTS_ACTIONS, third_party_copy_page
from pyjiva.scsi.unit import (
    COMPARE_AND_WRITE_BLOCKS_MAX,
    PHYSICAL_BLOCK_BYTES,
    RELATIVE_TARGET_PORT,
    TARGET_PORT_GROUP,
    TRANSFER_BYTES_MAX,
    TRANSFER_BYTES_OPTIMAL,
    LogicalUnit,
)
from pyjiva.units import MIB

__all__ = [
    "UNMAP_BYTES_MAX",
    "UNMAP_DESCRIPTORS_MAX",
    "WRITE_SAME_BYTES_MAX",
    "inquiry",
    "standard_data",
    "unit_designators",
]

UNMAP_BYTES_MAX: Final = 512 * MIB  # in one command: a device that punches holes does that within seconds
UNMAP_DESCRIPTORS_MAX: Final = 256  # block descriptors of one UNMAP
WRITE_SAME_BYTES_MAX: Final = 16 * MIB  # a pattern has to be written in full: a second on a slow disk

_EVPD: Final = 0x01
_VERSION_SPC_4: Final = 0x06
_RESPONSE_DATA_FORMAT: Final = 0x02
_HIERARCHICAL_SUPPORT: Final = 0x10
_COMMAND_QUEUING: Final = 0x02
_IMPLICIT_ALUA: Final = 0x10  # TPGS 01b
_SUPPORTED_PAGES: Final = (0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2)
_THIRD_PARTY_COPY: Final = 0x08
_VERSION_DESCRIPTORS: Final = (
    0x0960,
    0x0460,
    0x04C0,
    0x00A0,
)  # iSCSI, SPC-4, SBC-3, SAM-5: no revision claimed

# Designators of VPD page 83h (SPC-4 §7.8.6)
_CODE_SET_BINARY: Final = 0x1
_CODE_SET_ASCII: Final = 0x2
_ASSOCIATION_UNIT: Final = 0x00
_ASSOCIATION_PORT: Final = 0x90  # PIV and association 01b: the protocol identifier below means something
_PROTOCOL_ISCSI: Final = 0x50
_T10_VENDOR_ID: Final = 0x1
_NAA: Final = 0x3
_RELATIVE_TARGET_PORT: Final = 0x4
_TARGET_PORT_GROUP: Final = 0x5
_SCSI_NAME_STRING: Final = 0x8
_CODE_SET_UTF8: Final = 0x3


def inquiry(unit: LogicalUnit, task: Task) -> None:
    """INQUIRY of a logical unit that exists."""
    evpd, page, allocation = struct.unpack_from(">BBH", task.cdb, 1)
    if not evpd & _EVPD:
        if page:
            task.fail(invalid_field_in_cdb(2))
        else:
            task.give(standard_data(PeripheralType.DIRECT_ACCESS, unit), allocation)
        return
    encode = _PAGES.get(page)
    if encode is None:
        task.fail(invalid_field_in_cdb(2))
        return
    body = encode(unit)
    task.give(struct.pack(">BBH", PeripheralType.DIRECT_ACCESS, page, len(body)) + body, allocation)


def standard_data(peripheral: PeripheralType, unit: LogicalUnit | None) -> bytes:
    """Standard INQUIRY data (SPC-4 table 139); without a unit: "no logical unit can be here"."""
    vendor = unit.identity.vendor if unit else ""
    product = unit.identity.product if unit else ""
    revision = unit.identity.revision if unit else ""
    data = struct.pack(
        ">BBBBBBBB8s16s4s20sH8H22s",
        peripheral,
        0,
        _VERSION_SPC_4,
        _HIERARCHICAL_SUPPORT | _RESPONSE_DATA_FORMAT,
        91,  # additional length: 96 bytes in all
        _THIRD_PARTY_COPY | _IMPLICIT_ALUA if unit else 0,
        0,
        _COMMAND_QUEUING,
        vendor.encode("ascii", "replace").ljust(8),
        product.encode("ascii", "replace").ljust(16),
        revision.encode("ascii", "replace").ljust(4),
        b"",
        0,
        *(_VERSION_DESCRIPTORS + (0,) * 8)[:8],
        b"",
    )
    assert len(data) == 96
    return data


def _supported_pages(_unit: LogicalUnit) -> bytes:
    return bytes(_SUPPORTED_PAGES)


def _unit_serial_number(unit: LogicalUnit) -> bytes:
    return unit.identity.serial_number.encode("ascii", "replace")


def unit_designators(unit: LogicalUnit) -> list[tuple[int, int, bytes]]:
    """(code set, association and type, designator) of every name of the unit, the best first."""
    identity = unit.identity
    vendor_specific = f"{identity.product} {identity.volume_id}".encode("ascii", "replace")
    vendor = identity.vendor.encode("ascii", "replace").ljust(8)
    return [
        (_CODE_SET_BINARY, _ASSOCIATION_UNIT | _NAA, identity.network_address_authority),
        (_CODE_SET_ASCII, _ASSOCIATION_UNIT | _T10_VENDOR_ID, vendor + vendor_specific),
    ]


def _device_identification(unit: LogicalUnit) -> bytes:
    return b"".join(
        (
            *(_designator(*designator) for designator in unit_designators(unit)),
            _designator(
                _PROTOCOL_ISCSI | _CODE_SET_BINARY,
                _ASSOCIATION_PORT | _RELATIVE_TARGET_PORT,
                struct.pack(">HH", 0, RELATIVE_TARGET_PORT),
            ),
            _designator(
                _PROTOCOL_ISCSI | _CODE_SET_BINARY,
                _ASSOCIATION_PORT | _TARGET_PORT_GROUP,
                struct.pack(">HH", 0, TARGET_PORT_GROUP),
            ),
            _target_port_name(unit),
        )
    )


def _target_port_name(unit: LogicalUnit) -> bytes:
    """RFC 7143 §4.4.2, SPC-4 §7.8.6.11: the target's name and its portal group; nothing if it has none."""
    if not unit.target_port_name:
        return b""
    name = unit.target_port_name.encode() + b"\0"
    name += bytes(-len(name) % 4)
    return _designator(_PROTOCOL_ISCSI | _CODE_SET_UTF8, _ASSOCIATION_PORT | _SCSI_NAME_STRING, name)


def _designator(code_set: int, kind: int, identifier: bytes) -> bytes:
    return struct.pack(">BBBB", code_set, kind, 0, len(identifier)) + identifier


def _extended_inquiry(_unit: LogicalUnit) -> bytes:
    """SPC-4 table 457: head of queue, ordered and simple tasks; a cache that may be volatile; unit attentions
    are cleared for the nexus that was told.
    """
    task_attributes, volatile_cache, clears_for_nexus = 0x07, 0x01, 0x01
    return bytes([0, task_attributes, volatile_cache, clears_for_nexus]) + bytes(56)


def _mode_page_policy(_unit: LogicalUnit) -> bytes:
    """SPC-4 table 491: every page is shared by all initiators."""
    every_page, every_subpage, shared = 0x3F, 0xFF, 0x00
    return bytes([every_page, every_subpage, shared, 0])


def _scsi_ports(unit: LogicalUnit) -> bytes:
    """SPC-4 table 520: one target port."""
    name = _target_port_name(unit)
    return struct.pack(">2xH2xH2xH", RELATIVE_TARGET_PORT, 0, len(name)) + name


def _third_party_copy(unit: LogicalUnit) -> bytes:
    return third_party_copy_page(RECEIVE_COPY_RESULTS_ACTIONS, unit.block_shift)


def _block_limits(unit: LogicalUnit) -> bytes:
    """SBC-4 §6.6.4.  WSNZ=0: WRITE SAME of 0 blocks means "to the end of the medium"."""
    size = unit.block_size_bytes
    granularity = PHYSICAL_BLOCK_BYTES // size
    return struct.pack(
        ">BBHIIIIIIIQIIIII",
        0,
        COMPARE_AND_WRITE_BLOCKS_MAX,
        granularity,
        TRANSFER_BYTES_MAX // size,
        TRANSFER_BYTES_OPTIMAL // size,
        0,  # PRE-FETCH
        UNMAP_BYTES_MAX // size,
        UNMAP_DESCRIPTORS_MAX,
        granularity,
        0x8000_0000,  # UGAVALID, alignment 0
        WRITE_SAME_BYTES_MAX // size,
        ATOMIC_BYTES_MAX // size,
        0,  # atomic writes need no alignment,
        0,  # and have the granularity of a block
        0,  # atomic boundaries are not supported
        0,
    )


def _block_device_characteristics(_unit: LogicalUnit) -> bytes:
    """SBC-3 table 203: rotation rate 1 = does not rotate; WABEREQ 01b = what SANITIZE erased can be read."""
    reads_after_block_erase = 0x40
    return struct.pack(">HBB56s", 1, 0, reads_after_block_erase, b"")


def _logical_block_provisioning(unit: LogicalUnit) -> bytes:
    """SBC-3 table 211: UNMAP and both WRITE SAME unmap, unmapped blocks read as zeros, thin; threshold sets
    where somebody knows how much room is left.
    """
    exponent = unit.threshold_exponent if unit.space_source is not None else 0
    lbpu, lbpws, lbpws10, lbprz = 0x80, 0x40, 0x20, 0x04
    return bytes([exponent, lbpu | lbpws | lbpws10 | lbprz, 0x02, 0])


_PAGES: Final = {
    0x00: _supported_pages,
    0x80: _unit_serial_number,
    0x83: _device_identification,
    0x86: _extended_inquiry,
    0x87: _mode_page_policy,
    0x88: _scsi_ports,
    0x8F: _third_party_copy,
    0xB0: _block_limits,
    0xB1: _block_device_characteristics,
    0xB2: _logical_block_provisioning,
}
