"""`pyjiva up`: a replicated volume on one machine, from one command.

Wires `supervisor` to the two daemons: their command lines, the ports that they listen on, and what people are
told.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import click

from pyjiva.block import Limits
from pyjiva.cli.access import FILES, AccessOptions, access_options, read_access
from pyjiva.cli.configuration import is_of_a_daemon
from pyjiva.cli.daemon import ADDRESS, SIZE, Address, run_daemon, wait_for_end_of_stdin
from pyjiva.cli.fill import FillFrom, fill_arguments, fill_options, take_fill
from pyjiva.cli.limits import limit_arguments, limit_options, take_limits
from pyjiva.cli.schedule import schedule_arguments, schedule_options, take_schedule
from pyjiva.cli.token_option import token_option
from pyjiva.cli.trace_options import TraceOptions, take_trace, trace_arguments, trace_options
from pyjiva.cli.tuning import take_tuning, tuning_arguments, tuning_options
from pyjiva.controller import Retention, Tuning
from pyjiva.errors import StorageError
from pyjiva.supervisor import (
    Children,
    HeldPorts,
    Supervisor,
    VolumeDescription,
    VolumeDirectory,
    VolumeRequest,
)
from pyjiva.supervisor.machine import EXIT_CONFIG, STOP_S
from pyjiva.transport.token_file_sys import check_reach, read_token

__all__ = ["Commands", "UpOptions", "command", "run_up"]

LOOPBACK: Final = "127.0.0.1"
REPLICA_PORTS: Final = range(9502, 10000)  # below the kernel's own choices (ip_local_port_range)
CONTROLLER: Final = "controller"
# -P: a file `click.py` in the directory where the operator stands is not ours to run.
PYTHON: Final = (sys.executable, "-P", "-m")
# Stopping goes by rank: the controller first, see `supervisor.machine`.
CONTROLLER_RANK: Final = 0
REPLICA_RANK: Final = 1


@attrs.frozen
class UpOptions:
    """What the operator asked for."""

    volume: VolumeRequest
    data: Path
    portals: tuple[Address, ...]
    api: Address
    access: AccessOptions = attrs.field(factory=AccessOptions)
    tuning: Tuning = attrs.field(factory=Tuning)
    retention: Retention | None = None
    fill: FillFrom | None = None
    detect_zeros: bool = False
    limits: Limits = attrs.field(factory=Limits)
    old_metric_names: bool = False
    token_file: Path | None = None
    """What requests to the API and to the replicas' health ports have to carry."""
    stop_with_stdin: bool = False
    trace: TraceOptions = attrs.field(factory=TraceOptions)


@attrs.frozen
class Commands:
    """The programs that are started, and how long they may take to stop; tests put their own here."""

    controller: Sequence[str] = (*PYTHON, "pyjiva.cli.controller")
    replica: Sequence[str] = (*PYTHON, "pyjiva.cli.replica")
    stop_s: float = STOP_S


