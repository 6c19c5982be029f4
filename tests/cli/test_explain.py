"""`pyjiva explain` against an API that says whatever a test wants."""

import json

import pytest
from click.testing import CliRunner

from pyjiva.cli.explain import command
from pyjiva.transport.event_stream import COMMENT, ServerSentEvent
from tests.cli.fake_api import STATUS, Api

EVENTS = [
    {"number": n, "at_s": 1_800_000_000.0 + n, "kind": "replica", "replica": 2, "text": f"thing {n}"}
    for n in range(1, 31)
]


@pytest.fixture
def broken(api: Api) -> Api:
    """A volume with a replica down and one with rot."""
    replicas = [r | {"rot": r["rot"] | {"hopeless": 2 * (r["id"] == 3)}} for r in STATUS["replicas"]]
    replicas.append(replicas[0] | {"id": 4, "mode": "witness"})
    replicas[1] |= {"mode": "out", "reason": "not reachable: Connection refused"}
    api.paths["/v1/volume"] = (200, STATUS | {"replicas": replicas})
    api.paths["/v1/events"] = (200, EVENTS)
    return api


def test_it_says_why_and_what_to_do_and_what_happened_last(broken: Api) -> None:
    result = CliRunner().invoke(command, ["--api", broken.url])
    assert result.exit_code == 3
    for part in (
        "Replica 2 at 127.0.0.1:9502 is out.",
        "(not-running)",
        "no `pyjiva-replica` listens",
        "To do: Start it again",
        "Replica 3 has rot in 2 ranges.",
        "2027-01-15 08:00:30+00:00  replica 2: thing 30",
        "thing 11",
    ):
        assert part in result.output
    assert "thing 10" not in result.output
    assert "Replica 1" not in result.output
    assert "Replica 4" not in result.output, "a witness that votes is as it should be"


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (1, 1), (1000, 30)])
def test_as_many_events_as_were_asked_for(count: int, lines: int, broken: Api) -> None:
    result = CliRunner().invoke(command, ["--api", broken.url, "--events", str(count)])
    assert result.output.count("thing") == lines


def test_a_parked_volume_says_what_it_waits_for(api: Api) -> None:
    reason = "too few replicas in sync; replica 1 is out: no answer for 4.1 s"
    api.paths["/v1/volume"] = (200, STATUS | {"state": "parked", "reason": reason})
    api.paths["/v1/events"] = (200, [])
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 4
    assert "(too-few-copies)" in result.output


def test_an_odd_answer_is_one_line(api: Api) -> None:
    api.body = b"[]"
    result = CliRunner().invoke(command, ["--api", api.url])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")


def test_what_happens_then_follows(broken: Api) -> None:
    """Each once: the stream begins with what is known; it ends with the controller."""
    late = {"number": 31, "at_s": 1_800_000_031.0, "kind": "snapshot", "replica": None, "text": "create one"}
    stream = [
        ServerSentEvent(f"x-{e['number']}", str(e["kind"]), json.dumps(e)).encode()
        for e in (EVENTS[-1], late)
    ]
    broken.paths["/v1/events/stream"] = (200, COMMENT + "".join(stream))
    result = CliRunner().invoke(command, ["--api", broken.url, "--events", "2", "--follow"])
    assert [line for line in result.stdout.splitlines() if line.startswith("  2027")] == [
        "  2027-01-15 08:00:29+00:00  replica 2: thing 29",
        "  2027-01-15 08:00:30+00:00  replica 2: thing 30",
        "  2027-01-15 08:00:31+00:00  snapshot: create one",
    ]
    assert result.exit_code == 1
    assert "it has ended" in result.stderr


def test_what_is_no_event_is_one_line(broken: Api) -> None:
    broken.paths["/v1/events/stream"] = (200, "data: odd\n\n")
    result = CliRunner().invoke(command, ["--api", broken.url, "--follow"])
    assert result.exit_code == 1
    assert "the answer is not a volume's status" in result.stderr


def test_a_refusal_to_follow_is_one_line(broken: Api) -> None:
    broken.paths["/v1/events/stream"] = (503, {"detail": "not now", "title": "x", "status": 503})
    result = CliRunner().invoke(command, ["--api", broken.url, "--follow"])
    assert result.exit_code == 1
    assert "not now" in result.stderr
