"""TLS 1.3 with certificates on both sides: the files that it needs, and what is made of them.

One certificate authority for a volume, or for all: a server lets in who has a certificate of it, and a client
looks whether the server's is for the address that it connected to (RFC 8446, RFC 6125).
"""

import contextlib
import os
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import structlog

from pyjiva.errors import ConfigError
from pyjiva.transport.private_file_sys import check_private

__all__ = ["LOOK_S", "Tls", "TlsFiles", "client_context"]

LOOK_S: Final = 1.0  # however often connections begin, files are not looked at more often

_log = structlog.get_logger(__name__)


@attrs.frozen
class TlsFiles:
    """PEM files."""

    certificate: Path
    """Ours, with those between it and the authority's."""
    key: Path
    """Ours, not encrypted; nobody but its owner may use it."""
    authority: Path
    """Whose certificates count."""


@attrs.frozen
class _Contexts:
    """Made of the files as they were at one time."""

    server: ssl.SSLContext
    open_server: ssl.SSLContext
    client: ssl.SSLContext

    @classmethod
    def read(cls, files: TlsFiles) -> "_Contexts":
        """See Tls.read."""
        try:
            check_private("TLS key", files.key, os.stat(files.key))
        except OSError as error:
            raise ConfigError(f"TLS key {files.key}: {error.strerror or error}") from error
        server = _context(ssl.PROTOCOL_TLS_SERVER, files)
        server.verify_mode = ssl.CERT_REQUIRED
        server.num_tickets = 0  # nobody comes back to a session: a connection is kept
        open_server, client = (
            _context(protocol, files) for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
        )
        return cls(server, open_server, client)


@attrs.define(eq=False)
class Tls:
    """What both directions are set up with, for the connections that begin now.

    Certificates are renewed while a daemon runs: whoever begins a connection looks whether a file is another
    one, and `look` may be called at any time.  Connections that stand are not touched.  Files that make no
    sense, or are of no use any more, are not taken: those before them stay, and the log has one line.
    """

    files: TlsFiles
    clock: Callable[[], float]
    """In seconds, steady."""
    _now: _Contexts
    _seen: tuple[object, ...]
    """What the files were when they were read last, whether they were taken or not."""
    _looked_at_s: float

    @classmethod
    def read(cls, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> "Tls":
        """Raises ConfigError: a file cannot be read or is no PEM, key and certificate are not of one pair, or
        others may use the key.
        """
        seen = _fingerprint(files)  # before: who changes them meanwhile is seen at the next look
        return cls(files, clock, _Contexts.read(files), seen, clock())

    @property
    def server(self) -> ssl.SSLContext:
        """Asks for the client's certificate, and takes none but of the authority."""
        self._look_now_and_then()
        return self._now.server

    @property
    def client(self) -> ssl.SSLContext:
        """Looks whether the server's certificate is of the authority, and for the address."""
        self._look_now_and_then()
        return self._now.client

    @property
    def open_server(self) -> ssl.SSLContext:
        """A server's that asks for no certificate: whom it serves is shown in another way."""
        self._look_now_and_then()
        return self._now.open_server

    def always(self, current: Callable[["Tls"], ssl.SSLContext]) -> ssl.SSLContext:
        """A server's context for who takes only one: each connection begins with the `current` one."""
        return _Front(partial(current, self))

    def _look_now_and_then(self) -> None:
        if self.clock() - self._looked_at_s >= LOOK_S:
            self.look()

    def look(self) -> None:
        """Take the files over if they are others, and good."""
        self._looked_at_s = self.clock()
        if (seen := _fingerprint(self.files)) == self._seen:
            return
        self._seen = seen
        try:
            found = _Contexts.read(self.files)
            _check_dates(found.open_server, self.files)
        except ConfigError as error:
            _log.warning("tls-files-not-taken", reason=str(error), advice="what was read before stays in use")
            return
        self._now = found
        _log.info("tls-files-taken", certificate=str(self.files.certificate))


class _Front(ssl.SSLContext):
    """Hands each connection to another context."""

    _current: Callable[[], ssl.SSLContext]

    def __new__(cls, current: Callable[[], ssl.SSLContext]) -> "_Front":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._current = current
        return made

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """See SSLContext; trio calls no other of its kind."""
        return self._current().wrap_bio(*arguments, **named)


def _fingerprint(files: TlsFiles) -> tuple[object, ...]:
    """Another one when a file is another one; links are followed, as Kubernetes turns one over."""
    found: list[object] = []
    for path in (files.certificate, files.key, files.authority):
        try:
            stat = os.stat(path)
            found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except OSError as error:
            found.append(error.errno)
    return tuple(found)


def _check_dates(server: ssl.SSLContext, files: TlsFiles) -> None:
    """Raises ConfigError: the certificate has expired, or is of a time to come.

    OpenSSL looks at the dates in a handshake, so there is one, in memory, with a client that trusts this very
    certificate: who has signed it is the others' business.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _trust(client, files.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (theirs, ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"TLS certificate {files.certificate}: {error.verify_message}") from error


def client_context(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """For a client that may have no certificate of its own; None: nothing was given.

    Raises ConfigError: as `Tls.read`; a certificate without a key; or either without an authority.
    """
    if authority is None:
        if certificate or key:
            raise ConfigError("a TLS certificate needs the authority of the other side: --tls-ca")
        return None
    if certificate and key:
        return Tls.read(TlsFiles(certificate, key, authority)).client
    if certificate or key:
        raise ConfigError("a TLS certificate and its key: --tls-cert and --tls-key, both or none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _trust(context, authority)
    return context


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"TLS certificate {files.certificate} with key {files.key}: {_what(error)}"
        ) from error
    _trust(context, files.authority)
    return context


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS authority {authority}: {_what(error)}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # else OpenSSL would ask on the terminal


def _what(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
