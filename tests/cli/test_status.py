"""`pyjiva status` against an API that says whatever a test wants."""

import json

import pytest
from click.testing import CliRunner

from pyjiva.cli.status import command
from tests.cli.fake_api import STATUS, Api


@pytest.mark.parametrize(("state", "code"), [("healthy", 0), ("degraded", 3), ("parked", 4)])
def test_the_exit_code_tells_the_state(state: str, code: int, api: Api) -> None:
    api.body = json.dumps(STATUS | {"state": state}).encode()
    assert CliRunner().invoke(command, ["--api", api.url]).exit_code == code


def test_people_see_everything_that_matters_also_in_a_pipe(api: Api) -> None:
    output = CliRunner().invoke(command, ["--api", api.url]).output
    for part in (
        "demo",
        "10GiB",
        "degraded",
        "rebuilding 42 % from 3, 3GiB to go, 75 s",
        "replica 3: rot in 3 ranges repaired, in 0 under repair, in 0 without a good copy",
        "being rebuilt",
        "iqn.1993-08.org.debian:01:abc",
        "3MiB",
        "7GiB",
    ):
        assert part in output
    for replica in STATUS["replicas"]:
        assert replica["directory"] in output


@pytest.mark.parametrize(
    ("scrub", "line"),
    [
        (
            {"running": True, "position_bytes": 5 * 1024**3, "bad": 1, "different": 0},
            "scrub: 50 %, 1 chunks with rot, 0 that differ",
        ),
        (
            {"running": False, "position_bytes": 10 * 1024**3, "bad": 0, "different": 2},
            "last scrub: 0 chunks with rot, 2 that differ",
        ),
    ],
)
def test_a_scrub_has_a_line(scrub: dict[str, object], line: str, api: Api) -> None:
    api.body = json.dumps(STATUS | {"scrub": scrub}).encode()
    assert line in CliRunner().invoke(command, ["--api", api.url]).output


def test_programs_get_the_body(api: Api) -> None:
    output = CliRunner().invoke(command, ["--api", api.url, "--json"]).output
    assert json.loads(output) == STATUS


def test_the_environment_names_the_api(api: Api) -> None:
    result = CliRunner().invoke(command, ["--json"], env={"PYJIVA_API": api.url})
    assert json.loads(result.output)["name"] == "demo"


@pytest.mark.parametrize(
    ("code", "body"), [(500, b"{}"), (200, b"not json"), (200, b"[]"), (200, b'{"state": "odd"}'), (404, b"")]
)
def test_an_odd_answer_is_one_line_and_exit_code_1(code: int, body: bytes, api: Api) -> None:
    api.code, api.body = code, body
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")


def test_nobody_there_is_exit_code_1(api: Api) -> None:
    result = CliRunner().invoke(command, ["--api", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
