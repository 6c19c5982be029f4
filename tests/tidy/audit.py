"""Whether a library that we use has a known vulnerability: pip-audit over exactly what the project needs.

    python -m tests.tidy.audit [--now | --check]

Asked is about the versions that are installed of what pyproject.toml names, and of what that needs; not about
NOT_ASKED.  An audit that cannot be made, without a network, say, must not stop work: it says so in one line.
What came out holds for a day (LATER_S if it could not be made), or until another version is installed.

`--check`, among all other checks: asks at most once a day, also if that failed, and waits CHECK_S at most.

Not seen: libraries inside wheels (OpenSSL in cryptography), and what is not reported yet.
"""

import argparse
import enum
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import attrs
from packaging.requirements import Requirement

__all__ = ["Outcome", "Verdict", "closure", "judge", "main", "run_audit"]

PROJECT: Final = "pyjiva"
DAY_S: Final = 24 * 3600
LATER_S: Final = 3600
TIME_S: Final = 300  # of a service that answers, but slowly
CHECK_S: Final = 60  # of who waits for all checks; a hundred answers, one after the other, take ten seconds
CACHE: Final = Path(".cache/audit.json")
#: They make the environment, and come with the interpreter: another one is had by making it anew.
NOT_ASKED: Final = frozenset({"pip", "setuptools"})
#: Where tests put another program in the place of pip-audit.
PROGRAM: Final = "PYJIVA_AUDIT_PROGRAM"


class Outcome(enum.Enum):
    """How an audit came out."""

    CLEAN = "clean"
    VULNERABLE = "vulnerable"
    NOT_MADE = "not-made"


@attrs.frozen
class Verdict:
    """What there is to say."""

    outcome: Outcome
    lines: tuple[str, ...]


def closure(project: str) -> dict[str, str]:
    """Version by name of what is installed of all that `project` needs, its extras included."""
    found: dict[str, str] = {}
    asked: set[tuple[str, str]] = set()
    extras = distribution(project).metadata.get_all("Provides-Extra") or []
    left = [(project, extra) for extra in ("", *map(str, extras))]
    while left:
        name, extra = each = left.pop()
        if each in asked:
            continue
        asked.add(each)
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed here
            continue
        if name != project:
            found[re.sub(r"[-_.]+", "-", str(installed.metadata["Name"])).lower()] = installed.version
        for text in installed.requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(needed.name, more) for more in ("", *needed.extras)]
    return {name: version for name, version in sorted(found.items()) if name not in NOT_ASKED}


def judge(code: int, output: str, errors: str) -> Verdict:
    """What pip-audit's answer in JSON means."""
    try:
        dependencies: list[Mapping[str, Any]] = json.loads(output)["dependencies"]
        looked_at = [each for each in dependencies if "vulns" in each]
        bad = [each for each in looked_at if each["vulns"]]
    except (ValueError, KeyError, TypeError):
        said = [line for line in errors.splitlines() if line.strip()] or [f"exit code {code}"]
        return Verdict(Outcome.NOT_MADE, (f"audit: could not be made: {said[-1].strip()}",))
    if bad:
        lines = [
            f"audit: {each['name']} {each['version']}: {vulnerability['id']}, {_mended(vulnerability)}"
            for each in bad
            for vulnerability in each["vulns"]
        ]
        return Verdict(Outcome.VULNERABLE, tuple(lines))
    unknown = len(dependencies) - len(looked_at)
    if not looked_at:
        text = f"audit: could not be made: the service knows none of {unknown} libraries"
        return Verdict(Outcome.NOT_MADE, (text,))
    rest = f"; the service does not know {unknown} more" if unknown else ""
    return Verdict(Outcome.CLEAN, (f"audit: {len(looked_at)} libraries without a known vulnerability{rest}",))


def _mended(vulnerability: Mapping[str, Any]) -> str:
    versions = vulnerability.get("fix_versions") or []
    return f"mended in {', '.join(versions)}" if versions else "not mended yet"


def run_audit(versions: Mapping[str, str], program: Sequence[str], time_s: float = TIME_S) -> Verdict:
    """Ask about these versions, for `time_s` at most."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        options = ("--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off")
        command = [*program, *options, "--requirement", str(file)]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=time_s, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return Verdict(Outcome.NOT_MADE, (f"audit: could not be made: no answer within {time_s:g} s",))
    return judge(result.returncode, result.stdout, result.stderr)


def main(arguments: Sequence[str] | None = None, cache: Path = CACHE) -> int:
    """The exit code: 1 when there is a vulnerability."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description="Look for known vulnerabilities.")
    parser.add_argument("--now", action="store_true", help="ask again, whatever was answered before")
    parser.add_argument("--check", action="store_true", help="ask once a day, and do not wait long")
    given = parser.parse_args(arguments)
    versions = closure(PROJECT)
    of = hashlib.sha256(json.dumps(versions).encode()).hexdigest()
    verdict = None if given.now else _kept(cache, of, DAY_S if given.check else LATER_S)
    if verdict is None:
        program = os.environ.get(PROGRAM)
        command = [program] if program else [sys.executable, "-m", "pip_audit"]
        verdict = run_audit(versions, command, CHECK_S if given.check else TIME_S)
        cache.parent.mkdir(parents=True, exist_ok=True)
        kept = {"of": of, "at_s": time.time(), "outcome": verdict.outcome.value, "lines": verdict.lines}
        cache.write_text(json.dumps(kept))
    print(*verdict.lines, sep="\n")
    if given.check and verdict.outcome is Outcome.NOT_MADE:
        print("audit: nothing fails for that; it is tried again in a day, or by `make audit`")
    return int(verdict.outcome is Outcome.VULNERABLE)


def _kept(cache: Path, of: str, not_made_s: float) -> Verdict | None:
    """What was answered, if that holds still; `not_made_s`: how long, that it could not be made."""
    try:
        kept = json.loads(cache.read_text())
        verdict = Verdict(Outcome(kept["outcome"]), tuple(kept["lines"]))
        holds_s = not_made_s if verdict.outcome is Outcome.NOT_MADE else DAY_S
        holds = kept["of"] == of and 0 <= time.time() - kept["at_s"] < holds_s
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return verdict if holds else None


if __name__ == "__main__":
    sys.exit(main())
