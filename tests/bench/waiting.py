"""Looking at other processes."""

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["is_gone", "wait_for"]


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is so; a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie, which an init that reaps nothing leaves behind, has too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
