"""A repaired replica among others: it is not believed, also after a clean stop, and gets what it lacks."""

import os
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from pyjiva.cli import check, repair
from pyjiva.testing.initiator import open_initiator
from tests.real.volume_process import running_up

pytestmark = pytest.mark.real

BLOCKS = 16
HEAD = "volume-head-000.img"


async def write(portal: str, iqn: str, content: bytes) -> None:
    """Fill the start of the volume, and flush."""
    host, _, port = portal.rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(iqn)
        await initiator.command(bytes(6))  # power on
        cdb = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, len(content) // 512, 0))
        assert (await initiator.command(cdb, data=content)).status == 0
        assert (await initiator.command(bytes((0x35,)) + bytes(9))).status == 0


async def read(portal: str, iqn: str, length_bytes: int) -> bytes:
    """The start of the volume."""
    host, _, port = portal.rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(iqn)
        await initiator.command(bytes(6))
        cdb = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, length_bytes // 512, 0))
        answer = await initiator.command(cdb, read_bytes=length_bytes)
        assert answer.status == 0
        return bytes(answer.data)


def test_a_repaired_replica_is_compared_with_the_others_and_made_equal(tmp_path: Path) -> None:
    """Its checksums were lost, and with them the only sign that its data had changed."""
    data, content = tmp_path / "data", os.urandom(BLOCKS * 4096)
    with running_up(data, "--size", "16MiB") as up:
        trio.run(write, up.ready["portal"], up.ready["iqn"], content)
    replica = data / "demo" / "replica-1"
    assert CliRunner().invoke(check.command, [str(replica)]).exit_code == 0
    with (replica / HEAD).open("r+b") as file:
        file.write(b"something else")
    assert CliRunner().invoke(check.command, [str(replica)]).exit_code == 1
    (replica / f"{HEAD}.sums").unlink()
    done = CliRunner().invoke(repair.command, [str(replica), "--yes"])
    assert done.exit_code == 0, done.output
    with running_up(data, "--size", "16MiB") as up:
        for _ in range(8):  # whichever replica answers
            assert trio.run(read, up.ready["portal"], up.ready["iqn"], len(content)) == content
        up.wait_state("healthy")
    for each in sorted((data / "demo").glob("replica-*")):
        with (each / HEAD).open("rb") as file:
            assert file.read(len(content)) == content, each
        assert CliRunner().invoke(check.command, [str(each)]).exit_code == 0
    assert "warning" not in CliRunner().invoke(check.command, [str(replica)]).output
