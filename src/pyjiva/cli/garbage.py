"""How often a daemon looks for garbage that reference counts do not free.

CPython frees an object when nobody refers to it any more; only objects that refer to each other in a circle
wait for the cyclic collector.  It runs when 700 more objects were made than freed, and goes through all that
were made since; every tenth time also through those that lived over one run, and so on.  A command is some
objects that live until it is answered, so with 32 of them on their way it ran all the time, over objects of
which none was garbage: what a command leaves is no circle.  That took a sixth of a controller's time with
4 KiB at queue depth 32.
"""

import gc
from typing import Final

__all__ = ["YOUNG_MAX", "collect_seldom"]

YOUNG_MAX: Final = 50_000
"""How many more objects are made than freed between two runs, instead of 700.

So many may be garbage in circles meanwhile: 10 MiB, with the 200 bytes or so that one takes.  An iSCSI
session that ended is 28 of them (5 KiB), a request over HTTP the same number; so it is 1,800 of either.  What
is large must not hang on a circle: a stream gives its buffers back when it ends (`BatchedStream.close`).
"""
OLDER_EVERY: Final = 10  # CPython's own: what lived over one run is looked at every tenth, and so on


def collect_seldom() -> None:
    """Let the collector run seldom, and never go through what is there already; to be called once, when all
    is made that the daemon keeps as long as it lives.
    """
    gc.collect()  # what is garbage now would be kept for ever by the next line
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, OLDER_EVERY, OLDER_EVERY)
