"""`pyjiva status --watch` and `--until-healthy`, with a terminal and without."""

import io
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from pyjiva.cli import watch
from pyjiva.cli.status import command
from tests.cli.fake_api import REBUILD, STATUS, Api

MIB = 1024**2


def looks() -> list[dict[str, Any]]:
    """A rebuild as it is seen: a quarter, a half, copied, healthy."""
    bodies = []
    for progress, copied in ((0.25, 10 * MIB), (0.5, 20 * MIB), (1.0, 40 * MIB)):
        rebuild = None if progress == 1 else REBUILD | {"copied_bytes": copied}
        replicas = [dict(replica) for replica in STATUS["replicas"]]
        replicas[1] |= {"progress": progress, "rebuild": rebuild}
        replicas[1]["rebuilds"] = replicas[1]["rebuilds"] | {"copied_bytes": copied}
        bodies.append(STATUS | {"replicas": replicas})
    healthy = [r | {"mode": "in-sync", "progress": None, "rebuild": None, "reason": ""} for r in replicas]
    return [*bodies, STATUS | {"state": "healthy", "reason": "", "replicas": healthy}]


def test_in_a_pipe_each_change_is_a_line(api: Api, clock: list[float]) -> None:
    api.bodies = looks()
    result = CliRunner().invoke(command, ["--api", api.url, "--until-healthy"])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "demo is degraded: replica 2 is rebuilding: being rebuilt",
        "replica 1 is in-sync",
        "replica 2 is rebuilding 25 %, 10MiB copied, 3GiB to go, 75 s: being rebuilt",
        "replica 3 is in-sync",
        "replica 2 is rebuilding 50 %, 20MiB copied, 10MiB/s, 3GiB to go, 75 s: being rebuilt",
        "replica 2 is rebuilding 100 %, everything is copied: being rebuilt",
        "demo is healthy",
        "replica 2 is in-sync",
    ]
    assert clock[0] == 3


def test_ctrl_c_ends_it_with_the_exit_code_of_the_last_state(api: Api, clock: list[float]) -> None:
    clock[1] = 5
    result = CliRunner().invoke(command, ["--api", api.url, "--watch"])
    assert result.exit_code == 3
    assert api.asked == ["GET /v1/volume"] * 5
    assert result.output.count("replica 2") == 3  # the volume's reason, itself, and once more with its speed


def test_watching_goes_on_when_the_volume_is_healthy(api: Api, clock: list[float]) -> None:
    clock[1] = 6
    api.bodies = looks()[2:]
    assert CliRunner().invoke(command, ["--api", api.url, "--watch"]).exit_code == 3
    assert len(api.asked) == 6


def test_a_terminal_shows_tables_and_a_bar(
    api: Api, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, height=50)
    monkeypatch.setattr(watch, "open_console", lambda: console)
    monkeypatch.setattr(watch, "_in_lines", lambda: watch._on_terminal(console))
    api.bodies = looks()
    assert CliRunner().invoke(command, ["--api", api.url, "--until-healthy"]).exit_code == 0
    shown = terminal.getvalue()
    for part in (
        "127.0.0.1:9502",
        "iqn.1993-08.org.debian:01:abc",
        "━",
        "50%",
        "20MiB copied, 10MiB/s, 3GiB to go, 75 s",
        "healthy",
    ):
        assert part in shown
    assert shown.count("10GiB in blocks") == len(looks()) + 1, "once for each look, and at the end"


def test_a_clone_shows_how_much_of_it_is_filled(
    api: Api, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    filling = [
        looks()[-1] | {"state": state, "filled": share}
        for state, share in (("degraded", 0.25), ("degraded", 0.5), ("healthy", 1.0))
    ]
    api.bodies = list(filling)
    printed = CliRunner().invoke(command, ["--api", api.url, "--until-healthy"]).output
    assert printed.count("25 % of it is filled\n") == printed.count("50 % of it is filled\n") == 1
    assert "100 %" not in printed
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, height=50)
    monkeypatch.setattr(watch, "open_console", lambda: console)
    monkeypatch.setattr(watch, "_in_lines", lambda: watch._on_terminal(console))
    api.bodies = list(filling)
    CliRunner().invoke(command, ["--api", api.url, "--until-healthy"])
    assert "2.5GiB of 10GiB" in terminal.getvalue()


@pytest.mark.parametrize("body", [{}, {"state": "odd"}, STATUS | {"replicas": [{"id": 1}]}])
def test_what_is_no_status_is_one_line(body: dict[str, Any], api: Api, clock: list[float]) -> None:
    api.bodies = [body]
    result = CliRunner().invoke(command, ["--api", api.url, "--watch"])
    assert result.exit_code == 1
    assert result.stderr.startswith("pyjiva: no volume answers at ")


def test_json_is_one_answer(api: Api) -> None:
    result = CliRunner().invoke(command, ["--api", api.url, "--watch", "--json"])
    assert result.exit_code == 2
    assert "--json" in result.stderr


@pytest.mark.parametrize(
    ("looks", "speed"),
    [
        ([(0, 0)], None),
        ([(0, 0), (2, 100)], 50),
        ([(0, 500), (2, 100)], None),
        ([(0, 0), (0, 100)], None),
        ([(n, 10 * n * n) for n in range(10)], 10 * (81 - 16) / 5),
    ],
)
def test_a_speed_is_the_mean_of_the_last_looks(looks: list[tuple[int, int]], speed: float | None) -> None:
    speeds = watch.Speeds()
    for at_s, copied in looks:
        speeds.look(at_s, {"replicas": [{"id": 2, "rebuilds": {"copied_bytes": copied}}]})
    assert speeds.of(2) == speed
    assert speeds.of(1) is None
