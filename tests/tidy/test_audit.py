"""An audit fails for known vulnerabilities, and does not for a service that cannot be asked."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tidy import audit
from tests.tidy.audit import Outcome, closure, judge, main, run_audit

VULNERABLE = {"name": "some", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
CLEAN = {"name": "other", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "third", "skip_reason": "Dependency not found on PyPI"}


def answer(*dependencies: Any) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_what_the_project_needs_is_found_through_what_it_needs() -> None:
    versions = closure("pyjiva")
    assert {"trio", "attrs", "sniffio", "h11", "pytest"} <= set(versions)
    assert not {"pyjiva", "pip", "setuptools"} & set(versions)


@pytest.mark.parametrize(
    ("code", "output", "errors", "outcome", "line"),
    [
        (0, answer(CLEAN), "", Outcome.CLEAN, "audit: 1 libraries without a known vulnerability"),
        (0, answer(CLEAN, UNKNOWN), "", Outcome.CLEAN, "; the service does not know 1 more"),
        (1, answer(CLEAN, VULNERABLE), "", Outcome.VULNERABLE, "some 1.0: PYSEC-1, mended in 1.1"),
        (0, answer(UNKNOWN, UNKNOWN), "", Outcome.NOT_MADE, "could not be made: the service knows none of 2"),
        (1, "", "ERROR:x\nrefused", Outcome.NOT_MADE, "audit: could not be made: refused"),
        (1, "", "", Outcome.NOT_MADE, "audit: could not be made: exit code 1"),
        (0, "[]", "", Outcome.NOT_MADE, "exit code 0"),
    ],
)
def test_what_an_answer_means(code: int, output: str, errors: str, outcome: Outcome, line: str) -> None:
    verdict = judge(code, output, errors)
    assert verdict.outcome is outcome
    assert len(verdict.lines) == 1 and line in verdict.lines[0]


def test_a_service_that_is_not_there_is_said_in_one_line() -> None:
    """The real pip-audit, with a service where nobody listens."""
    program = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"]
    verdict = run_audit({"trio": "0.1.0"}, [*program, "--osv-url", "http://127.0.0.1:9/"])
    assert verdict.outcome is Outcome.NOT_MADE
    assert len(verdict.lines) == 1 and verdict.lines[0].startswith("audit: could not be made: ")


class Programs:
    """What stands in the place of pip-audit, and how often it was started."""

    def __init__(self, folder: Path) -> None:
        self.starts, self.program, self.cache = folder / "starts", folder / "program", folder / "c" / "cache"

    def says(self, output: str, code: int) -> None:
        text = f"#!/bin/sh\necho >>{self.starts}\ncat <<'END'\n{output}\nEND\nexit {code}\n"
        self.program.write_text(text)
        self.program.chmod(0o755)

    @property
    def started(self) -> int:
        return len(self.starts.read_text().splitlines())


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs(tmp_path)
    monkeypatch.setenv(audit.PROGRAM, str(made.program))
    return made


def test_an_answer_holds_for_a_day_and_a_failure_for_an_hour(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1e9]
    monkeypatch.setattr("tests.tidy.audit.time.time", lambda: now[0])
    programs.says(answer(CLEAN), 0)
    for _ in range(3):
        assert main([], programs.cache) == 0
    assert programs.started == 1
    assert capsys.readouterr().out.count("without a known vulnerability") == 3
    programs.says("", 1)
    assert main(["--now"], programs.cache) == 0
    assert programs.started == 2
    now[0] += audit.LATER_S - 1
    assert main([], programs.cache) == 0 and programs.started == 2
    now[0] += 1
    programs.says(answer(VULNERABLE), 1)
    assert main([], programs.cache) == 1 and programs.started == 3
    assert main([], programs.cache) == 1 and programs.started == 3, "it fails until it is mended"
    now[0] += audit.DAY_S
    assert main([], programs.cache) == 1 and programs.started == 4


def test_among_all_checks_it_asks_once_a_day_whatever_comes_out(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1e9]
    monkeypatch.setattr("tests.tidy.audit.time.time", lambda: now[0])
    programs.says("", 1)
    for _ in range(2):
        assert main(["--check"], programs.cache) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "audit: could not be made: exit code 1"
        assert said[1:] == ["audit: nothing fails for that; it is tried again in a day, or by `make audit`"]
    now[0] += audit.DAY_S - 1
    assert main(["--check"], programs.cache) == 0 and programs.started == 1
    assert main([], programs.cache) == 0 and programs.started == 2, "who asks for it alone waits no day"
    programs.says(answer(VULNERABLE), 1)
    now[0] += audit.DAY_S
    assert main(["--check"], programs.cache) == 1 and programs.started == 3


def test_among_all_checks_it_does_not_wait_for_a_service_that_does_not_answer(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "CHECK_S", 0.2)
    programs.program.write_text("#!/bin/sh\nexec sleep 600\n")
    programs.program.chmod(0o755)
    began_s = time.monotonic()
    assert main(["--check"], programs.cache) == 0
    assert time.monotonic() - began_s < 60
    assert "audit: could not be made: no answer within 0.2 s" in capsys.readouterr().out


def test_make_check_audits_and_fails_for_what_it_finds() -> None:
    """All that it starts is in one file; what the parts do is shown above."""
    lines = (Path(__file__).parents[2] / "scripts/check").read_text().splitlines()
    assert '"$bin/python" -m tests.tidy.audit --check || failed=1' in lines


def test_another_version_is_asked_about_at_once(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.says(answer(CLEAN), 0)
    main([], programs.cache)
    monkeypatch.setattr(audit, "closure", lambda _: {"some": "2.0"})
    main([], programs.cache)
    programs.cache.write_text("damaged")
    main([], programs.cache)
    assert programs.started == 3
