"""This process under a name that no other one has, and whether the process of such a name is gone; time that
also passes while the machine is suspended.
"""

import os
import time
from pathlib import Path

from pyjiva.errors import ConfigError

__all__ = ["awake_s", "is_gone", "own_process"]


def own_process() -> str:
    """`BOOT:NAMESPACE:PID:START`: boot id, inode of the pid namespace, number, clock ticks since the boot."""
    try:
        return f"{_here()}:{os.getpid()}:{_start_of(os.getpid())}"
    except OSError as error:
        raise ConfigError(f"/proc cannot be read: {error}") from error


def is_gone(process: str) -> bool:
    """Whether it is certain that the process does not live any more: it was one of this boot and namespace,
    and is not there, or its number is another one's now.
    """
    here, _, rest = process.rpartition(":")
    here, _, number = here.rpartition(":")
    if here != _here() or not number.isascii() or not number.isdigit():
        return False
    try:
        return _start_of(int(number)) != rest
    except FileNotFoundError:
        return True


def awake_s() -> float:
    """Steady time, which counts on while the machine is suspended (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"


def _start_of(number: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)); the second, the name, may have blanks and brackets."""
    return Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
