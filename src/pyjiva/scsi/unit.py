"""A logical unit: a block device with an identity, a task set and unit attentions.  Pure.

Task set.  `enter` puts a task in when its command arrives, `left` takes it out when it is finished.  Simple
tasks run at once, in any order (control mode page: QUEUE ALGORITHM MODIFIER 1).  Tasks are held back only
while the unit is *strict*, that is while the task set contains

- an ORDERED task: it waits for all older ones, and all younger ones wait for it (SAM-5 §8.6);
- a task that has blocks for itself (`exclusively`): it waits for the running ones that touch them, and others
  that touch them wait for it;
- a task of a lost nexus: commands of the same initiator port wait for it, so that a write that was repeated
  after a reconnect cannot be followed by its first edition, late.

Unit attentions are kept for each nexus, oldest first (SAM-5 §5.14).

Reservations and mode parameters are kept here; `restricted` is the one flag that commands test.  What must
survive the process goes through `save`; commands that save, or decide by what is being saved, take turns.
"""  # hot

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import attrs

from pyjiva.block import BlockDevice, MemoryParameters, ParameterStore, SpaceSource
from pyjiva.errors import ConfigError, StorageError
from pyjiva.scsi.codes import AdditionalSense, SenseKey, TaskAttribute
from pyjiva.scsi.reservation import Conflict, Reservations
from pyjiva.scsi.saved import ModeParameters, Saved, decode_saved, encode_saved
from pyjiva.scsi.sense import Sense
from pyjiva.scsi.task import Nexus, Task
from pyjiva.scsi.third_party_copy import CopyResults
from pyjiva.scsi.threshold import REACHED, count_default, is_below, set_exponent
from pyjiva.scsi.touched import overlaps
from pyjiva.scsi.turns import Turns
from pyjiva.units import KIB, MIB

__all__ = [
    "COMPARE_AND_WRITE_BLOCKS_MAX",
    "PHYSICAL_BLOCK_BYTES",
    "RELATIVE_TARGET_PORT",
    "TARGET_PORT_GROUP",
    "TRANSFER_BYTES_MAX",
    "TRANSFER_BYTES_OPTIMAL",
    "LogicalUnit",
    "UnitIdentity",
]

PHYSICAL_BLOCK_BYTES: Final = 4 * KIB  # what a sparse file can allocate
TRANSFER_BYTES_MAX: Final = 4 * MIB  # one READ or WRITE: with the command window it bounds a session's memory
TRANSFER_BYTES_OPTIMAL: Final = 1 * MIB
COMPARE_AND_WRITE_BLOCKS_MAX: Final = 128
RELATIVE_TARGET_PORT: Final = 1  # several portals of one portal group are one port (RFC 7143 §4.4.2)
TARGET_PORT_GROUP: Final = 1
LOGICAL_BLOCK_BYTES: Final = (512, 4096)
_ORDERED: Final = int(TaskAttribute.ORDERED)
ATTENTIONS_MAX: Final = 8  # for one nexus; a longer queue tells the initiator nothing more

POWER_ON: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.POWER_ON_OR_RESET)
CAPACITY_CHANGED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.CAPACITY_DATA_HAS_CHANGED)


class Sanitizing(Protocol):
    """A SANITIZE that runs (`sanitize`)."""

    done_bytes: int
    total_bytes: int


@attrs.frozen
class UnitIdentity:
    """What an initiator recognizes the unit by; it must not change while the volume exists."""

    volume_id: str
    """Unique and stable (a UUID): VPD pages 80h and 83h are made from it."""
    vendor: str = "OPENEBS"
    product: str = "PYJIVA"
    revision: str = "0001"

    @property
    def serial_number(self) -> str:
        """Unit serial number (VPD page 80h)."""
        return self.volume_id

    @property
    def network_address_authority(self) -> bytes:
        """Eight bytes, NAA 3h "locally assigned" (SPC-4 §7.8.6.6.4): 60 bits of a hash of the volume id."""
        digest = hashlib.sha256(b"pyjiva logical unit " + self.volume_id.encode()).digest()
        return bytes([0x30 | digest[0] & 0x0F]) + digest[1:8]


