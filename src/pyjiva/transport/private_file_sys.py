"""Files with secrets in them are for their owner alone."""

import stat
from pathlib import Path
from typing import Final

from pyjiva.errors import ConfigError

__all__ = ["check_private"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def check_private(what: str, path: Path, mode: int) -> None:
    """Raises ConfigError: by its `mode` (`st_mode`) others may use it."""
    if mode & _OTHERS:
        raise ConfigError(f"{what} {path}: others may use it: chmod 600 {path}")
