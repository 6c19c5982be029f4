"""Which requests were made before, so that one that is sent again does nothing again.  Pure.

`Idempotency-Key` of draft-ietf-httpapi-idempotency-key-header: who does not know whether a request arrived
sends it again with the same key, and is given the answer of the first time.  Only the answer to what was done
is kept: what was refused has changed nothing, and may be asked for again.
"""

import collections
import enum
from typing import Final

import attrs

__all__ = ["KEYS_MAX", "KEY_CHARACTERS_MAX", "KEY_LIFE_S", "KeyTable", "StoredAnswer", "Verdict"]

KEYS_MAX: Final = 256  # the oldest go first
KEY_LIFE_S: Final = 3600.0
KEY_CHARACTERS_MAX: Final = 255


class Verdict(enum.Enum):
    """What to do with a request, when there is no answer to give again."""

    CARRY_OUT = "it is new"
    BUSY = "the first one is under way"
    ANOTHER = "the key was used for another request"


@attrs.frozen
class StoredAnswer:
    """That a request was done."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@attrs.define
class _Entry:
    request: str
    at_s: float
    answer: StoredAnswer | None = None


@attrs.define(eq=False)
class KeyTable:
    """The keys of the last hour."""

    _entries: "collections.OrderedDict[str, _Entry]" = attrs.field(
        factory=collections.OrderedDict, init=False
    )

    def begin(self, key: str, request: str, now_s: float) -> Verdict | StoredAnswer:
        """A request arrives.  After CARRY_OUT comes `done` or `failed`."""
        while self._entries and next(iter(self._entries.values())).at_s <= now_s - KEY_LIFE_S:
            self._entries.popitem(last=False)
        entry = self._entries.get(key)
        if entry is not None:
            if entry.request != request:
                return Verdict.ANOTHER
            return Verdict.BUSY if entry.answer is None else entry.answer
        self._entries[key] = _Entry(request, now_s)
        if len(self._entries) > KEYS_MAX:
            self._forget_the_oldest()
        return Verdict.CARRY_OUT

    def _forget_the_oldest(self) -> None:
        """Not one that is under way: it would be carried out again."""
        oldest = next((key for key, entry in self._entries.items() if entry.answer is not None), None)
        if oldest is not None:
            del self._entries[oldest]

    def done(self, key: str, answer: StoredAnswer) -> None:
        """It was carried out."""
        if (entry := self._entries.get(key)) is not None:  # else it was pushed out meanwhile
            entry.answer = answer

    def failed(self, key: str) -> None:
        """Nothing was done: the key is free again."""
        self._entries.pop(key, None)

    def __len__(self) -> int:
        """How many are known."""
        return len(self._entries)
