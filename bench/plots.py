"""The pictures for people: what the tables say, as SVG.

The same cells give the same bytes: no date, no random names.  Text stays text, in whatever sans-serif font
the reader has.  matplotlib is imported when something is drawn: a bench that draws nothing does without it.
"""

import importlib.util
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from bench.errors import BenchError
from bench.summary import Cell, Spread
from bench.workload import WORKLOADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plot", "draw", "require_matplotlib"]

#: By target.  Okabe and Ito's colours, which the colour-blind can tell apart too.
COLOURS: Final = {
    "tgtd": "#8c8c8c",
    "limit": "#000000",
    "limit-each": "#009e73",
    "local": "#0072b2",
    "pyjiva-1": "#56b4e9",
    "pyjiva-3": "#e69f00",
}
WIDTH_INCHES: Final = 10.0
PANEL_INCHES: Final = 3.4
LABEL_CHARS: Final = 12  # of a line below a group: eight stand side by side
GROUP_WIDTH: Final = 0.8  # of the room between the middles of two groups


@attrs.frozen
class Plot:
    """A picture."""

    name: str
    """What it shows, in one word; part of its file's name."""
    title: str
    svg: str


def require_matplotlib() -> None:
    """Raises BenchError: nothing can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("matplotlib is missing: pip install 'pyjiva[bench]'")


def draw(
    cells: Sequence[Cell], titles: Mapping[str, str], *, baseline: str, limits: Sequence[str]
) -> list[Plot]:
    """Every plot for which there are numbers; `titles` are of the targets, in their order.

    Raises BenchError: matplotlib is missing.
    """
    require_matplotlib()
    panels: list[_Panel] = []
    compared = [target for target in titles if target != baseline and target not in limits]
    if any(cell.ratio is not None and cell.target in compared for cell in cells):
        panels.append(_bars(f"ratio to {titles[baseline]}", compared, lambda cell: cell.ratio, 1.0))
    others = [target for target in titles if target not in limits]
    for limit in limits:
        if any(limit in cell.shares and cell.target in others for cell in cells):
            panels.append(_bars(f"% of {titles[limit]}", others, _percent(limit), 100.0))
    plots = []
    if panels:
        plots.append(
            Plot(
                "throughput",
                "Throughput: medians, and the least and most of the rounds",
                _figure(cells, titles, panels),
            )
        )
    plots.append(
        Plot("latency", "Latency: p50 and, above it, p99", _figure(cells, titles, [_latencies(list(titles))]))
    )
    return plots


def _percent(limit: str) -> Callable[[Cell], Spread | None]:
    def percent(cell: Cell) -> Spread | None:
        share = cell.shares.get(limit)
        return share and Spread(100 * share.median, 100 * share.least, 100 * share.most)

    return percent


@attrs.frozen
class _Panel:
    """One pair of axes over all workloads."""

    label: str
    """Of the vertical axis."""
    targets: Sequence[str]
    put: Callable[["Axes", float, float, str, Cell], None]
    """Draw one cell: axes, position, width, colour."""
    line_at: float | None
    logarithmic: bool


def _bars(
    label: str, targets: Sequence[str], value: Callable[[Cell], Spread | None], line_at: float
) -> _Panel:
    def put(axes: "Axes", x: float, width: float, colour: str, cell: Cell) -> None:
        found = value(cell)
        if found is not None:
            whiskers = [[found.median - found.least], [found.most - found.median]]
            axes.bar(x, found.median, width, color=colour, yerr=whiskers, capsize=2, ecolor="#444444")

    return _Panel(label, targets, put, line_at, logarithmic=False)


def _latencies(targets: Sequence[str]) -> _Panel:
    def put(axes: "Axes", x: float, width: float, colour: str, cell: Cell) -> None:
        p50, p99 = (cell.latency_us[name].median for name in ("p50", "p99"))
        axes.plot([x, x], [p50, p99], color=colour, linewidth=2)
        axes.plot(x, p50, "o", color=colour)
        axes.plot(x, p99, "_", color=colour, markersize=9, markeredgewidth=2)

    return _Panel("µs", targets, put, None, logarithmic=True)


def _figure(cells: Sequence[Cell], titles: Mapping[str, str], panels: Sequence[_Panel]) -> str:
    """The SVG of panels below each other."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with rc_context(
        {
            "svg.hashsalt": "pyjiva",  # instead of a new one each time
            "svg.fonttype": "none",
            "font.size": 9.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
        }
    ):
        figure = Figure(figsize=(WIDTH_INCHES, PANEL_INCHES * len(panels) + 0.4), layout="constrained")
        every = figure.subplots(len(panels), squeeze=False)
        for panel, axes in zip(panels, every[:, 0], strict=True):
            _fill(axes, panel, cells)
        shown = [target for target in titles if any(target in panel.targets for panel in panels)]
        figure.legend(
            handles=[Patch(color=COLOURS[target], label=titles[target]) for target in shown],
            loc="outside upper center",
            ncols=len(shown),
            frameon=False,
        )
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def _fill(axes: "Axes", panel: _Panel, cells: Sequence[Cell]) -> None:
    """A group for each workload, and in it the targets side by side."""
    measured = {cell.workload for cell in cells}
    workloads = [workload for name, workload in WORKLOADS.items() if name in measured]
    by_place = {(cell.workload, cell.target): cell for cell in cells}
    width = GROUP_WIDTH / len(panel.targets)
    for group, workload in enumerate(workloads):
        for place, target in enumerate(panel.targets):
            cell = by_place.get((workload.name, target))
            if cell is not None:
                x = group + (place - (len(panel.targets) - 1) / 2) * width
                panel.put(axes, x, 0.9 * width, COLOURS[target], cell)
    axes.set_xticks(
        range(len(workloads)), [textwrap.fill(workload.title, LABEL_CHARS) for workload in workloads]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(panel.label)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_ylim(bottom=0)
    if panel.line_at is not None:
        axes.axhline(panel.line_at, color="#444444", linewidth=0.8, linestyle="--")
