"""Doing something while this process leads, and stopping when it does not any more."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import Final, assert_never

import attrs
import structlog
import trio

from pyjiva.errors import PyjivaError
from pyjiva.maya.kube.cluster import AlreadyExists, Cluster, Conflict, KubeError, NotFound
from pyjiva.maya.kube.lease import (
    Due,
    Effect,
    Election,
    Event,
    Failed,
    Lead,
    LeaseSettings,
    Lose,
    Read,
    Refused,
    Role,
    Seen,
    Stopped,
    Wait,
    Write,
    Written,
)
from pyjiva.maya.kube.resource import LEASES

__all__ = ["LeaseLostError", "run_elected"]

RELEASE_S: Final = 5.0  # for giving the lease back; else others wait for its end

_log = structlog.get_logger(__name__)


class LeaseLostError(PyjivaError):
    """This process does not lead any more: end it, and let it be started anew."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def run_elected(
    cluster: Cluster,
    namespace: str,
    name: str,
    identity: str,
    main: Callable[[], Awaitable[None]],
    *,
    settings: LeaseSettings | None = None,
    now: Callable[[], datetime] = _utc_now,
    random: Random | None = None,
) -> None:
    """Wait until we hold the Lease, then run `main` as long as we do; give it back when `main` has ended.

    `identity`: this process's alone, also among those that were before it (the pod's name and something
    random).  `main` is cancelled when the lease is lost, and has then to end within `duration_s -
    renew_deadline_s`.

    Raises LeaseLostError: it was lost; whatever `main` raises.
    """
    election = Election(namespace, name, identity, settings or LeaseSettings())
    contender = _Contender(cluster, election, now, random or Random())
    await contender.run(main)


@attrs.define(eq=False)
class _Contender:
    """Carries out what an Election decides."""

    cluster: Cluster
    election: Election
    now: Callable[[], datetime]
    random: Random
    leading: trio.Event = attrs.field(factory=trio.Event, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Around `main`; its deadline is until when we lead."""
    _lost: str = attrs.field(default="", init=False)

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Contend, lead, give back."""
        _log.info("waiting for the lease", **self._facts())
        outcome: list[BaseException] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._contend)
                await self.leading.wait()
                _log.info("leading", **self._facts())
                with self._scope:
                    try:
                        await main()
                    except Exception as error:  # noqa: BLE001  # goes on below, out of the nursery's group
                        outcome.append(error)
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(RELEASE_S, shield=True):
                await self._release()
        if outcome:
            raise outcome[0]
        if self._scope.cancelled_caught:
            reason = self._lost or f"the lease {self._facts()['lease']} could not be renewed in time"
            raise LeaseLostError(f"{reason}: this process stops leading")

    async def _contend(self) -> None:
        event: Event = Due(self._micro_time())
        while self.election.role is not Role.OVER:
            effects = self.election.apply(event)
            for effect in effects:
                event = await self._carry_out(effect) or event

    async def _carry_out(self, effect: Effect) -> Event | None:
        match effect:
            case Read():
                return await self._read()
            case Write():
                return await self._write(effect)
            case Wait(seconds):
                await trio.sleep(seconds)
                return Due(self._micro_time())
            case Lead(until_s):
                self._scope.deadline = until_s
                self.leading.set()
            case Lose(reason):
                self._lost = reason
                self._scope.cancel()
            case _:
                assert_never(effect)
        return None

    async def _read(self) -> Event:
        try:
            lease = await self.cluster.get(LEASES, self.election.namespace, self.election.name)
        except KubeError as error:
            return self._failed(error)
        return Seen(trio.current_time(), self._micro_time(), lease, self.random.random())

    async def _write(self, effect: Write) -> Event:
        sent_at_s = trio.current_time()
        verb = self.cluster.create if effect.create else self.cluster.update
        try:
            lease = await verb(LEASES, effect.lease)
        except (AlreadyExists, Conflict, NotFound):
            return Refused(trio.current_time(), self.random.random())
        except KubeError as error:
            return self._failed(error)
        return Written(sent_at_s, trio.current_time(), lease)

    def _failed(self, error: KubeError) -> Failed:
        _log.warning("the lease cannot be read or written", **self._facts(), reason=str(error))
        return Failed(trio.current_time(), self.random.random())

    async def _release(self) -> None:
        for effect in self.election.apply(Stopped(self._micro_time())):
            assert isinstance(effect, Write)
            event = await self._write(effect)
            if isinstance(event, Written):
                _log.info("gave the lease back", **self._facts())

    def _facts(self) -> dict[str, str]:
        election = self.election
        return {"lease": f"{election.namespace}/{election.name}", "identity": election.identity}

    def _micro_time(self) -> str:
        return self.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
