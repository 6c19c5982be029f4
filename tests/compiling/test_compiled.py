"""The data path does the same when it is compiled: its tests once more, over a compiled build."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from compiling.build import build
from compiling.modules import COMPILED, NOT_COMPILED
from pyjiva.compiled import native
from tests.compiling.tools import missing_to_compile
from tests.instructions.baseline import (
    RECORD_COMPILED,
    complaint,
    find,
    load,
    nothing_recorded,
    other_versions,
)
from tests.instructions.counting import count, environment, missing_packages, packages
from tests.instructions.workloads import PLANTED

pytestmark = pytest.mark.real  # starts a compiler, which takes minutes

TOP: Final = Path(__file__).parents[2]
#: What goes through the compiled modules.  `tests/controller` and `tests/sim` have the worlds that fail.
AGAIN: Final = (
    *("block", "controller", "iscsi", "replica", "replication", "scsi", "snapshot", "sparse"),
    *("sim/test_world.py", "test_block_sums.py", "test_buffers.py"),
    *(
        f"transport/test_{each}.py"
        for each in ("receive_buffer", "outgoing_sys", "stream_io", "serve", "looking_on")
    ),
)
WITHOUT: Final = ("controller/test_openapi.py", "replica/test_health_io.py")  # slow, and not of the data path
TEST_S: Final = 1800
#: The longest of these tests takes 20 s where nothing is beside it.  One that stands still says where.
ONE_TEST_S: Final = 600
STANDS_STILL: Final = (
    *("-o", f"faulthandler_timeout={ONE_TEST_S}"),
    *("-o", "faulthandler_exit_on_timeout=true"),
)
NICE: Final = ("nice", "-n", "19")  # beside tests that have to be in time


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(TOP / "src").with_suffix("").parts)


def test_what_is_hot_is_compiled_or_it_is_said_why_not() -> None:
    hot = {module_of(path) for path in (TOP / "src").rglob("*.py") if "# hot" in path.read_text()}
    assert hot <= {*COMPILED, *NOT_COMPILED}
    assert not set(COMPILED) & set(NOT_COMPILED)
    for module in (*COMPILED, *NOT_COMPILED):
        assert (TOP / "src" / f"{module.replace('.', '/')}.py").exists(), module


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a compiled `pyjiva` is."""
    if missing := missing_to_compile():
        pytest.skip(missing)
    into = tmp_path_factory.mktemp("compiled")
    made = list(build(TOP / "src", into, prefix=NICE))
    assert len([path for path in made if path.suffix == ".so"]) == len(COMPILED) + 2
    return into


def run(compiled: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Python there."""
    return subprocess.run(
        [*NICE, sys.executable, *words],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(compiled)},
        capture_output=True,
        text=True,
        timeout=TEST_S,
    )


def test_a_compiled_build_says_that_it_is(compiled: Path) -> None:
    done = run(compiled, "-m", "pyjiva.cli.main", "--version")
    assert ", hot modules compiled, the others interpreted by " in done.stdout, done


def test_a_compiled_build_has_its_steps_in_c(compiled: Path) -> None:
    done = run(compiled, "-c", "from pyjiva.compiled import native; print(native('sums_of'))")
    assert done.stdout.startswith("<built-in function sums_of"), done
    assert native("sums_of") is None


def test_a_command_takes_no_more_instructions_than_was_recorded(compiled: Path) -> None:
    """As `tests/instructions` has it for an interpreted one: this is what users run."""
    if missing := missing_packages():
        pytest.skip(f"install the Debian package {' and '.join(missing)}")
    here = environment(compiled=True)
    baseline = find(load(), here)
    if baseline is None:
        pytest.skip(nothing_recorded(load(), here, RECORD_COMPILED))
    counts = count(compiled)
    others = [*other_versions(baseline, packages()), f"mypy is {version('mypy')}"]
    complaints = [
        complaint(name, baseline.instructions.get(name), now, others, RECORD_COMPILED)
        for name, now in counts.instructions.items()
        if name != PLANTED.name
    ]
    assert not any(complaints), "\n".join(filter(None, complaints))


def test_the_data_path_does_the_same(compiled: Path) -> None:
    ignored = [f"--ignore=tests/{each}" for each in WITHOUT]
    options = ["-v", "-m", "not patches", "-p", "no:cacheprovider", "--hypothesis-seed=0", *STANDS_STILL]
    done = run(compiled, "-m", "pytest", *options, *ignored, *(f"tests/{each}" for each in AGAIN))
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert " passed" in done.stdout
