"""Processes that this thread starts, waits for under trio, and takes with it when it ends.

Not trio's own: that starts processes from worker threads, and a process that is to die with its parent
(PR_SET_PDEATHSIG) dies with the thread that started it.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

__all__ = ["Contained", "StartError", "run_command"]


class StartError(Exception):
    """The command could not be started; the container's log says why."""


@attrs.define(eq=False)
class Child:
    """A process of ours; one task waits for it."""

    popen: "subprocess.Popen[bytes]"

    async def wait(self) -> int:
        """Its exit code, of a signal's 128 and the signal's number."""
        if self.popen.poll() is None:
            ended = os.pidfd_open(self.popen.pid)
            try:
                while self.popen.poll() is None:
                    await trio.lowlevel.wait_readable(ended)
            finally:
                os.close(ended)
        code: int = self.popen.returncode
        return code if code >= 0 else 128 - code


@attrs.define(eq=False)
class Contained:
    """The processes of a container."""

    child: Child
    """The one that waits outside for process 1 of the container."""
    first: int
    """Process 1, by its number outside."""

    @classmethod
    async def start(cls, command: Sequence[str], log: Path) -> "Contained":
        """Start `Sandbox.start()`.  Raises StartError."""
        reader, writer = os.pipe()
        with log.open("ab") as output:
            popen = _spawn(command, writer, output.fileno())
        os.close(writer)
        child = Child(popen)
        try:
            async with trio.lowlevel.FdStream(reader) as stream:
                line = await stream.receive_some(64)
            if not line:
                raise StartError(f"exit code {await child.wait()} before the command was started")
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        return cls(child, int(line))

    async def wait(self) -> int:
        """Until all its processes are gone; the exit code of the first."""
        return await self.child.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal for its process 1; nothing if that has ended."""
        if self.child.popen.poll() is None:
            try:
                os.kill(self.first, number)
            except ProcessLookupError:
                self.child.popen.poll()

    async def kill(self) -> None:
        """End all its processes, whatever happens to us meanwhile."""
        with trio.CancelScope(shield=True):
            self.send(signal.SIGKILL)
            await self.wait()


async def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a program; its exit code, and what it printed on either output.  It dies if we are cancelled."""
    with tempfile.TemporaryFile() as output:
        popen = _spawn(command, output.fileno(), output.fileno())
        try:
            code = await Child(popen).wait()
        finally:
            popen.kill()
            popen.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _spawn(command: Sequence[str], output: int, errors: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
