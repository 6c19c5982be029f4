"""The tables for people.  Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from bench.errors import BenchError
from bench.summary import Cell, Spread
from bench.workload import WORKLOADS, Parameters
from pyjiva.units import MIB, format_size

__all__ = [
    "BLOCK_BEGIN",
    "BLOCK_END",
    "Heading",
    "format_spread",
    "markdown",
    "origin",
    "replace_block",
    "table",
]

MARKER: Final = "<!-- made by `{}`: {} -->"
BLOCK_BEGIN: Final = MARKER.format("make bench", "begin")
BLOCK_END: Final = MARKER.format("make bench", "end")
SPREAD: Final = "median (least–most) of the rounds"
# As tables list them.
ROLES: Final = ("tgtd", "limit", "target", "controller", "replica", "supervisor", "driver")
PERCENTILES: Final = ("p50", "p90", "p99", "p99.9")

Number = Callable[[float], str]


@attrs.frozen
class Heading:
    """What stands above the tables: where the numbers come from."""

    machine: Mapping[str, str]
    commit: str
    finished_at: str
    parameters: Parameters
    result_hash: str


@attrs.frozen
class _Tables:
    """Cells by workload, a row each, and by target."""

    cells: Sequence[Cell]
    titles: Mapping[str, str]

    def of(self, targets: Iterable[str], value: Callable[[Cell], str]) -> list[str]:
        """A table of one value."""
        by_place = {(cell.workload, cell.target): cell for cell in self.cells}
        columns = list(targets)
        rows = [["", *(self.titles[target] for target in columns)]]
        measured = {cell.workload for cell in self.cells}
        for workload in [workload for name, workload in WORKLOADS.items() if name in measured]:
            row = [workload.title]
            for target in columns:
                cell = by_place.get((workload.name, target))
                row.append("" if cell is None else value(cell))
            rows.append(row)
        return table(rows)

    def compared(
        self, heading: str, to: str, found: Callable[[Cell], Spread | None], number: Number
    ) -> list[str]:
        """A table of what the other targets reached of what `to` did; nothing when there is no such thing."""
        others = [target for target in self.titles if target != to]
        if all(found(cell) is None for cell in self.cells if cell.target != to):
            return []

        def value(cell: Cell) -> str:
            of_cell = found(cell)
            return "" if of_cell is None else format_spread(of_cell, number)

        return ["", f"{heading} in the same round; {SPREAD}.", "", *self.of(others, value)]

    def shares(self, limit: str) -> list[str]:
        """A table of what the other targets reached of what `limit` did."""
        heading = f"**Share of the limit** in percent: commands to those of {self.titles.get(limit)}"
        return self.compared(heading, limit, lambda cell: cell.shares.get(limit), _percent)


def markdown(
    cells: Sequence[Cell],
    titles: Mapping[str, str],
    heading: Heading,
    *,
    baseline: str,
    limits: Sequence[str],
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """All tables; `titles` are of the targets, in the order of their columns.

    `baseline` and `limits` are the targets to which the others are compared; `pictures` are files and titles.
    """
    tables = _Tables(cells, titles)
    parts = [
        *_heading(heading),
        *[line for file, title in pictures.items() for line in ("", f"![{title}]({file})")],
        "",
        f"**Throughput**: thousands of commands a second for random, MB/s for sequential loads; {SPREAD}.",
        "",
        *tables.of(titles, _throughput),
        *tables.compared(
            f"**Ratio to {titles.get(baseline)}**", baseline, lambda cell: cell.ratio, _two_digits
        ),
        *[line for limit in limits for line in tables.shares(limit)],
        "",
        f"**Latency** in µs, {' / '.join(PERCENTILES)}; medians of the rounds.",
        "",
        *tables.of(titles, lambda cell: " / ".join(_whole(cell.latency_us[p].median) for p in PERCENTILES)),
        "",
        "**Processor time for one command** in µs, user and system, processes of a role together; medians.",
        "",
        *tables.of(titles, _cpu),
        "",
        "**Memory**: largest median of resident MiB over the workloads, all processes of a role together.",
        "",
        *_memory(cells, titles),
        "",
        _busy(cells, limits),
    ]
    return "\n".join(parts) + "\n"


def replace_block(text: str, block: str, made_by: str = "make bench") -> str:
    """`text` with `block` between the markers of a command.

    Raises BenchError: they are not there once, in order.
    """
    first, last = MARKER.format(made_by, "begin"), MARKER.format(made_by, "end")
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in after:
        raise BenchError(f"the two lines {first} and {last} are needed, each once")
    return f"{before}{first}\n\n{block}\n{last}{after}"


def _heading(heading: Heading) -> list[str]:
    parameters = heading.parameters
    how = (
        f"{parameters.rounds} rounds of {parameters.seconds:g} s after {parameters.warmup_s:g} s of warm-up,"
        f" over {format_size(parameters.range_bytes)}, seed {parameters.seed}"
    )
    return origin(heading.finished_at, heading.commit, how, heading.result_hash, heading.machine)


def origin(
    finished_at: str, commit: str, how: str, result_hash: str, machine: Mapping[str, str]
) -> list[str]:
    """Where numbers come from: the lines above their tables."""
    return [
        f"Measured {finished_at} at commit `{commit}`: {how}. Hash of the samples: `{result_hash}`.",
        "",
        "Machine: " + "; ".join(f"{name} {value}" for name, value in machine.items()) + ".",
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first row is its head, and all columns but the first hold numbers."""

    def line(values: Iterable[str]) -> str:
        return "| " + " | ".join(values) + " |"

    first, *rest = rows
    return [line(first), line(["---", *["---:"] * (len(first) - 1)]), *map(line, rest)]


