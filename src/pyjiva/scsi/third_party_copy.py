"""What the unit says of its copies: limits, outcomes, and VPD page 8Fh (SPC-4 §7.8.17).  Pure."""

import collections
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

__all__ = [
    "BLOCK_TO_BLOCK",
    "CSCD_BYTES",
    "CSCD_MAX",
    "IDENTIFICATION",
    "LIST_BYTES_MAX",
    "RECEIVE_COPY_RESULTS_ACTIONS",
    "SEGMENTS_MAX",
    "SEGMENT_BYTES",
    "SEGMENT_BYTES_MAX",
    "CopyResults",
    "Result",
    "third_party_copy_page",
]

IDENTIFICATION: Final = 0xE4  # CSCD descriptor
CSCD_BYTES: Final = 32
CSCD_MAX: Final = 2  # there is one unit to name; a source and a target may be listed
BLOCK_TO_BLOCK: Final = 0x02  # segment descriptor
SEGMENT_BYTES: Final = 28
SEGMENTS_MAX: Final = 16
LIST_BYTES_MAX: Final = CSCD_MAX * CSCD_BYTES + SEGMENTS_MAX * SEGMENT_BYTES
SEGMENT_BYTES_MAX: Final = 0xFFFF * 4096

RECEIVE_COPY_RESULTS_ACTIONS: Final = (0x00, 0x03, 0x04)

RESULTS_MAX: Final = 64  # copies whose outcome is kept for COPY STATUS; the oldest goes first

_EXTENDED_COPY: Final = 0x83
_RECEIVE_COPY_RESULTS: Final = 0x84


@attrs.define
class Result:
    """What COPY STATUS and FAILED SEGMENT DETAILS tell of one copy."""

    status: int = 0
    """SPC-4 table 294: 0 in progress, 1 completed, 2 completed with errors."""
    segments: int = 0
    """How many were processed."""
    mebibytes: int = 0
    sense: bytes = b""
    """Of the failure."""


@attrs.define(eq=False)
class CopyResults:
    """The outcomes of the last copies, by initiator port and list identifier."""

    _kept: "collections.OrderedDict[tuple[str, int], Result]" = attrs.field(
        factory=collections.OrderedDict, init=False
    )

    def begin(self, port: str, list_id: int) -> Result:
        """A copy starts: what was kept under its identifier is gone."""
        self._kept.pop((port, list_id), None)
        self._kept[port, list_id] = result = Result()
        if len(self._kept) > RESULTS_MAX:
            self._kept.popitem(last=False)
        return result

    def find(self, port: str, list_id: int) -> Result | None:
        """The copy that the initiator means."""
        return self._kept.get((port, list_id))


def third_party_copy_page(receive_actions: Sequence[int], block_shift: int) -> bytes:
    """The page without its header; `receive_actions` of RECEIVE COPY RESULTS are supported."""
    commands: Mapping[int, Sequence[int]] = {_EXTENDED_COPY: [0], _RECEIVE_COPY_RESULTS: receive_actions}
    listed = b"".join(bytes([code, len(actions), *actions]) for code, actions in commands.items())
    return b"".join(
        (
            _descriptor(0x0001, bytes([len(listed)]) + listed),
            _descriptor(0x0004, struct.pack(">4xHHII12x", CSCD_MAX, SEGMENTS_MAX, LIST_BYTES_MAX, 0)),
            _descriptor(0x0008, bytes([2, BLOCK_TO_BLOCK, IDENTIFICATION])),
            _descriptor(0x000C, struct.pack(">H", 0)),
            _descriptor(0x8001, struct.pack(">IIIBB18x", 1, 1, SEGMENT_BYTES_MAX, block_shift, 0)),
        )
    )


def _descriptor(kind: int, data: bytes) -> bytes:
    padded = data + bytes(-len(data) % 4)
    return struct.pack(">HH", kind, len(padded)) + padded
