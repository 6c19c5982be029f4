"""Two nodes, two copies, and a vote in the JivaVolume, on a real API server: the death of either is survived.

Beside it, what the API server says of the register: who may use it, and that one of two that replace the same
vote succeeds.
"""

import functools
import json
import signal
from collections.abc import Iterator
from typing import Any, Final

import attrs
import pytest
import trio

from pyjiva.maya.kube import Conflict, load_access, open_cluster
from pyjiva.maya.kube.resource import JIVA_VOLUMES
from pyjiva.maya.witness import JivaVolumeVotes, VoteOf
from pyjiva.vote import Kept, Vote
from tests.kube.cluster import Cluster, cluster_or_skip
from tests.kube.site import NAMESPACE, Site, claim, left_of, open_site
from tests.real.volume_process import needs

pytestmark = [pytest.mark.real, needs(("qemu-io", "qemu-utils"))]

NODES: Final = ("a", "b")
CLASS: Final = "openebs-jiva-two-witness"
HEALTHY_OR_NOT: Final = (0, 3, 4)  # of `pyjiva status`: it has said how the volume is
TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of its own: what is installed here would be in the way of other tests."""
    with cluster_or_skip(tmp_path_factory.mktemp("witness")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    """Installed as the manifest says, on two nodes."""
    with open_site(cluster, *NODES) as site:
        yield site


def pod_of(site: Site, name: str) -> dict[str, Any]:
    """The controller's, that runs."""

    def running() -> Any:
        pods = site.cluster.all(
            "pod", NAMESPACE, f"openebs.io/controller,openebs.io/persistent-volume={name}"
        )
        return [
            pod
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"
        ]

    [pod] = site.wait_for("the controller runs", running)
    return dict(pod)


def vote(site: Site, name: str) -> dict[str, Any]:
    return dict(site.volume(name)["status"]["witness"])


def in_sync(site: Site, name: str) -> list[int]:
    """Who has everything, by the record that the vote holds."""
    return list(json.loads(vote(site, name)["record"])["in_sync"])


