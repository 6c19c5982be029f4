"""Under which licences the installed distributions are, by their metadata, and which of these we may use.

A licence is a condition on whoever passes the whole on, an image with everything in it, say: those listed let
that be done under Apache-2.0 with their notices kept.  None asks for the source of what stands beside it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution
from typing import Final

import attrs
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

__all__ = ["ALLOWED", "Licensed", "forbidden", "licence_of"]

ALLOWED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0"),
        *("MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"),
        "MPL-2.0",  # of its own files alone: we change none
    }
)
#: Classifiers (without "License :: ") and texts of older metadata → SPDX.
OLDER: Final = {
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "OSI Approved :: BSD License": "BSD-3-Clause",
    "OSI Approved :: ISC License (ISCL)": "ISC",
    "OSI Approved :: MIT License": "MIT",
    "OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
}


@attrs.frozen
class Licensed:
    """A distribution and what its metadata says."""

    name: str
    licence: str
    """An SPDX expression; or else what stands there, or nothing."""


def licence_of(distribution: Distribution) -> Licensed:
    """The newest field that says something counts.  Several classifiers are taken as a choice."""
    metadata = distribution.metadata
    name = str(metadata["Name"])
    if "License-Expression" in metadata:
        return Licensed(name, str(metadata["License-Expression"]))
    classifiers = [str(c).removeprefix("License :: ") for c in metadata.get_all("Classifier") or []]
    old = [OLDER.get(c, c) for c in classifiers if c in OLDER or c.startswith("OSI Approved :: ")]
    if old:
        return Licensed(name, " OR ".join(old))
    text = str((metadata.get_all("License") or [""])[0]).partition("\n")[0].strip()
    return Licensed(name, OLDER.get(text, text))


def forbidden(distributions: Iterable[Distribution]) -> Iterator[Licensed]:
    """Those whose licence is not known, or not one of ALLOWED."""
    for found in map(licence_of, distributions):
        if not is_allowed(found.licence):
            yield found


def is_allowed(expression: str) -> bool:
    """Whether every part that must hold, and one of each choice, is allowed."""
    try:
        words = re.findall(r"[()]|[^\s()]+", canonicalize_license_expression(expression))
    except InvalidLicenseExpression:
        return False
    value, rest = _any(words)
    return value and not rest


def _any(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, words = _all(words)
    while words and words[0] == "OR":
        other, words = _all(words[1:])
        value = value or other
    return value, words


def _all(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    value, words = _one(words)
    while words and words[0] == "AND":
        other, words = _one(words[1:])
        value = value and other
    return value, words


def _one(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    if words[0] == "(":
        value, words = _any(words[1:])
        return value, words[1:]
    if words[1:2] == ["WITH"]:  # an exception takes a condition away
        return words[0] in ALLOWED, words[3:]
    return words[0] in ALLOWED, words[1:]
