"""What the layers of a replica ask of the store that they belong to.  Pure."""

from collections.abc import Callable
from typing import Protocol

from pyjiva.errors import StorageError

__all__ = ["Nobody", "Owner"]


class Owner(Protocol):
    """The store that the layers belong to."""

    @property
    def broken(self) -> StorageError | None:
        """The failure since which nobody knows what is stable: nothing is to be changed any more."""

    def guard(self, step: Callable[[], None]) -> None:
        """Take a step after whose failure nobody knows what is stable: the store is broken then."""

    def flush(self) -> None:
        """Make stable what was written."""

    def keep_atomic_writes(self) -> None:
        """Let no atomic write that was answered be undone any more."""

    def settle_all(self) -> None:
        """Make all that was written stable, checksums too.  Raises StorageError: something is in flight."""

    def take_top(self) -> None:
        """`Layers.top` or `Layers.head` is another one now."""


class Nobody:
    """The owner while the layers are being opened: what fails then fails the opening."""

    broken: StorageError | None = None

    def guard(self, step: Callable[[], None]) -> None:
        """See Owner."""
        step()

    def flush(self) -> None:
        """See Owner."""

    def keep_atomic_writes(self) -> None:
        """See Owner."""

    def settle_all(self) -> None:
        """See Owner."""

    def take_top(self) -> None:
        """See Owner."""
