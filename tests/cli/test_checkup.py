"""`pyjiva check` and `pyjiva repair` over real directories."""

import json
import os
from pathlib import Path
from random import Random

import attrs
import pytest
from click.testing import CliRunner, Result

from pyjiva.cli import check, repair
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import Store
from pyjiva.snapshot.chain import CHAIN_FILE
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.units import KIB, MIB

SIZE_BYTES = 4 * MIB
HEAD = "volume-head-001.img"
DAY = "volume-snap-day-1.img"


def open_store(path: Path) -> Store:
    return Store.open_or_create(
        path, volume_id="v-1", replica_id=1, volume_name="demo", size_bytes=SIZE_BYTES, block_size_bytes=512
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A replica with a snapshot, stopped cleanly."""
    path = tmp_path / "replica-1"
    store = open_store(path)
    record = MembershipRecord(3, 2, "c-1", configured=(1, 2), in_sync=(1, 2), clean=True)
    store.save_state(
        attrs.evolve(store.state, promised_epoch=3, promised_to="c-1", record=record, told_equal=True)
    )
    store.write(0, 64 * KIB, [Random(1).randbytes(64 * KIB)])
    store.create_snapshot("day-1", created="2026-01-02T03:04:05Z")
    store.write(0, 8 * KIB, [Random(2).randbytes(8 * KIB)])
    store.flush()
    assert store.mark_clean()
    store.close()
    return path


def run(module: object, *arguments: str | Path) -> Result:
    return CliRunner().invoke(module.command, [str(each) for each in arguments])  # type: ignore[attr-defined]


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.iterdir()}


def rot(file: Path, offset_bytes: int) -> None:
    with file.open("r+b") as opened:
        byte = os.pread(opened.fileno(), 1, offset_bytes)
        os.pwrite(opened.fileno(), bytes((byte[0] ^ 1,)), offset_bytes)


def test_a_sound_replica_is_explained(path: Path) -> None:
    before = contents(path)
    result = run(check, path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "replica 1 of demo (v-1), 4MiB in blocks of 512 bytes"
    assert "  promised epoch 3 to controller c-1" in lines
    assert "  last record 3.2 of c-1: replicas 1, 2, in sync 1, 2; stopped cleanly" in lines
    assert "  all that was written is on the disk" in lines
    assert "└── day-1  2026-01-02T03:04:05Z  64KiB  blocks: 16 good" in lines
    assert f"    └── head {HEAD}  8KiB  blocks: 2 good" in lines
    assert lines[-1] == f"{path}: sound"
    assert contents(path) == before


def test_damage_is_told_with_what_to_do(path: Path) -> None:
    rot(path / DAY, 5 * 4096)
    result = run(check, path)
    assert result.exit_code == 1
    assert f"damage: bad-blocks  {DAY}: 4096 bytes at offset 20480" in result.stdout
    assert "  To do: Start the replica" in result.stdout
    assert result.stdout.endswith(f"{path}: damaged\n")
    assert run(check, path, "--quick").exit_code == 0


def test_json_has_all_of_it(path: Path) -> None:
    rot(path / DAY, 5 * 4096)
    result = run(check, path, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["replica"]["record"]["in_sync"] == [1, 2]
    assert told["layers"][0]["bad"] == [[20480, 4096]]
    assert [each["kind"] for each in told["findings"]] == ["bad-blocks"]


def test_what_cannot_be_checked_is_one_line(path: Path) -> None:
    store = open_store(path)
    for module in (check, repair):
        result = run(module, path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"pyjiva: {path}: another process has it open; stop that one first\n"
    store.close()
    assert run(check, path / "absent").exit_code == 2
    assert run(repair, path / "absent").exit_code == 2
    assert not (path / "absent").exists()


def test_a_repair_says_what_it_would_do_and_does_it_when_told_to(path: Path) -> None:
    rot(path / CHAIN_FILE, 30)
    before = contents(path)
    assert run(check, path).exit_code == 1
    planned = run(repair, path)
    assert planned.exit_code == 3
    assert planned.stdout.endswith("Nothing was changed: --yes carries this out.\n")
    assert contents(path) == before
    done = run(repair, path, "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "This replica counts as behind afterwards" in done.stdout
    assert before[CHAIN_FILE][0] in [each.read_bytes() for each in path.glob("pyjiva-repair-*.kept")]
    assert "warning: repaired" in run(check, path).stdout
    assert run(check, path).exit_code == 0
    again = run(repair, path, "--yes")
    assert (again.exit_code, again.stdout) == (
        0,
        "Nothing is to be done. The data was not looked at.\n",
    )
    store = open_store(path)
    assert not store.intact
    assert not store.state.told_equal
    assert store.read(0, 8 * KIB) == Random(2).randbytes(8 * KIB)
    store.close()


def test_what_cannot_be_put_right_is_said(path: Path) -> None:
    rot(path / STATE_FILE, 60)
    for arguments in ((), ("--yes",)):
        result = run(repair, path, *arguments)
        assert result.exit_code == 1
        assert result.stdout.startswith("Nothing can be done here.\nnot put right: state-damaged")
        assert "Move the directory away" in result.stdout


def test_the_last_copy_keeps_its_place(path: Path) -> None:
    (path / f"{DAY}.sums").unlink()
    assert run(repair, path, "--yes", "--last-copy").exit_code == 0
    store = open_store(path)
    assert store.state.told_equal
    assert not store.intact
    store.close()


def test_a_path_with_odd_bytes_is_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"odd-\xff")
    open_store(path).close()
    assert run(check, path).exit_code == 0


def test_every_finding_is_in_the_howto() -> None:
    from pyjiva.checkup.finding import KINDS

    text = (Path(__file__).parents[2] / "docs/howto/check-and-repair.md").read_text()
    for kind in KINDS:
        row = next(line for line in text.splitlines() if f"`{kind.name}`" in line and line.startswith("|"))
        assert f"| {kind.severity.value} |" in row
