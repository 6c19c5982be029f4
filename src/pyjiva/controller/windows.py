"""Which replica's files this controller reads itself.  Pure.

    none ── a replica on this machine is readable: WINDOW ──▶ asked ── it answers, its files open ──▶ open
      ▲                                                         │                                      │
      └────────── refused, not reachable, lost ─────────────────┴── its stamp has changed, lost ───────┘

Without one a read costs several times as much: the first read after a change of the snapshots, which ends
the window, asks for another one at once.

One window is enough: what is read through it needs no other, and what it does not give is asked for by a
READ.  Why it gives what a READ would: `snapshot.window_sys`.  What that asks of this side:

- `written` and `changed` are called when a change of the volume's data has ended, before its lock is given
  back, whatever became of it; `written` only if it was sent after the window was opened, as the replica may
  have carried it out long before the others, and moved its blocks since, before it gave the window;
- a replica that is lost is forgotten at once;
- the data path reads through it under the lock of a READ, from a member that is readable, and looks at its
  lease afterwards.

A repair writes what a block ought to hold, and its range may then be in the head where the table names a
layer below.  There the block is bad, by a checksum that nobody takes away without changing the stamp: such
reads go to the replica until the block is written again.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import attrs

from pyjiva.buffers import Buffer
from pyjiva.replication import Frame, FrameType, Status, decode_message
from pyjiva.snapshot import WindowName

__all__ = ["OpenWindow", "Window", "Windows"]

AGAIN_S: Final = 1.0  # after one that was shut, or a refusal: a merge shuts one with each of its steps
UNREACHABLE_S: Final = 60.0  # another namespace, user or file system; it may be a new process by then


class Window(Protocol):
    """See `snapshot.window_sys.Window`."""

    is_shut: bool

    def look(self) -> None:
        """See whether it is shut, though nothing is read."""

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """The range, if it is all in memory."""

    def written(self, offset_bytes: int, length_bytes: int) -> None:
        """A write to the range has ended well."""

    def changed(self, offset_bytes: int, length_bytes: int) -> None:
        """Something else has ended that changes the range."""

    def close(self) -> None:
        """Give it back."""


OpenWindow = Callable[[WindowName], Window]
"""Raises OSError: it cannot be reached from here."""

Ask = Callable[[int, FrameType, Callable[[Frame | None], None]], None]
"""Ask a member, which is connected; the answer, or None when it is lost."""


@attrs.define(eq=False)
class Windows:  # hot
    """Of one volume."""

    open_window: OpenWindow | None = None
    """None: there are none."""
    clock: Callable[[], float] = lambda: 0.0
    """Seconds; not looked at where there are no windows."""
    reads: int = attrs.field(default=0, init=False)
    """Of hosts that were answered through a window."""
    opened: int = attrs.field(default=0, init=False)
    """How many windows there have been."""
    window: Window | None = attrs.field(default=None, init=False)
    """The one that is open."""
    bit: int = attrs.field(default=0, init=False)
    """Of the member whose it is; 0: none is open."""
    _near: dict[int, float] = attrs.field(factory=dict, init=False)
    """Members on this machine, and when each may be asked."""
    _bits: dict[int, int] = attrs.field(factory=dict, init=False)
    _whose: int | None = attrs.field(default=None, init=False)
    """Who was asked, or whose window is open."""
    _size_bytes: int = attrs.field(default=0, init=False)

    def near(self, member: int, bit: int) -> None:
        """`member` is connected, and on this machine as far as its address says."""
        if self.open_window is not None:
            self._near[member], self._bits[member] = self.clock(), bit

    def lost(self, member: int) -> None:
        """The connection to `member` is gone."""
        self._near.pop(member, None)
        if member == self._whose:
            self.close()

    def doubt(self, member: int) -> None:
        """`member` has refused something: its files are not believed, whatever its stamp says."""
        if member == self._whose and self.window is not None:
            self._shut()

    def _shut(self) -> None:
        if self._whose is not None:
            self._near[self._whose] = self.clock() + AGAIN_S
        self.close()

    def close(self) -> None:
        """Give back the window, if there is one."""
        if self.window is not None:
            self.window.close()
        self.window, self.bit, self._whose = None, 0, None

    def tick(self, size_bytes: int, readable: int, ask: Ask) -> None:
        """Look whether there still is a window, as it keeps files of layers that are gone; then as `want`."""
        if self.window is not None:
            self.window.look()
            if self.window.is_shut:
                self._shut()
        self.want(size_bytes, readable, ask)

    def want(self, size_bytes: int, readable: int, ask: Ask) -> None:
        """Ask for a window if there is none and somebody may be asked.

        `size_bytes`: of the volume; `readable`: members, as bits.
        """
        if self._whose is not None or not self._near:
            return
        self._size_bytes, now_s = size_bytes, self.clock()
        for member, at_s in self._near.items():
            if at_s <= now_s and self._bits[member] & readable:
                self._whose = member
                ask(member, FrameType.WINDOW, partial(self._answered, member))
                return

    def _answered(self, member: int, frame: Frame | None) -> None:
        if member != self._whose:  # it was lost, and may be back
            return
        self._whose = None
        if frame is None:
            return
        assert self.open_window is not None
        never = frame.code == Status.NOT_SUPPORTED
        self._near[member] = self.clock() + (UNREACHABLE_S if never else AGAIN_S)
        if frame.code != Status.OK:
            return
        name = decode_message(frame.payload, WindowName)
        if name.size_bytes != self._size_bytes:  # it has just grown, or is about to
            return
        try:
            self.window = self.open_window(name)
        except OSError:
            self._near[member] = self.clock() + UNREACHABLE_S
        else:
            self.bit, self._whose = self._bits[member], member
            self._near[member] = self.clock()  # for the time after `close`, if it is not shut before
            self.opened += 1

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """The range, if it can be read here and now; a window is open."""
        assert self.window is not None
        data = self.window.read_nowait(offset_bytes, length_bytes)
        if data is None and self.window.is_shut:
            self._shut()
        return data

    def told(self, extent: tuple[int, int], *, written: bool) -> None:
        """A change of the range, offset and length in bytes, has ended; `written`: it was a write, and all
        have it.
        """
        if self.window is None:
            return
        if written:
            self.window.written(*extent)
        else:
            self.window.changed(*extent)
