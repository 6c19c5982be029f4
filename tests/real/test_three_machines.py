"""docs/howto/three-machines.md, with its own files and commands, on machines that are network namespaces."""

import functools
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.deploy.units import Unit
from tests.real.machines import Machine, Network, open_network, reason_not_to
from tests.real.volume_process import needs, wait_until

pytestmark = [pytest.mark.real, needs(("qemu-img", "qemu-utils"))]

HOWTO: Final = Path(__file__).parents[2] / "docs/howto/three-machines.md"
ADDRESSES: Final = {1: "10.0.0.11", 2: "10.0.0.12", 3: "10.0.0.13", 4: "10.0.0.14"}
IQN: Final = "iqn.2016-09.com.openebs.jiva:demo"
SECRET: Final = "0123456789abcdef"
MIB: Final = 1 << 20


def blocks(language: str) -> list[str]:
    """What the howto has in blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", HOWTO.read_text(), re.DOTALL | re.MULTILINE)


def file_of(name: str) -> str:
    """The configuration file that the howto gives this name."""
    [text] = [text for text in blocks("toml") if text.startswith(f"# /etc/pyjiva/{name}\n")]
    return text


def commands() -> list[list[str]]:
    """Every `pyjiva …` of the howto's shell blocks, in order."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("pyjiva ")]


def exported() -> dict[str, str]:
    """What the howto puts into the environment of these commands."""
    [line] = re.findall(r"^export (.*)$", HOWTO.read_text(), re.MULTILINE)
    return dict(word.split("=", 1) for word in shlex.split(line))


