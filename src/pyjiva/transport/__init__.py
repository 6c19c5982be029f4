"""Batched byte streams: what iSCSI connections and replica links share."""

from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.receive_buffer import ReceiveBuffer

__all__ = ["EndOfBatch", "ReceiveBuffer"]
