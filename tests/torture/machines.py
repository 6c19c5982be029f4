"""The daemons of a torture run, and the machines that they run on: killed, stopped, filled up, without power.

A machine is a network namespace (`place`); a replica has a small file system of its own besides, and the
layer of `lossy_disk` over it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final

import attrs

from pyjiva.membership import MembershipRecord
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, decode_state
from tests.torture.lossy_disk import cut_power

__all__ = ["API_PORT", "BACK", "CONTROLLERS", "FRONT", "Controller", "Daemon", "Replica", "hold_everything"]

ROOT: Final = Path(__file__).parents[2]
VOLUME: Final = "torture"
VOLUME_ID: Final = "70" * 16
FRONT: Final = {"client": "10.77.0.1", "controller-a": "10.77.0.11", "controller-b": "10.77.0.12"}
BACK: Final = {
    "controller-a": "10.78.0.11",
    "controller-b": "10.78.0.12",
    **{f"replica-{number}": f"10.78.0.{20 + number}" for number in (1, 2, 3)},
}
CONTROLLERS: Final = ("controller-a", "controller-b")
ISCSI_PORT, API_PORT, DATA_PORT, HEALTH_PORT = 3260, 9501, 9502, 9503


@attrs.define(eq=False)
class Daemon:
    """A process in a network namespace, which is killed, stopped and started again."""

    name: str
    namespace: str
    logs: Path
    process: "subprocess.Popen[bytes] | None" = None
    stopped: bool = False
    starts: int = 0

    def spawn(self, *arguments: str) -> None:
        """Start `python -m …`."""
        assert self.process is None
        self.starts += 1
        self.stopped = False
        # Killed with us, whatever becomes of us; its standard input ends then too.
        prefix = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.namespace}"]
        with self.output.open("wb") as output, (self.logs / f"{self.name}.log").open("ab") as errors:
            errors.write(f"--- start {self.starts}\n".encode())
            errors.flush()
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", *arguments, "--stop-with-stdin"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            )

    @property
    def output(self) -> Path:
        """What it prints."""
        return self.logs / f"{self.name}.{self.starts}.out"

    @property
    def runs(self) -> bool:
        """Whether it has been started and is not stopped."""
        return self.process is not None and not self.stopped

    def ended(self) -> int | None:
        """Its exit code, if it ended by itself; it can be started again then."""
        if self.process is None or self.process.poll() is None:
            return None
        return self._reap()

    def kill(self) -> None:
        """`kill -9`; nothing of it runs when this returns."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def terminate(self) -> None:
        """Ask it to stop."""
        assert self.process is not None
        self.process.terminate()

    def stop(self) -> None:
        """SIGSTOP."""
        assert self.process is not None
        self.stopped = True
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def _reap(self) -> int:
        assert self.process is not None
        code = self.process.wait(30)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process, self.stopped = None, False
        return code


@attrs.define(eq=False)
class Replica:
    """A machine with a disk, and the replica daemon on it."""

    number: int
    daemon: Daemon
    mount: Path
    journal: Path
    size_bytes: int
    key_file: Path
    """Of the volume; its text is the API's token too."""
    witness: bool
    boot: int = 1
    reachable: bool = True
    full: bool = False

    @property
    def directory(self) -> Path:
        """The replica's own."""
        return self.mount / "replica"

    @property
    def address(self) -> str:
        """As a controller is told it."""
        return f"{self.number}={BACK[self.daemon.name]}:{DATA_PORT}"

    @property
    def works(self) -> bool:
        """Whether it could do its part."""
        return self.daemon.runs and self.reachable and not self.full

    def start(self) -> None:
        """Start the daemon."""
        host = BACK[self.daemon.name]
        self.daemon.spawn(
            *("tests.torture.lossy_replica", str(self.journal), f"boot-{self.number}-{self.boot}"),
            *("--volume", VOLUME, "--volume-id", VOLUME_ID, "--replica-id", str(self.number)),
            *("--directory", str(self.directory), "--size", str(self.size_bytes)),
            *("--data", f"{host}:{DATA_PORT}", "--health", f"{host}:{HEALTH_PORT}"),
            *("--key-file", str(self.key_file), "--api-token-file", str(self.key_file)),
            *(("--witness",) if self.witness else ()),
        )

    def cut_power(self, random: Random) -> int:
        """The machine goes down; how many changes were not stable.  `start` boots it."""
        self.daemon.kill()
        self.boot += 1
        return cut_power(self.directory, self.journal, random)

    def fill(self) -> None:
        """Leave no room on the file system."""
        self.full = True
        with (self.mount / "ballast").open("ab") as ballast:
            step = 64 << 20
            while step >= 4096:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, step)
                except OSError:
                    step //= 2

    def make_room(self) -> None:
        """Take the ballast away."""
        (self.mount / "ballast").unlink(missing_ok=True)
        self.full = False

    def state(self) -> ReplicaState | None:
        """What it keeps durably; None: nothing yet."""
        path = self.directory / STATE_FILE
        return decode_state(path.read_bytes()) if path.exists() else None

    @property
    def lost_power(self) -> bool:
        """Whether it may lack what was written to it, unflushed, before it lost power."""
        state = self.state()
        return state is None or state.written_boot_id not in ("", f"boot-{self.number}-{self.boot}")


@attrs.define(eq=False)
class Controller:
    """A machine without a disk, and the controller on it."""

    daemon: Daemon
    replicas: list[Replica]
    size_bytes: int
    key_file: Path
    reachable: bool = True
    """Whether the client and a majority of the replicas see it."""

    @property
    def host(self) -> str:
        """Where clients find it."""
        return FRONT[self.daemon.name]

    @property
    def ready(self) -> bool:
        """Whether it has said that it takes I/O."""
        return self.daemon.process is not None and b"ready " in self.daemon.output.read_bytes()

    def start(self, *, new_volume: bool = False) -> None:
        """Start the daemon."""
        kinds = (
            ("--witness" if replica.witness else "--replica", replica.address) for replica in self.replicas
        )
        self.daemon.spawn(
            *(
                "pyjiva.cli.controller",
                "--volume",
                VOLUME,
                "--volume-id",
                VOLUME_ID,
                "--size",
                str(self.size_bytes),
            ),
            *(word for pair in kinds for word in pair),
            *("--portal", f"{self.host}:{ISCSI_PORT}", "--api", f"{self.host}:{API_PORT}"),
            *("--key-file", str(self.key_file), "--api-token-file", str(self.key_file)),
            *(("--new-volume",) if new_volume else ()),
        )


def hold_everything(replicas: list[Replica]) -> list[Replica]:
    """Those that hold every acknowledged write, flushed or not, as their durable records tell."""
    records: list[MembershipRecord] = []
    for replica in replicas:
        state = replica.state()
        if state is not None and state.record is not None:
            records.append(state.record)
    if not records:
        return []
    in_sync = max(records).in_sync
    return [replica for replica in replicas if replica.number in in_sync and not replica.lost_power]
