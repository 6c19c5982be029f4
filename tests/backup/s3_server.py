"""A real S3 server for tests: versitygw over a directory, which `scripts/s3-server` builds once with Go.

`make test` has it built before; where that cannot be done, the tests that need it are skipped and say why.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import attrs
import pytest

__all__ = ["S3Server", "versitygw"]

SCRIPT: Final = Path(__file__).parents[2] / "scripts/s3-server"
START_S: Final = 20.0
ACCESS: Final = "pyjiva-tests"


def versitygw() -> Path:
    """The program.  Skips the test where there is none."""
    built = subprocess.run([SCRIPT, "--if-built"], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"no S3 server to test with: {built.stderr.strip()[-500:]}")
    return Path(built.stdout.strip())


@attrs.frozen
class S3Server:
    """A server that runs, with a bucket."""

    url: str
    bucket: str
    secret: str

    @classmethod
    @contextmanager
    def running(cls, top: Path, program: Path) -> Iterator[Self]:
        """Over the directory `top`."""
        data, beside, log_file = top / "data", top / "metadata", top / "log"
        (data / "pyjiva").mkdir(parents=True)
        beside.mkdir()
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        secret = "a-secret-of-the-tests"
        environment = os.environ | {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": secret}
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [program, "--port", f"127.0.0.1:{port}", "posix", "--sidecar", beside, data],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + START_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert process.poll() is None, log_file.read_text()
                    assert time.monotonic() < deadline, log_file.read_text()
                    time.sleep(0.05)
            yield cls(f"http://127.0.0.1:{port}", "pyjiva", secret)
        finally:
            process.terminate()
            process.wait(START_S)

    @contextmanager
    def credentials(self, secret: str | None = None) -> Iterator[None]:
        """In the environment, as every AWS tool takes them; nothing of the machine's own configuration."""
        patch = pytest.MonkeyPatch()
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret or self.secret)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        try:
            yield
        finally:
            patch.undo()
