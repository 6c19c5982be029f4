"""Runs the supervisor's effects: processes, signals, time.

Every child is in a session of its own, so that the terminal's Ctrl-C is for us alone, and has a pipe as its
standard input whose other end only we hold: when this process is gone, however it went, that pipe ends, and
the children stop (`--stop-with-stdin`).
"""

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, assert_never

import attrs
import trio

from pyjiva.supervisor.machine import (
    ChildExited,
    ChildState,
    Effect,
    Event,
    Finished,
    Kill,
    Start,
    StopRequested,
    Supervisor,
    Terminate,
    Tick,
)

__all__ = ["Children"]

LINE_BYTES_MAX: Final = 64 * 1024  # no line of a child of ours is so long: what follows is not kept
EXIT_NOT_STARTED: Final = 127  # as a shell says it


@attrs.define(eq=False)
class Children:
    """The children of one supervisor."""

    supervisor: Supervisor
    command_of: Callable[[str], Sequence[str]]
    """The command line of a child, asked for at every start."""
    on_line: Callable[[str, str], None]
    """Told of every line that a child prints: its name, the line."""
    say: Callable[[str], None]
    """Prints a line for people."""
    environment_of: Callable[[str], Mapping[str, str]]
    """The environment of a child: what is not its business is left out."""
    until: Callable[[], Awaitable[None]] | None = None
    """When this ends, everything is stopped, as by a signal."""
    _processes: dict[str, trio.Process] = attrs.field(factory=dict, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _code: int = attrs.field(default=0, init=False)

    async def run(self) -> int:
        """Until SIGINT, SIGTERM or `stop`, and everything has ended; the exit code."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._wait_for_signals)  # before there is anything to stop
            if self.until is not None:
                self._nursery.start_soon(self._wait_until, self.until)
            while True:
                self._apply(Tick(trio.current_time()))
                self._changed = trio.Event()
                with trio.move_on_at(self.supervisor.next_tick_s):
                    await self._changed.wait()
        return self._code

    def stop(self, code: int = 0) -> None:
        """Begin to stop everything, to exit with `code`."""
        self._apply(StopRequested(trio.current_time(), code))

    async def _wait_until(self, until: Callable[[], Awaitable[None]]) -> None:
        await until()
        self.stop()

    async def _wait_for_signals(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self.stop()

    def _apply(self, event: Event) -> None:
        for effect in self.supervisor.apply(event):
            self._carry_out(effect)
        self._changed.set()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Start(name):
                self._nursery.start_soon(self._run_child, name)
            case Terminate(name):
                if name in self._processes:  # else `_run_child` does it
                    self._processes[name].terminate()
            case Kill(name):
                self.say(f"{name} does not stop: killed")
                if name in self._processes:
                    self._processes[name].kill()
            case Finished(code):
                self._code = code
                self._nursery.cancel_scope.cancel()
            case _:
                assert_never(effect)

    async def _run_child(self, name: str) -> None:
        """One life of one child."""
        try:
            stdin, held = os.pipe2(os.O_CLOEXEC)
            try:
                process = await self._start(name, stdin)
                code = await self._watch(name, process)
            finally:
                os.close(held)
        except OSError as error:  # no process, or no descriptor for its pipes
            self.say(f"{name} cannot be started: {os.strerror(error.errno or 0)}")
            code = EXIT_NOT_STARTED
        asked = self.supervisor.stopping
        self._apply(ChildExited(name, code, trio.current_time()))
        if not asked:
            how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
            self.say(f"{name} {how}: {'stopping' if self.supervisor.stopping else 'starting it again'}")

    async def _start(self, name: str, stdin: int) -> trio.Process:
        """The new process.  Closes `stdin`.  Raises OSError: there can be none now."""
        try:
            return await trio.lowlevel.open_process(
                self.command_of(name),
                stdin=stdin,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env=self.environment_of(name),
            )
        finally:
            os.close(stdin)

    async def _watch(self, name: str, process: trio.Process) -> int:
        """Take in what a child prints until it ends; its exit code."""
        self._processes[name] = process
        try:
            if self.supervisor.children[name].state is ChildState.STOPPING:  # told to while it was started
                process.terminate()
            assert process.stdout is not None
            await self._read_lines(name, process.stdout)
            return await process.wait()
        finally:
            del self._processes[name]

    async def _read_lines(self, name: str, stdout: trio.abc.ReceiveStream) -> None:
        text = b""
        async with stdout:
            async for data in stdout:
                *lines, text = (text + data).split(b"\n")
                text = text[:LINE_BYTES_MAX]
                for line in lines:
                    self.on_line(name, line.decode(errors="replace"))


def _signal_name(number: int) -> str:
    return {each.value: each.name for each in signal.Signals}.get(number, f"signal {number}")
