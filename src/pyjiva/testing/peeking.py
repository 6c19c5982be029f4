"""Windows in simulated worlds: a controller reads the files of a replica as if it were on its machine.

What holds for processes of one machine is played: files are there for everybody until the power goes, also
when the replica that opened them has died, its disk was replaced, or another one has the directory open.
When the power goes the controller would be gone too; here it goes on, and sees no file any more.
"""

from collections.abc import Mapping

from pyjiva.snapshot import WindowName
from pyjiva.snapshot.window_sys import Window, window_over
from pyjiva.testing.machine import Machine

__all__ = ["peek"]


def peek(machines: Mapping[int, Machine], name: WindowName) -> Window:
    """As `window_sys.open_window`: the number of the process is that of its machine.

    Raises OSError: it is another disk by now, say.
    """
    return window_over(name, machines[name.pid].disk.peek)
