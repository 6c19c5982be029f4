"""Telling what happens to an object where its owner looks: as Events."""

from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import structlog
import trio

from pyjiva.maya.kube.cluster import AlreadyExists, Cluster, KubeError, NotFound, Object
from pyjiva.maya.kube.events import EventSeries, NewEvent
from pyjiva.maya.kube.resource import EVENTS

__all__ = ["Recorder"]

_log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@attrs.define(eq=False)
class Recorder:
    """Writes Events for one part of Maya."""

    cluster: Cluster
    component: str
    """Who says it, such as `pyjiva-maya-provisioner`."""
    instance: str = ""
    """Which of its processes: the pod's name."""
    now: Callable[[], datetime] = _utc_now
    _series: EventSeries = attrs.field(init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self._series = EventSeries(self.component, self.instance)

    async def event(self, value: Object, type_: str, reason: str, message: str) -> None:
        """Say of `value` (with kind and apiVersion) that `message`; `reason` is one CamelCase word for
        programs.

        What cannot be written is logged: nothing that has to be done waits for an Event.
        """
        moment = self.now()
        async with self._turn:
            made = self._series.record(
                value,
                type_=type_,
                reason=reason,
                message=message,
                now=moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                now_ns=round(moment.timestamp() * 1_000_000_000),
            )
            try:
                if isinstance(made, NewEvent):
                    await self._create(made.value)
                    return
                try:
                    await self.cluster.merge(EVENTS, made.namespace, made.name, made.change)
                except NotFound:  # the server keeps them for an hour
                    await self._create(made.value)
            except KubeError as error:
                self._series.forget(made.value)
                of = value["metadata"]
                where = f"{of.get('namespace', '')}/{of['name']}".lstrip("/")
                facts = {"kind": value["kind"], "object": where, "event": f"{reason}: {message}"}
                _log.warning("an event could not be written", about=facts, error=str(error))

    async def _create(self, value: Object) -> None:
        try:
            await self.cluster.create(EVENTS, value)
        except AlreadyExists:
            _log.debug("an event is there already", name=value["metadata"]["name"])
