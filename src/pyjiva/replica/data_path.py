"""Data frames become requests to the replica's device, and their results become answers.  Pure.

Order: the controller never has two overlapping requests of which one writes in flight
(`block.IntervalLocks`), so requests may be done and answered in any order.  What was carried out and has
nothing to show for it is said at the end of the batch, by one frame for all (`replication.done`); data and
refusals are said at once, and may overtake it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from pyjiva.block import BlockDevice, BlockStatus, Buffer, Flush, Read, Unmap, Write, WriteZeroes
from pyjiva.block_sums import sum_of_hash
from pyjiva.errors import RemoteProtocolError, StorageError
from pyjiva.replica.session import Peer, Phase, Session, refuse
from pyjiva.replica.unstable import UnstableWrites
from pyjiva.replication import (
    ANSWER,
    DONE_IDS_MAX,
    PAYLOAD_BYTES_MAX,
    STATUS_OF_FAILURE,
    Frame,
    FrameType,
    Status,
    decode_reference,
    digest_of,
    encode_done,
    encode_extents,
    encode_header,
    unsqueeze,
)
from pyjiva.transport import EndOfBatch
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["DataPath", "SqueezeSoon", "answer_read"]

_FORCE_UNIT_ACCESS: Final = 1  # Flag.FORCE_UNIT_ACCESS as a plain integer
_ATOMIC: Final = 4  # Flag.ATOMIC
_LZ4: Final = 16  # Flag.LZ4
_SHARED: Final = 64  # Flag.SHARED
_DONE: Final = 7  # FrameType.DONE
_WRITE: Final = int(FrameType.WRITE)
_READ: Final = int(FrameType.READ)
_IN_BLOCK_MASK: Final = STORED_BLOCK_BYTES - 1
_ATTACHED: Final = Phase.ATTACHED

SqueezeSoon = Callable[[Peer, Frame, Sequence[Buffer]], None]
"""Squeeze what a READ gave, which takes long, then call `answer_read`."""


@attrs.define(eq=False)
class DataPath:  # hot
    """READ, WRITE, UNMAP, WRITE_ZEROES, FLUSH and BLOCK_STATUS of the attached connection."""

    device: BlockDevice
    unstable: UnstableWrites
    promised_epoch: int
    squeeze_soon: SqueezeSoon
    batch: EndOfBatch
    shared_bytes: int = attrs.field(default=0, init=False)
    """Written out of a memory that a controller shares."""
    _done_ids: list[int] = attrs.field(factory=list, init=False)
    """Carried out in this batch, for `_done_peer`, which has not been told; oldest first."""
    _done_peer: Peer | None = attrs.field(default=None, init=False)
    _done_type: int = attrs.field(default=0, init=False)
    """Of the first of them."""
    _done_epoch: int = attrs.field(default=0, init=False)
    _verbs: dict[int, Callable[[Peer, Frame], None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._verbs = {
            FrameType.READ: self._read,
            FrameType.WRITE: self._write,
            FrameType.UNMAP: self._unmap,
            FrameType.WRITE_ZEROES: self._write_zeroes,
            FrameType.FLUSH: self._flush,
            FrameType.BLOCK_STATUS: self._block_status,
        }

    def handles(self, frame: Frame) -> bool:
        """Whether `frame` is one of this class's."""
        return frame.type in self._verbs

    def frame_received(self, session: Session, frame: Frame) -> None:
        """Start what a data frame asks for."""
        if session.phase is not _ATTACHED:
            session.check_allowed(frame)
        if frame.epoch != self.promised_epoch:
            reason = f"epoch {frame.epoch}: epoch {self.promised_epoch} is promised"
            refuse(session.peer, frame, Status.FENCED, reason, epoch=self.promised_epoch)
            return
        self.unstable.settle(frame.epoch, frame.stable)
        if frame.code & _SHARED:
            self._shared(session, frame)
        else:
            self._verbs[frame.type](session.peer, frame)

    def _shared(self, session: Session, frame: Frame) -> None:
        """A frame whose payload lies in the memory that the controller shares."""
        if session.memory is None:
            raise RemoteProtocolError("refers to a memory that is not shared")
        reference = decode_reference(frame.payload, frame.offset_bytes, frame.length_bytes)
        parts = [session.memory.view(offset, length) for offset, length in reference.parts]
        if frame.code & _LZ4 or frame.type not in (_WRITE, _READ):
            refuse(session.peer, frame, Status.BAD_REQUEST, "its payload cannot lie in the shared memory")
        elif frame.type == _WRITE:
            if not reference.sums and digest_of(parts) != reference.digest:
                raise RemoteProtocolError(f"payload of frame {frame.request_id} has a wrong checksum")
            self.shared_bytes += frame.length_bytes
            self._submit_write(session.peer, frame, parts, reference.sums or None)
        elif len(parts) == 1:
            done = partial(_put_read, session.peer, frame, parts[0])
            self.device.submit(Read(frame.offset_bytes, frame.length_bytes, done))
        else:
            refuse(session.peer, frame, Status.BAD_REQUEST, f"{len(parts)} places for what is read")

    def _read(self, peer: Peer, frame: Frame) -> None:
        if frame.length_bytes > PAYLOAD_BYTES_MAX:
            refuse(
                peer,
                frame,
                Status.BAD_REQUEST,
                f"READ of {frame.length_bytes} bytes: at most {PAYLOAD_BYTES_MAX}",
            )
            return
        done = self._squeeze_read if frame.code & _LZ4 else _answer_read
        self.device.submit(Read(frame.offset_bytes, frame.length_bytes, partial(done, peer, frame)))

    def _squeeze_read(self, peer: Peer, frame: Frame, request: Read) -> None:
        if request.error is not None:
            refuse_storage(peer, frame, request.error)
        else:
            self.squeeze_soon(peer, frame, request.data)

    def _write(self, peer: Peer, frame: Frame) -> None:
        payload: Buffer = frame.payload
        if frame.code & _LZ4:
            try:
                # Here and now: after a promise nothing of an older connection may land.
                payload = unsqueeze(frame.payload, min(frame.length_bytes, PAYLOAD_BYTES_MAX))
            except RemoteProtocolError as error:
                refuse(peer, frame, Status.BAD_REQUEST, str(error))
                return
        if len(payload) != frame.length_bytes:
            reason = f"WRITE of {frame.length_bytes} bytes came with {len(payload)}"
            refuse(peer, frame, Status.BAD_REQUEST, reason)
            return
        sums = None
        if (
            frame.length_bytes == STORED_BLOCK_BYTES
            and not frame.offset_bytes & _IN_BLOCK_MASK
            and not frame.code & _LZ4
        ):  # one block, as in most small writes: its hash is that of the payload, which is known
            sums = sum_of_hash(frame.digest)
        self._submit_write(peer, frame, (payload,), sums)

    def _submit_write(
        self, peer: Peer, frame: Frame, data: Sequence[Buffer], sums: bytes | None = None
    ) -> None:
        self.unstable.add(frame.epoch, frame.request_id, frame.offset_bytes, frame.length_bytes)
        self.device.submit(
            Write(
                frame.offset_bytes,
                frame.length_bytes,
                data,
                partial(self._carried_out, peer, frame),
                bool(frame.code & _FORCE_UNIT_ACCESS),
                atomic=bool(frame.code & _ATOMIC),
                sums=sums,
            )
        )

    def _unmap(self, peer: Peer, frame: Frame) -> None:
        self.unstable.add(frame.epoch, frame.request_id, frame.offset_bytes, frame.length_bytes)
        self.device.submit(
            Unmap(frame.offset_bytes, frame.length_bytes, partial(self._carried_out, peer, frame))
        )

    def _write_zeroes(self, peer: Peer, frame: Frame) -> None:
        self.unstable.add(frame.epoch, frame.request_id, frame.offset_bytes, frame.length_bytes)
        self.device.submit(
            WriteZeroes(
                frame.offset_bytes,
                frame.length_bytes,
                partial(self._carried_out, peer, frame),
                bool(frame.code & _FORCE_UNIT_ACCESS),
            )
        )

    def _flush(self, peer: Peer, frame: Frame) -> None:
        self.device.submit(Flush(partial(self._carried_out, peer, frame)))

    def _block_status(self, peer: Peer, frame: Frame) -> None:
        self.device.submit(
            BlockStatus(frame.offset_bytes, frame.length_bytes, partial(_answer_block_status, peer, frame))
        )

    def _carried_out(self, peer: Peer, frame: Frame, request: Write | Unmap | WriteZeroes | Flush) -> None:
        if request.error is not None:
            refuse_storage(peer, frame, request.error)
            return
        if self._done_ids and (peer is not self._done_peer or len(self._done_ids) == DONE_IDS_MAX):
            self._say_done()  # it is full, or for another connection
        if not self._done_ids:
            self._done_peer, self._done_type, self._done_epoch = peer, frame.type, frame.epoch
            self.batch.at_end(self._say_done)
        self._done_ids.append(frame.request_id)

    def _say_done(self) -> None:
        """Tell the peer of all that was carried out; of one request alone as of any other."""
        ids, peer = self._done_ids, self._done_peer
        if not ids:
            return
        assert peer is not None
        self._done_ids, self._done_peer = [], None
        if len(ids) == 1:
            header = encode_header(self._done_type | ANSWER, request_id=ids[0], epoch=self._done_epoch)
            peer.send(header)
        else:
            payload = encode_done(ids)
            peer.send(encode_header(_DONE, epoch=self._done_epoch, payload=(payload,)), payload)


