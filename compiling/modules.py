"""Which modules are compiled: what every command goes through, and whatever inherits from its classes."""

from typing import Final

__all__ = ["COMPILED", "NOT_COMPILED"]

#: In the order in which bases come before what inherits from them.
COMPILED: Final = (
    "pyjiva.buffers",
    "pyjiva.transport.receive_buffer",
    "pyjiva.transport.outgoing_sys",
    "pyjiva.transport.batch",
    "pyjiva.transport.socket_sys",
    "pyjiva.transport.looking_on",
    "pyjiva.transport.ready_sys",
    "pyjiva.recycled",
    "pyjiva.block.device",
    "pyjiva.block.limited_device",
    "pyjiva.block.meter",
    "pyjiva.block.interval_lock",
    "pyjiva.block_sums",
    "pyjiva.scsi.task",
    "pyjiva.scsi.cdb",
    "pyjiva.scsi.command_lookup",
    "pyjiva.scsi.device_server",
    "pyjiva.scsi.traced_server",
    "pyjiva.scsi.read_write",
    "pyjiva.scsi.unit",
    "pyjiva.iscsi.framing",
    "pyjiva.iscsi.pdu",
    "pyjiva.iscsi.transfer",
    "pyjiva.iscsi.command",
    "pyjiva.iscsi.writes",
    "pyjiva.iscsi.answers",
    "pyjiva.iscsi.connection",
    "pyjiva.iscsi.arrivals",
    "pyjiva.controller.path_times",
    "pyjiva.replication.frame",
    "pyjiva.replication.done",
    "pyjiva.replication.request_frame",
    "pyjiva.replication.reference",
    "pyjiva.controller.sharing_link",
    "pyjiva.controller.dirty_map",
    "pyjiva.controller.windows",
    "pyjiva.controller.coalescing",
    "pyjiva.controller.data_path",
    "pyjiva.controller.answers",
    "pyjiva.replica.unstable",
    "pyjiva.replica.data_path",
    "pyjiva.replica.arrivals",
    "pyjiva.sparse.file_sys",
    "pyjiva.sparse.checked_file_sys",
    "pyjiva.snapshot.layer_index",
    "pyjiva.snapshot.held_map_sys",
    "pyjiva.snapshot.layer_stack_sys",
    "pyjiva.snapshot.window_sys",
    "pyjiva.snapshot.write_counts_sys",
    "pyjiva.snapshot.store_sys",
    "pyjiva.snapshot.layered_store_sys",
    "pyjiva.snapshot.in_place_sys",
)

#: Hot modules that are not compiled → why.
NOT_COMPILED: Final = {
    "pyjiva.transport.direct_io": "stands before trio's own I/O manager, whose interface is not typed",
}