@click.command("up")
@click.argument("name", default="demo")
@click.option("--size", type=SIZE, default="10GiB", show_default=True, help="Size of the volume.")
@click.option("--replicas", type=int, default=3, show_default=True, help="Copies, 1 to 7.")
@click.option("--witness", is_flag=True, help="One process more that votes and holds no data.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("pyjiva-data"),
    show_default=True,
    help="Where everything is kept, in a folder of the volume's name.",
)
@click.option(
    "--portal",
    "portals",
    type=ADDRESS,
    multiple=True,
    default=["127.0.0.1:3260"],
    show_default=True,
    help="iSCSI address; repeat for several.",
)
@click.option("--api", type=ADDRESS, default="127.0.0.1:9501", show_default=True, help="HTTP API.")
@token_option
@click.option(
    "--block-size", type=int, default=512, show_default=True, help="Bytes in a logical block: 512 or 4096."
)
@tuning_options
@schedule_options
@fill_options
@limit_options
@trace_options
@click.option("--detect-zeros", is_flag=True, help="Blocks of zeros that are written take no space.")
@click.option("--old-metric-names", is_flag=True, help="Metrics openebs_* as OpenEBS' exporter had them.")
@click.option("--stop-with-stdin", is_flag=True, help="Stop when standard input ends.")
@access_options
def command(
    name: str,
    size: int,
    replicas: int,
    witness: bool,
    data: Path,
    portals: tuple[Address, ...],
    api: Address,
    api_token_file: Path | None,
    block_size: int,
    detect_zeros: bool,
    old_metric_names: bool,
    stop_with_stdin: bool,
    **given: Any,
) -> None:
    """Run the volume NAME with its replicas until Ctrl-C; the same command brings it back.

    Exit code: 0 after Ctrl-C or SIGTERM, 2 when it cannot be, with the reason in one line.
    """

    data = data.absolute()  # what status says of it is for people who stand elsewhere

    async def run() -> int:
        tuning, retention, fill = take_tuning(given), take_schedule(given), take_fill(given)
        tuning.check_copies(replicas)
        request = VolumeRequest(name, size, block_size, replicas, witness)
        limits, trace = take_limits(given), take_trace(given)
        access = AccessOptions(**given)
        options = UpOptions(
            request,
            data,
            portals,
            api,
            access,
            tuning,
            retention,
            fill,
            detect_zeros,
            limits,
            old_metric_names,
            api_token_file,
            stop_with_stdin,
            trace,
        )
        return await run_up(options)

    _open_standard_descriptors()
    sys.exit(run_daemon("pyjiva", run))


async def run_up(options: UpOptions, commands: Commands | None = None) -> int:
    """Run a volume until SIGINT or SIGTERM; the exit code.

    Raises ConfigError, StorageError: it cannot be, or not here; nothing was started.
    """
    # The controller reads these again: what is wrong is to be said now.
    access, token_file = read_access(options.access), options.token_file
    check_reach(options.api.host, None if token_file is None else read_token(token_file))
    if options.fill is not None:
        options.fill.token()
        options.fill.tls()
    with contextlib.ExitStack() as stack:
        open_directory = functools.partial(VolumeDirectory.open_or_create, options.data, options.volume)
        held = stack.enter_context(HeldPorts())
        # A busy port must not leave a new directory behind; of one that is in use, that is what to say.
        exists = VolumeDirectory.exists(options.data, options.volume.name)
        directory = stack.enter_context(open_directory()) if exists else None
        *portals, api = (
            Address(address.host, held.hold(address.host, address.port))
            for address in (*options.portals, options.api)
        )
        directory = directory or stack.enter_context(open_directory())
        _choose_replica_ports(directory, held)
        if options.volume.members == 2:
            _say("note: of two both are a majority: while one is down, I/O waits for it; see --witness")
        if access.chap is not None:
            _say("note: initiators have to log in with CHAP, see docs/reference/iscsi.md")
        arguments = [part for portal in portals for part in ("--portal", str(portal))]
        arguments += [*options.access.arguments(), *tuning_arguments(options.tuning)]
        arguments += schedule_arguments(options.retention) + fill_arguments(options.fill)
        arguments += ["--detect-zeros"] if options.detect_zeros else []
        arguments += ["--old-metric-names"] if options.old_metric_names else []
        arguments += limit_arguments(options.limits) + trace_arguments(options.trace)
        until = wait_for_end_of_stdin if options.stop_with_stdin else None
        return await UpVolume(directory, arguments, api, token_file, commands or Commands(), until).run()


def _choose_replica_ports(directory: VolumeDirectory, held: HeldPorts) -> None:
    """Give every replica its ports: those of the last time where they are still free."""
    volume = directory.description
    kept = [*volume.data_ports, *volume.health_ports]
    # All that are kept first: none of them is free for another replica.
    ports = [port if port and held.try_hold(LOOPBACK, port) else 0 for port in kept]
    ports = [port or held.hold_first_free(LOOPBACK, REPLICA_PORTS) for port in ports]
    count = volume.request.members
    directory.change(data_ports=tuple(ports[:count]), health_ports=tuple(ports[count:]))


