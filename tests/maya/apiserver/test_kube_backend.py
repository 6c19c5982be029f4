"""`maya.apiserver.kube_backend_io`: the verbs as objects of an API server in memory."""

import json
from typing import Any

import attrs
import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pyjiva.maya.apiserver import (
    AlreadyExists,
    Backend,
    CasPhase,
    CloneSource,
    NewVolume,
    NotFound,
    Refused,
    Unavailable,
    VolumeName,
    maya_application,
)
from pyjiva.maya.apiserver import kube_backend_io as module
from pyjiva.maya.apiserver.kube_backend_io import KubeBackend, fetch_families
from pyjiva.maya.apiserver.kube_view import snapshot_object_name
from pyjiva.maya.kube import Cluster
from pyjiva.maya.kube.cluster import Forbidden, KubeError
from pyjiva.maya.kube.resource import (
    CLAIMS,
    JIVA_SNAPSHOTS,
    JIVA_VOLUMES,
    NAMESPACES,
    PODS,
    STORAGE_CLASSES,
)
from pyjiva.maya.policy import PoliciesRefused
from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.testing.kube import FakeCluster, Moment, ProcessDied, die_at, fail_at
from pyjiva.transport.http_io import http_application

GIB = 1 << 30
A = VolumeName("pvc-1")
CONFIG = "cas.openebs.io/config"


@pytest.fixture
async def cluster() -> FakeCluster:
    """With two namespaces."""
    made = FakeCluster()
    for name in ("openebs", "shop"):
        value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await made.client("somebody").create(NAMESPACES, value)
    return made


@pytest.fixture
def backend(cluster: FakeCluster) -> KubeBackend:
    real: Cluster = cluster
    made = KubeBackend(real, "openebs", given_pools={"fast": "/mnt/fast"})
    conforms: Backend = made
    assert conforms is made
    return made


def config(**policies: str) -> dict[str, str]:
    entries = [
        {"name": name, ("enabled" if text in ("true", "false") else "value"): text}
        for name, text in policies.items()
    ]
    return {CONFIG: json.dumps(entries)}


async def put_class(cluster: FakeCluster, name: str = "fast", **policies: str) -> None:
    await cluster.create(
        STORAGE_CLASSES,
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "annotations": config(**policies)},
            "provisioner": "openebs.io/provisioner-iscsi",
        },
    )


async def put_claim(
    cluster: FakeCluster, name: str = "db-0", mode: str = "Filesystem", **policies: str
) -> None:
    await cluster.create(
        CLAIMS,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "shop", "annotations": config(**policies)},
            "spec": {"volumeMode": mode, "accessModes": ["ReadWriteOnce"]},
        },
    )


def asked(**more: Any) -> NewVolume:
    return attrs.evolve(NewVolume("pvc-1", "shop", 5 * GIB), **more)


async def stored(cluster: FakeCluster, namespace: str = "openebs", name: str = "pvc-1") -> JivaVolume:
    value = await cluster.get(JIVA_VOLUMES, namespace, name)
    assert value is not None
    return JivaVolume.of(value)


async def say(cluster: FakeCluster, status: dict[str, Any], name: str = "pvc-1") -> None:
    """As the reconciler does."""
    await cluster.merge(JIVA_VOLUMES, "openebs", name, {"status": status}, subresource="status")


async def say_snapshot(cluster: FakeCluster, name: str, status: dict[str, Any]) -> None:
    await cluster.merge(JIVA_SNAPSHOTS, "openebs", name, {"status": status}, subresource="status")


async def test_a_volume_has_the_policies_of_its_claim_and_class(
    cluster: FakeCluster, backend: KubeBackend
) -> None:
    await put_class(cluster, ReplicaCount="2", StoragePool="fast")
    await put_claim(cluster, mode="Block", ReplicaCount="5")
    view = await backend.create(asked(storage_class="fast", claim="db-0", labels={"app": "db"}))
    assert (view.phase, view.reason) == (CasPhase.PENDING, "NotLookedAt")
    assert (view.namespace, view.claim, view.storage_class) == ("shop", "db-0", "fast")
    assert view.labels == {"app": "db"}
    made = await stored(cluster)
    assert (made.spec.policy.replica_count, made.spec.policy.pool_path) == (5, "/mnt/fast")
    assert (made.spec.desired_replication_factor, made.spec.access_type) == (5, "block")
    assert (made.spec.pv, made.spec.capacity_bytes) == ("pvc-1", 5 * GIB)
    assert made.labels == {
        "app": "db",
        "openebs.io/persistent-volume": "pvc-1",
        "openebs.io/persistent-volume-claim": "db-0",
        "openebs.io/namespace": "shop",
        "openebs.io/storageclass": "fast",
    }


