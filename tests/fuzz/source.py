"""Bytes that a fuzzer chose, taken apart into choices; when they are used up, every choice is 0."""

from collections.abc import Sequence
from typing import TypeVar

import attrs

__all__ = ["Source"]

T = TypeVar("T")


@attrs.define
class Source:
    """The rest of one input."""

    data: bytes
    position: int = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self.position < len(self.data)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, or what is left of them."""
        piece = self.data[self.position : self.position + count]
        self.position += count
        return piece

    def byte(self) -> int:
        """A number below 256."""
        piece = self.take(1)
        return piece[0] if piece else 0

    def number(self, size_bytes: int) -> int:
        """A number of `size_bytes` bytes."""
        return int.from_bytes(self.take(size_bytes), "big")

    def pick(self, choices: Sequence[T]) -> T:
        """One of at most 256 things."""
        return choices[self.byte() % len(choices)]

    def flag(self) -> bool:
        """One of two things."""
        return bool(self.byte() & 1)

    def text(self) -> bytes:
        """Some bytes as they are, up to 255."""
        return self.take(self.byte())

    def sparse(self, size_bytes: int) -> bytes:
        """`size_bytes` bytes, nearly all of them 0: fields of headers and lists are mostly so."""
        field = bytearray(size_bytes)
        for _ in range(self.byte() % 12):
            at, value = self.number(2), self.byte()
            if size_bytes:
                field[at % size_bytes] = value
        return bytes(field)

    def payload(self) -> bytes:
        """A data segment: a few bytes as they are, or a sparse one of up to 2 KiB."""
        if self.flag():
            return self.text()
        return self.sparse(self.number(2) % 2049)
