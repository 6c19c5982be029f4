"""Files with secrets in them are for their owner alone.

In a Kubernetes pod the owner is root, and the daemon, which is not, reads by its group (`fsGroup`): whom a
file of root lets in by its group is root's business.  It may not write there; others may do nothing.
"""

import os
import stat
from pathlib import Path
from typing import Final

from pyjiva.errors import ConfigError

__all__ = ["check_private"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_BEYOND_GROUP: Final = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


def check_private(what: str, path: Path, found: os.stat_result) -> None:
    """Raises ConfigError: by what `stat` found of it, others may use it."""
    by_group = found.st_uid == 0 and os.geteuid() != 0
    if found.st_mode & (_BEYOND_GROUP if by_group else _OTHERS):
        raise ConfigError(f"{what} {path}: others may use it: chmod 600 {path}")
