"""`pyjiva` itself: what it costs, and what it prints of itself."""

import platform
import subprocess
import sys

import pyjiva

HEAVY = ("trio", "httpx", "rich", "starlette", "hypercorn", "structlog")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pyjiva.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_version_is_quick() -> None:
    """No library of a command is loaded for it."""
    done = run("--version")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    said = f"pyjiva, version {pyjiva.__version__}, interpreted by {python}\n"
    assert (done.returncode, done.stdout) == (0, said)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_without_a_command_it_lists_them() -> None:
    done = run()
    assert done.returncode == 0
    assert "\n  up " in done.stdout
    assert "\n  status " in done.stdout
