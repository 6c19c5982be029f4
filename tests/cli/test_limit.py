"""`pyjiva limit` against an API that says whatever a test wants."""

import pytest
from click.testing import CliRunner

from pyjiva.block import Limits
from pyjiva.cli.limit import command
from pyjiva.cli.limits import limit_arguments, take_limits
from tests.cli.fake_api import STATUS, Api

LIMITS = {"iops": 500.0, "bytes_per_s": 50 * 1024**2, "burst_s": 2.0, "waiting": 3, "delayed": 9}
TEXT = "500 commands per second, 50MiB per second; after rest 2 s of it at once; 3 wait\n"


def test_what_holds_is_shown(api: Api) -> None:
    api.paths["/v1/volume"] = (200, STATUS | {"limits": LIMITS})
    result = CliRunner().invoke(command, ["--api", api.url])
    assert (result.exit_code, result.output) == (0, TEXT)


def test_what_is_given_is_changed_and_shown(api: Api) -> None:
    api.paths["/v1/limits"] = (200, {"limits": LIMITS})
    arguments = ["--iops", "500", "--rate", "50MiB", "--burst", "2"]
    result = CliRunner().invoke(command, ["--api", api.url, *arguments])
    assert (result.exit_code, result.output) == (0, TEXT)
    assert api.asked == ["POST /v1/limits?iops=500.0&rate=52428800&burst=2.0"]


@pytest.mark.parametrize("wrong", ["--iops 0", "--iops many", "--rate fast", "--burst 0"])
def test_what_makes_no_sense_is_not_sent(wrong: str, api: Api) -> None:
    assert CliRunner().invoke(command, ["--api", api.url, *wrong.split()]).exit_code == 2
    assert api.asked == []


def test_an_odd_answer_is_one_line(api: Api) -> None:
    api.body = b"[]"
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")


@pytest.mark.parametrize("limits", [Limits(), Limits(iops=5.5), Limits(bytes_per_s=1 << 20, burst_s=0.5)])
def test_the_options_that_are_handed_on_say_the_same(limits: Limits) -> None:
    line = limit_arguments(limits)
    given = dict(zip(line[::2], line[1::2], strict=True))
    iops, rate = given.get("--limit-iops"), given.get("--limit-rate")
    taken = take_limits(
        {
            "limit_iops": None if iops is None else float(iops),
            "limit_rate": None if rate is None else int(rate),
            "limit_burst": float(given["--limit-burst"]),
        }
    )
    assert taken == limits
