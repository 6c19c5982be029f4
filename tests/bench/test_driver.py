"""The load driver against pyjiva's target: what it verifies, what it counts, how it fails."""

import json
import os
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.driver_sys import Driver, build_driver
from bench.errors import BenchError
from bench.process_sys import cpu_s, free_port
from bench.targets_sys import RunningTarget, start_local
from pyjiva.units import KIB, MIB
from tests.bench.spoiling import flip_bit
from tests.bench.waiting import wait_for

pytestmark = pytest.mark.real

RANGE_BYTES = 4 * MIB
SECTOR_BYTES = 512


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTarget]:
    """pyjiva's target over one sparse file; every test fills it as it needs it."""
    with start_local(tmp_path_factory.mktemp("local"), RANGE_BYTES) as started:
        yield started


def run(driver: Driver, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The driver with whatever exit code."""
    return subprocess.run([str(driver.program), url, *arguments], capture_output=True, text=True, check=False)


def head_file(target: RunningTarget) -> Path:
    """Where the local chain keeps its data."""
    (path,) = target.data.rglob("volume-head-*.img")
    return path


def test_what_was_filled_is_read_back_whole(driver: Driver, target: RunningTarget) -> None:
    answer = driver.run(target.url, "--fill", "--read-through", "--seconds", "0")
    assert answer["verified_bytes"] == RANGE_BYTES
    assert (answer["mismatches"], answer["ops"]) == (0, 0)


@pytest.mark.parametrize("pattern", ["random", "sequential", "shuffled"])
@pytest.mark.parametrize(("block_bytes", "depth"), [(512, 1), (4 * KIB, 32), (1 * MIB, 8)])
def test_writes_keep_the_content_that_reads_expect(
    driver: Driver, target: RunningTarget, pattern: str, block_bytes: int, depth: int
) -> None:
    load = ["--pattern", pattern, "--block", str(block_bytes), "--depth", str(depth), "--count", "100"]
    written = driver.run(target.url, "--fill", "--verb", "write", *load)
    assert (written["ops"], written["bytes"]) == (100, 100 * block_bytes)
    read = driver.run(target.url, "--read-through", "--cork", *load)
    assert read["ops"] == 100
    assert read["verified_bytes"] >= RANGE_BYTES + 100 * block_bytes


@pytest.mark.parametrize(("count", "range_bytes"), [(64, RANGE_BYTES), (37, 37 * 64 * KIB)])
def test_shuffled_blocks_come_once_each(
    driver: Driver, target: RunningTarget, count: int, range_bytes: int
) -> None:
    driver.run(target.url, "--fill", "--seed", "1", "--seconds", "0")
    before = head_file(target).read_bytes()
    load = ["--verb", "write", "--block", str(64 * KIB), "--depth", "8", "--range", str(range_bytes)]
    driver.run(target.url, "--pattern", "shuffled", "--seed", "2", *load, "--count", str(count))
    after = head_file(target).read_bytes()
    chunks = range(0, RANGE_BYTES, 64 * KIB)
    changed = [at for at in chunks if after[at : at + 64 * KIB] != before[at : at + 64 * KIB]]
    assert changed == list(chunks[:count])


@pytest.mark.parametrize("count", [16, 63])
def test_with_a_stride_a_write_touches_the_start_of_a_chunk(
    driver: Driver, target: RunningTarget, count: int
) -> None:
    driver.run(target.url, "--fill", "--seed", "1", "--seconds", "0")
    before = head_file(target).read_bytes()
    load = ["--verb", "write", "--pattern", "shuffled", "--stride", str(64 * KIB), "--depth", "4"]
    driver.run(target.url, *load, "--seed", "2", "--count", str(count))
    after = head_file(target).read_bytes()
    changed = {
        at for at in range(0, RANGE_BYTES, 4 * KIB) if after[at : at + 4 * KIB] != before[at : at + 4 * KIB]
    }
    assert len(changed) == count
    assert all(at % (64 * KIB) == 0 for at in changed)
    assert max(changed) > RANGE_BYTES // 2, "they are all over the range"


def test_the_longest_time_without_an_answer_is_reported(driver: Driver, tmp_path: Path) -> None:
    with start_local(tmp_path, RANGE_BYTES) as target:
        pid = target.process.pid
        with driver.running(target.url, "--seconds", "0.5", "--depth", "4", "--verb", "write") as answer:
            busy_s = cpu_s([pid]) + 0.05
            wait_for(lambda: cpu_s([pid]) > busy_s)
            os.kill(pid, signal.SIGSTOP)
            since = time.monotonic()
            wait_for(lambda: time.monotonic() > since + 0.6)
            os.kill(pid, signal.SIGCONT)
            said = answer()
    assert 0.55e6 < said["gap_max_us"] < said["latency_us"]["max"] + 1e4 < 60e6


def test_data_cannot_be_compressed_and_no_sector_is_like_another(
    driver: Driver, target: RunningTarget
) -> None:
    driver.run(target.url, "--fill", "--seconds", "0")
    data = head_file(target).read_bytes()[:RANGE_BYTES]
    assert len(zlib.compress(data)) >= len(data)
    sectors = {data[at : at + SECTOR_BYTES] for at in range(0, RANGE_BYTES, SECTOR_BYTES)}
    assert len(sectors) == RANGE_BYTES // SECTOR_BYTES


@pytest.mark.parametrize(
    ("offset_bytes", "what"),
    [(5 * SECTOR_BYTES, "stamp"), (5 * SECTOR_BYTES + 300, "content")],
)
def test_one_wrong_bit_is_found(driver: Driver, target: RunningTarget, offset_bytes: int, what: str) -> None:
    driver.run(target.url, "--fill", "--seconds", "0")
    flip_bit(head_file(target), offset_bytes)
    with head_file(target).with_suffix(".img.sums").open("r+b") as sums:
        sums.write(bytes(8))  # unknown: the target believes the block, and only the driver can tell
    done = run(driver, target.url, "--read-through", "--seconds", "0")
    assert done.returncode == 3
    assert f"sector 5 does not hold what was written: wrong {what}" in done.stderr
    assert json.loads(done.stdout)["mismatches"] == 1


def test_the_target_refuses_what_has_rotted_beneath_it(driver: Driver, target: RunningTarget) -> None:
    driver.run(target.url, "--fill", "--seconds", "0")
    flip_bit(head_file(target), 0)
    done = run(driver, target.url, "--read-through", "--seconds", "0")
    assert done.returncode == 1
    assert "SENSE KEY:(null)(3) ASCQ:(null)(0x1100)" in done.stderr, "MEDIUM ERROR, UNRECOVERED READ ERROR"


def test_data_of_another_seed_is_wrong_everywhere(driver: Driver, target: RunningTarget) -> None:
    driver.run(target.url, "--fill", "--seed", "1", "--seconds", "0")
    done = run(driver, target.url, "--seed", "2", "--count", "10")
    assert done.returncode == 3
    assert json.loads(done.stdout)["mismatches"] == 10 * 8
    with pytest.raises(BenchError, match="exit code 3"):
        driver.run(target.url, "--seed", "2", "--count", "10")


def test_a_timed_run_reports_what_it_measured(driver: Driver, target: RunningTarget) -> None:
    pid = target.process.pid
    answer = driver.run(
        target.url, "--fill", "--depth", "4", "--seconds", "0.2", "--warmup", "0.05", watch=[pid]
    )
    assert answer["seconds"] >= 0.2
    assert answer["iops"] == pytest.approx(answer["ops"] / answer["seconds"], rel=1e-3)
    assert answer["mb_s"] == pytest.approx(answer["bytes"] / answer["seconds"] / 1e6, rel=1e-3)
    latency = answer["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert latency["max"] <= 1e6 * (answer["seconds"] + 1)
    assert answer["driver"]["user_s"] + answer["driver"]["system_s"] > 0
    assert answer["watched"][str(pid)]["rss_bytes"] > 1 * MIB
    assert answer["config"]["depth"] == 4


def test_a_rate_is_kept_and_a_target_that_stands_still_is_charged_with_what_it_holds_up(
    driver: Driver, tmp_path: Path
) -> None:
    """Of 1000 commands a second about 300 are to be sent while it stands: half of these wait 0.15 s or more,
    though at most two are outstanding.
    """
    with start_local(tmp_path, RANGE_BYTES) as started:
        driver.run(started.url, "--fill", "--seconds", "0")
        load = ["--rate", "1000", "--depth", "2", "--seconds", "1.5"]
        calm = driver.run(started.url, *load)
        assert 0.8 * 1500 < calm["ops"] < 1.2 * 1500
        with driver.running(started.url, *load) as answer:
            time.sleep(0.5)
            os.kill(started.process.pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(started.process.pid, signal.SIGCONT)
            stood = answer()
    assert 0.8 * 1500 < stood["ops"] < 1.2 * 1500
    assert stood["latency_us"]["p90"] > 50_000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "usage"),
        (["--seconds", "1", "--count", "1"], "usage"),
        (["--count", "0"], "--count 0"),
        (["--count", "1", "--verb", "erase"], "read or write"),
        (["--count", "1", "--pattern", "odd"], "random or sequential"),
        (["--count", "1", "--stride", "512"], "less than --block"),
        (["--count", "1", "--block", "1000"], "multiple of 512"),
        (["--count", "1", "--depth", "257"], "1 to 256"),
        (["--seconds", "-1"], "seconds are needed"),
        (["--seconds", "1", "--rate", "0"], "--rate 0"),
        (["--count", "1", "--range", str(2 * RANGE_BYTES)], "the LUN has"),
        (["--count", "1", "--range", "4096", "--block", "8192"], "smaller than --block"),
    ],
)
def test_impossible_options_are_refused(
    driver: Driver, target: RunningTarget, arguments: list[str], reason: str
) -> None:
    done = run(driver, target.url, *arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""


def test_a_target_that_is_not_there_is_a_failure(driver: Driver) -> None:
    done = run(driver, f"iscsi://127.0.0.1:{free_port()}/iqn.2001-04.org.example:none/0", "--count", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("iscsi_load: ")


def test_a_target_that_dies_is_a_failure(driver: Driver, tmp_path: Path) -> None:
    """No reconnect, no retry: the time would go into the measurement."""
    with start_local(tmp_path, RANGE_BYTES) as mortal:
        command = [str(driver.program), mortal.url, "--seconds", "60", "--verb", "write", "--depth", "8"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            busy_s = cpu_s([mortal.process.pid]) + 0.05
            wait_for(lambda: cpu_s([mortal.process.pid]) > busy_s)
            mortal.process.popen.kill()
            assert process.wait(30) == 1
            assert process.stderr.read().startswith("iscsi_load: ")


def test_a_watched_process_that_is_not_there_is_a_failure(driver: Driver, target: RunningTarget) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = run(driver, target.url, "--count", "1", "--watch", str(gone.pid))
    assert done.returncode == 1
    assert "was to be watched" in done.stderr


def test_a_newer_source_is_compiled_again(driver: Driver, tmp_path: Path) -> None:
    copy = tmp_path / "iscsi_load"
    copy.write_text("#!/bin/sh\n")
    assert build_driver(tmp_path).program.read_bytes().startswith(b"#!")
    os.utime(copy, (0, 0))
    assert build_driver(tmp_path).program.read_bytes().startswith(b"\x7fELF")
