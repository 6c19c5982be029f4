"""The file that a token is in, and whether an address is this machine's alone."""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Final

from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import TOKEN_CHARACTERS_MAX, Token
from pyjiva.transport.private_file_sys import check_private

__all__ = ["check_reach", "read_token"]

FILE_BYTES_MAX: Final = 2 * TOKEN_CHARACTERS_MAX


def read_token(path: Path) -> Token:
    """The token in a file that nobody but its owner may use.

    Raises ConfigError: there is no such file, others may use it, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"token file {path}: {error.strerror or error}") from error
    check_private("token file", path, found)
    try:
        return Token.parse(data.decode("ascii"))
    except UnicodeDecodeError:
        # Without the cause: it holds the content.
        raise ConfigError(f"token file {path}: not ASCII text") from None
    except ConfigError as error:
        raise ConfigError(f"token file {path}: {error}") from None


def check_reach(host: str, token: Token | None) -> None:
    """Without a token, an API is for this machine alone.

    Raises ConfigError: `host` can be reached from elsewhere, or is no address.
    """
    if token is not None:
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot listen on {host}: {getattr(error, 'strerror', None) or error}") from error
    if not all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found):
        raise ConfigError(
            f"{host} can be reached from other machines: an HTTP API there needs --api-token-file, "
            "or a loopback address"
        )
