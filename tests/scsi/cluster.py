"""A disk, three initiators that see it, and the reservation commands that they send."""

import struct
from typing import Final

import attrs

from pyjiva.block import MemoryParameters
from pyjiva.scsi import Nexus, Task
from pyjiva.scsi.reservation import ReservationType
from tests.scsi.conftest import Disk, HeldParameters, make_disk

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, MOVE = range(8)
READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS = range(4)
WE, EA, WE_RO, EA_RO, WE_AR, EA_AR = ReservationType
A, B, C = (f"iqn.2026-01.test:{name},i,0x00023d00000{name}" for name in "abc")

TEST_UNIT_READY = bytes(6)
READ: Final = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0)
WRITE: Final = struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0)
BLOCK = b"x" * 512
RESERVE_6, RELEASE_6 = b"\x16" + bytes(5), b"\x17" + bytes(5)
RESERVE_10, RELEASE_10 = b"\x56" + bytes(9), b"\x57" + bytes(9)


def out(action: int, kind: int = 0, length: int = 24) -> bytes:
    """The CDB of a PERSISTENT RESERVE OUT."""
    return struct.pack(">BBBxxIB", 0x5F, action, kind, length, 0)


def keys(key: int = 0, action_key: int = 0, flags: int = 0) -> bytes:
    """Its basic parameter list."""
    return struct.pack(">QQ4xB3x", key, action_key, flags)


@attrs.define
class Cluster:
    """A disk and three initiators that see it."""

    disk: Disk
    nexuses: dict[str, Nexus]

    def start(
        self, port: str, action: int, key: int = 0, action_key: int = 0, kind: int = 0, flags: int = 0
    ) -> Task:
        """Give a PERSISTENT RESERVE OUT to the server."""
        return self.disk.start(out(action, kind), keys(key, action_key, flags), nexus=self.nexuses[port])

    def do(
        self, port: str, action: int, key: int = 0, action_key: int = 0, kind: int = 0, flags: int = 0
    ) -> int:
        """The status of a PERSISTENT RESERVE OUT."""
        task = self.start(port, action, key, action_key, kind, flags)
        assert task in self.disk.answered
        return task.status

    def status(self, port: str, cdb: bytes, data: bytes = b"") -> int:
        """The status of any command."""
        return self.disk.run(cdb, data, nexus=self.nexuses[port]).status

    def attention(self, port: str) -> int | None:
        """The additional sense of the next unit attention."""
        sense = self.disk.unit.take_attention(self.nexuses[port])
        return None if sense is None else sense.additional

    def read(self, action: int, length: int = 8192, port: str = A) -> bytes:
        """The data of a PERSISTENT RESERVE IN."""
        cdb = struct.pack(">BB5xHB", 0x5E, action, length, 0)
        return self.disk.data(cdb, nexus=self.nexuses[port])


def make_cluster(store: MemoryParameters | HeldParameters | None = None) -> Cluster:
    """A, B and C are logged in, without pending unit attentions."""
    disk = make_disk(store=store)
    nexuses = {port: Nexus(port) for port in (A, B, C)}
    for nexus in nexuses.values():
        disk.server.attach(nexus)
    disk.unit.attentions.clear()
    return Cluster(disk, nexuses)
