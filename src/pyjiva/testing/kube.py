"""`Cluster` in memory: an API server for fast tests, and what can go wrong between it and its clients.

    cluster = FakeCluster()
    other = cluster.client("other")     # another process: same objects, its own calls, faults and watches
    other.fault = die_at(3, Moment.AFTER)

Time is trio's, so tests under a MockClock are deterministic; names and uids come from counters.  What the
server does and does not do stands in `kube_store`, `kube_fields` and `kube_kinds`; pods, jobs and claims live
only under `kube_controllers.FakeControllers`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar

import attrs
import trio

from pyjiva.maya.kube import Forbidden, Gone, KubeError, Listing, Object, Resource, WatchEvent, WatchKind
from pyjiva.maya.kube.names import check_names
from pyjiva.testing.kube_store import Change, Store
from pyjiva.testing.kube_values import matches

__all__ = [
    "Call",
    "FakeCluster",
    "Fault",
    "Moment",
    "ProcessDied",
    "die_at",
    "fail_at",
    "latency",
    "no_fault",
]

T = TypeVar("T")
_RBAC_VERBS: Final = {"apply": "patch", "merge": "patch"}


class Moment(Enum):
    """When a fault is asked."""

    BEFORE = "before"  # the server has not seen the request
    AFTER = "after"  # it has taken effect, and the answer has not arrived


@attrs.frozen
class Call:
    """One request."""

    verb: str
    """Cluster's."""
    resource: Resource
    namespace: str
    name: str
    subresource: str = ""
    number: int = 0
    """From 1, in this client."""
    write_number: int = 0
    """From 1, among its writes; 0: it reads."""

    def __str__(self) -> str:
        path = "/".join(part for part in (self.namespace, self.name, self.subresource) if part)
        return f"{self.verb} {self.resource.plural} {path}".rstrip()


class ProcessDied(BaseException):
    """The process that asks ends here.  No Exception: nothing in it may handle it."""


Fault = Callable[[Call, Moment], Awaitable[None]]
"""Asked before and after each request; may sleep, raise, or change objects behind the client's back."""


async def no_fault(call: Call, moment: Moment) -> None:
    """Nothing goes wrong."""
    await trio.lowlevel.checkpoint()


def die_at(write_number: int, moment: Moment) -> Fault:
    """The process dies at its `write_number`th write (from 1), and asks nothing any more."""
    dead = False

    async def fault(call: Call, now: Moment) -> None:
        nonlocal dead
        dead = dead or (call.write_number == write_number and now is moment)
        if dead:
            raise ProcessDied(str(call))
        await trio.lowlevel.checkpoint()

    return fault


def fail_at(write_number: int, moment: Moment, error: KubeError | None = None) -> Fault:
    """One write is refused or, with `Moment.AFTER`, its answer is lost; None: by the network."""

    async def fault(call: Call, now: Moment) -> None:
        if call.write_number == write_number and now is moment:
            raise error or KubeError("the connection broke")
        await trio.lowlevel.checkpoint()

    return fault


def latency(seconds: float) -> Fault:
    """Each way takes so long."""

    async def fault(_: Call, __: Moment) -> None:
        await trio.sleep(seconds)

    return fault