async def test_what_is_asked_for_again_is_there(cluster: FakeCluster, backend: KubeBackend) -> None:
    await put_class(cluster)
    await put_claim(cluster)
    wanted = asked(storage_class="fast", claim="db-0")
    first = await backend.create(wanted)
    assert await backend.create(wanted) == first
    with pytest.raises(AlreadyExists, match="capacity: it has 5Gi, asked for was 6Gi"):
        await backend.create(attrs.evolve(wanted, capacity_bytes=6 * GIB))
    with pytest.raises(AlreadyExists, match="claim: it has db-0, asked for was none"):
        await backend.create(attrs.evolve(wanted, claim=""))
    assert len((await cluster.list(JIVA_VOLUMES)).items) == 1


async def test_names_that_no_label_can_have_are_kept(cluster: FakeCluster, backend: KubeBackend) -> None:
    name = "a" * 200
    await put_claim(cluster, name)
    view = await backend.create(asked(claim=name))
    assert view.claim == name
    assert (await backend.get(A)).claim == name


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"storage_class": "none"}, "there is no StorageClass none"),
        ({"claim": "none"}, "there is no claim shop/none"),
        ({"name": "a" * 55}, "names have at most 54 characters"),
    ],
)
async def test_what_is_named_has_to_be_there(backend: KubeBackend, change: dict[str, str], why: str) -> None:
    with pytest.raises(Refused, match=why):
        await backend.create(asked(**change))


async def test_policies_stand_in_one_place(cluster: FakeCluster, backend: KubeBackend) -> None:
    await put_claim(cluster)
    with pytest.raises(PoliciesRefused, match="to stand on the claim db-0"):
        await backend.create(asked(claim="db-0", annotations=config(ReplicaCount="2")))
    await backend.create(asked(annotations=config(ReplicaCount="2")))
    assert (await stored(cluster)).spec.policy.replica_count == 2


async def test_what_is_wrong_with_a_class_is_said(cluster: FakeCluster, backend: KubeBackend) -> None:
    await put_class(cluster, ReplicaCount="2")
    await cluster.merge(STORAGE_CLASSES, "", "fast", {"metadata": {"annotations": {CONFIG: "- name: X"}}})
    with pytest.raises(PoliciesRefused, match="StorageClass fast: X: is no policy's name"):
        await backend.create(asked(storage_class="fast"))
    assert (await cluster.list(JIVA_VOLUMES)).items == ()


async def test_pods_may_be_in_the_claims_namespace(cluster: FakeCluster, backend: KubeBackend) -> None:
    await put_claim(cluster, DeployInOpenEBSNamespace="false")
    await backend.create(asked(claim="db-0"))
    assert (await stored(cluster, "shop")).namespace == "shop"
    for namespace in ("", "shop"):
        assert (await backend.get(VolumeName("pvc-1", namespace))).name == "pvc-1"
    await backend.create(asked(claim="db-0"))
    assert len((await cluster.list(JIVA_VOLUMES)).items) == 1


async def test_pods_stay_in_mayas_namespace_where_it_has_no_rights_elsewhere(
    cluster: FakeCluster, backend: KubeBackend
) -> None:
    backend.all_namespaces = False
    with pytest.raises(PoliciesRefused, match="DeployInOpenEBSNamespace: found 'false', expected true"):
        await backend.create(asked(annotations=config(DeployInOpenEBSNamespace="false")))
    assert (await cluster.list(JIVA_VOLUMES)).items == ()
    await backend.create(asked())


