"""`pyjiva-maya witness`: its command line, and what it does without what it needs."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pyjiva.cli import maya_witness
from pyjiva.cli.daemon import Address
from pyjiva.cli.maya import commands

GIVEN = {
    "--volume": "pvc-1",
    "--namespace": "openebs",
    "--uid": "u-1",
    "--volume-id": "ab" * 16,
    "--replica-id": "3",
    "--key-file": "key",
}


def words(**changed: str) -> list[str]:
    return [word for pair in (GIVEN | changed).items() for word in pair]


def test_it_is_one_of_the_commands() -> None:
    assert "witness" in commands.list_commands(click.Context(commands))


def test_it_listens_on_the_loopback_of_its_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, object] = {}
    monkeypatch.setattr(maya_witness.command, "callback", lambda **given: got.update(given))
    maya_witness.command.main(words(), standalone_mode=False)
    assert got["data"] == Address("127.0.0.1", 9504)
    assert (got["name"], got["namespace"], got["uid"], got["replica_id"]) == ("pvc-1", "openebs", "u-1", 3)


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_whose_vote_it_is_has_to_be_said(name: str) -> None:
    given = words()
    del given[given.index(name) : given.index(name) + 2]
    with pytest.raises(click.MissingParameter) as missing:
        maya_witness.command.main(given, standalone_mode=False)
    assert name in missing.value.format_message()


def test_a_number_is_one_of_a_replica() -> None:
    with pytest.raises(click.UsageError, match="not in the range"):
        maya_witness.command.main(words(**{"--replica-id": "0"}), standalone_mode=False)


@pytest.mark.parametrize(("has_key", "said"), [(False, "key file"), (True, "no Kubernetes to talk to")])
def test_what_is_missing_is_one_line(tmp_path: Path, has_key: bool, said: str) -> None:
    key = tmp_path / "key"
    if has_key:
        key.write_text("ab" * 32)
        key.chmod(0o600)
    program = [sys.executable, "-m", "pyjiva.cli.maya", "witness", *words(**{"--key-file": str(key)})]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("pyjiva-maya witness: ")
    assert said in line
