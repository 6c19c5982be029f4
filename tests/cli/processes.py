"""The two daemons, as processes."""

import json
import os
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["VOLUME", "end", "running", "wait_state"]

VOLUME = ("--volume", "demo", "--volume-id", "0" * 31 + "1", "--size", "1MiB", "--stop-with-stdin")


@contextmanager
def running(
    module: str, *arguments: str, environment: Mapping[str, str] = os.environ
) -> Iterator["subprocess.Popen[str]"]:
    """The daemon; it ends with its standard input."""
    command = (sys.executable, "-m", f"pyjiva.cli.{module}", *VOLUME, *arguments)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            end(process)


def end(process: "subprocess.Popen[str]") -> None:
    """End its standard input and wait."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def wait_state(api: str, state: str) -> None:
    """Ask the controller until it is up and in `state`."""
    for _ in range(2000):
        try:
            with urllib.request.urlopen(f"http://{api}/v1/volume", timeout=5) as answer:
                if json.load(answer)["state"] == state:
                    return
        except OSError:
            select.select([], [], [], 0.01)
    raise AssertionError(f"the volume never was {state}")
