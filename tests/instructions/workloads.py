"""Fixed amounts of work for the modules that every command goes through, one thread and no trio loop.

A workload is prepared once; then each call of what `prepare` gave does one round of it, always the same, and
asserts that it came to what it should: an error path would be cheap.  What stands around the product here
(bytes that were made ahead, a device that only answers) costs a few per cent of what is counted.

Left out: sockets, threads and the kernel, which the benches measure.
"""

import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NoReturn, cast

import attrs

from pyjiva.block import BlockDevice, Buffer, Read, Request, Write
from pyjiva.controller.answers import Answers
from pyjiva.controller.data_path import DataPath as ControllerDataPath
from pyjiva.controller.sharing_link import Sharing, StreamLink
from pyjiva.iscsi.connection import Connection
from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.parameters import DATA_SEGMENT_LENGTH_MAX, Parameters
from pyjiva.iscsi.pdu import (
    BHS_BYTES,
    DATA_OUT,
    FINAL,
    READY_TO_TRANSFER,
    SCSI_COMMAND,
    Opcode,
)
from pyjiva.lineage import Change, ChangeKind, Lineage
from pyjiva.replica.arrivals import FRAMES_PER_BATCH, Arrivals
from pyjiva.replica.data_path import DataPath as ReplicaDataPath
from pyjiva.replica.session import Phase, Session
from pyjiva.replica.unstable import UnstableWrites
from pyjiva.replication import (
    ANSWER,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    FrameDecoder,
    FrameType,
    encode_done,
    encode_header,
)
from pyjiva.replication.frame import HEADER
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus, UnitIdentity
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.snapshot.state import REGION_BYTES
from pyjiva.transport import EndOfBatch, ReceiveBuffer, Stream
from pyjiva.units import KIB, MIB
from tests.controller.roster_bench import three

__all__ = ["COUNTED_ROUNDS", "PLANTED", "WARM_ROUNDS", "WORKLOADS", "Round", "UnfitError", "Workload"]

WARM_ROUNDS: Final = 3  # CPython 3.11 and later specialize code as it runs, buffers come to be used again
COUNTED_ROUNDS: Final = 4
COMMANDS: Final = 32  # in a round: what a receive brings at queue depth 32

FIRST_WRITE_ROUNDS_MAX: Final = 16
NEEDLESS_TURNS: Final = 60
_SIZE_BYTES: Final = 16 * MIB
_SMALL_BYTES: Final = 4 * KIB
_LARGE_BYTES: Final = 1 * MIB
_LOGICAL_BLOCK_BYTES: Final = 512
_READ_10: Final = 0x28
_WRITE_10: Final = 0x2A
_READ_FLAG: Final = 0x40
_WRITE_FLAG: Final = 0x20
_CDB_10: Final = struct.Struct(">BBIBHB6x")

Round = Callable[[], None]


def _data(length_bytes: int) -> bytes:
    """The same every time."""
    return Random(length_bytes).randbytes(length_bytes)


class UnfitError(Exception):
    """This machine cannot do the workload; says why."""


@attrs.frozen
class Workload:
    """What is counted."""

    name: str
    commands: int
    """In a round."""
    prepare: Callable[[Path], AbstractContextManager[Round]]
    """Takes an empty directory.  Raises UnfitError."""


# --- iSCSI


@attrs.define(eq=False)
class InstantDevice:
    """Answers at once, reads by always the same bytes: what is above it is all that counts."""

    size_bytes: int = _SIZE_BYTES
    _content: memoryview = attrs.field(factory=lambda: memoryview(_data(_LARGE_BYTES)))

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        if type(request) is Read:
            request.data = (self._content[: request.length_bytes],)
        request.done(request)  # type: ignore[arg-type]  # each class's `done` takes that class


@attrs.define(eq=False)
class Out:
    """Where PDUs or frames go; a Stream, as far as a link looks at it."""

    sent: list[Buffer] = attrs.field(factory=list)
    queued_bytes: int = 0

    def send(self, *buffers: Buffer) -> None:
        """Keep them."""
        self.sent += buffers

    def shut_down(self) -> None:
        """Of a Peer: nothing here breaks the protocol."""
        raise AssertionError("the connection was given up")

    def take(self) -> list[Buffer]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


def _connection(out: Out, **parameters: Any) -> Connection:
    server = DeviceServer({0: LogicalUnit(InstantDevice(), UnitIdentity("id"), _LOGICAL_BLOCK_BYTES)})
    nexus = Nexus("iqn.i,i,0x00")
    server.attach(nexus)
    server.units[0].attentions.clear()
    negotiated = Parameters(
        max_recv_data_segment_length=DATA_SEGMENT_LENGTH_MAX, max_burst_length=_LARGE_BYTES, **parameters
    )
    framing = Framing(ReceiveBuffer(), DATA_SEGMENT_LENGTH_MAX)
    return Connection(out, framing, server, nexus, negotiated, stat_sn=1, exp_cmd_sn=1)


