"""How much one call should write to the page cache, so that small writes to the same place stay cheap.

Linux keeps what a large write brings in large folios: groups of pages that it handles as one.  ext4 has a
list of the blocks of each folio, and goes through all of it for every write into the folio, however small.
So 4 KiB that are written into a folio of 1 MiB cost 10 to 20 us of processor time, into one of 256 KiB 6 to
9 us and into a page alone 2 to 5 us; all that is large is cheaper in large ones (`python -m bench.folios`;
docs/decisions/0021-large-folios.md).  A folio is never larger than the call that wrote it.

ext4 has large folios since Linux 6.16.  XFS keeps two bits for each block in place of the list, and does not
have this cost.  A folio that a read brought in is as large as the kernel's read-ahead made it; nothing is
done about those.
"""

import os
import re
from typing import Final

from pyjiva.sparse.mounts_sys import kind_of_file_system
from pyjiva.units import KIB

__all__ = ["CALL_BYTES_MAX", "call_bytes_max", "call_bytes_max_of"]

CALL_BYTES_MAX: Final = 256 * KIB  # 4 calls for a MiB, which add a tenth to the copying

_SINCE: Final = (6, 16)


def call_bytes_max(fd: int) -> int:
    """How many bytes of the file or directory `fd` one write(2) should bring; 0: as many as there are."""
    return call_bytes_max_of(os.uname().release, kind_of_file_system(fd))


def call_bytes_max_of(release: str, file_system: str) -> int:
    """`call_bytes_max` on the kernel `release` with that kind of file system."""
    version = re.match(r"(\d+)\.(\d+)", release)
    if version is None or (int(version[1]), int(version[2])) < _SINCE:
        return 0
    return CALL_BYTES_MAX if file_system == "ext4" else 0
