"""What holds for the whole run: nothing is left running at its end."""

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from pyjiva.snapshot.under_way_sys import SLOT_FILE
from pyjiva.sparse import SharedSlots

# How long an example takes says how busy the machine is.  Where CI is set the examples follow from the code,
# so that one commit has one outcome; new ones are looked for elsewhere, by `make sim` and by `make fuzz`.
_PARENT = settings.get_profile("ci" if os.environ.get("CI") else "default")
settings.register_profile("pyjiva", _PARENT, deadline=None)
settings.load_profile("pyjiva")

MARK: Final = "PYJIVA_TEST_RUN"
END_S: Final = 5.0  # for what was told to end and has not quite


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Fail if a process that a test started, directly or not, is alive after the last test.

    Every such process inherits a mark in its environment.  Not seen: one that was given another
    environment.
    """
    mark = f"{MARK}={uuid.uuid4()}"
    os.environ[MARK] = mark.partition("=")[2]
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + END_S
    while left := [f"{pid} {command}" for pid, command in processes_with(mark) if pid != os.getpid()]:
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.05)  # between two looks at processes that are ending


@pytest.fixture(scope="session", autouse=True)
def _no_word_is_left_in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A replica that was killed, and whose directory nobody opened again, has left one in /dev/shm."""
    yield
    for file in tmp_path_factory.getbasetemp().rglob(SLOT_FILE):
        SharedSlots().remove(file.read_text().strip("\0"))


def processes_with(mark: str) -> Iterator[tuple[int, str]]:
    """(process id, command line) of every process that was started with `mark` in its environment."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (directory / "environ").read_bytes().split(b"\0"):
                yield int(directory.name), (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended, or is another user's
            continue
