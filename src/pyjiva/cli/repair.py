"""`pyjiva repair`: put right in a replica's directory what can be put right."""

import contextlib
import datetime
import sys
from pathlib import Path
from typing import Final

import click

from pyjiva.checkup import Finding, Plan, carry_out, check, make_plan
from pyjiva.cli.check import EXIT_DAMAGED, refuse
from pyjiva.errors import ConfigError, StorageError
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.sparse import Directory, open_directory

__all__ = ["command"]

EXIT_PLANNED: Final = 3


@click.command("repair")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Carry the plan out.")
@click.option("--last-copy", is_flag=True, help="There is no other copy: let the volume use this one.")
def command(directory: Path, yes: bool, last_copy: bool) -> None:
    """Put right in the replica's DIRECTORY what can be, and keep what is replaced.

    Without --yes it only says what it would do.

    Exit code: 0 nothing is left to do, 1 damage is left that it cannot put right, 2 it cannot be, 3 a plan
    was printed and not carried out.
    """
    try:
        if not directory.is_dir():  # it would be created
            raise ConfigError(f"{directory}: is no directory")
        with contextlib.closing(open_directory(directory)) as opened:
            code = _repair(opened, carry=yes, last_copy=last_copy)
    except (ConfigError, StorageError) as error:
        refuse(error)
    sys.exit(code)


def _repair(directory: Directory, *, carry: bool, last_copy: bool) -> int:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    boot_id = read_boot_id()
    plan = make_plan(check(directory, boot_id=boot_id, quick=True), stamp=stamp, last_copy=last_copy)
    _print_plan(plan, carried_out=carry)
    if plan.steps and not carry:
        return EXIT_PLANNED
    for number, step in enumerate(plan.steps, 1):
        carry_out(directory, step)
        print(f"done {number}/{len(plan.steps)}: {step}")
    left = check(directory, boot_id=boot_id, quick=True)
    if not left.is_sound:
        return EXIT_DAMAGED
    if plan.steps:
        print("The directory is in order. `pyjiva check` looks at the data too.")
    return 0


def _print_plan(plan: Plan, *, carried_out: bool) -> None:
    if not plan.steps:
        print(
            "Nothing can be done here." if plan.left else "Nothing is to be done. The data was not looked at."
        )
    for number, step in enumerate(plan.steps, 1):
        print(f"{number}. {step}")
    if plan.behind:
        print("This replica counts as behind afterwards: the volume compares it with the others.")
    for found in plan.left:
        _print_left(found)
    if plan.steps and not carried_out:
        print("Nothing was changed: --yes carries this out.")


def _print_left(found: Finding) -> None:
    where = ": ".join(text for text in (found.subject, found.detail) if text)
    print(f"not put right: {found.kind.name}  {where}")
    print(f"  {found.kind.means}")
    print(f"  To do: {found.kind.todo}")
