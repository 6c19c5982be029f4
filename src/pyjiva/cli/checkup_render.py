"""What `pyjiva check` found, for people."""

from typing import Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pyjiva.checkup import LayerReport, Report, Severity
from pyjiva.snapshot import Chain, ReplicaState
from pyjiva.snapshot.chain import HEAD
from pyjiva.units import format_size

__all__ = ["render_report"]

STYLES: Final = {Severity.DAMAGE: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: ""}
WRITES: Final = {
    "clean": "all that was written is on the disk",
    "unflushed": "what was written since the last flush may be in this machine's memory alone",
    "machine-went-down": "the machine went down with writes that were not flushed",
    "flush-failed": "the disk refused to take writes",
    "repaired": "it was repaired, and not compared with the others since",
}


def render_report(report: Report, console: Console) -> None:
    """Print it all."""
    if report.structure.state is not None:
        _render_replica(report, report.structure.state, console)
    if report.structure.known is not None:
        _render_layers(report, report.structure.known.chain, console)
    for each in report.findings:
        where = ": ".join(text for text in (each.subject, each.detail) if text)
        style = STYLES[each.kind.severity]
        _line(console, f"{each.kind.severity.value}: {each.kind.name}  {where}".rstrip(), style)
        _line(console, f"  {each.kind.means}")
        if each.kind.severity is not Severity.NOTE or each.kind.todo != "Nothing.":
            _line(console, f"  To do: {each.kind.todo}")
    what = "sound" if report.is_sound else "damaged"
    looked = "; the data was not looked at (--quick)" if report.quick else ""
    _line(
        console,
        f"{report.path}: {what}{looked}",
        STYLES[Severity.NOTE if report.is_sound else Severity.DAMAGE],
    )


def _render_replica(report: Report, state: ReplicaState, console: Console) -> None:
    kind = "witness" if state.witness else "replica"
    size = f"{format_size(state.size_bytes)} in blocks of {state.block_size_bytes} bytes"
    _line(console, f"{kind} {state.replica_id} of {state.volume_name} ({state.volume_id}), {size}", "bold")
    _line(console, f"  takes {format_size(report.used_bytes)}")
    promised = f"epoch {state.promised_epoch} to controller {state.promised_to}"
    _line(console, f"  promised {promised if state.promised_epoch else 'nothing yet'}")
    record = state.record
    if record is None:
        _line(console, "  has accepted no record yet")
    else:
        members = f"replicas {_ids(record.configured)}, in sync {_ids(record.in_sync)}"
        if record.witnesses:
            members += f", witnesses {_ids(record.witnesses)}"
        clean = "stopped cleanly" if record.clean else "in use"
        _line(
            console,
            f"  last record {record.epoch}.{record.version} of {record.controller_id}: {members}; {clean}",
        )
    _line(console, f"  {WRITES[report.stability]}")


def _ids(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _render_layers(report: Report, chain: Chain, console: Console) -> None:
    """The snapshots and the head as a tree, the lowest at the root."""
    layers = {each.name: each for each in report.layers}
    trunk = Tree(Text("layers"))
    rows = [(name, trunk) for name in (*_roots(chain),)]
    while rows:
        name, above = rows.pop(0)
        branch = above.add(Text(_describe(chain, layers[name])))
        if name != HEAD:
            rows += [(child, branch) for child in chain.children_of(name)]
    console.print(trunk, soft_wrap=True)


def _roots(chain: Chain) -> list[str]:
    """What stands on nothing; the head too, if it is alone."""
    return [name for name in (*(layer.name for layer in chain.layers), HEAD) if not chain.parent_of(name)]


def _describe(chain: Chain, layer: LayerReport) -> str:
    words = []
    if layer.name == HEAD:
        words.append(f"head {chain.head_file}")
    else:
        known = chain.layer(layer.name)
        words += [layer.name, known.created]
        words += ["removed"] if known.removed else []
        words += [] if known.sealed else ["being received"]
        words += [f"{key}={value}" for key, value in known.labels.items()]
    words.append(format_size(layer.allocated_bytes))
    if layer.data is not None:
        counts = {"good": layer.data.good_blocks, "without checksum": layer.data.unknown_blocks}
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        words += [f"blocks: {shown}"] if shown else []
    return "  ".join(word for word in words if word)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)  # the terminal breaks it: it can be copied whole
