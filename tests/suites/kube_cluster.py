"""The one suite that every `Cluster` passes: what Maya relies on, case by case.

Use, in the test module of an implementation:

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    async def test_contract(case: Case) -> None:
        await case(MyCluster(...), "a-namespace-of-its-own")

The cases run against an API server in memory and against a real one, which is what shows that the first is
right.  They need the kinds of Kubernetes and `CRD`; that controllers act upon what they make is no matter.

Not checked: collection of what has lost its owners (a controller's), compaction (not a verb).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio

from pyjiva.maya.kube import (
    AlreadyExists,
    Cluster,
    Conflict,
    KubeError,
    NotFound,
    Object,
    Resource,
    WatchEvent,
    WatchKind,
)
from pyjiva.maya.kube.resource import CONFIG_MAPS, DEPLOYMENTS, LEASES, PODS, PV, SECRETS, SERVICES

__all__ = ["CASES", "CRD", "CRDS", "THINGS", "Case", "case_name", "config_map", "deployment", "thing"]

Case = Callable[[Cluster, str], Awaitable[None]]
CASES: Final[list[Case]] = []
THINGS: Final = Resource("tests.example.com/v1", "Thing", "things")
"""A custom resource with a status apart; `CRD` makes it."""
CRDS: Final = Resource(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", False
)
_NUMBERS: Final = {"type": "object", "additionalProperties": {"type": "integer"}}
_ITEM: Final = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}
_SPEC: Final = {
    "type": "object",
    "properties": {"size": {"type": "integer"}, "map": _NUMBERS, "list": {"type": "array", "items": _ITEM}},
}
CRD: Final[Object] = {
    "apiVersion": CRDS.api_version,
    "kind": CRDS.kind,
    "metadata": {"name": f"{THINGS.plural}.{THINGS.group}"},
    "spec": {
        "group": THINGS.group,
        "scope": "Namespaced",
        "names": {"kind": THINGS.kind, "plural": THINGS.plural, "singular": "thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": _SPEC, "status": _NUMBERS},
                    }
                },
                "subresources": {"status": {}},
            }
        ],
    },
}
WAIT_S: Final = 30.0  # for what a server does after its answer


def case_name(case: Case) -> str:
    """For pytest."""
    return getattr(case, "__name__", str(case))


def _case(function: Case) -> Case:
    CASES.append(function)
    return function


def config_map(
    namespace: str, name: str = "m", *, labels: dict[str, str] | None = None, **data: str
) -> Object:
    """A ConfigMap."""
    metadata: Object = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(namespace: str, *, env: dict[str, str], labels: dict[str, str] | None = None) -> Object:
    """A Deployment that would run nothing."""
    container: Object = {
        "name": "main",
        "image": "none",
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"containerPort": 80, "name": "http"}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    template: Object = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": namespace, **({"labels": labels} if labels else {})},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    }


def thing(namespace: str, **spec: Any) -> Object:
    """A custom resource."""
    head = {"apiVersion": THINGS.api_version, "kind": THINGS.kind}
    return {**head, "metadata": {"name": "t", "namespace": namespace}, "spec": spec}


def _service(namespace: str, name: str = "s", **spec: Any) -> Object:
    ports = [{"name": "iscsi", "port": 3260}]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}


def _env(value: Object) -> dict[str, str]:
    container = value["spec"]["template"]["spec"]["containers"][0]
    return {item["name"]: item["value"] for item in container.get("env", [])}


async def _get(cluster: Cluster, resource: Resource, namespace: str, name: str) -> Object:
    found = await cluster.get(resource, namespace, name)
    assert found is not None
    return found


# --- create, get, list


@_case
async def create_gives_identity(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map(namespace, a="1"))
    metadata = made["metadata"]
    assert made["data"] == {"a": "1"}
    assert metadata["uid"] and metadata["resourceVersion"] and metadata["creationTimestamp"].endswith("Z")
    found = await _get(cluster, CONFIG_MAPS, namespace, "m")
    assert (found["kind"], found["apiVersion"]) == ("ConfigMap", "v1")
    assert found["metadata"]["uid"] == metadata["uid"]


@_case
async def get_of_nothing_is_none(cluster: Cluster, namespace: str) -> None:
    assert await cluster.get(CONFIG_MAPS, namespace, "none") is None
    assert await cluster.get(CONFIG_MAPS, f"{namespace}-none", "none") is None
    assert await cluster.get(PV, "", f"{namespace}-none") is None


@_case
async def create_of_what_is_there(cluster: Cluster, namespace: str) -> None:
    await cluster.create(CONFIG_MAPS, config_map(namespace, a="1"))
    with pytest.raises(AlreadyExists) as raised:
        await cluster.create(CONFIG_MAPS, config_map(namespace, a="2"))
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")
    assert (await _get(cluster, CONFIG_MAPS, namespace, "m"))["data"] == {"a": "1"}


@_case
async def create_without_namespace(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(NotFound) as raised:
        await cluster.create(CONFIG_MAPS, config_map(f"{namespace}-none"))
    assert raised.value.status == 404


@_case
async def create_with_a_generated_name(cluster: Cluster, namespace: str) -> None:
    names = set()
    for _ in range(3):
        value = config_map(namespace)
        value["metadata"] = {"namespace": namespace, "generateName": "made-"}
        names.add((await cluster.create(CONFIG_MAPS, value))["metadata"]["name"])
    assert len(names) == 3
    assert all(name.startswith("made-") and len(name) == 10 for name in names)


@_case
async def names_and_labels_are_checked(cluster: Cluster, namespace: str) -> None:
    bad = [config_map(namespace, name) for name in ("Upper", "a_b", "-a", "a" * 254)]
    bad += [config_map(namespace, labels={"k": text}) for text in ("a" * 64, "a/b", "-")]
    for value in bad:
        with pytest.raises(KubeError) as raised:
            await cluster.create(CONFIG_MAPS, value)
        assert (raised.value.status, raised.value.reason) == (422, "Invalid"), value["metadata"]
    await cluster.create(CONFIG_MAPS, config_map(namespace, "a" * 253, labels={"k": "a" * 63, "a.b/c": ""}))
    with pytest.raises(KubeError) as raised:
        await cluster.create(SERVICES, _service(namespace, "a.b"))
    assert raised.value.status == 422


@_case
async def list_by_namespace_and_labels(cluster: Cluster, namespace: str) -> None:
    await cluster.create(CONFIG_MAPS, config_map(namespace, "a", labels={"x": "1", "y": "1"}))
    await cluster.create(CONFIG_MAPS, config_map(namespace, "b", labels={"x": "1", "y": "2"}))
    await cluster.create(CONFIG_MAPS, config_map(namespace, "c"))

    async def names(where: str, labels: dict[str, str]) -> list[str]:
        listing = await cluster.list(CONFIG_MAPS, where, labels)
        assert int(listing.resource_version) > 0
        assert all(item["kind"] == "ConfigMap" and item["apiVersion"] == "v1" for item in listing.items)
        return sorted(i["metadata"]["name"] for i in listing.items if i["metadata"]["namespace"] == namespace)

    assert await names(namespace, {"x": "1"}) == ["a", "b"]
    assert await names(namespace, {"x": "1", "y": "2"}) == ["b"]
    assert await names(namespace, {"x": "2"}) == []
    assert {"a", "b", "c"} <= set(await names(namespace, {}))
    assert await names("", {"x": "1"}) == ["a", "b"]


@_case
async def a_kind_that_is_not_served(cluster: Cluster, namespace: str) -> None:
    nothing = Resource("none.example.com/v1", "Nothing", "nothings")
    value = {"apiVersion": "none.example.com/v1", "kind": "Nothing"}
    value |= {"metadata": {"name": "n", "namespace": namespace}}  # type: ignore[dict-item]
    with pytest.raises(NotFound):
        await cluster.list(nothing, namespace)
    with pytest.raises(NotFound):
        await cluster.create(nothing, value)
    with pytest.raises(NotFound):
        await cluster.apply(nothing, value)


# --- update, merge


@_case
async def update_replaces_on_condition(cluster: Cluster, namespace: str) -> None:
    first = await cluster.create(CONFIG_MAPS, config_map(namespace, labels={"l": "1"}, a="1"))
    second = await cluster.update(CONFIG_MAPS, {**first, "data": {"b": "2"}})
    assert second["data"] == {"b": "2"}
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    with pytest.raises(Conflict) as raised:
        await cluster.update(CONFIG_MAPS, {**first, "data": {"c": "3"}})
    assert (raised.value.status, raised.value.reason) == (409, "Conflict")
    without = await cluster.update(CONFIG_MAPS, config_map(namespace, d="4"))
    assert "labels" not in without["metadata"]
    assert without["data"] == {"d": "4"}


@_case
async def update_of_nothing(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map(namespace))
    assert await cluster.delete(CONFIG_MAPS, namespace, "m")
    with pytest.raises(NotFound):
        await cluster.update(CONFIG_MAPS, made)
    with pytest.raises(NotFound):
        await cluster.merge(CONFIG_MAPS, namespace, "m", {"data": {"a": "1"}})


@_case
async def update_of_a_lease_names_its_version(cluster: Cluster, namespace: str) -> None:
    metadata = {"name": "l", "namespace": namespace}
    value = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
    await cluster.create(LEASES, value)
    with pytest.raises(KubeError) as raised:
        await cluster.update(LEASES, {**value, "spec": {"holderIdentity": "a"}})
    assert raised.value.status == 422


@_case
async def a_write_that_changes_nothing(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map(namespace, a="1"))
    version = made["metadata"]["resourceVersion"]
    same = await cluster.update(CONFIG_MAPS, made)
    assert same["metadata"]["resourceVersion"] == version
    same = await cluster.merge(CONFIG_MAPS, namespace, "m", {"data": {"a": "1"}})
    assert same["metadata"]["resourceVersion"] == version
    first = await cluster.apply(CONFIG_MAPS, config_map(namespace, "n", a="1"))
    again = await cluster.apply(CONFIG_MAPS, config_map(namespace, "n", a="1"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    await cluster.apply(DEPLOYMENTS, deployment(namespace, env={"A": "1"}))
    same = await cluster.apply(DEPLOYMENTS, deployment(namespace, env={"A": "1"}))
    assert same["metadata"]["generation"] == 1


@_case
async def merge_changes_what_it_names(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map(namespace, a="1", b="2"))
    change = {"metadata": {"labels": {"l": "1"}}, "data": {"a": None, "c": "3"}}
    merged = await cluster.merge(CONFIG_MAPS, namespace, "m", change)
    assert merged["data"] == {"b": "2", "c": "3"}
    assert merged["metadata"]["labels"] == {"l": "1"}
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"d": "4"}}
    with pytest.raises(Conflict):
        await cluster.merge(CONFIG_MAPS, namespace, "m", stale)
    fresh = {"metadata": {"resourceVersion": merged["metadata"]["resourceVersion"]}, "data": {"d": "4"}}
    assert (await cluster.merge(CONFIG_MAPS, namespace, "m", fresh))["data"]["d"] == "4"


@_case
async def constants_stay(cluster: Cluster, namespace: str) -> None:
    await cluster.create(DEPLOYMENTS, deployment(namespace, env={}))
    other = {"spec": {"selector": {"matchLabels": {"app": "b"}}}}
    with pytest.raises(KubeError) as raised:
        await cluster.merge(DEPLOYMENTS, namespace, "d", other)
    assert (raised.value.status, raised.value.reason) == (422, "Invalid")
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "iscsi-chap"}
    await cluster.create(SECRETS, {**secret, "metadata": {"name": "c", "namespace": namespace}})
    with pytest.raises(KubeError) as raised:
        await cluster.merge(SECRETS, namespace, "c", {"type": "Opaque"})
    assert raised.value.status == 422


@_case
async def an_address_stays(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(SERVICES, _service(namespace))
    address = made["spec"]["clusterIP"]
    assert made["spec"]["clusterIPs"] == [address]
    assert made["spec"]["ports"] == [{"name": "iscsi", "port": 3260, "protocol": "TCP", "targetPort": 3260}]
    updated = await cluster.update(SERVICES, _service(namespace, selector={"app": "a"}))
    assert updated["spec"]["clusterIP"] == address
    applied = await cluster.apply(SERVICES, _service(namespace, selector={"app": "b"}))
    assert applied["spec"]["clusterIP"] == address
    assert applied["spec"]["selector"] == {"app": "b"}
    headless = await cluster.create(SERVICES, _service(namespace, "h", clusterIP="None"))
    assert headless["spec"]["clusterIP"] == "None"
    with pytest.raises(KubeError) as raised:
        await cluster.create(SERVICES, _service(namespace, "t", clusterIP=address))
    assert raised.value.status == 422
    assert await cluster.delete(SERVICES, namespace, "s")
    again = await cluster.create(SERVICES, _service(namespace, "t", clusterIP=address))
    assert again["spec"]["clusterIP"] == address


# --- status


@_case
async def status_is_apart(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(THINGS, {**thing(namespace, size=1), "status": {"seen": 7}})
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    change: Object = {"spec": {"size": 3}, "status": {"seen": 1}}
    merged = await cluster.merge(THINGS, namespace, "t", change, subresource="status")
    assert (merged["spec"], merged["status"]) == ({"size": 1}, {"seen": 1})
    assert merged["metadata"]["generation"] == 1
    merged = await cluster.merge(THINGS, namespace, "t", {**change, "status": {"seen": 2}})
    assert (merged["spec"], merged["status"]) == ({"size": 3}, {"seen": 1})
    assert merged["metadata"]["generation"] == 2
    labelled = await cluster.merge(THINGS, namespace, "t", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 2
    with pytest.raises(Conflict):
        await cluster.update(THINGS, {**made, "status": {"seen": 5}}, subresource="status")
    fresh = {**labelled, "spec": {"size": 9}, "status": {"other": 6}}
    updated = await cluster.update(THINGS, fresh, subresource="status")
    assert (updated["spec"], updated["status"]) == ({"size": 3}, {"other": 6})
    again = await cluster.update(THINGS, {**updated, "spec": {"size": 4}, "status": {}})
    assert (again["spec"], again["status"]) == ({"size": 4}, {"other": 6})
    assert again["metadata"]["generation"] == 3


@_case
async def changes_of_a_builtin_kinds_spec_are_counted(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(DEPLOYMENTS, deployment(namespace, env={}))
    assert made["metadata"]["generation"] == 1
    change = {"spec": {"minReadySeconds": 1}}
    assert (await cluster.merge(DEPLOYMENTS, namespace, "d", change))["metadata"]["generation"] == 2
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert (await cluster.merge(DEPLOYMENTS, namespace, "d", labels))["metadata"]["generation"] == 2


@_case
async def update_of_a_custom_resource_names_its_version(cluster: Cluster, namespace: str) -> None:
    await cluster.create(THINGS, thing(namespace, size=1))
    with pytest.raises(KubeError) as raised:
        await cluster.update(THINGS, thing(namespace, size=2))
    assert raised.value.status == 422


@_case
async def status_of_a_kind_that_has_none(cluster: Cluster, namespace: str) -> None:
    await cluster.create(CONFIG_MAPS, config_map(namespace))
    with pytest.raises(NotFound):
        await cluster.merge(CONFIG_MAPS, namespace, "m", {"status": {"a": "b"}}, subresource="status")


# --- apply


@_case
async def apply_makes_and_changes(cluster: Cluster, namespace: str) -> None:
    first = await cluster.apply(
        DEPLOYMENTS, deployment(namespace, env={"A": "1", "B": "2"}, labels={"l": "1"})
    )
    assert first["metadata"]["generation"] == 1
    second = await cluster.apply(DEPLOYMENTS, deployment(namespace, env={"A": "1", "C": "3"}))
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["generation"] == 2
    assert _env(second) == {"A": "1", "C": "3"}
    assert not second["metadata"].get("labels")


@_case
async def apply_leaves_what_others_wrote(cluster: Cluster, namespace: str) -> None:
    await cluster.apply(DEPLOYMENTS, deployment(namespace, env={"A": "1"}))
    found = await _get(cluster, DEPLOYMENTS, namespace, "d")
    pod = found["spec"]["template"]["spec"]
    pod["containers"][0]["env"].append({"name": "THEIRS", "value": "t"})
    pod["containers"].append({"name": "sidecar", "image": "none"})
    pod["nodeSelector"] = {"n": "1"}
    found["metadata"].setdefault("annotations", {})["theirs"] = "t"
    del found["metadata"]["resourceVersion"]  # the controller of Deployments may write meanwhile
    await cluster.update(DEPLOYMENTS, found)
    after = await cluster.apply(DEPLOYMENTS, deployment(namespace, env={"B": "2"}))
    assert _env(after) == {"B": "2", "THEIRS": "t"}
    assert sorted(c["name"] for c in after["spec"]["template"]["spec"]["containers"]) == ["main", "sidecar"]
    assert after["spec"]["template"]["spec"]["nodeSelector"] == {"n": "1"}
    assert after["metadata"]["annotations"]["theirs"] == "t"


@_case
async def apply_takes_back_what_others_changed(cluster: Cluster, namespace: str) -> None:
    await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1", b="2"))
    await cluster.merge(CONFIG_MAPS, namespace, "m", {"data": {"a": "theirs"}})
    again = await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    assert again["data"] == {"a": "1"}
    last = await cluster.apply(CONFIG_MAPS, config_map(namespace, c="3"))
    assert last["data"] == {"c": "3"}


@_case
async def apply_leaves_what_was_created_otherwise(cluster: Cluster, namespace: str) -> None:
    """Fields are owned by verb: what `create` wrote is not removed because an `apply` does not have it."""
    await cluster.create(CONFIG_MAPS, config_map(namespace, a="1", b="2"))
    await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1", c="3"))
    after = await cluster.apply(CONFIG_MAPS, config_map(namespace, c="3"))
    assert after["data"] == {"a": "1", "b": "2", "c": "3"}


@_case
async def apply_merges_by_key_or_whole(cluster: Cluster, namespace: str) -> None:
    value = deployment(namespace, env={})
    pod = value["spec"]["template"]["spec"]
    pod["tolerations"] = [{"key": "a", "operator": "Exists"}]
    pod["volumes"].append({"name": "more", "emptyDir": {}})
    pod["containers"][0]["volumeMounts"].append({"name": "more", "mountPath": "/more"})
    pod["containers"][0]["ports"].append({"containerPort": 81})
    await cluster.apply(DEPLOYMENTS, value)
    value = deployment(namespace, env={})
    value["spec"]["template"]["spec"]["tolerations"] = [{"key": "b", "operator": "Exists"}]
    after = (await cluster.apply(DEPLOYMENTS, value))["spec"]["template"]["spec"]
    assert after["tolerations"] == [{"key": "b", "operator": "Exists"}]
    assert [volume["name"] for volume in after["volumes"]] == ["data"]
    assert [mount["mountPath"] for mount in after["containers"][0]["volumeMounts"]] == ["/data"]
    assert [port["containerPort"] for port in after["containers"][0]["ports"]] == [80]


@_case
async def apply_to_custom_resources(cluster: Cluster, namespace: str) -> None:
    """Maps are merged, lists are one value; finalizers are a set that others add to."""
    first = thing(namespace, map={"a": 1, "b": 2}, list=[{"name": "x", "n": 1}])
    first["metadata"]["finalizers"] = ["example.com/a"]
    await cluster.apply(THINGS, first)
    await cluster.merge(THINGS, namespace, "t", {"spec": {"map": {"theirs": 1}}})
    both = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
    await cluster.merge(THINGS, namespace, "t", both)
    after = await cluster.apply(THINGS, thing(namespace, map={"b": 3}, list=[{"name": "y"}]))
    assert after["spec"] == {"map": {"b": 3, "theirs": 1}, "list": [{"name": "y"}]}
    assert after["metadata"]["finalizers"] == ["example.com/b"]
    last = await cluster.apply(THINGS, thing(namespace, size=1))
    assert last["spec"] == {"map": {"theirs": 1}, "size": 1}
    await cluster.merge(THINGS, namespace, "t", {"metadata": {"finalizers": None}})


@_case
async def apply_of_a_status(cluster: Cluster, namespace: str) -> None:
    head = thing(namespace)
    del head["spec"]
    with pytest.raises(NotFound):
        await cluster.apply(THINGS, {**head, "status": {"seen": 1}}, subresource="status")
    await cluster.apply(THINGS, thing(namespace, size=1))
    first = {**head, "status": {"seen": 1, "more": 1}}
    after = await cluster.apply(THINGS, first, subresource="status")
    assert (after["spec"], after["status"]) == ({"size": 1}, {"seen": 1, "more": 1})
    after = await cluster.apply(THINGS, {**thing(namespace, size=2), "status": {"seen": 5}})
    assert (after["spec"], after["status"]) == ({"size": 2}, {"seen": 1, "more": 1})
    after = await cluster.apply(THINGS, {**head, "status": {"seen": 2}}, subresource="status")
    assert (after["spec"], after["status"]) == ({"size": 2}, {"seen": 2})


@_case
async def apply_with_another_uid(cluster: Cluster, namespace: str) -> None:
    value = config_map(namespace, a="1")
    value["metadata"]["uid"] = "00000000-0000-4000-8000-00000000abcd"
    with pytest.raises(Conflict):
        await cluster.apply(CONFIG_MAPS, value)
    assert await cluster.get(CONFIG_MAPS, namespace, "m") is None
    await cluster.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    with pytest.raises(KubeError) as raised:
        await cluster.apply(CONFIG_MAPS, value)
    assert raised.value.status == 422


@_case
async def writes_that_name_another_uid(cluster: Cluster, namespace: str) -> None:
    value = await cluster.create(CONFIG_MAPS, config_map(namespace, a="1"))
    value["metadata"]["uid"] = "00000000-0000-4000-8000-00000000abcd"
    with pytest.raises(KubeError) as raised:
        await cluster.update(CONFIG_MAPS, value)
    assert raised.value.status == 409
    with pytest.raises(KubeError) as raised:
        await cluster.merge(CONFIG_MAPS, namespace, "m", {"metadata": {"uid": value["metadata"]["uid"]}})
    assert raised.value.status == 422


@_case
async def create_that_names_a_version(cluster: Cluster, namespace: str) -> None:
    value = config_map(namespace)
    value["metadata"]["resourceVersion"] = "1"
    with pytest.raises(KubeError) as raised:
        await cluster.create(CONFIG_MAPS, value)
    assert raised.value.status == 500
    await cluster.apply(CONFIG_MAPS, value)  # makes it nevertheless
    with pytest.raises(Conflict):
        await cluster.apply(CONFIG_MAPS, {**value, "data": {"a": "1"}})


@_case
async def names_that_are_none(cluster: Cluster, namespace: str) -> None:
    """They would be another path."""
    for name in ("a/b", "..", ".", "a%2fb", "a?b", ""):
        with pytest.raises(KubeError) as raised:
            await cluster.get(CONFIG_MAPS, namespace, name)
        assert raised.value.status == 422, name
        with pytest.raises(KubeError) as raised:
            await cluster.delete(CONFIG_MAPS, namespace, name)
        assert raised.value.status == 422, name


# --- delete


@_case
async def delete_says_whether_it_was_there(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(CONFIG_MAPS, config_map(namespace))
    other = "00000000-0000-4000-8000-00000000abcd"
    assert not await cluster.delete(CONFIG_MAPS, namespace, "m", uid=other)
    assert await cluster.get(CONFIG_MAPS, namespace, "m") is not None
    assert await cluster.delete(CONFIG_MAPS, namespace, "m", uid=made["metadata"]["uid"])
    assert await cluster.get(CONFIG_MAPS, namespace, "m") is None
    assert not await cluster.delete(CONFIG_MAPS, namespace, "m")


@_case
async def finalizers_hold(cluster: Cluster, namespace: str) -> None:
    value = config_map(namespace)
    value["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    made = await cluster.create(CONFIG_MAPS, value)
    assert await cluster.delete(CONFIG_MAPS, namespace, "m")
    found = await _get(cluster, CONFIG_MAPS, namespace, "m")
    assert found["metadata"]["deletionTimestamp"]
    assert await cluster.delete(CONFIG_MAPS, namespace, "m", uid=made["metadata"]["uid"])
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}}
    with pytest.raises(KubeError) as raised:
        await cluster.merge(CONFIG_MAPS, namespace, "m", more)
    assert raised.value.status == 422
    assert not (await cluster.merge(CONFIG_MAPS, namespace, "m", {"data": {"a": "1"}})).get("status")
    await cluster.merge(CONFIG_MAPS, namespace, "m", {"metadata": {"finalizers": ["example.com/b"]}})
    assert await cluster.get(CONFIG_MAPS, namespace, "m") is not None
    await cluster.merge(CONFIG_MAPS, namespace, "m", {"metadata": {"finalizers": None}})
    assert await cluster.get(CONFIG_MAPS, namespace, "m") is None


@_case
async def deleting_counts_as_a_wish(cluster: Cluster, namespace: str) -> None:
    value = deployment(namespace, env={})
    value["metadata"]["finalizers"] = ["example.com/a"]
    await cluster.create(DEPLOYMENTS, value)
    assert await cluster.delete(DEPLOYMENTS, namespace, "d")
    assert (await _get(cluster, DEPLOYMENTS, namespace, "d"))["metadata"]["generation"] == 2
    await cluster.merge(DEPLOYMENTS, namespace, "d", {"metadata": {"finalizers": []}})
    assert await cluster.get(DEPLOYMENTS, namespace, "d") is None


@_case
async def a_pod_that_no_node_has_goes_at_once(cluster: Cluster, namespace: str) -> None:
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}}
    pod = {"containers": [{"name": "a", "image": "none"}], "automountServiceAccountToken": False}
    made = await cluster.create(PODS, {**value, "spec": {**pod, "nodeSelector": {"none": "none"}}})
    assert made["status"]["phase"] == "Pending"
    assert await cluster.delete(PODS, namespace, "p")
    assert await cluster.get(PODS, namespace, "p") is None


# --- watch


@asynccontextmanager
async def _watching(cluster: Cluster, namespace: str, **labels: str) -> AsyncIterator[Callable[[], Any]]:
    """A function that gives the next event but bookmarks, as (kind, name, data)."""
    listing = await cluster.list(CONFIG_MAPS, namespace, labels)
    watch = cluster.watch(CONFIG_MAPS, namespace, labels, since=listing.resource_version)
    async with watch as events:

        async def next_event() -> tuple[WatchKind, str, dict[str, str]]:
            with trio.fail_after(WAIT_S):
                while (event := await anext(events)).kind is WatchKind.BOOKMARK:
                    continue
            return event.kind, event.object["metadata"]["name"], event.object.get("data", {})

        yield next_event


@_case
async def watch_tells_what_happens(cluster: Cluster, namespace: str) -> None:
    async with _watching(cluster, namespace) as next_event:
        await cluster.create(CONFIG_MAPS, config_map(namespace, a="1"))
        assert await next_event() == (WatchKind.ADDED, "m", {"a": "1"})
        await cluster.merge(CONFIG_MAPS, namespace, "m", {"data": {"a": "2"}})
        assert await next_event() == (WatchKind.MODIFIED, "m", {"a": "2"})
        await cluster.delete(CONFIG_MAPS, namespace, "m")
        assert await next_event() == (WatchKind.DELETED, "m", {"a": "2"})


@_case
async def watch_begins_after_what_was_listed(cluster: Cluster, namespace: str) -> None:
    listing = await cluster.list(CONFIG_MAPS, namespace)
    await cluster.create(CONFIG_MAPS, config_map(namespace, "a"))
    made = await cluster.create(CONFIG_MAPS, config_map(namespace, "b"))
    await cluster.create(CONFIG_MAPS, config_map(namespace, "c"))

    async def names(since: str, count: int) -> list[str]:
        found: list[WatchEvent] = []
        async with cluster.watch(CONFIG_MAPS, namespace, since=since) as events:
            with trio.fail_after(WAIT_S):
                while len(found) < count:
                    found.append(await anext(events))
        return [event.object["metadata"]["name"] for event in found]

    assert await names(listing.resource_version, 3) == ["a", "b", "c"]
    assert await names(made["metadata"]["resourceVersion"], 1) == ["c"]


@_case
async def watch_by_labels(cluster: Cluster, namespace: str) -> None:
    """What gets the labels is added, what loses them is deleted."""
    await cluster.create(CONFIG_MAPS, config_map(namespace, "a", n="1"))
    async with _watching(cluster, namespace, l="1") as next_event:
        await cluster.create(CONFIG_MAPS, config_map(namespace, "b", labels={"l": "2"}))
        await cluster.merge(CONFIG_MAPS, namespace, "a", {"metadata": {"labels": {"l": "1"}}})
        assert (await next_event())[:2] == (WatchKind.ADDED, "a")
        await cluster.merge(CONFIG_MAPS, namespace, "a", {"data": {"n": "2"}})
        assert await next_event() == (WatchKind.MODIFIED, "a", {"n": "2"})
        await cluster.merge(CONFIG_MAPS, namespace, "a", {"metadata": {"labels": {"l": "2"}}})
        assert (await next_event())[:2] == (WatchKind.DELETED, "a")
        await cluster.create(CONFIG_MAPS, config_map(namespace, "c", labels={"l": "1"}))
        assert (await next_event())[:2] == (WatchKind.ADDED, "c")


@_case
async def watch_of_a_kind_that_is_not_served(cluster: Cluster, namespace: str) -> None:
    nothing = Resource("none.example.com/v1", "Nothing", "nothings")
    with pytest.raises(NotFound):
        async with cluster.watch(nothing, namespace, since="1") as events:
            await anext(events)
