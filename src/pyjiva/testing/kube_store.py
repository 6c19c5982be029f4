"""The objects of an API server in memory: what the verbs do to them, without waiting.

One counter gives every resourceVersion, as etcd's revision does.  What happened is kept as a history, from
which watches are fed until it is compacted.  Objects come in and go out as copies, through JSON: what JSON
cannot say is an error here too.

Not done: `managedFields` in objects (kept aside), foreground deletion, `blockOwnerDeletion`, quotas,
admission, schemas, conversion between versions, dry runs.
"""

import bisect
import copy
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from pyjiva.maya.kube import AlreadyExists, Conflict, Forbidden, KubeError, NotFound, Object, Resource
from pyjiva.maya.kube.cluster import WatchKind
from pyjiva.maya.kube.resource import NAMESPACES, PODS, SERVICES
from pyjiva.testing import kube_kinds as kinds
from pyjiva.testing.kube_fields import (
    Fields,
    Shapes,
    fields_of,
    merge_fields,
    merge_patch,
    owned,
    value_at,
    without_fields,
)
from pyjiva.testing.kube_values import clean, matches, named, suffix, timestamp

__all__ = ["Change", "Key", "Store"]

Key = tuple[str, str]
"""(namespace, name)."""
Owner = tuple[str, str, str]
"""(manager, operation, subresource), as in managedFields."""

EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
_FIRST_STATUS: Final[Mapping[str, Object]] = {
    "Namespace": {"phase": "Active"},
    "PersistentVolume": {"phase": "Pending"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "Pod": {"phase": "Pending"},
}
_GRACE_S: Final = 30  # terminationGracePeriodSeconds where a pod says nothing


@attrs.frozen
class Change:
    """One write."""

    version: int
    resource: Resource
    key: Key
    kind: WatchKind
    object: Object
    before: Object | None

    def copy(self) -> Object:
        """The object as a watch hands it out."""
        return copy.deepcopy(self.object)


@attrs.define
class _Record:
    object: Object
    owners: dict[Owner, Fields] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Store:
    """All objects of one API server."""

    clock: Callable[[], float] = trio.current_time
    """Seconds; the first second is `EPOCH`'s."""
    collects_garbage: bool = True
    """Whether what has lost its owners goes at once; else by `collect`."""
    protects_storage: bool = False
    """Whether claims and volumes get their finalizers, which `FakeControllers` takes away."""
    not_served: set[Resource] = attrs.field(factory=set)
    """Kinds whose CRD is not installed."""
    version: int = attrs.field(default=1, init=False)
    compacted: int = attrs.field(default=0, init=False)
    history: list[Change] = attrs.field(factory=list, init=False)
    parked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Those who wait for the next change."""
    _records: dict[Resource, dict[Key, _Record]] = attrs.field(factory=dict, init=False)
    _uids: int = attrs.field(default=0, init=False)
    _suffixes: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        for name in ("default", "kube-system"):
            self.create(NAMESPACES, {"metadata": {"name": name}}, now=EPOCH)

    # --- reading

    def now(self) -> datetime:
        """The time that it writes into objects."""
        return EPOCH + timedelta(seconds=self.clock())

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """A copy of the object."""
        self.check_served(resource)
        record = self._of(resource).get((namespace, name))
        return copy.deepcopy(record.object) if record else None

    def select(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Copies, by namespace and name."""
        self.check_served(resource)
        return [
            copy.deepcopy(record.object)
            for (where, _), record in sorted(self._of(resource).items(), key=lambda item: item[0])
            if namespace in ("", where) and matches(record.object, labels)
        ]

    def _of(self, resource: Resource) -> dict[Key, _Record]:
        return self._records.setdefault(resource, {})

    def check_served(self, resource: Resource) -> None:
        """Raises NotFound: there is no such kind."""
        if resource in self.not_served:
            raise NotFound("the server could not find the requested resource", status=404, reason="NotFound")

    # --- writing

    def create(
        self, resource: Resource, value: Object, *, manager: str = "controllers", now: datetime | None = None
    ) -> Object:
        """As Cluster's.  Raises AlreadyExists, NotFound or Forbidden (of its namespace), KubeError."""
        self.check_served(resource)
        made = clean(value)
        metadata = made.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            self._suffixes += 1
            metadata["name"] = f"{metadata['generateName'][:58]}{suffix(self._suffixes)}"
        if metadata.get("resourceVersion"):
            raise KubeError("resourceVersion should not be set on objects to be created", status=500)
        key = self._key(resource, made)
        if key in self._of(resource):
            raise AlreadyExists(
                f"{named(resource, key[1])} already exists", status=409, reason="AlreadyExists"
            )
        self._check_namespace(resource, key)
        fields = owned(fields_of(made, Shapes(kinds.is_builtin(resource))))
        self._prepare(resource, made, now or self.now())
        self._put(resource, key, WatchKind.ADDED, made)
        self._of(resource)[key].owners[manager, "Update", ""] = fields
        if self.collects_garbage and metadata.get("ownerReferences"):
            self.collect()
        return copy.deepcopy(made)

    def _prepare(self, resource: Resource, made: Object, now: datetime) -> None:
        """Everything that the server says about a new object."""
        kinds.check_metadata(resource, made)
        kinds.set_defaults(resource, made)
        if resource == SERVICES:
            taken = {record.object["spec"].get("clusterIP", "") for record in self._of(SERVICES).values()}
            kinds.allocate_address(resource, made, taken)
        if kinds.has_status(resource):
            made.pop("status", None)
            if resource.kind in _FIRST_STATUS:
                made["status"] = dict(_FIRST_STATUS[resource.kind])
        metadata = made["metadata"]
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"):
            metadata.pop(name, None)
        protection = kinds.PROTECTION.get(resource.kind) if self.protects_storage else None
        if protection and protection not in metadata.get("finalizers", []):
            metadata.setdefault("finalizers", []).append(protection)
        self._uids += 1
        metadata["uid"] = f"00000000-0000-4000-8000-{self._uids:012x}"
        metadata["creationTimestamp"] = timestamp(now)
        if kinds.has_generation(resource):
            metadata["generation"] = 1
        made.update({"apiVersion": resource.api_version, "kind": resource.kind})

    def update(
        self, resource: Resource, value: Object, *, subresource: str = "", manager: str = "controllers"
    ) -> Object:
        """As Cluster's.  Raises Conflict, NotFound, KubeError."""
        new = clean(value)
        key = self._key(resource, new)
        record = self._must_be(resource, key, subresource)
        if not new["metadata"].get("resourceVersion") and kinds.must_name_version(resource):
            reason = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise KubeError(f"{named(resource, key[1])}: {reason}", status=422, reason="Invalid")
        uid = new["metadata"].get("uid")
        if uid and uid != record.object["metadata"]["uid"]:
            message = f"{named(resource, key[1])}: Precondition failed: UID in precondition: {uid}"
            raise Conflict(message, status=409, reason="Conflict")
        return self._replace(resource, key, record, new, subresource, manager)

    def merge(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Object,
        *,
        subresource: str = "",
        manager: str = "controllers",
    ) -> Object:
        """As Cluster's.  Raises Conflict, NotFound, KubeError."""
        record = self._must_be(resource, (namespace, name), subresource)
        new = merge_patch(record.object, json.loads(json.dumps(change)))
        return self._replace(resource, (namespace, name), record, new, subresource, manager)

    def apply(
        self, resource: Resource, value: Object, *, subresource: str = "", manager: str = "controllers"
    ) -> Object:
        """As Cluster's.  Raises NotFound (a status of nothing), Conflict (another's `uid`), KubeError."""
        self.check_served(resource)
        wanted = clean(value)
        key = self._key(resource, wanted)
        us: Owner = (manager, "Apply", subresource)
        shapes = Shapes(kinds.is_builtin(resource))
        fields = self._writable(resource, owned(fields_of(wanted, shapes)), subresource)
        if key not in self._of(resource) and not subresource:
            if wanted["metadata"].get("uid"):
                raise Conflict(f"{named(resource, key[1])}: uid given, and there is none", status=409)
            wanted["metadata"].pop("resourceVersion", None)
            made = self.create(resource, wanted, manager=manager)
            if record := self._of(resource).get(key):
                record.owners = {us: fields}
            return made
        record = self._must_be(resource, key, subresource)
        theirs: Fields = frozenset().union(*(held for owner, held in record.owners.items() if owner != us))
        removed = record.owners.get(us, frozenset()) - fields
        kept = without_fields(record.object, removed, theirs | fields, shapes)
        merged = merge_fields(kept, wanted, shapes)
        made = self._replace(resource, key, record, merged, subresource, manager, owner=us)
        record.owners[us] = fields
        return made

    def _replace(
        self,
        resource: Resource,
        key: Key,
        record: _Record,
        new: Object,
        subresource: str,
        manager: str,
        owner: Owner | None = None,
    ) -> Object:
        """Let the object be `new`, as far as this subresource may say."""
        old = record.object
        self._check_preconditions(resource, key, old, new)
        made = _only(resource, old, new, subresource)
        if not subresource:
            kinds.check_metadata(resource, made)
            kinds.set_defaults(resource, made)
            if resource == SERVICES and old["spec"].get("clusterIP"):
                made["spec"] = {**{n: old["spec"][n] for n in ("clusterIP", "clusterIPs")}, **made["spec"]}
            kinds.check_unchanging(resource, old, made)
            added = set(made["metadata"].get("finalizers", [])) - set(old["metadata"].get("finalizers", []))
            if added and "deletionTimestamp" in old["metadata"]:
                reason = "Forbidden: no new finalizers can be added if the object is being deleted"
                raise KubeError(f"{named(resource, key[1])}: {reason}", status=422, reason="Invalid")
        if made == old:
            return copy.deepcopy(old)
        self._change_owners(resource, record, made, owner or (manager, "Update", subresource))
        if kinds.has_generation(resource) and _wanted(made) != _wanted(old):
            made["metadata"]["generation"] += 1
        self._put(resource, key, WatchKind.MODIFIED, made)
        self._remove_if_done(resource, key)
        return copy.deepcopy(made)

    def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """As Cluster's."""
        self.check_served(resource)
        record = self._of(resource).get((namespace, name))
        if record is None or uid not in ("", record.object["metadata"]["uid"]):
            return False
        metadata = record.object["metadata"]
        if "deletionTimestamp" in metadata:
            return True
        grace_s = _grace_s(resource, record.object)
        made = copy.deepcopy(record.object)
        if not metadata.get("finalizers") and not grace_s and resource != NAMESPACES:
            self._remove(resource, (namespace, name), made)
            return True
        made["metadata"]["deletionTimestamp"] = timestamp(self.now() + timedelta(seconds=grace_s))
        made["metadata"]["deletionGracePeriodSeconds"] = grace_s
        if kinds.has_generation(resource):
            made["metadata"]["generation"] += 1
        if resource == NAMESPACES:
            made["status"]["phase"] = "Terminating"
        self._put(resource, (namespace, name), WatchKind.MODIFIED, made)
        if resource == NAMESPACES and self.collects_garbage:
            self.collect()
        return True

    def finish_pod(self, namespace: str, name: str) -> None:
        """The kubelet says that a pod that is being deleted has ended."""
        made = copy.deepcopy(self._of(PODS)[namespace, name].object)
        made["metadata"]["deletionGracePeriodSeconds"] = 0
        self._put(PODS, (namespace, name), WatchKind.MODIFIED, made)
        self._remove_if_done(PODS, (namespace, name))

    # --- what follows from a write

    def collect(self) -> None:
        """Delete what has lost its owners, and what is in namespaces that are going."""
        changed = True
        while changed:
            changed = False
            for resource, key in self.everything():
                changed = self._collect_one(resource, key) or changed

    def everything(self) -> list[tuple[Resource, Key]]:
        """All that there is."""
        return [(resource, key) for resource, records in self._records.items() for key in records]

    def _collect_one(self, resource: Resource, key: Key) -> bool:
        """Whether it changed something."""
        record = self._of(resource).get(key)
        if record is None:
            return False
        metadata = record.object["metadata"]
        if resource == NAMESPACES:
            if "deletionTimestamp" not in metadata or any(
                where == key[1] for _, (where, _) in self.everything()
            ):
                return False
            self._remove(resource, key, copy.deepcopy(record.object))
            return True
        if "deletionTimestamp" in metadata:
            return False
        namespace = self._of(NAMESPACES).get(("", key[0]))
        if namespace and "deletionTimestamp" in namespace.object["metadata"]:
            return self.delete(resource, *key)
        owners = metadata.get("ownerReferences") or []
        left = [owner for owner in owners if self._is_there(resource, key, owner)]
        if len(left) == len(owners):
            return False
        if not left:
            return self.delete(resource, *key)
        self.merge(resource, *key, {"metadata": {"ownerReferences": left}})
        return True

    def _is_there(self, resource: Resource, key: Key, owner: Object) -> bool:
        """An owner in another namespace is none.  A thing of the whole cluster that names one is
        a mistake that the collector does not act upon.
        """
        for other, records in self._records.items():
            if (other.api_version, other.kind) != (owner["apiVersion"], owner["kind"]):
                continue
            if other.namespaced and not resource.namespaced:
                return True
            found = records.get((key[0] if other.namespaced else "", owner["name"]))
            return found is not None and found.object["metadata"]["uid"] == owner["uid"]
        return False

    def compact(self) -> None:
        """Who begins to watch from before now must list again.  The history stays for open watches."""
        self.compacted = self.version

    def position_after(self, version: int) -> int:
        """Where in the history that begins which has happened after `version`."""
        return bisect.bisect_right(self.history, version, key=lambda change: change.version)

    def _put(self, resource: Resource, key: Key, kind: WatchKind, made: Object) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        records = self._of(resource)
        before = records[key].object if key in records else None
        if kind is WatchKind.DELETED:
            del records[key]
        elif key in records:
            records[key].object = made
        else:
            records[key] = _Record(made)
        change = Change(self.version, resource, key, kind, copy.deepcopy(made), before)
        self.history.append(change)
        self.parked.unpark_all()

    def _remove(self, resource: Resource, key: Key, made: Object) -> None:
        self._put(resource, key, WatchKind.DELETED, made)
        if self.collects_garbage:
            self.collect()

    def _remove_if_done(self, resource: Resource, key: Key) -> None:
        metadata = self._of(resource)[key].object["metadata"]
        waits = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and not waits and resource != NAMESPACES:
            self._remove(resource, key, copy.deepcopy(self._of(resource)[key].object))

    def self_check(self) -> None:
        """Versions grow, every object is as its last change left it, owners have what is there."""
        versions = [change.version for change in self.history]
        assert versions == sorted(set(versions)) and versions[-1] == self.version
        last = {(change.resource, change.key): change for change in self.history}
        for resource, key in self.everything():
            record, change = self._of(resource)[key], last.pop((resource, key))
            assert change.kind is not WatchKind.DELETED and change.object == record.object
            fields = fields_of(record.object, Shapes(kinds.is_builtin(resource)))
            for owner, held in record.owners.items():
                lost = {path for path in held - fields if value_at(record.object, path) is None}
                assert not lost, (owner, lost)
        assert all(change.kind is WatchKind.DELETED for change in last.values())

    # --- conditions

    def _key(self, resource: Resource, value: Object) -> Key:
        metadata = value.get("metadata") or {}
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        assert bool(namespace) == resource.namespaced, f"{resource.kind} {name!r}: namespace {namespace!r}"
        if not name:
            raise KubeError("name or generateName is required", status=422, reason="Invalid")
        return namespace, name

    def _check_namespace(self, resource: Resource, key: Key) -> None:
        if not resource.namespaced:
            return
        namespace = self._of(NAMESPACES).get(("", key[0]))
        if namespace is None:
            raise NotFound(f'namespaces "{key[0]}" not found', status=404, reason="NotFound")
        if "deletionTimestamp" in namespace.object["metadata"]:
            message = f"{named(resource, key[1])} is forbidden: namespace {key[0]} is being terminated"
            raise Forbidden(message, status=403, reason="Forbidden")

    def _must_be(self, resource: Resource, key: Key, subresource: str) -> _Record:
        self.check_served(resource)
        if subresource and (subresource != "status" or not kinds.has_status(resource)):
            raise NotFound("the server could not find the requested resource", status=404, reason="NotFound")
        record = self._of(resource).get(key)
        if record is None:
            raise NotFound(f"{named(resource, key[1])} not found", status=404, reason="NotFound")
        return record

    def _check_preconditions(self, resource: Resource, key: Key, old: Object, new: Object) -> None:
        given = new["metadata"].get("resourceVersion")
        if given and given != old["metadata"]["resourceVersion"]:
            message = f"{named(resource, key[1])}: the object has been modified"
            raise Conflict(message, status=409, reason="Conflict")
        given = new["metadata"].get("uid")
        if given and given != old["metadata"]["uid"]:
            reason = f"metadata.uid: Invalid value: {given!r}: field is immutable"
            raise KubeError(f"{named(resource, key[1])}: {reason}", status=422, reason="Invalid")

    # --- ownership of fields

    def _writable(self, resource: Resource, fields: Fields, subresource: str) -> Fields:
        if not kinds.has_status(resource):
            return fields
        return frozenset(path for path in fields if (path[0] == "status") == (subresource == "status"))

    def _change_owners(self, resource: Resource, record: _Record, made: Object, by: Owner) -> None:
        """Who changes a field has it; nobody has a field that is gone."""
        shapes = Shapes(kinds.is_builtin(resource))
        before, after = owned(fields_of(record.object, shapes)), owned(fields_of(made, shapes))
        changed = frozenset(path for path in after if value_at(made, path) != value_at(record.object, path))
        leaves = changed - {path[:length] for path in changed for length in range(len(path))}
        for owner, held in record.owners.items():
            record.owners[owner] = held - (before - after) - (leaves if owner != by else frozenset())
        if by[1] == "Update":
            record.owners[by] = record.owners.get(by, frozenset()) | leaves


def _only(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """`old` with what a write to this subresource may change, taken from `new`."""
    made = copy.deepcopy(old)
    if subresource == "status":
        made.pop("status", None)
        if "status" in new:
            made["status"] = new["status"]
        return made
    kept = ("apiVersion", "kind", "metadata", *(("status",) if kinds.has_status(resource) else ()))
    made = {key: made[key] for key in kept if key in made}
    made |= {key: inner for key, inner in new.items() if key not in kept}
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        made["metadata"].pop(name, None)
        if new["metadata"].get(name):
            made["metadata"][name] = new["metadata"][name]
    return made


def _wanted(value: Object) -> Object:
    return {key: inner for key, inner in value.items() if key not in ("metadata", "status")}


def _grace_s(resource: Resource, value: Object) -> int:
    """A pod that a kubelet has is given time."""
    if resource != PODS or not value.get("spec", {}).get("nodeName"):
        return 0
    if value.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(value["spec"].get("terminationGracePeriodSeconds", _GRACE_S))
