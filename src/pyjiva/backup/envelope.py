"""How every object of a store but its configuration is wrapped: squeezed, sealed, and checked.  Pure.

    offset  size
    0       4     "PJBK"
    4       1     version of the format, 1
    5       1     kind of the object (`Kind`)
    6       1     flags: 1 squeezed by lz4 (block format), 2 encrypted
    7       1     0
    8       4     length of the content, little-endian
    12      12    nonce, if encrypted
    ..      ..    the content, squeezed or not, encrypted or not
    end-16  16    tag

The tag is that of AES-256-GCM, or without encryption a BLAKE2b-128; both are also over the header and over
the object's key, so that an object under another one's name is noticed.  How long the content may be is the
reader's to say: a header that claims more is refused before memory is taken.
"""

import enum
import hashlib
import hmac
import struct
from typing import Final, Protocol

import lz4.block

from pyjiva.backup.objects import DamagedError

__all__ = ["CONTENT_BYTES_MAX", "NONCE_BYTES", "TAG_BYTES", "Cipher", "CipherError", "Kind", "unwrap", "wrap"]

MAGIC: Final = b"PJBK"
VERSION: Final = 1
NONCE_BYTES: Final = 12  # GCM's own size (NIST SP 800-38D §8.2)
TAG_BYTES: Final = 16
CONTENT_BYTES_MAX: Final = (
    1 << 32
) - 64  # its length has 4 bytes, and a checkpoint is a little more than a table
SQUEEZED: Final = 1
ENCRYPTED: Final = 2
WORTH_IT: Final = 7 / 8  # what saves less costs more time when it is read than it saves
_HEADER: Final = struct.Struct("<4sBBBBI")


class Kind(enum.IntEnum):
    """What an object holds."""

    CHUNK = 1
    MANIFEST = 2
    TABLE = 3
    CHECKPOINT = 4


class CipherError(Exception):
    """What was to be opened was not sealed with this key, this nonce and these words beside it."""


class Cipher(Protocol):
    """Authenticated encryption with one key."""

    def seal(self, nonce: bytes, content: bytes, beside: bytes) -> bytes:
        """`content` encrypted, with a tag of TAG_BYTES at its end.  No nonce is used twice."""

    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        """What was sealed.  Raises CipherError."""


def wrap(kind: Kind, key: str, content: bytes, cipher: Cipher | None, nonce: bytes) -> bytes:
    """The object that goes to the store under `key`.  `nonce`: random, of use with a cipher only."""
    flags = ENCRYPTED if cipher is not None else 0
    squeezed: bytes = lz4.block.compress(content, store_size=False)
    payload = content
    if len(squeezed) <= len(content) * WORTH_IT:
        payload = squeezed
        flags |= SQUEEZED
    header = _HEADER.pack(MAGIC, VERSION, kind, flags, 0, len(content))
    beside = header + key.encode()
    if cipher is None:
        return header + payload + _tag(beside, payload)
    return header + nonce + cipher.seal(nonce, payload, beside)


def unwrap(kind: Kind, key: str, wrapped: bytes, cipher: Cipher | None, content_bytes_max: int) -> bytes:
    """What was wrapped.  Raises DamagedError, with the key and what is wrong."""
    flags, length_bytes = _open_header(kind, key, wrapped, content_bytes_max)
    beside = wrapped[: _HEADER.size] + key.encode()
    if bool(flags & ENCRYPTED) != (cipher is not None):
        raise DamagedError(f"{key}: {'encrypted' if cipher is None else 'not encrypted'}, unlike the store")
    if cipher is None:
        payload, tag = wrapped[_HEADER.size : -TAG_BYTES], wrapped[-TAG_BYTES:]
        if not hmac.compare_digest(tag, _tag(beside, payload)):
            raise DamagedError(f"{key}: its checksum does not match")
    else:
        start = _HEADER.size + NONCE_BYTES
        try:
            payload = cipher.open(wrapped[_HEADER.size : start], wrapped[start:], beside)
        except CipherError:
            raise DamagedError(f"{key}: it was not sealed with this key, or was changed since") from None
    if flags & SQUEEZED:
        return _unsqueeze(key, payload, length_bytes)
    if len(payload) != length_bytes:
        raise DamagedError(f"{key}: {len(payload)} bytes instead of {length_bytes}")
    return payload


def _open_header(kind: Kind, key: str, wrapped: bytes, content_bytes_max: int) -> tuple[int, int]:
    if len(wrapped) < _HEADER.size + TAG_BYTES:
        raise DamagedError(f"{key}: cut short, it has {len(wrapped)} bytes")
    magic, version, found_kind, flags, zero, length_bytes = _HEADER.unpack_from(wrapped)
    if magic != MAGIC:
        raise DamagedError(f"{key}: not an object of a pyjiva backup")
    if version != VERSION:
        raise DamagedError(f"{key}: has format {version}, this pyjiva reads {VERSION}: take the newer one")
    if found_kind != kind or zero or flags & ~(SQUEEZED | ENCRYPTED):
        raise DamagedError(f"{key}: not a {kind.name.lower()}, by its header")
    if length_bytes > content_bytes_max:
        raise DamagedError(f"{key}: claims {length_bytes} bytes, at most {content_bytes_max} can be")
    if flags & ENCRYPTED and len(wrapped) < _HEADER.size + NONCE_BYTES + TAG_BYTES:
        raise DamagedError(f"{key}: cut short, it has {len(wrapped)} bytes")
    return flags, length_bytes


def _unsqueeze(key: str, payload: bytes, length_bytes: int) -> bytes:
    try:
        content: bytes = lz4.block.decompress(payload, uncompressed_size=length_bytes)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise DamagedError(f"{key}: lz4: {error}") from None
    if len(content) != length_bytes:
        raise DamagedError(f"{key}: lz4: {len(content)} bytes instead of {length_bytes}")
    return content


def _tag(beside: bytes, payload: bytes) -> bytes:
    return hashlib.blake2b(
        len(beside).to_bytes(4, "little") + beside + payload, digest_size=TAG_BYTES, person=b"pyjiva-tag"
    ).digest()
