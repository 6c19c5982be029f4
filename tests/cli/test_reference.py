"""docs/reference/cli.md has every command and every option, with its default."""

from pathlib import Path

import click
import pytest

from pyjiva.cli import (
    backup_create,
    backup_ls,
    backup_restore,
    backup_rm,
    backup_verify,
    check,
    clone,
    completion,
    contexts,
    controller,
    expand,
    explain,
    export,
    import_directory,
    limit,
    maya_apiserver,
    maya_crds,
    maya_exporter,
    maya_provisioner,
    maya_witness,
    repair,
    replica,
    replica_change,
    scrub,
    snapshot,
    status,
    top,
    up,
    usage,
)

REFERENCE = Path(__file__).parents[2] / "docs/reference/cli.md"
COMMANDS = {
    "pyjiva up [NAME]": up.command,
    "pyjiva status": status.command,
    "pyjiva top": top.command,
    "pyjiva explain": explain.command,
    "pyjiva scrub": scrub.command,
    "pyjiva limit": limit.command,
    "pyjiva replica add ID=HOST:PORT": replica_change.add,
    "pyjiva replica rm ID": replica_change.rm,
    "pyjiva snapshot create NAME": snapshot.create,
    "pyjiva snapshot ls": snapshot.ls,
    "pyjiva snapshot rm NAME...": snapshot.rm,
    "pyjiva snapshot revert NAME": snapshot.revert,
    "pyjiva snapshot diff NAME": snapshot.diff,
    "pyjiva clone SNAPSHOT NAME": clone.command,
    "pyjiva expand SIZE": expand.command,
    "pyjiva usage": usage.command,
    "pyjiva check DIR": check.command,
    "pyjiva repair DIR": repair.command,
    "pyjiva import DIR": import_directory.command,
    "pyjiva export DIR": export.command,
    "pyjiva backup create STORE SNAPSHOT": backup_create.command,
    "pyjiva backup ls STORE": backup_ls.command,
    "pyjiva backup restore STORE BACKUP": backup_restore.command,
    "pyjiva backup verify STORE [BACKUP]...": backup_verify.command,
    "pyjiva backup rm STORE [BACKUP]...": backup_rm.command,
    "pyjiva contexts": contexts.command,
    "pyjiva completion SHELL": completion.command,
    "pyjiva-controller": controller.main,
    "pyjiva-replica": replica.main,
    "pyjiva-maya apiserver": maya_apiserver.command,
    "pyjiva-maya provisioner": maya_provisioner.command,
    "pyjiva-maya exporter": maya_exporter.command,
    "pyjiva-maya witness": maya_witness.command,
    "pyjiva-maya crds": maya_crds.command,
}


def section(name: str) -> str:
    """The text under the heading of `name`."""
    _, _, rest = REFERENCE.read_text().partition(f"\n## `{name}`\n")
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_there(name: str) -> None:
    text = section(name)
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `--")}
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    assert {option.opts[0] for option in options} == set(rows)
    for option in options:
        default = option.to_info_dict()["default"]
        for shown in default if isinstance(default, list | tuple) else [default]:
            if isinstance(shown, str | int) and not isinstance(shown, bool):
                assert f"`{shown}`" in rows[option.opts[0]] or str(shown) in rows[option.opts[0]]


def test_every_command_is_there() -> None:
    headings = [line for line in REFERENCE.read_text().splitlines() if line.startswith("## ")]
    assert headings == [f"## `{name}`" for name in COMMANDS]
