"""One SCSI command on a connection, and the PDUs that answer it (RFC 7143 §11.4, §11.7).  Pure."""  # hot

from typing import TYPE_CHECKING, Final

import attrs

from pyjiva.iscsi.transfer import DataTransfer
from pyjiva.scsi import Quiescing, Task

if TYPE_CHECKING:
    from pyjiva.iscsi.connection import Connection

__all__ = ["OVERFLOW", "READ_FLAG", "UNDERFLOW", "WRITE_FLAG", "Quiescing", "ScsiCommand"]

READ_FLAG: Final = 0x40
WRITE_FLAG: Final = 0x20
ATTRIBUTE_MASK: Final = 0x07
OVERFLOW: Final = 0x04
UNDERFLOW: Final = 0x02


@attrs.define(eq=False)
class ScsiCommand(Task):
    """A task with what the connection must know about it."""

    connection: "Connection" = attrs.field(kw_only=True)
    itt: int = attrs.field(kw_only=True)
    flags: int = attrs.field(kw_only=True)
    immediate: int = attrs.field(kw_only=True)
    cmd_sn: int = attrs.field(kw_only=True)
    transfer: DataTransfer | None = None
    needed_bytes: int = 0
    """How much data-out the CDB asks for, however much was offered."""
    reading_bytes: int = 0
    """What this command has taken of the connection's budget for read data."""
    solicited_bytes: int = 0
    """What this command has taken of the connection's budget for solicited data."""

    def abort(self, quiescing: Quiescing | None) -> None:
        """As the connection does it, which forgets the command."""
        self.connection.abort(self, quiescing)
