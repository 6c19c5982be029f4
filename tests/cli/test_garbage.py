"""Daemons run the cyclic collector seldom, and it still collects; all of it in processes of their own."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from pyjiva.cli.garbage import YOUNG_MAX
from pyjiva.supervisor.ports_sys import HeldPorts
from tests.cli.processes import VOLUME, end

CIRCLES = """
import gc, weakref
from pyjiva.cli.garbage import collect_seldom
class Link: pass
def circle():
    one, other = Link(), Link()
    one.other, other.other = other, one
    return weakref.ref(one)
gc.disable()
before = circle()
gc.enable()
collect_seldom()
assert before() is None, "garbage from before is not kept for ever"
kept = gc.get_freeze_count()
after = circle()
made = [[] for _ in range(1000)]
print(after() is not None, end=" ")
made += [[] for _ in range(%d)]
print(after() is None, kept > 1000, gc.get_freeze_count() == kept)
"""

DAEMON = """
import gc, importlib, signal, sys
def tell(*_):
    print("threshold", gc.get_threshold()[0], gc.isenabled(), gc.get_freeze_count() > 1000, flush=True)
signal.signal(signal.SIGUSR1, tell)
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
"""


def test_garbage_in_circles_is_collected_all_the_same_after_so_many_objects() -> None:
    code = CIRCLES % YOUNG_MAX
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True", "True", "True"]


def started(processes: ExitStack, *command: str) -> "subprocess.Popen[str]":
    """A daemon that says on SIGUSR1 how its collector is set."""
    process = subprocess.Popen(
        [sys.executable, "-c", DAEMON, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    processes.enter_context(process)
    processes.callback(end, process)
    return process


def test_a_daemon_that_has_started_collects_seldom(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    with HeldPorts() as ports:
        portal, api, data, health = (f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(4))
    common = (*VOLUME, "--key-file", str(key))
    with ExitStack() as processes:
        replica = started(
            processes,
            *("pyjiva.cli.replica", *common, "--replica-id", "1", "--directory", str(tmp_path / "r")),
            *("--data", data, "--health", health),
        )
        controller = started(
            processes,
            *("pyjiva.cli.controller", *common, "--replica", f"1={data}", "--new-volume"),
            *("--portal", portal, "--api", api),
        )
        assert controller.stdout is not None
        assert controller.stdout.readline().startswith("ready ")
        for each in (replica, controller):
            each.send_signal(signal.SIGUSR1)
            assert each.stdout is not None
            assert each.stdout.readline().split() == ["threshold", str(YOUNG_MAX), "True", "True"]
