"""Which kind of file system an open file or directory lies in."""

import os
from pathlib import Path
from typing import Final

__all__ = ["kind_in", "kind_of_file_system"]

_MOUNTS: Final = Path("/proc/self/mountinfo")


def kind_of_file_system(fd: int) -> str:
    """As mount(8) names it, such as "ext4"; "" if nobody can say."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        device = os.fstat(fd).st_dev
    except OSError:  # no /proc
        return ""
    return kind_in(mounts, os.major(device), os.minor(device))


def kind_in(mounts: str, major: int, minor: int) -> str:
    """The kind of the file system with that number in the table `mounts` (proc(5), mountinfo); "": none."""
    for line in mounts.splitlines():
        place, separator, kind = line.partition(" - ")
        if separator and place.split()[2:3] == [f"{major}:{minor}"]:
            return (kind.split() or [""])[0]
    return ""