@attrs.define(eq=False)
class Site:
    """The machines, each with an /etc/pyjiva and a /var/lib/pyjiva somewhere else."""

    folder: Path
    network: Network
    machines: dict[int, Machine] = attrs.field(factory=dict)
    processes: dict[str, "subprocess.Popen[Any]"] = attrs.field(factory=dict)

    def etc(self, number: int) -> Path:
        """A machine's /etc/pyjiva."""
        return self.folder / f"machine-{number}" / "etc"

    def here(self, number: int, text: str) -> str:
        """A text of the howto with a machine's folders."""
        base = self.folder / f"machine-{number}"
        return text.replace("/etc/pyjiva", f"{base}/etc").replace("/var/lib/pyjiva", f"{base}/lib")

    def install(self, number: int) -> None:
        """A machine with a replica, configured as the howto says."""
        self.machines[number] = self.network.add(ADDRESSES[number])
        etc = self.etc(number)
        etc.mkdir(parents=True)
        (etc.parent / "lib").mkdir(0o700)
        for name, text in (("key", "ab" * 32), ("token", "cd" * 32), ("chap", f"host-a {SECRET}\n")):
            file = etc / f"demo.{name}"
            file.touch(0o600)
            file.write_text(text)
        text = file_of("replica-demo-1.toml").replace("demo-1", f"demo-{number}")
        text = text.replace("replica-id = 1", f"replica-id = {number}").replace(
            ADDRESSES[1], ADDRESSES[number]
        )
        (etc / f"replica-demo-{number}.toml").write_text(self.here(number, text))

    def start(self, unit: str, number: int, instance: str, *more: str) -> "subprocess.Popen[Any]":
        """What `systemctl start` would run."""
        start = Unit.read(unit).one("ExecStart").replace("%i", instance)
        program, *arguments = shlex.split(self.here(number, start))
        module = program.removeprefix("/opt/pyjiva/bin/pyjiva-")
        with (self.folder / f"{module}-{instance}.log").open("a") as log:
            process = self.machines[number].start(
                *(sys.executable, "-m", f"pyjiva.cli.{module}", *arguments, *more),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.processes[instance] = process
        return process

    def start_replica(self, number: int) -> None:
        """On its machine."""
        self.start("pyjiva-replica@.service", number, f"demo-{number}")

    def start_controller(self, *more: str) -> None:
        """On the first machine, until it is ready."""
        process = self.start("pyjiva-controller@.service", 1, "demo", *more)
        line = process.stdout.readline()  # type: ignore[union-attr]
        assert line.startswith(b"ready "), (self.folder / "controller-demo.log").read_text()

    def stop(self, instance: str) -> None:
        """What `systemctl stop` does."""
        process = self.processes.pop(instance)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    def pyjiva(self, command: list[str]) -> str:
        """A command of the howto, on the first machine."""
        program = (sys.executable, "-m", "pyjiva.cli.main")
        environment = {name: self.here(1, value) for name, value in exported().items()}
        return self.machines[1].run(*program, *command[1:], environment=environment)


@functools.cache
def why_not() -> str:
    return reason_not_to()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Three machines, with their replicas running and a volume on them."""
    if reason := why_not():
        pytest.skip(reason)
    with open_network() as network:
        site = Site(tmp_path, network)
        for number in (1, 2, 3):
            site.install(number)
            site.start_replica(number)
        (site.etc(1) / "controller-demo.toml").write_text(site.here(1, file_of("controller-demo.toml")))
        site.start_controller("--new-volume")
        site.stop("demo")
        yield site


def allocated(site: Site, number: int) -> int:
    """What a replica takes on its disk."""
    files = (site.etc(number).parent / "lib").rglob("*.img")
    return sum(file.stat().st_blocks * 512 for file in files)


def test_the_howto(site: Site, tmp_path: Path) -> None:
    """A host writes while the controller is restarted and a machine is lost and replaced: nothing is lost."""
    until_healthy, add, remove, healthy_again = commands()
    host = site.network.add("10.0.0.21")
    site.start_controller()
    assert "demo" in site.pyjiva(until_healthy)

    source, back = tmp_path / "source.img", tmp_path / "back.img"
    source.write_bytes(os.urandom(MIB) * 128)
    url = f"iscsi://host-a%{SECRET}@{ADDRESSES[1]}:3260/{IQN}/0"
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "raw")
    writer = host.start(
        *convert, "-n", "-r", "40M", str(source), url, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_until(lambda: allocated(site, 1) > 20 * MIB or writer.poll() is not None, "some of it written")
    site.stop("demo")  # with a session held
    assert writer.poll() is None, "it was written before the controller was restarted"
    site.start_controller()
    wait_until(lambda: allocated(site, 1) > 80 * MIB or writer.poll() is not None, "more of it written")
    assert writer.poll() is None, "it was written before the machine was lost"
    site.machines[3].die()
    site.install(4)
    site.start_replica(4)
    site.pyjiva(add)
    site.pyjiva(remove)
    output, _ = writer.communicate(timeout=60)
    assert writer.returncode == 0, output.decode()
    assert "demo" in site.pyjiva(healthy_again)

    file = site.etc(1) / "controller-demo.toml"
    [line] = [text for text in blocks("toml") if text.startswith("replica = ")]
    text, count = re.subn(r"^replica = .*\n", line, file.read_text(), flags=re.MULTILINE)
    assert count == 1
    file.write_text(text)
    site.stop("demo")
    site.start_controller()
    site.stop("demo-1")  # two are left, and one of them is new
    size = str(source.stat().st_size)
    host.run(
        "qemu-img",
        "dd",
        "-f",
        "raw",
        "-O",
        "raw",
        "bs=1M",
        f"count={int(size) // MIB}",
        f"if={url}",
        f"of={back}",
    )
    assert back.read_bytes() == source.read_bytes()
    assert allocated(site, 4) >= 128 * MIB


def test_nobody_logs_in_without_the_secret(site: Site) -> None:
    """From the network that the file allows."""
    host = site.network.add("10.0.0.21")
    site.start_controller()
    for credentials in ("", "host-a%0123456789abcdeX@"):
        url = f"iscsi://{credentials}{ADDRESSES[1]}:3260/{IQN}/0"
        refused = subprocess.run(host.command("qemu-img", "info", url), capture_output=True, text=True)
        assert refused.returncode != 0
    assert IQN.rpartition(":")[2] in site.pyjiva(["pyjiva", "status"])
