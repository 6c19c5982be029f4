"""`pyjiva-maya apiserver --backend local`: a life of a volume, through the death of the apiserver."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from tests.real.volume_process import needs, wait_until

pytestmark = [pytest.mark.real, needs(("qemu-io", "qemu-utils"))]

TOKEN = "5ecre7-0123456789abcdef"


@attrs.define(eq=False)
class Maya:
    """A running apiserver."""

    process: "subprocess.Popen[str]"
    data: Path
    url: str

    def ask(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """The JSON that it answers."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=60, trust_env=False, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def volume(self, name: str) -> dict[str, Any]:
        """Its CASVolume."""
        found: dict[str, Any] = self.ask("GET", f"/latest/volumes/{name}")
        return found

    def wait_available(self, name: str) -> dict[str, Any]:
        """Wait until its I/O is answered by all replicas; its CASVolume."""

        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.volume(name))
            return (found["status"]["Phase"], found["status"]["Reason"]) == ("Available", "")

        try:
            wait_until(look, f"{name} to be available", timeout_s=120)
        except AssertionError as error:
            logs = [self.data.parent / "maya.log", *sorted((self.data / "logs").rglob(f"*{name}*"))]
            tails = [f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs if log.is_file()]
            raise AssertionError("\n\n".join([str(error), json.dumps(found), *tails])) from error
        return found

    def disk(self, name: str) -> str:
        """libiscsi's name of the unit, with the secret of the volume's file."""
        user, secret = (self.data / "secrets" / f"{name}.chap").read_text().split()
        spec = self.volume(name)["spec"]
        return f"iscsi://{user}%{secret}@{spec['targetPortal']}/{spec['iqn']}/{spec['lun']}"


@contextmanager
def running_maya(data: Path, token_file: Path) -> Iterator[Maya]:
    """Ready; stopped by SIGTERM unless it was killed."""
    command = [sys.executable, "-m", "pyjiva.cli.maya", "apiserver", "--backend", "local"]
    command += ["--address", "127.0.0.1:0", "--data", str(data), "--api-token-file", str(token_file)]
    with (data.parent / "maya.log").open("a") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ready api="), f"{line!r}: {(data.parent / 'maya.log').read_text()[-4000:]}"
        yield Maya(process, data, line.strip().removeprefix("ready api="))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                assert process.wait(90) == 0
            finally:
                process.kill()
                process.wait()
        process.stdout.close()


def qemu_io(disk: str, *commands: str, succeeds: bool = True) -> str:
    """What qemu-io says; a pattern that is not there is an error."""
    options = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *options, disk], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode == 0 and "verification failed" not in done.stdout) == succeeds, (
        done.stdout + done.stderr
    )
    return done.stdout


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


def test_a_life_of_a_volume_through_the_death_of_maya(tmp_path: Path, token_file: Path) -> None:
    data = tmp_path / "maya"
    policies = [{"name": "ReplicaCount", "value": "2"}, {"name": "Witness", "enabled": "true"}]
    metadata = {"name": "one", "annotations": {"cas.openebs.io/config": json.dumps(policies)}}
    with running_maya(data, token_file) as maya:
        unknown = httpx.get(f"{maya.url}/latest/volumes/", trust_env=False)
        assert unknown.status_code == 401
        wanted = {"metadata": metadata, "spec": {"capacity": "64Mi"}}
        maya.ask("POST", "/latest/volumes/", json=wanted)
        made = maya.wait_available("one")
        assert [each["witness"] for each in made["status"]["replicas"]] == [False, False, True]
        qemu_io(maya.disk("one"), "write -P 1 0 8M")
        no_secret = f"iscsi://{made['spec']['targetPortal']}/{made['spec']['iqn']}/0"
        qemu_io(no_secret, "read 0 4k", succeeds=False)

        snapshot = {"metadata": {"name": "s"}, "spec": {"volumeName": "one"}}
        maya.ask("POST", "/latest/snapshots/", json=snapshot)
        qemu_io(maya.disk("one"), "write -P 2 0 8M")
        maya.ask("POST", "/latest/volumes/one/clones", json={"name": "two", "snapshotName": "s"})
        maya.wait_available("two")
        qemu_io(maya.disk("two"), "read -P 1 0 8M", "write -P 3 0 64k")
        maya.ask("PUT", "/latest/volumes/one/size", json={"capacity": "96Mi"})
        qemu_io(maya.disk("one"), "read -P 2 0 8M", "write -P 4 90M 1M")
        families = {each["name"]: each for each in maya.ask("GET", "/latest/volumes/stats/one")}
        assert families["openebs_writes"]["metric"][0]["gauge"]["value"] > 0
        wait_until(lambda: json.loads((data / "records/two.json").read_text())["filled"], "two to be filled")
        maya.process.send_signal(signal.SIGKILL)
        maya.process.wait()

    with running_maya(data, token_file) as maya:
        back = maya.wait_available("one")
        assert back["spec"] == {**made["spec"], "capacity": "96Mi"}
        qemu_io(maya.disk("one"), "read -P 2 0 8M", "read -P 4 90M 1M")
        maya.wait_available("two")
        qemu_io(maya.disk("two"), "read -P 3 0 64k", "read -P 1 64k 7M")
        (kept,) = maya.ask("GET", "/latest/snapshots/?volume=one")["items"]
        assert kept["metadata"]["name"] == "s"
        maya.ask("DELETE", "/latest/snapshots/s?volume=one")
        for name in ("one", "two"):
            maya.ask("DELETE", f"/latest/volumes/{name}")
        wait_until(lambda: not maya.ask("GET", "/latest/volumes/")["items"], "both volumes to be gone")
        maya.ask("GET", "/latest/volumes/one", 404)
    for folder in ("records", "secrets", "volumes", "logs"):
        assert list((data / folder).iterdir()) == []
    assert TOKEN not in (tmp_path / "maya.log").read_text()
