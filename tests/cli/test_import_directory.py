"""`pyjiva import`: what it says, serves, and makes of a directory, and how a volume goes on from it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import pytest
from click.testing import CliRunner, Result

from pyjiva.cli.main import commands
from pyjiva.extent import Extent
from pyjiva.migration import MARKER, open_replica
from pyjiva.sparse import open_directory
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.testing.foreign_directory import SECTOR_BYTES, FixtureLayer, FixtureVolume, write_foreign
from pyjiva.units import MIB
from tests.cli.processes import end, running, wait_state
from tests.migration.volumes import BRANCHED, sector
from tests.real.volume_process import needs

VOLUME_ID: Final = "0" * 31 + "1"
DEMO: Final = FixtureVolume(
    size_bytes=1 * MIB,
    layers=(
        FixtureLayer(name="monday", sectors={0: sector(1), 1: sector(2), 200: sector(3)}),
        FixtureLayer(name="", parent="monday", sectors={1: sector(4), 100: sector(5)}),
    ),
)


def pyjiva(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, [str(each) for each in arguments])


def make(path: Path, volume: FixtureVolume) -> Path:
    with closing(open_directory(path)) as directory:
        write_foreign(directory, volume)
    return path


def fingerprint(path: Path) -> dict[str, tuple[int, int, int, str]]:
    """Every file's size, space, time of change and content."""
    found = {}
    for file in sorted(path.iterdir()):
        status = file.stat()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        found[file.name] = (status.st_size, status.st_blocks, status.st_ctime_ns, digest)
    return found


def test_it_explains_a_directory(tmp_path: Path) -> None:
    path = make(tmp_path / "r", attrs.evolve(BRANCHED, revision_counter=17))
    before = fingerprint(path)
    result = pyjiva("import", path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"{path}: a replica of Longhorn, a volume of 40KiB"
    assert "  revision counter 17" in lines
    tree = [line for line in lines if "──" in line]
    assert [line.lstrip("│ └├─").split()[:2] for line in tree] == [
        ["*", "a"], ["*", "b"], ["*", "c"], ["*", "head"], ["left", "8KiB"],
    ]  # fmt: skip
    assert "12KiB  2024-05-01T10:00:00Z  by a user  for=test" in tree[0]
    assert "removed" in tree[1]
    assert lines[-1] == "It can be served (--serve) and be made a pyjiva replica (--upgrade)."
    assert fingerprint(path) == before


def test_it_explains_as_json(tmp_path: Path) -> None:
    path = make(tmp_path / "r", attrs.evolve(BRANCHED, is_jiva=True, dirty=True, backing=b"x" * 512))
    result = pyjiva("import", path, "--json")
    assert result.exit_code == 3
    said = json.loads(result.output)
    assert said["system"] == "Jiva"
    assert (said["size_bytes"], said["head"], said["dirty"]) == (40960, "volume-head-003.img", True)
    assert said["backing_file"] == "/images/base.raw"
    assert [layer["name"] for layer in said["layers"]] == ["a", "b", "c", "left", ""]
    assert [finding["hinders"] for finding in said["findings"]] == ["dirty", "nothing"]
    verdicts = (said["can_be_read"], said["can_be_upgraded"], said["can_be_upgraded_if_dirty_is_accepted"])
    assert verdicts == (True, False, True)


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({}, (), 0),
        ({"dirty": True}, (), 3),
        ({"dirty": True}, ("--accept-dirty",), 0),
        ({"rebuilding": True}, (), 4),
        ({"rebuilding": True}, ("--accept-dirty",), 4),
    ],
)
def test_exit_codes(changes: dict[str, Any], options: tuple[str, ...], code: int, tmp_path: Path) -> None:
    path = make(tmp_path / "r", attrs.evolve(BRANCHED, **changes))
    assert pyjiva("import", path, *options).exit_code == code


