"""The SCSI device server: commands in, block device requests out."""

from pyjiva.scsi.codes import AdditionalSense, OperationCode, SenseKey, Status, TaskAttribute
from pyjiva.scsi.device_server import DeviceServer, lun_field
from pyjiva.scsi.sense import Sense
from pyjiva.scsi.task import Nexus, Quiescing, Task
from pyjiva.scsi.traced_server import TracedServer
from pyjiva.scsi.unit import TRANSFER_BYTES_MAX, LogicalUnit, UnitIdentity

__all__ = [
    "TRANSFER_BYTES_MAX",
    "AdditionalSense",
    "DeviceServer",
    "LogicalUnit",
    "Nexus",
    "OperationCode",
    "Quiescing",
    "Sense",
    "SenseKey",
    "Status",
    "Task",
    "TaskAttribute",
    "TracedServer",
    "UnitIdentity",
    "lun_field",
]
