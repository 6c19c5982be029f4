"""What a service manager is told, over real datagram sockets, and by the real daemons."""

import contextlib
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pyjiva.cli.replica import _disk_answers
from pyjiva.cli.service_manager import ServiceManager
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB
from tests.cli.processes import end, running

ANSWER_TIME_S = 30.0


class Manager:
    """The other side: a datagram socket, as systemd has it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(ANSWER_TIME_S)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def take(self) -> str:
        """The next message."""
        return self.socket.recv(4096).decode()

    def take_all(self) -> list[str]:
        """What has come and was not taken."""
        found = []
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096).decode())
        self.socket.settimeout(ANSWER_TIME_S)
        return found

    def take_until(self, message: str) -> list[str]:
        """All up to the first one that begins so."""
        found = [self.take()]
        while not found[-1].startswith(message):
            found.append(self.take())
        return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify") if request.param == "path" else f"@pyjiva-{uuid.uuid4()}")
    yield found
    found.socket.close()


@pytest.fixture
def path_manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.socket.close()


async def test_each_message_is_a_datagram(manager: Manager) -> None:
    told = ServiceManager.of({"NOTIFY_SOCKET": manager.address})
    await told.status("parked: waiting\nfor replica 1" + "x" * 2000)
    await told.ready()
    await told.stopping()
    status, *others = manager.take_all()
    assert status.startswith("STATUS=parked: waiting for replica 1xxx")
    assert len(status) == 512 + len("STATUS=")
    assert others == ["READY=1", "STOPPING=1"]


async def test_a_status_is_told_when_it_has_changed(path_manager: Manager, autojump_clock: MockClock) -> None:
    states = ["parked", "parked", "healthy", "healthy", "parked", "parked"]
    told = ServiceManager.of({"NOTIFY_SOCKET": path_manager.address})
    with trio.move_on_after(len(states) - 0.5):
        await told.keep_status(iter(states).__next__)
    assert path_manager.take_all() == ["STATUS=parked", "STATUS=healthy", "STATUS=parked"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "notify"},
    ],
    ids=str,
)
async def test_without_a_socket_nobody_is_told(environment: dict[str, str]) -> None:
    told = ServiceManager.of({**environment, "WATCHDOG_USEC": "1000000"})
    assert told.address is None
    await told.ready()
    await told.keep_status(lambda: "healthy")
    await told.keep_watchdog(forever_well)


async def test_a_manager_that_is_gone_is_said_once(tmp_path: Path) -> None:
    told = ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with structlog.testing.capture_logs() as logs:
        await told.ready()
        await told.stopping()
    assert [log["event"] for log in logs] == ["the service manager is not there"]


@pytest.mark.parametrize(
    ("variables", "period_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # our parent's
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_as_the_environment_says(variables: dict[str, str], period_s: float | None) -> None:
    assert ServiceManager.of({"NOTIFY_SOCKET": "/run/x", **variables}).watchdog_s == period_s


async def forever_well() -> bool:
    await trio.lowlevel.checkpoint()
    return True


async def test_the_watchdog_hears_twice_in_its_period(
    path_manager: Manager, autojump_clock: MockClock
) -> None:
    told = ServiceManager.of({"NOTIFY_SOCKET": path_manager.address, "WATCHDOG_USEC": "4000000"})
    with trio.move_on_after(7):
        await told.keep_watchdog(forever_well)
    assert path_manager.take_all() == ["WATCHDOG=1"] * 4  # at 0, 2, 4 and 6 s


async def test_the_watchdog_hears_nothing_while_something_does_not_answer(
    path_manager: Manager, autojump_clock: MockClock
) -> None:
    told = ServiceManager.of({"NOTIFY_SOCKET": path_manager.address, "WATCHDOG_USEC": "4000000"})
    answers: list[bool | trio.Event] = [True, False, trio.Event()]

    async def ask() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, trio.Event):
            await answer.wait()
            return True
        return answer

    with trio.move_on_after(1000):
        await told.keep_watchdog(ask)
    assert path_manager.take_all() == ["WATCHDOG=1"]


async def test_a_disk_whose_threads_hang_does_not_answer(tmp_path: Path, nursery: trio.Nursery) -> None:
    store = Store.open_or_create(
        tmp_path / "r", volume_id="v", replica_id=1, volume_name="v", size_bytes=MIB, block_size_bytes=512
    )
    hangs, now_s, batch = trio.Event(), 0.0, EndOfBatch()

    async def in_thread(call: Callable[[], None]) -> None:
        await hangs.wait()
        call()

    device = ChainDevice(store, batch, in_thread, lambda: now_s)
    await nursery.start(device.run)
    answered: list[bool] = []

    async def ask() -> None:
        answered.append(await _disk_answers(device, batch, 10.0))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert answered == [], "a thread answered for a disk that does not"
    now_s = 10.0
    await ask()
    assert answered == [False], "one call is too old"
    hangs.set()
    await wait_all_tasks_blocked()
    await ask()
    assert answered == [False, True, True]
    nursery.cancel_scope.cancel()
    store.close()


# --- the daemons


def test_both_daemons_tell_that_they_serve_that_they_live_and_that_they_stop(
    path_manager: Manager, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    other = Manager(str(tmp_path / "other"))
    with HeldPorts() as ports:
        portal, api, data, health = (f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(4))
    environment = {**os.environ, "NOTIFY_SOCKET": path_manager.address, "WATCHDOG_USEC": "200000"}
    replicas = {**environment, "NOTIFY_SOCKET": other.address}
    with contextlib.closing(other.socket), contextlib.ExitStack() as processes:
        controller = processes.enter_context(
            running(
                *("controller", "--key-file", str(key), "--replica", f"1={data}", "--api", api),
                *("--portal", portal, "--new-volume"),
                environment=environment,
            )
        )
        waiting = path_manager.take_until("STATUS=parked: waiting for ")
        waiting += path_manager.take_until("WATCHDOG=1")
        assert "READY=1" not in waiting, "it is not ready: its replica does not run"
        start = partial(running, environment=replicas)
        replica = processes.enter_context(
            start(
                *("replica", "--key-file", str(key), "--replica-id", "1", "--data", data),
                *("--health", health, "--directory", str(tmp_path / "replica-1")),
            )
        )
        other.take_until("READY=1")
        path_manager.take_until("READY=1")
        path_manager.take_until("STATUS=healthy")
        other.take_until("STATUS=in sync")
        for each in (path_manager, other):
            each.take_until("WATCHDOG=1")
        for each, process in ((path_manager, controller), (other, replica)):
            process.send_signal(signal.SIGTERM)
            each.take_until("STOPPING=1")
            end(process)
            assert process.returncode == 0


def test_a_replica_that_hangs_is_not_well(path_manager: Manager, tmp_path: Path) -> None:
    """Stopped, its event loop does not run: what was sent before is all that comes."""
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    environment = {**os.environ, "NOTIFY_SOCKET": path_manager.address, "WATCHDOG_USEC": "100000"}
    arguments = ("--key-file", str(key), "--replica-id", "1", "--witness")  # it has threads too
    ports = ("--data", "127.0.0.1:0", "--health", "127.0.0.1:0")
    with running(
        *("replica", *arguments, *ports, "--directory", str(tmp_path / "r")), environment=environment
    ) as replica:
        path_manager.take_until("WATCHDOG=1")
        path_manager.take_until("WATCHDOG=1")
        replica.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, replica.pid, os.WSTOPPED | os.WNOWAIT)
        path_manager.take_all()
        path_manager.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            path_manager.take()
        replica.send_signal(signal.SIGCONT)
        path_manager.socket.settimeout(ANSWER_TIME_S)
        path_manager.take_until("WATCHDOG=1")
