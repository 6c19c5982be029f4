"""Making a replica smaller that grew in a history that did not count.  Blocking calls only.

1. The chain says that files may be longer than the volume (`Chain.growing_to`), durably.
2. `clear_beyond`: all that lies beyond the new end becomes zeros in every layer, on stable storage: first its
   checksums go, then the data.  A power cut must not leave zeros in the place of what a checksum says: the
   block in which the new end lies is still needed.  The maps may stay: a block that is held is zeros then.
3. The state names the new size: this is the change.
4. The chain says that it is over, and `cut_files` lets files end where the volume does.

A crash before 3 leaves a replica of the old size, with all that lies before the new end; the next rebuild
asks again.  One after it leaves files that are longer than the volume, which growing leaves too when it is
cut; what they have there is zeros, so nothing shows when the volume grows again.

Nothing else may be in flight.
"""

import contextlib

import attrs

from pyjiva.errors import StorageError
from pyjiva.snapshot.layers_sys import Layers

__all__ = ["clear_beyond", "cut_files"]


def clear_beyond(layers: Layers, size_bytes: int) -> None:
    """Steps 1 and 2.  Raises StorageError: the replica has its old size, and may lack what lies beyond."""
    layers.settle()
    layers.drop_spare()  # it has the old size
    layers.commit(attrs.evolve(layers.chain, growing_to=layers.size_bytes))  # a merge begins again by this
    guard = layers.owner.guard
    for layer in layers.open_layers.values():
        layer.file.forget_beyond(size_bytes)
        guard(layer.file.sync_sums)
    for layer in layers.open_layers.values():
        layer.file.clear_beyond(size_bytes)
        guard(layer.file.sync_data)


def cut_files(layers: Layers) -> None:
    """Step 4, when `layers` have the new size.  It does no harm if a file stays longer."""
    with contextlib.suppress(StorageError):
        for layer in layers.open_layers.values():
            layer.file.cut()
            if layer.held is not None:
                layer.held.cut()
