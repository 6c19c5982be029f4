"""What is wrong with a policy, said so that somebody who reads it knows what to change and where.  Pure."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["PoliciesRefused", "PolicyFault", "suggestion"]

FOUND_CHARACTERS_MAX: Final = 80


@attrs.frozen
class PolicyFault:
    """One thing that is wrong."""

    source: str
    """Where it stands: StorageClass NAME, PersistentVolumeClaim NAMESPACE/NAME, the environment."""
    policy: str
    """The policy's name, or the annotation's, label's or parameter's."""
    found: str
    """What stands there, shortened; "": nothing to show."""
    expected: str
    """What may stand there, or why nothing may, and what to write instead."""

    def __str__(self) -> str:
        """In one line."""
        found = f"found {_short(self.found)!r}, expected " if self.found.strip() else ""
        name = _short(self.policy)
        return f"{self.source}: {name if name.isprintable() else repr(name)}: {found}{self.expected}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= FOUND_CHARACTERS_MAX else f"{text[: FOUND_CHARACTERS_MAX - 1]}…"


class PoliciesRefused(ConfigError):
    """There is no volume with these policies; `faults` says why, all of it."""

    def __init__(self, faults: Sequence[PolicyFault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`, did you mean X?` where one is like it; else "".  Case does not count."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:FOUND_CHARACTERS_MAX].lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