async def test_how_a_volume_is(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    ready = {"type": "Ready", "status": "False", "reason": "Starting", "message": "no pod runs"}
    await say(cluster, {"phase": "Pending", "conditions": [ready]})
    view = await backend.get(A)
    assert (view.phase, view.reason, view.message) == (CasPhase.PENDING, "Starting", "no pod runs")
    assert not view.controller_runs
    in_sync = {"type": "InSync", "status": "False", "reason": "Degraded", "message": "2 of 3"}
    places = [
        {"id": 1, "state": "Member", "node": "n1", "address": "10.0.0.1:9502", "mode": "in-sync"},
        {
            "id": 4,
            "state": "Member",
            "node": "n2",
            "address": "10.0.0.2:9502",
            "mode": "witness",
            "witness": True,
        },
    ]
    status = {
        "phase": "Ready",
        "status": "RW",
        "capacity": "5Gi",
        "iscsi": {"targetPortal": "10.96.0.1:3260", "iqn": "iqn.2016-09.com.openebs.jiva:pvc-1"},
        "conditions": [{**ready, "status": "True"}, in_sync],
        "replicas": places,
    }
    await say(cluster, status)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "pvc-1-ctrl-x",
            "namespace": "openebs",
            "labels": {
                "openebs.io/persistent-volume": "pvc-1",
                "openebs.io/controller": "jiva-controller",
            },
        },
        "spec": {"nodeName": "n3", "containers": []},
    }
    await cluster.create(PODS, pod)
    await cluster.merge(
        PODS, "openebs", "pvc-1-ctrl-x", {"status": {"phase": "Running"}}, subresource="status"
    )
    (view,) = await backend.list("shop")
    assert (view.phase, view.reason, view.message) == (CasPhase.AVAILABLE, "Degraded", "2 of 3")
    assert (view.portals, view.controller_node, view.controller_runs) == (("10.96.0.1:3260",), "n3", True)
    assert [(each.id, each.node, each.witness) for each in view.replicas] == [
        (1, "n1", False),
        (4, "n2", True),
    ]
    assert await backend.list("other") == []
    await say(cluster, {"phase": "Failed"})
    assert (await backend.get(A)).phase is CasPhase.FAILED
    with pytest.raises(NotFound):
        await backend.get(VolumeName("pvc-1", "other"))


