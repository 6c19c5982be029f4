"""Batched byte streams: what iSCSI connections and replica links share."""

from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.receive_buffer import ReceiveBuffer
from pyjiva.transport.stream import Stream

__all__ = ["EndOfBatch", "ReceiveBuffer", "Stream"]
