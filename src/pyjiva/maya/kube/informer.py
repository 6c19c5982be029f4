"""What is known of all objects of one kind, and what a new list changes of it.  Pure.

Objects are handed out as they are kept: who wants to change one copies it first.
"""

from collections.abc import Iterator

import attrs

from pyjiva.maya.kube.cluster import Listing, Object, WatchEvent, WatchKind

__all__ = ["Key", "ObjectCache", "key_of"]

Key = tuple[str, str]
"""(namespace, name); "" for the namespace of kinds that have none."""


def key_of(value: Object) -> Key:
    """Where an object stands."""
    metadata = value["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


@attrs.define(eq=False)
class ObjectCache:
    """The objects of one kind as last heard of."""

    version: str = attrs.field(default="", init=False)
    """From where a watch goes on; "": nothing was listed yet."""
    _objects: dict[Key, Object] = attrs.field(factory=dict, init=False)

    def replace(self, listing: Listing) -> tuple[Key, ...]:
        """Know what was listed, and nothing else; the keys of what is now otherwise than it was known."""
        before, self._objects = self._objects, {key_of(value): value for value in listing.items}
        self.version = listing.resource_version
        keys = before.keys() | self._objects.keys()
        return tuple(sorted(key for key in keys if _differ(before.get(key), self._objects.get(key))))

    def apply(self, event: WatchEvent) -> Key | None:
        """Know what happened; whom it happened to, None: nobody."""
        self.version = event.object["metadata"]["resourceVersion"]
        if event.kind is WatchKind.BOOKMARK:
            return None
        key = key_of(event.object)
        if event.kind is WatchKind.DELETED:
            self._objects.pop(key, None)
        else:
            self._objects[key] = event.object
        return key

    def get(self, key: Key) -> Object | None:
        """The object; None: there is none."""
        return self._objects.get(key)

    def __iter__(self) -> Iterator[Object]:
        return iter([self._objects[key] for key in sorted(self._objects)])

    def all_keys(self) -> list[Key]:
        """Of everything that is there, in order."""
        return sorted(self._objects)


def _differ(one: Object | None, other: Object | None) -> bool:
    """By version and, since a name may be used again, by uid."""
    if one is None or other is None:
        return one is not other
    names = ("uid", "resourceVersion")
    return any(one["metadata"].get(name) != other["metadata"].get(name) for name in names)
