"""AES-256-GCM (NIST SP 800-38D) from the `cryptography` package, which `pyjiva[backup]` brings.  Pure.

Nonces are random: up to 2^32 objects under one key two are equal with a chance below 2^-32 (§8.3), which is
4 PiB of chunks of 1 MiB.
"""

from typing import Self

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyjiva.backup.envelope import CipherError

__all__ = ["AesGcm"]


@attrs.frozen
class AesGcm:
    """A Cipher; its key has 32 bytes."""

    _aead: AESGCM = attrs.field(repr=False)

    @classmethod
    def of(cls, key: bytes) -> Self:
        """With this key."""
        return cls(AESGCM(key))

    def seal(self, nonce: bytes, content: bytes, beside: bytes) -> bytes:
        """See Cipher."""
        return self._aead.encrypt(nonce, content, beside)

    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        """See Cipher."""
        try:
            return self._aead.decrypt(nonce, sealed, beside)
        except InvalidTag as error:
            raise CipherError from error
