"""The small state of a logical unit that must survive its controller: reservations, saved mode pages.  Pure.

To a store it is a string of bytes that is replaced as a whole: after a crash it is the old one or the new
one, and once `done` was called without an error it is the new one.
"""

from collections.abc import Callable
from typing import Protocol

import attrs

from pyjiva.errors import StorageError
from pyjiva.membership import PARAMETERS_BYTES_MAX

__all__ = ["PARAMETERS_BYTES_MAX", "MemoryParameters", "ParameterStore"]


class ParameterStore(Protocol):
    """Where a logical unit keeps its parameters."""

    @property
    def parameters(self) -> bytes:
        """What was saved last; empty on a new volume."""

    def save_parameters(self, parameters: bytes, done: Callable[[StorageError | None], None]) -> None:
        """Replace them, by at most PARAMETERS_BYTES_MAX; then `done(error)`, perhaps before this returns.

        Saves are done in the order of the calls.
        """


@attrs.define(eq=False)
class MemoryParameters:
    """A store that forgets with its process: for tests, and for devices without a place of their own."""

    parameters: bytes = b""

    def save_parameters(self, parameters: bytes, done: Callable[[StorageError | None], None]) -> None:
        """Replace them at once."""
        assert len(parameters) <= PARAMETERS_BYTES_MAX
        self.parameters = parameters
        done(None)
