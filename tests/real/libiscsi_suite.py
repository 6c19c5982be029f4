"""libiscsi's conformance suite against `pyjiva up` with three replicas: every test in a process of its own.

`make suite` runs it and writes the table of docs/reference/libiscsi.md; the test beside this file runs it and
holds the outcome against that table.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.real.volume_process import UpProcess, running_up

__all__ = [
    "PROGRAM",
    "REFERENCE",
    "WRONG_TESTS",
    "Outcome",
    "Suite",
    "documented",
    "list_tests",
    "open_suite",
]

REFERENCE: Final = Path(__file__).parents[2] / "docs/reference/libiscsi.md"
PROGRAM: Final = "iscsi-test-cu"
TEST_TIME_S: Final = 240
SIZE: Final = "64MiB"
LARGE_SIZE: Final = "1GiB"
BEGIN, END = "<!-- made by `make suite`: begin -->", "<!-- made by `make suite`: end -->"

#: What a test needs beside one URL.
READ_ONLY: Final = ("SCSI.ReadOnly.",)
TWO_PATHS: Final = ("SCSI.MultipathIO.",)
SANITIZES: Final = ("SCSI.Sanitize.",)
#: It looks, seconds after it began, whether the unit is still being overwritten; then it sleeps for a minute.
TAKES_LONG: Final = ("SCSI.Sanitize.Reset",)
#: It asks about one block and wants to hear of the next allocation: right where each block has its own.
LARGE_BLOCKS: Final = ("SCSI.GetLBAStatus.UnmapSingle",)


#: They ask for what the standards do not say, or forbid.
WRONG_TESTS: Final = {
    "SCSI.WriteSame10.UnmapUntilEnd": "sends a block of FFh with UNMAP and wants to read zeros afterwards;"
    " SBC-3 §4.7.3.4.4: data that is not zeros is written, never unmapped",
    "iSCSI.iSCSITMF.LUNResetSimpleAsync": "asserts, before its request is on the wire, what only the answer"
    " to it can tell: no target passes",
}


@attrs.frozen
class Outcome:
    """What one test came to."""

    name: str
    result: str
    """`pass`, `fail` or `skip`."""
    reason: str = ""
    """The first thing that the suite says of a failure or of leaving it out."""


def list_tests() -> list[str]:
    """All 230, as FAMILY.GROUP.NAME."""
    listed = subprocess.run([PROGRAM, "--list"], capture_output=True, text=True, check=False).stdout
    names = (line.strip() for line in listed.splitlines())
    return [name for name in names if name.count(".") == 2 and name.startswith(("SCSI.", "iSCSI."))]


@attrs.frozen
class Suite:
    """The volumes that the tests are run on."""

    volume: UpProcess
    """Blocks of 512 bytes, two portals."""
    read_only: UpProcess
    large_blocks: UpProcess
    """Of 4096 bytes."""
    large: UpProcess
    """Overwriting it takes some seconds."""

    def run_all(self) -> list[Outcome]:
        """Every test; those that mostly sleep beside the others."""
        names = list_tests()
        with ThreadPoolExecutor() as beside:
            sleeping = [beside.submit(self.run, name) for name in names if name.startswith(TAKES_LONG)]
            outcomes = [self.run(name) for name in names if not name.startswith(TAKES_LONG)]
            return [*outcomes, *(future.result() for future in sleeping)]

    def run(self, name: str) -> Outcome:
        """One test."""
        command = [PROGRAM, "--dataloss", "--verbose", "--test", name]
        if name.startswith(SANITIZES):
            command.append("--allow-sanitize")
        if name.startswith(READ_ONLY):
            command.append(self.read_only.url)
        elif name.startswith(LARGE_BLOCKS):
            command.append(self.large_blocks.url)
        elif name.startswith(TAKES_LONG):
            command.append(self.large.url)
        else:
            portals = self.volume.portals if name.startswith(TWO_PATHS) else self.volume.portals[:1]
            command += [f"iscsi://{portal}/{self.volume.ready['iqn']}/0" for portal in portals]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TEST_TIME_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome(name, "fail", f"not within {TEST_TIME_S} s")
        return judge(name, done.stdout.decode(errors="replace"), done.returncode)


def judge(name: str, output: str, code: int) -> Outcome:
    """What the suite's report says."""
    summary = re.search(r"tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", output)
    said = [line.strip() for line in output.splitlines()]
    if code < 0 or summary is None:
        return Outcome(name, "fail", f"it ended with code {code} and without a report")
    if summary[2] != "1" or summary[4] != "0":
        failed = next(
            (line for line in said if line.startswith("[FAILED]")), "an assertion of the suite failed"
        )
        return Outcome(name, "fail", failed.removeprefix("[FAILED]").strip())
    skipped = next((line for line in said if "[SKIPPED]" in line), None)
    if skipped is not None:
        return Outcome(name, "skip", skipped.partition("[SKIPPED]")[2].strip())
    return Outcome(name, "pass")


@contextmanager
def open_suite(folder: Path) -> Iterator[Suite]:
    """Four volumes with three replicas each."""
    with ExitStack() as stack:

        def up(name: str, *options: str, size: str = SIZE) -> UpProcess:
            return stack.enter_context(running_up(folder / name, name, "--size", size, *options))

        yield Suite(
            up("suite", "--portal", "127.0.0.1:0", "--portal", "127.0.0.1:0"),
            up("guarded", "--read-only"),
            up("blocks", "--block-size", "4096"),
            up("large", size=LARGE_SIZE),
        )


def documented() -> dict[str, Outcome]:
    """The table of the reference."""
    rows = re.findall(r"^\| `([^`]+)` \| (pass|fail|skip) \| (.*) \|$", REFERENCE.read_text(), re.MULTILINE)
    return {name: Outcome(name, result, reason) for name, result, reason in rows}


def table(outcomes: Iterable[Outcome]) -> str:
    """For the reference."""
    rows = sorted(outcomes, key=lambda outcome: outcome.name)
    count = {result: sum(o.result == result for o in rows) for result in ("pass", "fail", "skip")}
    lines = [
        f"{len(rows)} tests: {count['pass']} passed, {count['fail']} failed, {count['skip']} skipped.",
        "",
        "| test | result | reason |",
        "|---|---|---|",
        *(
            f"| `{o.name}` | {o.result} | {WRONG_TESTS.get(o.name, o.reason).replace('|', '/')} |"
            for o in rows
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Run everything, print what is not passed, write the reference."""
    with tempfile.TemporaryDirectory() as folder, open_suite(Path(folder)) as suite:
        outcomes = suite.run_all()
    for outcome in outcomes:
        if outcome.result != "pass":
            print(outcome.result, outcome.name, outcome.reason)
    before, _, rest = REFERENCE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    REFERENCE.write_text(f"{before}{BEGIN}\n\n{table(outcomes)}\n\n{END}{after}")
    sys.exit(any(outcome.result == "fail" for outcome in outcomes))


if __name__ == "__main__":
    main()
