"""`pyjiva-maya apiserver --backend kubernetes`: the API and the reconciler, over a cluster in memory."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pyjiva.cli.maya_kubernetes import LEASE, KubernetesOptions, open_kube_backend
from pyjiva.maya.apiserver import NewVolume
from pyjiva.maya.kube.lease_io import LeaseLostError
from pyjiva.maya.kube.resource import JIVA_VOLUMES, LEASES, NAMESPACES, NODES
from pyjiva.maya.policy import PoliciesRefused
from pyjiva.testing.kube import FakeCluster

OPTIONS = KubernetesOptions(namespace="openebs", environment={"POD_NAME": "maya-1"})


@pytest.fixture
async def cluster() -> FakeCluster:
    """With Maya's namespace and three nodes."""
    made = FakeCluster()
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "openebs"}}
    await made.create(NAMESPACES, namespace)
    for name in ("n1", "n2", "n3"):
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        labels = {"kubernetes.io/hostname": name}
        await made.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        )
        await made.merge(NODES, "", name, {"status": ready}, subresource="status")
    return made


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it is so."""
    with trio.fail_after(60):
        while not await condition():
            await trio.sleep(0.05)


async def test_what_is_asked_for_is_taken_up(cluster: FakeCluster, autojump_clock: MockClock) -> None:
    async with open_kube_backend(OPTIONS, cluster.client()) as backend:
        await backend.create(NewVolume("pvc-1", "", 1 << 30))

        async def is_taken_up() -> bool:
            value = await cluster.get(JIVA_VOLUMES, "openebs", "pvc-1")
            assert value is not None
            return bool(value["metadata"].get("finalizers") and (value.get("status") or {}).get("replicas"))

        await until(is_taken_up)
        lease = await cluster.get(LEASES, "openebs", LEASE)
        assert lease is not None
        assert lease["spec"]["holderIdentity"].startswith("maya-1_")
    lease = await cluster.get(LEASES, "openebs", LEASE)
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


async def test_of_two_one_reconciles_and_both_answer(cluster: FakeCluster, autojump_clock: MockClock) -> None:
    async with (
        open_kube_backend(OPTIONS, cluster.client()) as one,
        open_kube_backend(OPTIONS, cluster.client()) as two,
    ):
        await one.create(NewVolume("pvc-1", "", 1 << 30))
        await trio.sleep(30)
        assert [each.name for each in await two.list()] == ["pvc-1"]


async def test_who_loses_the_lease_ends(cluster: FakeCluster, autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(LeaseLostError, flatten_subgroups=True, allow_unwrapped=True):
        async with open_kube_backend(OPTIONS, cluster.client()):

            async def is_held() -> bool:
                return await cluster.get(LEASES, "openebs", LEASE) is not None

            await until(is_held)
            change = {"spec": {"holderIdentity": "another"}}
            await cluster.merge(LEASES, "openebs", LEASE, change)
            await trio.sleep(120)


async def test_defaults_that_cannot_be_are_refused(cluster: FakeCluster) -> None:
    options = KubernetesOptions(namespace="openebs", environment={"OPENEBS_IO_JIVA_REPLICA_COUNT": "x"})
    with pytest.raises(PoliciesRefused):
        async with open_kube_backend(options, cluster):
            raise AssertionError("it is served")


def test_the_image_is_that_of_the_environment() -> None:
    environment = {"OPENEBS_IO_JIVA_CONTROLLER_IMAGE": "a/b:1"}
    options = KubernetesOptions(namespace="maya", environment=environment)
    assert (options.settings().image, options.settings().namespace) == ("a/b:1", "maya")
    assert KubernetesOptions(namespace="maya").settings().image == "pyjiva"


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("mine", ("mine",)), ("mine, yours,", ("mine", "yours"))]
)
def test_volumes_images_are_fetched_with_the_secrets_that_the_environment_names(
    text: str, names: tuple[str, ...]
) -> None:
    options = KubernetesOptions(namespace="maya", environment={"OPENEBS_IO_IMAGE_PULL_SECRETS": text})
    assert options.settings().image_pull_secrets == names
