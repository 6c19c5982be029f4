"""`pyjiva up`: a replicated volume on one machine, from one command.

The shell around `supervisor.Supervisor`: starts the children, waits for them, and holds the write ends of
their standard inputs, so that they stop when this process is gone, however it went.
"""

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, assert_never

import attrs
import click
import trio

from pyjiva.cli.daemon import ADDRESS, SIZE, Address, run_daemon
from pyjiva.errors import ConfigError
from pyjiva.supervisor import VolumeDirectory
from pyjiva.supervisor.machine import (
    STOP_S,
    ChildExited,
    Effect,
    Event,
    Finished,
    Kill,
    Start,
    StopRequested,
    Supervisor,
    Terminate,
    Tick,
)

__all__ = ["Commands", "UpOptions", "command", "run_up"]

TICK_S: Final = 0.1
FIRST_PORT: Final = 9502
LAST_PORT: Final = 9999
CONTROLLER: Final = "controller"


@attrs.frozen
class UpOptions:
    """What the operator asked for."""

    name: str
    size_bytes: int
    block_size_bytes: int
    replicas: int
    data: Path
    portal: Address
    api: Address


@attrs.frozen
class Commands:
    """The programs that are started; tests put their own here."""

    controller: Sequence[str] = (sys.executable, "-m", "pyjiva.cli.controller")
    replica: Sequence[str] = (sys.executable, "-m", "pyjiva.cli.replica")
    stop_s: float = STOP_S
    """How long each may take to stop."""


@click.command("up")
@click.argument("name", default="demo")
@click.option("--size", type=SIZE, default="10GiB", show_default=True, help="Size of the volume.")
@click.option("--replicas", type=int, default=3, show_default=True, help="Copies, 1 to 7.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("pyjiva-data"),
    show_default=True,
    help="Where everything is kept, in a folder of the volume's name.",
)
@click.option("--portal", type=ADDRESS, default="127.0.0.1:3260", show_default=True, help="iSCSI address.")
@click.option("--api", type=ADDRESS, default="127.0.0.1:9501", show_default=True, help="HTTP API.")
@click.option(
    "--block-size", type=int, default=512, show_default=True, help="Bytes in a logical block: 512 or 4096."
)
def command(
    name: str, size: int, replicas: int, data: Path, portal: Address, api: Address, block_size: int
) -> None:
    """Run the volume NAME with its replicas until Ctrl-C; the same command brings it back."""
    options = UpOptions(name, size, block_size, replicas, data, portal, api)
    sys.exit(run_daemon("pyjiva", functools.partial(run_up, options)))


async def run_up(options: UpOptions, commands: Commands | None = None) -> int:
    """Run a volume until SIGINT or SIGTERM; the exit code.

    Raises ConfigError, StorageError: it cannot be, or not here; nothing was started.
    """
    directory = VolumeDirectory.open_or_create(
        options.data,
        options.name,
        size_bytes=options.size_bytes,
        block_size_bytes=options.block_size_bytes,
        replicas=options.replicas,
    )
    try:
        for address in (options.portal, options.api):
            _check_free(address)
        _choose_ports(directory, taken={options.portal.port, options.api.port})
        if options.replicas == 2:
            _say("note: of two replicas both are a majority: while one is down, I/O waits for it")
        return await Shell(options, directory, commands or Commands()).run()
    finally:
        directory.close()


