"""trio in a thread that has entered namespaces of its own.

setns(2) and unshare(2) move the calling thread alone, so that pytest's process stays where it is while one
of its threads talks inside a network namespace.  Programs which that thread starts are in its namespaces too;
but what trio hands to worker threads is not, as they are shared by the whole process.
"""

import ctypes
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import trio

__all__ = ["ThreadOf", "enter_network", "new_network", "own_mounts"]

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWNET: Final = 0x4000_0000
MS_REC: Final = 1 << 14
MS_PRIVATE: Final = 1 << 18

_libc: Final = ctypes.CDLL(None, use_errno=True)  # os has these calls since Python 3.12
Result = TypeVar("Result")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def enter_network(path: Path) -> None:
    """Move this thread into the network namespace that `path` of /proc stands for."""
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(namespace, CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(namespace)


def own_mounts() -> None:
    """Give this thread mounts of its own: what it mounts nobody else sees, and it goes with the thread."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare mounts")
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")


def new_network() -> int:
    """A new network namespace, as a file descriptor: it lives as long as that, or a process in it."""
    made: Future[int] = Future()

    def make() -> None:
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare network")
            made.set_result(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.set_exception(error)

    thread = threading.Thread(target=make, name="new-network")  # so that ours stays where it is
    thread.start()
    thread.join()
    return made.result()


class ThreadOf(Generic[Result]):
    """A thread in which trio runs `work(*arguments)` after `enter()`."""

    def __init__(
        self, name: str, enter: Callable[[], None], work: Callable[..., Awaitable[Result]], *arguments: Any
    ) -> None:
        self._done: Future[Result] = Future()
        self._scope = trio.CancelScope()
        self._token: Future[trio.lowlevel.TrioToken] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(enter, work, arguments), name=name, daemon=True
        )
        self._thread.start()

    def _run(
        self, enter: Callable[[], None], work: Callable[..., Awaitable[Result]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            enter()
            self._done.set_result(trio.run(self._inside, work, arguments))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
            self._done.set_exception(error)
        if not self._token.done():
            self._token.cancel()

    async def _inside(self, work: Callable[..., Awaitable[Result]], arguments: tuple[Any, ...]) -> Result:
        self._token.set_result(trio.lowlevel.current_trio_token())
        with self._scope:
            return await work(*arguments)
        raise trio.ClosedResourceError("ended from outside")

    def result(self, timeout_s: float | None = None) -> Result:
        """What the work returned or raised.  If we are interrupted meanwhile, the work is too."""
        try:
            return self._done.result(timeout_s)
        finally:
            if not self._done.done():
                self.end()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, sync or async, in the thread's event loop; what it returns or raises."""
        asynchronous = trio.from_thread.run if _is_async(function) else trio.from_thread.run_sync
        try:
            return asynchronous(function, *arguments, trio_token=self._token.result())
        except (CancelledError, trio.Cancelled, trio.RunFinishedError):
            self._done.result()  # raises what ended it
            raise

    def end(self) -> None:
        """Cancel the work and wait until the thread is gone."""
        if not self._token.cancelled() and not self._done.done():
            try:
                self._token.result().run_sync_soon(self._scope.cancel)
            except trio.RunFinishedError:
                self._done.exception()  # it ended by itself meanwhile
        self._thread.join()


def _is_async(function: Callable[..., Any]) -> bool:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE
