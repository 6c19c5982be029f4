"""The chart and the plain manifest: fresh, no more allowed than is argued for, and what Maya understands."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from pyjiva.cli.maya import COMMANDS
from pyjiva.maya.policy import table
from pyjiva.maya.volume.jiva_volume import JivaVolume, JivaVolumeSpec
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.witness_objects import rights
from pyjiva.maya.yaml_text import read_strings
from tests.deploy.chart import (
    CHART,
    MANIFEST,
    PAGE,
    copies,
    default_of,
    described,
    documents,
    helm,
    manifest,
    page,
    render,
    schema,
    values,
)

needs_helm = pytest.mark.skipif(helm() is None, reason="Helm is missing: scripts/kube-assets builds it")
RENEW = "run python -m tests.deploy.chart"
PLAIN = documents(MANIFEST.read_text())


def objects(kind: str, things: list[dict[str, Any]] = PLAIN) -> dict[str, dict[str, Any]]:
    """By name."""
    return {each["metadata"]["name"]: each for each in things if each["kind"] == kind}


# --- fresh


@pytest.mark.parametrize("path", copies(), ids=lambda path: path.name)
def test_the_charts_copies_are_fresh(path: Path) -> None:
    assert path.read_text() == copies()[path], RENEW


@needs_helm
def test_the_plain_manifest_is_fresh() -> None:
    assert documents(manifest()) == PLAIN, RENEW


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), RENEW


# --- values


def test_every_value_is_described_and_has_a_default_that_the_schema_takes() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    jsonschema.validate(values(), schema())
    names = {name for name, _ in described(schema())} - {"global"}
    for name, part in described(schema()):
        assert part["description"], name
        assert name == "global" or default_of(name) is not None
    given = {f"{outer}.{inner}" for outer, part in values().items() for inner in part}
    assert given == names


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 3},
        {"volumes": {"replicaCount": 7}},
        {"volumes": {"poolDir": "var/openebs"}},
        {"apiserver": {"replicas": 0}},
        {"storageClasses": {"default": "openebs-jiva"}},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


@needs_helm
def test_every_value_is_used() -> None:
    """By the templates: a value that nothing reads would be a promise."""
    text = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    for name, _ in described(schema()):
        outer, _, inner = name.partition(".")
        direct = f".Values.{name}" in text
        by_part = outer in ("apiserver", "provisioner") and f".values.{inner}" in text
        assert direct or by_part or name == "global", name


# --- what is made


def test_what_there_is() -> None:
    kinds = sorted((each["kind"], each["metadata"]["name"]) for each in PLAIN)
    assert [name for kind, name in kinds if kind == "Deployment"] == ["maya-apiserver", "maya-provisioner"]
    assert [name for kind, name in kinds if kind == "Namespace"] == ["openebs"]
    assert not [name for kind, name in kinds if kind in ("Secret", "Service")]
    assert len(kinds) == len(set(kinds))


def test_claims_wait_for_their_pod_and_may_grow() -> None:
    classes = objects("StorageClass")
    assert [*classes] == ["openebs-jiva-default", "openebs-jiva-single", "openebs-jiva-two-witness"]
    for each in classes.values():
        assert each["provisioner"] == "openebs.io/provisioner-iscsi"
        assert each["volumeBindingMode"] == "WaitForFirstConsumer"
        assert each["allowVolumeExpansion"] is True
        assert each["metadata"]["annotations"]["openebs.io/cas-type"] == "jiva"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("openebs-jiva-default", {"ReplicaCount": "3"}),
        ("openebs-jiva-single", {"ReplicaCount": "1"}),
        ("openebs-jiva-two-witness", {"ReplicaCount": "2", "Witness": "volume"}),
    ],
)
def test_policies_of_the_classes_are_ones_that_there_are(name: str, asked: dict[str, str]) -> None:
    text = objects("StorageClass")[name]["metadata"]["annotations"]["cas.openebs.io/config"]
    found = {each["name"]: each.get("value", each.get("enabled")) for each in read_strings(text)}
    assert found == asked
    known = {policy.name: policy for policy in table.POLICIES}
    for each in read_strings(text):
        assert known[each["name"]].form.value in each


def test_mayas_pods_are_as_the_restricted_level_asks() -> None:
    """What the API server says of it is in tests/kube/test_manifest.py."""
    for deployment in objects("Deployment").values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"livenessProbe", "readinessProbe"} <= container.keys()
            assert container["resources"]["requests"]
        assert "hostNetwork" not in pod
        assert not pod.get("volumes")


def test_one_of_two_pods_stays_when_nodes_are_drained() -> None:
    budgets = objects("PodDisruptionBudget")
    for name, deployment in objects("Deployment").items():
        assert deployment["spec"]["replicas"] == 2
        selected = budgets[name]["spec"]["selector"]["matchLabels"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert selected == deployment["spec"]["selector"]["matchLabels"]
        assert selected.items() <= labels.items()


@needs_helm
def test_a_single_pod_has_no_budget_that_would_hold_up_a_drain() -> None:
    made = documents(render(apiserver_replicas=1, provisioner_replicas=1))
    assert not objects("PodDisruptionBudget", made)


@needs_helm
def test_the_api_is_for_others_when_there_is_a_token() -> None:
    made = documents(render(apiserver_tokenSecret="mine"))
    assert objects("Service", made)["maya-apiserver-service"]["spec"]["ports"][0]["port"] == 5656
    pod = objects("Deployment", made)["maya-apiserver"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["secret"]["secretName"] == "mine"
    (listens,) = [a for a in pod["containers"][0]["args"] if a.startswith("--address=")]
    assert listens == "--address=0.0.0.0:5656"
    (listens,) = [
        a
        for a in objects("Deployment")["maya-apiserver"]["spec"]["template"]["spec"]["containers"][0]["args"]
        if a.startswith("--address=")
    ]
    assert listens.startswith("--address=127.0.0.1:")


def arguments() -> Iterator[tuple[str, list[str]]]:
    """Of each command, with values or without."""
    made = [*objects("Deployment").values()]
    if helm() is not None:
        other = documents(render(volumes_inAnyNamespace=True, apiserver_tokenSecret="token"))
        made += objects("Deployment", other).values()
    for deployment in made:
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            yield container["command"][1], container["args"]


@pytest.mark.parametrize(("name", "given"), [*arguments()])
def test_arguments_are_options_of_the_commands(name: str, given: list[str]) -> None:
    if name not in COMMANDS:
        pytest.skip(f"there is no pyjiva-maya {name}")
    command: click.Command = importlib.import_module(COMMANDS[name]).command
    options = {spelling for parameter in command.params for spelling in parameter.opts}
    for parameter in command.params:
        choices = getattr(parameter.type, "choices", ("kubernetes",))
        if parameter.name == "backend" and "kubernetes" not in choices:
            pytest.skip(f"pyjiva-maya {name} has no Kubernetes backend")
    assert {argument.partition("=")[0] for argument in given} <= options


def test_variables_are_ones_that_are_read() -> None:
    known = {policy.environment for policy in table.POLICIES if policy.environment}
    for deployment in objects("Deployment").values():
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            given = {each["name"] for each in container["env"]}
            assert given - {"OPENEBS_NAMESPACE", "POD_NAME"} <= known


@needs_helm
def test_rules_and_dashboard_are_those_of_deploy() -> None:
    made = documents(render(monitoring_podMonitor=True, monitoring_rules=True, monitoring_dashboard=True))
    rules = objects("PrometheusRule", made)["pyjiva"]["spec"]
    assert rules == documents((CHART / "files/alerts.yml").read_text())[0]
    shown = objects("ConfigMap", made)["pyjiva-dashboard"]["data"]["pyjiva.json"]
    assert shown.strip() == (CHART / "files/dashboard.json").read_text().strip()
    assert objects("PodMonitor", made)["pyjiva"]["spec"]["podMetricsEndpoints"][0]["port"] == "exporter"


# --- accounts


def rules(*names: str) -> Iterator[dict[str, Any]]:
    for kind in ("Role", "ClusterRole"):
        for name, role in objects(kind).items():
            if not names or name in names:
                yield from role["rules"]


def test_nobody_may_do_everything_to_anything() -> None:
    for rule in rules():
        for key in ("apiGroups", "resources", "verbs"):
            assert rule[key]
            assert "*" not in rule[key]
        assert not set(rule["verbs"]) & {"deletecollection", "escalate", "bind", "impersonate"}
        assert not set(rule["resources"]) & {"pods/exec", "serviceaccounts/token", "clusterroles"}


def test_accounts_and_roles_are_made_where_volumes_are_and_nowhere_else() -> None:
    """Those of witnesses.  What they are given the apiserver has itself: RBAC lets it give no more."""
    made = {"serviceaccounts", "roles", "rolebindings"}
    roles = [role for kind in ("Role", "ClusterRole") for role in objects(kind).items()]
    having = {name for name, role in roles if any(made & set(rule["resources"]) for rule in role["rules"])}
    assert having == {"pyjiva-volumes"}
    volume = JivaVolume("openebs", "v", JivaVolumeSpec("v", 1, "a" * 32, 2), uid="u")
    _, role, _ = rights(volume, Settings())
    for given in role["rules"]:
        assert any(
            all(set(given[key]) <= set(own[key]) for key in ("apiGroups", "resources", "verbs"))
            for own in rules("pyjiva-apiserver")
        )


def test_the_provisioner_reads_no_secret_and_makes_no_pod() -> None:
    bound = {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for binding in objects(kind).values()
        if any(subject["name"] == "pyjiva-provisioner" for subject in binding["subjects"])
    }
    assert bound == {("ClusterRole", "pyjiva-provisioner"), ("Role", "pyjiva-provisioner-lease")}
    resources = {each for rule in rules("pyjiva-provisioner") for each in rule["resources"]}
    assert not resources & {"secrets", "pods", "deployments", "jobs"}


def test_secrets_are_read_in_no_namespace_but_volumes() -> None:
    bindings = objects("ClusterRoleBinding").values()
    in_all = {binding["roleRef"]["name"] for binding in bindings}
    assert in_all == {"pyjiva-apiserver", "pyjiva-provisioner"}
    assert "secrets" not in {each for rule in rules(*in_all) for each in rule["resources"]}


@needs_helm
def test_maya_works_in_other_namespaces_only_when_it_is_told_to() -> None:
    for anywhere in (False, True):
        made = documents(render(volumes_inAnyNamespace=anywhere))
        kind = "ClusterRoleBinding" if anywhere else "RoleBinding"
        bound = [
            each
            for each in made
            if each["kind"].endswith("Binding") and each["metadata"]["name"] == "pyjiva-volumes"
        ]
        assert [each["kind"] for each in bound] == [kind]
        for deployment in objects("Deployment", made).values():
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            assert ("--all-namespaces" in container["args"]) == anywhere


def test_every_rule_says_why() -> None:
    for file in sorted((CHART / "templates").glob("rbac-*.yaml")):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.match(r"  - apiGroups:", line):
                above = lines[number - 1]
                beside = re.match(r"    verbs:", above)  # two rules to one reason
                assert above.strip().startswith("#") or beside, f"{file.name}:{number + 1}"
