"""How commands find the API and show that they may ask it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyjiva.cli.status import command
from tests.cli.fake_api import Api

TOKEN = "0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


def test_the_token_of_the_file_is_sent(api: Api, token_file: Path) -> None:
    CliRunner().invoke(command, ["--api", api.url, "--api-token-file", str(token_file)])
    assert api.authorizations == [f"Bearer {TOKEN}"]


def test_the_environment_may_name_the_file(api: Api, token_file: Path) -> None:
    environment = {"PYJIVA_API": api.url, "PYJIVA_API_TOKEN_FILE": str(token_file)}
    CliRunner().invoke(command, [], env=environment)
    assert api.authorizations == [f"Bearer {TOKEN}"]


def test_without_one_none_is_sent(api: Api) -> None:
    CliRunner().invoke(command, ["--api", api.url])
    assert api.authorizations == [None]


def test_a_file_that_others_may_read_is_not_sent(api: Api, token_file: Path) -> None:
    token_file.chmod(0o644)
    result = CliRunner().invoke(command, ["--api", api.url, "--api-token-file", str(token_file)])
    assert result.exit_code == 2
    assert "others may use it" in result.stderr
    assert api.asked == []


@pytest.mark.parametrize(("sent", "says"), [(False, "it asks for a token: give"), (True, "is not its own")])
def test_a_refusal_says_what_to_do(sent: bool, says: str, api: Api, token_file: Path) -> None:
    api.code = 401
    option = ["--api-token-file", str(token_file)] if sent else []
    result = CliRunner().invoke(command, ["--api", api.url, *option])
    assert result.exit_code == 1
    assert (
        says in result.stderr
        and "--api-token-file" in result.stderr
        and "PYJIVA_API_TOKEN_FILE" in result.stderr
    )
    assert result.stderr.count("\n") == 1
    assert TOKEN not in result.output
