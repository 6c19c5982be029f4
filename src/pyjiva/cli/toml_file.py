"""Reading a file in TOML that an operator wrote."""

import tomllib
from pathlib import Path
from typing import Any, Final

from pyjiva.errors import ConfigError

__all__ = ["read_toml"]

FILE_BYTES_MAX: Final = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """What it says.  Raises ConfigError, which names it: it cannot be read, or is something else."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
