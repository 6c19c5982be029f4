"""`pyjiva scrub` against an API that says whatever a test wants."""

from typing import Any

import pytest
from click.testing import CliRunner

from pyjiva.cli.scrub import command
from pyjiva.transport.problem import Problem, Reason
from tests.cli.fake_api import STATUS, Api

OVER = {"running": False, "position_bytes": 10 * 1024**3, "bad": 1, "different": 0}


def test_it_is_begun_with_its_rate(api: Api) -> None:
    api.paths["/v1/scrub"] = (202, {})
    result = CliRunner().invoke(command, ["--api", api.url, "--rate", "50MiB"])
    assert (result.exit_code, result.output) == (0, "")
    assert api.asked == ["POST /v1/scrub?rate=52428800"]


def test_a_refusal_is_one_line(api: Api) -> None:
    api.paths["/v1/scrub"] = (409, Problem.of(Reason.REFUSED, "a scrub is under way").body())
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert result.stderr == f"pyjiva: the controller refused at {api.url}: a scrub is under way\n"


def test_a_rate_that_is_none_is_not_sent(api: Api) -> None:
    assert CliRunner().invoke(command, ["--api", api.url, "--rate", "fast"]).exit_code == 2
    assert api.asked == []


@pytest.mark.parametrize(("hopeless", "code"), [(0, 0), (2, 5)])
def test_with_wait_the_end_is_told(hopeless: int, code: int, api: Api) -> None:
    replicas: list[dict[str, Any]] = [
        r | {"rot": {"repairing": 0, "repaired": 1, "hopeless": hopeless}} for r in STATUS["replicas"]
    ]
    api.paths["/v1/scrub"] = (202, {})
    api.paths["/v1/volume"] = (200, STATUS | {"scrub": OVER, "replicas": replicas})
    result = CliRunner().invoke(command, ["--api", api.url, "--wait"])
    assert result.stdout.endswith("last scrub: 1 chunks with rot, 0 that differ\n")
    assert result.exit_code == code
    assert ("without a good copy on replica 1, 2, 3" in result.stderr) == bool(hopeless)


def test_an_odd_answer_is_one_line(api: Api) -> None:
    api.paths["/v1/scrub"] = (202, {})
    api.body = b"[]"
    result = CliRunner().invoke(command, ["--api", api.url, "--wait"])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")
