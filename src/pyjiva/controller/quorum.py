"""How many of a volume's replicas make a majority, and how many copies a write needs.  Pure.

Written as tables (STYLE §5): the formula n // 2 + 1 is easy to get wrong by one, a table is easy to read; a
test compares the two.
"""

from collections.abc import Collection, Iterable
from typing import Final

from pyjiva.membership import REPLICAS_MAX

__all__ = ["MAJORITY", "REPLICAS_MAX", "is_majority", "min_copies_default"]

#: Replicas configured → how many of them must promise an epoch or accept a record.
MAJORITY: Final[dict[int, int]] = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4}


def is_majority(ids: Iterable[int], configurations: Iterable[Collection[int]]) -> bool:
    """Whether `ids` has a majority of each of the configurations."""
    members = set(ids)
    return all(len(members & set(c)) >= MAJORITY[len(c)] for c in configurations)


def min_copies_default(replicas: int, witnesses: int) -> int:
    """How many in-sync members there must be for writes to go on, else they are parked.

    As many as a majority has at least: what is alone in it with all the witnesses has everything.
    """
    return max(1, MAJORITY[replicas + witnesses] - witnesses)
