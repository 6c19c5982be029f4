"""`pyjiva up --old-metric-names` reaches the controller, whose figures are those of a host's requests."""

import struct
import urllib.request
from pathlib import Path

import pytest
import trio

from pyjiva.testing.initiator import open_initiator
from tests.controller.test_metrics import Samples, samples_of
from tests.real.volume_process import UpProcess, running_up

pytestmark = pytest.mark.real

READS = 3


async def read(up: UpProcess) -> None:
    host, _, port = up.ready["portal"].rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(up.ready["iqn"])
        await initiator.command(bytes(6))  # power on
        for lba in range(READS):
            cdb = struct.pack(">BBIBHB", 0x28, 0, lba, 0, 1, 0)
            assert (await initiator.command(cdb, read_bytes=512)).status == 0


def scrape(up: UpProcess) -> Samples:
    with urllib.request.urlopen(f"{up.ready['api']}/metrics", timeout=5) as answer:
        return samples_of(answer.read().decode())


@pytest.mark.parametrize(
    ("options", "given", "not_given", "labels", "unit"),
    [
        ((), "openebs_read_time_seconds_total", "openebs_read_time", (("volume", "demo"),), 1e-9),
        (("--old-metric-names",), "openebs_read_time", "openebs_read_time_seconds_total", (), 1),
    ],
    ids=["today", "old"],
)
def test_a_host_reads_and_the_time_is_told_by_the_name_that_was_asked_for(
    tmp_path: Path,
    options: tuple[str, ...],
    given: str,
    not_given: str,
    labels: tuple[tuple[str, str], ...],
    unit: float,
) -> None:
    with running_up(tmp_path, "demo", "--size", "64MiB", "--replicas", "1", *options) as up:
        trio.run(read, up)
        samples = scrape(up)
    assert not_given not in {name for name, _ in samples}
    took = samples[given, labels]
    assert 0 < took < 60e9 * unit
    own = (("operation", "read"), ("volume", "demo"))
    assert took == pytest.approx(samples["pyjiva_volume_host_seconds_sum", own] * 1e9 * unit)
    assert samples["pyjiva_volume_host_seconds_count", own] == READS
