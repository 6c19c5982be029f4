"""The image of deploy/Containerfile, as a kubelet would run it: another user, over a root that is read-only.

`make test` builds it with scripts/image.  Not checked: the base of a registry, which is Debian's own as well.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

TOP: Final = Path(__file__).parents[2]
STORE: Final = TOP / ".cache/image"
MEGABYTES_MAX: Final = 260
USER: Final = "65532"


def buildah(*arguments: str) -> str:
    """What it printed."""
    place = [f"--root={STORE}/store", f"--runroot={STORE}/run"]
    done = subprocess.run(["buildah", *place, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tag() -> str:
    version = (TOP / "pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
    return f"localhost/pyjiva:{version}"


def reason_not_to() -> str:
    """Why there is no image to look at; "": there is one."""
    if os.geteuid() != 0:
        return "running a root file system needs root"
    if shutil.which("buildah") is None:
        return "Debian package missing: buildah"
    place = [f"--root={STORE}/store", f"--runroot={STORE}/run"]
    command = ["buildah", *place, "inspect", "--type=image", tag()]
    found = STORE.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0
    return "" if found else "no image: make test builds it, or scripts/image --local-base --root .cache/image"


pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(reason_not_to()), reason=reason_not_to())]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """Its root file system, mounted."""
    container = buildah("from", "--pull-never", tag())
    try:
        yield Path(buildah("mount", container))
        buildah("umount", container)
    finally:
        buildah("rm", container)


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """What the image says of itself."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type=image", tag()))["OCIv1"]
    return found


def run(root: Path, settings: dict[str, Any], *command: str) -> "subprocess.CompletedProcess[str]":
    """In a mount namespace of its own: a root that cannot be written, /proc, and a /mnt that can."""
    script = (
        'mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount -o remount,bind,ro "$1" && '
        'mount -t tmpfs -o mode=1777 tmpfs "$1/mnt" && cd "$1" && shift && '
        'exec chroot --userspec="$2" "$1" /usr/bin/env -i "${@:3}"'
    )
    variables = settings["config"]["Env"]
    return subprocess.run(
        [
            "unshare",
            "--mount",
            "bash",
            "-c",
            script,
            "run",
            str(root),
            ".",
            USER + ":" + USER,
            *variables,
            *command,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_runs_as_nobody_in_particular_and_says_what_it_is(settings: dict[str, Any]) -> None:
    assert settings["config"]["User"] == f"{USER}:{USER}"
    labels = settings["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "pyjiva"
    assert labels["org.opencontainers.image.version"] == tag().rpartition(":")[2]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize("program", ["pyjiva", "pyjiva-controller", "pyjiva-replica", "pyjiva-maya"])
def test_every_program_is_there(root: Path, settings: dict[str, Any], program: str) -> None:
    done = run(root, settings, program, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {program} ")


def test_every_command_of_maya_has_its_libraries(root: Path, settings: dict[str, Any]) -> None:
    done = run(root, settings, "pyjiva-maya", "crds")
    assert done.returncode == 0, done.stderr
    assert "kind: CustomResourceDefinition" in done.stdout


def test_a_volume_lives_in_it(root: Path, settings: dict[str, Any]) -> None:
    """Controller and replica import all that they use, and write nowhere but into the data's folder."""
    script = (
        "pyjiva up demo --size 16MiB --replicas 2 --data /mnt --portal 127.0.0.1:0 --api 127.0.0.1:0 "
        ">/mnt/said 2>/mnt/log & "
        "for _ in $(seq 600); do grep -s ready /mnt/said && break; sleep 0.1; done; "
        "kill -TERM $!; wait $!; echo ended $?; cat /mnt/log >&2"
    )
    done = run(root, settings, "sh", "-c", script)
    assert "ready volume=demo" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "ended 0", done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_can_be_written_and_nobody_is_root(root: Path, settings: dict[str, Any]) -> None:
    done = run(root, settings, "sh", "-c", "id -u; id -G; touch /tmp/x /opt/pyjiva/x")
    assert done.stdout.split() == [USER, USER]
    assert done.stderr.count("Read-only file system") == 2


def test_no_tool_that_builds_or_installs_is_left(root: Path) -> None:
    programs = {each.name for folder in ("opt/pyjiva/bin", "usr/bin") for each in (root / folder).iterdir()}
    assert not programs & {"pip", "pip3", "gcc", "cc", "make", "git", "curl"}
    packages = {each.name for each in (root / "opt/pyjiva/lib/python3.11/site-packages").iterdir()}
    assert not packages & {"pip", "setuptools", "hatchling", "botocore"}
    assert "pyjiva" in packages
    assert not list((root / "var/lib/apt/lists").iterdir())


def test_what_init_containers_and_jobs_need_is_there(root: Path) -> None:
    for program in ("chown", "rm", "rmdir", "sh", "sync", "test"):
        assert any((root / folder / program).exists() for folder in ("usr/bin", "bin"))


def test_it_is_small(root: Path) -> None:
    used = subprocess.run(["du", "-xsm", root], capture_output=True, text=True, check=True).stdout
    assert int(used.split()[0]) <= MEGABYTES_MAX
