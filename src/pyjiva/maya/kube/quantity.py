"""Kubernetes' quantities (`apimachinery pkg/api/resource`), as far as they are bytes.  Pure."""

import re
from typing import Final

from pyjiva.errors import ConfigError

__all__ = ["QUANTITY", "format_quantity", "parse_quantity"]

QUANTITY: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:([kMGTPE]|[KMGTPE]i)|[eE]([0-9]{1,2}))?")
_POWERS: Final = "KMGTPE"


def parse_quantity(text: str) -> int:
    """The bytes of `text` ("10Gi", "512M", "1.5Gi", "1e9", "4096"); a part of a byte counts whole.

    Raises ConfigError: it is none.  Thousandths ("100m") make no sense for bytes.
    """
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise ConfigError(f"quantity {text!r}: write a number and a unit, such as 10Gi or 500M")
    whole, fraction, suffix, exponent = match.groups()
    fraction = fraction or ""
    factor: int
    if exponent:
        factor = 10 ** int(exponent)
    elif not suffix:
        factor = 1
    else:
        power = _POWERS.index(suffix[0].upper()) + 1
        factor = 1024**power if suffix.endswith("i") else 1000**power
    divisor: int = 10 ** len(fraction)
    return -(-int(whole + fraction) * factor // divisor)


def format_quantity(size_bytes: int) -> str:
    """As Kubernetes would write it: in the largest binary unit that it is a whole number of."""
    for power in range(len(_POWERS), 0, -1):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{_POWERS[power - 1]}i"
    return str(size_bytes)
