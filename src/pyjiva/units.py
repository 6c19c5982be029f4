"""Sizes: the constants, and reading and printing them the way people write them."""

import re
from typing import Final

from pyjiva.errors import ConfigError

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "STORED_BLOCK_BYTES",
    "TIB",
    "align_down",
    "align_up",
    "format_size",
    "parse_size",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB
STORED_BLOCK_BYTES: Final = 4 * KIB
"""What a replica keeps as a whole, with a checksum of its own."""

_SIZE: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$", re.ASCII)
# Like Kubernetes' resource.Quantity: "Gi" and "GiB" are powers of two, "G" and "GB" powers of ten.
_SUFFIXES: Final[dict[str, int]] = {
    "": 1, "b": 1,
    "ki": KIB, "kib": KIB, "k": 10**3, "kb": 10**3,
    "mi": MIB, "mib": MIB, "m": 10**6, "mb": 10**6,
    "gi": GIB, "gib": GIB, "g": 10**9, "gb": 10**9,
    "ti": TIB, "tib": TIB, "t": 10**12, "tb": 10**12,
}  # fmt: skip


def parse_size(text: str) -> int:
    """The bytes that `text` ("10GiB", "512Mi", "1.5T", "4096") means.

    Raises ConfigError: not a number with a known suffix, or not a whole number of bytes.
    """
    match = _SIZE.match(text)
    factor = _SUFFIXES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ConfigError(f"size {text!r}: write a number and a unit, such as 10GiB, 512MiB or 1.5TiB")
    whole, _, fraction = match[1].partition(".")
    divisor: int = 10 ** len(fraction)
    size_bytes, rest = divmod(int(whole + fraction) * factor, divisor)
    if rest:
        raise ConfigError(f"size {text!r}: not a whole number of bytes")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """`size_bytes` for people, in the largest binary unit, with at most one decimal ("10GiB", "1.5TiB")."""
    for name, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f}".removesuffix(".0") + name
    return f"{size_bytes}B"


def align_down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step
