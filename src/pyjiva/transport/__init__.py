"""Batched byte streams: what iSCSI connections and replica links share."""

from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.receive_buffer import ReceiveBuffer
from pyjiva.transport.stream import Stream, serve_by_filling

__all__ = ["EndOfBatch", "ReceiveBuffer", "Stream", "serve_by_filling"]
