"""What a store of backups is below: objects with names, in a directory or an S3 bucket.  Pure.

The least that both can do: an object appears whole or not at all, what was put is there for whoever asks
afterwards, and lists are complete.  S3 promises that ("strong read-after-write consistency", also for lists);
a directory does through rename(2) and fsync(2).

Names are `KEY_PATTERN`: relative, with `/` between parts, none of them hidden.
"""

import re
from collections.abc import Iterator
from typing import Final, Protocol

import attrs

from pyjiva.errors import BackupError

__all__ = ["KEY_PATTERN", "DamagedError", "Listed", "MissingError", "Objects"]

KEY_PATTERN: Final = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*(/[0-9A-Za-z_-][0-9A-Za-z._-]*)*", re.ASCII)


class MissingError(BackupError):
    """There is no such object."""


class DamagedError(BackupError):
    """An object is not what was put there, or was put there by something else."""


@attrs.frozen
class Listed:
    """One object of a list."""

    key: str
    size_bytes: int
    modified_s: float
    """When it was put, by the store's clock, in seconds since 1970; S3 gives whole seconds."""


class Objects(Protocol):
    """The objects of one store.  Blocking; any number of threads may call at once.

    Each raises BackupError: the store cannot be reached, or refuses.
    """

    @property
    def name(self) -> str:
        """What the operator calls the store."""

    def put(self, key: str, content: bytes) -> None:
        """Make `content` the object `key`, in place of what it was.  Stable when this returns."""

    def put_new(self, key: str, content: bytes) -> bool:
        """As `put`, if there is no such object yet; False, with nothing changed, if there is.

        Of two at once one wins, as far as the store can tell (S3: `If-None-Match`).
        """

    def get(self, key: str) -> bytes:
        """The object.  Raises MissingError: there is none."""

    def list(self, prefix: str) -> Iterator[Listed]:
        """All objects whose keys begin with `prefix`, which ends with `/`; in no order."""

    def delete(self, key: str) -> None:
        """Remove an object; there may be none."""
