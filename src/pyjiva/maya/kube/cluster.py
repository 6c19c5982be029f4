"""The verbs of Kubernetes' API, as Maya asks for them, and how they fail.

`Cluster` is what everything else in Maya is written against; `cluster_io` is the real one, and
`testing.kube` one in memory.  Objects are the API's own JSON, as dictionaries: what a version of Kubernetes
adds must come back as it was.

Which verb for what: `apply` (server-side) for objects that are ours whole; `create` where it matters that we
are the first; `merge` for a few fields of somebody else's; `update` where what we have read must still be so
(its `resourceVersion` is the condition).
"""

import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs

from pyjiva.errors import PyjivaError
from pyjiva.maya.kube.resource import Resource

__all__ = [
    "AlreadyExists",
    "Cluster",
    "Conflict",
    "Forbidden",
    "Gone",
    "KubeError",
    "Listing",
    "NotFound",
    "Object",
    "WatchEvent",
    "WatchKind",
]

Object = dict[str, Any]
"""One object as JSON."""


class KubeError(PyjivaError):
    """The API server said no, or could not be asked; may be tried again."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        """HTTP's; 0: there was no answer."""
        self.reason = reason
        """Kubernetes' word for it (`metav1.StatusReason`)."""


class NotFound(KubeError):
    """There is no such object, or no such kind."""


class AlreadyExists(KubeError):
    """An object of this name is there."""


class Conflict(KubeError):
    """The object has changed since it was read, or somebody else owns a field."""


class Gone(KubeError):
    """What is asked for is older than the API server remembers: list again."""


class Forbidden(KubeError):
    """Our account may not do this (RBAC), or an admission plugin refuses it."""


@attrs.frozen
class Listing:
    """What a list answered."""

    items: tuple[Object, ...]
    resource_version: str
    """From where a watch goes on."""


class WatchKind(enum.Enum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"  # nothing but a newer resource_version


@attrs.frozen
class WatchEvent:
    """One line of a watch."""

    kind: WatchKind
    object: Object


class Cluster(Protocol):
    """One API server, as one account sees it.

    Every verb raises KubeError or one of its kinds.  `namespace` is "" for kinds that have none.
    """

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object; None: there is none."""
        ...

    async def list(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Listing:
        """All objects of a kind, in one namespace or ("") in all, that have these labels."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        since: str,
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """What happens to them after `since`, a resource_version, until the server ends it.

        Raises Gone, also from the iterator: `since` is too old.
        """
        ...

    async def create(self, resource: Resource, value: Object) -> Object:
        """Make it; as it is now.  Raises AlreadyExists."""
        ...

    async def apply(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """Let it be as `value` says, made if it is not there (server-side apply, forced, by our manager).

        Fields that we had applied and that `value` has no more are removed; others' stay.
        """
        ...

    async def update(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """Replace it.  Raises Conflict: it is not of value's `resourceVersion` any more; NotFound."""
        ...

    async def merge(
        self, resource: Resource, namespace: str, name: str, change: Object, *, subresource: str = ""
    ) -> Object:
        """Change a few fields (RFC 7396); with `metadata.resourceVersion` in it, Conflict may be raised.

        Raises NotFound.
        """
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """Delete it, what it owns in the background after it; whether it was there.

        `uid`: only if it is this one: else False.  With finalizers it goes on to be there for a while.
        """
        ...
