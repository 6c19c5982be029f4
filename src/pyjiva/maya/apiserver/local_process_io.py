"""Keeps one volume's `pyjiva up` running: started, started again, stopped.

It has a pipe as its standard input whose other end only we hold: when this process is gone, however it
went, it stops (`--stop-with-stdin`), and lets go of what the next one needs.
"""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from pyjiva.maya.apiserver.local_view import ProcessView

__all__ = ["Launch", "VolumeProcess", "launch_up"]

PYTHON: Final = (sys.executable, "-P", "-m", "pyjiva.cli.main")
BACK_OFF_S_MIN: Final = 0.2
BACK_OFF_S_MAX: Final = 10.0  # one that cannot start costs little, and is seen to fail
HEALTHY_S: Final = 60.0  # one that was ready so long starts with the shortest back-off again
STOP_S: Final = 30.0  # `pyjiva up` gives its controller 10 seconds, then its replicas
LINE_BYTES_MAX: Final = 64 * 1024
EXIT_NOT_STARTED: Final = 127  # as a shell says it

_log = structlog.get_logger(__name__)

Launch = Callable[[Sequence[str], Path, Callable[[str], None]], Awaitable[int]]
"""Run `pyjiva` with these arguments, its log there, each line that it prints given to the function, until it
ends; its exit code.  Cancelled, it stops it and waits for that.
"""


@attrs.define(eq=False)
class VolumeProcess:
    """Of one volume."""

    name: str
    launch: Launch
    arguments: Callable[[], Sequence[str]]
    """Asked for at every start."""
    log: Path
    last_words: Callable[[], str]
    on_ready: Callable[[], None]
    _ready: bool = attrs.field(default=False, init=False)
    _failed_starts: int = attrs.field(default=0, init=False)
    _words: str = attrs.field(default="", init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _ended: trio.Event | None = attrs.field(default=None, init=False)

    def view(self) -> ProcessView:
        """How it is."""
        return ProcessView(self._ready, self._failed_starts, self._words)

    def start(self, nursery: trio.Nursery) -> None:
        """Keep it running until it is stopped, or the nursery cancelled."""
        self._ended = trio.Event()
        nursery.start_soon(self._run, self._ended)

    async def stop(self) -> None:
        """End it, if it was started, and wait until nothing of it runs."""
        self._scope.cancel()
        if self._ended is not None:
            await self._ended.wait()

    async def _run(self, ended: trio.Event) -> None:
        try:
            with self._scope:
                await self._keep()
        finally:
            self._ready = False
            ended.set()

    async def _keep(self) -> None:
        back_off_s = BACK_OFF_S_MIN
        while True:
            began_s = trio.current_time()
            code = await self.launch(self.arguments(), self.log, self._on_line)
            was_ready, self._ready = self._ready, False
            self._failed_starts = 0 if was_ready else self._failed_starts + 1
            words = self.last_words()
            self._words = f"exit code {code}" + (f": {words}" if words else "")
            _log.warning("a volume's process has ended", volume=self.name, code=code, last_words=words)
            if was_ready and trio.current_time() - began_s >= HEALTHY_S:
                back_off_s = BACK_OFF_S_MIN
            await trio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, BACK_OFF_S_MAX)

    def _on_line(self, line: str) -> None:
        if line.startswith("ready ") and not self._ready:
            self._ready, self._failed_starts = True, 0
            _log.info("a volume is ready", volume=self.name)
            self.on_ready()


async def launch_up(arguments: Sequence[str], log: Path, on_line: Callable[[str], None]) -> int:
    """See Launch."""
    try:
        stdin, held = os.pipe2(os.O_CLOEXEC)
        try:
            process = await _start(arguments, log, stdin)
            return await _watch(process, on_line)
        finally:
            os.close(held)
    except OSError as error:  # no process, no descriptor, no log
        _log.warning("a volume's process cannot be started", reason=os.strerror(error.errno or 0))
        return EXIT_NOT_STARTED


async def _start(arguments: Sequence[str], log: Path, stdin: int) -> trio.Process:
    """Closes `stdin`.  Raises OSError."""
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return await trio.lowlevel.open_process(
                [*PYTHON, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=fd, start_new_session=True
            )
        finally:
            os.close(fd)
    finally:
        os.close(stdin)


async def _watch(process: trio.Process, on_line: Callable[[str], None]) -> int:
    try:
        assert process.stdout is not None
        text = b""
        async with process.stdout:
            async for data in process.stdout:
                *lines, text = (text + data).split(b"\n")
                text = text[:LINE_BYTES_MAX]
                for line in lines:
                    on_line(line.decode(errors="replace"))
        return await process.wait()
    finally:
        if process.returncode is None:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(STOP_S):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
