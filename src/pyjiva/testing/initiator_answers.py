"""What a scripted initiator hands back to a test."""

import attrs

__all__ = ["Answer", "ConnectionEnded", "LoginAnswer"]


class ConnectionEnded(Exception):
    """The target has closed the connection."""


@attrs.frozen
class LoginAnswer:
    """The last Login Response."""

    status: int
    keys: dict[str, str]
    tsih: int
    transit: bool
    next_stage: int


@attrs.define(eq=False)
class Answer:
    """What came back for one SCSI command."""

    status: int = -1
    data: bytearray = attrs.field(factory=bytearray)
    sense: bytes = b""
    residual: int = 0
    """Positive: underflow; negative: overflow."""
    data_in_pdus: list[tuple[int, int, int]] = attrs.field(factory=list)
    """(flags, offset, length) of each Data-In."""

    @property
    def sense_code(self) -> tuple[int, int]:
        """(sense key, additional sense code and qualifier)."""
        return self.sense[2] & 0x0F, int.from_bytes(self.sense[12:14], "big")
