"""The pages about Kubernetes show the files that they speak of, and name objects as they are called."""

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import MANIFEST, documents
from tests.real.test_tutorial import steps_of

TOP = Path(__file__).parents[2]
TUTORIAL = TOP / "docs/tutorial/kubernetes.md"
EXAMPLES = TOP / "deploy/kubernetes/examples"


def test_what_the_tutorial_shows_is_in_the_files() -> None:
    shown = [
        yaml.safe_load(part) for part in re.findall(r"```yaml\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    ]
    assert [each["kind"] for each in shown] == ["PersistentVolumeClaim", "JivaSnapshot"]
    files = [documents((EXAMPLES / name).read_text())[0] for name in ("claim.yaml", "snapshot.yaml")]
    assert shown == files


def test_every_example_is_used_and_every_file_is_there() -> None:
    commands = "\n".join(step.command for step in steps_of(TUTORIAL.read_text()))
    named = set(re.findall(r"\$examples/(\S+\.yaml)", commands))
    assert named == {each.name for each in EXAMPLES.iterdir()}
    for path in re.findall(r"deploy/\S+\.yaml", commands):
        assert (TOP / path).exists()


@pytest.mark.parametrize("page", [TUTORIAL, TOP / "docs/howto/uninstall-kubernetes.md"], ids=lambda p: p.stem)
def test_classes_and_deployments_are_ones_that_are_installed(page: Path) -> None:
    things = {(each["kind"], each["metadata"]["name"]) for each in documents(MANIFEST.read_text())}
    text = page.read_text()
    for name in re.findall(r"deployment/([a-z-]+)", text):
        assert ("Deployment", name) in things
    for name in re.findall(r"crd/(\S+\.io)", text):
        assert ("CustomResourceDefinition", name) in things
    for name in re.findall(r"openebs-jiva-[a-z-]+", text):
        assert ("StorageClass", name) in things


def test_the_claims_of_the_examples_ask_for_a_class_that_is_installed() -> None:
    classes = {e["metadata"]["name"] for e in documents(MANIFEST.read_text()) if e["kind"] == "StorageClass"}
    claims = [
        each
        for path in EXAMPLES.iterdir()
        for each in documents(path.read_text())
        if each["kind"] == "PersistentVolumeClaim"
    ]
    assert len(claims) == 2
    assert {claim["spec"]["storageClassName"] for claim in claims} <= classes
