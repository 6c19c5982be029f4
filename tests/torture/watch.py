"""Whether the volume ought to answer now, and whether it does: stalls, states, rebuilds.

It ought to when a controller runs that the client can reach, and it reaches a majority of the voters and
enough replicas that hold everything.  Whoever waits for more than STUCK_S while that is so is stuck.  What a
volume may not do meanwhile (too few copies, a stopped controller) is not counted as stuck, but reported.
Stalls are booked under the fault that was injected last when they ended: all of it, and the part since the
volume ought to answer.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import httpx
import trio

from pyjiva.transport.token_file_sys import read_token
from tests.torture.clients import Client
from tests.torture.machines import API_PORT, Controller, hold_everything
from tests.torture.place import Place

__all__ = ["Stuck", "Watch"]

STUCK_S: Final = 20.0  # 4 s until a silent member is given up, 2 s lease, starts of processes, a busy machine
LOOK_S: Final = 0.2
STATUS_S: Final = 1.0
MAJORITY: Final = 2  # of three voters
QUIET: Final = "no fault"


class Stuck(AssertionError):
    """Nothing stood in the way, and nothing was answered."""


@attrs.define(eq=False)
class Watch:
    """Looks at everything from outside."""

    place: Place
    current: Callable[[], Controller]
    clients: Sequence[Client]
    kind: str = QUIET
    """The fault that was injected last."""
    ought_since: float | None = None
    """Since when the volume ought to answer; None: it need not now."""
    stalls: dict[str, float] = attrs.field(factory=dict)
    """By kind of fault, the longest: whatever it was for."""
    stuck: dict[str, float] = attrs.field(factory=dict)
    """By kind of fault, the longest while the volume ought to have answered."""
    rebuilds: int = 0
    status: dict[str, Any] | None = None
    """What the API said last."""
    _event: tuple[str, int] = ("", 0)

    def stalled(self, began: float, ended: float) -> None:
        """A client waited from `began` to `ended`."""
        self.stalls[self.kind] = max(self.stalls.get(self.kind, 0.0), ended - began)
        if self.ought_since is not None:
            waited = ended - max(began, self.ought_since)
            self.stuck[self.kind] = max(self.stuck.get(self.kind, 0.0), waited)

    def ought_to_answer(self) -> bool:
        """Whether nothing stands in the way of I/O, as far as the machines are concerned."""
        controller = self.current()
        if not controller.daemon.runs or not controller.reachable:
            return False
        voters = [replica for replica in self.place.replicas if replica.works]
        copies = [
            replica
            for replica in hold_everything(self.place.replicas)
            if replica.works and not replica.witness
        ]
        return len(voters) >= MAJORITY and len(copies) >= (1 if self.place.witness else MAJORITY)

    async def look(self) -> None:
        """Look for ever.  Raises Stuck."""
        while True:
            now = time.monotonic()
            if not self.ought_to_answer():
                self.ought_since = None
            elif self.ought_since is None:
                self.ought_since = now
            since = self.ought_since
            for client in self.clients if since is not None else ():
                if client.began_at is not None and since is not None:
                    waited = now - max(client.began_at, since)
                    if waited > STUCK_S:
                        raise Stuck(
                            f"client {client.number} has waited for {waited:.1f} s; status {self.status}"
                        )
            await trio.sleep(LOOK_S)

    def _client(self) -> httpx.AsyncClient:
        headers = read_token(self.current().key_file).headers()
        return httpx.AsyncClient(timeout=2.0, trust_env=False, headers=headers)

    async def ask(self) -> None:
        """Ask the API for ever."""
        async with self._client() as http:
            while True:
                await self.ask_once(http)
                await trio.sleep(STATUS_S)

    async def ask_once(self, http: httpx.AsyncClient) -> None:
        """The state of the volume, and its events since the last time."""
        api = f"http://{self.current().host}:{API_PORT}/v1"
        try:
            volume, happened = await http.get(f"{api}/volume"), await http.get(f"{api}/events")
            volume.raise_for_status()
            status, events = volume.json(), happened.json()
        except (httpx.HTTPError, ValueError):
            self.status = None
            return
        self.status = status
        seen_by, seen = self._event
        run = f"{api} {self.current().daemon.starts}"
        if run != seen_by:
            seen = 0
        new = [event for event in events if event["number"] > seen]
        self.rebuilds += sum(
            event["kind"] == "rebuild" and event["text"].startswith("begun") for event in new
        )
        self._event = run, max((event["number"] for event in events), default=seen)

    async def wait_healthy(self, timeout_s: float) -> bool:
        """Whether the volume says it is healthy within that time."""
        async with self._client() as http:
            with trio.move_on_after(timeout_s):
                while True:
                    await self.ask_once(http)
                    if self.status is not None and self.status["state"] == "healthy":
                        return True
                    await trio.sleep(LOOK_S)
        return False
