"""Frames between controller and replica: a header of 64 bytes, then the payload.  Pure.

Layout (little-endian; `HEADER` below is the one place that knows it):

    offset size field
         0    4 magic "PJVR"
         4    1 version of the frame format: 1
         5    1 type (`FrameType`); an answer has the high bit (0x80) set
         6    2 code: `Flag` bits in a request, `Status` in an answer
         8    8 request id: chosen by the controller, repeated in the answer
        16    8 epoch in which the controller acts (0 before a promise)
        24    8 offset in the volume, bytes
        32    8 length of the range, bytes; in an answer that is squeezed, that of the whole
        40    8 stable: every write with an id up to this one is on all in-sync replicas (`replica.unstable`);
                in PAST_… frames the number of a snapshot
        48    8 xxh3-64 of the payload (of the empty string when there is none)
        56    4 length of the payload, bytes
        60    4 CRC-32 of the 60 bytes before it

The header has a checksum of its own because a flipped bit in an offset would put good data in a wrong
place.  Jiva's frames (`rpc/wire.go`) have neither checksum nor volume identity; the identity here is proved
once, by the hello (`message`), and the epoch in every frame is the fence.
"""

import enum
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import xxhash

from pyjiva.compiled import native
from pyjiva.errors import RemoteProtocolError, StorageFailure
from pyjiva.transport import ReceiveBuffer
from pyjiva.units import KIB, MIB

__all__ = [
    "ANSWER",
    "CONTROL_PAYLOAD_BYTES_MAX",
    "EPOCH_MAX",
    "FAILURE_OF_STATUS",
    "HEADER_BYTES",
    "PAYLOAD_BYTES_MAX",
    "STATUS_OF_FAILURE",
    "Flag",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "Status",
    "encode_header",
]

MAGIC: Final = b"PJVR"
FRAME_VERSION: Final = 1
_START: Final = MAGIC + bytes([FRAME_VERSION])
HEADER: Final = struct.Struct("<5sBHQQQQQQI")  # from _START on, without the checksum
_ARRIVED: Final = struct.Struct(HEADER.format.replace("5s", "5x") + "4x")  # without _START and the checksum
_CHECKSUM: Final = struct.Struct("<I")
_CHECKED_BYTES: Final = HEADER.size
HEADER_BYTES: Final = HEADER.size + _CHECKSUM.size
PAYLOAD_BYTES_MAX: Final = 32 * MIB  # above every SCSI transfer length that we announce (VPD B0h)
CONTROL_PAYLOAD_BYTES_MAX: Final = 64 * KIB  # all that a stranger may make us buffer
ANSWER: Final = 0x80
EPOCH_MAX: Final = 2**63 - 1  # a peer that claims more is not believed: the next one must fit the header
_crc32: Final = zlib.crc32
_hash: Final = xxhash.xxh3_64_intdigest
_EMPTY_XXH3: Final = _hash(b"")
#: Type, code, request id, epoch, offset, length, stable, digest and length of the payload.
_Fields = tuple[int, int, int, int, int, int, int, int, int]


class FrameType(enum.IntEnum):
    """What a frame asks for."""

    HELLO = 1
    AUTHENTICATE = 2
    PROMISE = 3
    ACCEPT = 4
    PING = 5
    SHARE = 6
    """There is memory that both can reach: from now on payloads may lie in it (`reference`)."""
    DONE = 7
    """From a replica, unasked: these requests were carried out (`done`)."""
    READ = 16
    WRITE = 17
    UNMAP = 18
    WRITE_ZEROES = 19
    FLUSH = 20
    BLOCK_STATUS = 21
    HASH = 22
    SPOIL = 23
    """No replica has a good copy of these blocks: reads of them fail until they are written."""
    LINEAGE = 24
    """Which snapshots there are (`lineage`), and what they take."""
    PREPARE = 25
    """The lineage is about to change: flush, make ready what a new head needs, and leave the chain alone."""
    CHANGE = 26
    """A change of the lineage."""
    WINDOW = 27
    """Where the controller finds the replica's files, to read them itself (`snapshot.window`)."""
    PAST_READ = 32
    """These look at the volume as it was, or make that good: `stable` is the snapshot's number."""
    PAST_WRITE = 33
    PAST_UNMAP = 34
    PAST_BLOCK_STATUS = 35
    PAST_HASH = 36
    PAST_SPOIL = 37
    PAST_CHANGED = 38
    """Where the volume differs from an older snapshot: `offset_bytes` is that one's number."""


