"""The machines of a torture run: network namespaces, cables between them, small file systems.

    client ── front ── controller-a, controller-b ── back ── replica-1, replica-2, replica-3

`front` and `back` are bridges in a namespace of their own; a port of `back` can be moved to a third bridge,
`island`, so that some machines see only each other.  The run lives in a mount namespace of its own
(`scripts/torture` sees to it): its named network namespaces, mounts and loop devices are seen by nobody else
and cannot outlive it.  All the same everything is removed by `close`, by what was made.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from tests.torture.machines import BACK, CONTROLLERS, FRONT, Controller, Daemon, Replica

__all__ = ["Place", "run_program"]

SLACK_BYTES: Final = 48 << 20  # of a file system beyond the volume: checksums, journal, inodes
CLONE_NEWNET: Final = 0x4000_0000


def run_program(*command: str) -> str:
    """Run a program to its end; what it printed.  Raises with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


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
            run_program("ip", "netns", "add", self.namespace(machine))
            self._made.callback(run_program, "ip", "netns", "delete", self.namespace(machine))
            run_program("ip", "-n", self.namespace(machine), "link", "set", "lo", "up")
        for bridge in ("front", "back", "island"):
            self._hub("link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
            self._hub("link", "set", bridge, "up")
        for bridge, hosts in (("front", FRONT), ("back", BACK)):
            for machine, address in hosts.items():
                port, inside = f"{machine}-{bridge[0]}", self.namespace(machine)
                self._hub("link", "add", port, "type", "veth", "peer", "name", bridge, "netns", inside)
                self._hub("link", "set", port, "up", "master", bridge)
                run_program("ip", "-n", inside, "address", "add", f"{address}/24", "dev", bridge)
                run_program("ip", "-n", inside, "link", "set", bridge, "up")

    def _hub(self, *arguments: str) -> None:
        run_program("ip", "-n", self.namespace("hub"), *arguments)

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
        run_program(
            "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0", str(image)
        )
        run_program("mount", "-o", "loop", str(image), str(mount))
        self._made.callback(run_program, "umount", str(mount))
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
        run_program("ip", "-n", inside, "route", "add", *route)

        def hear() -> None:
            run_program("ip", "-n", inside, "route", "delete", *route)

        return hear
