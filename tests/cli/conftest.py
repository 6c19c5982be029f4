"""A stand-in for a controller's API."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyjiva.cli import top, watch
from tests.cli.fake_api import Api


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def api() -> Iterator[Api]:
    """A server on a port of its own."""
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever)
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only while `status --watch` or `top` waits; [its end]: Ctrl-C comes then."""
    now = [0.0, float("inf")]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= now[1]:
            raise KeyboardInterrupt

    for module in (watch, top):
        monkeypatch.setattr(module, "sleep", sleep)
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now
