"""How many of a volume's replicas make a majority, and how many copies a write needs.  Pure.

Written as tables (STYLE §5): the formula n // 2 + 1 is easy to get wrong by one, a table is easy to read; a
test compares the two.
"""

from typing import Final

__all__ = ["MAJORITY", "MIN_COPIES_DEFAULT", "REPLICAS_MAX"]

REPLICAS_MAX: Final = 7

#: Replicas configured → how many of them must promise an epoch or accept a record.
MAJORITY: Final[dict[int, int]] = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4}

#: Replicas configured → how many in-sync members there must be for writes to go on; else they are parked.
MIN_COPIES_DEFAULT: Final[dict[int, int]] = MAJORITY
