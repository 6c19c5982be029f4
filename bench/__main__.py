"""`python -m bench`: measure, print tables, write JSON and the block in the docs."""

from pathlib import Path
from typing import Any

import attrs
import click

from bench.command import ended_well, publish, say, work_directory
from bench.compare_driver import compare_driver
from bench.driver_sys import BUILD_DIRECTORY
from bench.plots import draw, require_matplotlib
from bench.profile_sys import markdown as profile_markdown
from bench.profile_sys import profile_target
from bench.report import markdown, replace_block
from bench.run import run_bench
from bench.targets_sys import BASELINE, LIMITS, TARGETS
from bench.workload import REAL, SMOKE, WORKLOADS, Parameters
from pyjiva.units import parse_size

MADE_BY = "make bench"


class _NamesType(click.ParamType[tuple[str, ...]]):
    """Names from a list, separated by commas."""

    name = "names"

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(value.split(",")))
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--smoke", is_flag=True, help="Tiny values: does it work at all?")
@click.option("--rounds", type=click.IntRange(1), help="Rounds; 5 unless --smoke.")
@click.option("--seconds", type=click.FloatRange(0.01), help="Measured for each run; 3 unless --smoke.")
@click.option("--range", "range_text", metavar="SIZE", help="Bytes under load; 1GiB unless --smoke.")
@click.option("--seed", type=click.IntRange(0), help="Of data and order.")
@click.option("--targets", type=_NamesType(TARGETS), default=tuple(TARGETS), help=f"Of {', '.join(TARGETS)}.")
@click.option(
    "--workloads", type=_NamesType(WORKLOADS), default=tuple(WORKLOADS), help=f"Of {', '.join(WORKLOADS)}."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write all samples.")
@click.option(
    "--markdown",
    "markdown_path",
    type=click.Path(path_type=Path, exists=True),
    help="File with the two markers.",
)
@click.option("--work-dir", type=click.Path(path_type=Path), default=BUILD_DIRECTORY, help="For the data.")
@click.option(
    "--profile", type=(click.Choice(list(TARGETS)), click.Choice(list(WORKLOADS))), metavar="TARGET WORKLOAD",
    help="Sample the target's processes under one load instead.",
)  # fmt: skip
@click.option("--native", is_flag=True, help="With --profile: also C functions, so system calls by name.")
@click.option("--check-driver", is_flag=True, help="Compare the driver with iscsi-perf instead.")
def main(
    smoke: bool,
    rounds: int | None,
    seconds: float | None,
    range_text: str | None,
    seed: int | None,
    targets: tuple[str, ...],
    workloads: tuple[str, ...],
    json_path: Path | None,
    markdown_path: Path | None,
    work_dir: Path,
    profile: tuple[str, str] | None,
    native: bool,
    check_driver: bool,
) -> None:
    """Measure pyjiva and tgtd under the same loads, in turn."""
    with ended_well():
        parameters = _parameters(SMOKE if smoke else REAL, rounds, seconds, range_text, seed)
        with work_directory(work_dir) as directory:
            if check_driver:
                print(compare_driver(parameters, directory, say))
            elif profile is not None:
                kind, workload = TARGETS[profile[0]], WORKLOADS[profile[1]]
                print(
                    profile_markdown(
                        profile_target(kind, workload, parameters, directory, native=native, say=say)
                    )
                )
            else:
                _measure(targets, workloads, parameters, directory, json_path, markdown_path)


def _parameters(
    base: Parameters, rounds: int | None, seconds: float | None, range_text: str | None, seed: int | None
) -> Parameters:
    given: dict[str, Any] = {
        "rounds": rounds,
        "seconds": seconds,
        "range_bytes": None if range_text is None else parse_size(range_text),
        "seed": seed,
    }
    return attrs.evolve(base, **{name: value for name, value in given.items() if value is not None})


def _measure(
    targets: tuple[str, ...],
    workloads: tuple[str, ...],
    parameters: Parameters,
    directory: Path,
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    kinds = [kind for name, kind in TARGETS.items() if name in targets]
    if markdown_path is not None:  # what is missing is missing now rather than in 20 minutes
        replace_block(markdown_path.read_text(), "", MADE_BY)
        require_matplotlib()
    result = run_bench(kinds, [WORKLOADS[name] for name in workloads], parameters, directory, say)
    titles = {kind.name: kind.title for kind in kinds}
    plots = {}
    if markdown_path is not None:
        drawn = draw(result.cells, titles, baseline=BASELINE, limits=LIMITS)
        plots = {f"{markdown_path.stem}-{plot.name}.svg": plot for plot in drawn}
    tables = markdown(
        result.cells,
        titles,
        result.heading,
        baseline=BASELINE,
        limits=LIMITS,
        pictures={file: plot.title for file, plot in plots.items()},
    )
    at = result.heading.finished_at
    publish(
        tables,
        result.as_json(),
        name="",
        at=at,
        json_path=json_path,
        page=markdown_path,
        made_by=MADE_BY,
        beside={file: plot.svg for file, plot in plots.items()},
    )


if __name__ == "__main__":
    main()
