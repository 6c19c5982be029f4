"""Files that hold tokens, and addresses that need one."""

import contextlib
from pathlib import Path

import pytest

from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.token_file_sys import check_reach, read_token

TOKEN = "0123456789abcdef"


def token_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    file = path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_for_its_owner_alone_is_read(mode: int, tmp_path: Path) -> None:
    assert read_token(token_file(tmp_path, f"{TOKEN}\n".encode(), mode)) == Token.parse(TOKEN)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o660])
def test_one_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    file = token_file(tmp_path, TOKEN.encode(), mode)
    with pytest.raises(ConfigError, match=f"others may use it: chmod 600 {file}"):
        read_token(file)


@pytest.mark.parametrize(("mode", "good"), [(0o440, True), (0o640, True), (0o660, False), (0o444, False)])
def test_who_is_not_root_may_read_what_root_shows_its_group(
    mode: int, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kubelets mount a Secret for a pod with an fsGroup."""
    file = token_file(tmp_path, TOKEN.encode(), mode)
    assert file.stat().st_uid == 0, "this test is for root"
    monkeypatch.setattr("pyjiva.transport.private_file_sys.os.geteuid", lambda: 65532)
    with contextlib.nullcontext() if good else pytest.raises(ConfigError, match="others may use it"):
        read_token(file)


@pytest.mark.parametrize("content", [b"", b"short", b"a" * 10_000, b"\xff" * 20, b"a b" * 10])
def test_what_is_no_token_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="token file"):
        read_token(token_file(tmp_path, content))


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_token(tmp_path / "token")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_token(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    check_reach(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1"])
def test_any_other_address_needs_one(host: str) -> None:
    check_reach(host, Token.parse(TOKEN))
    with pytest.raises(ConfigError, match=f"{host} can be reached from other machines"):
        check_reach(host, None)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid"):
        check_reach("no.such.host.invalid", None)
