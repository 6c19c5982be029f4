"""Data that rots."""

from pathlib import Path

__all__ = ["flip_bit"]


def flip_bit(path: Path, offset_bytes: int) -> None:
    """Spoil one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset_bytes)
        (byte,) = file.read(1)
        file.seek(offset_bytes)
        file.write(bytes([byte ^ 1]))
