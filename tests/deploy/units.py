"""The units of deploy/systemd as they are read here: their settings, and the system calls that they allow."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["HEADER", "UNITS", "Unit", "allowed_calls", "call_numbers", "read_call_sets"]

UNITS: Final = Path(__file__).parents[2] / "deploy/systemd"
HEADER: Final = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@attrs.frozen
class Unit:
    """A unit file."""

    name: str
    settings: Mapping[str, tuple[str, ...]]
    """Every value of a setting, in order, whatever its section."""

    @classmethod
    def read(cls, name: str) -> "Unit":
        """The unit file `name`."""
        settings: dict[str, tuple[str, ...]] = {}
        for line in (UNITS / name).read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                settings[key] = (*settings.get(key, ()), value)
        return cls(name, settings)

    def one(self, key: str) -> str:
        """The last value of a setting."""
        return self.settings[key][-1]


def read_call_sets() -> dict[str, list[str]]:
    """What systemd's names of groups of system calls stand for; groups may hold groups."""
    listed = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    sets: dict[str, list[str]] = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", listed).splitlines():
        if line.startswith("@"):
            members = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())
    return sets


def allowed_calls(unit: Unit) -> set[str]:
    """The names of the system calls that SystemCallFilter= of a unit lets through (systemd.exec(5))."""
    sets = read_call_sets()

    def expand(word: str) -> set[str]:
        return set().union(*map(expand, sets[word])) if word.startswith("@") else {word}

    allowed = expand("@default")
    for line in unit.settings["SystemCallFilter"]:
        named: set[str] = set().union(*map(expand, line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def call_numbers() -> dict[str, int]:
    """Numbers of system calls by name, from the kernel's header."""
    return {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+) (\d+)", HEADER.read_text())}
