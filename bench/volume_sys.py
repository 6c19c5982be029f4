"""A volume whose processes a bench kills, stops and brings back itself: no supervisor stands in between."""

import contextlib
import json
import secrets
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from prometheus_client.parser import text_string_to_metric_families

from bench.errors import BenchError
from bench.process_sys import Process, free_port, running

__all__ = ["BenchVolume", "running_volume"]

READY_TIME_S: Final = 60.0
LOOK_S: Final = 0.02  # between two looks at the API: it costs the controller about a millisecond
REPLICAS: Final = 3


@attrs.define(eq=False)
class Running:
    """A process and how to end it."""

    process: Process
    ends: contextlib.ExitStack
    stands: bool = False
    """Whether it is stopped by a signal."""


@attrs.define(eq=False)
class BenchVolume:
    """One controller and three replicas on this machine."""

    directory: Path
    size_bytes: int
    data_ports: dict[int, int] = attrs.field(init=False)
    health_ports: dict[int, int] = attrs.field(init=False)
    api_port: int = attrs.field(default=0, init=False)
    """What the controller was given by the kernel; 0: it has not started."""
    _volume_id: str = attrs.field(factory=lambda: secrets.token_hex(16), init=False)
    _replicas: dict[int, Running] = attrs.field(factory=dict, init=False)
    url: str = attrs.field(default="", init=False)
    """Of the unit, as libiscsi writes it."""

    def __attrs_post_init__(self) -> None:
        self.data_ports = {n: free_port() for n in range(1, REPLICAS + 1)}
        self.health_ports = {n: free_port() for n in range(1, REPLICAS + 1)}
        self._key_file.write_text(secrets.token_hex(32))

    @property
    def _key_file(self) -> Path:
        return self.directory / "key"

    @property
    def data(self) -> Path:
        """All files that hold its data."""
        return self.directory / "data"

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [
            sys.executable, "-m", f"pyjiva.cli.{program}",
            "--volume", "bench",
            "--volume-id", self._volume_id,
            "--size", str(self.size_bytes),
            "--key-file", str(self._key_file),
            "--stop-with-stdin",
            *arguments,
        ]  # fmt: skip

    # --- processes

    def start_replica(self, replica: int) -> None:
        """Start it over what its directory holds; it is not waited for."""
        command = self._command(
            "replica",
            "--replica-id", str(replica),
            "--directory", str(self.data / f"replica-{replica}"),
            "--data", f"127.0.0.1:{self.data_ports[replica]}",
            "--health", f"127.0.0.1:{self.health_ports[replica]}",
        )  # fmt: skip
        ends = contextlib.ExitStack()
        process = ends.enter_context(running(command, self.directory / f"replica-{replica}.log"))
        self._replicas[replica] = Running(process, ends)

    @contextlib.contextmanager
    def _controller(self) -> Iterator[None]:
        command = self._command("controller", "--portal", "127.0.0.1:0", "--new-volume")
        command += ["--api", "127.0.0.1:0"]
        for replica, port in self.data_ports.items():
            command += ["--replica", f"{replica}=127.0.0.1:{port}"]
        with running(command, self.directory / "controller.log") as process:
            words = process.read_line("ready ", READY_TIME_S).split()
            ready = dict(word.split("=", 1) for word in words if "=" in word)
            self.api_port = int(ready["api"].rpartition(":")[2])
            self.url = f"iscsi://{ready['portal']}/{ready['iqn']}/{ready['lun']}"
            yield

    def kill(self, replica: int) -> None:
        """As `kill -9`."""
        gone = self._replicas.pop(replica)
        gone.process.popen.kill()
        gone.ends.close()

    def stand(self, replica: int) -> None:
        """Stop it by SIGSTOP: its connections stay open, and nothing is answered."""
        self._replicas[replica].process.popen.send_signal(signal.SIGSTOP)
        self._replicas[replica].stands = True

    def go_on(self, replica: int) -> None:
        """Undo `stand`."""
        self._replicas[replica].process.popen.send_signal(signal.SIGCONT)
        self._replicas[replica].stands = False

    def end_replicas(self) -> None:
        """Stop all that still run, cleanly."""
        for replica, member in list(self._replicas.items()):
            if member.stands:
                self.go_on(replica)
            member.ends.close()

    # --- what it says

    def _get(self, port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        """See docs/reference/status.md."""
        answer: dict[str, Any] = json.loads(self._get(self.api_port, "/v1/volume"))
        return answer

    def replica_status(self, replica: int) -> dict[str, Any]:
        """What the controller says of one."""
        return next(r for r in self.status()["replicas"] if r["id"] == replica)

    def ask(self, method: str, path: str) -> None:
        """A change by the API.  Raises BenchError: it was refused."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=READY_TIME_S):
                return
        except OSError as error:
            raise BenchError(f"{method} {path}: {error}") from error

    def events(self) -> list[dict[str, Any]]:
        """See docs/reference/failures.md."""
        answer: list[dict[str, Any]] = json.loads(self._get(self.api_port, "/v1/events"))
        return answer

    def moved_bytes(self, replica: int) -> int:
        """What it received, and what it took out of memory that it shares with the controller."""
        return self.received_bytes(replica) + self.counter(replica, "pyjiva_replica_shared_bytes_total")

    def received_bytes(self, replica: int) -> int:
        """What came in on its data connections since its process began, by its own count."""
        return self.counter(replica, "pyjiva_replica_received_bytes_total")

    def counter(self, replica: int, name: str) -> int:
        """A metric of a replica, since its process began.  Raises BenchError: it has none of that name."""
        text = self._get(self.health_ports[replica], "/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    return int(sample.value)
        raise BenchError(f"replica {replica} does not count {name}")

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Look until it is so.  Raises BenchError: it is not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise BenchError(f"not within {timeout_s:g} s: {what}; the volume says {self.status()}")
            time.sleep(LOOK_S)

    def wait_healthy(self, timeout_s: float = READY_TIME_S) -> None:
        """Wait until all replicas are in sync."""
        self.wait("healthy", lambda: self.status()["state"] == "healthy", timeout_s)

    def is_merged(self) -> bool:
        """Whether no replica has a file of a snapshot."""
        return not list(self.data.glob("*/volume-snap-*"))

    def check_identical(self) -> None:
        """Compare the replicas' data, byte by byte.  Raises BenchError: they differ.

        Nothing may be in flight, and no snapshot be there.
        """
        self.wait("what was deleted is merged", self.is_merged, READY_TIME_S)
        paths = [next((self.data / f"replica-{n}").glob("volume-head-*.img")) for n in self.data_ports]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
            for offset in range(0, self.size_bytes, 1 << 20):
                first, *others = [file.read(1 << 20) for file in files]
                if any(other != first for other in others):
                    raise BenchError(f"the replicas differ in the MiB at {offset}")


@contextlib.contextmanager
def running_volume(directory: Path, size_bytes: int) -> Iterator[BenchVolume]:
    """A new volume in an empty directory, ready and healthy; all its processes end with the body."""
    volume = BenchVolume(directory, size_bytes)
    volume.data.mkdir()
    try:
        for replica in volume.data_ports:
            volume.start_replica(replica)
        with volume._controller():
            volume.wait_healthy()
            yield volume
    finally:
        volume.end_replicas()