@attrs.define(eq=False)
class FakeCluster:
    """One client of an API server in memory."""

    store: Store = attrs.field(factory=Store)
    manager: str = "pyjiva-maya"
    """Field manager of its writes."""
    fault: Fault = no_fault
    rules: Sequence[Mapping[str, Any]] | None = None
    """Those of a Role or ClusterRole, which then say what it may do; None: everything."""
    calls: list[Call] = attrs.field(factory=list, init=False)
    _writes: int = attrs.field(default=0, init=False)
    _paused: bool = attrs.field(default=False, init=False)
    _watches: list["_Watch"] = attrs.field(factory=list, init=False)

    def client(self, manager: str = "pyjiva-maya") -> "FakeCluster":
        """Another process that asks the same server."""
        return FakeCluster(self.store, manager)

    def now(self) -> datetime:
        """The server's time."""
        return self.store.now()

    @property
    def writes(self) -> list[Call]:
        """The calls that may have changed something."""
        return [call for call in self.calls if call.write_number]

    # --- what a test does to it

    def compact(self) -> None:
        """Watches that begin from before now are Gone; those that are open go on."""
        self.store.compact()

    def break_watches(self, error: KubeError | None = None) -> int:
        """End this client's watches, with an error or (None) as the server does after a while; how many."""
        for watch in self._watches:
            watch.ending = error or StopAsyncIteration()
        self.store.parked.unpark_all()
        return len(self._watches)

    def pause_watches(self) -> None:
        """What happens reaches this client later, after `resume_watches`."""
        self._paused = True

    def resume_watches(self) -> None:
        """Let it hear what it has missed."""
        self._paused = False
        self.store.parked.unpark_all()

    def send_bookmarks(self) -> None:
        """Tell this client's watches how far the server is."""
        for watch in self._watches:
            watch.bookmark_due = True
        self.store.parked.unpark_all()

    # --- the verbs

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """As Cluster's."""
        call = self._call("get", resource, namespace, name)
        return await self._do(call, lambda: self.store.get(resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Listing:
        """As Cluster's."""
        store = self.store

        def listing() -> Listing:
            return Listing(tuple(store.select(resource, namespace, labels)), str(store.version))

        return await self._do(self._call("list", resource, namespace, ""), listing)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        since: str,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """As Cluster's; Gone comes from the iterator, as with a real server."""
        store = self.store
        await self._do(self._call("watch", resource, namespace, ""), lambda: store.check_served(resource))
        position = store.position_after(int(since))
        watch = _Watch(self, resource, namespace, labels, position, too_old=int(since) < store.compacted)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    async def create(self, resource: Resource, value: Object) -> Object:
        """As Cluster's."""
        call = self._call("create", resource, *_where(value))
        return await self._do(call, lambda: self.store.create(resource, value, manager=self.manager))

    async def apply(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """As Cluster's."""
        call = self._call("apply", resource, *_where(value), subresource)

        def apply() -> Object:
            if not subresource and self.store.get(resource, *_where(value)) is None:
                self._check_allowed(attrs.evolve(call, verb="create"))
            return self.store.apply(resource, value, subresource=subresource, manager=self.manager)

        return await self._do(call, apply)

    async def update(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        """As Cluster's."""
        call = self._call("update", resource, *_where(value), subresource)
        options = {"subresource": subresource, "manager": self.manager}
        return await self._do(call, lambda: self.store.update(resource, value, **options))

    async def merge(
        self, resource: Resource, namespace: str, name: str, change: Object, *, subresource: str = ""
    ) -> Object:
        """As Cluster's."""
        call = self._call("merge", resource, namespace, name, subresource)
        options = {"subresource": subresource, "manager": self.manager}
        return await self._do(call, lambda: self.store.merge(resource, namespace, name, change, **options))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """As Cluster's."""
        call = self._call("delete", resource, namespace, name)
        return await self._do(call, lambda: self.store.delete(resource, namespace, name, uid=uid))

    # --- what each of them goes through

    def _call(self, verb: str, resource: Resource, namespace: str, name: str, subresource: str = "") -> Call:
        if verb not in ("list", "watch"):
            check_names(resource, namespace, name, generated=verb == "create" and not name)
        writes = verb not in ("get", "list", "watch")
        self._writes += writes
        number = self._writes if writes else 0
        call = Call(verb, resource, namespace, name, subresource, len(self.calls) + 1, number)
        self.calls.append(call)
        return call

    async def _do(self, call: Call, effect: Callable[[], T]) -> T:
        await self.fault(call, Moment.BEFORE)
        self._check_allowed(call)
        answer = effect()
        await self.fault(call, Moment.AFTER)
        return answer

    def _check_allowed(self, call: Call) -> None:
        if self.rules is not None and not any(_allows(rule, call) for rule in self.rules):
            raise Forbidden(f"not allowed by its rules: {call}", status=403, reason="Forbidden")


@attrs.define(eq=False)
class _Watch:
    """One open watch."""

    client: FakeCluster
    resource: Resource
    namespace: str
    labels: Mapping[str, str] | None
    position: int
    """In the store's history: what comes next."""
    too_old: bool
    bookmark_due: bool = False
    ending: Exception | None = None

    def __aiter__(self) -> "_Watch":
        return self

    async def __anext__(self) -> WatchEvent:
        await trio.lowlevel.checkpoint()
        while True:
            if self.ending is not None:
                raise self.ending
            if self.too_old:
                raise Gone("too old resource version", status=410, reason="Expired")
            if not self.client._paused and (event := self._next_event()) is not None:
                return event
            await self.client.store.parked.park()

    def _next_event(self) -> WatchEvent | None:
        store = self.client.store
        while self.position < len(store.history):
            change = store.history[self.position]
            self.position += 1
            if (event := self._seen(change)) is not None:
                return event
        if not self.bookmark_due:
            return None
        self.bookmark_due = False
        version = {"metadata": {"resourceVersion": str(store.version)}}
        kind = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        return WatchEvent(WatchKind.BOOKMARK, {**kind, **version})

    def _seen(self, change: Change) -> WatchEvent | None:
        """What a watch with these labels makes of it: what ceases to have them is deleted for it."""
        if change.resource != self.resource or self.namespace not in ("", change.key[0]):
            return None
        before = change.before is not None and matches(change.before, self.labels)
        after = change.kind is not WatchKind.DELETED and matches(change.object, self.labels)
        if not before and not after:
            return None
        kind = WatchKind.MODIFIED if before and after else WatchKind.ADDED if after else WatchKind.DELETED
        return WatchEvent(kind, change.copy())


def _where(value: Object) -> tuple[str, str]:
    metadata = value.get("metadata") or {}
    return metadata.get("namespace", ""), metadata.get("name", "")


def _allows(rule: Mapping[str, Any], call: Call) -> bool:
    """Whether a rule of a Role lets it through."""
    wanted = (
        ("verbs", _RBAC_VERBS.get(call.verb, call.verb)),
        ("apiGroups", call.resource.group),
        ("resources", f"{call.resource.plural}/{call.subresource}".rstrip("/")),
    )
    if any("*" not in rule.get(key, ()) and value not in rule.get(key, ()) for key, value in wanted):
        return False
    return not rule.get("resourceNames") or call.name in rule["resourceNames"]
