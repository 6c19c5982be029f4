"""What holds for a whole store: the object `pyjiva-backup.json`, and the keys that follow from it.  Pure.

The one object that is not wrapped, so that whoever finds a store can read what it is.  It never changes.
"""

import hashlib
import hmac
import json
from typing import Any, Final, Self

import attrs

from pyjiva.backup.objects import DamagedError
from pyjiva.errors import ConfigError
from pyjiva.units import KIB, MIB

__all__ = ["CHUNK_BYTES", "CONFIGURATION_KEY", "FORMAT_VERSION", "Configuration", "Keys"]

CONFIGURATION_KEY: Final = "pyjiva-backup.json"
FORMAT_VERSION: Final = 1
CHUNK_BYTES: Final = MIB  # docs/decisions/0007-backup.md
CHUNK_BYTES_MIN: Final = 4 * KIB
CHUNK_BYTES_MAX: Final = 16 * MIB
SALT_BYTES: Final = 16
NAME_BYTES: Final = 32
PLAIN: Final = "none"
AES_GCM: Final = "aes-256-gcm"


@attrs.frozen
class Keys:
    """What the operator's key is turned into for one store; nothing of it can be told from another part."""

    name: bytes = attrs.field(repr=False)
    """Names of chunks are keyed by it; empty without encryption."""
    cipher: bytes = attrs.field(repr=False)
    """For AES-256-GCM; empty without encryption."""

    @property
    def encrypts(self) -> bool:
        """Whether the store is encrypted."""
        return bool(self.cipher)

    def name_of(self, content: bytes | bytearray | memoryview) -> bytes:
        """The name of a chunk: BLAKE2b-256 of its content, keyed if the store is encrypted (RFC 7693)."""
        return hashlib.blake2b(
            content, digest_size=NAME_BYTES, key=self.name, person=b"pyjiva-chunk"
        ).digest()


@attrs.frozen
class Configuration:
    """What `pyjiva-backup.json` says."""

    chunk_bytes: int
    salt: bytes
    """Random, so that one key gives other names and ciphers in another store."""
    encryption: str
    key_check: bytes
    """Shows whether a key is this store's, before anything else is read; empty without encryption."""

    @classmethod
    def new(cls, *, chunk_bytes: int, salt: bytes, secret: bytes | None) -> Self:
        """Of a new store, encrypted if there is a `secret`."""
        _check_chunk_bytes(chunk_bytes)
        made = cls(chunk_bytes, salt, PLAIN if secret is None else AES_GCM, b"")
        return made if secret is None else attrs.evolve(made, key_check=made._check_of(secret))

    def keys(self, secret: bytes | None, store: str) -> Keys:
        """The keys.  Raises ConfigError: `secret` (None: there is none) is not what the store needs."""
        if self.encryption == PLAIN:
            if secret is not None:
                raise ConfigError(
                    f"{store} is not encrypted, but a key was given: take another store, or no key"
                )
            return Keys(b"", b"")
        if secret is None:
            raise ConfigError(f"{store} is encrypted: give its key with --key-file")
        if not hmac.compare_digest(self._check_of(secret), self.key_check):
            raise ConfigError(f"{store}: this is not its key")
        return Keys(name=self._derive(secret, b"pyjiva-names"), cipher=self._derive(secret, b"pyjiva-cipher"))

    def encode(self) -> bytes:
        """The object."""
        fields = {
            "format": FORMAT_VERSION,
            "chunk_bytes": self.chunk_bytes,
            "salt": self.salt.hex(),
            "encryption": self.encryption,
            "key_check": self.key_check.hex(),
        }
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """What `encode` gave.  Raises DamagedError: it is anything else; ConfigError: a newer format."""
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _damaged("not JSON") from error
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise _damaged("no format version")
        if fields["format"] != FORMAT_VERSION:
            raise ConfigError(
                f"{CONFIGURATION_KEY} has format {fields['format']}, this pyjiva reads {FORMAT_VERSION}: "
                "take the newer one"
            )
        try:
            return cls._from(fields)
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise _damaged(str(error)) from error

    @classmethod
    def _from(cls, fields: dict[str, Any]) -> Self:
        if set(fields) != {"format", "chunk_bytes", "salt", "encryption", "key_check"}:
            raise ValueError("not the fields of a store")
        salt, key_check = bytes.fromhex(fields["salt"]), bytes.fromhex(fields["key_check"])
        _check_chunk_bytes(fields["chunk_bytes"])
        if fields["encryption"] not in (PLAIN, AES_GCM) or len(salt) != SALT_BYTES:
            raise ValueError("an encryption or a salt that cannot be")
        if len(key_check) != (NAME_BYTES if fields["encryption"] == AES_GCM else 0):
            raise ValueError("a key_check that cannot be")
        return cls(fields["chunk_bytes"], salt, fields["encryption"], key_check)

    def _check_of(self, secret: bytes) -> bytes:
        said = f"{FORMAT_VERSION} {self.chunk_bytes} {self.encryption}".encode()
        return hashlib.blake2b(
            said, digest_size=NAME_BYTES, key=self._derive(secret, b"pyjiva-check")
        ).digest()

    def _derive(self, secret: bytes, purpose: bytes) -> bytes:
        # BLAKE2's key has at most 64 bytes; its salt and person keep uses apart (RFC 7693 §2.5, BLAKE2 §2.8).
        short = hashlib.blake2b(secret).digest()
        return hashlib.blake2b(digest_size=NAME_BYTES, key=short, salt=self.salt, person=purpose).digest()


def _check_chunk_bytes(chunk_bytes: object) -> None:
    fits = type(chunk_bytes) is int and CHUNK_BYTES_MIN <= chunk_bytes <= CHUNK_BYTES_MAX
    if not fits or chunk_bytes & (chunk_bytes - 1):  # type: ignore[operator]
        raise ConfigError(f"chunks of {chunk_bytes} bytes: a power of two from 4 KiB to 16 MiB")


def _damaged(why: str) -> DamagedError:
    return DamagedError(f"{CONFIGURATION_KEY} is damaged ({why})")
