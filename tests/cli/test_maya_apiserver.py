"""`pyjiva-maya apiserver`: its command line, and how it ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

COMMAND = (sys.executable, "-m", "pyjiva.cli.maya", "apiserver", "--address", "127.0.0.1:0")
LOCAL = ("--backend", "local")


@contextmanager
def running(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*COMMAND, *LOCAL, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def refused(*arguments: str) -> str:
    """The one line that it says with exit code 2."""
    done = subprocess.run(
        [*COMMAND, *LOCAL, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    return done.stderr


def test_one_ready_line_then_a_clean_end(tmp_path: Path) -> None:
    pool = f"fast={tmp_path}/fast"
    with running("--data", str(tmp_path / "m"), "--pool", pool, "--health", "127.0.0.1:0") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removeprefix("ready api=")
        pools = httpx.get(f"{url}/latest/pools/", trust_env=False).json()["items"]
        assert [each["metadata"]["name"] for each in pools] == ["default", "fast"]
        assert "another process has it open" in refused("--data", str(tmp_path / "m"))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, ""), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pool", "fast"), "write NAME=/ABSOLUTE/PATH"),
        (("--pool", "default=/a"), "default is not to be named"),
        (("--pool", "a=/a", "--pool", "a=/b"), "a name is given twice"),
        (("--address", "0.0.0.0:0"), "needs --api-token-file"),
        (("--backend", "nomad"), "'nomad'"),
        (("--api-token-file", "/none"), "No such file"),
        (("--data", "/dev/null"), "cannot be opened as a directory"),
        (("--backend", "kubernetes", "--kubeconfig", "/none"), "kubeconfig /none is not there"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("--data", str(tmp_path / "m"), *arguments)


def test_defaults_of_the_environment_that_cannot_be_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENEBS_IO_JIVA_REPLICA_COUNT", "9")
    said = refused("--data", str(tmp_path / "m"))
    assert "the environment: OPENEBS_IO_JIVA_REPLICA_COUNT: found '9'" in said
