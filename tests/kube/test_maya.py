"""Maya, as the manifest installs it, on a real API server; its pods and the volumes' run as processes.

One life after the other on one installation: a claim is bound, its portal logs in, a node dies and its copy
is made anew, the claim grows, a snapshot becomes a clone, and what is deleted leaves nothing.
"""

import concurrent.futures
import functools
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.kube.cluster import Cluster, cluster_or_skip
from tests.kube.site import CLASS, NAMESPACE, Site, claim, is_gone, left_of, open_site
from tests.real.volume_process import needs
from tests.vm.guest import build_guest

pytestmark = [pytest.mark.real, needs(("qemu-io", "qemu-utils"), ("iscsi-inq", "libiscsi-bin"))]

TOP: Final = Path(__file__).parents[2]
NODES: Final = ("a", "b", "c", "d")
GIB: Final = 1 << 30
GUEST_S: Final = 480.0  # an emulated machine, beside whatever else runs: alone it takes a minute or two
BOUND_S: Final = 30.0
"""What the claim may take to be bound, once pods can run."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of its own: what is installed here would be in the way of other tests."""
    with cluster_or_skip(tmp_path_factory.mktemp("maya")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    """Installed as the manifest says."""
    with open_site(cluster, *NODES) as site:
        yield site


def test_a_claim_becomes_a_volume_and_goes_through_a_life(site: Site, namespace: str) -> None:
    cluster = site.cluster
    began = time.monotonic()
    cluster.apply(claim(namespace, "data"))
    name = site.bound(namespace, "data")
    took_s = time.monotonic() - began
    print(f"bound within {took_s:.1f} s")
    assert took_s < BOUND_S
    spec = cluster.get("pv", name)["spec"]  # type: ignore[index]
    assert spec["iscsi"]["iqn"] == f"iqn.2016-09.com.openebs.jiva:{name}"
    assert spec["iscsi"]["lun"] == 0
    site.whole(name)
    # It logs in with its secret, and not without.
    assert "QEMU" not in cluster.run(["iscsi-inq", site.url(name)]).stdout
    bare = f"iscsi://{spec['iscsi']['targetPortal']}/{spec['iscsi']['iqn']}/0"
    assert cluster.run(["iscsi-inq", bare], check=False).returncode != 0
    site.qemu_io(name, "write -P 7 0 4M", "write -P 8 512M 1M", "flush")
    snapshot(site, namespace, name)
    site.qemu_io(name, "write -P 9 0 1M", "flush")
    node_dies(site, name)
    grows(site, namespace, name)
    clone(site, namespace)
    gone(site, namespace, name)


def snapshot(site: Site, namespace: str, name: str) -> None:
    made = {
        "apiVersion": "openebs.io/v1",
        "kind": "JivaSnapshot",
        "metadata": {"name": "before", "namespace": namespace},
        "spec": {"volumeName": name, "snapshotName": "before"},
    }
    site.cluster.apply(made)
    site.kubectl(
        *("-n", namespace, "wait", "jivasnap/before", "--for=jsonpath={.status.readyToUse}=true"),
        "--timeout=60s",
    )


def node_dies(site: Site, name: str) -> None:
    """The one with the controller, and one with a replica if that is another."""
    [pod] = site.cluster.all("pod", NAMESPACE, f"openebs.io/controller,openebs.io/persistent-volume={name}")
    replicas = {place["node"] for place in site.volume(name)["status"]["replicas"]}
    node = pod["spec"]["nodeName"]
    assert node in replicas, "the controller is beside a replica"
    site.runner.kill_node(node)
    began = time.monotonic()
    site.qemu_io(name, "read -P 9 0 1M", "read -P 7 1M 3M", "read -P 8 512M 1M", "write -P 6 8M 1M", "flush")
    print(f"I/O again {time.monotonic() - began:.1f} s after its controller's node died")

    def healed() -> Any:
        places = site.volume(name)["status"]["replicas"]
        others = [place for place in places if place["node"] != node]
        return len(others) == 3 and all(place.get("mode") == "in-sync" for place in others)

    site.wait_for("the copy is made anew on another node", healed)
    print(f"three copies again {time.monotonic() - began:.1f} s after")
    site.runner.revive_node(node)
    status = site.whole(name)
    assert node not in {place["node"] for place in status["replicas"]}
    site.qemu_io(name, "read -P 6 8M 1M", "read -P 9 0 1M", "read -P 8 512M 1M")


def grows(site: Site, namespace: str, name: str) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    site.kubectl("-n", namespace, "patch", "pvc", "data", "--type=merge", "-p", json.dumps(patch))
    site.wait_for(
        "the claim has 2 GiB",
        lambda: site.claim(namespace, "data")["status"].get("capacity", {}).get("storage") == "2Gi",
    )
    site.qemu_io(name, f"write -P 5 {GIB + (1 << 20)} 1M", f"read -P 5 {GIB + (1 << 20)} 1M")


def clone(site: Site, namespace: str) -> None:
    source = {"apiGroup": "openebs.io", "kind": "JivaSnapshot", "name": "before"}
    site.cluster.apply(claim(namespace, "copy", dataSourceRef=source, size="2Gi"))
    name = site.bound(namespace, "copy")
    site.qemu_io(name, "read -P 7 0 4M", "read -P 8 512M 1M", "read -P 0 8M 1M")
    site.whole(name)


def gone(site: Site, namespace: str, name: str) -> None:
    copy = site.claim(namespace, "copy")["spec"]["volumeName"]
    site.kubectl("-n", namespace, "delete", "jivasnap", "before")
    site.kubectl("-n", namespace, "delete", "pvc", "data", "copy")
    for each in (name, copy):
        site.wait_for(f"nothing of {each} is left", functools.partial(is_gone, site, each))
        assert not site.data_left(each)


#: A file system on the Linux initiator, written to once a moment while the controller's node dies.
LINUX: Final = """
while ! pidof iscsid > /dev/null; do sleep 0.1; done; sleep 0.5
set -- $(iscsiadm -m discovery -t sendtargets -p {portal})
echo "discovered $2"
set_to() {{ iscsiadm -m node -o update -n "node.session.auth.$1" -v "$2" > /dev/null; }}
set_to authmethod CHAP; set_to username {user}; set_to password {password}
iscsiadm -m node --login > /dev/null 2>&1 && echo 'logged in'
until blockdev --getsize64 /dev/sda 2> /dev/null | grep -q "[1-9]"; do sleep 0.1; done
/tools/mke2fs -q -t ext4 /dev/sda && mount -t ext4 /dev/sda /mnt && echo mounted
number=0
while [ $number -lt {files} ]; do
    echo $number > /mnt/file-$number && sync /mnt/file-$number || echo "failed $number"
    number=$((number + 1)); sleep 0.5
done
grep -q ' /mnt ext4 rw' /proc/mounts && echo 'still writable'
umount /mnt; mount -t ext4 /dev/sda /mnt; cat /mnt/file-* | wc -l; umount /mnt
/tools/e2fsck -f -n /dev/sda > /tmp/fsck 2>&1; echo "fsck $?"
iscsiadm -m node --logout > /dev/null 2>&1
"""
FILES: Final = 60


def test_the_linux_initiator_goes_on_when_the_node_of_its_controller_dies(
    site: Site, namespace: str, tmp_path: Path
) -> None:
    guest = build_guest(tmp_path)
    site.cluster.apply(claim(namespace, "data"))
    name = site.bound(namespace, "data")
    site.whole(name)
    portal = site.cluster.get("pv", name)["spec"]["iscsi"]["targetPortal"]  # type: ignore[index]
    user, password = site.secret(name)
    script = LINUX.format(portal=portal, user=user, password=password, files=FILES)
    inside = ["nsenter", f"--net={site.cluster.network}"]
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        console = tmp_path / "console"
        console.touch()
        printed = thread.submit(guest.run, script, timeout_s=GUEST_S, inside=inside, console=console)

        def mounted() -> bool:  # an initiator whose very first login is cut off may never look for disks
            return (
                printed.done()
                or re.search(r"^mounted\r?$", console.read_text("latin-1"), re.MULTILINE) is not None
            )

        site.wait_for("the guest has mounted its file system", mounted)
        [pod] = site.cluster.all(
            "pod", NAMESPACE, f"openebs.io/controller,openebs.io/persistent-volume={name}"
        )
        node = pod["spec"]["nodeName"]
        site.runner.kill_node(node)
        try:
            lines = printed.result().splitlines()
        finally:
            site.runner.revive_node(node)
    assert not [line for line in lines if line.startswith("failed")], lines
    expected = [f"discovered iqn.2016-09.com.openebs.jiva:{name}", "logged in", "mounted", "still writable"]
    assert [line for line in lines if line in expected] == expected, lines
    assert lines[-2:] == [str(FILES), "fsck 0"], lines
    site.kubectl("-n", namespace, "delete", "pvc", "data")
    site.wait_for("nothing is left", functools.partial(is_gone, site, name))


def test_retain_leaves_the_volume_and_its_data(site: Site, namespace: str) -> None:
    cluster = site.cluster
    kept = {**CLASS, "metadata": {**CLASS["metadata"], "name": "kept"}, "reclaimPolicy": "Retain"}  # type: ignore[dict-item]
    cluster.apply(kept)
    value = claim(namespace, "data")
    value["spec"]["storageClassName"] = "kept"
    cluster.apply(value)
    name = site.bound(namespace, "data")
    site.whole(name)
    site.qemu_io(name, "write -P 3 0 1M", "flush")
    site.kubectl("-n", namespace, "delete", "pvc", "data")
    site.wait_for("released", lambda: (cluster.get("pv", name) or {})["status"]["phase"] == "Released")
    site.qemu_io(name, "read -P 3 0 1M")
    site.kubectl("delete", "pv", name)
    assert site.volume(name)["metadata"]["annotations"]["openebs.io/kept"] == "true"
    site.whole(name)
    site.kubectl("-n", NAMESPACE, "delete", "jv", name)
    site.wait_for("nothing is left", lambda: not left_of(site, name))
    assert not site.data_left(name)
    site.kubectl("delete", "storageclass", "kept")


def kill_maya(site: Site) -> None:
    """SIGKILL for all processes of provisioner and reconciler, as they are at this moment."""
    which = "app.kubernetes.io/component in (provisioner, apiserver)"
    pods = [each["metadata"]["name"] for each in site.cluster.all("pod", NAMESPACE, which)]
    assert len(pods) >= 2, pods
    for pod in pods:
        descriptor = os.pidfd_open(site.runner.process(NAMESPACE, pod))
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def test_processes_that_are_killed_amid_a_life_are_followed_by_others_that_end_it(
    site: Site, namespace: str
) -> None:
    """Each step: `test_lives.py`.  Here with the Lease, by which the next ones have to wait their turn."""
    cluster = site.cluster
    cluster.apply(claim(namespace, "data"))
    name = f"pvc-{site.claim(namespace, 'data')['metadata']['uid']}"
    site.wait_for("the volume is being made", lambda: site.volume(name).get("status"))
    kill_maya(site)
    assert site.bound(namespace, "data") == name
    site.whole(name)
    site.qemu_io(name, "write -P 2 0 1M", "flush", "read -P 2 0 1M")
    of = [each["spec"].get("claimRef") or {} for each in cluster.all("pv")]
    assert [each["name"] for each in of if each.get("namespace") == namespace] == ["data"]
    site.kubectl("-n", namespace, "delete", "pvc", "data")
    site.wait_for(
        "the volume is being deleted", lambda: "deletionTimestamp" in site.volume(name).get("metadata", {})
    )
    kill_maya(site)
    site.wait_for("nothing is left", functools.partial(is_gone, site, name))
    assert not site.data_left(name)


def test_two_copies_and_a_witness_go_on_when_a_node_dies(site: Site, namespace: str) -> None:
    value = claim(namespace, "data")
    value["spec"]["storageClassName"] = "openebs-jiva-two-witness"
    site.cluster.apply(value)
    # It waits for a consumer, whose node the scheduler chooses.
    pod = yaml.safe_load((TOP / "deploy/kubernetes/examples/pod.yaml").read_text())
    pod["metadata"]["namespace"] = namespace
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = "data"
    site.cluster.apply(pod)
    name = site.bound(namespace, "data")
    status = site.whole(name)
    consumer = site.wait_for(
        "the consumer has a node",
        lambda: (site.cluster.get("pod", "writer", namespace) or {})["spec"].get("nodeName"),
    )
    data = [place["node"] for place in status["replicas"] if not place.get("witness")]
    assert consumer in data
    site.qemu_io(name, "write -P 4 0 1M", "flush")
    site.runner.kill_node(data[0])
    site.qemu_io(name, "read -P 4 0 1M", "write -P 5 1M 1M", "flush")
    site.runner.revive_node(data[0])
    site.whole(name)
    site.qemu_io(name, "read -P 5 1M 1M")
    site.kubectl("-n", namespace, "delete", "pod", "writer", "--force")
    site.kubectl("-n", namespace, "delete", "pvc", "data")
    site.wait_for("nothing is left", lambda: not left_of(site, name))


def test_nothing_that_is_ours_needs_more_than_it_was_given(site: Site) -> None:
    """What RBAC refuses is in the logs of Maya."""
    for log in site.runner.top.glob("logs/*maya*"):
        assert "forbidden" not in log.read_text(), log.read_text()[-2000:]
