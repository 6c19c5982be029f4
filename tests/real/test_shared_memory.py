"""Large payloads in memory that a controller shares with its replicas, which die, or stand and go on late.

A driver writes all the time what belongs at each place, another one reads and compares every byte: data that
was put where it does not belong, as memory was used again too early, would be found by it, or in the end.
"""

import contextlib
import time
from pathlib import Path
from typing import Final

import pytest

from bench.driver_sys import build_driver, missing_packages
from bench.volume_sys import BenchVolume, running_volume
from pyjiva.units import KIB, MIB

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing_packages()), reason=f"install {' '.join(missing_packages())}"),
]

SIZE_BYTES: Final = 64 * MIB
SECONDS: Final = 9.0  # of load; one that stands is given up after four


def fail_one_after_another(volume: BenchVolume) -> None:
    """Kill one; let another one stand until it was given up, and go on with what it was told before."""
    time.sleep(0.5)
    volume.kill(1)
    time.sleep(0.5)
    volume.start_replica(1)
    volume.wait_healthy()
    volume.stand(2)
    volume.wait("given up", lambda: volume.replica_status(2)["mode"] != "in-sync", 20)
    volume.go_on(2)


@pytest.mark.parametrize("block_bytes", [128 * KIB, 1 * MIB])
def test_replicas_that_die_or_come_late_leave_every_byte_where_it_belongs(
    block_bytes: int, tmp_path: Path
) -> None:
    driver = build_driver()
    load = [
        "--block",
        str(block_bytes),
        "--depth",
        "8",
        "--range",
        str(SIZE_BYTES),
        "--seconds",
        str(SECONDS),
    ]
    with running_volume(tmp_path, SIZE_BYTES) as volume:
        driver.run(volume.url, "--fill", "--seconds", "0", "--range", str(SIZE_BYTES))
        before = volume.received_bytes(3)
        with contextlib.ExitStack() as stack:
            answers = [
                stack.enter_context(driver.running(volume.url, *load, "--verb", verb))
                for verb in ("write", "read")
            ]
            fail_one_after_another(volume)
            written, read = [answer() for answer in answers]
        volume.wait_healthy()
        assert (written["mismatches"], read["mismatches"]) == (0, 0)
        assert written["bytes"] > SIZE_BYTES
        # It was in all the time, and took all writes: most of them not over its connection.
        assert volume.received_bytes(3) - before < written["bytes"] / 2
        driver.run(volume.url, "--read-through", "--seconds", "0", "--range", str(SIZE_BYTES))
        volume.check_identical()