class Flag(enum.IntFlag):
    """Bits of `code` in a request."""

    FORCE_UNIT_ACCESS = 1
    EQUAL = 2
    """ACCEPT: but for writes of this epoch that it has itself, the replica has what the others have."""
    ATOMIC = 4
    """WRITE: a crash leaves all of it or nothing."""
    VERIFY = 8
    """HASH: read from the disk, and answer BAD_CHECKSUM if a block is not what was written."""
    LZ4 = 16
    """WRITE: the payload is squeezed; `length_bytes` is that of the whole.  READ: the answer may be."""
    TOOK_PART = 32
    """ACCEPT: the replica is one that the record means, no blank disk in its place.  EQUAL says so too; but
    this one may need what it missed, and goes on remembering what it has written.
    """
    SHARED = 64
    """WRITE: the payload lies in shared memory.  READ: what is read is to be put there.  What came instead of
    the payload says where (`reference`).
    """
    NO_NEW_HEAD = 128
    """PREPARE: after the change that comes the head is the same one."""


class Status(enum.IntEnum):
    """`code` in an answer."""

    OK = 0
    FENCED = 1
    """A higher epoch was promised, or this connection was replaced: the asker must not go on."""
    FORBIDDEN = 2
    """The key was not proved, or the frame is not allowed yet."""
    WRONG_VOLUME = 3
    UNSUPPORTED_VERSION = 4
    BAD_REQUEST = 5
    OUT_OF_RANGE = 16
    NO_SPACE = 17
    READ_ERROR = 18
    WRITE_ERROR = 19
    NOT_READY = 20
    NOT_SUPPORTED = 21
    BAD_CHECKSUM = 22


STATUS_OF_FAILURE: Final[dict[StorageFailure, Status]] = {
    StorageFailure.OUT_OF_RANGE: Status.OUT_OF_RANGE,
    StorageFailure.NO_SPACE: Status.NO_SPACE,
    StorageFailure.READ_ERROR: Status.READ_ERROR,
    StorageFailure.WRITE_ERROR: Status.WRITE_ERROR,
    StorageFailure.NOT_READY: Status.NOT_READY,
    StorageFailure.NOT_SUPPORTED: Status.NOT_SUPPORTED,
    StorageFailure.BAD_CHECKSUM: Status.BAD_CHECKSUM,
}
FAILURE_OF_STATUS: Final[dict[int, StorageFailure]] = {v: k for k, v in STATUS_OF_FAILURE.items()}

_KNOWN_TYPES: Final = frozenset(int(t) for t in FrameType) | frozenset(t | ANSWER for t in FrameType)


@attrs.define(eq=False)
class Frame:  # hot: mutable for the cheaper constructor; nobody assigns
    """One frame that has arrived; `payload` stays valid for as long as it is held."""

    type: int
    """A FrameType, with ANSWER set in an answer."""
    code: int
    request_id: int
    epoch: int
    offset_bytes: int
    length_bytes: int
    stable: int
    payload: memoryview
    digest: int = 0
    """Of the payload, with which it was compared; 0 in a frame that did not arrive by itself."""


