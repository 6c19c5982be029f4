"""Raw to qcow2 and back, by `qemu-img convert`.  Blocking calls only."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from pyjiva.errors import ConfigError, StorageError, StorageFailure

__all__ = ["check_qemu_img", "convert"]

PROGRAM: Final = "qemu-img"
_MESSAGE_CHARACTERS_MAX: Final = 400


def check_qemu_img() -> None:
    """Raises ConfigError: the program is not there."""
    if shutil.which(PROGRAM) is None:
        raise ConfigError("qemu-img is needed for qcow2 and is not there: on Debian, apt install qemu-utils")


def convert(source: Path, source_format: str, target: Path, target_format: str) -> None:
    """Make `target` of `source`.  The formats are told, never guessed: a guest can write any header.

    Raises StorageError: it could not, with what qemu-img said.
    """
    check_qemu_img()
    command = [PROGRAM, "convert", "-f", source_format, "-O", target_format, _name(source), _name(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-_MESSAGE_CHARACTERS_MAX:]
        raise StorageError(StorageFailure.WRITE_ERROR, f"qemu-img: {said or f'exit code {done.returncode}'}")


def _name(path: Path) -> str:
    """`path` such that qemu-img takes it for a file, whatever is in it: not a protocol, not an option."""
    return "file:" + os.fspath(path.absolute())
