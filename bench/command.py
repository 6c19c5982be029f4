"""What every bench's command line does alike: end well, work in a directory that goes away, publish."""

import contextlib
import datetime
import hashlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NoReturn

import attrs

from bench.errors import BenchError
from bench.report import replace_block
from pyjiva.errors import ConfigError

__all__ = ["as_json", "ended_well", "finished_at", "hash_of", "publish", "say", "work_directory"]

RESULTS_DIRECTORY = Path(__file__).parent / "results"


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
