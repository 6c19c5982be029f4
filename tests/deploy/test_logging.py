"""The examples of deploy/logging take every line that the daemons write; docs/howto/logs.md has every event.

Neither collector runs here: their parsers' formats, expressions and time formats are read from the files and
applied as their manuals say.  Not checked: that they accept the rest of their files.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.real.volume_process import running_up

TOP: Final = Path(__file__).parents[2]
PAGE: Final = TOP / "docs/howto/logs.md"
FLUENT_BIT: Final = TOP / "deploy/logging/fluent-bit"
FLUENTD: Final = TOP / "deploy/logging/fluentd"
LEVELS: Final = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
OURS: Final = re.compile(r"\{|pyjiva(-\w+)?: (?!use it|note)")

Record = dict[str, Any]


# --- the collectors


@attrs.frozen
class Parser:
    """One of a collector's, as it is configured."""

    name: str
    parse: Callable[[str], Record]
    """Raises ValueError: the line is not for it."""


def json_parser(name: str, time_key: str, time_format: str) -> Parser:
    # %L and %N: digits of a second, as many as there are.
    python_format = time_format.replace("%L", "%f").replace("%N", "%f")

    def parse(line: str) -> Record:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError("no object")
        time = datetime.strptime(record[time_key], python_format)
        return {**record, "time": time.replace(tzinfo=UTC)}

    return Parser(name, parse)


def regex_parser(name: str, expression: str) -> Parser:
    compiled = re.compile(re.sub(r"\(\?<(\w+)>", r"(?P<\1>", expression))  # Ruby's and Onigmo's named groups

    def parse(line: str) -> Record:
        found = compiled.search(line)
        if found is None:
            raise ValueError("no match")
        return found.groupdict()

    return Parser(name, parse)


def sections(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Of a file in Fluent Bit's classic mode; a key may come again."""
    for block in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        head, *lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")] or [
            ""
        ]
        if head:
            yield head.strip("[]"), [(line.split()[0], line.split(None, 1)[1]) for line in lines]


def fluent_bit() -> list[Parser]:
    """In the order in which the filter tries them."""
    found = {}
    for kind, fields in sections((FLUENT_BIT / "parsers.conf").read_text()):
        assert kind == "PARSER"
        values = dict(fields)
        if values["Format"] == "json":
            parser = json_parser(values["Name"], values["Time_Key"], values["Time_Format"])
        else:
            parser = regex_parser(values["Name"], values["Regex"])
        found[values["Name"]] = parser
    main = list(sections((FLUENT_BIT / "fluent-bit.conf").read_text()))
    assert [dict(fields)["Parsers_File"] for kind, fields in main if kind == "SERVICE"] == ["parsers.conf"]
    (filters,) = [fields for kind, fields in main if kind == "FILTER"]
    return [found[value] for key, value in filters if key == "Parser"]


def fluentd() -> list[Parser]:
    """In the order in which the filter tries them."""
    patterns = re.findall(r"<pattern>\n(.*?)</pattern>", (FLUENTD / "fluentd.conf").read_text(), re.DOTALL)
    found = []
    for pattern in patterns:
        values = dict(line.split(None, 1) for line in pattern.strip().splitlines())
        if values["format"] == "json":
            found.append(json_parser("json", values["time_key"], values["time_format"]))
        else:
            found.append(regex_parser("regexp", values["expression"].strip("/")))
    return found