def make(site: Site, namespace: str) -> str:
    value = claim(namespace, "data")
    value["spec"]["storageClassName"] = CLASS
    site.cluster.apply(value)
    consumer = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "consumer", "namespace": namespace},
        # No node mounts here what the initiator would bring: it is there for the scheduler to choose a node.
        "spec": {
            "containers": [{"name": "c", "image": "busybox"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    site.cluster.apply(consumer)
    return site.bound(namespace, "data")


def test_either_of_two_nodes_may_die(site: Site, namespace: str) -> None:
    name = make(site, namespace)
    status = site.whole(name)
    places = status["replicas"]
    assert {place.get("node") for place in places if not place.get("witness")} == set(NODES)
    assert [place["id"] for place in places if place.get("inVolume")] == [3]
    site.qemu_io(name, "write -P 4 0 1M", "flush")
    before = vote(site, name)
    assert before["promisedEpoch"] >= 1
    assert json.loads(before["record"])["witnesses"] == [3]

    # The one without the controller: its copy is taken out by the other copy and the vote.
    home = pod_of(site, name)["spec"]["nodeName"]
    [other] = set(NODES) - {home}
    site.runner.kill_node(other)
    site.qemu_io(name, "read -P 4 0 1M", "write -P 5 1M 1M", "flush")
    assert len(in_sync(site, name)) == 1
    site.runner.revive_node(other)
    # The record says so at once; the status of the JivaVolume, when the reconciler looks again.
    site.wait_for("the copy is back", lambda: in_sync(site, name) == [1, 2])

    # The one with the controller, and its witness: both start beside the other copy.
    site.qemu_io(name, "write -P 6 2M 1M", "flush")
    home = pod_of(site, name)["spec"]["nodeName"]
    [other] = set(NODES) - {home}
    site.runner.kill_node(home)
    site.qemu_io(name, "read -P 4 0 1M", "read -P 5 1M 1M", "read -P 6 2M 1M", "write -P 7 3M 1M", "flush")
    assert pod_of(site, name)["spec"]["nodeName"] == other
    after = vote(site, name)
    assert after["promisedEpoch"] > before["promisedEpoch"]
    assert after["writes"] > before["writes"]
    assert len(in_sync(site, name)) == 1
    site.runner.revive_node(home)
    site.wait_for("the copy is back", lambda: in_sync(site, name) == [1, 2])
    site.whole(name)
    site.qemu_io(name, "read -P 5 1M 1M", "read -P 6 2M 1M", "read -P 7 3M 1M")
    end(site, namespace, name)


def end(site: Site, namespace: str, name: str) -> None:
    site.kubectl("-n", namespace, "delete", "pod", "consumer", "--force")
    site.kubectl("-n", namespace, "delete", "pvc", "data")
    site.wait_for("nothing is left", lambda: not left_of(site, name))
    kinds = "serviceaccounts,roles,rolebindings"
    site.wait_for(
        "its rights are gone",
        lambda: name not in site.kubectl("-n", NAMESPACE, "get", kinds, "-o", "name"),
    )
    assert not site.data_left(name)


def test_the_token_is_the_witness_alone_and_is_good_for_its_vote_alone(site: Site, namespace: str) -> None:
    name = make(site, namespace)
    site.whole(name)
    pod = pod_of(site, name)["metadata"]["name"]
    for container in (f"{name}-ctrl-con", "maya-volume-exporter"):
        assert site.runner.execute(NAMESPACE, pod, ["ls", TOKEN], container).returncode != 0
    shown = site.runner.execute(NAMESPACE, pod, ["cat", TOKEN], "witness")
    assert shown.returncode == 0
    may = functools.partial(allowed, site, f"system:serviceaccount:{NAMESPACE}:{name}-witness")
    assert may("get", f"jivavolumes.openebs.io/{name}")
    assert may("update", f"jivavolumes.openebs.io/{name}", "--subresource=status")
    assert not may("update", f"jivavolumes.openebs.io/{name}")
    assert not may("patch", f"jivavolumes.openebs.io/{name}", "--subresource=status")
    assert not may("get", "jivavolumes.openebs.io/another")
    assert not may("update", "jivavolumes.openebs.io/another", "--subresource=status")
    assert not may("list", "jivavolumes.openebs.io")
    assert not may("get", "secrets")
    end(site, namespace, name)


def allowed(site: Site, who: str, verb: str, what: str, *more: str) -> bool:
    said = site.cluster.run(
        ["kubectl", "-n", NAMESPACE, "auth", "can-i", verb, what, *more, f"--as={who}"], check=False
    )
    return said.stdout.strip() == "yes"


def test_what_the_register_promises_a_real_api_server_keeps(site: Site, namespace: str) -> None:
    name = make(site, namespace)
    site.whole(name)
    value = site.volume(name)
    whose = VoteOf(NAMESPACE, name, value["metadata"]["uid"], 3)

    async def race() -> None:
        access = load_access(str(site.cluster.kubeconfig))
        async with open_cluster(access) as api:
            one, other = JivaVolumeVotes(api, whose), JivaVolumeVotes(api, whose)
            for _ in range(10):
                read = await one.read()
                results: list[Kept | None] = []
                async with trio.open_nursery() as nursery:
                    for votes in (one, other):
                        nursery.start_soon(replace, votes, read, results)
                # None, where the reconciler was faster than both.
                assert sum(result is not None for result in results) <= 1
            old = await api.get(JIVA_VOLUMES, NAMESPACE, name)
            assert old is not None
            while await one.replace(read, more(read)) is None:
                read = await one.read()
            with pytest.raises(Conflict):
                await api.update(JIVA_VOLUMES, old, subresource="status")

    site.cluster.in_namespace(race)
    site.whole(name)
    end(site, namespace, name)


def more(read: Kept) -> Vote:
    return attrs.evolve(read.vote, writes=read.vote.writes + 1)


async def replace(votes: JivaVolumeVotes, read: Kept, results: list[Kept | None]) -> None:
    results.append(await votes.replace(read, more(read)))


def test_both_copies_go_on_while_the_api_server_is_away(site: Site, namespace: str) -> None:
    name = make(site, namespace)
    site.whole(name)
    pod, url = pod_of(site, name)["metadata"]["name"], site.url(name)
    site.qemu_io(name, "write -P 4 0 1M", "flush")
    server = site.cluster.programs["kube-apiserver"]
    server.send_signal(signal.SIGSTOP)
    try:
        said = site.wait_for("the witness is out", lambda: witness_of(site, pod, name, "out"), 30)
        assert said["reason"].startswith(("refused: ", "no answer", "it closed the connection")), said
        for command in ("read -P 4 0 1M", "write -P 5 1M 1M", "read -P 5 1M 1M", "flush"):
            argv = ["timeout", "60", "qemu-io", "-f", "raw", "-c", command, url]
            done = site.cluster.run(argv, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Pattern verification failed" not in done.stdout, done.stdout
    finally:
        server.send_signal(signal.SIGCONT)
    # Its nodes have missed so many heartbeats that everything is evicted: as if all had been switched off.
    for node in NODES:
        site.runner.reboot_node(node)
    site.wait_for("the witness votes", lambda: votes_again(site, name))
    site.qemu_io(name, "read -P 5 1M 1M")
    end(site, namespace, name)


def votes_again(site: Site, name: str) -> Any:
    pods = site.cluster.all("pod", NAMESPACE, f"openebs.io/controller,openebs.io/persistent-volume={name}")
    return any(witness_of(site, pod["metadata"]["name"], name, "witness") for pod in pods)


def witness_of(site: Site, pod: str, name: str, mode: str) -> dict[str, Any] | None:
    """What the controller says of its witness, if it is so; without asking the API server."""
    token = "/run/secrets/pyjiva/api.token"
    command = ["pyjiva", "status", "--json", "--api", "http://127.0.0.1:9501", "--api-token-file", token]
    try:
        done = site.runner.execute(NAMESPACE, pod, command, f"{name}-ctrl-con")
    except KeyError:  # the pod is being moved
        return None
    if done.returncode not in HEALTHY_OR_NOT:
        return None
    [said] = [each for each in json.loads(done.stdout)["replicas"] if each["id"] == 3]
    return dict(said) if said["mode"] == mode else None


def test_nothing_that_is_ours_needs_more_than_it_was_given(site: Site) -> None:
    """What RBAC refuses is in the logs."""
    for log in site.runner.top.glob("logs/*"):
        assert "forbidden" not in log.read_text(errors="replace"), f"{log}: {log.read_text()[-2000:]}"