def format_spread(value: Spread, number: Number) -> str:
    """`median (least–most)`."""
    return f"{number(value.median)} ({number(value.least)}–{number(value.most)})"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"


def _thousands(value: float) -> str:
    return f"{value / 1000:.1f}k"


def _throughput(cell: Cell) -> str:
    if WORKLOADS[cell.workload].in_bytes:
        return format_spread(cell.mb_s, _whole)
    return format_spread(cell.iops, _thousands)


def _role(name: str, cell: Cell) -> str:
    count = cell.process_count.get(name, 1)
    return name if count == 1 else f"{name} ×{count}"


def _cpu(cell: Cell) -> str:
    return ", ".join(
        f"{_role(name, cell)} {_whole(value.median)}"
        for name, value in sorted(cell.cpu_us_per_io.items(), key=lambda item: ROLES.index(item[0]))
        if value.most > 0
    )


def _memory(cells: Sequence[Cell], titles: Mapping[str, str]) -> list[str]:
    rows = [["target", "resident MiB"]]
    for target, title in titles.items():
        of_target = [cell for cell in cells if cell.target == target]
        roles = {role: None for cell in of_target for role in cell.rss_bytes}
        values = []
        for role in sorted(roles, key=ROLES.index):
            most = max(cell.rss_bytes[role].median for cell in of_target if role in cell.rss_bytes)
            values.append(f"{_role(role, of_target[-1])} {_whole(most / MIB)}")
        if values:
            rows.append([title, ", ".join(values)])
    return table(rows)


def _busy(cells: Sequence[Cell], limits: Sequence[str]) -> str:
    at_limit = [cell for cell in cells if cell.target in limits]
    others = [cell for cell in cells if cell.target not in limits]
    shares = [f"{_share(cell.driver_cpu_share.most for cell in others)} of one core"] if others else []
    if at_limit:  # it waits for nothing there: that it is busy is no fault
        shares.append(f"{_share(cell.driver_cpu_share.most for cell in at_limit)} at the limit")
    idle = _share(cell.idle_cpu_share.most for cell in cells)
    stolen = _share(cell.stolen_share.most for cell in cells)
    return (
        f"The driver was busy for at most {', '.join(shares)}; targets that were not under load for {idle}. "
        f"The machine's own host took at most {stolen} of a run."
    )


def _share(values: Iterable[float]) -> str:
    return f"{100 * max(values):.0f} %"
