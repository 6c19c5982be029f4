"""The target `limit` and the driver's bare protocol: they move what they say, and what is wrong is found."""

import contextlib
import errno
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.driver_sys import Driver
from bench.process_sys import cpu_s, free_port
from bench.targets_sys import RunningTarget, start_limit
from pyjiva.units import KIB, MIB
from tests.bench.spoiling import flip_bit
from tests.bench.waiting import wait_for

pytestmark = pytest.mark.real

RANGE_BYTES = 8 * MIB
HEADER = struct.Struct("=4I2Q16x")  # of limit_wire.h
MAGIC = 0x4C494D31
READ, WRITE, FLUSH, SIZE = 1, 2, 3, 4


@pytest.fixture(scope="module")
def target(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTarget]:
    """A limit target; `driver`, as whoever has what that needs can build this too."""
    with start_limit(tmp_path_factory.mktemp("limit"), RANGE_BYTES) as started:
        yield started


def disk(target: RunningTarget) -> Path:
    """Where it keeps its data."""
    return target.data / "disk.img"


def run(driver: Driver, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The driver with whatever exit code."""
    return subprocess.run([str(driver.program), url, *arguments], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def connected(target: RunningTarget) -> Iterator[socket.socket]:
    """A connection of our own."""
    host, port = target.url.removeprefix("raw://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        yield sock


def receive(sock: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer when the connection has ended before."""
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def test_what_was_filled_lies_in_the_file_and_is_read_back_whole(
    driver: Driver, target: RunningTarget
) -> None:
    disk(target).write_bytes(bytes(RANGE_BYTES))
    answer = driver.run(target.url, "--fill", "--read-through", "--seconds", "0")
    assert (answer["verified_bytes"], answer["mismatches"]) == (RANGE_BYTES, 0)
    data = disk(target).read_bytes()
    assert len({data[at : at + 512] for at in range(0, RANGE_BYTES, 512)}) == RANGE_BYTES // 512


@pytest.mark.parametrize("scheme", ["raw", "raw+each"])
@pytest.mark.parametrize("pattern", ["random", "sequential"])
@pytest.mark.parametrize(
    ("block_bytes", "depth"), [(512, 1), (4 * KIB, 256), (128 * KIB, 8), (1 * MIB, 8), (4 * MIB, 16)]
)
def test_writes_keep_the_content_that_reads_expect(
    driver: Driver, target: RunningTarget, scheme: str, pattern: str, block_bytes: int, depth: int
) -> None:
    """Batches of many small requests, and requests larger than a socket holds, for which both ends wait."""
    url = target.url.replace("raw:", f"{scheme}:")
    load = ["--pattern", pattern, "--block", str(block_bytes), "--depth", str(depth), "--count", "300"]
    disk(target).write_bytes(bytes(RANGE_BYTES))
    written = driver.run(url, "--fill", "--verb", "write", *load)
    assert (written["ops"], written["bytes"]) == (300, 300 * block_bytes)
    read = driver.run(url, "--read-through", *load)
    assert read["ops"] == 300
    assert read["verified_bytes"] >= RANGE_BYTES + 300 * block_bytes


#: Says at the end how often these two were called.
COUNTING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <sys/socket.h>
static int sent, received;
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
        sent++;
        return ((ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg"))(fd, message, flags);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
        received++;
        return ((ssize_t(*)(int, struct msghdr *, int))dlsym(RTLD_NEXT, "recvmsg"))(fd, message, flags);
}
__attribute__((destructor)) static void say(void) { fprintf(stderr, "calls %d %d\n", sent, received); }
"""


def test_each_part_has_a_call_of_its_own_where_libiscsis_calls_are_counted(
    driver: Driver, target: RunningTarget, tmp_path: Path
) -> None:
    shim = tmp_path / "counting.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(shim)], input=COUNTING, text=True, check=True
    )
    driver.run(target.url, "--fill", "--seconds", "0")

    def calls(scheme: str, verb: str) -> tuple[int, int]:
        url = target.url.replace("raw:", f"{scheme}:")
        load = ["--verb", verb, "--pattern", "random", "--block", "4096", "--depth", "8", "--count", "300"]
        done = subprocess.run(
            [str(driver.program), url, *load],
            env={"LD_PRELOAD": str(shim)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        word, sent, received = done.stderr.split()
        assert word == "calls"
        return int(sent), int(received)

    few, each = calls("raw", "write"), calls("raw+each", "write")
    assert few[0] <= 300 < 2 * 300 <= each[0]
    few, each = calls("raw", "read"), calls("raw+each", "read")
    assert few[0] <= 300 <= each[0]
    assert few[1] < 2 * 300 <= each[1]


@pytest.mark.parametrize(
    ("offset_bytes", "what"), [(RANGE_BYTES - 512, "stamp"), (RANGE_BYTES - 1, "content")]
)
def test_one_wrong_bit_is_found(driver: Driver, target: RunningTarget, offset_bytes: int, what: str) -> None:
    driver.run(target.url, "--fill", "--seconds", "0")
    flip_bit(disk(target), offset_bytes)
    done = run(
        driver, target.url, "--pattern", "sequential", "--block", str(MIB), "--depth", "8", "--count", "8"
    )
    assert done.returncode == 3
    assert f"sector {RANGE_BYTES // 512 - 1} does not hold what was written: wrong {what}" in done.stderr
    assert json.loads(done.stdout)["mismatches"] == 1


def test_writes_write_over_what_was_wrong(driver: Driver, target: RunningTarget) -> None:
    """Were a write only answered, not made, the driver's reads of the same content would not tell."""
    driver.run(target.url, "--fill", "--seconds", "0")
    right = disk(target).read_bytes()
    for offset_bytes in range(0, RANGE_BYTES, MIB):
        flip_bit(disk(target), offset_bytes)
    load = ["--pattern", "sequential", "--block", str(128 * KIB), "--depth", "8", "--count", "64"]
    driver.run(target.url, "--verb", "write", *load)
    assert disk(target).read_bytes() == right


def test_time_and_memory_of_the_target_are_reported(driver: Driver, target: RunningTarget) -> None:
    pid = target.process.pid
    answer = driver.run(target.url, "--fill", "--depth", "32", "--seconds", "0.2", watch=[pid])
    assert answer["watched"][str(pid)]["rss_bytes"] > 64 * KIB
    assert answer["watched"][str(pid)]["user_s"] + answer["watched"][str(pid)]["system_s"] > 0
    latency = answer["latency_us"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def test_requests_that_come_in_pieces_and_together_are_answered_in_order(target: RunningTarget) -> None:
    payload = bytes(range(256)) * 2
    requests = b"".join(
        [
            HEADER.pack(MAGIC, SIZE, 1, 0, 0, 0),
            HEADER.pack(MAGIC, WRITE, 2, 0, 4096, len(payload)) + payload,
            HEADER.pack(MAGIC, READ, 3, 0, RANGE_BYTES - 512, 513),
            HEADER.pack(MAGIC, READ, 4, 0, 4096, len(payload)),
            HEADER.pack(MAGIC, FLUSH, 5, 0, 0, 0),
        ]
    )
    expected = b"".join(
        [
            HEADER.pack(MAGIC, SIZE, 1, 0, 0, RANGE_BYTES),
            HEADER.pack(MAGIC, WRITE, 2, 0, 4096, len(payload)),
            HEADER.pack(MAGIC, READ, 3, errno.EINVAL, RANGE_BYTES - 512, 513),
            HEADER.pack(MAGIC, READ, 4, 0, 4096, len(payload)) + payload,
            HEADER.pack(MAGIC, FLUSH, 5, 0, 0, 0),
        ]
    )
    with connected(target) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(requests)
        assert receive(sock, len(expected)) == expected
        for at in range(0, len(requests), 7):
            sock.sendall(requests[at : at + 7])
        assert receive(sock, len(expected)) == expected


@pytest.mark.parametrize(
    "request_bytes",
    [bytes(48), HEADER.pack(MAGIC, 9, 0, 0, 0, 0), HEADER.pack(MAGIC, WRITE, 0, 0, 0, 4 * MIB + 1)],
)
def test_a_peer_that_breaks_the_protocol_loses_its_connection_alone(
    driver: Driver, target: RunningTarget, request_bytes: bytes
) -> None:
    with connected(target) as sock:
        sock.sendall(request_bytes)
        assert receive(sock, 1) == b""
    assert driver.run(target.url, "--fill", "--read-through", "--seconds", "0")["mismatches"] == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [("raw://", 2), ("raw://127.0.0.1", 2), ("raw://127.0.0.1:70000", 2), ("raw://127.0.0.1:{port}", 1)],
)
def test_a_target_that_is_not_there_is_a_failure(driver: Driver, url: str, code: int) -> None:
    done = run(driver, url.format(port=free_port()), "--count", "1")
    assert done.returncode == code
    assert done.stderr.startswith("iscsi_load: raw://")


@pytest.mark.parametrize("verb", ["read", "write"])
def test_a_target_that_dies_is_a_failure(driver: Driver, tmp_path: Path, verb: str) -> None:
    with start_limit(tmp_path, RANGE_BYTES) as mortal:
        load = ["--seconds", "60", "--verb", verb, "--block", str(MIB), "--depth", "8"]
        command = [str(driver.program), mortal.url, *load]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            busy_s = cpu_s([mortal.process.pid]) + 0.05
            wait_for(lambda: cpu_s([mortal.process.pid]) > busy_s)
            mortal.process.popen.kill()
            assert process.wait(30) == 1
            assert "iscsi_load: the connection failed" in process.stderr.read()
