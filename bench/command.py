"""What every bench's command line does alike: end well, work in a directory that goes away, publish."""

import contextlib
import datetime
import hashlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NoReturn, Protocol, TypeVar, cast

import attrs
import click

from bench.driver_sys import BUILD_DIRECTORY
from bench.errors import BenchError
from bench.machine_sys import commit, describe_machine
from bench.report import replace_block
from pyjiva.errors import ConfigError

__all__ = [
    "Output",
    "as_json",
    "bench_options",
    "ended_well",
    "evolved",
    "finished_at",
    "hash_of",
    "measure_and_publish",
    "print_figures",
    "publish",
    "say",
    "work_directory",
]

RESULTS_DIRECTORY = Path(__file__).parent / "results"
_Parameters = TypeVar("_Parameters")
_Found = TypeVar("_Found")


@contextlib.contextmanager
def ended_well() -> Iterator[None]:
    """One line instead of a traceback; Ctrl-C and SIGTERM unwind what the body has begun."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job ignores it
        signal.signal(number, _stop)
    try:
        yield
    except (BenchError, ConfigError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bench: interrupted; everything that it started is stopped", file=sys.stderr)
        sys.exit(130)


def _stop(signal_number: int, frame: FrameType | None) -> NoReturn:
    """As Ctrl-C: the bodies of all `with` statements end and stop what they started."""
    raise KeyboardInterrupt


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def work_directory(parent: Path) -> Iterator[Path]:
    """An empty directory that is removed afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as directory:
        yield Path(directory)


def print_figures(run: Callable[[Path], Mapping[str, Any]], work_dir: Path | None) -> None:
    """Print as JSON what `run` finds in an empty directory, below `work_dir` or where the system has such."""
    with work_directory(work_dir or Path(tempfile.gettempdir())) as work:
        print(json.dumps(run(work), indent=1))


def finished_at() -> str:
    """Now, for a heading."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def hash_of(samples: Sequence[Any]) -> str:
    """A short name of a result: of records that attrs made."""
    text = json.dumps([attrs.asdict(sample) for sample in samples], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def as_json(samples: Sequence[Any], parameters: Any, *, at: str, of: str, machine: Mapping[str, str]) -> str:
    """Everything that a run found out, for programs; `of` is the commit."""
    document = {
        "at": at,
        "commit": of,
        "machine": dict(machine),
        "parameters": attrs.asdict(parameters),
        "samples": [attrs.asdict(sample) for sample in samples],
    }
    return json.dumps(document, indent=1) + "\n"


def publish(
    tables: str,
    samples: str,
    *,
    name: str,
    at: str,
    json_path: Path | None,
    page: Path | None,
    made_by: str,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print `tables`, keep the `samples`, and put the tables between the markers of `made_by` in `page`.

    `beside`: what to write into other files of the page's directory, by their names.
    """
    if json_path is None:
        stamp = at.replace(" UTC", "").replace(" ", "-").replace(":", "")
        json_path = RESULTS_DIRECTORY / f"{name}{stamp}.json"
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(samples)
    if page is not None:
        for other, text in beside.items():
            (page.parent / other).write_text(text)
        page.write_text(replace_block(page.read_text(), tables, made_by))
    print(tables)
    say(f"all samples: {json_path}")


# --- the benches that have a module and a command of their own


@attrs.frozen
class Output:
    """Where what was found goes."""

    json_path: Path | None
    page: Path | None
    work_dir: Path


def bench_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what these benches have alike: `smoke`, `seed` and `output`, an Output, are given to `command`."""

    def with_output(*, json_path: Path | None, page: Path | None, work_dir: Path, **given: Any) -> None:
        with ended_well():
            command(output=Output(json_path, page, work_dir), **given)

    with_output.__doc__ = command.__doc__
    path = click.Path(path_type=Path)
    for option in (
        click.option("--work-dir", type=path, default=BUILD_DIRECTORY, help="For the data."),
        click.option(
            "--markdown",
            "page",
            type=click.Path(path_type=Path, exists=True),
            help="File with the two markers.",
        ),
        click.option("--json", "json_path", type=path, help="Where to write all samples."),
        click.option("--seed", type=click.IntRange(0), help="Of data and order."),
        click.option("--smoke", is_flag=True, help="Tiny values: does it work at all?"),
    ):
        with_output = option(with_output)
    return with_output


def evolved(base: _Parameters, given: Mapping[str, Any]) -> _Parameters:
    """`base` with what was given; None: it was not."""
    kept = {name: value for name, value in given.items() if value is not None}
    changed: _Parameters = attrs.evolve(cast("Any", base), **kept)
    return changed


class _Markdown(Protocol):
    def __call__(
        self, found: Any, parameters: Any, /, *, at: str, of: str, machine: Mapping[str, str]
    ) -> str:
        """The section for people."""


def measure_and_publish(
    run: Callable[[_Parameters, Path, Callable[[str], None]], _Found],
    markdown: _Markdown,
    parameters: _Parameters,
    output: Output,
    *,
    name: str,
    made_by: str,
    samples_of: Callable[[_Found], Sequence[Any]],
) -> None:
    """Run the bench `name`, and publish what it found.  Raises BenchError."""
    if output.page is not None:  # its markers are missing now rather than in half an hour
        replace_block(output.page.read_text(), "", made_by)
    with work_directory(output.work_dir) as directory:
        found = run(parameters, directory, say)
        machine = describe_machine(directory)
    at, of = finished_at(), commit()
    publish(
        markdown(found, parameters, at=at, of=of, machine=machine),
        as_json(samples_of(found), parameters, at=at, of=of, machine=machine),
        name=f"{name}-",
        at=at,
        json_path=output.json_path,
        page=output.page,
        made_by=made_by,
    )
