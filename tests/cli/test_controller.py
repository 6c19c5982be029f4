"""`pyjiva-controller` and one `pyjiva-replica`, as processes."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from pyjiva.cli import controller
from pyjiva.cli.access import AccessOptions, read_access
from pyjiva.cli.controller import EXIT_FENCED, EXIT_UNSURE, IQN_PREFIX
from pyjiva.cli.daemon import Address
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeFenced, VolumeUnsure
from pyjiva.iscsi.pdu import LoginStatus
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.testing.initiator import open_initiator
from tests.cli.processes import end, running, wait_state


@pytest.mark.parametrize(
    ("error", "code"), [(VolumeFenced("it is gone"), EXIT_FENCED), (VolumeUnsure("who knows"), EXIT_UNSURE)]
)
async def test_how_it_ends_says_whether_to_start_it_again(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As "no member is whole": nobody else has the volume then, and it stayed down under systemd."""

    async def run(self: Volume, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise error

    monkeypatch.setattr(Volume, "run", run)
    here = Address("127.0.0.1", 0)
    options = ControllerOptions("demo", "1" * 32, 4096, 512, (ReplicaAddress(1, "127.0.0.1", 1),), bytes(32))
    with trio.fail_after(20):
        ended = await controller._run(
            options,
            controller.Endpoints((here,), here, None, None, False),
            read_access(AccessOptions(), {}),
            controller.Keeping(),
        )
    assert ended == code


def test_one_that_was_fenced_keeps_out_as_long_as_its_mark_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubelet starts it again, also on a node that is cut off while the volume lives elsewhere."""
    starts: list[Exception] = [VolumeUnsure("who knows"), VolumeFenced("it is gone"), VolumeFenced("again")]

    async def run(self: Volume, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise starts.pop(0)

    monkeypatch.setattr(Volume, "run", run)
    key, mark = tmp_path / "key", tmp_path / "fenced"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    given = [
        *("--volume", "demo", "--volume-id", "1" * 32, "--size", "4096", "--replica", "1=127.0.0.1:1"),
        *("--portal", "127.0.0.1:0", "--api", "127.0.0.1:0", "--key-file", str(key)),
        *("--fenced-file", str(mark)),
    ]
    codes = [CliRunner().invoke(controller.main, given).exit_code for _ in range(3)]
    assert codes == [EXIT_UNSURE, EXIT_FENCED, EXIT_FENCED]
    assert len(starts) == 1, "it tried again"
    mark.unlink()
    assert CliRunner().invoke(controller.main, given).exit_code == EXIT_FENCED
    assert not starts


async def test_no_initiator_is_served_before_the_volume_is_ready(tmp_path: Path) -> None:
    """A command taken before the controller has its epoch could be carried out after its successor's."""
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with HeldPorts() as ports:
        *iscsi, api, data, health = (f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(5))
    with ExitStack() as processes:
        served = processes.enter_context(
            running(
                *("controller", "--key-file", str(key), "--replica", f"1={data}", "--api", api),
                *(word for portal in iscsi for word in ("--portal", portal)),
                "--new-volume",
            )
        )
        await trio.to_thread.run_sync(wait_state, api, "parked")
        host, _, port = iscsi[-1].partition(":")
        async with open_initiator(host, int(port)) as initiator:
            with trio.move_on_after(0.3) as patience:
                await initiator.login(IQN_PREFIX + "demo")
            assert patience.cancelled_caught, "a session before the volume is ready"
        async with open_initiator(host, int(port)) as initiator:
            processes.enter_context(
                running(
                    *("replica", "--key-file", str(key), "--replica-id", "1", "--data", data),
                    *("--health", health, "--directory", str(tmp_path / "replica-1")),
                )
            )
            with trio.fail_after(20):
                answer = await initiator.login(IQN_PREFIX + "demo")
            assert answer.status == LoginStatus.SUCCESS
            assert served.stdout is not None
            assert served.stdout.readline().startswith("ready ")
        end(served)  # before the replica, which would wait for it
