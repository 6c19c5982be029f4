"""Knowing for certain that a process is gone."""

import subprocess
import sys

from pyjiva.backup.process_sys import awake_s, is_gone, own_process


def test_we_are_here() -> None:
    assert not is_gone(own_process())
    assert awake_s() <= awake_s()


def test_a_process_that_has_ended_is_gone() -> None:
    ask = "from pyjiva.backup.process_sys import own_process; print(own_process())"
    child = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert is_gone(child.stdout.strip())


def test_a_number_that_is_another_process_now_is_gone() -> None:
    here, _, _ = own_process().rpartition(":")
    assert is_gone(f"{here}:1")


def test_of_a_process_elsewhere_nobody_knows() -> None:
    for elsewhere in ("other-boot:1:2:3", "", "1", f"x{own_process()}"):
        assert not is_gone(elsewhere)
