"""Every installed distribution is under a licence that we may pass on."""

from email.message import Message
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path
from typing import Any, cast

import pytest

from tests.tidy.licences import ALLOWED, forbidden, is_allowed, licence_of


class Installed(Distribution):
    """With this metadata."""

    def __init__(self, **fields: str | list[str]) -> None:
        self.message = Message()
        self.message["Name"] = "some"
        for name, values in fields.items():
            for value in [values] if isinstance(values, str) else values:
                self.message[name.replace("_", "-")] = value

    @property
    def metadata(self) -> PackageMetadata:
        return cast(PackageMetadata, self.message)

    def read_text(self, filename: str) -> str | None:
        return None

    def locate_file(self, path: Any) -> Path:
        return Path(path)


def test_every_installed_distribution_may_be_used() -> None:
    assert not list(forbidden(distributions())), f"allowed are {', '.join(sorted(ALLOWED))}"


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-or-later", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND (BSD-3-Clause OR AGPL-3.0-only)", True),
        ("MIT AND (LGPL-3.0-only OR GPL-2.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("", False),
        ("see LICENSE", False),
        ("BSD", False),
    ],
)
def test_all_parts_and_one_of_each_choice_must_be_allowed(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


@pytest.mark.parametrize(
    ("installed", "licence"),
    [
        (Installed(License_Expression="MIT", Classifier="License :: OSI Approved :: BSD License"), "MIT"),
        (Installed(Classifier=["Topic :: Other", "License :: OSI Approved :: BSD License"]), "BSD-3-Clause"),
        (
            Installed(
                Classifier=[f"License :: OSI Approved :: {n} License" for n in ("MIT", "Apache Software")]
            ),
            "MIT OR Apache-2.0",
        ),
        (Installed(License="Apache-2.0"), "Apache-2.0"),
        (Installed(License="Some words\nand more"), "Some words"),
        (
            Installed(Classifier="License :: OSI Approved :: GNU General Public License v3 (GPLv3)"),
            "OSI Approved :: GNU General Public License v3 (GPLv3)",
        ),
        (Installed(), ""),
    ],
)
def test_the_newest_field_that_says_something_counts(installed: Installed, licence: str) -> None:
    assert licence_of(installed).licence == licence


def test_one_without_a_known_licence_is_named() -> None:
    assert [found.name for found in forbidden([Installed(), Installed(License_Expression="MIT")])] == ["some"]
