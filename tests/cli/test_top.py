"""`pyjiva top`."""

from click.testing import CliRunner

from pyjiva.cli.top import command
from tests.cli.fake_api import STATUS, Api
from tests.cli.test_rates import scrape


def test_it_shows_what_was_done_since_the_last_look(api: Api, clock: list[float]) -> None:
    api.texts = [scrape(), scrape((200, 200, 200), total_s=0.1, length=800 * 1024, in_flight=7)]
    result = CliRunner().invoke(command, ["--api", api.url, "--count", "1", "--interval", "2"])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["demo", "degraded", "10GiB,", "1", "sessions"]
    assert ["read", "100", "400KiB", "7", "500", "µs", "<1", "ms", "<1", "ms"] in lines
    assert ["2", "100", "rebuilding", "7", "500", "µs", "<1", "ms", "<1", "ms"] in lines
    assert api.asked == ["GET /metrics", "GET /metrics", "GET /v1/volume"]


def test_it_goes_on_until_ctrl_c(api: Api, clock: list[float]) -> None:
    clock[1] = 4.0
    api.texts = [scrape()] * 4
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 0
    assert result.output.count("demo  degraded") == 3


def test_what_is_no_metrics_is_one_line(api: Api, clock: list[float]) -> None:
    api.texts = ["{never closed"]
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert "the answer is not a volume's status" in result.stderr


def test_replicas_that_have_no_metrics_yet_are_left_out(api: Api, clock: list[float]) -> None:
    api.texts = [scrape(), scrape()]
    api.bodies = [STATUS]
    result = CliRunner().invoke(command, ["--api", api.url, "--count", "1"])
    first_words = [line.split()[0] for line in result.output.splitlines() if line.split()]
    assert first_words == ["demo", "replica", "hosts", "replica", "2"]
