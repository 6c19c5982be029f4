"""Who has neither token nor volume key nor secret is answered nothing but health, on any port of a volume.

Every route of both APIs, every type of frame at each step of the handshake, every opcode of iSCSI.
"""

import json
import re
import secrets
import socket
import struct
from collections.abc import Iterator

import attrs
import cattrs
import httpx
import pytest

from pyjiva.controller.api_document import OPERATIONS as OF_CONTROLLER
from pyjiva.iscsi.pdu import BHS_BYTES
from pyjiva.replica.api_document import OPERATIONS as OF_REPLICA
from pyjiva.replication import (
    ANSWER,
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Authenticate,
    Frame,
    FrameDecoder,
    FrameType,
    Hello,
    Status,
    encode_header,
)
from pyjiva.transport import ReceiveBuffer
from tests.real.volume_process import UpProcess, running_up

pytestmark = pytest.mark.real

CHAP = "iqn.2026-11.org.example:host 0123456789abcdef\n"
HEALTH = ({"ready"}, {"attached", "in_sync", "promised_epoch", "oldest_disk_operation_s"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@attrs.frozen
class Volume:
    """One that has a secret of each kind."""

    up: UpProcess
    data_ports: list[int]
    health_ports: list[int]
    volume_id: str


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    place = tmp_path_factory.mktemp("strangers")
    token, chap = place / "token", place / "chap"
    token.write_text(secrets.token_hex(16) + "\n")
    chap.write_text(CHAP)
    for file in (token, chap):
        file.chmod(0o600)
    asked = ("--size", "16MiB", "--api-token-file", str(token), "--chap-file", str(chap))
    with running_up(place / "data", *asked) as up:
        described = json.loads((place / "data" / "demo" / "volume.json").read_bytes())
        yield Volume(up, described["data_ports"], described["health_ports"], described["volume_id"])
        assert up.stop() == 0
        assert "Traceback" not in up.log.read_text()


def routes(volume: Volume) -> list[tuple[str, str, bool]]:
    """Method, URL and whether it is open to all: what the documents say, and what they do not."""
    ports = [(volume.up.ready["api"], OF_CONTROLLER)]
    ports += [(f"http://127.0.0.1:{port}", OF_REPLICA) for port in volume.health_ports]
    found = []
    for base, operations in ports:
        open_ = {(o.method, o.path) for o in operations if o.open}
        paths = {o.path for o in operations} | {"/", "/v1", "/docs", "/v1/health/", "/v1/health/../volume"}
        for path in sorted(paths):
            url = base + re.sub(r"\{.*?\}", "1", path)
            found += [(method, url, (method, path) in open_) for method in METHODS]
    return found


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
def test_no_route_of_any_api_answers_but_health(volume: Volume, header: dict[str, str]) -> None:
    asked = routes(volume)
    assert len(asked) > 100
    with httpx.Client(trust_env=False) as client:
        for method, url, is_open in asked:
            answer = client.request(method, url, headers=header)
            where = f"{method} {url}: {answer.status_code}"
            if is_open:
                assert answer.status_code == 200, where
                assert set(answer.json()) in HEALTH, where
            elif url.endswith("/v1/health"):
                assert answer.status_code in (200, 401, 405), where  # HEAD of what may be read
                assert not answer.content or answer.status_code != 200, where
            else:
                assert answer.status_code == 401, where


def frame_of(type_: int, message: object = None) -> bytes:
    payload = b"" if message is None else json.dumps(cattrs.unstructure(message)).encode()
    return encode_header(type_, request_id=1, epoch=1, length_bytes=4096, payload=(payload,)) + payload


def answers(port: int, *frames: bytes) -> list[Frame]:
    """All that comes until the replica ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(b"".join(frames))
        peer.shutdown(socket.SHUT_WR)
        decoder = FrameDecoder(ReceiveBuffer())
        while data := peer.recv(1 << 16):
            decoder.buffer.receive_data(data)
    found = []
    while (frame := decoder.next_frame()) is not None:
        found.append(frame)
    assert not len(decoder.buffer)
    return found


def test_no_frame_is_answered_before_the_hello(volume: Volume) -> None:
    for type_ in range(256):
        if type_ != FrameType.HELLO:
            found = answers(volume.data_ports[0], frame_of(type_))
            assert [(f.type, f.code) for f in found] in ([], [(type_ | ANSWER, Status.FORBIDDEN)]), type_


def test_no_frame_is_answered_before_the_key_is_proved(volume: Volume) -> None:
    hello = Hello((PROTOCOL_VERSION,), volume.volume_id, "stranger", secrets.token_hex(NONCE_BYTES))
    for type_ in range(256):
        message = Authenticate("0" * 64) if type_ == FrameType.AUTHENTICATE else None
        found = answers(volume.data_ports[1], frame_of(FrameType.HELLO, hello), frame_of(type_, message))
        assert (found[0].type, found[0].code) == (FrameType.HELLO | ANSWER, Status.OK)
        assert set(json.loads(bytes(found[0].payload))) == {"version", "replica_id", "nonce", "proof"}
        rest = [(f.type, f.code) for f in found[1:]]
        assert rest in ([], [(type_ | ANSWER, Status.FORBIDDEN)]), type_


def test_no_replica_tells_a_stranger_which_volume_it_has(volume: Volume) -> None:
    hello = Hello((PROTOCOL_VERSION,), "0" * 32, "stranger", secrets.token_hex(NONCE_BYTES))
    (found,) = answers(volume.data_ports[2], frame_of(FrameType.HELLO, hello))
    assert found.code == Status.WRONG_VOLUME
    assert volume.volume_id.encode() not in bytes(found.payload)


def test_no_opcode_of_iscsi_is_answered_before_a_login(volume: Volume) -> None:
    host, _, port = volume.up.ready["portal"].rpartition(":")
    for opcode in range(256):
        if opcode & 0x3F == 0x03:  # Login Request: tests/real/test_access.py
            continue
        with socket.create_connection((host, int(port)), timeout=20) as peer:
            peer.sendall(struct.pack(">BB46x", opcode, 0x80).ljust(BHS_BYTES, b"\0"))
            peer.shutdown(socket.SHUT_WR)
            received = b""
            while data := peer.recv(1 << 16):
                received += data
        assert not received, f"opcode {opcode:02x} is answered by {received[:BHS_BYTES].hex()}"
