"""Logs of the daemons: a traceback shows code, never what variables hold."""

import pytest
import structlog

from pyjiva.cli.daemon import run_daemon


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
