"""Where the programs of the control plane are, and what else a cluster takes here."""

import functools
import subprocess
from pathlib import Path
from typing import Final

from tests.real import machines

__all__ = ["assets", "reason_not_to"]

SCRIPT: Final = Path(__file__).parents[2] / "scripts/kube-assets"


@functools.cache
def _look() -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, "--if-built"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def assets() -> Path:
    """The folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, perhaps helm.

    There is one if `reason_not_to()` is empty.
    """
    return Path(_look().stdout.strip())


@functools.cache
def reason_not_to() -> str:
    """Why there can be no cluster here; empty: there can."""
    found = _look()
    if found.returncode != 0:
        return f"no Kubernetes to test with: {found.stderr.strip()[-500:]}"
    return machines.reason_not_to()
