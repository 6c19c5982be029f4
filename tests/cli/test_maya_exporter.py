"""`pyjiva-maya exporter`: its command line."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pyjiva.cli import maya_exporter
from pyjiva.cli.daemon import Address
from pyjiva.cli.maya import commands
from pyjiva.errors import ConfigError


def taken(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, object]:
    """What the command is called with."""
    got: dict[str, object] = {}
    monkeypatch.setattr(maya_exporter.command, "callback", lambda **given: got.update(given))
    maya_exporter.command.main(arguments, standalone_mode=False)
    return got


def test_it_is_one_of_the_commands() -> None:
    assert "exporter" in commands.list_commands(click.Context(commands))
    assert "exporter" in CliRunner().invoke(commands).output


def test_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    got = taken(monkeypatch)
    assert got["listen_address"] == Address("0.0.0.0", 9500)
    assert (got["listen_path"], got["controller"]) == ("/metrics", "http://127.0.0.1:9501")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", ":19500", "-m", "/m", "-c", "http://c:9501", "-e", "jiva"),
        ("--listen.addr=:19500", "--listen.path=/m", "--controller.addr=http://c:9501", "--cas.type=jiva"),
        ("--listen-address", "0.0.0.0:19500", "--listen-path", "/m", "--controller.addr", "http://c:9501"),
    ],
)
def test_openebs_spellings_are_taken(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    got = taken(monkeypatch, *arguments)
    found = [got[name] for name in ("listen_address", "listen_path", "controller", "cas_type")]
    assert found == [Address("0.0.0.0", 19500), "/m", "http://c:9501", "jiva"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-e", "cstor"), "'cstor' is not 'jiva'"),
        (("-a", "9500"), "write HOST:PORT"),
        (("--deadline", "0"), "0.0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        maya_exporter.command.main(arguments, standalone_mode=False)


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-this-volume")
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="others may use it"):
        maya_exporter.make_client("127.0.0.1:9501", {"api_token_file": token}, 1.0)


async def test_an_address_without_a_scheme_is_by_http() -> None:
    client = maya_exporter.make_client("127.0.0.1:9501", {}, 1.0)
    assert client.url == "http://127.0.0.1:9501"
    await client.aclose()
