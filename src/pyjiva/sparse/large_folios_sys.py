"""How much one call should write to the page cache, so that small writes to the same place stay cheap.

Linux keeps what a large write brings in large folios: groups of pages that it handles as one.  ext4 has a
list of the blocks of each folio, and goes through all of it for every write into the folio, however small.
So 4 KiB that are written into a folio of 1 MiB cost 10 to 20 us of processor time, into one of 128 KiB 5 us
and into a page alone 2 us (`python -m bench.folios`; docs/decisions/0021-large-folios.md).  A folio is never
larger than the call that wrote it.

ext4 has large folios since Linux 6.16.  XFS keeps two bits for each block in place of the list, and does not
have this cost.  A folio that a read brought in is as large as the kernel's read-ahead made it; nothing is
done about those.
"""

import os
import re
from pathlib import Path
from typing import Final

from pyjiva.units import KIB

__all__ = ["CALL_BYTES_MAX", "call_bytes_max", "call_bytes_max_of"]

CALL_BYTES_MAX: Final = 128 * KIB  # 8 calls for a MiB, which add a tenth or two to the copying

_SINCE: Final = (6, 16)
_MOUNTS: Final = Path("/proc/self/mountinfo")


def call_bytes_max(fd: int) -> int:
    """How many bytes of the file or directory `fd` one write(2) should bring; 0: as many as there are."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        device = os.fstat(fd).st_dev
    except OSError:  # no /proc: nothing is known, and nothing is wrong with any size
        return 0
    return call_bytes_max_of(os.uname().release, mounts, os.major(device), os.minor(device))


def call_bytes_max_of(release: str, mounts: str, major: int, minor: int) -> int:
    """`call_bytes_max` on the kernel `release` with the table `mounts` (proc(5), mountinfo)."""
    version = re.match(r"(\d+)\.(\d+)", release)
    if version is None or (int(version[1]), int(version[2])) < _SINCE:
        return 0
    for line in mounts.splitlines():
        place, separator, kind = line.partition(" - ")
        if separator and place.split()[2:3] == [f"{major}:{minor}"]:
            return CALL_BYTES_MAX if kind.split()[:1] == ["ext4"] else 0
    return 0