def test_nothing_from_the_directory_talks_to_the_terminal(tmp_path: Path) -> None:
    path = make(tmp_path / "r", attrs.evolve(BRANCHED, other={"Error": "\x1b]0;owned\x07"}))
    (path / "\x1b[2J").write_bytes(b"")
    output = pyjiva("import", path).output
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "\\x1b[2J is not known" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--serve", "--upgrade"), "give one of them"),
        (("--json", "--upgrade"), "without --serve and --upgrade"),
        (("--upgrade", "--block-size", "1024"), "the block size is 512 or 4096"),
        (("--upgrade", "--backing-file", "/dev/null"), "has no backing file"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = make(tmp_path / "r", BRANCHED)
    before = fingerprint(path)
    result = pyjiva("import", path, *arguments)
    assert result.exit_code in (1, 2)
    assert message in (result.output or str(result.exception))
    assert fingerprint(path) == before


@pytest.mark.parametrize("option", [(), ("--upgrade",), ("--serve",)])
def test_other_directories_are_one_line(option: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for path, message in ((tmp_path / "r", "holds nothing that"), (tmp_path / "x", "cannot be opened")):
        result = pyjiva("import", path, *option)
        assert result.exit_code == 2
        assert result.output.startswith(f"pyjiva: {path}: {message}")
        assert result.output.count("\n") == 1


def test_what_cannot_be_taken_is_left_as_it_is(tmp_path: Path) -> None:
    path = make(tmp_path / "r", attrs.evolve(BRANCHED, rebuilding=True))
    before = fingerprint(path)
    for option in ("--serve", "--upgrade"):
        result = pyjiva("import", path, option)
        assert (result.exit_code, "Rebuilding" in result.output) == (2, True)
    assert fingerprint(path) == before


@pytest.mark.parametrize("option", ["--serve", "--upgrade"])
def test_a_volume_in_use_is_refused(option: str, tmp_path: Path) -> None:
    path = make(tmp_path / "r", BRANCHED)
    before = fingerprint(path)
    with (path / BRANCHED.head_file).open("r+b"):
        result = pyjiva("import", path, option)
    assert (result.exit_code, "a process has the head open for writing" in result.output) == (2, True)
    assert fingerprint(path) == before


def upgraded(path: Path, volume: FixtureVolume) -> None:
    with closing(open_replica(path)) as store:
        whole = Extent(0, store.size_bytes)
        for name, content in volume.contents().items():
            shown = store.read_at(name, whole) if name else store.read(0, store.size_bytes)
            assert bytes(shown) == content, name


def test_it_upgrades_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = make(tmp_path / "r", DEMO)
    result = pyjiva("import", path, "--upgrade", "--name", "demo", "--volume-id", VOLUME_ID)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{path}: is replica 1 of volume demo now.")
    assert (
        f"pyjiva-replica --volume demo --volume-id {VOLUME_ID} --replica-id 1 --directory {path} "
        f"--size {MIB} --block-size 512 --key-file KEY\n"
    ) in result.output
    upgraded(path, DEMO)
    again = pyjiva("import", path, "--upgrade")
    assert (again.exit_code, "nothing was left to do" in again.output) == (0, True)


def test_it_ends_an_upgrade_that_was_cut_at_the_last_step(tmp_path: Path) -> None:
    path = make(tmp_path / "r", DEMO)
    assert pyjiva("import", path, "--upgrade").exit_code == 0
    (path / MARKER).write_bytes(b"")
    assert pyjiva("import", path, "--upgrade").exit_code == 0
    assert not (path / MARKER).exists()


@pytest.mark.parametrize(
    "form", ["raw", pytest.param("qcow2", marks=[pytest.mark.real, needs(("qemu-img", "qemu-utils"))])]
)
def test_a_backing_file_is_taken_from_where_it_is_said_to_be(form: str, tmp_path: Path) -> None:
    volume = attrs.evolve(DEMO, backing=sector(30, 70 * SECTOR_BYTES))
    path = make(tmp_path / "r", volume)
    raw, image = tmp_path / "base.raw", tmp_path / f"base.{form}"
    assert volume.backing is not None
    raw.write_bytes(volume.backing)
    if form == "qcow2":
        convert = ("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(image))
        subprocess.run(convert, check=True)
    refused = pyjiva("import", path, "--upgrade")
    assert (refused.exit_code, "needs the backing file /images/base.raw" in refused.output) == (2, True)
    result = pyjiva("import", path, "--upgrade", "--backing-file", image, "--scratch", tmp_path)
    assert result.exit_code == 0, result.output
    upgraded(path, volume)
    assert sorted(os.listdir(tmp_path)) == sorted({"base.raw", image.name, "r"})


def test_a_backing_file_in_the_directory_is_found(tmp_path: Path) -> None:
    volume = attrs.evolve(DEMO, backing=sector(30, 70 * SECTOR_BYTES), backing_name="base.raw", is_jiva=True)
    path = make(tmp_path / "r", volume)
    assert volume.backing is not None
    (path / "base.raw").write_bytes(volume.backing)
    assert pyjiva("import", path, "--upgrade").exit_code == 0
    upgraded(path, volume)


@contextmanager
def serving(path: Path, *arguments: str) -> Iterator[str]:
    """`pyjiva import --serve` as a process; the unit's URL."""
    command = (sys.executable, "-m", "pyjiva.cli.main", "import", str(path), "--serve", *arguments)
    with subprocess.Popen(
        [*command, "--portal", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("ready "), process.communicate(timeout=20)
            ready = dict(word.partition("=")[::2] for word in line.split()[1:])
            yield f"iscsi://{ready['portal']}/{ready['iqn']}/{ready['lun']}"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


def qemu_img(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(("qemu-img", *arguments), capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.real
@needs(("qemu-img", "qemu-utils"))
@pytest.mark.parametrize("snapshot", ["", "monday"])
def test_it_serves_without_changing_a_byte(snapshot: str, tmp_path: Path) -> None:
    volume = attrs.evolve(DEMO, backing=sector(30, 70 * SECTOR_BYTES), dirty=True)
    path = make(tmp_path / "r", volume)
    base, out = tmp_path / "base.raw", tmp_path / "out.raw"
    assert volume.backing is not None
    base.write_bytes(volume.backing)
    before = fingerprint(path)
    options = ("--backing-file", str(base), *(("--snapshot", snapshot) if snapshot else ()))
    with serving(path, *options) as url:
        done = qemu_img("convert", "-f", "raw", "-O", "raw", url, str(out))
        assert done.returncode == 0, done.stderr
        assert out.read_bytes() == volume.content(snapshot)
        write = ("qemu-io", "-f", "raw", "-c", "write -P 7 0 4096", url)
        refused = subprocess.run(write, capture_output=True, text=True, check=False, timeout=60)
        assert refused.returncode != 0 or "failed" in refused.stdout + refused.stderr
    assert fingerprint(path) == before


@attrs.define
class Cluster:
    """Replica 1 with what was imported, 2 and 3 empty; the controller's place."""

    path: Path
    key: Path
    data: list[str]
    portal: str
    api: str

    def replica(self, number: int, health: str) -> tuple[str, ...]:
        return (
            *("replica", "--key-file", str(self.key), "--replica-id", str(number)),
            *("--data", self.data[number], "--health", health),
            *("--directory", str(self.path / f"replica-{number}")),
        )

    def controller(self, *replicas: int, new: bool = False) -> tuple[str, ...]:
        told = [part for number in replicas for part in ("--replica", f"{number}={self.data[number]}")]
        return (
            *("controller", "--key-file", str(self.key), "--api", self.api, "--portal", self.portal, *told),
            *(("--new-volume",) if new else ()),
        )

    def modes(self) -> dict[int, str]:
        status = httpx.get(f"http://{self.api}/v1/volume", trust_env=False).json()
        return {replica["id"]: replica["mode"] for replica in status["replicas"]}

    def read(self, out: Path) -> bytes:
        """All of the volume, by an initiator."""
        url = f"iscsi://{self.portal}/iqn.2016-09.com.openebs.jiva:demo/0"
        done = qemu_img("convert", "-f", "raw", "-O", "raw", url, str(out))
        assert done.returncode == 0, done.stderr
        return out.read_bytes()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    make(tmp_path / "replica-1", DEMO)
    result = pyjiva("import", tmp_path / "replica-1", "--upgrade", "--name", "demo", "--volume-id", VOLUME_ID)
    assert result.exit_code == 0, result.output
    with HeldPorts() as ports:
        addresses = [f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(9)]
    cluster = Cluster(tmp_path, key, addresses[:4], addresses[4], addresses[5])
    with ExitStack() as processes:
        for number in (1, 2, 3):
            processes.enter_context(running(*cluster.replica(number, addresses[5 + number])))
        yield cluster


@pytest.mark.real
@needs(("qemu-img", "qemu-utils"))
def test_an_upgraded_replica_begins_a_volume_and_others_are_added(cluster: Cluster, tmp_path: Path) -> None:
    content = DEMO.content("")
    with running(*cluster.controller(1)) as controller:
        wait_state(cluster.api, "healthy")
        assert cluster.read(tmp_path / "one.raw") == content
        for number in (2, 3):
            added = pyjiva(
                *("replica", "add", f"{number}={cluster.data[number]}"),
                *("--wait", "--api", f"http://{cluster.api}"),
            )
            assert (added.exit_code, added.output) == (0, "")
        wait_state(cluster.api, "healthy")
        assert cluster.modes() == {1: "in-sync", 2: "in-sync", 3: "in-sync"}
        removed = pyjiva("replica", "rm", "1", "--wait", "--api", f"http://{cluster.api}")
        assert removed.exit_code == 0, removed.output
        assert cluster.read(tmp_path / "two.raw") == content, "from those that were copied to"
        end(controller)


@pytest.mark.real
@needs(("qemu-img", "qemu-utils"))
def test_empty_replicas_told_from_the_start_are_not_taken_for_equal(cluster: Cluster, tmp_path: Path) -> None:
    """Even with --new-volume: the record of the upgraded one names itself alone."""
    with running(*cluster.controller(1, 2, 3, new=True)) as controller:
        wait_state(cluster.api, "healthy")
        assert cluster.modes() == {1: "in-sync"}
        assert cluster.read(tmp_path / "out.raw") == DEMO.content("")
        end(controller)
