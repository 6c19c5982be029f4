"""`pyjiva backup`: the commands as an operator types them, over a replica's directory and the API."""

import json
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyjiva.backup import Progress
from pyjiva.cli import backup_options
from pyjiva.cli.backup import command
from pyjiva.cli.backup_options import Reporter
from pyjiva.snapshot import Store
from tests.backup.s3_server import S3Server, versitygw

SIZE = 4 << 20
CONTENT = (b"1" * (1 << 20)) + bytes(1 << 20) + b"2" * (2 << 20)


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """A replica's directory with the snapshots `mon` and `tue`."""
    store = open_replica(tmp_path / "replica")
    store.write(0, SIZE // 2, (CONTENT[: SIZE // 2],))
    store.zero(1 << 20, 1 << 20)
    store.create_snapshot("mon", created="2026-01-01T00:00:00Z")
    store.write(SIZE // 2, SIZE // 2, (CONTENT[SIZE // 2 :],))
    store.create_snapshot("tue", created="2026-01-02T00:00:00Z")
    store.close()
    return tmp_path / "replica"


def open_replica(path: Path) -> Store:
    """Made if it is not there."""
    return Store.open_or_create(
        path, volume_id="ab" * 16, replica_id=1, volume_name="demo", size_bytes=SIZE, block_size_bytes=512
    )


def run(*arguments: object, code: int = 0) -> Result:
    """One command, which ends with `code`."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def create(store: object, snapshot: str, replica: Path, *more: object) -> dict[str, Any]:
    """The backup as JSON."""
    result = run("create", store, snapshot, "--directory", replica, "--json", *more)
    made: dict[str, Any] = json.loads(result.stdout)
    return made


def test_a_round_trip(replica: Path, tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "disk.img"
    first, second = (create(store, name, replica) for name in ("mon", "tue"))
    assert (first["base"], second["base"]) == ("", first["id"])
    assert second["read_bytes"] == SIZE // 2
    listed = json.loads(run("ls", store, "--json").stdout)
    assert [one["id"] for one in listed] == [first["id"], second["id"]]
    table = run("ls", store).stdout
    assert str(second["id"]) in table
    assert "tue" in table
    assert json.loads(run("ls", store, "--json", "--volume", "other").stdout) == []
    assert "2 backups, 2 chunks, 0 problems" in run("verify", store).stdout
    run("restore", store, second["id"], "--to", file)
    assert file.read_bytes() == CONTENT
    assert "1 backups removed, 0 chunks" in run("rm", store, first["id"]).stdout
    run("restore", store, second["id"], "--to", file, "--overwrite")
    assert "1 backups removed, 2 chunks" in run("rm", store, second["id"]).stdout
    assert not list((store / "chunks").rglob("*/*"))


def test_a_new_replica(replica: Path, tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "new"
    made = create(store, "tue", replica)
    arguments = ("restore", store, made["id"], "--to-directory", target, "--volume", "copy")
    assert (
        f"pyjiva-replica --volume copy --volume-id {'cd' * 16} --replica-id 2"
        in run(*arguments, "--volume-id", "cd" * 16, "--replica-id", 2).stdout
    )
    opened = Store.open_or_create(
        target, volume_id="cd" * 16, replica_id=2, volume_name="copy", size_bytes=SIZE, block_size_bytes=512
    )
    assert bytes(opened.read(0, SIZE)) == CONTENT
    opened.close()
    assert "is there already" in run(*arguments, code=2).stderr


def test_with_a_key(replica: Path, tmp_path: Path) -> None:
    store, key, other = tmp_path / "store", tmp_path / "key", tmp_path / "other"
    key.write_text("ab" * 32)
    other.write_text("cd" * 32)
    made = create(store, "mon", replica, "--key-file", key)
    assert run("ls", store, "--key-file", key).stdout.count("mon") == 1
    for more, why in (((), "give its key with --key-file"), (("--key-file", other), "this is not its key")):
        assert why in run("ls", store, *more, code=2).stderr
        assert why in run("restore", store, made["id"], "--to", tmp_path / "f", *more, code=2).stderr
        assert why in run("create", store, "tue", "--directory", replica, *more, code=2).stderr
    run("restore", store, made["id"], "--to", tmp_path / "f", "--key-file", key)
    assert (tmp_path / "f").read_bytes() == CONTENT[: 1 << 20].ljust(SIZE, b"\0")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_chunk(damage: str, replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = create(store, "tue", replica)
    chunk = sorted((store / "chunks").rglob("*/*"))[0]
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:100])
    failed = run("restore", store, made["id"], "--to", tmp_path / "f", code=1)
    assert failed.stderr.count("\n") == 1
    assert chunk.name in failed.stderr
    assert not (tmp_path / "f").exists()
    found = run("verify", store, code=5)
    assert chunk.name in found.stderr
    assert f"(in {made['id']})" in found.stderr
    run("verify", store, "--quick", code=5 if damage == "missing" else 0)
    run("verify", store, "--discard-bad", code=5)
    create(store, "mon", replica)
    create(store, "tue", replica)
    run("verify", store)
    run("restore", store, made["id"], "--to", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("ls", "{tmp}/none"), "is not a store of backups"),
        (("restore", "{tmp}/none", "20260101T000000Z-00000000", "--to", "{tmp}/f"), "is not a store"),
        (("restore", "{tmp}/none", "x", "--to", "{tmp}/f"), "'x' is not the id of a backup"),
        (("restore", "{tmp}/none", "20260101T000000Z-00000000"), "one of --to and --to-directory"),
        (("rm", "{tmp}/none", "../x"), "is not the id of a backup"),
        (("create", "{tmp}/s", "mon", "--directory", "{tmp}"), "not the directory of a pyjiva replica"),
        (("create", "{tmp}/s", "never", "--directory", "{tmp}/replica"), "never"),
        (("create", "s3://", "mon", "--directory", "{tmp}/replica"), "write s3://BUCKET"),
        (("ls", "{tmp}/none", "--s3-endpoint", "http://127.0.0.1:1"), "--s3-endpoint is of use with s3://"),
        (("verify", "{tmp}/none", "--rate", "0"), "at least 1 byte per second"),
        (("ls", "{tmp}/none", "--key-file", "{tmp}/none"), "key file"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    arguments: tuple[str, ...], why: str, replica: Path, tmp_path: Path
) -> None:
    result = run(*(text.format(tmp=tmp_path) for text in arguments), code=2)
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == [replica]


def test_the_size_of_chunks_is_the_stores(replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert create(store, "tue", replica, "--chunk-size", "256KiB")["chunks"] == 12
    assert create(store, "tue", replica)["chunk_bytes"] == 256 * 1024
    refused = run("create", store, "tue", "--directory", replica, "--chunk-size", "1MiB", code=2)
    assert "was made with chunks of 256KiB" in refused.stderr
    odd = run("create", tmp_path / "s", "tue", "--directory", replica, "--chunk-size", "1MB", code=2)
    assert "power of two" in odd.stderr
    assert not (tmp_path / "s").exists()


def test_a_backup_that_is_not_there_is_not_removed(replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = create(store, "mon", replica)
    assert "has no backup" in run("rm", store, made["id"], "20260101T000000Z-00000000", code=2).stderr
    assert str(made["id"]) in run("ls", store).stdout


def test_a_collection_beside_a_backup_is_put_off(replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = create(store, "mon", replica)
    (store / "locks" / "other.0").write_text('{"kind": "create", "process": "elsewhere", "began": "noon"}')
    result = run("rm", store, made["id"])
    assert "1 backups removed" in result.stdout
    assert "another process makes a backup, since noon" in result.stderr
    assert list((store / "chunks").rglob("*/*"))


def interrupt(store: Path, replica: Path, number: signal.Signals) -> tuple[int, str]:
    """Begin a backup, and send its process a signal: exit code and standard error."""
    arguments = ("backup", "create", store, "tue", "--directory", replica, "--chunk-size", "64KiB")
    with subprocess.Popen(
        # What a shell starts in the background ignores SIGINT, and so would this child of it.
        [
            *("env", "--default-signal=INT", sys.executable, "-m", "pyjiva.cli.main"),
            *(*map(str, arguments), "--rate", "256KiB"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(store.rglob("chunks/*/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            select.select([], [], [], 0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.real
def test_a_backup_that_is_killed_holds_nobody_up_and_goes_on(replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    interrupt(store, replica, signal.SIGKILL)
    assert list((store / "locks").iterdir())
    assert json.loads(run("ls", store, "--json").stdout) == []
    made = create(store, "tue", replica)
    assert "0 backups removed, 0 chunks" in run("rm", store).stdout
    assert not list((store / "locks").iterdir())
    run("verify", store)
    run("restore", store, made["id"], "--to", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.real
def test_ctrl_c_keeps_how_far_it_was(replica: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert interrupt(store, replica, signal.SIGINT) == (
        130,
        "pyjiva: interrupted; the same command goes on from here\n",
    )
    assert not list((store / "locks").iterdir())
    assert list((store / "unfinished").iterdir())
    assert create(store, "tue", replica)["read_bytes"] < 3 << 20
    assert not list((store / "unfinished").iterdir())


def test_nobody_at_the_api_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyjiva.backup.api_source_io.ATTEMPTS", 1)
    result = run("create", tmp_path / "s", "mon", "--api", "http://127.0.0.1:1", code=1)
    assert "no good answer from the volume at http://127.0.0.1:1" in result.stderr


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    async def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        backup_options.run_backup(interrupted)
    assert caught.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    with Reporter("backup", clock) as reporter:
        for second in range(31):
            now[0] = float(second)
            reporter(Progress(second << 20, 40 << 20))
    assert capsys.readouterr().err.splitlines() == [
        "backup: 25 %, 10MiB of 40MiB, 1MiB/s, 30 s to go",
        "backup: 50 %, 20MiB of 40MiB, 1MiB/s, 20 s to go",
        "backup: 75 %, 30MiB of 40MiB, 1MiB/s, 10 s to go",
    ]


@pytest.mark.real
def test_a_round_trip_through_s3(replica: Path, tmp_path: Path) -> None:
    """With a key, over a real server."""
    key, file = tmp_path / "key", tmp_path / "disk.img"
    key.write_text("ab" * 32)
    with S3Server.running(tmp_path, versitygw()) as server, server.credentials():
        store = f"s3://{server.bucket}/{secrets.token_hex(4)}"
        options = ("--s3-endpoint", server.url, "--key-file", key)
        first, second = (create(store, name, replica, *options) for name in ("mon", "tue"))
        assert second["base"] == first["id"]
        run("rm", store, first["id"], *options)
        assert "1 backups, 2 chunks, 0 problems" in run("verify", store, *options).stdout
        run("restore", store, second["id"], "--to", file, *options)
    assert file.read_bytes() == CONTENT
