"""The newest that we know of objects which we write ourselves, while the cache is still behind.  Pure.

A cache hears of our own write a little later than we do.  Versions cannot be ordered by who does not know
the server, but each of our writes says which version it was made over; so what the cache has is old for
certain if it is one of these.  If it is none of them it is taken for newer.  It may be older after all, when
others wrote too: who acts upon it has a version as the condition, or asks the server.
"""

from typing import Final

import attrs

from pyjiva.maya.kube.cluster import Object

__all__ = ["OwnWrites", "version_of"]

Key = tuple[str, str]
Version = tuple[str, str]

OLDER_MAX: Final = 64  # versions that are remembered of one object; a look makes three


def version_of(value: Object) -> Version:
    """Uid and resourceVersion: a name may come again with another uid."""
    metadata = value["metadata"]
    return metadata["uid"], metadata["resourceVersion"]


@attrs.define
class _Newest:
    value: Object
    older: list[Version] = attrs.field(factory=list)


@attrs.define(eq=False)
class OwnWrites:
    """By namespace and name."""

    _newest: dict[Key, _Newest] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._newest)

    def remember(self, key: Key, before: Version, value: Object) -> None:
        """Version `before` has become `value`."""
        newest = self._newest.setdefault(key, _Newest(value))
        newest.value = value
        newest.older = [*newest.older, before][-OLDER_MAX:]

    def latest(self, key: Key, known: Object | None) -> Object | None:
        """What the cache has (None: nothing), unless that is known to be old."""
        newest = self._newest.get(key)
        if newest is None:
            return known
        if known is not None and version_of(known) in newest.older:
            return newest.value
        del self._newest[key]
        return known
