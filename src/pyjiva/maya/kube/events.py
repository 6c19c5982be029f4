"""Events of Kubernetes (`core/v1`): what `kubectl describe` shows below an object.  Pure.

What happens to one object for one reason, with one message, is one Event that is counted.  Memory of which
there are is bounded; what was forgotten begins a new one.  Names and fields are client-go's
(`tools/record`).  Not done: its limit on how many one object may have.
"""

from collections import OrderedDict
from typing import Final

import attrs

from pyjiva.maya.kube.cluster import Object
from pyjiva.maya.kube.resource import EVENTS

__all__ = ["MESSAGE_BYTES_MAX", "EventSeries", "NewEvent", "SameEvent", "cut_message"]

MESSAGE_BYTES_MAX: Final = 1024  # the API takes no longer ones
REMEMBERED_MAX: Final = 1024
_NAME_MAX: Final = 253
_CLUSTER_NAMESPACE: Final = "default"  # where events of things without a namespace stand

_Series = tuple[str, str, str, str, str, str, str]


@attrs.frozen
class NewEvent:
    """Create it."""

    value: Object


@attrs.frozen
class SameEvent:
    """Merge the change into it; if it is not there any more, create `value`."""

    namespace: str
    name: str
    change: Object
    value: Object


@attrs.define
class _Remembered:
    value: Object
    count: int = 1


@attrs.define(eq=False)
class EventSeries:
    """Which Events there are of one reporter."""

    component: str
    instance: str = ""
    """Which of several processes."""
    remembered_max: int = REMEMBERED_MAX
    _series: OrderedDict[_Series, _Remembered] = attrs.field(factory=OrderedDict, init=False)
    _last_ns: int = attrs.field(default=0, init=False)

    def record(
        self, value: Object, *, type_: str, reason: str, message: str, now: str, now_ns: int
    ) -> NewEvent | SameEvent:
        """What is to be written.  `now`: the time of day as metav1.Time; `now_ns`: since 1970."""
        message = cut_message(message)
        metadata = value["metadata"]
        where = (metadata.get("namespace", ""), metadata["name"])
        series = (value["kind"], *where, metadata.get("uid", ""), type_, reason, message)
        # Two within one tick of the clock have different names nevertheless.
        self._last_ns = max(now_ns, self._last_ns + 1)
        fresh = self._event(value, type_, reason, message, now)
        remembered = self._series.get(series)
        if remembered is None:
            self._series[series] = _Remembered(fresh)
            if len(self._series) > self.remembered_max:
                self._series.popitem(last=False)
            return NewEvent(fresh)
        self._series.move_to_end(series)
        remembered.count += 1
        change = {"count": remembered.count, "lastTimestamp": now}
        first = remembered.value["firstTimestamp"]
        again = {**fresh, "count": remembered.count, "firstTimestamp": first}
        of = remembered.value["metadata"]
        remembered.value = {**again, "metadata": of}
        return SameEvent(of["namespace"], of["name"], change, remembered.value)

    def forget(self, value: Object) -> None:
        """It could not be written: the next of its kind begins anew."""
        name = value["metadata"]["name"]
        for series, remembered in list(self._series.items()):
            if remembered.value["metadata"]["name"] == name:
                del self._series[series]

    def _event(self, value: Object, type_: str, reason: str, message: str, now: str) -> Object:
        metadata = value["metadata"]
        suffix = f".{self._last_ns:x}"
        about = {
            key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata
        }
        about |= {"apiVersion": value["apiVersion"], "kind": value["kind"]}
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": metadata["name"][: _NAME_MAX - len(suffix)] + suffix,
                "namespace": metadata.get("namespace") or _CLUSTER_NAMESPACE,
            },
            "involvedObject": about,
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": self.component, **({"host": self.instance} if self.instance else {})},
            "reportingComponent": self.component,
            "reportingInstance": self.instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def cut_message(message: str) -> str:
    """At most MESSAGE_BYTES_MAX as UTF-8, with a sign that something is missing."""
    if len(message.encode()) <= MESSAGE_BYTES_MAX:
        return message
    sign = "…"
    room = MESSAGE_BYTES_MAX - len(sign.encode())
    return message.encode()[:room].decode(errors="ignore") + sign
