"""Logs of the daemons: a traceback shows code, never what variables hold; a key in the open is warned of.
And what no daemon needs is not loaded for the sake of logs.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from pyjiva.cli.daemon import read_key, run_daemon


@pytest.mark.parametrize("form", ["", "json"])
def test_traceback_in_a_log_shows_no_variable(
    form: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYJIVA_LOG", form)

    async def main() -> int:
        secret = "-".join(["held", "in", "a", "variable"])
        try:
            raise ValueError(len(secret))
        except ValueError:
            structlog.get_logger("test").exception("something-failed")
        return 0

    try:
        assert run_daemon("test", main) == 0
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    err = capfd.readouterr().err
    assert "something-failed" in err
    assert "ValueError: 18" in err, "the traceback is there"
    assert "held-in-a-variable" not in err


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_may_read_is_warned_of(mode: int, warned: bool, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("ab" * 32 + "\n")
    file.chmod(mode)
    with structlog.testing.capture_logs() as logs:
        assert read_key(file, warn=True) == b"\xab" * 32
    assert [log["event"] for log in logs] == ["key-readable-by-others"] * warned
    assert "ab" * 32 not in str(logs)


@pytest.mark.parametrize("earlier", ["", "import rich.traceback", "import structlog"])
def test_logs_do_not_load_rich_into_a_replica_and_what_needs_it_finds_it(earlier: str) -> None:
    code = f"""
import sys
{earlier}
before = "rich" in sys.modules
import pyjiva.cli.replica
assert ("rich" in sys.modules) == before, "loaded, or taken away"
import pyjiva.cli.top
assert "rich" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
