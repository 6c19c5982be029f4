"""Try what a unit of deploy/systemd forbids, and one thing that it allows; print what comes of each."""

import errno
import mmap
import os
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["TRIED"]

TRIED: Final[dict[str, Callable[[], object]]] = {
    "chroot": lambda: os.chroot("/"),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "write-and-run": lambda: mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ).close(),
    "other-process": lambda: os.stat("/proc/1/status"),
    "write": lambda: mmap.mmap(-1, mmap.PAGESIZE).close(),
}

if __name__ == "__main__":
    for name, attempt in TRIED.items():
        try:
            attempt()
            print(name, 0)
        except OSError as error:
            print(name, errno.errorcode[error.errno or 0])
