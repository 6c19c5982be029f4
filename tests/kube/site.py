"""Maya in a cluster, as the manifest installs it, and what tests ask of its volumes."""

import base64
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from tests.kube.cluster import Cluster
from tests.kube.images import IMAGES, pyjiva_image
from tests.kube.pod_runner import PodRunner, open_pod_runner

__all__ = ["CLASS", "NAMESPACE", "Site", "claim", "is_gone", "left_of", "open_site"]

TOP: Final = Path(__file__).parents[2]
MANIFEST: Final = TOP / "deploy/kubernetes/pyjiva.yaml"
NAMESPACE: Final = "openebs"
LONG_S: Final = 180.0
REPLACE_S: Final = 12
CLASS: Final = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "quick",
        "annotations": {
            "openebs.io/cas-type": "jiva",
            "cas.openebs.io/config": f"- name: ReplaceAfter\n  value: {REPLACE_S}s\n",
        },
    },
    "provisioner": "openebs.io/provisioner-iscsi",
    "reclaimPolicy": "Delete",
    "allowVolumeExpansion": True,
    "volumeBindingMode": "Immediate",
}


@attrs.frozen
class Site:
    """Maya in a cluster."""

    cluster: Cluster
    runner: PodRunner
    nodes: tuple[str, ...]

    def kubectl(self, *words: str, **more: Any) -> str:
        return self.cluster.kubectl(*words, **more)

    def wait_for(self, what: str, condition: Callable[[], Any], within_s: float = LONG_S) -> Any:
        """What `condition` answers when that is true of it."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s} s: {what}\n{self.state()}")
            time.sleep(0.1)
        return found

    def state(self) -> str:
        """For people: everything of volumes, and what was said of it."""
        shown = [
            self.kubectl("-n", NAMESPACE, "get", "jv,deploy,pods,jobs", "-o", "wide"),
            self.kubectl("get", "pvc,pv,jivasnap", "--all-namespaces"),
            self.kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
            self.kubectl("-n", NAMESPACE, "get", "jv", "-o", "yaml"),
            "\n".join(self.runner.notes[-20:]),
        ]
        for log in sorted(self.runner.top.glob("logs/*maya*")):
            shown.append(f"{log.name}\n{log.read_text()[-3000:]}")
        return "\n\n".join(shown)

    def volume(self, name: str) -> dict[str, Any]:
        return self.cluster.get("jivavolume", name, NAMESPACE) or {}

    def claim(self, namespace: str, name: str) -> dict[str, Any]:
        return self.cluster.get("pvc", name, namespace) or {}

    def bound(self, namespace: str, name: str) -> str:
        """The volume's name, once the claim is bound."""

        def is_bound() -> Any:
            claim = self.claim(namespace, name)
            return claim.get("status", {}).get("phase") == "Bound" and claim["spec"]["volumeName"]

        return str(self.wait_for(f"claim {name} is bound", is_bound))

    def whole(self, name: str, copies: int = 3) -> dict[str, Any]:
        """Its status, once it is healthy with so many copies."""

        def is_whole() -> Any:
            status = self.volume(name).get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
            states = [place["state"] for place in status.get("replicas", ())]
            good = conditions.get("InSync") == "True" == conditions.get("Ready")
            return good and states == ["Member"] * copies and status

        return dict(self.wait_for(f"volume {name} has {copies} copies", is_whole))

    def secret(self, name: str) -> tuple[str, str]:
        """What a kubelet logs in with: name and password."""
        reference = (self.cluster.get("pv", name) or {})["spec"]["iscsi"]["secretRef"]
        data = (self.cluster.get("secret", reference["name"], reference["namespace"]) or {})["data"]
        user, password = (
            base64.b64decode(data[f"node.session.auth.{key}"]).decode() for key in ("username", "password")
        )
        return user, password

    def url(self, name: str) -> str:
        """For libiscsi and QEMU."""
        iscsi = (self.cluster.get("pv", name) or {})["spec"]["iscsi"]
        user, password = self.secret(name)
        return f"iscsi://{user}%{password}@{iscsi['targetPortal']}/{iscsi['iqn']}/{iscsi['lun']}"

    def qemu_io(self, name: str, *commands: str) -> None:
        """Read and write it; a read is checked.  Whoever logs in while nobody listens tries again."""
        words = [word for command in commands for word in ("-c", command)]
        argv = ["timeout", "60", "qemu-io", "-f", "raw", *words, self.url(name)]
        for _ in range(90):
            done = self.cluster.run(argv, check=False)
            if "can't open device" not in done.stderr:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Pattern verification failed" not in done.stdout, done.stdout

    def data_left(self, name: str) -> list[str]:
        """Folders of a volume's replicas on all nodes."""
        return [
            f"{node}:{folder.name}"
            for node in self.nodes
            for folder in self.runner.node_path(node, "/var/openebs").glob(f"{name}/replica-*")
        ]


def claim(namespace: str, name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "storageClassName": "quick",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


@contextmanager
def open_site(cluster: Cluster, *nodes: str) -> Iterator[Site]:
    """Maya on these nodes; at the end it and its volumes are deleted."""
    image = pyjiva_image(Path(sys.prefix), TOP / "src", user=65532)
    with open_pod_runner(cluster, *nodes, images={**IMAGES, "pyjiva": image}) as runner:
        site = Site(cluster, runner, nodes)
        site.kubectl("apply", "--server-side", "-f", str(MANIFEST))
        for name in ("jivavolumes", "jivasnapshots"):
            site.kubectl("wait", "--for=condition=Established", f"crd/{name}.openebs.io", "--timeout=60s")
        for name in ("maya-apiserver", "maya-provisioner"):
            site.wait_for(
                f"deployment {name} is ready",
                functools.partial(ready_replicas, cluster, name),
            )
        cluster.apply(CLASS)
        try:
            yield site
        finally:
            keep(site)
            site.kubectl("delete", "jv,jivasnap", "--all", "--all-namespaces", "--wait=false")
            site.kubectl("delete", "storageclass", "quick", "--ignore-not-found")
            site.kubectl("delete", "-f", str(MANIFEST), "--wait=false", "--ignore-not-found")


def keep(site: Site) -> None:
    """What there was, beside the logs."""
    (site.runner.top / "state.txt").write_text(site.state())


def ready_replicas(cluster: Cluster, deployment: str) -> int:
    value = cluster.get("deployment", deployment, NAMESPACE) or {}
    return int(value.get("status", {}).get("readyReplicas", 0))


def is_gone(site: Site, name: str) -> bool:
    return not left_of(site, name)


def left_of(site: Site, name: str) -> list[str]:
    kinds = "jv,deploy,pods,services,configmaps,secrets,jobs,pdb"
    listed = site.kubectl("-n", NAMESPACE, "get", kinds, "-o", "name").split()
    found = [each for each in listed if name in each]
    if site.cluster.get("pv", name) is not None:
        found.append(f"pv/{name}")
    return found