def encode_header(
    type_: int,
    *,
    code: int = 0,
    request_id: int = 0,
    epoch: int = 0,
    offset_bytes: int = 0,
    length_bytes: int = 0,
    stable: int = 0,
    payload: Sequence[bytes | bytearray | memoryview] = (),
) -> bytes:  # hot
    """The header of a frame whose payload is `payload`, which is to be sent right after it."""
    if not payload:
        digest, size = _EMPTY_XXH3, 0
    elif len(payload) == 1:
        digest, size = _hash(payload[0]), len(payload[0])
    else:
        hasher, size = xxhash.xxh3_64(), 0
        for buffer in payload:
            hasher.update(buffer)
            size += len(buffer)
        digest = hasher.intdigest()
    assert size <= PAYLOAD_BYTES_MAX
    return _header_of(type_, code, request_id, epoch, offset_bytes, length_bytes, stable, digest, size)


def _header_in_python(
    type_: int,
    code: int,
    request_id: int,
    epoch: int,
    offset_bytes: int,
    length_bytes: int,
    stable: int,
    digest: int,
    size: int,
) -> bytes:
    head = HEADER.pack(
        _START, type_, code, request_id, epoch, offset_bytes, length_bytes, stable, digest, size
    )
    return head + _CHECKSUM.pack(_crc32(head))


def _fields_in_python(head: bytes) -> _Fields | None:
    """What `_header_in_python` was given; None: it made no such header."""
    if head[:5] != _START or _CHECKSUM.unpack_from(head, _CHECKED_BYTES)[0] != _crc32(head[:_CHECKED_BYTES]):
        return None
    fields: _Fields = _ARRIVED.unpack(head)
    return fields


_header_of: Final[Callable[[int, int, int, int, int, int, int, int, int], bytes]] = (
    native("frame_header") or _header_in_python
)
_fields_of: Final[Callable[[bytes], _Fields | None]] = native("frame_fields") or _fields_in_python


@attrs.define(eq=False)
class FrameDecoder:  # hot
    """Takes frames off a ReceiveBuffer."""

    buffer: ReceiveBuffer
    payload_bytes_max: int = CONTROL_PAYLOAD_BYTES_MAX
    """Raised to PAYLOAD_BYTES_MAX once the peer has proved the key."""
    wanted_bytes: int = HEADER_BYTES
    """How many bytes the buffer must hold before `next_frame` can answer again."""

    def next_frame(self) -> Frame | None:
        """The next whole frame; None while bytes are missing.

        Raises RemoteProtocolError: the bytes are no frame, or a checksum is wrong.  The connection is lost
        then.
        """
        head = self.buffer.copy_of(HEADER_BYTES)
        if head is None:
            self.wanted_bytes = HEADER_BYTES
            return None
        fields = _fields_of(head)
        if fields is None:
            raise _not_a_frame(head)
        type_, code, request_id, epoch, offset, length, stable, digest, size = fields
        if type_ not in _KNOWN_TYPES:
            raise RemoteProtocolError(f"unknown frame type {type_}")
        if size > self.payload_bytes_max:
            raise RemoteProtocolError(
                f"payload of {size} bytes: at most {self.payload_bytes_max} allowed now"
            )
        if len(self.buffer) < HEADER_BYTES + size:
            self.wanted_bytes = HEADER_BYTES + size
            return None
        self.buffer.skip(HEADER_BYTES)
        if size:
            payload = self.buffer.take(size)
            if _hash(payload) != digest:
                raise RemoteProtocolError(f"payload of frame {request_id} has a wrong checksum")
        else:
            payload = _NO_PAYLOAD
            if digest != _EMPTY_XXH3:
                raise RemoteProtocolError(f"payload of frame {request_id} has a wrong checksum")
        return Frame(type_, code, request_id, epoch, offset, length, stable, payload, digest)


def _not_a_frame(head: bytes) -> RemoteProtocolError:
    if not head.startswith(MAGIC):
        return RemoteProtocolError(f"not a pyjiva replication frame: starts with {head[: len(MAGIC)]!r}")
    if head[len(MAGIC)] != FRAME_VERSION:
        return RemoteProtocolError(f"frame version {head[len(MAGIC)]}: this side speaks {FRAME_VERSION}")
    return RemoteProtocolError("frame header has a wrong checksum")


_NO_PAYLOAD: Final = memoryview(b"")
