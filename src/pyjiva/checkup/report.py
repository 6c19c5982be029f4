"""All that a look at a replica's directory gave: for people (`cli`), for programs (`to_dict`), for a repair
(`plan`).  Pure.
"""

from typing import Any, Final

import attrs

from pyjiva.checkup.facts import DataFacts, Listing, MapFacts
from pyjiva.checkup.finding import Finding, Severity
from pyjiva.checkup.structure import LayerFiles, Structure
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.state import FLUSH_FAILED, REPAIRED

__all__ = ["LayerReport", "Report"]

EXTENTS_TOLD_MAX: Final = 100


@attrs.frozen
class LayerReport:
    """One layer."""

    files: LayerFiles
    allocated_bytes: int
    """What its data takes."""
    map: MapFacts | None
    """None: it has none, or none that can be read."""
    data: DataFacts | None
    """None: it was not looked at."""

    @property
    def name(self) -> str:
        """HEAD for the head."""
        return self.files.name


@attrs.frozen
class Report:
    """A replica's directory."""

    path: str
    listing: Listing
    structure: Structure
    layers: tuple[LayerReport, ...]
    """The head last."""
    findings: tuple[Finding, ...]
    """The worst first."""
    used_bytes: int
    quick: bool
    """Whether the data was not looked at."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, as far as was looked."""
        return not any(each.kind.severity is Severity.DAMAGE for each in self.findings)

    @property
    def stability(self) -> str:
        """How much of what was written is on stable storage, in one word."""
        written = self.structure.written_boot_id
        words = {"": "clean", self.structure.boot_id: "unflushed"}
        words |= {FLUSH_FAILED: "flush-failed", REPAIRED: "repaired"}
        return words.get(written, "machine-went-down")

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {
            "path": self.path,
            "sound": self.is_sound,
            "quick": self.quick,
            "used_bytes": self.used_bytes,
            "replica": self._replica(),
            "layers": [self._layer(each) for each in self.layers],
            "findings": [_finding(each) for each in self.findings],
        }

    def _replica(self) -> dict[str, Any] | None:
        state = self.structure.state
        if state is None:
            return None
        return {
            "volume": state.volume_name,
            "volume_id": state.volume_id,
            "id": state.replica_id,
            "witness": state.witness,
            "size_bytes": state.size_bytes,
            "block_size_bytes": state.block_size_bytes,
            "promised_epoch": state.promised_epoch,
            "promised_to": state.promised_to,
            "record": None if state.record is None else state.record.to_dict(),
            "told_equal": state.told_equal,
            "writes": self.stability,
        }

    def _layer(self, layer: LayerReport) -> dict[str, Any]:
        assert self.structure.known is not None
        chain = self.structure.known.chain
        told: dict[str, Any] = {
            "name": layer.name,
            "parent": chain.parent_of(layer.name),
            "file": chain.file_of(layer.name),
            "allocated_bytes": layer.allocated_bytes,
            "held_blocks": None if layer.map is None else layer.map.held_blocks,
        }
        if layer.name != HEAD:
            known = chain.layer(layer.name)
            told |= {"created": known.created, "removed": known.removed, "sealed": known.sealed}
            told |= {"user_created": known.user_created, "labels": dict(known.labels)}
        if layer.data is not None:
            told |= {"good_blocks": layer.data.good_blocks, "unknown_blocks": layer.data.unknown_blocks}
            for name, extents in (("bad", layer.data.bad), ("unreadable", layer.data.unreadable)):
                told[name + "_bytes"] = sum(part.length_bytes for part in extents)
                shown = extents[:EXTENTS_TOLD_MAX]
                told[name] = [[part.offset_bytes, part.length_bytes] for part in shown]
        return told


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "kind": found.kind.name,
        "severity": found.kind.severity.value,
        "remedy": found.kind.remedy.value,
        "subject": found.subject,
        "detail": found.detail,
        "means": found.kind.means,
        "todo": found.kind.todo,
    }
