"""The control plane of the tests: what other tests take for granted of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.kube.api import CONFIG_MAPS, Api, ApiError, Object
from tests.kube.cluster import Cluster, Failed
from tests.real.volume_process import wait_until

pytestmark = pytest.mark.real

TOP: Final = Path(__file__).parents[2]
START_AND_NEVER_END: Final = """
import sys
from pathlib import Path
from tests.kube.cluster import open_cluster
with open_cluster(Path(sys.argv[1])):
    raise SystemExit("it was to be killed before")
"""


def config_map(namespace: str, **data: str) -> Object:
    """A ConfigMap called settings."""
    meta = {"name": "settings", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def account_that_reads_config_maps(cluster: Cluster, namespace: str) -> None:
    """A service account `reader` with a Role."""
    meta = {"name": "reader", "namespace": namespace}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
    group = "rbac.authorization.k8s.io"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        },
    )


def test_an_object_comes_back_as_it_was_made(cluster: Cluster, namespace: str) -> None:
    cluster.apply(config_map(namespace, colour="blue"))

    found = cluster.get("configmap", "settings", namespace)

    assert found is not None
    assert found["data"] == {"colour": "blue"}
    assert cluster.get("configmap", "nothing", namespace) is None


def test_python_talks_to_the_api_server_from_a_thread_inside(cluster: Cluster, namespace: str) -> None:
    cluster.apply(config_map(namespace, colour="blue"))

    async def ask(name: str) -> Object:
        async with Api(cluster.access) as api:
            return await api.get(CONFIG_MAPS, namespace, name)

    assert cluster.in_namespace(ask, "settings")["data"] == {"colour": "blue"}
    with pytest.raises(ApiError, match="404 NotFound"):
        cluster.in_namespace(ask, "nothing")


def test_the_network_inside_is_not_ours(cluster: Cluster) -> None:
    inside = os.stat(cluster.network).st_ino
    bind = [sys.executable, "-c", "import socket; socket.create_server(('10.96.7.8', 3260))"]

    async def where() -> int:
        return os.stat("/proc/thread-self/ns/net").st_ino

    assert cluster.in_namespace(where) == inside
    assert os.stat("/proc/self/ns/net").st_ino != inside
    cluster.run(bind)  # any address of a service
    assert subprocess.run(bind, capture_output=True).returncode != 0


def test_a_program_that_fails_fails_the_test_with_what_it_said(cluster: Cluster) -> None:
    with pytest.raises(Failed, match=r"exit code 3\n.*\nsorry"):
        cluster.run(["sh", "-c", "echo sorry >&2; exit 3"])

    assert cluster.run(["sh", "-c", "exit 3"], check=False).returncode == 3


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(config_map(namespace, colour="blue"))
    account_that_reads_config_maps(cluster, namespace)
    reader = cluster.kubeconfig_for(namespace, "reader")
    stranger = cluster.kubeconfig_for(namespace, "default")
    read = ("-n", namespace, "get", "configmap", "settings", "-o", "jsonpath={.data.colour}")

    assert cluster.kubectl(*read, kubeconfig=reader) == "blue"
    with pytest.raises(Failed, match="Forbidden"):
        cluster.kubectl(*read, kubeconfig=stranger)
    with pytest.raises(Failed, match="Forbidden"):
        cluster.kubectl("-n", namespace, "delete", "configmap", "settings", kubeconfig=reader)

    async def read_a_secret() -> None:
        async with Api(cluster.access_for(namespace, "reader")) as api:
            await api.request("GET", f"/api/v1/namespaces/{namespace}/secrets/any")

    with pytest.raises(ApiError, match="403 Forbidden"):
        cluster.in_namespace(read_a_secret)


def test_controllers_and_scheduler_are_at_work(cluster: Cluster, namespace: str) -> None:
    meta = {"name": "idle", "namespace": namespace}
    labels = {"app": "idle"}
    pod = {"containers": [{"name": "main", "image": "busybox"}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})

    def refusals() -> list[str]:
        conditions = [
            condition
            for found in cluster.all("pods", namespace, "app=idle")
            for condition in found.get("status", {}).get("conditions", [])
        ]
        return [condition["message"] for condition in conditions if condition["type"] == "PodScheduled"]

    [refusal] = wait_until(refusals, "the scheduler has looked for a node")
    assert "no nodes available" in refusal


def test_a_volume_and_a_claim_that_name_each_other_are_bound(cluster: Cluster, namespace: str) -> None:
    size = {"storage": "1Gi"}
    volume = {
        "capacity": size,
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "claimRef": {"namespace": namespace, "name": "data"},
        "iscsi": {"targetPortal": "10.96.0.9:3260", "iqn": "iqn.2016-09.com.example:a", "lun": 0},
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "volumeName": namespace,
        "resources": {"requests": size},
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": namespace},
            "spec": claim,
        },
    )

    cluster.wait_for(
        "pvc",
        "data",
        namespace,
        lambda found: found and found["status"].get("phase") == "Bound",
        "the claim is bound",
    )
    cluster.kubectl("delete", "pv", namespace, "--wait=false")


def test_a_kubeconfig_is_for_its_owner_alone(cluster: Cluster) -> None:
    assert cluster.top.stat().st_mode & 0o077 == 0
    assert cluster.kubeconfig_for("default", "default").stat().st_mode & 0o077 == 0


def test_a_cluster_dies_with_its_process(cluster: Cluster, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", START_AND_NEVER_END, str(tmp_path)], env=environment, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: "kube-apiserver" in running(tmp_path), "it has begun to start")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    wait_until(lambda: not running(tmp_path), "all its programs are gone")


def running(top: Path) -> str:
    """The command lines of the processes that work in a folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            line = ""
        if str(top) in line and not line.startswith(sys.executable):
            lines.append(line)
    return json.dumps(lines) if lines else ""
