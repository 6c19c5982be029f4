"""What Kubernetes' own controllers do that Maya relies on, case by case: for real ones, and for those in
memory.

Use, in a test module: with a `Cluster` whose controllers run, and a namespace of the case's own,

    @pytest.mark.parametrize("case", CONTROLLER_CASES, ids=case_name)
    async def test_controllers(case: Case) -> None:
        await case(MyCluster(...), "a-namespace-of-its-own")

Not checked: pods that run, since a control plane without nodes has none.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from pyjiva.maya.kube import Cluster, Object, Resource
from pyjiva.maya.kube.resource import CLAIMS, CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS, PV, STORAGE_CLASSES
from tests.suites.kube_cluster import WAIT_S, Case, config_map, deployment

__all__ = ["CONTROLLER_CASES"]

CONTROLLER_CASES: Final[list[Case]] = []


def _case(function: Case) -> Case:
    CONTROLLER_CASES.append(function)
    return function


async def _until(condition: Callable[[], Awaitable[Any]]) -> Any:
    with trio.fail_after(WAIT_S):
        while not (value := await condition()):
            await trio.sleep(0.05)  # between two looks
    return value


async def _phase(cluster: Cluster, resource: Resource, namespace: str, name: str, phase: str) -> Object:
    async def reached() -> Object | None:
        found = await cluster.get(resource, namespace, name)
        return found if found and found["status"].get("phase") == phase else None

    found: Object = await _until(reached)
    return found


async def _gone(cluster: Cluster, resource: Resource, namespace: str, name: str) -> None:
    async def gone() -> bool:
        return await cluster.get(resource, namespace, name) is None

    await _until(gone)


def _claim(namespace: str, name: str = "c", **spec: Any) -> Object:
    wanted = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    metadata = {"name": name, "namespace": namespace}
    return {"metadata": metadata, "spec": {"storageClassName": f"class-{namespace}", **wanted, **spec}}


async def _all_is_looked_at(cluster: Cluster, namespace: str) -> None:
    """The controller of claims has come to what is made now, so it has left alone what it left alone."""
    claim = await cluster.create(CLAIMS, _claim(namespace, "marker"))
    volume = _volume(namespace, claim)
    volume["metadata"]["name"] = f"marker-{namespace}"
    volume["spec"]["claimRef"]["name"] = "marker"
    await cluster.create(PV, volume)
    await _phase(cluster, CLAIMS, namespace, "marker", "Bound")
    await cluster.delete(CLAIMS, namespace, "marker")
    await _gone(cluster, CLAIMS, namespace, "marker")
    await cluster.delete(PV, "", f"marker-{namespace}")
    await _gone(cluster, PV, "", f"marker-{namespace}")


def _class(namespace: str, **more: Any) -> Object:
    return {"metadata": {"name": f"class-{namespace}"}, "provisioner": "example.com/none", **more}


def _volume(namespace: str, claim: Object | None = None, **spec: Any) -> Object:
    of = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace, "name": "c"}
    if claim is not None:
        of["uid"] = claim["metadata"]["uid"]
    iscsi = {"targetPortal": "10.96.0.9:3260", "iqn": "iqn.2016-09.com.example:v", "lun": 0}
    made = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": of, "iscsi": iscsi}
    made |= {"storageClassName": f"class-{namespace}", "persistentVolumeReclaimPolicy": "Delete"}
    return {"metadata": {"name": f"v-{namespace}"}, "spec": {**made, **spec}}


@_case
async def a_volume_that_names_a_claim_is_bound(cluster: Cluster, namespace: str) -> None:
    name = f"v-{namespace}"
    claim = await cluster.create(CLAIMS, _claim(namespace))
    await cluster.create(PV, _volume(namespace, claim))
    bound = await _phase(cluster, CLAIMS, namespace, "c", "Bound")
    assert bound["spec"]["volumeName"] == name
    assert bound["status"]["capacity"] == {"storage": "1Gi"}
    assert bound["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    volume = await _phase(cluster, PV, "", name, "Bound")
    assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    assert await cluster.delete(PV, "", name)  # in use: it goes with the claim
    await _all_is_looked_at(cluster, namespace)
    assert await cluster.get(PV, "", name) is not None
    assert await cluster.delete(CLAIMS, namespace, "c")
    await _gone(cluster, CLAIMS, namespace, "c")
    await _gone(cluster, PV, "", name)


@_case
async def a_volume_is_released_with_its_claim_and_stays(cluster: Cluster, namespace: str) -> None:
    name = f"v-{namespace}"
    claim = await cluster.create(CLAIMS, _claim(namespace))
    # As provisioners mark it: without, the controller would look for a plugin that deletes, and say Failed.
    made = _volume(namespace, claim)
    made["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": "example.com/none"}
    await cluster.create(PV, made)
    await _phase(cluster, CLAIMS, namespace, "c", "Bound")
    await cluster.delete(CLAIMS, namespace, "c")
    await _phase(cluster, PV, "", name, "Released")
    await cluster.create(CLAIMS, _claim(namespace))  # of this name, not the same
    await _all_is_looked_at(cluster, namespace)
    await _phase(cluster, CLAIMS, namespace, "c", "Pending")
    await _phase(cluster, PV, "", name, "Released")
    assert await cluster.delete(PV, "", name)
    await _gone(cluster, PV, "", name)


@_case
async def a_volume_that_is_not_what_the_claim_wants_is_not_bound(cluster: Cluster, namespace: str) -> None:
    name = f"v-{namespace}"
    claim = await cluster.create(CLAIMS, _claim(namespace))
    for spec in (
        {"capacity": {"storage": "1023Mi"}},
        {"volumeMode": "Block"},
        {"accessModes": ["ReadOnlyMany"]},
    ):
        await cluster.create(PV, _volume(namespace, claim, **spec))
        await _all_is_looked_at(cluster, namespace)
        await _phase(cluster, CLAIMS, namespace, "c", "Pending")
        assert await cluster.delete(PV, "", name), spec
        await _gone(cluster, PV, "", name)


@_case
async def a_volume_waits_for_the_claim_that_it_names(cluster: Cluster, namespace: str) -> None:
    name = f"v-{namespace}"
    await cluster.create(PV, _volume(namespace))
    await _phase(cluster, PV, "", name, "Available")
    claim = await cluster.create(CLAIMS, _claim(namespace))
    await _phase(cluster, CLAIMS, namespace, "c", "Bound")
    volume = await _phase(cluster, PV, "", name, "Bound")
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    await cluster.delete(CLAIMS, namespace, "c")
    await cluster.delete(PV, "", name)
    await _gone(cluster, PV, "", name)


@_case
async def a_claim_names_its_provisioner(cluster: Cluster, namespace: str) -> None:
    await cluster.create(STORAGE_CLASSES, _class(namespace))
    await cluster.create(CLAIMS, _claim(namespace))

    async def asked() -> str | None:
        found = await cluster.get(CLAIMS, namespace, "c")
        assert found is not None
        annotations = found["metadata"].get("annotations") or {}
        return annotations.get("volume.kubernetes.io/storage-provisioner")

    assert await _until(asked) == "example.com/none"
    await cluster.delete(STORAGE_CLASSES, "", f"class-{namespace}")


@_case
async def a_claim_that_waits_for_a_pod_is_not_asked_for(cluster: Cluster, namespace: str) -> None:
    await cluster.create(STORAGE_CLASSES, _class(namespace, volumeBindingMode="WaitForFirstConsumer"))
    await cluster.create(CLAIMS, _claim(namespace))
    await _all_is_looked_at(cluster, namespace)
    found = await cluster.get(CLAIMS, namespace, "c")
    assert found is not None
    assert not found["metadata"].get("annotations")
    await cluster.delete(STORAGE_CLASSES, "", f"class-{namespace}")


@_case
async def what_has_lost_its_owner_goes(cluster: Cluster, namespace: str) -> None:
    owner = await cluster.create(CONFIG_MAPS, config_map(namespace, "owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    for name, owners in (("owned", [reference]), ("orphan", [{**reference, "uid": "none"}])):
        value = config_map(namespace, name)
        value["metadata"]["ownerReferences"] = owners
        await cluster.create(CONFIG_MAPS, value)
    await _gone(cluster, CONFIG_MAPS, namespace, "orphan")
    assert await cluster.get(CONFIG_MAPS, namespace, "owned") is not None
    await cluster.delete(CONFIG_MAPS, namespace, "owner")
    await _gone(cluster, CONFIG_MAPS, namespace, "owned")


@_case
async def a_namespace_goes_with_what_is_in_it(cluster: Cluster, namespace: str) -> None:
    name = f"{namespace}-more"
    await cluster.create(NAMESPACES, {"metadata": {"name": name}})
    value = config_map(name, "held")
    value["metadata"]["finalizers"] = ["example.com/a"]
    await cluster.create(CONFIG_MAPS, value)
    await cluster.create(CONFIG_MAPS, config_map(name, "free"))
    await cluster.delete(NAMESPACES, "", name)
    await _gone(cluster, CONFIG_MAPS, name, "free")
    await _phase(cluster, NAMESPACES, "", name, "Terminating")
    await cluster.merge(CONFIG_MAPS, name, "held", {"metadata": {"finalizers": None}})
    await _gone(cluster, NAMESPACES, "", name)


@_case
async def a_pod_that_fits_nowhere_says_so_and_goes_with_its_deployment(
    cluster: Cluster, namespace: str
) -> None:
    value = deployment(namespace, env={})
    value["spec"]["replicas"] = 1
    value["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "none"}
    await cluster.create(DEPLOYMENTS, value)

    async def said() -> Object | None:
        for pod in (await cluster.list(PODS, namespace, {"app": "a"})).items:
            for condition in pod["status"].get("conditions") or []:
                if condition["type"] == "PodScheduled":
                    return dict(condition)
        return None

    condition = await _until(said)
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    await cluster.delete(DEPLOYMENTS, namespace, "d")

    async def none_left() -> bool:
        return not (await cluster.list(PODS, namespace, {"app": "a"})).items

    await _until(none_left)
