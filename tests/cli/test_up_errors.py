"""What cannot be: one line on standard error, exit code 2, and nothing changed."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import structlog

from pyjiva.cli.main import main
from pyjiva.supervisor import VolumeDirectory, VolumeRequest

MIB = 1024 * 1024
NEVER_USED = ("--portal", "127.0.0.1:0", "--api", "127.0.0.1:0")


@attrs.frozen
class Failed:
    """How a command ended."""

    code: int
    out: str
    line: str


Fail = Callable[..., Failed]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Fail]:
    """Run `pyjiva` in this process; it must print one line."""

    def run(*arguments: object) -> Failed:
        monkeypatch.setattr(sys, "argv", ["pyjiva", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        assert err.startswith("pyjiva: "), err
        assert err.count("\n") == 1 and err.endswith("\n"), err
        assert isinstance(caught.value.code, int)
        return Failed(caught.value.code, out, err.strip())

    yield run
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def tree(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything below: content and time of the last change of every name."""
    return {
        str(p.relative_to(path)): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns)
        for p in sorted(path.rglob("*"))
    }


FROM = ("--fill-from", "http://a/v1/snapshots/s")
SECURE = ("--fill-from", "https://a/v1/snapshots/s")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Demo",), "name 'Demo'"),
        (("a" * 64,), "1 to 63"),
        (("../demo",), "name '../demo'"),
        (("--size", "12x"), "size '12x': write a number and a unit"),
        (("--size", "1000"), "multiple of the block size, 512 bytes"),
        (("--size", "0"), "not 0"),
        (("--size", "512", "--block-size", "4096"), "multiple of the block size, 4096 bytes"),
        (("--size", "9000000TiB"), "no file can be so large"),
        (("--block-size", "1024"), "512 or 4096"),
        (("--replicas", "0"), "1 to 7"),
        (("--replicas", "8"), "1 to 7"),
        (("--replicas", "three"), "three"),
        (("--portal", "3260"), "write HOST:PORT"),
        (("--portal", "a..b:3260"), "address 'a..b:3260': no host can be called so"),
        (("--portal", "127.0.0.1:70000"), "ports end at 65535"),
        (("--portal", "192.0.2.1:3260"), "cannot listen on 192.0.2.1:3260: Cannot assign requested address"),
        (("--api", "[::1"), "write HOST:PORT"),
        (("--api", "0.0.0.0:0"), "an HTTP API there needs --api-token-file, or a loopback address"),
        (("--api-token-file", "/nowhere/token"), "token file /nowhere/token: No such file"),
        (("--fill-token-file", "/nowhere/token"), "--fill-token-file needs --fill-from"),
        (("--fill-tls-ca", "/nowhere/ca"), "--fill-tls-ca needs --fill-from"),
        ((*FROM, "--fill-tls-ca", "/nowhere/ca"), "--fill-tls-ca needs --fill-from https://…, not http://a/"),
        ((*SECURE, "--fill-tls-ca", "/nowhere/ca"), "/nowhere/ca: No such file"),
        (
            (*SECURE, "--fill-tls-cert", "/nowhere/cert"),
            "--fill-tls-ca, --fill-tls-cert, --fill-tls-key: a TLS",
        ),
        (("--colour",), "--colour"),
        (("demo", "demo"), "unexpected extra argument"),
        (("--chap-file", "/nowhere/chap"), "--chap-file /nowhere/chap: No such file"),
        (("--initiator", "10.0.0.1/8"), "initiator '10.0.0.1/8'"),
        (("--advertise", "storage"), "write HOST:PORT"),
        (("--advertise", "storage:0"), "--advertise storage:0: initiators need a port"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_for(arguments: tuple[str, ...], says: str, fail: Fail, tmp_path: Path) -> None:
    failed = fail("up", *NEVER_USED, *arguments, "--data", tmp_path / "data")
    assert (failed.code, failed.out) == (2, "")
    assert says in failed.line
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--size", "8MiB"), "size 4MiB (4194304 bytes), asked for was 8MiB (8388608 bytes)"),
        (("--size", "4MiB", "--block-size", "4096"), "block size 512, asked for was 4096"),
        (("--size", "4MiB", "--replicas", "2"), "number of replicas 3, asked for was 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_another_volume_than_the_one_there(
    arguments: tuple[str, ...], says: str, fail: Fail, tmp_path: Path
) -> None:
    VolumeDirectory.open_or_create(tmp_path, VolumeRequest("demo", 4 * MIB, 512, 3)).close()
    before = tree(tmp_path)
    failed = fail("up", *NEVER_USED, *arguments, "--data", tmp_path)
    assert failed.code == 2
    assert says in failed.line
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("photo.jpg", "mine", "holds something else ('photo.jpg')"),
        ("replica-1/volume.meta", "{}", "has replicas but no volume.json"),
        ("volume.json", "{}", "volume.key is missing"),
    ],
)
def test_a_foreign_directory(name: str, content: str, says: str, fail: Fail, tmp_path: Path) -> None:
    file = tmp_path / "demo" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    before = tree(tmp_path)
    failed = fail("up", *NEVER_USED, "--data", tmp_path)
    assert failed.code == 2
    assert says in failed.line
    assert tree(tmp_path) == before


def test_a_damaged_description(fail: Fail, tmp_path: Path) -> None:
    VolumeDirectory.open_or_create(tmp_path, VolumeRequest("demo", 4 * MIB, 512, 3)).close()
    (tmp_path / "demo" / "volume.json").write_bytes(b'{"format": 1,')
    before = tree(tmp_path)
    failed = fail("up", *NEVER_USED, "--size", "4MiB", "--data", tmp_path)
    assert failed.code == 2
    assert "volume.json: damaged; put a good copy back" in failed.line
    assert tree(tmp_path) == before


@pytest.mark.parametrize("option", ["--portal", "--api"])
@pytest.mark.parametrize("exists", [False, True], ids=["new volume", "old volume"])
def test_a_busy_port(option: str, exists: bool, fail: Fail, tmp_path: Path) -> None:
    if exists:
        VolumeDirectory.open_or_create(tmp_path, VolumeRequest("demo", 4 * MIB, 512, 3)).close()
    before = tree(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        failed = fail("up", "--size", "4MiB", *NEVER_USED, option, address, "--data", tmp_path)
    assert failed == Failed(2, "", f"pyjiva: cannot listen on {address}: Address already in use")
    assert tree(tmp_path) == before


def test_a_volume_that_is_running_is_said_to_be_before_its_ports_are(fail: Fail, tmp_path: Path) -> None:
    with (
        VolumeDirectory.open_or_create(tmp_path, VolumeRequest("demo", 4 * MIB, 512, 3)),
        socket.create_server(("127.0.0.1", 0)) as busy,
    ):
        portal = f"127.0.0.1:{busy.getsockname()[1]}"
        failed = fail("up", "--size", "4MiB", *NEVER_USED, "--portal", portal, "--data", tmp_path)
    assert failed.code == 2
    assert "another process has it open; stop that one first" in failed.line


@pytest.mark.parametrize("data", ["file", "/proc/pyjiva"])
def test_where_nothing_can_be_written(data: str, fail: Fail, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    assert fail("up", *NEVER_USED, "--data", tmp_path / data).code == 2
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk(fail: Fail, tmp_path: Path) -> None:
    """A file system with room for the two directories and nothing else."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        failed = fail("up", *NEVER_USED, "--data", tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert failed.code == 2
    assert "No space left on device" in failed.line


def test_a_wrong_command(fail: Fail) -> None:
    assert fail("upp") == Failed(2, "", "pyjiva: No such command 'upp'.")
