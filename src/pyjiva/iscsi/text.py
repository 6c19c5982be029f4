"""Text segments: `key=value` pairs, each ended by a zero byte (RFC 7143 §6.1).  Pure."""

from collections.abc import Iterable
from typing import Final

import attrs

from pyjiva.errors import RemoteProtocolError

__all__ = ["NEGOTIATION_BYTES_MAX", "TextCollector", "decode_text", "encode_text", "first_part"]

NEGOTIATION_BYTES_MAX: Final = 32768  # one request in all its parts; a CHAP exchange needs a tenth
KEY_NAME_BYTES_MAX: Final = 63  # RFC 7143 §6.1
VALUE_BYTES_MAX: Final = (
    8192  # §6.1: 255 unless a key says otherwise; large binary items go up to 1024 octets
)
PAIRS_MAX: Final = 256

_KEY_NAME: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-+@_/#")


def decode_text(data: bytes) -> list[tuple[str, str]]:
    """The pairs, in order.  Raises RemoteProtocolError: not the form of §6.1, or a limit exceeded."""
    pairs: list[tuple[str, str]] = []
    for item in data.split(b"\0"):
        if not item:  # after the last pair; some initiators pad with more zero bytes
            continue
        key, equals, value = item.partition(b"=")
        if not equals or not key:
            raise RemoteProtocolError(f"text item without a key or '=': {item[:40]!r}")
        if len(key) > KEY_NAME_BYTES_MAX or len(value) > VALUE_BYTES_MAX or len(pairs) == PAIRS_MAX:
            raise RemoteProtocolError("text key, value or list is too long")
        try:
            name, text = key.decode("ascii"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise RemoteProtocolError(f"text item is not UTF-8: {item[:40]!r}") from None
        if not _KEY_NAME.issuperset(name):
            raise RemoteProtocolError(f"text key has a bad character: {name!r}")
        pairs.append((name, text))
    return pairs


def encode_text(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A text segment."""
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs)


def first_part(data: bytes, length_max: int) -> tuple[bytes, bytes]:
    """What fits into one data segment, and the rest: a text may be cut anywhere (§6.2, C bit)."""
    return data[:length_max], data[length_max:]


@attrs.define
class TextCollector:
    """Puts the parts of a request together (C bit)."""

    _parts: bytearray = attrs.field(factory=bytearray, init=False)

    def add(self, data: bytes, *, more: bool) -> list[tuple[str, str]] | None:
        """The pairs of the whole request; None while parts are to come.

        Raises RemoteProtocolError: too much, or not the form of §6.1.
        """
        if len(self._parts) + len(data) > NEGOTIATION_BYTES_MAX:
            raise RemoteProtocolError(f"negotiation of more than {NEGOTIATION_BYTES_MAX} bytes")
        self._parts += data
        if more:
            return None
        pairs = decode_text(bytes(self._parts))
        self._parts.clear()
        return pairs
