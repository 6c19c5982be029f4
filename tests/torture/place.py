"""The machines of a torture run: network namespaces, small file systems, and the daemons in them.

    client ── front ── controller-a, controller-b ── back ── replica-1, replica-2, replica-3

`front` and `back` are bridges in a namespace of their own; a port of `back` can be moved to a third bridge,
`island`, so that some machines see only each other.  The run lives in a mount namespace of its own
(`scripts/torture` sees to it): its named network namespaces, mounts and loop devices are seen by nobody else
and cannot outlive it.  All the same everything is removed by `close`, by what was made.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

import attrs

from pyjiva.membership import MembershipRecord
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, decode_state
from tests.torture.lossy_disk import cut_power

__all__ = ["CONTROLLERS", "Controller", "Place", "Replica", "hold_everything", "run"]

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
SLACK_BYTES: Final = 48 << 20  # of a file system beyond the volume: checksums, journal, inodes
CLONE_NEWNET: Final = 0x4000_0000


def run(*command: str) -> str:
    """Run a program to its end; what it printed.  Raises with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


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
            *("--key-file", str(self.key_file), *(("--witness",) if self.witness else ())),
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
            *("--key-file", str(self.key_file), *(("--new-volume",) if new_volume else ())),
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


@attrs.define(eq=False)
class Place:
    """Everything that a run makes outside of its own memory."""

    work: Path
    size_bytes: int
    witness: bool
    replicas: list[Replica] = attrs.field(factory=list)
    controllers: dict[str, Controller] = attrs.field(factory=dict)
    _made: ExitStack = attrs.field(factory=ExitStack)

    @property
    def prefix(self) -> str:
        """Of the names of network namespaces."""
        return f"pyjiva-torture-{os.getpid()}"

    def open(self) -> None:
        """Make the machines.  Raises OSError: not possible here; `close` removes what was made."""
        key_file = self.work / "key"
        key_file.touch(0o600)
        key_file.write_text("5a" * 32)
        self._make_network()
        for number in (1, 2, 3):
            self.replicas.append(self._make_replica(number, key_file))
        for name in CONTROLLERS:
            daemon = self._daemon(name)
            self.controllers[name] = Controller(daemon, self.replicas, self.size_bytes, key_file)

    def close(self) -> None:
        """Remove everything; what it needs `work` for is left there."""
        self._made.close()

    def namespace(self, machine: str) -> str:
        """Of a machine, or of the bridges: `hub`."""
        return f"{self.prefix}-{machine}"

    def enter_client(self) -> None:
        """Move this thread, and those that it starts, to the client's machine (setns(2))."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.namespace('client')}", "rb") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def _make_network(self) -> None:
        for machine in ("hub", *dict.fromkeys((*FRONT, *BACK))):
            run("ip", "netns", "add", self.namespace(machine))
            self._made.callback(run, "ip", "netns", "delete", self.namespace(machine))
            run("ip", "-n", self.namespace(machine), "link", "set", "lo", "up")
        for bridge in ("front", "back", "island"):
            self._hub("link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._hub("link", "set", bridge, "up")
        for bridge, hosts in (("front", FRONT), ("back", BACK)):
            for machine, address in hosts.items():
                port, inside = f"{machine}-{bridge[0]}", self.namespace(machine)
                self._hub("link", "add", port, "type", "veth", "peer", "name", bridge, "netns", inside)
                self._hub("link", "set", port, "up", "master", bridge)
                run("ip", "-n", inside, "address", "add", f"{address}/24", "dev", bridge)
                run("ip", "-n", inside, "link", "set", bridge, "up")

    def _hub(self, *arguments: str) -> None:
        run("ip", "-n", self.namespace("hub"), *arguments)

    def _daemon(self, name: str) -> Daemon:
        daemon = Daemon(name, self.namespace(name), self.work)
        self._made.callback(daemon.kill)
        return daemon

    def _make_replica(self, number: int, key_file: Path) -> Replica:
        mount, journal = self.work / f"disk-{number}", self.work / f"journal-{number}"
        image = self.work / f"disk-{number}.img"
        mount.mkdir()
        journal.mkdir()
        with image.open("wb") as file:
            file.truncate(self.size_bytes + SLACK_BYTES)
        run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0", str(image))
        run("mount", "-o", "loop", str(image), str(mount))
        self._made.callback(run, "umount", str(mount))
        daemon = self._daemon(f"replica-{number}")
        witness = self.witness and number == 3
        return Replica(number, daemon, mount, journal, self.size_bytes, key_file, witness)

    # Cuts

    def move(self, machine: str, bridge: str) -> None:
        """Plug the port that a machine has on `back` into `back` or `island`."""
        self._hub("link", "set", f"{machine}-b", "master", bridge)

    def cut(self, machine: str, network: str) -> Callable[[], None]:
        """Unplug a machine from `front` or `back`; call what is returned to plug it in again."""
        port = f"{machine}-{network[0]}"
        self._hub("link", "set", port, "nomaster")
        return lambda: self._hub("link", "set", port, "master", network)

    def mute(self, machine: str, other: str) -> Callable[[], None]:
        """What `machine` sends to `other` on `back` is lost, the other way it is not."""
        route = ("blackhole", f"{BACK[other]}/32")
        inside = self.namespace(machine)
        run("ip", "-n", inside, "route", "add", *route)

        def hear() -> None:
            run("ip", "-n", inside, "route", "delete", *route)

        return hear
