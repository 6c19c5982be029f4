"""The token that requests to an HTTP API carry (RFC 6750 §2.1).  Pure.

A token is a secret shared by a volume's daemons and those who operate it.  It shows in no text that is made
of it: not in a log, not in a traceback.
"""

import hmac
import re
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["OPEN_PATHS", "Token"]

OPEN_PATHS: Final = frozenset({"/v1/health"})
"""What is answered without a token: kubelets, load balancers and watchdogs ask for it and keep no secrets."""
TOKEN_CHARACTERS_MIN: Final = 16
TOKEN_CHARACTERS_MAX: Final = 512  # a header, with all others, is at most 16 KiB

_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # b64token of RFC 6750
_SCHEME: Final = b"bearer"  # compared without case (RFC 9110 §11.1)


@attrs.frozen
class Token:
    """One secret."""

    _secret: str = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Token":
        """White space around it does not count.  Raises ConfigError, which does not show it."""
        secret = text.strip()
        if not TOKEN_CHARACTERS_MIN <= len(secret) <= TOKEN_CHARACTERS_MAX:
            raise ConfigError(f"a token has {TOKEN_CHARACTERS_MIN} to {TOKEN_CHARACTERS_MAX} characters")
        if not _TOKEN.fullmatch(secret):
            raise ConfigError("a token is made of letters, digits and -._~+/")
        return cls(secret)

    def admits(self, authorizations: list[bytes]) -> bool:
        """Whether a request with these Authorization headers is from somebody who knows it.

        How long this takes does not depend on how much of a guess is right.
        """
        if len(authorizations) != 1:
            return False
        scheme, _, given = authorizations[0].partition(b" ")
        return scheme.lower() == _SCHEME and hmac.compare_digest(given.strip(), self._secret.encode())

    def headers(self) -> dict[str, str]:
        """What a request is to carry."""
        return {"Authorization": f"Bearer {self._secret}"}
