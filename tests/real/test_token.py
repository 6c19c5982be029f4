"""`pyjiva up --api-token-file`: nobody without the token is answered anything but health, on any port."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.real.volume_process import UpProcess, running_up

pytestmark = pytest.mark.real

TOKEN = "5ecre7-0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


def addresses(up: UpProcess, data: Path) -> list[str]:
    """The API, and the health port of each replica."""
    described = json.loads((data / "demo" / "volume.json").read_bytes())
    return [up.ready["api"], *(f"http://127.0.0.1:{port}" for port in described["health_ports"])]


def test_every_port_of_a_volume_asks_for_it(tmp_path: Path, token_file: Path) -> None:
    data = tmp_path / "data"
    with running_up(data, "--size", "16MiB", "--api-token-file", str(token_file)) as up:
        ports = addresses(up, data)
        assert len(ports) == 4
        for port in ports:
            assert httpx.get(f"{port}/v1/health", trust_env=False).status_code == 200
            assert httpx.get(f"{port}/metrics", trust_env=False).status_code == 401
            known = httpx.get(
                f"{port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
            )
            assert known.status_code == 200
        ask = [sys.executable, "-m", "pyjiva.cli.main", "status", "--api", up.ready["api"]]
        refused = subprocess.run(ask, capture_output=True, text=True, check=False)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        answered = subprocess.run(
            [*ask, "--api-token-file", str(token_file)], capture_output=True, check=False
        )
        assert answered.returncode in (0, 3)
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in up.children().values()]
        assert len(lines) == 4
        assert TOKEN.encode() not in b"".join(lines)
        assert up.stop() == 0
        assert TOKEN not in up.log.read_text()


def test_a_clone_is_filled_from_a_volume_that_asks_for_it(tmp_path: Path, token_file: Path) -> None:
    with running_up(tmp_path / "source", "--size", "16MiB", "--api-token-file", str(token_file)) as source:
        api = source.ready["api"]
        create = ["snapshot", "create", "base", "--api", api, "--api-token-file", str(token_file)]
        subprocess.run([sys.executable, "-m", "pyjiva.cli.main", *create], check=True)
        fill = ("--fill-from", f"{api}/v1/snapshots/base", "--fill-token-file", str(token_file))
        with running_up(tmp_path / "clone", "--size", "16MiB", *fill) as clone:
            clone.wait_state("healthy")
            assert clone.stop() == 0
        assert source.stop() == 0
