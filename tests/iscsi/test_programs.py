"""Initiators that we did not write, against the target over memory: libiscsi's tools and QEMU's driver."""

import re
import shutil
import subprocess
from collections.abc import Container
from pathlib import Path
from typing import Final

import pytest
import trio

from pyjiva.iscsi.chap import ChapSecrets, OwnSecret
from pyjiva.testing.target import TARGET_NAME, VOLUME_ID, RunningTarget, running_target
from pyjiva.units import MIB

pytestmark = pytest.mark.real

LIBISCSI: Final = "libiscsi-bin"
PROGRAM_TIME_S: Final = 60.0


def need(program: str, package: str) -> None:
    """Skip when `program` is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")


async def run(*command: str | Path, fails: bool = False) -> str:
    """What the program printed; it must succeed (or fail, if `fails`)."""
    with trio.fail_after(PROGRAM_TIME_S):
        result = await trio.run_process(
            [str(part) for part in command],
            capture_stdout=True, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    output = result.stdout.decode(errors="replace")
    assert (result.returncode != 0) == fails, f"{command}: {result.returncode}\n{output}"
    return output


async def need_qemu() -> None:
    """Skip unless QEMU's tools and their iSCSI driver are here."""
    need("qemu-img", "qemu-utils")
    need("qemu-io", "qemu-utils")
    if "iscsi" not in await run("qemu-img", "--help"):
        pytest.skip("qemu-img has no iSCSI driver: apt-get install qemu-block-extra")


async def test_iscsi_ls_finds_target_and_lun() -> None:
    need("iscsi-ls", LIBISCSI)
    async with running_target() as running:
        listed = await run("iscsi-ls", "-s", running.portal_url)
        assert f"Target:{TARGET_NAME} Portal:127.0.0.1:{running.port},1" in listed
        assert re.search(r"Lun:0\s+Type:DIRECT_ACCESS", listed)


async def test_discovery_over_ipv6_tells_an_address_in_brackets() -> None:
    need("iscsi-ls", LIBISCSI)
    async with running_target(host="::1") as running:
        listed = await run("iscsi-ls", "-s", running.portal_url)
        assert f"Target:{TARGET_NAME} Portal:[::1]:{running.port},1" in listed
        assert "DIRECT_ACCESS" in listed


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_iscsi_inq_reads_every_page(block_size: int) -> None:
    need("iscsi-inq", LIBISCSI)
    async with running_target(block_size_bytes=block_size) as running:
        standard = await run("iscsi-inq", running.url)
        assert "Vendor:OPENEBS" in standard
        assert "Product:PYJIVA" in standard
        expected = {
            0x00: "LOGICAL_BLOCK_PROVISIONING",
            0x80: f"Unit Serial Number:[{VOLUME_ID}]",
            0x83: f"Designator:[OPENEBS PYJIVA {VOLUME_ID}]",
            0xB0: f"maximum transfer length:{4 * MIB // block_size}",
            0xB1: "Medium Rotation Rate:1RPM",
            0xB2: "lbprz:1",
        }
        for page, line in expected.items():
            assert line in await run("iscsi-inq", "-e", "1", "-c", str(page), running.url)


@pytest.mark.parametrize(("block_size", "exponent"), [(512, 3), (4096, 0)])
async def test_iscsi_readcapacity16(block_size: int, exponent: int) -> None:
    need("iscsi-readcapacity16", LIBISCSI)
    async with running_target(block_size_bytes=block_size) as running:
        capacity = await run("iscsi-readcapacity16", running.url)
        assert f"RETURNED LOGICAL BLOCK ADDRESS:{64 * MIB // block_size - 1}" in capacity
        assert f"LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT:{exponent}" in capacity
        assert "LBPME:1 LBPRZ:1" in capacity


async def test_iscsi_perf_reads_for_a_second() -> None:
    need("iscsi-perf", LIBISCSI)
    async with running_target() as running:
        result = await run("iscsi-perf", "-t", "1", "-m", "32", "-b", "8", "-r", running.url)
        found = re.search(r"iops average (\d+)", result)
        assert found is not None, result
        assert int(found[1]) > 0


