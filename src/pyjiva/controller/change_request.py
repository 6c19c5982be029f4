"""A change of a volume's snapshots as a request to the data path.  Pure."""

from collections.abc import Callable

import attrs

from pyjiva.errors import StorageError
from pyjiva.lineage import Change

__all__ = ["ChangeRequest"]


@attrs.define(eq=False)
class ChangeRequest:
    """Carried out by all members that take writes, while no other request is in flight anywhere.

    If no member can do it, it fails, and nothing has changed.  It is not parked: an operator who wants a
    snapshot now does not want it when the volume has come back.
    """

    change: Change
    length_bytes: int
    """Of the volume."""
    done: Callable[["ChangeRequest"], None]
    offset_bytes: int = 0
    error: StorageError | None = None