def _answer_read(peer: Peer, frame: Frame, request: Read) -> None:
    if request.error is not None:
        refuse_storage(peer, frame, request.error)
        return
    answer_read(peer, frame, request.data, None)


def _put_read(peer: Peer, frame: Frame, room: memoryview, request: Read) -> None:
    if request.error is not None:
        refuse_storage(peer, frame, request.error)
        return
    start = 0
    for part in request.data:
        room[start : start + len(part)] = part
        start += len(part)
    peer.send(encode_header(frame.type | ANSWER, request_id=frame.request_id, epoch=frame.epoch))


def answer_read(peer: Peer, frame: Frame, data: Sequence[Buffer], squeezed: bytes | None) -> None:
    """Answer a READ by `data`, or by what it was squeezed to."""
    payload = data if squeezed is None else (squeezed,)
    header = encode_header(
        frame.type | ANSWER,
        request_id=frame.request_id,
        epoch=frame.epoch,
        length_bytes=0 if squeezed is None else frame.length_bytes,
        payload=payload,
    )
    peer.send(header, *payload)


def _answer_block_status(peer: Peer, frame: Frame, request: BlockStatus) -> None:
    if request.error is not None:
        refuse_storage(peer, frame, request.error)
        return
    payload = [encode_extents(request.allocated)]
    header = encode_header(
        frame.type | ANSWER, request_id=frame.request_id, epoch=frame.epoch, payload=payload
    )
    peer.send(header, *payload)


def refuse_storage(peer: Peer, frame: Frame, error: StorageError) -> None:
    """Tell the controller that the disk below could not do what `frame` asked."""
    refuse(peer, frame, STATUS_OF_FAILURE[error.failure], error.detail)
