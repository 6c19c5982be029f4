"""A device server over memory, and one call that carries out a command."""

from collections.abc import Callable

import attrs
import pytest

from pyjiva.block import MemoryDevice, MemoryParameters, ParameterStore, Space
from pyjiva.errors import StorageError
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus, Task, TaskAttribute, UnitIdentity, lun_field
from pyjiva.testing.target import HeldDevice
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB

VOLUME_ID = "4be6f3a0-6f5c-4d0e-9f6e-1d2c3b4a5968"


@attrs.define
class Disk:
    """LUN 0 with 4 MiB, and a logged-in initiator without pending unit attentions."""

    server: DeviceServer
    unit: LogicalUnit
    device: HeldDevice
    memory: MemoryDevice
    nexus: Nexus
    answered: list[Task] = attrs.field(factory=list)

    def done(self, task: Task) -> None:
        """What a transport does with a task that has finished."""
        self.answered.append(task)
        for quiescing in task.quiescings:
            quiescing.leave()

    def start(
        self,
        cdb: bytes,
        data: bytes = b"",
        *,
        lun: int = 0,
        nexus: Nexus | None = None,
        attribute: int = TaskAttribute.SIMPLE,
    ) -> Task:
        """Give a command with all its data to the server."""
        task = Task(cdb.ljust(16, b"\0"), nexus or self.nexus, self.done, attribute, len(data))
        self.server.enter(task, lun_field(lun))
        wanted = min(len(data), self.server.data_out_bytes(task))
        task.data_out, task.data_out_bytes = (data[:wanted],), wanted
        self.server.execute(task)
        return task

    def run(self, cdb: bytes, data: bytes = b"", **options: object) -> Task:
        """The same, for commands that are answered at once."""
        task = self.start(cdb, data, **options)  # type: ignore[arg-type]
        assert self.answered.count(task) == 1
        return task

    def data(self, cdb: bytes, data: bytes = b"", **options: object) -> bytes:
        """The data of a command that must succeed."""
        task = self.run(cdb, data, **options)
        assert task.status == 0, task.sense.hex()
        result = b"".join(task.data_in)
        assert len(result) == task.data_in_bytes
        return result

    def sense(self, cdb: bytes, data: bytes = b"", **options: object) -> tuple[int, int]:
        """(sense key, additional sense) of a command that must fail."""
        task = self.run(cdb, data, **options)
        assert task.status == 2
        return task.sense[2], int.from_bytes(task.sense[12:14], "big")


@attrs.define(eq=False)
class HeldParameters:
    """A store that saves when it is told to."""

    parameters: bytes = b""
    held: list[tuple[bytes, Callable[[StorageError | None], None]]] = attrs.field(factory=list)

    def save_parameters(self, parameters: bytes, done: Callable[[StorageError | None], None]) -> None:
        """Keep the request."""
        self.held.append((parameters, done))

    def release(self, error: StorageError | None = None) -> None:
        """Do the oldest, or let it fail."""
        parameters, done = self.held.pop(0)
        if error is None:
            self.parameters = parameters
        done(error)


@attrs.define
class KnownSpace:
    """A space source that says what a test wants."""

    space: Space | None


def make_disk(
    block_size_bytes: int = 512,
    size_bytes: int = 4 * MIB,
    store: ParameterStore | None = None,
    *,
    read_only: bool = False,
    space: KnownSpace | None = None,
) -> Disk:
    batch = EndOfBatch()
    memory = MemoryDevice(size_bytes)
    device = HeldDevice(memory, batch)
    unit = LogicalUnit(
        device, UnitIdentity(VOLUME_ID), block_size_bytes, store or MemoryParameters(), read_only, space
    )
    server = DeviceServer({0: unit})
    nexus = Nexus("iqn.2026-01.test:i,i,0x00")
    server.attach(nexus)
    unit.attentions.clear()
    return Disk(server, unit, device, memory, nexus)


@pytest.fixture
def disk() -> Disk:
    return make_disk()


@pytest.fixture
def disk_4k() -> Disk:
    return make_disk(4096)
