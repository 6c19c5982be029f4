"""The tutorial, and how-tos that are whole, as a stranger would type them: each line, and what it prints."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.real.volume_process import needs

pytestmark = pytest.mark.real

TOP = Path(__file__).resolve().parents[2]
HOWTOS = [TOP / "docs" / "howto" / "many-volumes-on-one-machine.md"]
PAGES = [*sorted((TOP / "docs" / "tutorial").glob("first-*.md")), *HOWTOS]
NEEDS = needs(("qemu-io", "qemu-utils"), ("curl", "curl"), ("pkill", "procps"), ("unshare", "util-linux"))
LIMIT_S = 300

# In a network of its own, as the ports are those that a reader would have; what it starts ends with it.
SHELL = (
    "timeout",
    str(LIMIT_S),
    *("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("bash", "-c", "ip link set lo up && exec bash"),
)
END = "this command has ended"


@attrs.frozen
class Step:
    """One command, and what it prints."""

    line: int
    command: str
    printed: str

    @property
    def pattern(self) -> str:
        """A line of `…` is any lines; within a line it is anything."""
        whole = [
            r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r" *\n"
            for line in self.printed.splitlines()
        ]
        return "".join(whole)


def steps_of(page: str) -> Iterator[Step]:
    """The commands of all `console` blocks, in order."""
    inside, command, number = False, "", 0
    printed: list[str] = []
    for n, line in enumerate(page.splitlines(), start=1):
        if line.startswith("```"):
            if command:
                yield Step(number, command, "\n".join(printed))
            inside, command, printed = line == "```console", "", []
        elif inside and line.startswith("$ "):
            if command:
                yield Step(number, command, "\n".join(printed))
            command, printed, number = line.removeprefix("$ "), [], n
        elif inside and line.startswith("> ") and not printed:
            command += f"\n{line.removeprefix('> ')}"
        elif inside:
            printed.append(line)


def test_steps_are_found_with_what_they_print() -> None:
    page = (
        "```console\n$ one\n1\n…\n$ two\n```\n\n```\n$ not this\n```\n```console\n$ three\n> a\nx … y\n```\n"
    )
    found = list(steps_of(page))
    assert [(s.line, s.command, s.printed) for s in found] == [
        (2, "one", "1\n…"),
        (5, "two", ""),
        (12, "three\na", "x … y"),
    ]
    assert re.fullmatch(found[0].pattern, "1\n2\n3\n")
    assert not re.fullmatch(found[0].pattern, "2\n3\n")
    assert re.fullmatch(found[1].pattern, "")
    assert re.fullmatch(found[2].pattern, "x and y\n")
    assert not re.fullmatch(found[2].pattern, "x y\n")


@NEEDS
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_it_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYJIVA", "MAKE", "MFLAGS"))}
    with subprocess.Popen(
        SHELL,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=TOP,
        env=environment | {"TMPDIR": str(tmp_path), "COLUMNS": "250"},
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        with contextlib.suppress(PermissionError):  # a page shows a machine that is not busy
            os.setpriority(os.PRIO_PROCESS, shell.pid, -10)
        try:
            for step in steps_of(page.read_text()):
                shell.stdin.write(f"{step.command}\necho '{END}'\n")
                shell.stdin.flush()
                printed = ""
                while (line := shell.stdout.readline()) and line.strip() != END:
                    printed += line
                where = f"{page.name}:{step.line}: $ {step.command}"
                assert line, f"{where}: the shell ended after {printed!r}"
                assert re.fullmatch(step.pattern, printed), f"{where} printed\n{printed}"
        finally:
            shell.stdin.close()
            shell.terminate()
            shell.wait(10)
    assert not list(tmp_path.iterdir()), "the last command leaves nothing"
