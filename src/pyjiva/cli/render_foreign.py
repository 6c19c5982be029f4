"""What `pyjiva import` says of a directory: as a tree for people, as JSON for programs."""

from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pyjiva.migration import ForeignLayer, ForeignReplica, Hinders
from pyjiva.snapshot.chain import HEAD
from pyjiva.units import format_size

__all__ = ["render_foreign", "report"]

_SIGNS: Final = {
    Hinders.READING: "cannot be read: ",
    Hinders.UPGRADE: "cannot be upgraded: ",
    Hinders.DIRTY: "not without --accept-dirty: ",
    Hinders.NOTHING: "",
}


def report(path: Path, replica: ForeignReplica) -> dict[str, Any]:
    """All that is known, as JSON's types."""
    volume = replica.volume
    return {
        "directory": str(path),
        "system": replica.system,
        "size_bytes": None if volume is None else volume.size_bytes,
        "sector_size_bytes": None if volume is None else volume.sector_size_bytes,
        "head": None if volume is None else volume.head,
        "dirty": None if volume is None else volume.dirty,
        "rebuilding": None if volume is None else volume.rebuilding,
        "backing_file": replica.backing_file,
        "revision_counter": replica.revision_counter,
        "layers": [_layer_report(layer) for layer in replica.layers],
        "leftovers": list(replica.leftovers),
        "findings": [{"hinders": each.hinders.value, "text": each.text} for each in replica.findings],
        "can_be_read": replica.can_be_read,
        "can_be_upgraded": replica.can_be_upgraded(accept_dirty=False),
        "can_be_upgraded_if_dirty_is_accepted": replica.can_be_upgraded(accept_dirty=True),
    }


def _layer_report(layer: ForeignLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "file": layer.file,
        "parent": layer.parent,
        "live": layer.is_live,
        "removed": layer.meta.removed,
        "user_created": layer.meta.user_created,
        "created": layer.meta.created,
        "labels": dict(layer.meta.labels or {}),
        "size_bytes": layer.size_bytes,
        "allocated_bytes": layer.allocated_bytes,
    }


def render_foreign(path: Path, replica: ForeignReplica, console: Console) -> None:
    """Print it: what it is, its layers, what stands in the way."""
    size = "" if replica.volume is None else f", a volume of {format_size(replica.volume.size_bytes)}"
    _print(console, f"{path}: a replica of {replica.system}{size}", style="bold")
    if replica.revision_counter is not None:
        _print(console, f"  revision counter {replica.revision_counter}")
    if replica.backing_file:
        _print(console, f"  on the backing file {replica.backing_file}")
    if replica.layers:
        console.print(_tree(replica))
    for finding in replica.findings:
        _print(console, f"  {_SIGNS[finding.hinders]}{finding.text}")
    if replica.leftovers:
        _print(console, f"  an upgrade removes: {', '.join(replica.leftovers)}")
    _print(console, _verdict(replica), style="bold")


def _verdict(replica: ForeignReplica) -> str:
    if replica.can_be_upgraded(accept_dirty=False):
        return "It can be served (--serve) and be made a pyjiva replica (--upgrade)."
    if replica.can_be_upgraded(accept_dirty=True):
        return "It can be served (--serve), and be made a pyjiva replica with --upgrade --accept-dirty."
    if replica.can_be_read:
        return "It can be served (--serve), and not be made a pyjiva replica as it is."
    return "It cannot be taken as it is."


def _tree(replica: ForeignReplica) -> Tree:
    """The layers as they stand on each other, the lowest at the top."""
    root = Tree(Text("layers, the lowest first; * what the head stands on"))
    branches = {"": root}
    for layer in replica.layers:  # each after its parent
        branches[layer.name] = branches[layer.parent].add(Text(_line(layer)))
    return root


def _line(layer: ForeignLayer) -> str:
    marks = [
        format_size(layer.allocated_bytes),
        *([layer.meta.created] if layer.meta.created else []),
        *(["removed"] if layer.meta.removed else []),
        *(["by a user"] if layer.meta.user_created and layer.name != HEAD else []),
        *(f"{key}={value}" for key, value in (layer.meta.labels or {}).items()),
    ]
    name = layer.name if layer.name != HEAD else f"head ({layer.file})"
    return _printable(f"{'*' if layer.is_live else ' '} {name}  {'  '.join(marks)}")


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(Text(_printable(line), style=style), soft_wrap=True)


def _printable(text: str) -> str:
    """Names and errors come from the directory: nothing of them may talk to the terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
