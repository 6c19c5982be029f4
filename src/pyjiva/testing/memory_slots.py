"""The words of memory of a simulated machine."""

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.sparse import Slot

__all__ = ["MemorySlots"]


@attrs.define(eq=False)
class MemorySlots:
    """`sparse.Slots`: what they hold a kill leaves as it is, and a power cut does not."""

    words: dict[str, memoryview] = attrs.field(factory=dict)
    """By name."""
    available: bool = True
    """Whether new ones are to be had."""
    _made: int = attrs.field(default=0, init=False)

    def __deepcopy__(self, _memo: object) -> "MemorySlots":
        """Who copies a disk copies no memory."""
        return MemorySlots()

    def make(self) -> Slot:
        """See Slots."""
        if not self.available:
            raise StorageError(StorageFailure.NOT_SUPPORTED, "no slots on this machine")
        self._made += 1
        name = f"pyjiva-slot-{self._made:032x}"
        self.words[name] = memoryview(bytearray(8)).cast("Q")
        return Slot(name, self.words[name], lambda: self.remove(name))

    def look(self, name: str) -> int | None:
        """See Slots."""
        word = self.words.get(name)
        return None if word is None else int(word[0])

    def remove(self, name: str) -> None:
        """See Slots."""
        self.words.pop(name, None)
