"""Objects as YAML for people to read: no anchors, keys as they come.  Pure."""

from collections.abc import Iterable
from typing import Any, Final

import yaml

__all__ = ["write_yaml"]

WIDTH: Final = 110


class _Plain(yaml.SafeDumper):
    """Writes everything out, also what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Part of PyYAML's representer."""
        return True


def write_yaml(objects: Iterable[object]) -> str:
    """A document for each."""
    return str(yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=WIDTH, allow_unicode=True))