@pytest.mark.parametrize("block_size", [512, 4096])
async def test_image_comes_back_as_it_was_written(tmp_path: Path, block_size: int) -> None:
    await need_qemu()
    image, back = tmp_path / "image", tmp_path / "back"
    content = bytearray(32 * MIB)
    for start in range(0, len(content), 5 * MIB):
        content[start : start + 3 * MIB] = bytes(index * 31 & 0xFF for index in range(start, start + MIB)) * 3
    image.write_bytes(content[: 32 * MIB])
    async with running_target(size_bytes=32 * MIB, block_size_bytes=block_size) as running:
        await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, running.url)
        await run("qemu-img", "convert", "-f", "raw", "-O", "raw", running.url, back)
        assert running.memory.content(0, 32 * MIB) == image.read_bytes() == back.read_bytes()


async def test_qemu_writes_zeroes_discards_and_flushes() -> None:
    await need_qemu()
    async with running_target() as running:
        steps = [
            "write -P 0xab 1M 3M", "read -P 0xab 1M 3M", "write -z 2M 64k", "read -P 0 2M 64k",
            "discard 3M 1M", "read -P 0 3M 1M", "read -P 0xab 1M 1M", "write -f -P 0xcd 512 512", "flush",
        ]  # fmt: skip
        arguments = [part for step in steps for part in ("-c", step)]
        result = await run("qemu-io", "-f", "raw", "-t", "none", *arguments, running.url)
        assert "failed" not in result
        assert "error" not in result.lower()
        assert running.memory.content(0, 1536) == bytes(512) + b"\xcd" * 512 + bytes(512)
        assert running.memory.flush_count > 0
        pages = {extent // 256 for extent in running.memory._pages}
        assert 3 not in pages, "the fourth MiB was given back"


# libiscsi's conformance suite

# The whole suite runs over replicas (tests/real/libiscsi_suite.py); these look at the size of blocks.
FAMILIES_4K: Final = ("SCSI.GetLBAStatus", "SCSI.ReadCapacity16", "SCSI.Read10", "SCSI.Unmap")


async def conformance_results(running: RunningTarget, families: Container[str]) -> dict[str, str]:
    """`passed`, `skipped` or `failed` for every test of `families`, each run in a process of its own."""
    listed = (await run("iscsi-test-cu", "-l")).split()
    names = [name for name in listed if name.count(".") == 2 and name.rsplit(".", 1)[0] in families]
    results = {}
    for name in sorted(set(names)):
        with trio.fail_after(PROGRAM_TIME_S):
            process = await trio.run_process(
                ["iscsi-test-cu", "-d", "-v", "-f", "-t", name, running.url],
                capture_stdout=True, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        output = process.stdout.decode(errors="replace")
        summary = re.search(r"tests\s+\d+\s+(\d+)\s+(\d+)\s+(\d+)", output)
        assert summary is not None, output
        if summary[3] != "0":
            results[name] = "failed"
        else:
            results[name] = "skipped" if "[SKIPPED]" in output else "passed"
    return results


async def test_conformance_with_large_logical_blocks() -> None:
    need("iscsi-test-cu", LIBISCSI)
    async with running_target(size_bytes=64 * MIB, block_size_bytes=4096) as running:
        results = await conformance_results(running, FAMILIES_4K)
    for name, result in results.items():
        print(f"{result:8} {name}")
    assert set(results.values()) == {"passed"}


# CHAP as libiscsi does it

CHAP: Final = ChapSecrets({"alice": b"initiator-secret"}, OwnSecret("target", b"target-own-secret"))
CHAP_USERS: Final = {
    "no user": ("", "", False),
    "wrong password": ("alice%wrong-password@", "", False),
    "unknown user": ("mallory%initiator-secret@", "", False),
    "right password": ("alice%initiator-secret@", "", True),
    "mutual": (
        "alice%initiator-secret@",
        "?target_user=target&target_password=target-own-secret",
        True,
    ),
    "mutual, wrong": (
        "alice%initiator-secret@",
        "?target_user=target&target_password=wrong-own-secret",
        False,
    ),
}


@pytest.mark.parametrize("case", CHAP_USERS)
async def test_libiscsi_logs_in_with_chap(case: str) -> None:
    need("iscsi-inq", LIBISCSI)
    user, query, passes = CHAP_USERS[case]
    async with running_target(chap=CHAP) as running:
        url = running.url.replace("iscsi://", f"iscsi://{user}") + query
        output = await run("iscsi-inq", url, fails=not passes)
        assert ("Product:PYJIVA" in output) is passes
