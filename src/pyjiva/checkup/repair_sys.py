"""Carrying out a repair, step by step, each durable before the next.  Blocking calls only.

A power cut at any step leaves a directory that is looked at and repaired again (`plan`)."""

import contextlib
from typing import assert_never

from pyjiva.checkup.facts import SUM_BYTES
from pyjiva.checkup.plan import Copy, MakeSums, PutAside, Rename, Step, Write
from pyjiva.sparse import Directory, replace_file

__all__ = ["carry_out"]


def carry_out(directory: Directory, step: Step) -> None:
    """Do one step.  Raises StorageError: it may be done or not."""
    match step:
        case Copy(kept=kept, content=content):
            replace_file(directory, kept, content)
        case PutAside(name=old, kept=new) | Rename(old=old, new=new):
            directory.rename(old, new)
            directory.sync()
        case Write(name=name, content=content):
            replace_file(directory, name, content)
        case MakeSums(name=name, size_bytes=size_bytes):
            _make_sums(directory, name, size_bytes)
        case _:
            assert_never(step)


def _make_sums(directory: Directory, name: str, size_bytes: int) -> None:
    """Give the file its size; what is added is unknown, and so is a checksum of which a part is there."""
    file = directory.open(name) if name in directory.names() else directory.create(name)
    with contextlib.closing(file):
        present_bytes = file.size_bytes()
        if present_bytes < size_bytes:
            torn_bytes = present_bytes % SUM_BYTES
            if torn_bytes:  # first: of a file that has its size nobody could tell any more
                file.write(present_bytes - torn_bytes, (bytes(torn_bytes),))
                file.sync_data()
            file.truncate(size_bytes)
        file.sync_data()
    directory.sync()
