"""`pyjiva export`: files, directories, exit codes."""

import os
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from pyjiva.cli.main import commands
from pyjiva.membership import MembershipRecord
from pyjiva.migration import open_replica
from pyjiva.snapshot.state import STATE_FILE, decode_state, encode_state
from pyjiva.sparse import open_directory, read_file, replace_file
from pyjiva.testing.foreign_directory import read_foreign
from tests.migration.replicas import flip, make_replica


def pyjiva(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(commands, ["export", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.parametrize("snapshot", ["a", "b", "head", ""])
def test_an_image(snapshot: str, tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    options = ("--snapshot", snapshot) if snapshot else ()
    assert pyjiva(tmp_path / "r", *options, "-o", tmp_path / "out") == (0, "")
    assert (tmp_path / "out").read_bytes() == shown["" if snapshot == "head" else snapshot]


def test_a_snapshot_that_is_called_head(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    with closing(open_replica(tmp_path / "r")) as store:
        then = bytes(store.read(0, store.size_bytes))
        store.create_snapshot("head")
        store.write(0, 512, [b"n" * 512])
    assert pyjiva(tmp_path / "r", "--snapshot", "head", "-o", tmp_path / "out") == (0, "")
    assert (tmp_path / "out").read_bytes() == then


def test_a_directory_of_longhorn_s(tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    assert pyjiva(tmp_path / "r", "--format", "longhorn", "-o", tmp_path / "l") == (0, "")
    with closing(open_directory(tmp_path / "l")) as directory:
        assert read_foreign(directory) == shown
    code, output = pyjiva(tmp_path / "r", "--format", "longhorn", "-o", tmp_path / "l")
    assert (code, output) == (2, f"pyjiva: {tmp_path / 'l'}: is there already; give a new directory\n")


def test_what_it_imports_it_has_exported(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    assert pyjiva(tmp_path / "r", "--format", "longhorn", "-o", tmp_path / "l")[0] == 0
    assert CliRunner().invoke(commands, ["import", str(tmp_path / "l")]).exit_code == 0


def test_a_copy_that_may_lack_writes_says_so(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    with closing(open_replica(tmp_path / "r")) as store:
        record = MembershipRecord(
            epoch=4, version=2, controller_id="c", configured=(1, 2, 3), in_sync=(2, 3), clean=True
        )
        store.save_state(attrs.evolve(store.state, record=record))
    code, output = pyjiva(tmp_path / "r", "-o", tmp_path / "out")
    assert code == 0
    assert output == (
        f"pyjiva: {tmp_path / 'r'}: was not in sync when it last heard of it: another replica may have more\n"
    )


def test_a_copy_whose_machine_went_down_says_so(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    with closing(open_directory(tmp_path / "r")) as directory:
        state = decode_state(read_file(directory, STATE_FILE))
        replace_file(directory, STATE_FILE, encode_state(attrs.evolve(state, written_boot_id="another")))
    code, output = pyjiva(tmp_path / "r", "-o", tmp_path / "out")
    assert (code, "its machine went down" in output) == (0, True)


def test_rot(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    flip(tmp_path / "r" / "volume-snap-a.img", 100)
    code, output = pyjiva(tmp_path / "r", "-o", tmp_path / "out")
    assert (code, output) == (2, "pyjiva: the block at 0 is not what was written\n")
    code, output = pyjiva(tmp_path / "r", "--despite-rot", "-o", tmp_path / "out")
    assert (code, output) == (5, "pyjiva: not what was written: 4096 bytes at offset 0\n")


@pytest.mark.parametrize("form", ["raw", "longhorn"])
def test_refusals_are_one_line_and_make_nothing(form: str, tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    for arguments in (
        (tmp_path / "r", "--snapshot", "x"),
        (tmp_path / "nothing",),
        (tmp_path,),
    ):
        code, output = pyjiva(*arguments, "--format", form, "-o", tmp_path / "out")
        assert (code, output.count("\n")) == (2, 1)
        assert output.startswith("pyjiva: ")
    with closing(open_replica(tmp_path / "r")):
        code, output = pyjiva(tmp_path / "r", "--format", form, "-o", tmp_path / "out")
        assert (code, "another process has it open" in output) == (2, True)
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
