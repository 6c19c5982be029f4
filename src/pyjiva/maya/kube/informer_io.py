"""A copy of all objects of one kind, kept up to date by list and watch, and who wants to hear of changes.

A watch that the server ends goes on from where it was; after anything else everything is listed again, and
subscribers hear of what differs.  So they hear that something is otherwise, not of every change; and what
they read here may be older than what they wrote: whoever depends on that uses `update`, whose condition is
a version.
"""

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

import attrs
import structlog
import trio

from pyjiva.errors import PyjivaError
from pyjiva.maya.kube.cluster import Cluster, Gone, Object
from pyjiva.maya.kube.informer import Key, ObjectCache
from pyjiva.maya.kube.resource import Resource

__all__ = ["Informer", "Subscriber"]

Subscriber = Callable[[str, str], None]
"""Told (namespace, name) of what was added, changed or deleted; must not wait."""

BACK_OFF_MIN_S: Final = 0.8  # as client-go's reflector, in all of these
BACK_OFF_MAX_S: Final = 30.0
BACK_OFF_RESET_S: Final = 120.0

_log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class Informer:
    """Knows all objects of a kind, in one namespace or ("") in all, that have these labels."""

    cluster: Cluster
    resource: Resource
    namespace: str = ""
    labels: Mapping[str, str] | None = None
    random: Random = attrs.field(factory=Random, kw_only=True)
    """Of the delays after failures."""
    synced: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set once everything was listed for the first time."""
    trouble: str = attrs.field(default="", init=False)
    """Why it is not up to date; "": it is, as far as it can know."""
    _cache: ObjectCache = attrs.field(factory=ObjectCache, init=False)
    _subscribers: list[Subscriber] = attrs.field(factory=list, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _began_s: float = attrs.field(default=-math.inf, init=False)

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as last heard of, not to be changed; None: there is none."""
        return self._cache.get((namespace, name))

    def items(self) -> list[Object]:
        """All of them, by namespace and name, not to be changed."""
        return list(self._cache)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call it from now on, and at once for everything that is there."""
        self._subscribers.append(subscriber)
        for key in self._cache.all_keys():
            subscriber(*key)

    def resync(self) -> None:
        """Tell subscribers of everything that is there, as if it had changed."""
        for key in self._cache.all_keys():
            self._tell(key)

    async def run(self) -> None:
        """List and watch until cancelled."""
        listed = False
        while True:
            self._began_s = trio.current_time()
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._watch()
            except Gone:
                listed = False
                _log.info("watched too slowly: listing again", kind=self.resource.kind)
            except PyjivaError as error:
                listed = False
                self.trouble = str(error)
                _log.warning("cannot watch", kind=self.resource.kind, reason=self.trouble)
            await trio.sleep(self._back_off_s())

    async def _list(self) -> None:
        listing = await self.cluster.list(self.resource, self.namespace, self.labels)
        changed = self._cache.replace(listing)
        self.trouble = ""
        self.synced.set()
        for key in changed:
            self._tell(key)

    async def _watch(self) -> None:
        since = self._cache.version
        async with self.cluster.watch(self.resource, self.namespace, self.labels, since=since) as events:
            async for event in events:
                key = self._cache.apply(event)
                if key is not None:
                    self._tell(key)

    def _tell(self, key: Key) -> None:
        for subscriber in self._subscribers:
            subscriber(*key)

    def _back_off_s(self) -> float:
        """How long to wait now: not at all after a watch that lasted, longer after each that did not."""
        if trio.current_time() - self._began_s >= BACK_OFF_RESET_S:
            self._failures = 0
            return 0.0
        delay_s = min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return delay_s * (1 + self.random.random())
