"""What an initiator sends, from its stream to its connection, a batch at a time.  Pure; hot."""

import attrs

from pyjiva.iscsi.connection import Connection
from pyjiva.iscsi.framing import Framing
from pyjiva.transport import EndOfBatch

__all__ = ["Arrivals"]


@attrs.define(eq=False)
class Arrivals:  # hot
    """Of one connection: what its stream's `serve` is given."""

    connection: Connection
    framing: Framing
    batch: EndOfBatch
    stopped: bool = attrs.field(default=False, init=False)
    """The initiator is to take its answers first."""

    def wanted_bytes(self) -> int:
        """How many bytes the next PDU needs."""
        return self.framing.wanted_bytes

    def arrived(self) -> bool:
        """Handle all that is there whole, and end the batch; false: it stopped early, or the connection ends.

        Raises RemoteProtocolError: the connection is to be closed.
        """
        self.stopped = self.connection.receive_all()
        self.batch.end()
        return not (self.stopped or self.connection.closed)
