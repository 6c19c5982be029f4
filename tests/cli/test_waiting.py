"""Operations are waited for with a bar on a terminal, with lines elsewhere."""

import io
import sys
from typing import Any

import pytest

from pyjiva.cli import waiting
from pyjiva.cli.api import Api
from pyjiva.cli.waiting import wait_for_operations
from pyjiva.units import MIB

OTHER = {"id": "1", "kind": "scrub", "replica": None, "state": "running", "reason": ""}


def merge(
    id_: int, done: int, *, state: str = "running", eta_s: float | None = None, reason: str = ""
) -> Any:
    return {
        "id": str(id_),
        "kind": "merge",
        "replica": id_,
        "state": state,
        "done_bytes": done * MIB,
        "total_bytes": 100 * MIB if done else 0,
        "eta_s": eta_s,
        "reason": reason,
    }


class Client(Api):
    """Gives one answer after the other."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def get(self, path: str, **parameters: Any) -> Any:
        assert path == "/v1/operations"
        return self.answers.pop(0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only between two looks: 5 s each."""
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 5.0

    monkeypatch.setattr(waiting, "sleep", sleep)
    monkeypatch.setattr(waiting, "monotonic", lambda: now[0])


def test_without_one_under_way_there_is_nothing_to_wait_for() -> None:
    assert (
        wait_for_operations(Client([[OTHER, merge(2, 9, state="failed", reason="long ago")]]), "merge") == []
    )


def test_a_line_now_and_then_has_rate_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    looks = [[OTHER, merge(2, done, eta_s=8.0)] for done in (0, 20, 60, 80, 90)]
    client = Client([*looks, [OTHER, merge(2, 100, state="done")]])
    assert wait_for_operations(client, "merge") == []
    assert not client.answers
    assert capsys.readouterr().err.splitlines() == [
        "merge, replica 2: 60MiB of 100MiB, 6MiB/s, 8 s to go",
        "merge, replica 2: 90MiB of 100MiB, 3MiB/s, 8 s to go",
    ]


def test_one_that_fails_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    lost = merge(3, 10, state="failed", reason="the replica was lost")
    client = Client([[merge(2, 0), merge(3, 10)], [merge(2, 50), lost], [merge(2, 100, state="done"), lost]])
    assert wait_for_operations(client, "merge") == ["merge, replica 3: failed: the replica was lost"]


def test_on_a_terminal_there_is_a_bar_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    looks = [[merge(2, done), merge(3, done)] for done in (0, 20, 60)]
    assert wait_for_operations(Client([*looks, []]), "merge") == []
    drawn = terminal.getvalue()
    assert "merge, replica 2" in drawn and "merge, replica 3" in drawn
    assert "60.0/100.0" in drawn and "60%" in drawn
