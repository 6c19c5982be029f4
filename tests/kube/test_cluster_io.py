"""`maya.kube.cluster_io` against a real API server: contract, credentials, compaction, restarts, leases."""

import base64
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio

from pyjiva.maya.kube import Cluster as ClusterProtocol
from pyjiva.maya.kube import (
    Forbidden,
    Gone,
    Informer,
    KubeError,
    LeaseLostError,
    LeaseSettings,
    Recorder,
    Resource,
    cluster_io,
    load_access,
    open_cluster,
    run_elected,
)
from pyjiva.maya.kube.cluster_io import KubeCluster
from pyjiva.maya.kube.credentials import Material
from pyjiva.maya.kube.resource import CONFIG_MAPS, EVENTS, LEASES, NAMESPACES, SECRETS
from tests.kube.cluster import Cluster
from tests.kube.cluster import open_cluster as start_cluster
from tests.suites.kube_cluster import CASES, CRD, Case, case_name, config_map
from tests.suites.kube_controllers import CONTROLLER_CASES

pytestmark = pytest.mark.real

SERVICE_ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")
WAIT_S = 60.0


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What `condition` gives as soon as it is true."""
    with trio.fail_after(WAIT_S):
        while not (value := await condition()):
            await trio.sleep(0.05)  # between two looks
    return value


@asynccontextmanager
async def opened(cluster: Cluster, kubeconfig: Path | None = None) -> AsyncIterator[tuple[KubeCluster, str]]:
    """The API server by our client, and a namespace of its own."""
    async with open_cluster(load_access(str(kubeconfig or cluster.kubeconfig))) as kube:
        name = f"test-{uuid.uuid4().hex[:8]}"
        await kube.create(NAMESPACES, {"metadata": {"name": name}})
        await until(lambda: kube.get(SERVICE_ACCOUNTS, name, "default"))
        yield kube, name
        await kube.delete(NAMESPACES, "", name)


@pytest.fixture(scope="module", autouse=True)
def _things(cluster: Cluster) -> Iterator[None]:
    """The custom resource of the contract."""
    cluster.apply(CRD)
    served = "--for=condition=Established"
    cluster.kubectl("wait", served, f"crd/{CRD['metadata']['name']}", "--timeout=60s")
    yield
    cluster.kubectl("delete", "crd", CRD["metadata"]["name"], "--wait=false")


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_contract(cluster: Cluster, case: Case) -> None:
    async def run() -> None:
        async with opened(cluster) as (kube, namespace):
            checked: ClusterProtocol = kube
            await case(checked, namespace)

    cluster.in_namespace(run)


@pytest.mark.parametrize("case", CONTROLLER_CASES, ids=case_name)
def test_controllers(cluster: Cluster, case: Case) -> None:
    """What those in memory do too (`tests/testing/test_kube_controllers.py`)."""

    async def run() -> None:
        async with opened(cluster) as (kube, namespace):
            await case(kube, namespace)

    cluster.in_namespace(run)


# --- credentials


def with_rules(cluster: Cluster, namespace: str, account: str, *verbs_and_kinds: str) -> None:
    """A service account with one role."""
    scope = ["-n", namespace]
    cluster.kubectl(*scope, "create", "serviceaccount", account)
    verbs, kinds = verbs_and_kinds
    cluster.kubectl(*scope, "create", "role", account, f"--verb={verbs}", f"--resource={kinds}")
    bound = f"--serviceaccount={namespace}:{account}"
    cluster.kubectl(*scope, "create", "rolebinding", account, f"--role={account}", bound)


def test_what_rbac_forbids_is_forbidden_and_disturbs_no_watch(cluster: Cluster, namespace: str) -> None:
    with_rules(cluster, namespace, "reader", "get,list,watch,create", "configmaps")
    kubeconfig = cluster.kubeconfig_for(namespace, "reader")

    async def run() -> None:
        async with open_cluster(load_access(str(kubeconfig))) as kube:
            listing = await kube.list(CONFIG_MAPS, namespace)
            watch = kube.watch(CONFIG_MAPS, namespace, since=listing.resource_version)
            async with watch as events:
                with pytest.raises(Forbidden) as raised:
                    await kube.list(SECRETS, namespace)
                assert (raised.value.status, raised.value.reason) == (403, "Forbidden")
                with pytest.raises(Forbidden):
                    async with kube.watch(SECRETS, namespace, since="1"):
                        raise AssertionError("a watch that is forbidden began")
                await kube.create(CONFIG_MAPS, config_map(namespace))
                with trio.fail_after(WAIT_S):
                    assert (await anext(events)).object["metadata"]["name"] == "m"

    cluster.in_namespace(run)


def test_a_pod_uses_the_token_that_lies_there_now(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """The token of a pod is replaced before it ends; one that the server does not take is read anew at
    once.
    """
    with_rules(cluster, namespace, "pod", "get,list", "configmaps")
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "namespace").write_text(namespace)
    (folder / "ca.crt").write_bytes(cluster.access.authority.read_bytes())
    (folder / "token").write_text("not a token")
    environment = {"KUBERNETES_SERVICE_HOST": "10.244.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = load_access(environment={**environment, "HOME": str(tmp_path)}, service_account=folder)
    assert access.namespace == namespace
    tokens = [cluster.access_for(namespace, "pod").token for _ in range(2)]
    assert tokens[0] != tokens[1]

    async def run() -> None:
        async with open_cluster(access) as kube:
            with pytest.raises(KubeError) as raised:
                await kube.list(CONFIG_MAPS, namespace)
            assert (raised.value.status, raised.value.reason) == (401, "Unauthorized")
            for token in tokens:
                (folder / "token").write_text(f"{token}\n")
                await kube.list(CONFIG_MAPS, namespace)
            (folder / "token").unlink()
            with pytest.raises(KubeError, match="the token cannot be read"):
                await kube.list(CONFIG_MAPS, namespace)

    cluster.in_namespace(run)


def test_keys_may_stand_in_the_kubeconfig(cluster: Cluster, tmp_path: Path) -> None:
    value = cluster.access.kubeconfig()
    for entry, names in (
        (value["clusters"][0]["cluster"], ("certificate-authority",)),
        (value["users"][0]["user"], ("client-certificate", "client-key")),
    ):
        for name in names:
            entry[f"{name}-data"] = base64.b64encode(Path(entry.pop(name)).read_bytes()).decode()
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(value))

    async def run() -> None:
        async with open_cluster(load_access(str(file))) as kube:
            assert await kube.get(NAMESPACES, "", "default") is not None

    cluster.in_namespace(run)


def test_a_program_may_print_the_token(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with_rules(cluster, namespace, "printed", "list", "configmaps")
    token = cluster.access_for(namespace, "printed").token
    printed = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    answer = json.dumps(
        {**printed, "status": {"token": token, "expirationTimestamp": "2999-01-01T00:00:00Z"}}
    )
    program = tmp_path / "print-token"
    program.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho '{answer}'\n")
    program.chmod(0o755)
    value = cluster.access.kubeconfig()
    value["users"][0]["user"] = {
        "exec": {"apiVersion": printed["apiVersion"], "command": "./print-token", "interactiveMode": "Never"}
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(value))

    async def run() -> None:
        async with open_cluster(load_access(str(tmp_path / "kubeconfig"))) as kube:
            for _ in range(2):
                await kube.list(CONFIG_MAPS, namespace)

    cluster.in_namespace(run)
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_a_server_that_nobody_vouches_for_is_not_talked_to(cluster: Cluster) -> None:
    async def run() -> None:
        access = attrs.evolve(load_access(str(cluster.kubeconfig)), authority=Material())
        async with open_cluster(access) as kube:
            with pytest.raises(KubeError, match="CERTIFICATE_VERIFY_FAILED") as raised:
                await kube.get(NAMESPACES, "", "default")
            assert raised.value.status == 0
        async with open_cluster(attrs.evolve(access, insecure=True)) as kube:
            assert await kube.get(NAMESPACES, "", "default") is not None

    cluster.in_namespace(run)


# --- lists of many, histories that are short


def test_a_long_list_comes_in_pages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_io, "PAGE", 3)

    async def run() -> None:
        async with opened(cluster) as (kube, namespace):
            wanted = {f"m{number}" for number in range(10)}
            for name in wanted:
                await kube.create(CONFIG_MAPS, config_map(namespace, name))
            listing = await kube.list(CONFIG_MAPS, namespace)
            found = [item["metadata"]["name"] for item in listing.items]
            assert len(found) == len(set(found))
            assert wanted <= set(found)
            made = await kube.create(CONFIG_MAPS, config_map(namespace, "new"))
            async with kube.watch(CONFIG_MAPS, namespace, since=listing.resource_version) as events:
                assert (await anext(events)).object == made

    cluster.in_namespace(run)


def compact(cluster: Cluster) -> None:
    """Let etcd forget all that has happened."""
    asked = ["curl", "-sS", "--fail", "-X", "POST"]
    base = "http://127.0.0.1:2379/v3/kv"
    found = json.loads(cluster.run([*asked, f"{base}/range", "-d", '{"key": "AA=="}']).stdout)
    request = json.dumps({"revision": found["header"]["revision"], "physical": True})
    cluster.run([*asked, f"{base}/compaction", "-d", request])


def test_a_watch_from_before_a_compaction_is_gone_and_informers_list_again(own_cluster: Cluster) -> None:
    """The API server itself remembers for a while what etcd has forgotten; a new one does not."""

    async def before() -> str:
        async with opened(own_cluster) as (kube, namespace):
            listing = await kube.list(CONFIG_MAPS)
            await kube.create(CONFIG_MAPS, config_map(namespace))
            return listing.resource_version

    async def after() -> None:
        async with open_cluster(load_access(str(own_cluster.kubeconfig))) as kube:
            await until(lambda: answered(kube))
            with pytest.raises(Gone) as raised:
                async with kube.watch(CONFIG_MAPS, since=since) as events:
                    await anext(events)
            assert (raised.value.status, raised.value.reason) == (410, "Expired")
            informer = Informer(kube, CONFIG_MAPS, random=Random(1))
            informer._cache.version = since  # as if it had been listed then
            async with trio.open_nursery() as nursery:
                nursery.start_soon(informer.run)
                await informer.synced.wait()
                nursery.cancel_scope.cancel()

    since = own_cluster.in_namespace(before)
    compact(own_cluster)
    restart(own_cluster)
    own_cluster.in_namespace(after)


# --- an API server that goes away and comes back


def restart(cluster: Cluster) -> None:
    """End the API server without a word, and start it again."""
    process = cluster.programs["kube-apiserver"]
    process.kill()
    process.wait()
    with (cluster.top / "kube-apiserver.log").open("ab") as log:
        again = subprocess.Popen(
            process.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cluster.environment()
        )
    cluster.machine.processes.append(again)
    cluster.programs["kube-apiserver"] = again


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Cluster]:
    """A control plane that these tests may harm."""
    with start_cluster(tmp_path_factory.mktemp("kube")) as made:
        yield made


def test_an_informer_lives_through_a_restart_of_the_api_server(own_cluster: Cluster) -> None:
    async def run() -> None:
        async with open_cluster(load_access(str(own_cluster.kubeconfig))) as kube:
            await until(lambda: answered(kube))
            informer = Informer(kube, CONFIG_MAPS, "default", random=Random(1))
            heard: list[str] = []
            informer.subscribe(lambda _, name: heard.append(name))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(informer.run)
                await informer.synced.wait()
                heard.clear()
                listing = await kube.list(CONFIG_MAPS, "default")
                watch = kube.watch(CONFIG_MAPS, "default", since=listing.resource_version)
                async with watch as events:
                    await trio.to_thread.run_sync(restart, own_cluster)
                    with pytest.raises(KubeError, match="broken off") as raised:
                        await anext(events)
                    assert raised.value.status == 0
                await until(lambda: answered(kube))
                await kube.create(CONFIG_MAPS, config_map("default", "after"))
                await until(lambda: said(bool(heard)))
                assert heard == ["after"]
                assert informer.trouble == ""
                nursery.cancel_scope.cancel()

    own_cluster.in_namespace(run)


async def said(value: bool) -> bool:
    """For `until`."""
    return value


async def answered(kube: KubeCluster) -> bool:
    """Whether the API server takes writes; while it starts it is refused, or refuses."""
    try:
        await kube.apply(CONFIG_MAPS, config_map("default", "probe"))
    except KubeError:
        return False
    return True


def test_an_api_server_that_is_not_there_is_an_error_without_status(own_cluster: Cluster) -> None:
    async def run() -> None:
        access = attrs.evolve(load_access(str(own_cluster.kubeconfig)), server="https://10.244.0.1:9")
        async with open_cluster(access) as kube:
            with pytest.raises(KubeError, match=r"10\.244\.0\.1 cannot be asked") as raised:
                await kube.list(CONFIG_MAPS)
            assert raised.value.status == 0
            with pytest.raises(KubeError):
                async with kube.watch(CONFIG_MAPS, since="1"):
                    raise AssertionError("nobody answered, and a watch began")

    own_cluster.in_namespace(run)


# --- what stands upon it


@attrs.define
class Severable:
    """The API server, until the network is cut."""

    kube: KubeCluster
    cut: bool = False

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.kube, name)

        async def ask(*arguments: Any, **options: Any) -> Any:
            if self.cut:
                raise KubeError("the network is cut")
            return await verb(*arguments, **options)

        return ask


def test_of_two_contenders_one_leads_at_a_time(cluster: Cluster) -> None:
    settings = LeaseSettings(duration_s=3, renew_deadline_s=2, retry_s=0.25)

    async def run() -> None:
        async with opened(cluster) as (kube, namespace):
            first = Severable(kube)
            leading: list[str] = []
            taken = trio.Event()

            async def lead_until_cut() -> None:
                assert leading == []
                leading.append("first")
                await trio.sleep(1)  # through a few renewals
                first.cut = True
                try:
                    await trio.sleep_forever()
                finally:
                    leading.remove("first")

            async def lead() -> None:
                assert leading == []
                leading.append("second")
                lease = await kube.get(LEASES, namespace, "l")
                assert lease is not None and lease["spec"]["holderIdentity"] == "second"
                assert lease["spec"]["leaseTransitions"] == 1
                taken.set()

            async def contend() -> None:
                await until(lambda: said(leading == ["first"]))
                await run_elected(kube, namespace, "l", "second", lead, settings=settings)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(contend)
                with pytest.raises(LeaseLostError):
                    await run_elected(first, namespace, "l", "first", lead_until_cut, settings=settings)
                with trio.fail_after(WAIT_S):
                    await taken.wait()
            lease = await kube.get(LEASES, namespace, "l")
            assert lease is not None and lease["spec"]["holderIdentity"] == ""

    cluster.in_namespace(run)


def test_events_are_seen_by_kubectl(cluster: Cluster) -> None:
    async def run() -> str:
        async with opened(cluster) as (kube, namespace):
            recorder = Recorder(kube, "pyjiva-maya-test", "pod-0")
            value = await kube.create(CONFIG_MAPS, config_map(namespace))
            for _ in range(3):
                await recorder.event(value, "Warning", "NoSpace", "ä" * 600)
            whole = await kube.get(NAMESPACES, "", namespace)
            assert whole is not None
            await recorder.event(whole, "Normal", "Seen", "a thing without a namespace")
            events = (await kube.list(EVENTS, namespace)).items
            assert [(event["reason"], event["count"]) for event in events] == [("NoSpace", 3)]
            everywhere = (await kube.list(EVENTS, "default")).items
            assert namespace in [event["involvedObject"]["name"] for event in everywhere]
            printed = await trio.to_thread.run_sync(
                lambda: cluster.kubectl("-n", namespace, "get", "events", "--field-selector=reason=NoSpace")
            )
            return str(printed)

    assert "configmap/m" in cluster.in_namespace(run)
