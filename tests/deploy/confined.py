"""Run a module as a unit of deploy/systemd would have it run, as far as one process can do that to itself:

    python -m tests.deploy.confined ALLOWED MODULE ARGUMENTS…

No new privileges; system calls by a seccomp filter (seccomp(2)) that lets through the numbers ALLOWED,
separated by commas, and fails others with EPERM; sockets of IPv4, IPv6 and unix(7) only; no memory that is
writable and executable (what MemoryDenyWriteExecute= does); files for their owner alone.  Not done: mounts,
device nodes and namespaces.
"""

import ctypes
import os
import runpy
import socket
import struct
import sys
from collections.abc import Collection
from typing import Final

__all__ = ["confine"]

PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
AUDIT_ARCH_X86_64: Final = 0xC000003E
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
ERRNO: Final = 0x00050000
EPERM, EAFNOSUPPORT = 1, 97
LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06  # of linux/bpf_common.h, words and constants
#: struct seccomp_data: where the call's number, the architecture and the low half of each argument are.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
MMAP, MPROTECT, SOCKET = 9, 10, 41  # x86-64
PROT_EXEC, PROT_WRITE = 4, 2
FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)


def _argument(index: int) -> int:
    return ARGUMENTS + 8 * index


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _only_if(call: int, steps: list[bytes]) -> list[bytes]:
    """`steps` for one system call; each but the last ends at a return."""
    return [_step(LOAD, NUMBER), _step(EQUAL, call, 0, len(steps)), *steps]


def _program(allowed: Collection[int]) -> list[bytes]:
    denied = _step(RETURN, ERRNO | EPERM)
    families = [step for f in FAMILIES for step in (_step(EQUAL, f, 0, 1), _step(RETURN, ALLOW))]
    both = PROT_EXEC | PROT_WRITE
    calls = [step for n in sorted(allowed) for step in (_step(EQUAL, n, 0, 1), _step(RETURN, ALLOW))]
    return [
        *(_step(LOAD, ARCHITECTURE), _step(EQUAL, AUDIT_ARCH_X86_64, 1), _step(RETURN, KILL)),
        *_only_if(SOCKET, [_step(LOAD, _argument(0)), *families, _step(RETURN, ERRNO | EAFNOSUPPORT)]),
        *_only_if(MMAP, [_step(LOAD, _argument(2)), _step(AND, both), _step(EQUAL, both, 0, 1), denied]),
        *_only_if(
            MPROTECT,
            [_step(LOAD, _argument(2)), _step(AND, PROT_EXEC), _step(EQUAL, PROT_EXEC, 0, 1), denied],
        ),
        _step(LOAD, NUMBER),
        *calls,
        denied,
    ]


def confine(allowed: Collection[int]) -> None:
    """From here to the end of this process and its children.  Raises OSError."""
    os.umask(0o077)
    libc = ctypes.CDLL(None, use_errno=True)
    steps = _program(allowed)
    code = ctypes.create_string_buffer(b"".join(steps))
    filter_ = struct.pack("@HxxxxxxP", len(steps), ctypes.addressof(code))
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_)):
        if libc.prctl(*arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {arguments[0]}")


if __name__ == "__main__":
    confine([int(word) for word in sys.argv[1].split(",")])
    # In this process: another user may not be able to start the interpreter of whoever runs the tests.
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
