"""What Jiva's controller answered to `GET /v1/stats`, of a volume of ours, for its exporters.  Pure.

Numbers are strings where Jiva had them so.  What we do not have is said by a value that no exporter takes for
something: no revision counter (0), no count by SCSI opcode (none), no head and chain of files of a replica
(left out).  Jiva's block counts of I/O are bytes, its times nanoseconds.
"""

from typing import Any, Final

from pyjiva.block import Meters, Read, Write
from pyjiva.controller.status import WITNESS, ReplicaStatus, VolumeState, VolumeStatus
from pyjiva.transport.openapi import Schema, object_schema

__all__ = ["STATS_SCHEMA", "jiva_stats"]

#: Our mode of a replica → Jiva's.
MODES: Final = {"in-sync": "RW", "rebuilding": "WO", "out": "ERR"}


def jiva_stats(status: VolumeStatus, meters: Meters, *, url: str, sessions: int) -> dict[str, Any]:
    """As STATS_SCHEMA says.  `url`: where this is asked for."""
    reads, writes = meters.of[Read], meters.of[Write]
    copies = [replica for replica in status.replicas if replica.mode != WITNESS]
    in_sync = [replica.used_bytes or 0 for replica in copies if replica.mode == "in-sync"]
    used_blocks = max(in_sync, default=0) // status.block_size_bytes
    return {
        "id": status.name,
        "type": "stats",
        "links": {"self": url},
        "actions": {},
        "IsClientConnected": sessions > 0,
        "RevisionCounter": 0,
        "ReplicaCounter": sum(replica.mode != "out" for replica in copies),
        "SCSIIOCount": {},
        "ReadIOPS": str(reads.times.count),
        "TotalReadTime": str(reads.times.total_ns),
        "TotalReadBlockCount": str(reads.length_bytes),
        "WriteIOPS": str(writes.times.count),
        "TotalWriteTime": str(writes.times.total_ns),
        "TotalWriteBlockCount": str(writes.length_bytes),
        "UsedLogicalBlocks": str(used_blocks),
        "UsedBlocks": str(used_blocks),
        "SectorSize": str(status.block_size_bytes),
        "Size": str(status.size_bytes),
        "UpTime": f"{meters.uptime_s:.0f}",
        "Name": status.name,
        "Replicas": [{"Address": f"tcp://{each.address}", "Mode": MODES[each.mode]} for each in copies],
        "ReplicaInfo": [_info(each, status) for each in copies],
        "Status": "RO" if status.state is VolumeState.PARKED else "RW",
    }


def _info(replica: ReplicaStatus, status: VolumeStatus) -> dict[str, Any]:
    used_blocks = (replica.used_bytes or 0) // status.block_size_bytes
    return {
        "rebuilding": replica.mode == "rebuilding",
        "size": str(status.size_bytes),
        "sectorSize": status.block_size_bytes,
        "replicamode": MODES[replica.mode],
        "usedlogicalblocks": str(used_blocks),
        "usedblocks": str(used_blocks),
    }


_COUNT: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$"}
_MODE: Final[Schema] = {"enum": list(MODES.values())}
_NUMBERS: Final = (
    *("ReadIOPS", "TotalReadTime", "TotalReadBlockCount"),
    *("WriteIOPS", "TotalWriteTime", "TotalWriteBlockCount"),
    *("UsedLogicalBlocks", "UsedBlocks", "SectorSize", "Size", "UpTime"),
)
STATS_SCHEMA: Final = object_schema(
    {
        "id": {"type": "string"},
        "type": {"const": "stats"},
        "links": object_schema({"self": {"type": "string"}}),
        "actions": object_schema({}),
        "IsClientConnected": {"type": "boolean"},
        "RevisionCounter": {"const": 0},
        "ReplicaCounter": {"type": "integer"},
        "SCSIIOCount": object_schema({}),
        **dict.fromkeys(_NUMBERS, _COUNT),
        "Name": {"type": "string"},
        "Replicas": {
            "type": "array",
            "items": object_schema({"Address": {"type": "string"}, "Mode": _MODE}),
        },
        "ReplicaInfo": {
            "type": "array",
            "items": object_schema(
                {
                    "rebuilding": {"type": "boolean"},
                    "size": _COUNT,
                    "sectorSize": {"type": "integer"},
                    "replicamode": _MODE,
                    "usedlogicalblocks": _COUNT,
                    "usedblocks": _COUNT,
                }
            ),
        },
        "Status": {"enum": ["RW", "RO"]},
    }
)