@attrs.define(eq=False)
class LogicalUnit:
    """One LUN: `device` seen as blocks of `block_size_bytes`."""

    device: BlockDevice
    identity: UnitIdentity
    block_size_bytes: int
    store: ParameterStore = attrs.field(factory=MemoryParameters)
    """Where what must survive this process is kept; read when the unit is made."""
    read_only: bool = False
    """Offered for reading alone, whatever the mode pages say."""
    space_source: SpaceSource | None = None
    """Who knows how much room is left; None: nothing about it is told."""
    blocks: int = attrs.field(init=False)
    """Capacity in logical blocks."""
    block_shift: int = attrs.field(init=False)
    luns: tuple[bytes, ...] = attrs.field(default=(bytes(8),), init=False)
    """LUN list of the target device that this unit belongs to (REPORT LUNS)."""
    target_port_name: str = attrs.field(default="", init=False)
    """The SCSI name of the port that it is reached by; empty: it is not known."""
    tasks: dict[Task, None] = attrs.field(factory=dict, init=False)
    """The task set, oldest first."""
    attentions: dict[Nexus, list[Sense]] = attrs.field(factory=dict, init=False)
    """Pending unit attentions; a nexus without any has no entry."""
    strict: bool = attrs.field(default=False, init=False)
    """The order of tasks matters at present."""
    saved: Saved = attrs.field(init=False)
    """What the store holds."""
    reservations: Reservations = attrs.field(init=False)
    reserved_by: Nexus | None = attrs.field(default=None, init=False)
    """Who holds the unit by RESERVE(6) or (10); never together with a registration."""
    mode: ModeParameters = attrs.field(init=False)
    restricted: bool = attrs.field(default=False, init=False)
    """Some commands are refused at present: a reservation, write protection, or a SANITIZE."""
    sanitizing: "Sanitizing | None" = attrs.field(default=None, init=False)
    copies: CopyResults = attrs.field(factory=CopyResults, init=False)
    turns: Turns = attrs.field(factory=Turns, init=False)
    _nexuses: dict[Nexus, None] = attrs.field(factory=dict, init=False)
    _held: list[tuple[Task, Callable[[Task], None]]] = attrs.field(factory=list, init=False)
    _sections: list[tuple[Task, Callable[[], None]]] = attrs.field(factory=list, init=False)
    """Tasks that wait to have their blocks for themselves, oldest first."""
    _threshold_reached: bool = attrs.field(default=False, init=False)
    """The initiators were told, and there is no more room than then."""
    _reviewing: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.block_size_bytes not in LOGICAL_BLOCK_BYTES:
            raise ConfigError(f"block size {self.block_size_bytes}: choose 512 or 4096")
        if self.device.size_bytes < self.block_size_bytes:
            raise ConfigError(f"a device of {self.device.size_bytes} bytes has no whole block")
        self.block_shift = self.block_size_bytes.bit_length() - 1
        self.blocks = self.device.size_bytes >> self.block_shift
        self.saved = decode_saved(self.store.parameters)
        self.reservations = self.saved.reservations or Reservations()
        self.mode = self.saved.mode
        self.restrict()

    # Nexuses and unit attentions

    def attach(self, nexus: Nexus) -> None:
        """A new session sees the unit: its first command gets "power on or reset"."""
        self._nexuses[nexus] = None
        self.attentions[nexus] = [POWER_ON]

    def detach(self, nexus: Nexus) -> None:
        """The session is gone (`nexus.lost`); its running tasks go on to their end."""
        self._nexuses.pop(nexus, None)
        self.attentions.pop(nexus, None)
        if self.reserved_by is nexus:  # SPC-2 §5.5.1: with the nexus goes its reservation
            self.reserve_for(None)
        if any(task.nexus is nexus for task in self.tasks):
            self.strict = True

    def establish_attention(self, sense: Sense, *, except_for: Nexus | None = None) -> None:
        """Tell every session (but one) with its next command."""
        for nexus in self._nexuses:
            if nexus is not except_for:
                self.establish_attention_for(nexus, sense)

    def establish_attention_for(self, nexus: Nexus, sense: Sense) -> None:
        """Tell one session with its next command."""
        if nexus in self._nexuses:
            pending = self.attentions.setdefault(nexus, [])
            if sense not in pending and len(pending) < ATTENTIONS_MAX:
                pending.append(sense)

    def take_attention(self, nexus: Nexus) -> Sense | None:
        """The oldest pending unit attention, which is thereby cleared."""
        pending = self.attentions.get(nexus)
        if not pending:
            return None
        sense = pending.pop(0)
        if not pending:
            del self.attentions[nexus]
        return sense

    def capacity_changed(self) -> None:
        """The device has another size: every initiator is told."""
        self.blocks = self.device.size_bytes >> self.block_shift
        self.establish_attention(CAPACITY_CHANGED)

    # Room on the disks below

    @property
    def threshold_exponent(self) -> int:
        """Blocks of a threshold set, as a power of two."""
        return set_exponent(self.blocks, self.block_shift)

    @property
    def threshold_set_bytes(self) -> int:
        """Bytes of a threshold set."""
        return 1 << self.threshold_exponent + self.block_shift

    def threshold_count(self, mode: ModeParameters) -> int:
        """THRESHOLD COUNT under `mode`."""
        if mode.threshold_count is not None:
            return mode.threshold_count
        return count_default(self.device.size_bytes, self.threshold_set_bytes)

    def review_space(self) -> None:
        """To be called every few seconds: tells the initiators when there is little room left."""
        space = self.space_source.space if self.space_source is not None else None
        if space is None:
            return
        reached = (
            self.mode.report_thresholds
            and self.mode.threshold_enabled
            and is_below(space, self.threshold_count(self.mode), self.threshold_set_bytes)
        )
        if reached and not self._threshold_reached:
            self.establish_attention(REACHED)
        self._threshold_reached = reached and bool(self._nexuses)  # else nobody was told

    def nexuses(self) -> list[Nexus]:
        """The sessions that see the unit, oldest first."""
        return list(self._nexuses)

    # Reservations, mode parameters, and what is saved of them

    def save(self, saved: Saved, done: Callable[[StorageError | None], None]) -> None:
        """Make `saved` what a restart finds.  Only in one's turn."""

        def stored(error: StorageError | None) -> None:
            if error is None:
                self.saved = saved
            done(error)

        if saved == self.saved:
            done(None)
        else:
            self.store.save_parameters(encode_saved(saved), stored)

    def set_reservations(self, reservations: Reservations) -> None:
        """They are in force from now on."""
        self.reservations = reservations
        self.restrict()

    def reserve_for(self, nexus: Nexus | None) -> None:
        """RESERVE(6) or (10), or its end."""
        self.reserved_by = nexus
        self.restrict()

    def set_mode(self, mode: ModeParameters) -> None:
        """They are in force from now on."""
        self.mode = mode
        self.restrict()

    @property
    def write_protected(self) -> bool:
        """Nothing may be written."""
        return self.read_only or self.mode.write_protected

    def restrict(self) -> None:
        """Find out anew whether some commands are refused."""
        self.restricted = (
            self.reservations.reservation is not None
            or self.reserved_by is not None
            or self.write_protected
            or self.sanitizing is not None
            or self.saved.sanitize is not None
        )

    def conflicts(self, nexus: Nexus, conflict: Conflict) -> bool:
        """Whether a reservation forbids a command of `nexus`."""
        if self.reserved_by is not None:  # SPC-2 §5.5.1
            return self.reserved_by is not nexus and conflict is not Conflict.NEVER
        return self.reservations.conflicts(nexus.initiator_port, conflict)

    def reset(self) -> None:
        """LOGICAL UNIT RESET or more: what is not persistent ends (SPC-2 §5.5.1, SPC-4 §7.5.2)."""
        self.reserve_for(None)
        self.set_mode(self.saved.mode)
        self._threshold_reached = False  # SBC-3 §4.7.3.7: to be told again

    # Task set

    def enter(self, task: Task) -> None:
        """A command for this unit has arrived."""
        task.unit = self
        self.tasks[task] = None
        if task.attribute == _ORDERED:
            self.strict = True

    def hold(self, task: Task, resume: Callable[[Task], None]) -> bool:
        """Whether `task` must wait although its data is there; then `resume(task)` is called later."""
        if self._may_start(task):
            return False
        self._held.append((task, resume))
        return True

    def left(self, task: Task) -> None:
        """`task` is finished, or was dropped before it ran."""
        del self.tasks[task]
        if self.strict:
            self._review()

    def exclusively(self, task: Task, first: int, end: int, begin: Callable[[], None]) -> None:
        """Call `begin` when nothing else touches the blocks from `first` on, before `end`; nothing will until
        `task` is finished.
        """
        task.exclusive = (first, end)
        self.strict = True
        if self._has_for_itself(task):
            begin()
        else:
            self._sections.append((task, begin))

    def shares_again(self, task: Task) -> None:
        """`task` is not finished, and others may touch its blocks again."""
        task.exclusive = None
        self._review()

    def _has_for_itself(self, task: Task) -> bool:
        assert task.exclusive is not None
        first, end = task.exclusive
        waiting = {other for other, _ in self._sections}
        return not any(
            other is not task and other.running and other not in waiting and overlaps(other.cdb, first, end)
            for other in self.tasks
        )

    def drop(self, task: Task) -> None:
        """Take out a task that was never given to its handler; its `done` is not called."""
        assert not task.running
        self._held = [held for held in self._held if held[0] is not task]
        self.left(task)

    def _may_start(self, task: Task) -> bool:
        head = task.attribute == TaskAttribute.HEAD_OF_QUEUE
        ordered = task.attribute == TaskAttribute.ORDERED
        return not any(
            ordered or (older.attribute == TaskAttribute.ORDERED and not head) or self._repeats(task, older)
            for older in self._older(task)
        ) and not any(  # a younger one too, if it came to its blocks first
            other.exclusive is not None and other is not task and overlaps(task.cdb, *other.exclusive)
            for other in self.tasks
        )

    def _older(self, task: Task) -> Iterator[Task]:
        for older in self.tasks:
            if older is task:
                return
            yield older

    def _repeats(self, task: Task, older: Task) -> bool:
        return older.nexus.lost and older.nexus.initiator_port == task.nexus.initiator_port

    def _review(self) -> None:
        if self._reviewing:  # a task that was just resumed is finished already: the loop below goes on
            return
        self._reviewing = True
        while True:
            self.strict = any(
                t.attribute == TaskAttribute.ORDERED or t.nexus.lost or t.exclusive is not None
                for t in self.tasks
            )
            section = next((each for each in self._sections if self._has_for_itself(each[0])), None)
            if section is not None:
                self._sections.remove(section)
                section[1]()
                continue
            held = next((held for held in self._held if self._may_start(held[0])), None)
            if held is None:
                break
            self._held.remove(held)
            held[1](held[0])
        self._reviewing = False