async def test_growing(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    await backend.expand(A, 8 * GIB)
    await backend.expand(A, 8 * GIB)
    assert (await stored(cluster)).spec.capacity_bytes == 8 * GIB
    with pytest.raises(Refused, match="do not become smaller"):
        await backend.expand(A, 5 * GIB)
    assert len(cluster.writes) == 2


async def test_growing_minds_who_changes_it_meanwhile(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    other = cluster.client("other")
    raced = False

    async def race(call: Any, moment: Moment) -> None:
        nonlocal raced
        if call.verb == "merge" and moment is Moment.BEFORE and not raced:
            raced = True
            await other.merge(JIVA_VOLUMES, "openebs", "pvc-1", {"spec": {"capacity": "9Gi"}})
        await trio.lowlevel.checkpoint()

    cluster.fault = race
    with pytest.raises(Refused, match="do not become smaller"):
        await backend.expand(A, 8 * GIB)
    assert (await stored(other)).spec.capacity_bytes == 9 * GIB


async def test_deleting(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    await cluster.merge(JIVA_VOLUMES, "openebs", "pvc-1", {"metadata": {"finalizers": ["openebs.io/x"]}})
    await backend.delete(A)
    await backend.delete(A)
    assert (await backend.get(A)).reason == "Deleting"
    with pytest.raises(Unavailable, match="is being deleted"):
        await backend.create(asked())
    with pytest.raises(NotFound):
        await backend.create_snapshot(A, "s")
    await cluster.merge(JIVA_VOLUMES, "openebs", "pvc-1", {"metadata": {"finalizers": []}})
    with pytest.raises(NotFound):
        await backend.delete(A)


async def test_snapshots_and_clones(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    made = await backend.create_snapshot(A, "pvc-1_s_2026")
    assert not made.ready
    assert await backend.create_snapshot(A, "pvc-1_s_2026") == made
    assert len((await cluster.list(JIVA_SNAPSHOTS)).items) == 1
    clone = asked(name="pvc-2", source=CloneSource("pvc-1", "pvc-1_s_2026"))
    with pytest.raises(Unavailable, match="is not ready: it is being made"):
        await backend.create(clone)
    name = snapshot_object_name("pvc-1", "pvc-1_s_2026")
    status = {
        "phase": "Ready",
        "readyToUse": True,
        "restoreSize": "5Gi",
        "creationTime": "2026-01-01T00:00:00Z",
    }
    await say_snapshot(cluster, name, status)
    found = await backend.get_snapshot(A, "pvc-1_s_2026")
    assert (found.ready, found.size_bytes, found.namespace) == (True, 5 * GIB, "shop")
    assert await backend.snapshots(A) == await backend.snapshots(None, "shop") == [found]
    assert await backend.snapshots(None, "other") == []
    with pytest.raises(Refused, match="too small"):
        await backend.create(attrs.evolve(clone, capacity_bytes=GIB))
    with pytest.raises(NotFound, match="no snapshot 'x'"):
        await backend.create(attrs.evolve(clone, source=CloneSource("pvc-1", "x")))
    with pytest.raises(NotFound, match="there is no volume x"):
        await backend.create(attrs.evolve(clone, source=CloneSource("x", "s")))
    view = await backend.create(clone)
    assert view.source == CloneSource("pvc-1", "pvc-1_s_2026")
    with pytest.raises(Refused, match="pvc-2 is being filled from it"):
        await backend.delete_snapshot(A, "pvc-1_s_2026")
    with pytest.raises(Refused, match="pvc-2 is being filled from it"):
        await backend.delete(A)
    await say(cluster, {"filled": True}, "pvc-2")
    await backend.delete_snapshot(A, "pvc-1_s_2026")
    with pytest.raises(NotFound):
        await backend.delete_snapshot(A, "pvc-1_s_2026")


async def test_a_snapshot_that_a_person_made_is_one(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    value = {
        "apiVersion": "openebs.io/v1",
        "kind": "JivaSnapshot",
        "metadata": {"name": "mine", "namespace": "openebs"},
        "spec": {"volumeName": "pvc-1", "snapshotName": "s"},
    }
    await cluster.create(JIVA_SNAPSHOTS, value)
    assert (await backend.get_snapshot(A, "s")).name == "s"
    await backend.delete_snapshot(A, "s")
    assert (await cluster.list(JIVA_SNAPSHOTS)).items == ()


def test_names_of_snapshots_objects_differ() -> None:
    names = ["a", "A", "a_b", "a.b", "a" * 63, "a" * 64, "-", "a-b"]
    found = {snapshot_object_name("pvc-1", name) for name in names}
    assert len(found) == len(names)
    assert snapshot_object_name("pvc-1", "a") == "pvc-1.a"
    assert all(len(each) <= 253 and each == each.lower() and "_" not in each for each in found)


async def test_stats_are_the_exporters(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked())
    with pytest.raises(Unavailable, match="no address yet"):
        await backend.stats(A)
    await say(cluster, {"iscsi": {"targetPortal": "[fd00::1]:3260", "iqn": "x"}})
    asked_for = []

    async def fetch(url: str) -> Any:
        asked_for.append(url)
        return [{"name": "openebs_reads"}]

    backend.fetch = fetch
    assert await backend.stats(A) == [{"name": "openebs_reads"}]
    assert asked_for == ["http://[fd00::1]:9500/metrics/?format=json"]


async def test_stats_need_an_exporter(cluster: FakeCluster, backend: KubeBackend) -> None:
    await backend.create(asked(annotations=config(VolumeMonitor="false")))
    with pytest.raises(Refused, match="VolumeMonitor"):
        await backend.stats(A)


@pytest.mark.parametrize("path", ["/none", "/text", "/large"])
async def test_what_is_no_metrics_is_unavailable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def large(_: Request) -> Response:
        return JSONResponse(["x" * 100])

    async def text(_: Request) -> Response:
        return PlainTextResponse("hello")

    app = http_application([Route("/large", large), Route("/text", text)])
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient
    monkeypatch.setattr(module, "STATS_BYTES_MAX", 50)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **_: client(transport=transport))
    with pytest.raises(Unavailable):
        await fetch_families(f"http://x{path}")


async def test_pools_and_health(cluster: FakeCluster, backend: KubeBackend) -> None:
    assert [(each.name, each.path) for each in await backend.pools()] == [
        ("default", "/var/openebs"),
        ("fast", "/mnt/fast"),
    ]
    assert await backend.why_unhealthy() == ""

    async def broken(*_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise KubeError("connection refused")

    cluster.fault = broken
    assert await backend.why_unhealthy() == "Kubernetes' API: connection refused"
    with pytest.raises(Unavailable, match="connection refused"):
        await backend.list()


async def test_what_kubernetes_would_never_take_is_refused(backend: KubeBackend) -> None:
    with pytest.raises(Refused, match=r"is invalid: metadata\.labels"):
        await backend.create(asked(labels={"a b": "c"}))
    elsewhere = config(DeployInOpenEBSNamespace="false")
    with pytest.raises(Refused, match='namespaces "none" not found'):
        await backend.create(asked(namespace="none", annotations=elsewhere))


async def test_who_may_not_is_told_so(cluster: FakeCluster, backend: KubeBackend) -> None:
    cluster.fault = fail_at(1, Moment.BEFORE, Forbidden("no rights"))
    with pytest.raises(Refused, match="no rights"):
        await backend.create(asked())


async def test_an_answer_that_is_lost_is_asked_for_again(cluster: FakeCluster, backend: KubeBackend) -> None:
    cluster.fault = fail_at(1, Moment.AFTER)
    with pytest.raises(Unavailable):
        await backend.create(asked())
    first = await stored(cluster)
    assert (await backend.create(asked())).volume_id == first.spec.volume_id


@pytest.mark.parametrize("moment", [*Moment])
async def test_killed_at_its_only_write_it_is_asked_again(cluster: FakeCluster, moment: Moment) -> None:
    dying = cluster.client()
    dying.fault = die_at(1, moment)
    with pytest.raises(ProcessDied):
        await KubeBackend(dying, "openebs").create(asked())
    after = KubeBackend(cluster, "openebs")
    await after.create(asked())
    assert len((await cluster.list(JIVA_VOLUMES)).items) == 1


async def test_two_who_are_asked_at_once_make_one(cluster: FakeCluster) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(KubeBackend(cluster.client(name), "openebs").create, asked())
    assert len((await cluster.list(JIVA_VOLUMES)).items) == 1


async def test_it_is_served(cluster: FakeCluster, backend: KubeBackend) -> None:
    """As m-apiserver was asked by the provisioner."""
    await put_class(cluster, ReplicaCount="1")
    await put_claim(cluster)
    labels = {"openebs.io/storageclass": "fast", "openebs.io/persistentvolumeclaim": "db-0"}
    body = {"metadata": {"name": "pvc-1", "labels": labels}, "spec": {"capacity": "5G", "casType": "jiva"}}
    transport = httpx.ASGITransport(maya_application(backend))
    async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
        headers = {"namespace": "shop"}
        assert (await client.get("/latest/volumes/pvc-1", headers=headers)).status_code == 404
        made = await client.post("/latest/volumes/", headers=headers, json=body)
        assert made.status_code == 200, made.text
        found = (await client.get("/latest/volumes/pvc-1", headers=headers)).json()
        assert found["spec"]["replicas"] == "1"
        assert (await client.delete("/latest/volumes/pvc-1", headers=headers)).status_code == 200
        assert (await client.get("/latest/volumes/pvc-1", headers=headers)).status_code == 404


async def test_with_the_rights_of_its_account_alone(cluster: FakeCluster) -> None:
    """Pods are looked at only where volumes are; without that right the controller's node is not told."""
    await put_class(cluster)
    await put_claim(cluster)
    ours = cluster.client()
    ours.rules = [
        {"apiGroups": ["openebs.io"], "resources": ["jivavolumes", "jivasnapshots"], "verbs": ["*"]},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]},
    ]
    backend = KubeBackend(ours, "openebs")
    view = await backend.create(asked(storage_class="fast", claim="db-0"))
    assert view.controller_node == ""
    await backend.expand(A, 8 * GIB)
    await backend.create_snapshot(A, "s")
    assert len(await backend.snapshots(None)) == len(await backend.list()) == 1
    await backend.delete_snapshot(A, "s")
    await backend.delete(A)
    assert await backend.why_unhealthy() == ""
