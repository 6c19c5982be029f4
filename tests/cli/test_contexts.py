"""Which API a command asks: --api, a context, the file's default, or the one on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyjiva.cli import contexts
from pyjiva.cli.contexts import read_contexts
from pyjiva.cli.main import commands
from pyjiva.cli.status import command
from pyjiva.errors import ConfigError
from tests.cli.fake_api import Api

TOKEN = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "pyjiva" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def names(api: Api, file: Path, *, default: bool = False) -> None:
    """A file that names the API `here`, with its token."""
    token = file.with_name("here.token")
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    text = 'default = "here"\n' if default else ""
    file.write_text(f'{text}[contexts.here]\napi = "{api.url}"\napi_token_file = "here.token"\n')


def test_a_context_has_the_address_and_the_token(api: Api, file: Path) -> None:
    names(api, file)
    CliRunner().invoke(command, ["--context", "here"])
    assert api.authorizations == [f"Bearer {TOKEN}"]


def test_the_environment_may_name_it(api: Api, file: Path) -> None:
    names(api, file)
    CliRunner().invoke(command, [], env={"PYJIVA_CONTEXT": "here"})
    assert len(api.asked) == 1


def test_the_default_is_for_who_says_nothing(api: Api, file: Path) -> None:
    names(api, file, default=True)
    CliRunner().invoke(command, [])
    assert api.authorizations == [f"Bearer {TOKEN}"]


def test_an_address_counts_more_and_is_not_told_the_token_of_another(api: Api, file: Path) -> None:
    names(api, file, default=True)
    file.write_text(file.read_text().replace(api.url, "http://127.0.0.1:1"))
    CliRunner().invoke(command, ["--api", api.url])
    CliRunner().invoke(command, [], env={"PYJIVA_API": api.url})
    assert api.authorizations == [None, None]


def test_a_context_that_is_not_there_is_named(file: Path) -> None:
    file.write_text('[contexts.one]\napi = "x"\n')
    result = CliRunner().invoke(command, ["--context", "two"])
    assert result.exit_code == 2
    assert f"context two: {file} has one" in result.stderr


def test_without_a_file_there_are_none(file: Path) -> None:
    assert read_contexts().choose(None) is None
    with pytest.raises(ConfigError, match="has none"):
        read_contexts().choose("one")
    assert CliRunner().invoke(contexts.command).output == f"no contexts: {file} has none\n"


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_contexts({"PYJIVA_CONFIG": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[contexts.one]\n", "contexts.one has no api"),
        ("[contexts]\none = 1\n", "contexts.one has no api"),
        ('[contexts.one]\napi = "x"\ntoken = "y"\n', "contexts.one.token is none of api, api_token_file"),
        ("[contexts.one]\napi = 1\n", "contexts.one.api: 1 is no str"),
        ("contexts = 1\n", "contexts: 1 is no dict"),
        ("volume = 1\n", "volume is none of default, contexts"),
        ('default = "two"\n', "context two:"),
        ("[", "Invalid initial character"),
        ("\x00", "config.toml: "),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(text: str, says: str, file: Path) -> None:
    file.write_text(text)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert says in result.stderr


def test_they_are_listed(api: Api, file: Path) -> None:
    names(api, file, default=True)
    lines = CliRunner().invoke(contexts.command).output.splitlines()
    assert lines[1].split() == ["here", "default", api.url, str(file.with_name("here.token"))]


@pytest.mark.parametrize(
    ("words", "completes"), [("pyjiva sta", "status"), ("pyjiva status --con", "--context")]
)
def test_bash_completes(words: str, completes: str) -> None:
    environment = {"_PYJIVA_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    done = subprocess.run(
        [sys.executable, "-c", "from pyjiva.cli.main import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [f"plain,{completes}"], done.stderr


def test_contexts_are_completed(api: Api, file: Path) -> None:
    names(api, file)
    found = contexts.complete_context(None, None, "he")  # type: ignore[arg-type]  # neither is looked at
    assert [(item.value, item.help) for item in found] == [("here", api.url)]
    file.write_text("[")
    assert contexts.complete_context(None, None, "he") == []  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    result = CliRunner().invoke(commands, ["completion", shell])
    assert result.exit_code == 0
    assert f"_PYJIVA_COMPLETE={shell}_complete" in result.output
