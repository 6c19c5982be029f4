"""Machines that are network namespaces with a cable to one switch, seen by nobody else.

    machine … machine
        └── hub ──┘         10.0.0.0/24

A namespace has no name: a process that sleeps holds it and it goes with that, so nothing can be left behind.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import attrs

__all__ = ["Machine", "Network", "make_machine", "open_network", "reason_not_to"]

PROGRAMS: Final = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
END_S: Final = 30.0
#: Killed with us, whatever becomes of us.
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")


def reason_not_to() -> str:
    """Why there can be no such machines here; empty: there can."""
    missing = [f"{PROGRAMS[name]} (for {name})" for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Debian package missing: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces take root"
    try:
        with open_network() as network:
            network.add("10.0.0.1")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


@attrs.define(eq=False)
class Machine:
    """A network namespace, and the processes in it that its user starts."""

    address: str
    holder: "subprocess.Popen[bytes]"
    processes: "list[subprocess.Popen[Any]]" = attrs.field(factory=list)

    def command(self, *command: str) -> list[str]:
        """The same command, on this machine."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *WITH_US, *command]

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[Any]":
        """Start a program that ends with the machine."""
        process = subprocess.Popen(self.command(*command), stdin=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process

    def run(self, *command: str, environment: Mapping[str, str] | None = None, timeout_s: float = 60) -> str:
        """Run a program; what it printed.  It must succeed."""
        done = subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def die(self) -> None:
        """Without a farewell: its cable is gone before its processes are."""
        try:
            if self.address and self.holder.poll() is None:
                _run(*self.command("ip", "link", "delete", "lan"))
        finally:
            for process in [self.holder, *self.processes]:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()


@attrs.define(eq=False)
class Network:
    """The switch, and who is plugged in."""

    hub: Machine
    made: ExitStack
    machines: list[Machine] = attrs.field(factory=list)

    def add(self, address: str) -> Machine:
        """A machine with an address in 10.0.0.0/24."""
        machine = make_machine(address)
        self.made.callback(machine.die)
        self.machines.append(machine)
        port = f"port{len(self.machines)}"
        inside = str(machine.holder.pid)
        self._on_hub("link", "add", port, "type", "veth", "peer", "name", "lan", "netns", inside)
        self._on_hub("link", "set", port, "up", "master", "switch")
        for arguments in (
            ("address", "add", f"{address}/24", "dev", "lan"),
            ("link", "set", "lan", "up"),
            ("link", "set", "lo", "up"),
        ):
            _run(*machine.command("ip", *arguments))
        return machine

    def _on_hub(self, *arguments: str) -> None:
        _run(*self.hub.command("ip", *arguments))


def make_machine(address: str) -> Machine:
    """Without a cable; `address` only says what it will have.  Raises OSError: not possible here."""
    # It says so when it is in the new namespace.
    waiting = "import signal; print(flush=True); signal.pause()"
    holder = subprocess.Popen(
        ["unshare", "--net", *WITH_US, sys.executable, "-c", waiting],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    if not holder.stdout.readline():
        raise OSError(f"unshare --net: exit code {holder.wait()}")
    return Machine(address, holder)


@contextmanager
def open_network() -> Iterator[Network]:
    """A switch without machines; all that is on it dies at the end.  Raises OSError: not possible here."""
    with ExitStack() as stack:
        network = Network(make_machine(""), stack)
        stack.callback(network.hub.die)
        network._on_hub("link", "add", "switch", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        network._on_hub("link", "set", "switch", "up")
        yield network
