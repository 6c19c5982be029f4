"""A backup that was restored to a replica's directory is a volume, by the programs that serve one."""

import json
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from pyjiva.cli.backup import command
from pyjiva.cli.controller import IQN_PREFIX
from pyjiva.snapshot import Store
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.testing.initiator import open_initiator
from tests.cli.processes import end, running, wait_state

SIZE = 1 << 20
CONTENT = b"".join(bytes([n]) * 4096 for n in range(SIZE // 4096))


def run(*arguments: object) -> str:
    """One command of `pyjiva backup`."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def backed_up(top: Path) -> str:
    """The id of a backup in `top/store`."""
    replica = Store.open_or_create(
        top / "old",
        volume_id="f" * 32,
        replica_id=1,
        volume_name="old",
        size_bytes=SIZE,
        block_size_bytes=512,
    )
    replica.write(0, SIZE, (CONTENT,))
    replica.create_snapshot("kept", created="2026-01-01T00:00:00Z")
    replica.close()
    made = json.loads(run("create", top / "store", "kept", "--directory", top / "old", "--json"))
    return str(made["id"])


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    """A new replica's directory."""
    backup_id = backed_up(tmp_path)
    identity = ("--volume", "demo", "--volume-id", "0" * 31 + "1", "--replica-id", 1)
    run("restore", tmp_path / "store", backup_id, "--to-directory", tmp_path / "new", *identity)
    return tmp_path / "new"


@pytest.mark.real
async def test_a_host_reads_what_was_backed_up(restored: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with HeldPorts() as ports:
        iscsi, api, data, health = (f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(4))
    with ExitStack() as processes:
        processes.enter_context(
            running(
                *("replica", "--key-file", str(key), "--replica-id", "1", "--data", data),
                *("--health", health, "--directory", str(restored)),
            )
        )
        controller = processes.enter_context(
            running(
                *("controller", "--key-file", str(key), "--replica", f"1={data}", "--api", api),
                *("--portal", iscsi),
            )
        )
        await trio.to_thread.run_sync(wait_state, api, "healthy")
        host, _, port = iscsi.partition(":")
        async with open_initiator(host, int(port)) as initiator:
            await initiator.login(IQN_PREFIX + "demo")
            await initiator.command(bytes(6))  # takes the unit attention of the start, if there is one
            cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, SIZE // 512, 0)
            answer = await initiator.command(cdb, read_bytes=SIZE)
            assert answer.status == 0
            assert bytes(answer.data) == CONTENT
            await initiator.logout()
        end(controller)
