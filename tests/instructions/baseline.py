"""Recorded counts, and what is said when a new one differs by more than TOLERANCE.  One baseline for each
environment (`counting.environment`) that somebody has recorded.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = [
    "BASELINES",
    "RECORD",
    "RECORD_COMPILED",
    "TOLERANCE",
    "Baseline",
    "complaint",
    "find",
    "load",
    "nothing_recorded",
    "other_versions",
    "save",
]

BASELINES: Final = Path(__file__).parent / "baseline.json"
TOLERANCE: Final = 0.10
RECORD: Final = "python -m tests.instructions --record"
RECORD_COMPILED: Final = f"scripts/compiled-venv && .venv-compiled/bin/{RECORD}"


@attrs.frozen
class Baseline:
    """Counts of one environment."""

    environment: dict[str, str]
    packages: dict[str, str]
    """Versions that were there when it was recorded; others may be compared with it."""
    instructions: dict[str, int]
    """For one command of each workload."""


def load(path: Path = BASELINES) -> list[Baseline]:
    """All that are recorded."""
    return [Baseline(**entry) for entry in json.loads(path.read_text())]


def save(baselines: Sequence[Baseline], new: Baseline, path: Path = BASELINES) -> None:
    """Record `new` in the place of that of the same environment.

    A workload that could not be done this time keeps its count.
    """
    old = find(baselines, new.environment)
    if old is not None:
        new = attrs.evolve(new, instructions={**old.instructions, **new.instructions})
    kept = [baseline for baseline in baselines if baseline.environment != new.environment]
    entries = sorted((attrs.asdict(b) for b in (*kept, new)), key=lambda entry: str(entry["environment"]))
    path.write_text(json.dumps(entries, indent=2) + "\n")


def find(baselines: Sequence[Baseline], environment: Mapping[str, str]) -> Baseline | None:
    """The one of `environment`."""
    return next((b for b in baselines if b.environment == environment), None)


def nothing_recorded(baselines: Sequence[Baseline], here: Mapping[str, str], record: str = RECORD) -> str:
    """Why nothing can be compared in the environment `here`, which has no baseline."""
    nearest = max(baselines, key=lambda b: len(b.environment.items() & here.items())).environment
    names = {**nearest, **here}
    differ = [
        f"{name} {nearest.get(name, '-')}, here {here.get(name, '-')}"
        for name in names
        if nearest.get(name) != here.get(name)
    ]
    return f"nothing is recorded for this machine (nearest: {'; '.join(differ)}): {record}"


def other_versions(baseline: Baseline, present: Mapping[str, str]) -> list[str]:
    """What of `present` has another version than when `baseline` was recorded, as "NAME OLD → NEW"."""
    return [f"{n} {v} → {present[n]}" for n, v in baseline.packages.items() if present[n] != v]


def complaint(
    workload: str, before: int | None, now: int, other_packages: Sequence[str] = (), record: str = RECORD
) -> str:
    """What is wrong with `now` instructions where there were `before`; "" if nothing is.

    `other_packages`: what may explain it (`other_versions`).
    `record`: the command that records.
    """
    if before is None:
        return f"{workload}: {now} instructions for a command, and none are recorded: {record}"
    if abs(now - before) <= TOLERANCE * before:
        return ""
    change = now / before - 1
    versions = f" (another version: {', '.join(other_packages)})" if other_packages else ""
    what = f"{workload}: {before} → {now} instructions for a command, {change:+.1%}{versions}."
    if change > 0:
        return f"{what} If it is worth that, record it, with the reason in the commit: {record}"
    return f"{what} It got cheaper: record that, so that it is not lost again: {record}"
