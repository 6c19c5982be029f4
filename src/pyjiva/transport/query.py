"""What requests say in their query, as values, for all APIs.  Pure."""

from collections.abc import Mapping
from typing import Any, Final

from pyjiva.transport.problem import ProblemError, Reason

__all__ = ["flag", "wrong"]

SHOWN_CHARACTERS_MAX: Final = 32


def flag(given: Mapping[str, Any], name: str) -> bool:
    """0, which is also when it is not given, or 1.  Raises ProblemError, INVALID_PARAMETER: another text."""
    text = given.get(name, "0")
    if text not in ("0", "1"):
        raise wrong(name, text, "0 or 1")
    return bool(text == "1")


def wrong(name: str, text: str, right: str) -> ProblemError:
    """The answer to a parameter that makes no sense; `right`: what would."""
    shown = text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…"
    return ProblemError(Reason.INVALID_PARAMETER, f"{name} {shown!r}: {right}")
