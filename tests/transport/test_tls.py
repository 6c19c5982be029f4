"""TLS between two streams, and the files that it is made of."""

import datetime
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import ConfigError, RemoteProtocolError
from pyjiva.testing.certificates import Authority
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import http_application, serve_http
from pyjiva.transport.stream_io import open_stream, own_stream
from pyjiva.transport.tls_stream_io import TlsStream, client_stream, server_stream
from pyjiva.transport.tls_sys import LOOK_S, Tls, TlsFiles

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(place: Path) -> Authority:
    return Authority(place)


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    return Tls.read(authority.sign("both", HERE))


@asynccontextmanager
async def serving(serve: Callable[[Stream, EndOfBatch], Awaitable[None]]) -> AsyncIterator[int]:
    """A port where `serve` gets each connection."""

    async def take(stream: trio.SocketStream) -> None:
        batch = EndOfBatch()
        async with own_stream(stream, batch) as owned:
            await serve(owned, batch)

    listeners = await trio.open_tcp_listeners(0, host=HERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, take, listeners)
        yield int(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def read(stream: Stream, count: int) -> bytes:
    while len(stream.buffer) < count and await stream.fill(count):
        continue
    assert len(stream.buffer) >= count, "it ended before"
    return bytes(stream.buffer.take(count))


@asynccontextmanager
async def echo(tls: Tls, refusals: list[str] | None = None) -> AsyncIterator[int]:
    """Sends back what it gets."""

    async def serve(below: Stream, batch: EndOfBatch) -> None:
        try:
            stream = await server_stream(below, tls.server, batch)
            while await stream.fill():
                stream.send(bytes(stream.buffer.take(len(stream.buffer))))
                batch.end()
        except RemoteProtocolError as error:
            if refusals is None:
                raise
            refusals.append(str(error))

    async with serving(serve) as port:
        yield port


@asynccontextmanager
async def connected(tls: Tls, port: int, host: str = HERE) -> AsyncIterator[tuple[TlsStream, EndOfBatch]]:
    batch = EndOfBatch()
    with trio.fail_after(20):
        async with open_stream(HERE, port, batch, 5) as below:
            yield await client_stream(below, tls.client, host, batch), batch


@pytest.mark.parametrize("size", [1, 100, 16384, 16385, 3 << 20])
async def test_what_goes_in_comes_out(size: int, tls: Tls) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    async with echo(tls) as port, connected(tls, port) as (stream, batch):
        stream.send(data[: size // 2], memoryview(data)[size // 2 :], b"")
        batch.end()
        assert await read(stream, size) == data
        assert stream.received_bytes > size, "records have headers and tags"


class Tap:
    """A stream, and what was given to it to send."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.seen = b""

    def send(self, *buffers: bytes) -> None:
        self.seen += b"".join(map(bytes, buffers))
        self.stream.send(*buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


async def test_nothing_of_it_is_on_the_wire(tls: Tls) -> None:
    taps: list[Tap] = []

    async def serve(below: Stream, batch: EndOfBatch) -> None:
        taps.append(Tap(below))
        stream = await server_stream(cast(Stream, taps[0]), tls.server, batch)
        stream.send(b"a secret" * 100)
        batch.end()
        await stream.fill()

    async with serving(serve) as port, connected(tls, port) as (stream, _):
        assert await read(stream, 800) == b"a secret" * 100
    assert len(taps[0].seen) > 800
    assert b"secret" not in taps[0].seen


async def test_the_end_is_an_end(tls: Tls) -> None:
    async def serve(below: Stream, batch: EndOfBatch) -> None:
        await server_stream(below, tls.server, batch)
        below.shut_down()

    async with serving(serve) as port, connected(tls, port) as (stream, _):
        assert not await stream.fill()


async def test_a_server_for_another_address_is_not_spoken_to(tls: Tls) -> None:
    refusals: list[str] = []
    async with echo(tls, refusals) as port:
        with pytest.raises(RemoteProtocolError, match="IP address mismatch"):
            async with connected(tls, port, host="127.0.0.2"):
                pass
        while not refusals:
            await trio.sleep(0.01)
    assert refusals == ["TLS: sslv3 alert bad certificate"]


@pytest.mark.parametrize(
    ("life", "says"),
    [(datetime.timedelta(days=2), "self-signed certificate in"), (-datetime.timedelta(1), "has expired")],
)
async def test_a_server_that_does_not_count_is_not_spoken_to(
    life: datetime.timedelta, says: str, authority: Authority, tls: Tls, tmp_path: Path
) -> None:
    signed = authority if life < datetime.timedelta(0) else Authority(tmp_path, "stranger")
    stranger = Tls.read(signed.sign("somebody", HERE, life=life))
    async with echo(stranger, []) as port:
        with pytest.raises(RemoteProtocolError, match=says):
            async with connected(tls, port):
                pass


async def test_a_client_of_another_authority_is_refused(tls: Tls, tmp_path: Path) -> None:
    """In TLS 1.3 the client hears of it with its first read."""
    stranger = Tls.read(Authority(tmp_path, "stranger").sign("somebody", HERE))
    stranger.client.load_verify_locations(tls.files.authority)
    refusals: list[str] = []
    async with echo(tls, refusals) as port, connected(stranger, port) as (stream, batch):
        stream.send(b"let me in")
        batch.end()
        with pytest.raises(RemoteProtocolError, match="unknown ca"):
            await stream.fill()
    assert refusals == ["TLS: self-signed certificate in certificate chain"]


@pytest.mark.parametrize(
    ("known", "old", "says"),
    [(False, False, "TLS: peer did not return a certificate"), (True, True, "TLS: unsupported protocol")],
)
async def test_a_client_without_a_certificate_or_of_tls_1_2_is_refused(
    known: bool, old: bool, says: str, tls: Tls
) -> None:
    refusals: list[str] = []
    context = ssl.create_default_context(cafile=str(tls.files.authority))
    if known:
        context.load_cert_chain(tls.files.certificate, tls.files.key)
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with echo(tls, refusals) as port:
        stream = trio.SSLStream(await trio.open_tcp_stream(HERE, port), context, server_hostname=HERE)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await trio.aclose_forcefully(stream)
    assert refusals == [says]


class Below:
    """A stream that brings these bytes and no more."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.buffer = Tail()
        self.sent = b""

    async def fill(self, _wanted_bytes: int = 0) -> bool:
        await trio.lowlevel.checkpoint()
        if not self.pieces:
            return False
        self.buffer.data += self.pieces.pop(0)
        return True

    def send(self, *buffers: bytes) -> None:
        self.sent += b"".join(map(bytes, buffers))

    async def wait_sent(self) -> None:
        await trio.lowlevel.checkpoint()


class Tail:
    data = b""

    def __len__(self) -> int:
        return len(self.data)

    def peek(self, count: int) -> bytes:
        return self.data[:count]

    def skip(self, count: int) -> None:
        self.data = self.data[count:]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=5))
async def test_any_bytes_of_a_stranger_are_at_most_a_refusal(pieces: list[bytes], tls: Tls) -> None:
    with pytest.raises(RemoteProtocolError):
        await server_stream(Below(*pieces), tls.server, EndOfBatch())  # type: ignore[arg-type]


class TestFiles:
    def test_a_key_that_others_may_use_is_not_taken(self, authority: Authority) -> None:
        files = authority.sign("open", HERE)
        files.key.chmod(0o640)
        with pytest.raises(ConfigError, match="others may use it: chmod 600"):
            Tls.read(files)

    def test_what_is_missing_is_named(self, authority: Authority, tmp_path: Path) -> None:
        files = authority.sign("missing", HERE)
        nowhere = tmp_path / "nowhere"
        for changed in (
            TlsFiles(nowhere, files.key, files.authority),
            TlsFiles(files.certificate, nowhere, files.authority),
            TlsFiles(files.certificate, files.key, nowhere),
        ):
            with pytest.raises(ConfigError, match=r"TLS .*nowhere.*: No such file"):
                Tls.read(changed)

    def test_a_key_of_another_certificate_is_not_taken(self, authority: Authority) -> None:
        one, two = authority.sign("one", HERE), authority.sign("two", HERE)
        with pytest.raises(ConfigError, match="key values mismatch"):
            Tls.read(TlsFiles(one.certificate, two.key, one.authority))

    def test_an_encrypted_key_is_not_asked_about(self, authority: Authority) -> None:
        files = authority.sign("encrypted", HERE)
        subprocess.run(
            ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", files.key, "-out", files.key],
            check=True,
            capture_output=True,
        )
        files.key.chmod(0o600)
        with pytest.raises(ConfigError, match="the key is encrypted"):
            Tls.read(files)

    def test_what_is_no_pem_is_named(self, authority: Authority) -> None:
        files = authority.sign("garbage", HERE)
        files.certificate.write_text("nothing")
        with pytest.raises(ConfigError, match=r"garbage.crt with key .*garbage.key: "):
            Tls.read(files)


class Renewed:
    """A daemon's TLS, whose files are renewed, and what its log says."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.authority = Authority(place)
        self.files = self.authority.sign("daemon", HERE)
        self.now_s = 0.0
        self.tls = Tls.read(self.files, lambda: self.now_s)

    def sign(self, **options: Any) -> bytes:
        """Renew certificate and key, where they are; the certificate."""
        self.authority.sign("daemon", HERE, **options)
        return self.certificate

    @property
    def certificate(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.files.certificate.read_text())

    def pass_time(self) -> None:
        self.now_s += LOOK_S


@pytest.fixture
def renewed(tmp_path: Path) -> Renewed:
    return Renewed(tmp_path)


def shown(stream: TlsStream) -> bytes | None:
    """The certificate that the server has shown."""
    return stream._tls.getpeercert(binary_form=True)


class TestRenewal:
    async def test_what_begins_has_the_new_certificate_and_what_stands_goes_on(
        self, renewed: Renewed
    ) -> None:
        old, tls = renewed.certificate, renewed.tls
        async with echo(tls) as port, connected(tls, port) as (standing, batch):
            new = renewed.sign()
            assert new != old
            async with connected(tls, port) as (stream, _):
                assert shown(stream) == old, "it is not looked at for each of many connections"
            renewed.pass_time()
            with structlog.testing.capture_logs() as logs:
                async with connected(tls, port) as (stream, another):
                    assert shown(stream) == new
                    stream.send(b"new")
                    another.end()
                    assert await read(stream, 3) == b"new"
            assert [log["event"] for log in logs] == ["tls-files-taken"]
            standing.send(b"as before")
            batch.end()
            assert await read(standing, 9) == b"as before"
            assert shown(standing) == old

    async def test_a_link_is_turned_over_as_kubernetes_does(self, tmp_path: Path) -> None:
        for version in ("one", "two"):
            (tmp_path / version).mkdir()
        files = [Authority(tmp_path / version).sign("daemon", HERE) for version in ("one", "two")]
        link, now_s = tmp_path / "data", [0.0]
        link.symlink_to("one")
        paths = (files[0].certificate, files[0].key, files[0].authority)
        tls = Tls.read(TlsFiles(*(link / path.name for path in paths)), lambda: now_s[0])
        (tmp_path / "data.new").symlink_to("two")
        (tmp_path / "data.new").rename(link)
        now_s[0] += LOOK_S
        async with echo(tls) as port, connected(tls, port) as (stream, _):
            assert shown(stream) == ssl.PEM_cert_to_DER_cert(files[1].certificate.read_text())

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (
                lambda new: new.files.certificate.write_text("half of"),
                r"daemon\.crt with key .*daemon\.key: ",
            ),
            (lambda new: new.files.key.write_bytes(b""), r"daemon\.crt with key .*daemon\.key: "),
            (lambda new: new.files.key.chmod(0o644), r"TLS key .*daemon\.key: others may use it"),
            (lambda new: new.files.key.unlink(), r"TLS key .*daemon\.key: No such file"),
            (lambda new: new.files.authority.write_text("nothing"), r"TLS authority .*authority\.pem: "),
            (
                lambda new: new.sign(life=-datetime.timedelta(days=1)),
                r"TLS certificate .*daemon\.crt: certificate has expired",
            ),
        ],
    )
    def test_what_is_no_good_is_not_taken_and_said_once(
        self, spoil: Callable[[Renewed], Any], says: str, renewed: Renewed
    ) -> None:
        before = renewed.tls.server, renewed.tls.client, renewed.tls.open_server
        spoil(renewed)
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                renewed.pass_time()
                assert (renewed.tls.server, renewed.tls.client, renewed.tls.open_server) == before
        assert [log["event"] for log in logs] == ["tls-files-not-taken"]
        assert re.search(says, logs[0]["reason"]), logs[0]["reason"]
        (renewed.place / "authority.pem").unlink(missing_ok=True)
        renewed.files.key.unlink(missing_ok=True)
        renewed.authority = Authority(renewed.place)
        renewed.sign()
        renewed.pass_time()
        assert renewed.tls.server is not before[0], "what is mended is taken"

    async def test_the_authority_that_was_is_trusted_no_more(self, renewed: Renewed) -> None:
        other = Tls.read(renewed.authority.sign("other", HERE))
        refusals: list[str] = []
        async with echo(renewed.tls, refusals) as port:
            async with connected(other, port) as (stream, batch):
                stream.send(b"hello")
                batch.end()
                assert await read(stream, 5) == b"hello"
            renewed.authority = Authority(renewed.place)
            renewed.sign()
            renewed.pass_time()
            other = Tls.read(other.files)  # its own certificate is of the one that was
            async with connected(other, port) as (stream, batch):
                with pytest.raises(RemoteProtocolError, match="alert"):
                    await stream.fill()
            assert len(refusals) == 1 and refusals[0].startswith("TLS: ")
            async with connected(Tls.read(renewed.authority.sign("third", HERE)), port) as (stream, batch):
                stream.send(b"hello")
                batch.end()
                assert await read(stream, 5) == b"hello"

    async def test_a_client_has_the_new_one_and_an_expired_one_is_refused(self, renewed: Renewed) -> None:
        seen: list[bytes | None] = []

        async def serve(below: Stream, batch: EndOfBatch) -> None:
            stream = await server_stream(below, server.server, batch)
            seen.append(stream._tls.getpeercert(binary_form=True))
            below.shut_down()

        server = Tls.read(renewed.authority.sign("server", HERE))
        async with serving(serve) as port:
            for _ in range(2):
                async with connected(renewed.tls, port) as (stream, _batch):
                    assert not await stream.fill()
                assert seen.pop() == renewed.certificate
                renewed.sign()
                renewed.pass_time()
        expired = Tls.read(renewed.authority.sign("late", HERE, life=-datetime.timedelta(days=1)))
        refusals: list[str] = []
        async with echo(server, refusals) as port, connected(expired, port) as (stream, _batch):
            with pytest.raises(RemoteProtocolError, match="expired"):
                await stream.fill()
        assert refusals == ["TLS: certificate has expired"]

    @pytest.mark.parametrize("token", [None, Token("0123456789abcdef")])
    async def test_http_has_the_new_one_too(
        self, token: Token | None, renewed: Renewed, nursery: trio.Nursery
    ) -> None:
        async def ask() -> bytes | None:
            below = await trio.open_tcp_stream(HERE, port)
            stream = trio.SSLStream(below, client.client, server_hostname=HERE, https_compatible=True)
            try:
                await stream.send_all(b"GET /v1/no HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 40")
                certificate: bytes | None = stream.getpeercert(binary_form=True)
                return certificate
            finally:
                await trio.aclose_forcefully(stream)

        client = Tls.read(renewed.authority.sign("client", HERE))
        serve = partial(serve_http, http_application([]), HERE, 0, token=token, tls=renewed.tls)
        port = await nursery.start(serve)
        assert await ask() == renewed.certificate
        renewed.sign()
        renewed.pass_time()
        assert await ask() == renewed.certificate
        renewed.authority = Authority(renewed.place)
        renewed.sign()
        renewed.pass_time()
        client = Tls.read(client.files)  # its own certificate is of the one that was
        if token is None:
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                await ask()
        else:
            assert await ask() == renewed.certificate
        client = Tls.read(renewed.authority.sign("client", HERE))
        assert await ask() == renewed.certificate
        nursery.cancel_scope.cancel()
