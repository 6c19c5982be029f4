"""Pretended members for tests of the data path: links that record frames, and bytes that frames change."""

from collections.abc import Sequence
from typing import Any

from pyjiva.block import Request
from pyjiva.controller.data_path import DataPath
from pyjiva.extent import Extent
from pyjiva.lineage import Change
from pyjiva.replication import (
    ANSWER,
    PAYLOAD_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameType,
    RequestFrame,
    Status,
    encode_extents,
)
from pyjiva.transport import ReceiveBuffer

SIZE_BYTES = 1 << 20


class FakeMember:
    """One replica: frames that it got and has not answered (`inbox`), and its bytes."""

    def __init__(self, id_: int, size_bytes: int = SIZE_BYTES) -> None:
        self.id = id_
        self.bit = 1 << (id_ - 1)
        self.content = bytearray(size_bytes)
        self.inbox: list[Frame] = []
        self.frames: list[Frame] = []
        """All that it ever got on this connection."""
        self._decoder = FrameDecoder(ReceiveBuffer(), PAYLOAD_BYTES_MAX)

    def send(self, frame: RequestFrame) -> None:
        self._decoder.buffer.receive_data(b"".join(frame.buffers()))
        while (arrived := self._decoder.next_frame()) is not None:
            self.inbox.append(arrived)
            self.frames.append(arrived)

    def forget(self) -> None:
        """The connection is gone, and what came on it and was not looked at."""
        self.inbox, self.frames = [], []

    def carry_out(self, frame: Frame) -> Frame:
        """Do what `frame` asks for; returns the answer."""
        start, end = frame.offset_bytes, frame.offset_bytes + frame.length_bytes
        payload = b""
        match FrameType(frame.type):
            case FrameType.READ:
                payload = bytes(self.content[start:end])
            case FrameType.WRITE:
                self.content[start:end] = frame.payload
            case FrameType.UNMAP | FrameType.WRITE_ZEROES:
                self.content[start:end] = bytes(frame.length_bytes)
            case FrameType.BLOCK_STATUS:
                payload = encode_extents([Extent(start, frame.length_bytes)])
        return answer(frame, payload=payload)


def answer(frame: Frame, status: int = Status.OK, *, payload: bytes = b"", epoch: int = 1) -> Frame:
    """What a replica says to `frame`."""
    return Frame(frame.type | ANSWER, status, frame.request_id, epoch, 0, 0, 0, memoryview(payload))


class Bench:
    """A data path over fake members; what it calls back is written down."""

    def __init__(self, members: int = 3, *, min_copies: int = 1) -> None:
        self.members = {i: FakeMember(i) for i in range(1, members + 1)}
        self.lost: list[int] = []
        self.diverged: list[int] = []
        self.fenced: list[tuple[int, int]] = []
        self.bad: list[tuple[int, Extent]] = []
        self.answered: list[Any] = []
        self.changes: list[tuple[Change, bool | None]] = []
        self.min_copies = min_copies
        self.data = DataPath(
            tuple(self.members),
            SIZE_BYTES,
            on_failed=lambda id_, _: self.lost.append(id_),
            on_diverged=lambda id_, _: self.diverged.append(id_),
            on_fenced=lambda id_, epoch: self.fenced.append((id_, epoch)),
            on_bad_block=lambda id_, extent: self.bad.append((id_, extent)),
            takes_fills=lambda _: True,
            on_changing=lambda: None,
            on_changed=lambda change, done: self.changes.append((change, done)),
            park_limit_s=120.0,
        )
        self.data.epoch = 1
        for id_, member in self.members.items():
            self.data.member_up(id_, member)
        self.now(*self.members)

    def now(
        self,
        *in_sync: int,
        required: Sequence[int] | None = None,
        joining: Sequence[int] = (),
        rebuilding: Sequence[int] = (),
        serving: bool = True,
    ) -> None:
        """Let `in_sync` be the connected members in sync, and `required` all that must acknowledge."""
        mask = self.data.mask
        self.data.set_members(
            must_ack=mask(set(in_sync if required is None else required) | set(joining)),
            writable=mask({*in_sync, *joining}),
            readable=mask(set(in_sync)),
            rebuilding=mask(set(rebuilding)),
            min_copies=self.min_copies,
            serving=serving,
        )

    def done(self, request: Any) -> None:
        assert request not in self.answered, "answered twice"
        self.answered.append(request)

    def submit(self, request: Request) -> Any:
        self.data.submit(request)
        return request

    def frame(self, id_: int, type_: FrameType | None = None) -> Frame:
        """The oldest unanswered frame of `id_` (of a type)."""
        return next(f for f in self.members[id_].inbox if type_ is None or f.type == type_)

    def reply(self, *ids: int, status: int = Status.OK, type_: FrameType | None = None) -> None:
        """Let each of `ids` answer its oldest frame (of a type): carried out, or by `status`."""
        for id_ in ids:
            member = self.members[id_]
            frame = self.frame(id_, type_)
            member.inbox.remove(frame)
            said = answer(frame, status) if status else member.carry_out(frame)
            self.data.answered(id_, said)

    def down(self, id_: int) -> None:
        self.members[id_].forget()
        self.data.member_down(id_)

    def up(self, id_: int) -> None:
        self.data.member_up(id_, self.members[id_])

    def asked(self, *types: FrameType) -> dict[int, int]:
        """How many frames of `types` each member has got on its present connection."""
        return {i: sum(f.type in types for f in m.frames) for i, m in self.members.items()}
