"""Where a run takes place: the machine, the commit, the page cache."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

import attrs

from bench.errors import BenchError
from pyjiva.cli.main import how_it_runs
from pyjiva.units import GIB, MIB, format_size

__all__ = ["Processors", "commit", "describe_machine", "processor_of", "require_space", "warm_page_cache"]

ROOT: Final = Path(__file__).parent.parent
SPARE_BYTES: Final = 1 * GIB
_NUMBERS: Final = {"cpu family": "family", "model": "model"}
"""Of a processor, by what /proc/cpuinfo calls them on x86."""


@attrs.frozen
class Processors:
    """What all processors of this machine have done since it started, in ticks (proc(5), /proc/stat)."""

    all_ticks: int
    stolen_ticks: int
    """They had something to do, and the machine's own host gave the time to others."""

    @classmethod
    def now(cls) -> "Processors":
        """As the kernel counts them."""
        return cls.read(Path("/proc/stat").read_text())

    @classmethod
    def read(cls, stat: str) -> "Processors":
        """From /proc/stat.  Raises ValueError: it is not one."""
        name, *values = stat.partition("\n")[0].split()
        if name != "cpu" or len(values) < 8:
            raise ValueError("its first line does not count what processors did")
        ticks = [int(value) for value in values[:8]]  # the others are counted in these too
        return cls(sum(ticks), ticks[7])

    def stolen_share(self, since: "Processors") -> float:
        """Of the time of all processors since then."""
        return (self.stolen_ticks - since.stolen_ticks) / max(1, self.all_ticks - since.all_ticks)


def describe_machine(directory: Path) -> dict[str, str]:
    """What may explain a number to somebody with another machine."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = processor_of(Path("/proc/cpuinfo").read_text())
    return {
        "processor": f"{os.cpu_count()} × {processor or platform.machine()}",
        "memory": format_size(memory_bytes),
        "kernel": platform.release(),
        "file system": _file_system(directory),
        "pyjiva": how_it_runs(),
        "tgtd": _output("dpkg-query", "--show", "--showformat=${Version}", "tgt") or "absent",
        "libiscsi": _output("dpkg-query", "--show", "--showformat=${Version}", "libiscsi-dev") or "unknown",
    }


def processor_of(cpuinfo: str) -> str:
    """What /proc/cpuinfo says of the first processor; empty: no name.

    With its numbers: a hypervisor shows processors of many years by one name.
    """
    first, _, _ = cpuinfo.partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    name = fields.get("model name", "")
    numbers = [f"{what} {fields[key]}" for key, what in _NUMBERS.items() if key in fields]
    return f"{name} ({', '.join(numbers)})" if name and numbers else name


def _file_system(directory: Path) -> str:
    return _output("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(directory)) or "unknown"


def commit() -> str:
    """The commit of the checkout, with `+` when something in it differs."""
    known = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if not known:
        return "unknown"
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return known + ("+" if changed else "")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def require_space(directory: Path, needed_bytes: int) -> None:
    """Raises BenchError: `directory` has no room for `needed_bytes`."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes + SPARE_BYTES:
        raise BenchError(
            f"{directory}: {format_size(needed_bytes)} are needed, {format_size(free_bytes)} are free"
        )


def warm_page_cache(directory: Path) -> None:
    """Read every file below `directory`, so that what follows is answered from memory.

    Reading through the target would not do: of three replicas it would warm one for each block.
    """
    buffer = bytearray(1 * MIB)
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
