"""What in `deploy/`, and of docs/reference/helm.md, is made of something else; as a program it writes it.

    python -m tests.deploy.chart

The plain manifest needs Helm: one on the PATH, or that of scripts/kube-assets.
"""

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from pyjiva.maya.manifest.crd import custom_resource_definitions
from pyjiva.maya.manifest.yaml_writer import write_yaml

__all__ = [
    "CHART",
    "MANIFEST",
    "PAGE",
    "copies",
    "documents",
    "helm",
    "manifest",
    "page",
    "render",
    "schema",
    "values",
]

TOP: Final = Path(__file__).parents[2]
CHART: Final = TOP / "deploy/helm/pyjiva"
MANIFEST: Final = TOP / "deploy/kubernetes/pyjiva.yaml"
PAGE: Final = TOP / "docs/reference/helm.md"
BEGIN: Final = "<!-- made of values.schema.json -->\n"
END: Final = "<!-- end -->\n"
MADE: Final = "# Made of deploy/helm/pyjiva by python -m tests.deploy.chart: docs/reference/helm.md.\n"
KUBERNETES: Final = "1.30.0"  # that it is rendered for: nothing in the chart looks at it but its kubeVersion


def copies() -> dict[Path, str]:
    """Files of the chart that are somewhere else already, as a chart reads none from outside."""
    return {
        CHART / "files/crds.yaml": write_yaml(custom_resource_definitions()),
        CHART / "files/alerts.yml": (TOP / "deploy/prometheus/alerts.yml").read_text(),
        CHART / "files/dashboard.json": (TOP / "deploy/grafana/pyjiva.json").read_text(),
    }


@functools.cache
def helm() -> str | None:
    """The program; None: there is none."""
    if found := shutil.which("helm"):
        return found
    script = TOP / "scripts/kube-assets"
    if not script.exists():
        return None
    done = subprocess.run(
        [script, "--if-built"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    built = Path(done.stdout.strip()) / "helm"
    return str(built) if done.returncode == 0 and built.exists() else None


def render(**changed: Any) -> str:
    """What the chart makes in namespace openebs; `changed`: values, with _ for the dots of a name."""
    program = helm()
    assert program is not None
    command = [program, "template", "pyjiva", str(CHART), "--namespace", "openebs"]
    command += ["--kube-version", KUBERNETES]
    for name, value in changed.items():
        command += ["--set-json", f"{name.replace('_', '.')}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest() -> str:
    """The plain one."""
    return MADE + render(namespace_create=True)


def documents(text: str) -> list[dict[str, Any]]:
    """The objects in it."""
    return [each for each in yaml.safe_load_all(text) if each]


def values() -> dict[str, Any]:
    """As they are by themselves."""
    found: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return found


def schema() -> dict[str, Any]:
    """Of the values."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def described(part: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that has a meaning of its own: `a.b` and its schema."""
    for key, inner in part.get("properties", {}).items():
        whole = f"{name}.{key}" if name else key
        if "properties" in inner:
            yield from described(inner, whole)
        else:
            yield whole, inner


def default_of(name: str) -> Any:
    """Raises KeyError: values.yaml has none."""
    found: Any = values()
    for key in name.split("."):
        found = found[key]
    return found


def page() -> str:
    """docs/reference/helm.md with its table."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = "".join(
        f"| `{name}` | `{json.dumps(default_of(name))}` | {part['description']} |\n"
        for name, part in described(schema())
        if name != "global"
    )
    return f"{before}{BEGIN}| value | default | meaning |\n|---|---|---|\n{rows}{END}{after}"


if __name__ == "__main__":
    for path, text in copies().items():
        path.write_text(text)
    PAGE.write_text(page())
    MANIFEST.parent.mkdir(exist_ok=True)
    MANIFEST.write_text(manifest())
