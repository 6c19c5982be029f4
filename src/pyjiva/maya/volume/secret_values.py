"""What a volume's Secrets hold, out of their objects.  Pure."""

import base64
from collections.abc import Mapping
from typing import Any

__all__ = ["chap_password_of", "token_of"]


def token_of(secret: Mapping[str, Any]) -> str:
    """The token of the volume's API; "": there is none."""
    return _value(secret, "api.token")


def chap_password_of(secret: Mapping[str, Any]) -> str:
    """What initiators prove themselves with; "": there is none."""
    return _value(secret, "node.session.auth.password")


def _value(secret: Mapping[str, Any], key: str) -> str:
    return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()