@attrs.define(eq=False)
class Shell:
    """Runs the supervisor's effects."""

    options: UpOptions
    directory: VolumeDirectory
    commands: Commands
    _supervisor: Supervisor = attrs.field(init=False)
    _processes: dict[str, trio.Process] = attrs.field(factory=dict, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _ready: Mapping[str, str] | None = attrs.field(default=None, init=False)
    """The fields of the first ready line."""
    _code: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        ranks = [(f"replica-{i}", 1) for i in range(1, self.options.replicas + 1)]
        self._supervisor = Supervisor([*ranks, (CONTROLLER, 0)], self.commands.stop_s)

    async def run(self) -> int:
        """Until everything has ended."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._wait_for_signals)
            while True:
                self._apply(Tick(trio.current_time()))
                await trio.sleep(TICK_S)
        return self._code

    async def _wait_for_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._apply(StopRequested(trio.current_time()))

    def _apply(self, event: Event) -> None:
        for effect in self._supervisor.apply(event):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Start(name):
                self._nursery.start_soon(self._run_child, name)
            case Terminate(name):
                if name in self._processes:
                    self._processes[name].terminate()
            case Kill(name):
                _say(f"{name} does not stop: killed")
                if name in self._processes:
                    self._processes[name].kill()
            case Finished(code):
                self._code = code
                self._nursery.cancel_scope.cancel()
            case _:
                assert_never(effect)

    async def _run_child(self, name: str) -> None:
        """One life of one child."""
        held, given = os.pipe2(os.O_CLOEXEC)[::-1]
        try:
            process = await trio.lowlevel.open_process(
                self._arguments(name),
                stdin=given,
                stdout=subprocess.PIPE if name == CONTROLLER else subprocess.DEVNULL,
                start_new_session=True,  # the terminal's Ctrl-C is for us alone
            )
        finally:
            os.close(given)
        self._processes[name] = process
        if self._supervisor.stopping:  # asked to stop while it was being started
            process.terminate()
        try:
            if process.stdout is not None:
                await self._read_ready(process.stdout)
            code = await process.wait()
        finally:
            os.close(held)
            del self._processes[name]
        if not self._supervisor.stopping:
            _say(f"{name} ended with exit code {code}: {'stopping' if code == 2 else 'starting it again'}")
        self._apply(ChildExited(name, code, trio.current_time()))

    async def _read_ready(self, stdout: trio.abc.ReceiveStream) -> None:
        """Take in the controller's lines until it closes its standard output; relay the first ready line."""
        text = b""
        async with stdout:
            async for data in stdout:
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"ready ") and self._ready is None:
                        self._became_ready(line.decode())

    def _became_ready(self, line: str) -> None:
        self._ready = dict(field.partition("=")[::2] for field in line.split()[1:])
        self.directory.change(born=True)
        print(line, flush=True)
        portal, iqn, api = self._ready["portal"], self._ready["iqn"], self._ready["api"]
        url = f"iscsi://{portal}/{iqn}/0"
        _say(
            "use it with one of these:\n"
            f"  iscsiadm -m discovery -t sendtargets -p {portal}\n"
            f"  iscsiadm -m node -T {iqn} -p {portal} --login\n"
            f"  qemu-img info {url}\n"
            f"  iscsi-inq {url}\n"
            f"  pyjiva status --api {api}\n"
            "Ctrl-C stops it; the same command brings it back."
        )

    def _arguments(self, name: str) -> list[str]:
        """The command line of a child."""
        directory, volume = self.directory, self.directory.description
        common = [
            *("--volume", volume.name, "--volume-id", volume.volume_id),
            *("--size", str(volume.size_bytes), "--block-size", str(volume.block_size_bytes)),
            *("--key-file", str(directory.key_file), "--stop-with-stdin"),
        ]
        if name != CONTROLLER:
            number = int(name.rpartition("-")[2])
            return [
                *self.commands.replica,
                *common,
                *("--replica-id", str(number), "--directory", str(directory.replica_directory(number))),
                *("--data", f"127.0.0.1:{volume.data_ports[number - 1]}"),
                *("--health", f"127.0.0.1:{volume.health_ports[number - 1]}"),
            ]
        portal, api = str(self.options.portal), str(self.options.api)
        if self._ready is not None:  # a port that was chosen for us stays the same
            portal, api = self._ready["portal"], self._ready["api"].removeprefix("http://")
        replicas = [
            part
            for number, port in enumerate(volume.data_ports, 1)
            for part in ("--replica", f"{number}=127.0.0.1:{port}")
        ]
        new = [] if volume.born else ["--new-volume"]
        return [*self.commands.controller, *common, *replicas, "--portal", portal, "--api", api, *new]


def _check_free(address: Address) -> None:
    """Raise ConfigError if `address` cannot be listened on: better known before anything is started."""
    try:
        with socket.create_server(
            (address.host, address.port), family=socket.AF_INET6 if ":" in address.host else socket.AF_INET
        ):
            pass
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error


def _choose_ports(directory: VolumeDirectory, taken: set[int]) -> None:
    """Give every replica its ports, the same as last time where they are still free."""
    volume = directory.description

    def choose(kept: int) -> int:
        candidates: list[int] = [kept, *range(FIRST_PORT, LAST_PORT + 1)]
        for port in candidates:
            if port and port not in taken and _is_free(port):
                taken.add(port)
                return port
        raise ConfigError(f"no free port from {FIRST_PORT} to {LAST_PORT} on 127.0.0.1")

    data_ports = tuple(choose(port) for port in volume.data_ports)
    health_ports = tuple(choose(port) for port in volume.health_ports)
    directory.change(data_ports=data_ports, health_ports=health_ports)


def _is_free(port: int) -> bool:
    try:
        _check_free(Address("127.0.0.1", port))
    except ConfigError:
        return False
    return True


def _say(text: str) -> None:
    """A line for people."""
    print(f"pyjiva: {text}", file=sys.stderr, flush=True)
