"""What replicas do for a traced request, each as a span of its own: network and disk together.  Pure.

The frames are watched where they leave and where their answers come in; which request of a host a frame is
for, the data path knows.  Wrapped are the links of a controller that traces, and of no other.
"""

from collections.abc import Callable

import attrs

from pyjiva.block import Sampler
from pyjiva.controller.data_path import Link
from pyjiva.replication import Frame, FrameType, RequestFrame, Status, decode_done

__all__ = ["TracedLinks"]


@attrs.define(eq=False)
class TracedLinks:
    """Of one volume."""

    sampler: Sampler
    request_of: Callable[[int], object]
    """What was asked for under this request id; None: nothing that hosts or operators wait for."""

    def link(self, member: int, link: Link) -> Link:
        """`link`, watched."""
        return _TracedLink(self, member, link)

    def sent(self, member: int, frame: RequestFrame) -> None:
        """A frame goes to `member`."""
        id_ = frame.request_id
        step = self.sampler.step_of(self.request_of(id_))
        if step is not None:
            step.goes_on()
            operation = FrameType(frame.type).name.lower()
            step.begin_part((member, id_), f"replica {member}", replica=member, operation=operation)

    def answered(self, member: int, frame: Frame) -> None:
        """`member` answers; to be told before the data path is.  Raises RemoteProtocolError."""
        if frame.type == FrameType.DONE:
            for request_id in decode_done(frame.payload):
                self._ended(member, request_id, "")
        else:
            why = "" if frame.code == Status.OK else f"it answered {_status_name(frame.code)}"
            self._ended(member, frame.request_id, why)

    def _ended(self, member: int, request_id: int, why: str) -> None:
        found = self.sampler.parts.get((member, request_id))
        if found is not None:
            found[0].end_part((member, request_id), why)

    def lost(self, member: int, reason: str) -> None:
        """No answer of `member` can come any more."""
        for key, (step, _) in list(self.sampler.parts.items()):
            if isinstance(key, tuple) and key[0] == member:
                step.end_part(key, f"lost: {reason}")


@attrs.frozen(eq=False)
class _TracedLink:
    links: TracedLinks
    member: int
    link: Link

    def send(self, frame: RequestFrame) -> None:
        """See Link."""
        if self.links.sampler.requests:
            self.links.sent(self.member, frame)
        self.link.send(frame)


def _status_name(code: int) -> str:
    try:
        return Status(code).name
    except ValueError:
        return f"status {code}"
