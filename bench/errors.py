"""What ends a benchmark before its time."""

__all__ = ["BenchError"]


class BenchError(Exception):
    """One line for the user: a program is missing, a process failed, data that was read is wrong."""
