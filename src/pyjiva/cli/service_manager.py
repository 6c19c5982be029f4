"""What a daemon tells the service manager that has started it: sd_notify(3), without a library
(docs/decisions/0013-sd-notify.md).

The manager names a datagram socket in NOTIFY_SOCKET and takes lines of `NAME=value` there: READY=1 when the
daemon serves, STATUS= for people, STOPPING=1, and WATCHDOG=1 again and again if WATCHDOG_USEC is set: a
daemon that leaves it out for so long is killed and started again (sd_watchdog_enabled(3)).  Without
NOTIFY_SOCKET nobody is told anything.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import structlog
import trio

__all__ = ["ServiceManager"]

STATUS_CHARACTERS_MAX: Final = 512  # a line for people
LOOK_S: Final = 1.0  # how often it is seen whether a status has changed

_log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class ServiceManager:
    """Who started this process and wants to hear of it, if there is anybody."""

    address: str | None = None
    """Of its datagram socket: a path, or @ and an abstract name (unix(7)); None: nobody is there."""
    watchdog_s: float | None = None
    """It wants to hear that all is well at least so often."""
    _unreachable: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "ServiceManager":
        """The one that the environment names.  What is not understood there is logged and left alone."""
        address = environment.get("NOTIFY_SOCKET")
        if not address:
            return cls()
        if address[0] not in "/@" or len(address) < 2:
            _log.warning("the service manager is not told anything", notify_socket=address)
            return cls()
        period, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
        if pid is not None and pid != str(os.getpid()):  # it was meant for our parent
            period = ""
        known = period.isascii() and period.isdigit() and int(period) > 0
        return cls(address, int(period) / 1e6 if known else None)

    async def ready(self) -> None:
        """The daemon serves."""
        await self._tell("READY=1")

    async def status(self, text: str) -> None:
        """How it is, in one line for people."""
        line = " ".join(text.split())[:STATUS_CHARACTERS_MAX]
        await self._tell(f"STATUS={line}")

    async def stopping(self) -> None:
        """It has begun to stop."""
        await self._tell("STOPPING=1")

    async def keep_status(self, status: Callable[[], str]) -> None:
        """Tell how it is whenever that has changed, until cancelled."""
        told = None
        while self.address is not None:
            text = status()
            if text != told:
                await self.status(text)
                told = text
            await trio.sleep(LOOK_S)

    async def keep_watchdog(self, answers: Callable[[], Awaitable[bool]]) -> None:
        """Tell twice in its period that all is well, as long as `answers` says so, until cancelled.

        That this task runs says that the event loop does.  `answers` may take as long as it likes: nothing is
        told meanwhile.
        """
        if self.address is None or self.watchdog_s is None:
            return
        while True:
            next_at = trio.current_time() + self.watchdog_s / 2
            if await answers():
                await self._tell("WATCHDOG=1")
            await trio.sleep_until(next_at)

    async def _tell(self, line: str) -> None:
        if self.address is None:
            return
        name = self.address
        where = f"\0{name[1:]}" if name[0] == "@" else name
        # Each time anew: a manager that was replaced listens at the same place.
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            try:
                await sending.sendto(line.encode(), where)
            except OSError as error:
                if not self._unreachable:  # once: it would be said for ever
                    reason = error.strerror or str(error)
                    _log.warning("the service manager is not there", notify_socket=name, reason=reason)
                self._unreachable = True
