"""How another process of the machine finds the files of a replica, to read the volume there.  Pure.

By the replica's process number and its descriptors, through /proc, as shared memory is found
(`transport.shared_memory_sys`): so the files are those that the replica has open, whatever their names are.
"""

from typing import Final

import attrs
from attrs.validators import ge, le, max_len, min_len

__all__ = ["NO_MAP", "WINDOW_LAYERS_MAX", "WindowLayer", "WindowName"]

WINDOW_LAYERS_MAX: Final = 64  # three descriptors for each
NO_MAP: Final = -1
_SIZE_BYTES_MAX: Final = 2**63 - 1


@attrs.frozen
class WindowLayer:
    """One layer, by descriptors of the replica's process."""

    data: int = attrs.field(validator=ge(0))
    sums: int = attrs.field(validator=ge(0))
    held: int = attrs.field(validator=ge(NO_MAP))
    """The map of the blocks that it holds; NO_MAP: it is the lowest, and holds all."""


@attrs.frozen
class WindowName:
    """Where a replica's files are, as long as its stamp is this one (`stamp_sys`)."""

    pid: int = attrs.field(validator=ge(1))
    stamp_descriptor: int = attrs.field(validator=ge(0))
    stamp: str
    """STAMP_BYTES bytes, hexadecimal."""
    size_bytes: int = attrs.field(validator=[ge(1), le(_SIZE_BYTES_MAX)])
    """Of the volume."""
    layers: tuple[WindowLayer, ...] = attrs.field(validator=[min_len(1), max_len(WINDOW_LAYERS_MAX)])
    """The lowest first; the last one takes the writes."""

    def __attrs_post_init__(self) -> None:
        for number, layer in enumerate(self.layers):
            if (layer.held == NO_MAP) != (number == 0):
                raise ValueError("the lowest layer alone has no map")
