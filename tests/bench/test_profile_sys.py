"""Self times from folded stacks."""

import pytest

from bench.profile_sys import markdown, self_times

IDLE = "_bootstrap (threading.py:1);WorkerThread._work (trio/_core/_thread_cache.py:209)"


def test_samples_count_for_the_function_that_they_ended_in() -> None:
    profile = self_times("target", ["main;serve;read 6", "main;serve 3", "main;other;read 1"])
    assert profile.samples == 10
    assert [name for name, _ in profile.functions] == ["read", "serve"]
    assert [share for _, share in profile.functions] == pytest.approx([0.7, 0.3])


def test_threads_that_wait_for_work_are_left_out() -> None:
    busy = f"{IDLE};WorkerThread._handle_job (trio/_core/_thread_cache.py:150);flush"
    profile = self_times("target", [f"{IDLE} 90", f"{IDLE};wait (libc.so.6) 5", f"{busy} 5", "main 5"])
    assert profile.samples == 10
    assert dict(profile.functions) == {"flush": 0.5, "main": 0.5}


def test_no_samples_are_no_functions() -> None:
    assert self_times("target", []).functions == []


def test_a_table_lists_the_largest_first() -> None:
    text = markdown([self_times("replica", ["a 1", "b 3"])])
    assert text.splitlines()[-2:] == ["| 75.0 % | `b` |", "| 25.0 % | `a` |"]