def _with_length(header: bytes, data: bytes) -> bytes:
    return header[:5] + len(data).to_bytes(3, "big") + header[8:] + data


def _command(flags: int, operation: int, cmd_sn: int, transfer_bytes: int, data: bytes = b"") -> bytes:
    """A PDU; the ranges follow each other, and CmdSN is the task tag too."""
    lba = cmd_sn % (_SIZE_BYTES // transfer_bytes) * (transfer_bytes // _LOGICAL_BLOCK_BYTES)
    cdb = _CDB_10.pack(operation, 0, lba, 0, transfer_bytes // _LOGICAL_BLOCK_BYTES, 0)
    header = SCSI_COMMAND.pack(
        Opcode.SCSI_COMMAND, FINAL | flags, bytes(8), cmd_sn, transfer_bytes, cmd_sn, 0, cdb
    )
    return _with_length(header, data)


def _batches(one: Callable[[int], bytes]) -> Iterator[bytes]:
    """What each round receives, made ahead."""
    rounds = WARM_ROUNDS + COUNTED_ROUNDS
    made = [b"".join(map(one, range(1 + n * COMMANDS, 1 + (n + 1) * COMMANDS))) for n in range(rounds)]
    return iter(made)


@contextmanager
def _iscsi_reads(_: Path) -> Iterator[Round]:
    out = Out()
    connection = _connection(out)
    batches = _batches(lambda cmd_sn: _command(_READ_FLAG, _READ_10, cmd_sn, _SMALL_BYTES))

    def play() -> None:
        connection.framing.receive_data(next(batches))
        assert not connection.receive_all()
        assert sum(map(len, out.take())) == COMMANDS * (BHS_BYTES + _SMALL_BYTES)

    yield play


@contextmanager
def _iscsi_writes(_: Path) -> Iterator[Round]:
    out, data = Out(), _data(_SMALL_BYTES)
    connection = _connection(out)
    batches = _batches(lambda cmd_sn: _command(_WRITE_FLAG, _WRITE_10, cmd_sn, _SMALL_BYTES, data))

    def play() -> None:
        connection.framing.receive_data(next(batches))
        assert not connection.receive_all()
        assert sum(map(len, out.take())) == COMMANDS * BHS_BYTES  # responses without sense data

    yield play


@contextmanager
def _iscsi_large_writes(_: Path) -> Iterator[Round]:
    out, segment_bytes = Out(), DATA_SEGMENT_LENGTH_MAX
    connection = _connection(out, immediate_data=False)
    buffer = connection.framing.buffer
    numbers = itertools.count(1)

    def play() -> None:
        number = next(numbers)
        connection.framing.receive_data(_command(_WRITE_FLAG, _WRITE_10, number, _LARGE_BYTES))
        assert not connection.receive_all()
        (asked,) = out.take()
        _, _, _, itt, ttt, _, _, _, _, offset, length = READY_TO_TRANSFER.unpack(asked)
        assert (itt, offset, length) == (number, 0, _LARGE_BYTES)
        for data_sn, start in enumerate(range(0, _LARGE_BYTES, segment_bytes)):
            last = FINAL if start + segment_bytes == _LARGE_BYTES else 0
            header = DATA_OUT.pack(Opcode.DATA_OUT, last, bytes(8), itt, ttt, 0, data_sn, start)
            # As recv_into, but the data, which nobody looks at, is not copied: an instruction a byte.
            buffer.receive_data(header[:5] + segment_bytes.to_bytes(3, "big") + header[8:])
            buffer.tail(len(buffer) + segment_bytes)
            buffer.received(segment_bytes)
            assert not connection.receive_all()
        assert sum(map(len, out.take())) == BHS_BYTES

    yield play


# --- replication


def _never(*_: Any) -> NoReturn:
    """For callbacks about what does not happen here."""
    raise AssertionError("something went wrong")


@contextmanager
def _controller(_: Path) -> Iterator[Round]:
    """Half reads, half writes, over three members."""
    ids = (1, 2, 3)
    path = ControllerDataPath(
        ids,
        _SIZE_BYTES,
        on_failed=_never,
        on_diverged=_never,
        on_fenced=_never,
        on_bad_block=_never,
        takes_fills=_never,
        on_changing=_never,
        on_changed=_never,
        park_limit_s=120.0,
    )
    path.epoch = 1
    outs = {id_: Out() for id_ in ids}
    sharing, batch = Sharing(None, _never), EndOfBatch()
    arrivals = {
        id_: Answers(id_, FrameDecoder(ReceiveBuffer(), PAYLOAD_BYTES_MAX), path, sharing, path.times, batch)
        for id_ in ids
    }
    for id_, out in outs.items():
        path.member_up(id_, StreamLink(cast("Stream", out)))
    every = path.mask(set(ids))
    path.set_members(must_ack=every, writable=every, readable=every, rebuilding=0, min_copies=1, serving=True)
    data = _data(_SMALL_BYTES)
    finished: list[Request] = []

    def play() -> None:
        for place in range(0, COMMANDS * _SMALL_BYTES, 2 * _SMALL_BYTES):
            path.submit(Read(place, _SMALL_BYTES, finished.append))
            path.submit(Write(place + _SMALL_BYTES, _SMALL_BYTES, (data,), finished.append))
        for id_, out in outs.items():
            arrivals[id_].decoder.buffer.receive_data(_answers(out.take(), data))
            arrivals[id_].arrived()
        assert len(finished) == COMMANDS
        assert all(request.error is None for request in finished)
        finished.clear()

    yield play


def _answers(sent: list[Buffer], data: bytes) -> bytes:
    """What a replica says to READ and WRITE frames; of these only what it needs is looked at."""
    said: list[bytes] = []
    done: list[int] = []
    headers = [buffer for buffer in sent if len(buffer) != len(data)]
    for number, buffer in enumerate(headers, 1):
        _, type_, _, request_id, *_ = HEADER.unpack_from(buffer)
        if type_ == FrameType.READ:
            said += (encode_header(type_ | ANSWER, request_id=request_id, epoch=1, payload=(data,)), data)
        else:
            done.append(request_id)
        if number % FRAMES_PER_BATCH == 0 or number == len(headers):
            said.append(_done(done))
            done = []
    return b"".join(said)


def _done(ids: list[int]) -> bytes:
    """What a replica says at the end of a batch in which it carried out these WRITEs."""
    if not ids:
        return b""
    if len(ids) == 1:
        return encode_header(FrameType.WRITE | ANSWER, request_id=ids[0], epoch=1)
    payload = encode_done(ids)
    return encode_header(FrameType.DONE, epoch=1, payload=(payload,)) + payload


def _requests(data: bytes) -> bytes:
    """Frames of a controller, half READs, half WRITEs."""
    frames: list[bytes] = []
    for number in range(1, COMMANDS + 1):
        type_ = FrameType.WRITE if number % 2 else FrameType.READ
        payload = (data,) if type_ == FrameType.WRITE else ()
        header = encode_header(
            type_,
            request_id=number,
            epoch=1,
            offset_bytes=number * _SMALL_BYTES,
            length_bytes=_SMALL_BYTES,
            stable=COMMANDS // 2,
            payload=payload,
        )
        frames += (header, *payload)
    return b"".join(frames)


def _replica_round(device: BlockDevice) -> Round:
    decoder, peer = FrameDecoder(ReceiveBuffer(), PAYLOAD_BYTES_MAX), Out()
    unstable = UnstableWrites()
    unstable.accepted(1, in_sync=True, equal=True)
    batch = EndOfBatch()
    path = ReplicaDataPath(device, unstable, 1, _never, batch)
    session = Session(peer, nonce="cd" * 32, phase=Phase.ATTACHED)
    stream: Any = peer  # of which only `queued_bytes` is asked for
    arrivals = Arrivals(stream, session, decoder, batch, path.handles, path.frame_received, _never)
    received = _requests(_data(_SMALL_BYTES))
    in_batches = [
        range(1, COMMANDS + 1)[n : n + FRAMES_PER_BATCH] for n in range(0, COMMANDS, FRAMES_PER_BATCH)
    ]
    writes = [[number for number in batch if number % 2] for batch in in_batches]
    expected = COMMANDS // 2 * (HEADER_BYTES + _SMALL_BYTES) + sum(len(_done(done)) for done in writes)

    def play() -> None:
        decoder.buffer.receive_data(received)
        arrivals.arrived()
        said = sum(map(len, peer.take()))
        assert said == expected

    return play


@contextmanager
def _replica(_: Path) -> Iterator[Round]:
    yield _replica_round(InstantDevice())


@contextmanager
def _replica_with_store(directory: Path) -> Iterator[Round]:
    """The same down to the files, which are in the page cache."""
    store = Store.open_or_create(
        directory, volume_id="v", replica_id=1, volume_name="v", size_bytes=_SIZE_BYTES, block_size_bytes=512
    )
    try:
        store.write(0, MIB, [_data(MIB)])
        if store.read_nowait(0, _SMALL_BYTES) is None:
            raise UnfitError(f"the file system of {directory} cannot read from the page cache alone")
        yield _replica_round(ChainDevice(store, EndOfBatch(), _never, clock=lambda: 0.0))
    finally:
        store.close()


@contextmanager
def _first_writes(directory: Path) -> Iterator[Round]:
    """Scattered writes to blocks that the head does not hold yet, above a new snapshot, down to the files."""
    rounds = itertools.count(1)
    chunk_bytes = CHUNK_BLOCKS * _SMALL_BYTES
    size_bytes = FIRST_WRITE_ROUNDS_MAX * chunk_bytes
    store = Store.open_or_create(
        directory, volume_id="v", replica_id=1, volume_name="v", size_bytes=size_bytes, block_size_bytes=512
    )
    try:
        for offset in range(0, size_bytes, REGION_BYTES):
            store.write(offset, _SMALL_BYTES, [_data(_SMALL_BYTES)])
        store.create_snapshot("s")
        store.begin_in_place()
        device = ChainDevice(store, EndOfBatch(), _never, clock=lambda: 0.0)
        data = (_data(_SMALL_BYTES),)

        def play() -> None:
            done: list[Write] = []
            place = size_bytes - next(rounds) * chunk_bytes  # a chunk in which nothing was written yet
            for number in range(COMMANDS):
                offset = place + (number * 37 % 1024) * 2 * _SMALL_BYTES
                device.submit(Write(offset, _SMALL_BYTES, data, done.append))
            assert len(done) == COMMANDS and all(write.error is None for write in done)

        yield play
    finally:
        store.close()


@contextmanager
def _frames(_: Path) -> Iterator[Round]:
    """WRITE frames made and taken apart again."""
    decoder, data = FrameDecoder(ReceiveBuffer(), PAYLOAD_BYTES_MAX), _data(_SMALL_BYTES)

    def play() -> None:
        for number in range(COMMANDS):
            header = encode_header(
                FrameType.WRITE, request_id=number, epoch=1, length_bytes=_SMALL_BYTES, payload=(data,)
            )
            decoder.buffer.receive_data(header)
            decoder.buffer.receive_data(data)
        for number in range(COMMANDS):
            frame = decoder.next_frame()
            assert frame is not None
            assert frame.request_id == number
        assert decoder.next_frame() is None

    yield play


@contextmanager
def _frames_slowly(directory: Path) -> Iterator[Round]:
    """The same with a needless loop for each frame."""
    with _frames(directory) as play:

        def play_slowly() -> None:
            play()
            for _ in range(COMMANDS):
                for _ in range(NEEDLESS_TURNS):
                    continue

        yield play_slowly


# --- deciders


@contextmanager
def _roster(_: Path) -> Iterator[Round]:
    """A controller starts with three replicas, loses one and gets it back; with all self-checks."""

    def play() -> None:
        bench = three().active()
        bench.down(2)
        bench.up(2)

    yield play


@contextmanager
def _lineage(_: Path) -> Iterator[Round]:
    """One more snapshot for a volume that has a hundred, and one of them deleted."""
    lineage = Lineage(size_bytes=_SIZE_BYTES)
    for number in range(1, 101):
        lineage = lineage.apply(_create(lineage, number))

    def play() -> None:
        made = lineage.apply(_create(lineage, 101))
        kind = ChangeKind.DELETE
        left = made.apply(Change(kind=kind, before=made.generation, after=made.generation + 1, number=50))
        assert len(left.snapshots) == 100

    yield play


def _create(lineage: Lineage, number: int) -> Change:
    before = lineage.generation
    return Change(kind=ChangeKind.CREATE, before=before, after=before + 1, number=number, name=f"s{number}")


WORKLOADS: Final = (
    Workload("iscsi-read-4k", COMMANDS, _iscsi_reads),
    Workload("iscsi-write-4k-immediate", COMMANDS, _iscsi_writes),
    Workload("iscsi-write-1m-solicited", 1, _iscsi_large_writes),
    Workload("controller-3-members-4k", COMMANDS, _controller),
    Workload("replica-4k", COMMANDS, _replica),
    Workload("replica-store-4k", COMMANDS, _replica_with_store),
    Workload("store-first-write-4k", COMMANDS, _first_writes),
    Workload("frames-4k", COMMANDS, _frames),
    Workload("roster", 1, _roster),
    Workload("lineage", 1, _lineage),
)
PLANTED: Final = Workload("frames-4k-slowly", COMMANDS, _frames_slowly)
"""Is to be found when it is compared with "frames-4k"."""
