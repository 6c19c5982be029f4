"""Carry out a request about the volume as it was.  Blocking calls only."""

from typing import assert_never

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.layered_store_sys import Store
from pyjiva.snapshot.requests import Past, PastVerb

__all__ = ["carry_out_past"]


def carry_out_past(store: Store, request: Past) -> None:
    """Fill in the answer.

    Raises StorageError: the disk failed; NOT_SUPPORTED: there is no such snapshot, or it must not change.
    """
    try:
        _carry_out(store, request, store.name_of(request.number))
    except ConfigError as error:
        raise StorageError(StorageFailure.NOT_SUPPORTED, str(error)) from error


def _carry_out(store: Store, request: Past, name: str) -> None:
    extent = Extent(request.offset_bytes, request.length_bytes)
    match request.verb:
        case PastVerb.READ:
            request.data = (store.read_at(name, extent),)
        case PastVerb.MAP:
            request.extents = store.allocated_at(name, extent)
        case PastVerb.HASH:
            request.digest = store.hash_at(name, extent)
        case PastVerb.WRITE:
            store.patch(name, extent, request.data)
        case PastVerb.ZERO:
            store.patch(name, extent, None)
        case PastVerb.SPOIL:
            store.spoil_at(name, extent)
        case PastVerb.CHANGED:
            request.extents = store.diff(store.name_of(request.since), name)
        case _:
            assert_never(request.verb)
