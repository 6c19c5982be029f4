"""How much room is left, as initiators are told it: threshold sets, and the warning "soon full".  Pure.

SBC-3 §4.7.3.7 (thresholds), §6.4 (log page 0Ch), §6.5 (mode page 1Ch/02h, LBPERE), §6.6 (VPD page B2h).
Room is counted in threshold sets of 2^exponent blocks.  There is one threshold, for what is available: its
range is one set around the count, and when what is available falls below the upper end of it every initiator
is told, once, until it has risen above that again.

Left out: thresholds for what is used, percentages, and SITUA (all initiators are told).
"""

from typing import Final

from pyjiva.block import Space
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.sense import Sense
from pyjiva.units import MIB

__all__ = [
    "COUNT_MAX",
    "DESCRIPTOR_OFFSET",
    "REACHED",
    "count_default",
    "is_below",
    "set_exponent",
    "sets_of",
]

SET_BYTES: Final = 1 * MIB
COUNT_MAX: Final = 0xFFFF_FFFF  # the counts have 32 bits
DEFAULT_SHARE: Final = 16  # told when less is left than a sixteenth of the unit: a warning, not yet an alarm
DESCRIPTOR_OFFSET: Final = 16  # of the one threshold descriptor in its mode page

REACHED: Final = Sense(
    SenseKey.UNIT_ATTENTION,
    AdditionalSense.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
    information=DESCRIPTOR_OFFSET,  # SBC-3 §4.7.3.7: which descriptor it is about
)


def set_exponent(blocks: int, block_shift: int) -> int:
    """How many blocks a threshold set has, as a power of two: not zero, and so large that all blocks of the
    unit make fewer than 2^32 sets.
    """
    return max(SET_BYTES.bit_length() - 1 - block_shift, blocks.bit_length() - 32)


def sets_of(size_bytes: int, set_bytes: int) -> int:
    """`size_bytes` as a RESOURCE COUNT: whole sets, and what 32 bits can say."""
    return min(size_bytes // set_bytes, COUNT_MAX)


def count_default(size_bytes: int, set_bytes: int) -> int:
    """The THRESHOLD COUNT of a unit of `size_bytes` that nobody has changed."""
    return sets_of(size_bytes // DEFAULT_SHARE, set_bytes)


def is_below(space: Space, count: int, set_bytes: int) -> bool:
    """Whether less is available than the upper end of the threshold's range, which is half a set above its
    count.
    """
    return 2 * space.available_bytes < (2 * count + 1) * set_bytes
