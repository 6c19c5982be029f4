"""Snapshots on a replica: what there are, and changes of them as the controller wants them.  The trio shell.

All of it is the keeper's business: one thing at a time, in the order in which it was asked, so that what a
promise or a record says of the snapshots is so.
"""

from functools import partial
from typing import Final

import attrs
import structlog

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.lineage import Change
from pyjiva.replica.data_path import refuse_storage
from pyjiva.replica.session import Phase, Session, answer, refuse
from pyjiva.replication import Flag, Frame, FrameType, LineageAnswer, Status
from pyjiva.snapshot import ChainDevice, Merger

__all__ = ["Snapshots"]

_log = structlog.get_logger(__name__)
_CANNOT: Final = Status.NOT_SUPPORTED


@attrs.define(eq=False)
class Snapshots:
    """Of the store behind `device`."""

    device: ChainDevice
    merger: Merger = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.merger = Merger(self.device)

    async def ask(self, session: Session, frame: Frame) -> None:
        """Answer LINEAGE, or do what PREPARE asks for."""
        if session.phase is Phase.REPLACED:  # it waited behind the promise that replaced it
            return
        answers: list[LineageAnswer] = []
        if frame.type == FrameType.PREPARE:
            self.merger.change_comes()
            call = partial(self._prepare, not frame.code & Flag.NO_NEW_HEAD)
        else:
            call = partial(self._look, answers)
        try:
            await self.device.aside(call)
        except ConfigError as error:
            refuse(session.peer, frame, _CANNOT, str(error))
        except StorageError as error:
            refuse_storage(session.peer, frame, error)
        else:
            answer(session.peer, frame, message=answers[0] if answers else None)

    async def change(self, session: Session, frame: Frame, change: Change) -> None:
        """Carry out a CHANGE."""
        if session.phase is Phase.REPLACED:
            return
        self.merger.change_is_here()
        try:
            await self.device.change(partial(self.device.store.change, change))
        except ConfigError as error:
            refuse(session.peer, frame, _CANNOT, str(error))
        except StorageError as error:
            if self.device.store.broken is not None:  # it may have been made all the same
                error.failure = StorageFailure.WRITE_ERROR
            refuse_storage(session.peer, frame, error)
        else:
            answer(session.peer, frame)
            _log.info(
                "snapshots changed", kind=change.kind.value, number=change.number, generation=change.after
            )

    def _prepare(self, makes_head: bool) -> None:
        """In a thread."""
        self.device.store.flush()
        if makes_head:
            self.device.store.prepare_snapshot()

    def _look(self, answers: list[LineageAnswer]) -> None:
        """In a thread."""
        store = self.device.store
        store.refuse_if_unsure()
        layers = store.layers()
        visible = {layer.name for layer in store.lineage.snapshots}
        live = [layer for layer in layers if layer.layer is None]
        answers.append(
            LineageAnswer(
                lineage=store.lineage,
                live_bytes=sum(layer.allocated_bytes for layer in live),
                snapshot_bytes={each.name: each.allocated_bytes for each in layers if each.name in visible},
                removed_bytes=sum(
                    each.allocated_bytes
                    for each in layers
                    if each.layer is not None and each.name not in visible
                ),
            )
        )