def taken(line: str, parsers: list[Parser]) -> Record:
    """As the first parser that takes the line has it."""
    for parser in parsers:
        try:
            return parser.parse(line)
        except ValueError:
            continue
    raise AssertionError(f"no parser takes {line!r}")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a volume's daemons write from their start to their end, and one that cannot start."""
    data = tmp_path_factory.mktemp("logs") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYJIVA_LOG", "json")
        with running_up(data, "--size", "16MiB", "--replicas", "2") as up:
            up.kill("replica-2")
            up.wait_state("parked")
            up.wait_state("healthy")
            assert up.stop() == 0
            written = [line for line in up.log.read_text().splitlines() if OURS.match(line)]
    impossible = [sys.executable, "-m", "pyjiva.cli.replica", "--volume", "demo", "--volume-id", "no"]
    impossible += ["--replica-id", "1", "--directory", str(data / "other"), "--size", "1MiB"]
    impossible += ["--key-file", str(data / "missing")]
    ended = subprocess.run(impossible, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    return [*written, *ended.stderr.splitlines()]


@pytest.mark.real
@pytest.mark.parametrize("parsers", [fluent_bit, fluentd])
def test_every_line_is_taken_with_its_time_level_event_and_reason(
    parsers: Callable[[], list[Parser]], lines: list[str]
) -> None:
    records = [taken(line, parsers()) for line in lines]
    assert all(record["program"].startswith("pyjiva") and record["event"] for record in records)
    by_event = {record["event"]: record for record in records}
    lost = by_event["replica lost"]
    assert (lost["level"], lost["replica"], lost["volume"]) == ("warning", 2, "demo")
    assert lost["reason"] and lost["program"] == "pyjiva-controller"
    assert by_event["epoch promised"]["program"] == "pyjiva-replica"
    assert by_event["epoch promised"]["id"] in (1, 2)
    plain = records[-1]
    assert plain["program"] == "pyjiva-replica" and plain["event"].startswith("key file ")
    now = datetime.now(UTC)
    times = [record["time"] for record in records if "time" in record]
    assert len(times) >= len(records) - 5
    assert all(timedelta(0) <= now - time < timedelta(hours=1) for time in times), "read as UTC"
    assert any(time.microsecond % 1000 for time in times), "not cut to milliseconds"


def test_a_line_of_another_program_is_taken_by_none() -> None:
    for parsers in (fluent_bit(), fluentd()):
        with pytest.raises(AssertionError, match="no parser"):
            taken("kernel: pyjiva: something", parsers)


# --- the page


@attrs.define
class Event:
    level: str
    keys: set[str]


def events() -> dict[str, Event]:
    """Every event that the daemons log, from their sources: not Maya's, which is no daemon of a volume."""
    found: dict[str, Event] = {}
    for path in sorted((TOP / "src/pyjiva").rglob("*.py")):
        if "testing" in path.parts or "maya" in path.parts or path.name.startswith("maya"):
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not is_log(call.func):
                continue
            assert isinstance(call.func, ast.Attribute)
            event = call.args[0]
            where = f"{path}:{call.lineno}"
            assert isinstance(event, ast.Constant) and isinstance(event.value, str), f"{where}: no constant"
            level = LEVELS[call.func.attr]
            known = found.setdefault(event.value, Event(level, set()))
            assert known.level == level, f"{where}: of another level elsewhere"
            known.keys |= {key.arg for key in call.keywords if key.arg is not None} - {"exc_info"}
    return found


def is_log(function: ast.expr) -> bool:
    """Whether it is a method of a logger, by the names that they have here."""
    if not isinstance(function, ast.Attribute) or function.attr not in LEVELS:
        return False
    of = function.value
    if isinstance(of, ast.Call):
        of = of.func
        return isinstance(of, ast.Attribute) and of.attr in ("get_logger", "bind")
    name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
    return name in ("log", "_log")


def documented() -> dict[str, Event]:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    names = r"`([^`]+)`"
    return {
        re.findall(names, row[0])[0]: Event(row[1], set(re.findall(names, row[2])))
        for row in rows
        if row[1] in LEVELS.values()
    }


def test_the_page_has_every_event_with_its_level_and_keys() -> None:
    there, written = documented(), events()
    assert len(written) > 40
    assert set(there) == set(written)
    for name, event in written.items():
        assert there[name].level == event.level, name
        assert event.keys <= there[name].keys, name


def test_every_logger_is_found_by_its_name() -> None:
    """One under another name would be missed by the test above."""
    for path in (TOP / "src/pyjiva").rglob("*.py"):
        for line in path.read_text().splitlines():
            if "get_logger(" in line and "=" in line.partition("get_logger(")[0]:
                assert re.match(r"\s*(self\.)?_?log\b.* = structlog", line), f"{path}: {line}"
