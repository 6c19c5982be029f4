"""`testing.kube_controllers`: pods, jobs, claims and nodes in memory do what those of a cluster do."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.resource import CLAIMS, DEPLOYMENTS, JOBS, NAMESPACES, NODES, PODS, PV, STORAGE_CLASSES
from pyjiva.testing.kube import FakeCluster
from pyjiva.testing.kube_controllers import FakeControllers
from pyjiva.testing.kube_store import Store
from tests.suites.kube_cluster import Case, case_name, deployment
from tests.suites.kube_controllers import CONTROLLER_CASES

NS = "default"
HOSTNAME = "kubernetes.io/hostname"


def world(nodes: int = 3, **options: Any) -> tuple[Store, FakeControllers]:
    store = Store(protects_storage=True)
    controllers = FakeControllers(store, **options)
    for number in range(1, nodes + 1):
        controllers.add_node(f"n{number}", {"disk": "ssd" if number == 3 else "hdd"})
    return store, controllers


def with_pods(replicas: int, strategy: str = "RollingUpdate", **pod: Any) -> Object:
    value = deployment(NS, env={})
    value["spec"]["replicas"] = replicas
    value["spec"]["strategy"] = {"type": strategy}
    value["spec"]["template"]["spec"].update(pod)
    return value


def pods(store: Store) -> list[tuple[str, str, bool]]:
    """(node, phase, whether it is being deleted), sorted."""
    return sorted(
        (
            pod["spec"].get("nodeName", ""),
            pod["status"]["phase"],
            "deletionTimestamp" in pod["metadata"],
        )
        for pod in store.select(PODS)
    )


def apart() -> Object:
    term = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "a"}}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def on_nodes(key: str, operator: str, *values: str) -> Object:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize("case", CONTROLLER_CASES, ids=case_name)
async def test_contract(case: Case, autojump_clock: MockClock) -> None:
    store, controllers = world()
    cluster = FakeCluster(store)
    await cluster.create(NAMESPACES, {"metadata": {"name": "ns"}})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(controllers.run)
        await case(cluster, "ns")
        nursery.cancel_scope.cancel()
    store.self_check()


# --- pods


async def test_a_deployments_pods_run_and_follow_its_number() -> None:
    store, controllers = world()
    store.create(DEPLOYMENTS, with_pods(3))
    controllers.settle()
    assert pods(store) == [(node, "Running", False) for node in ("n1", "n2", "n3")]
    addresses = {pod["status"]["podIP"] for pod in store.select(PODS)}
    assert len(addresses) == 3
    found = store.get(DEPLOYMENTS, NS, "d")
    assert found is not None and found["status"]["readyReplicas"] == 3
    store.merge(DEPLOYMENTS, NS, "d", {"spec": {"replicas": 1}})
    controllers.settle()
    assert len(pods(store)) == 1
    store.delete(DEPLOYMENTS, NS, "d")
    controllers.settle()
    assert pods(store) == []


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ({"nodeSelector": {HOSTNAME: "n2"}}, ["n2"]),
        ({"nodeSelector": {HOSTNAME: "n9"}}, [""]),
        ({"affinity": on_nodes("disk", "In", "ssd", "nvme")}, ["n3"]),
        ({"affinity": on_nodes(HOSTNAME, "NotIn", "n1", "n2")}, ["n3"]),
        ({"affinity": on_nodes("disk", "DoesNotExist")}, [""]),
        ({"affinity": on_nodes("disk", "Exists") | apart()}, ["n1"]),
        ({"nodeName": "n2"}, ["n2"]),
    ],
)
async def test_pods_go_where_they_may(pod: Object, expected: list[str]) -> None:
    store, controllers = world()
    store.create(DEPLOYMENTS, with_pods(1, **pod))
    controllers.settle()
    assert [node for node, _, _ in pods(store)] == expected


async def test_pods_that_must_be_apart_wait_for_another_node() -> None:
    store, controllers = world(2)
    store.create(DEPLOYMENTS, with_pods(3, affinity=apart()))
    controllers.settle()
    assert pods(store) == [("", "Pending", False), ("n1", "Running", False), ("n2", "Running", False)]
    waiting = next(pod for pod in store.select(PODS) if not pod["spec"].get("nodeName"))
    assert "2 node(s) didn't match pod anti-affinity rules" in waiting["status"]["conditions"][0]["message"]
    controllers.add_node("n3")
    controllers.settle()
    assert [node for node, _, _ in pods(store)] == ["n1", "n2", "n3"]


async def test_taints_and_cordons_keep_pods_away() -> None:
    store, controllers = world(2)
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    store.merge(NODES, "", "n1", {"spec": {"taints": [taint]}})
    store.merge(NODES, "", "n2", {"spec": {"unschedulable": True}})
    store.create(DEPLOYMENTS, with_pods(1))
    controllers.settle()
    assert pods(store) == [("", "Pending", False)]
    store.delete(DEPLOYMENTS, NS, "d")
    store.create(DEPLOYMENTS, with_pods(1, tolerations=[{"key": "k", "operator": "Equal", "value": "v"}]))
    controllers.settle()
    assert pods(store) == [("n1", "Running", False)]


async def test_a_pod_takes_its_time_and_is_ready_when_told(autojump_clock: MockClock) -> None:
    ready: list[bool] = []
    store, controllers = world(1, start_s=5, is_ready=lambda _: bool(ready))
    store.create(DEPLOYMENTS, with_pods(1))
    controllers.settle()
    assert pods(store) == [("n1", "Pending", False)]
    await trio.sleep(5)
    controllers.settle()
    assert pods(store) == [("n1", "Running", False)]
    found = store.get(DEPLOYMENTS, NS, "d")
    assert found is not None and found["status"]["readyReplicas"] == 0
    ready.append(True)
    controllers.settle()
    found = store.get(DEPLOYMENTS, NS, "d")
    assert found is not None and found["status"]["readyReplicas"] == 1


async def test_a_new_template_replaces_pods() -> None:
    for strategy in ("Recreate", "RollingUpdate"):
        store, controllers = world(1)
        store.create(DEPLOYMENTS, with_pods(1, strategy))
        controllers.settle()
        before = {pod["metadata"]["uid"] for pod in store.select(PODS)}
        store.merge(DEPLOYMENTS, NS, "d", {"spec": {"template": {"spec": {"serviceAccountName": "x"}}}})
        controllers.settle()
        after = {pod["metadata"]["uid"] for pod in store.select(PODS)}
        assert len(after) == 1 and not after & before, strategy


# --- nodes


async def test_pods_of_a_dead_node_are_replaced_and_stay_until_it_is_back(autojump_clock: MockClock) -> None:
    store, controllers = world(2)
    store.create(DEPLOYMENTS, with_pods(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(controllers.run)
        await trio.sleep(1)
        controllers.kill_node("n1")
        await trio.sleep(41)
        found = store.get(NODES, "", "n1")
        assert found is not None and found["status"]["conditions"][0]["status"] == "Unknown"
        assert pods(store) == [("n1", "Running", False)]
        await trio.sleep(300)
        assert pods(store) == [("n1", "Running", True), ("n2", "Running", False)]
        await trio.sleep(10_000)
        assert pods(store) == [("n1", "Running", True), ("n2", "Running", False)]
        controllers.revive_node("n1")
        await trio.sleep(1)
        assert pods(store) == [("n2", "Running", False)]
        nursery.cancel_scope.cancel()


async def test_a_toleration_says_how_long_a_pod_stays_on_a_dead_node(autojump_clock: MockClock) -> None:
    store, controllers = world(1)
    key = "node.kubernetes.io/unreachable"
    stays = {"key": key, "operator": "Exists", "effect": "NoExecute"}
    store.create(DEPLOYMENTS, with_pods(1, tolerations=[stays]))
    short = with_pods(1, tolerations=[{**stays, "tolerationSeconds": 5}])
    short["metadata"]["name"] = "short"
    store.create(DEPLOYMENTS, short)
    controllers.settle()
    controllers.kill_node("n1")
    await trio.sleep(40)
    controllers.settle()
    ready = [c for pod in store.select(PODS) for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    assert [c["status"] for c in ready] == ["False", "False"]
    await trio.sleep(5)
    controllers.settle()
    assert pods(store) == [("", "Pending", False), ("n1", "Running", False), ("n1", "Running", True)]
    controllers.remove_node("n1")
    controllers.settle()
    assert pods(store) == [("", "Pending", False), ("", "Pending", False)]


# --- jobs


def job(**spec: Any) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "none"}]}}
    return {"metadata": {"name": "j", "namespace": NS}, "spec": {"template": template, **spec}}


async def test_a_job_ends_as_its_pods_do(autojump_clock: MockClock) -> None:
    results: list[bool | None] = [None]
    store, controllers = world(1, job_result=lambda _: results[0])
    store.create(JOBS, job(ttlSecondsAfterFinished=60))

    def status() -> Object:
        controllers.settle()
        found = store.get(JOBS, NS, "j")
        assert found is not None
        return dict(found["status"])

    assert (status()["active"], status()["succeeded"]) == (1, 0)
    results[0] = True
    assert status()["conditions"] == [{"type": "Complete", "status": "True"}]
    await trio.sleep(60)
    controllers.settle()
    assert store.get(JOBS, NS, "j") is None
    assert pods(store) == []


async def test_a_job_fails_when_its_pods_failed_too_often() -> None:
    store, controllers = world(1, job_result=lambda _: False)
    store.create(JOBS, job(backoffLimit=2))
    controllers.settle()
    found = store.get(JOBS, NS, "j")
    assert found is not None
    assert found["status"]["failed"] == 3
    assert found["status"]["conditions"] == [{"type": "Failed", "status": "True"}]


# --- claims


def claim(name: str = "c", **spec: Any) -> Object:
    wanted = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    return {
        "metadata": {"name": name, "namespace": NS},
        "spec": {"storageClassName": "jiva", **wanted, **spec},
    }


def volume(name: str = "v", **of: str) -> Object:
    reference = {"namespace": NS, "name": "c", **of}
    spec = {"claimRef": reference, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
    return {"metadata": {"name": name}, "spec": spec}


def phases(store: Store) -> list[str]:
    return [item["status"]["phase"] for kind in (CLAIMS, PV) for item in store.select(kind)]


async def test_a_volume_that_names_a_claim_is_bound_and_released_with_it() -> None:
    store, controllers = world(1)
    made = store.create(CLAIMS, claim())
    store.create(PV, volume(uid="another's"))
    controllers.settle()
    assert phases(store) == ["Pending", "Released"]
    store.create(PV, volume("w", uid=made["metadata"]["uid"]))
    controllers.settle()
    assert phases(store) == ["Bound", "Released", "Bound"]
    bound = store.get(CLAIMS, NS, "c")
    assert bound is not None and bound["spec"]["volumeName"] == "w"
    store.delete(PV, "", "w")  # in use: it stays
    controllers.settle()
    assert phases(store) == ["Bound", "Released", "Bound"]
    store.delete(CLAIMS, NS, "c")
    controllers.settle()
    assert phases(store) == ["Released"]


async def test_a_claim_is_lost_with_its_volume() -> None:
    store, controllers = world(1)
    store.create(CLAIMS, claim())
    store.create(PV, volume())
    controllers.settle()
    store.merge(PV, "", "v", {"metadata": {"finalizers": None}})
    store.delete(PV, "", "v")
    controllers.settle()
    assert phases(store) == ["Lost"]


async def test_a_claim_is_asked_for_at_once_or_with_the_node_of_its_pod() -> None:
    for mode in ("Immediate", "WaitForFirstConsumer"):
        store, controllers = world(1)
        class_ = {"metadata": {"name": "jiva"}, "provisioner": "openebs.io/p", "volumeBindingMode": mode}
        store.create(STORAGE_CLASSES, class_)
        store.create(CLAIMS, claim())

        def annotations(store: Store = store, controllers: FakeControllers = controllers) -> Object:
            controllers.settle()
            found = store.get(CLAIMS, NS, "c")
            assert found is not None
            annotations = found["metadata"].get("annotations") or {}
            return {key.rpartition("/")[2]: text for key, text in annotations.items()}

        waits = mode == "WaitForFirstConsumer"
        asked = {"storage-provisioner": "openebs.io/p"}
        assert annotations() == ({} if waits else asked)
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]
        store.create(DEPLOYMENTS, with_pods(1, volumes=volumes))
        assert annotations() == (asked | {"selected-node": "n1"} if waits else asked)
        assert pods(store) == [("", "Pending", False)]
        store.create(PV, volume())
        controllers.settle()
        assert pods(store) == [("n1", "Running", False)]
        store.delete(CLAIMS, NS, "c")  # a pod uses it: it stays
        controllers.settle()
        assert phases(store) == ["Bound", "Bound"]
        store.delete(DEPLOYMENTS, NS, "d")
        controllers.settle()
        assert phases(store) == ["Released"]


async def test_controllers_and_a_client_live_together(autojump_clock: MockClock) -> None:
    store, controllers = world(1)
    cluster = FakeCluster(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(controllers.run)
        since = (await cluster.list(PODS)).resource_version
        await cluster.apply(DEPLOYMENTS, with_pods(1))
        async with cluster.watch(PODS, since=since) as events:
            async for event in events:
                if event.object["status"]["phase"] == "Running":
                    break
        version = store.version
        await trio.sleep(1000)
        assert store.version == version  # at rest nothing is written
        nursery.cancel_scope.cancel()
