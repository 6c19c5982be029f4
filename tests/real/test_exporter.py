"""`pyjiva-maya exporter` beside the controller of a real volume, as Kubernetes has it in a pod."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.controller.test_metrics import samples_of
from tests.real.volume_process import running_up, wait_until

pytestmark = pytest.mark.real

TOKEN = "a-token-of-this-volume-alone"


@contextmanager
def running_exporter(directory: Path, *arguments: str) -> Iterator[str]:
    """Where it serves."""
    log = directory / "exporter.log"
    command = [sys.executable, "-m", "pyjiva.cli.maya", "exporter", "-a", "127.0.0.1:0", *arguments]
    with log.open("w") as file:
        environment = os.environ | {"PYJIVA_LOG": "json"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=file, env=environment)
    try:
        found = wait_until(lambda: re.search(r'"address": "([^"]+)"', log.read_text()), "the exporter")
        yield f"http://{found[1]}"
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
        assert TOKEN not in log.read_text()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_it_tells_of_the_volume_and_that_the_volume_is_gone(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    data, options = (
        tmp_path / "data",
        ("--size", "64MiB", "--replicas", "1", "--api-token-file", str(token_file)),
    )
    data.mkdir()
    with running_up(data, "demo", *options) as up:
        api = up.ready["api"]
        mine = ("-c", api, "--api-token-file", str(token_file), "--deadline", "20")
        with running_exporter(tmp_path, *mine) as url:
            found = samples_of(get(f"{url}/metrics"))
            assert found["pyjiva_exporter_controller_up", ()] == 1
            assert found["openebs_volume_status", (("volume", "demo"),)] == 3
            assert found["pyjiva_volume_size_bytes", (("volume", "demo"),)] == 64 * 2**20
            families = {each["name"]: each for each in json.loads(get(f"{url}/metrics/?format=json"))}
            assert families["openebs_size_of_volume"]["metric"] == [{"gauge": {"value": 64 / 1024}}]
            up.process.terminate()
            up.process.wait(60)
            found = samples_of(get(f"{url}/metrics"))
            assert found["pyjiva_exporter_scrapes_total", (("outcome", "unreachable"),)] == 1
            assert found["openebs_volume_status", (("volume", "demo"),)] == 4


def test_without_the_token_it_says_that_it_is_refused(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    data, options = (
        tmp_path / "data",
        ("--size", "64MiB", "--replicas", "1", "--api-token-file", str(token_file)),
    )
    data.mkdir()
    with running_up(data, "demo", *options) as up:
        mine = ("--controller.addr", up.ready["api"], "--listen.path", "/m", "--deadline", "20")
        with running_exporter(tmp_path, *mine) as url:
            found = samples_of(get(f"{url}/m"))
    assert found["pyjiva_exporter_controller_up", ()] == 0
    assert found["pyjiva_exporter_scrapes_total", (("outcome", "refused"),)] == 1
