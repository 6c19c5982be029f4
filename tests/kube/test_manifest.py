"""What a real API server says of deploy/kubernetes/pyjiva.yaml and of the chart's other faces."""

import json
from typing import Any

import pytest
import yaml

from tests.deploy.chart import MANIFEST, documents, helm, render
from tests.kube.cluster import Cluster

pytestmark = pytest.mark.real

PLAIN = documents(MANIFEST.read_text())
needs_helm = pytest.mark.skipif(helm() is None, reason="Helm is missing: scripts/kube-assets builds it")


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """With everything of the manifest but what would run: nobody here has the image."""
    things = [each for each in PLAIN if each["kind"] != "Deployment"]
    cluster.apply(*(each for each in things if each["kind"] in ("Namespace", "CustomResourceDefinition")))
    for kind in ("jivavolumes", "jivasnapshots"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{kind}.openebs.io", "--timeout=30s")
    cluster.apply(*things)
    return cluster


def dry_run(cluster: Cluster, *things: dict[str, Any]) -> str:
    """What the server says besides that it would do it: warnings."""
    text = yaml.safe_dump_all(things)
    done = cluster.run(["kubectl", "apply", "--dry-run=server", "-f", "-"], input=text)
    assert done.stdout.count("server dry run") == len(things)
    return "".join(line for line in done.stderr.splitlines(keepends=True) if "last-applied" not in line)


def test_the_server_takes_every_object_without_a_warning(installed: Cluster) -> None:
    assert dry_run(installed, *PLAIN) == ""


@needs_helm
def test_it_takes_what_other_values_make(installed: Cluster) -> None:
    made = documents(
        render(
            apiserver_tokenSecret="token",
            networkPolicy_enabled=True,
            networkPolicy_metricsFrom=[{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
            volumes_inAnyNamespace=True,
            monitoring_dashboard=True,
            storageClasses_default="openebs-jiva-default",
            provisioner_tolerations=[{"operator": "Exists"}],
            provisioner_affinity={"nodeAffinity": {}},
            image_pullSecrets=["mine"],
        )
    )
    # A dashboard is too long for what kubectl notes in an annotation.
    client = [each for each in made if each["metadata"]["name"] != "pyjiva-dashboard"]
    assert dry_run(installed, *client) == ""
    (dashboard,) = (each for each in made if each["metadata"]["name"] == "pyjiva-dashboard")
    command = ["kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-"]
    assert "serverside-applied" in installed.run(command, input=json.dumps(dashboard)).stdout


def test_mayas_pods_are_let_into_a_restricted_namespace(installed: Cluster, namespace: str) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    installed.kubectl("label", "namespace", namespace, level)
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    for deployment in (each for each in PLAIN if each["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        name = deployment["metadata"]["name"]
        metadata = {"name": name, "namespace": namespace}
        installed.apply({**account, "metadata": {**metadata, "name": template["spec"]["serviceAccountName"]}})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        assert dry_run(installed, pod) == ""
        # Which the level would not let in otherwise.
        loose = {**template["spec"], "securityContext": {}}
        refused = installed.run(
            ["kubectl", "apply", "--dry-run=server", "-f", "-"],
            input=json.dumps({**pod, "spec": loose}),
            check=False,
        )
        assert 'violates PodSecurity "restricted' in refused.stderr


def test_the_examples_are_taken(installed: Cluster, namespace: str) -> None:
    for path in sorted((MANIFEST.parent / "examples").iterdir()):
        things = documents(path.read_text())
        for thing in things:
            thing["metadata"]["namespace"] = namespace
        assert dry_run(installed, *things) == ""


APISERVER, PROVISIONER = "pyjiva-apiserver", "pyjiva-provisioner"
MAY: list[tuple[str, str, str, str]] = [
    (APISERVER, "list", "jivavolumes.openebs.io", ""),
    (APISERVER, "update", "jivavolumes.openebs.io/status", "default"),
    (APISERVER, "create", "secrets", "openebs"),
    (APISERVER, "patch", "deployments.apps", "openebs"),
    (APISERVER, "delete", "jobs.batch", "openebs"),
    (APISERVER, "watch", "nodes", ""),
    (APISERVER, "get", "persistentvolumeclaims", "default"),
    (APISERVER, "update", "leases.coordination.k8s.io/pyjiva-apiserver", "openebs"),
    (PROVISIONER, "create", "persistentvolumes", ""),
    (PROVISIONER, "patch", "persistentvolumeclaims/status", "default"),
    (PROVISIONER, "create", "events", "default"),
    (PROVISIONER, "create", "jivavolumes.openebs.io", "default"),
    (PROVISIONER, "update", "leases.coordination.k8s.io/pyjiva-provisioner", "openebs"),
]
MAY_NOT: list[tuple[str, str, str, str]] = [
    (APISERVER, "get", "secrets", "default"),
    (APISERVER, "list", "secrets", ""),
    (APISERVER, "create", "pods", "openebs"),
    (APISERVER, "create", "deployments.apps", "kube-system"),
    (APISERVER, "create", "persistentvolumes", ""),
    (APISERVER, "update", "persistentvolumeclaims", "default"),
    (APISERVER, "update", "nodes", ""),
    (APISERVER, "create", "serviceaccounts/token", "openebs"),
    (APISERVER, "update", "leases.coordination.k8s.io/pyjiva-provisioner", "openebs"),
    (PROVISIONER, "get", "secrets", "openebs"),
    (PROVISIONER, "create", "pods", "openebs"),
    (PROVISIONER, "update", "persistentvolumeclaims", "default"),
    (PROVISIONER, "update", "jivavolumes.openebs.io/status", "openebs"),
    (PROVISIONER, "delete", "jivasnapshots.openebs.io", "openebs"),
    (PROVISIONER, "get", "leases.coordination.k8s.io/pyjiva-apiserver", "openebs"),
    ("default", "get", "jivavolumes.openebs.io", "openebs"),
]


def may(cluster: Cluster, account: str, verb: str, resource: str, namespace: str) -> bool:
    kind, _, rest = resource.partition("/")
    subresource, name = (rest, "") if kind != "leases.coordination.k8s.io" else ("", rest)
    command = ["kubectl", "auth", "can-i", verb, f"{kind}/{name}" if name else kind]
    command += [f"--as=system:serviceaccount:openebs:{account}"]
    command += [f"--subresource={subresource}"] if subresource else []
    command += ["-n", namespace] if namespace else ["--all-namespaces"]
    answer = cluster.run(command, check=False).stdout.strip()
    assert answer in ("yes", "no"), answer
    return answer == "yes"


@pytest.mark.parametrize(("account", "verb", "resource", "namespace"), MAY)
def test_an_account_may(installed: Cluster, account: str, verb: str, resource: str, namespace: str) -> None:
    assert may(installed, account, verb, resource, namespace)


@pytest.mark.parametrize(("account", "verb", "resource", "namespace"), MAY_NOT)
def test_an_account_may_not(
    installed: Cluster, account: str, verb: str, resource: str, namespace: str
) -> None:
    assert not may(installed, account, verb, resource, namespace)
