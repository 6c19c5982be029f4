"""The handshake against replicas that lie."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from pyjiva.controller.link_io import shake_hands
from pyjiva.controller.options import ControllerOptions, ReplicaAddress
from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import (
    ANSWER,
    PROTOCOL_VERSION,
    Frame,
    FrameDecoder,
    FrameType,
    Hello,
    HelloAnswer,
    ReplicaReport,
    Status,
    decode_message,
    encode_header,
    encode_message,
    replica_proof,
)
from pyjiva.transport import EndOfBatch, ReceiveBuffer, serve_by_filling

KEY = bytes(32)
ADDRESS = ReplicaAddress(1, "replica", 9502)
OPTIONS = ControllerOptions("test", "v" * 32, 4096, 512, (ADDRESS,), KEY)
REPORT = ReplicaReport("v" * 32, 1, 4096, 512, "/data", 7, "old", None, True, False)
Answer = tuple[int, bytes]


class LyingStream:
    """A stream whose other end answers each frame by `answers`."""

    def __init__(self, answers: Callable[[Frame], Answer | None]) -> None:
        self.buffer = ReceiveBuffer()
        self.queued_bytes = self.received_bytes = 0
        self._answers = answers
        self._sent = FrameDecoder(ReceiveBuffer())
        self._replies: list[bytes] = []

    def send(self, *buffers: Any) -> None:
        self._sent.buffer.receive_data(b"".join(buffers))
        while (frame := self._sent.next_frame()) is not None:
            said = self._answers(frame)
            if said is not None:
                code, payload = said
                self._replies.append(
                    encode_header(frame.type | ANSWER, code=code, payload=[payload]) + payload
                )

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        return await serve_by_filling(self, wanted_bytes, arrived)

    async def fill(self, wanted_bytes: int = 0) -> bool:
        if self._replies:
            self.buffer.receive_data(self._replies.pop(0))
            return True
        return False

    async def wait_sent(self) -> None:
        """Nothing is ever queued."""

    def shut_down(self) -> None:
        """Nobody is there."""

    @property
    def is_local(self) -> bool:
        return False

    @property
    def peer_address(self) -> tuple[str, int]:
        return "replica", 9502


def replica(
    *, proof: str | None = None, id_: int = 1, report: ReplicaReport = REPORT
) -> Callable[[Frame], Answer]:
    def answers(frame: Frame) -> Answer:
        if frame.type == FrameType.HELLO:
            hello = decode_message(frame.payload, Hello)
            right = replica_proof(KEY, hello, id_, "nonce")
            return Status.OK, encode_message(
                HelloAnswer(PROTOCOL_VERSION, id_, "nonce", right if proof is None else proof)
            )
        return Status.OK, encode_message(report)

    return answers


async def shake(answers: Callable[[Frame], Answer | None]) -> ReplicaReport:
    stream = LyingStream(answers)
    return await shake_hands(stream, FrameDecoder(stream.buffer), OPTIONS, ADDRESS, "me", EndOfBatch())


async def test_an_honest_replica_is_believed() -> None:
    assert await shake(replica()) == REPORT


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (replica(proof="0" * 64), "another volume key"),
        (replica(proof="\N{GREEK SMALL LETTER ALPHA}"), "another volume key"),
        (
            lambda frame: (Status.OK, b'{"version":1,"replica_id":1,"nonce":"","proof":"\\ud800"}'),
            "HelloAnswer",
        ),
        (lambda frame: (Status.FORBIDDEN, b'{"reason":"\\udfff"}'), "Refusal"),
        (lambda frame: (Status.FORBIDDEN, b'{"reason":"no"}'), "refused: no"),
        (lambda frame: None, "closed the connection"),
        (replica(id_=2), "it is replica 2"),
        (replica(report=attrs.evolve(REPORT, size_bytes=2048)), "2048 bytes"),
        (replica(report=attrs.evolve(REPORT, promised_epoch=2**64)), "epoch"),
        (replica(report=attrs.evolve(REPORT, promised_epoch=-1)), "epoch"),
    ],
)
async def test_whatever_else_a_replica_says_costs_its_connection(
    answers: Callable[[Frame], Answer | None], reason: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        await shake(answers)
