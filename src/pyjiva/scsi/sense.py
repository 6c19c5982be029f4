"""Sense data: why a command was not answered GOOD, and the table from storage errors to it.  Pure.

The D_SENSE bit of the control mode page chooses between fixed and descriptor format (SPC-4 §4.5.2-4.5.3).
"""

import struct
from typing import Final

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi.codes import AdditionalSense, SenseKey

__all__ = [
    "PARAMETER_LIST_LENGTH_ERROR",
    "SENSE_OF_FAILURE",
    "Sense",
    "invalid_field_in_cdb",
    "invalid_field_in_parameter_list",
    "sense_of",
]

_FIXED: Final = struct.Struct(">BBBIBIHB3s")  # SPC-4 table 53, 18 bytes
_CURRENT_ERROR: Final = 0x70
_DESCRIPTORS: Final = struct.Struct(">BBH3xB")  # SPC-4 table 28: 8 bytes, then the descriptors
_CURRENT_ERROR_DESCRIPTORS: Final = 0x72
_INFORMATION: Final = struct.Struct(">BBBxQ")  # SPC-4 table 30
_SENSE_KEY_SPECIFIC: Final = struct.Struct(">BBxx3sx")  # SPC-4 table 32
_VALID: Final = 0x80  # the INFORMATION field means something
_SENSE_KEY_SPECIFIC_VALID: Final = 0x80
_FIELD_IN_CDB: Final = 0x40


@attrs.frozen
class Sense:
    """One error or unit attention."""

    key: SenseKey
    additional: AdditionalSense
    information: int | None = None
    """An offset in bytes: of the first byte that differs, or of the descriptor of a threshold."""
    sense_key_specific: bytes = b"\0\0\0"

    def encode(self, *, descriptors: bool = False) -> bytes:
        """Sense data: 18 bytes in the fixed format, or in the one with descriptors."""
        if descriptors:
            return self._encode_descriptors()
        valid = self.information is not None and self.information < 1 << 32
        return _FIXED.pack(
            _CURRENT_ERROR | (_VALID if valid else 0),
            0,
            self.key,
            (self.information or 0) if valid else 0,
            10,  # additional sense length
            0,
            self.additional,
            0,
            self.sense_key_specific,
        )

    def _encode_descriptors(self) -> bytes:
        found = b""
        if self.information is not None:
            found += _INFORMATION.pack(0x00, 0x0A, _VALID, self.information)
        if self.sense_key_specific[0] & _SENSE_KEY_SPECIFIC_VALID:
            found += _SENSE_KEY_SPECIFIC.pack(0x02, 0x06, self.sense_key_specific)
        return _DESCRIPTORS.pack(_CURRENT_ERROR_DESCRIPTORS, self.key, self.additional, len(found)) + found


def invalid_field_in_cdb(byte: int, bit: int | None = None) -> Sense:
    """ILLEGAL REQUEST with a pointer to the first byte (and the leftmost bit) of the bad field."""
    return Sense(
        SenseKey.ILLEGAL_REQUEST,
        AdditionalSense.INVALID_FIELD_IN_CDB,
        sense_key_specific=_field_pointer(_FIELD_IN_CDB, byte, bit),
    )


def invalid_field_in_parameter_list(byte: int, bit: int | None = None) -> Sense:
    """ILLEGAL REQUEST with a pointer into the data that came with the command."""
    return Sense(
        SenseKey.ILLEGAL_REQUEST,
        AdditionalSense.INVALID_FIELD_IN_PARAMETER_LIST,
        sense_key_specific=_field_pointer(0, byte, bit),
    )


def _field_pointer(where: int, byte: int, bit: int | None) -> bytes:
    """SPC-4 table 55."""
    bit_pointer = 0 if bit is None else 0x08 | bit
    return struct.pack(">BH", _SENSE_KEY_SPECIFIC_VALID | where | bit_pointer, byte)


PARAMETER_LIST_LENGTH_ERROR: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR
)

SENSE_OF_FAILURE: Final[dict[StorageFailure, Sense]] = {
    StorageFailure.OUT_OF_RANGE: Sense(
        SenseKey.ILLEGAL_REQUEST, AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    ),
    StorageFailure.NO_SPACE: Sense(
        SenseKey.DATA_PROTECT, AdditionalSense.SPACE_ALLOCATION_FAILED_WRITE_PROTECT
    ),
    StorageFailure.READ_ERROR: Sense(SenseKey.MEDIUM_ERROR, AdditionalSense.UNRECOVERED_READ_ERROR),
    StorageFailure.BAD_CHECKSUM: Sense(SenseKey.MEDIUM_ERROR, AdditionalSense.UNRECOVERED_READ_ERROR),
    StorageFailure.WRITE_ERROR: Sense(SenseKey.MEDIUM_ERROR, AdditionalSense.WRITE_ERROR),
    StorageFailure.NOT_READY: Sense(SenseKey.NOT_READY, AdditionalSense.BECOMING_READY),
    StorageFailure.NOT_SUPPORTED: Sense(
        SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_COMMAND_OPERATION_CODE
    ),
}


def sense_of(error: StorageError) -> Sense:
    """What the initiator is told about `error`."""
    return SENSE_OF_FAILURE[error.failure]