@attrs.define(eq=False)
class UpVolume:
    """One volume's children: their command lines, and what comes of the controller's ready line."""

    directory: VolumeDirectory
    serving: Sequence[str]
    """The controller's options for where and to whom it offers the volume."""
    api: Address
    token_file: Path | None
    commands: Commands
    until: Callable[[], Awaitable[None]] | None = None
    """When this ends, everything stops."""
    _children: Children = attrs.field(init=False)
    _is_ready: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        numbers = range(1, self.directory.description.request.members + 1)
        ranks = [*((f"replica-{number}", REPLICA_RANK) for number in numbers), (CONTROLLER, CONTROLLER_RANK)]
        supervisor = Supervisor(ranks, self.commands.stop_s)
        self._children = Children(
            supervisor, self._command_of, self._on_line, _say, self._environment_of, self.until
        )

    async def run(self) -> int:
        """Until everything has ended; the exit code."""
        return await self._children.run()

    def _on_line(self, name: str, line: str) -> None:
        """Relay the first ready line, once the volume is known to hold data."""
        if self._is_ready or name != CONTROLLER or not line.startswith("ready "):
            return
        try:
            self.directory.change(born=True)
        except StorageError as error:
            _say(str(error))
            self._children.stop(EXIT_CONFIG)
            return
        self._is_ready = True
        _print(line, sys.stdout)
        ready = dict(field.partition("=")[::2] for field in line.split()[1:])
        portal, iqn, api = (ready.get(field, "") for field in ("portal", "iqn", "api"))
        url = f"iscsi://{portal}/{iqn}/0"
        token = "" if self.token_file is None else f" --api-token-file {self.token_file}"
        _say(
            "use it with one of these:\n"
            f"  iscsiadm -m discovery -t sendtargets -p {portal}\n"
            f"  iscsiadm -m node -T {iqn} -p {portal} --login\n"
            f"  qemu-img info {url}\n"
            f"  iscsi-ls -s iscsi://{portal}\n"
            f"  iscsi-inq {url}\n"
            f"  pyjiva status --api {api}{token}\n"
            "Ctrl-C stops it; the same command brings it back."
        )

    def _command_of(self, name: str) -> list[str]:
        volume = self.directory.description
        common = [
            *("--volume", volume.name, "--volume-id", volume.volume_id),
            *("--size", str(volume.size_bytes), "--block-size", str(volume.block_size_bytes)),
            *("--key-file", str(self.directory.key_file), "--stop-with-stdin"),
            *([] if self.token_file is None else ["--api-token-file", str(self.token_file.absolute())]),
        ]
        if name == CONTROLLER:
            return [*self.commands.controller, *common, *self._controller_options()]
        return [*self.commands.replica, *common, *self._replica_options(int(name.rpartition("-")[2]))]

    @staticmethod
    def _environment_of(name: str) -> dict[str, str]:
        """Ours.  Secrets of initiators are the controller's alone; its options, a daemon has from us."""
        secret = set() if name == CONTROLLER else {variable for _, variable, _ in FILES.values()}
        return {
            variable: value
            for variable, value in os.environ.items()
            if variable not in secret and not is_of_a_daemon(variable)
        }

    def _controller_options(self) -> list[str]:
        volume = self.directory.description
        replicas = [
            part
            for number, port in enumerate(volume.data_ports, 1)
            for part in (
                "--witness" if _is_witness(volume, number) else "--replica",
                f"{number}={LOOPBACK}:{port}",
            )
        ]
        new = [] if volume.born else ["--new-volume"]
        return [*replicas, *self.serving, "--api", str(self.api), *new]

    def _replica_options(self, number: int) -> list[str]:
        volume = self.directory.description
        return [
            *("--replica-id", str(number), "--directory", str(self.directory.replica_directory(number))),
            *("--data", f"{LOOPBACK}:{volume.data_ports[number - 1]}"),
            *("--health", f"{LOOPBACK}:{volume.health_ports[number - 1]}"),
            *(["--witness"] if _is_witness(volume, number) else []),
        ]


def _is_witness(volume: VolumeDescription, number: int) -> bool:
    return number > volume.replicas


def _say(text: str) -> None:
    """Something for people."""
    _print(f"pyjiva: {text}", sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    if stream is None:  # it was given to us closed
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:  # whoever read it has gone (`pyjiva up | head -1`): the volume is served all the same
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _open_standard_descriptors() -> None:
    """Open what was given to us closed, or the next file to be opened would be taken for it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
