"""TLS 1.3 with certificates on both sides: the files that it needs, and what is made of them.

One certificate authority for a volume, or for all: a server lets in who has a certificate of it, and a client
looks whether the server's is for the address that it connected to (RFC 8446, RFC 6125).
"""

import os
import ssl
from pathlib import Path

import attrs

from pyjiva.errors import ConfigError
from pyjiva.transport.private_file_sys import check_private

__all__ = ["Tls", "TlsFiles", "client_context"]


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
class Tls:
    """What both directions are set up with."""

    server: ssl.SSLContext
    """Asks for the client's certificate, and takes none but of the authority."""
    client: ssl.SSLContext
    files: TlsFiles

    @classmethod
    def read(cls, files: TlsFiles) -> "Tls":
        """Raises ConfigError: a file cannot be read or is no PEM, key and certificate are not of one pair, or
        others may use the key.
        """
        try:
            check_private("TLS key", files.key, os.stat(files.key))
        except OSError as error:
            raise ConfigError(f"TLS key {files.key}: {error.strerror or error}") from error
        server = _context(ssl.PROTOCOL_TLS_SERVER, files)
        server.verify_mode = ssl.CERT_REQUIRED
        server.num_tickets = 0  # nobody comes back to a session: a connection is kept
        return cls(server, _context(ssl.PROTOCOL_TLS_CLIENT, files), files)

    def open_server(self) -> ssl.SSLContext:
        """A server's that asks for no certificate: whom it serves is shown in another way."""
        return _context(ssl.PROTOCOL_TLS_SERVER, self.files)


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
