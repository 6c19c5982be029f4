"""Traces of a real volume reach an OTLP receiver, and show which replica is slow."""

import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from pyjiva.testing.initiator import Initiator, open_initiator
from pyjiva.units import MIB
from tests.real.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.real.volume_process import UpProcess, running_up, wait_until

pytestmark = pytest.mark.real

SIZE_BYTES = 64 * MIB
BLOCK = 512
REPLICAS = 3


@attrs.frozen
class Traced:
    up: UpProcess
    receiver: OtlpReceiver

    def ask(self, method: str, path: str, **headers: str) -> int:
        """The status of the API's answer."""
        request = urllib.request.Request(self.up.ready["api"] + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def answers(self, replica: int) -> int:
        """How many writes the replica has answered."""
        with urllib.request.urlopen(self.up.ready["api"] + "/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            int(float(line.split()[-1]))
            for line in lines
            if line.startswith("pyjiva_volume_replica_answer_seconds_count")
            and 'operation="write"' in line
            and f'replica="{replica}"' in line
        )


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    data = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch, otlp_receiver() as receiver:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        patch.setenv("NO_PROXY", "127.0.0.1")
        options = ("--trace-endpoint", receiver.endpoint, "--trace-sample", "1")
        with running_up(data, "--size", "64MiB", "--replicas", str(REPLICAS), *options) as up:
            yield Traced(up, receiver)


async def logged_in(up: UpProcess, initiator: Initiator) -> None:
    await initiator.login(up.ready["iqn"])
    await initiator.command(bytes(6))  # power on


def write_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def at(lba: int, span: ReceivedSpan) -> bool:
    return span.attributes.get("pyjiva.lba") == lba


def test_a_command_is_a_root_with_a_span_for_each_replica(traced: Traced) -> None:
    async def use() -> None:
        host, _, port = traced.up.ready["portal"].rpartition(":")
        async with open_initiator(host, int(port)) as initiator:
            await logged_in(traced.up, initiator)
            await initiator.command(write_10(80, 8), data=bytes(8 * BLOCK))
            await initiator.command(read_10(80, 8), read_bytes=8 * BLOCK)
            await initiator.command(struct.pack(">BBIBHB", 0x35, 0, 0, 0, 0, 0))
            refused = await initiator.command(read_10(SIZE_BYTES // BLOCK, 1), read_bytes=BLOCK)
            assert refused.status == 2

    trio.run(use)
    receiver = traced.receiver
    root = receiver.wait_for("WRITE(10)", partial(at, 80))
    assert not root.parent_id and not root.failed
    assert root.attributes["pyjiva.blocks"] == 8 and root.attributes["pyjiva.status"] == "GOOD"
    assert root.attributes["pyjiva.initiator"].startswith("iqn.")
    assert root.resource["service.name"] == "pyjiva-controller"
    assert root.resource["pyjiva.volume"] == traced.up.ready["volume"]
    assert root.resource["deployment.environment.name"] == "test"
    (request,) = receiver.children(root)
    assert request.name == "write"
    assert request.attributes == {"pyjiva.offset_bytes": 80 * BLOCK, "pyjiva.length_bytes": 8 * BLOCK}
    parts = receiver.children(request)
    assert sorted(part.attributes["pyjiva.replica"] for part in parts) == [1, 2, 3]
    assert {part.attributes["pyjiva.operation"] for part in parts} == {"write"}
    assert all(root.begin_ns <= part.begin_ns <= part.end_ns <= root.end_ns for part in parts)
    read = receiver.wait_for("READ(10)", partial(at, 80))
    below = [s.name.split()[0] for s in receiver.below(read)]
    assert below in (["read", "replica"], ["read"]), "a read asks one, or nobody: the files are at hand"
    flush = receiver.wait_for("SYNCHRONIZE CACHE(10)")
    assert len([s for s in receiver.below(flush) if s.name.startswith("replica ")]) == REPLICAS
    beyond = receiver.wait_for("READ(10)", partial(at, SIZE_BYTES // BLOCK))
    assert beyond.failed and beyond.reason == "ILLEGAL_REQUEST 2100"
    assert beyond.attributes["pyjiva.status"] == "CHECK_CONDITION"


def test_a_slow_replica_is_the_one_whose_span_is_long(traced: Traced) -> None:
    lba, slow = 4096, 2
    before = {replica: traced.answers(replica) for replica in (1, 3)}

    async def use() -> None:
        host, _, port = traced.up.ready["portal"].rpartition(":")
        async with open_initiator(host, int(port)) as initiator:
            await logged_in(traced.up, initiator)
            traced.up.kill(f"replica-{slow}", signal.SIGSTOP)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(initiator.command, write_10(lba, 1), data=bytes(BLOCK)))
                    await trio.to_thread.run_sync(
                        wait_until,
                        lambda: all(traced.answers(replica) > before[replica] for replica in before),
                        "the answers of the others",
                    )
                    traced.up.kill(f"replica-{slow}", signal.SIGCONT)
            finally:
                traced.up.kill(f"replica-{slow}", signal.SIGCONT)

    trio.run(use)
    root = traced.receiver.wait_for("WRITE(10)", partial(at, lba))
    parts = [span for span in traced.receiver.below(root) if span.name.startswith("replica ")]
    slowest = max(parts, key=lambda part: part.took_s)
    assert slowest.attributes["pyjiva.replica"] == slow
    assert slowest.took_s > 0.9 * root.took_s, "the command waited for this one"
    assert all(part.end_ns < slowest.end_ns for part in parts if part is not slowest)


def test_a_snapshot_is_a_barrier_below_the_request_that_asked_for_it(traced: Traced) -> None:
    theirs, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    parent = f"00-{theirs}-{span_id}-01"
    assert traced.ask("POST", "/v1/snapshots/before", traceparent=parent) == 201
    receiver = traced.receiver
    barrier = receiver.wait_for("snapshot create")
    request = receiver.wait_for("POST /v1/snapshots/{name}")
    assert barrier.parent_id == request.span_id and barrier.trace_id == request.trace_id
    assert request.trace_id.hex() == theirs and request.parent_id.hex() == span_id
    assert request.attributes["http.response.status_code"] == 201 and not request.failed
    assert barrier.attributes["pyjiva.snapshot"] == "before"
    replicas = sorted(s.attributes["pyjiva.replica"] for s in receiver.children(barrier))
    assert replicas == [1, 2, 3]


def test_a_refused_request_says_its_reason_and_not_who_or_what_was_asked_for(traced: Traced) -> None:
    # No digits: ids, ports and times have any of them.
    assert traced.ask("GET", "/v1/operations/one-of-old", authorization="Bearer nobody-may-know") == 404
    span = traced.receiver.wait_for("GET /v1/operations/{id}")
    assert span.failed and span.attributes["pyjiva.reason"] == "no-such-operation"
    assert traced.ask("GET", "/no/such/path") == 404
    traced.receiver.wait_for("GET unknown path")
    traced.ask("GET", "/metrics")
    told = repr(traced.receiver.spans)
    assert "one-of-old" not in told and "nobody-may-know" not in told
    assert not [s for s in traced.receiver.spans if "/metrics" in s.name]


def test_activation_and_a_rebuild_are_spans(traced: Traced) -> None:
    activation = traced.receiver.wait_for("activation")
    assert (
        activation.attributes["pyjiva.replicas_in_sync"] >= 2 and activation.attributes["pyjiva.epoch"] >= 1
    )
    traced.up.kill("replica-3")
    traced.up.wait_state("degraded")

    async def use() -> None:
        host, _, port = traced.up.ready["portal"].rpartition(":")
        async with open_initiator(host, int(port)) as initiator:
            await logged_in(traced.up, initiator)
            await initiator.command(write_10(8192, 8), data=b"x" * 8 * BLOCK)

    trio.run(use)
    traced.up.wait_state("healthy")
    rebuild = traced.receiver.wait_for("rebuild", lambda span: span.attributes["pyjiva.state"] == "done")
    assert rebuild.attributes["pyjiva.replica"] == 3 and rebuild.end_ns > rebuild.begin_ns


def test_what_is_left_is_sent_when_the_volume_stops_and_nothing_is_logged_about_it(traced: Traced) -> None:
    count = len(traced.receiver.spans)
    assert traced.ask("GET", "/v1/events") == 200
    assert traced.up.stop() == 0
    assert len(traced.receiver.spans) > count
    assert [span.name for span in traced.receiver.spans if span.name == "GET /v1/events"]
    assert "traces-not-sent" not in traced.up.log.read_text()


def test_a_receiver_that_is_away_costs_one_line_and_no_io(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        options = (
            "--trace-endpoint",
            "http://127.0.0.1:9",
            "--trace-sample",
            "1",
        )  # discard: nobody is there
        with running_up(tmp_path / "data", "--size", "64MiB", "--replicas", "1", *options) as up:

            async def use() -> None:
                host, _, port = up.ready["portal"].rpartition(":")
                async with open_initiator(host, int(port)) as initiator:
                    await logged_in(up, initiator)
                    for lba in range(500):
                        answer = await initiator.command(write_10(lba, 1), data=bytes(BLOCK))
                        assert answer.status == 0

            trio.run(use)
            wait_until(lambda: "traces-not-sent" in up.log.read_text(), "the line about it")
            trio.run(use)
            assert up.stop() == 0
        text = up.log.read_text()
    assert text.count("traces-not-sent") == 1
    assert "volume=demo" in text and "Traceback" not in text and "opentelemetry" not in text.lower()


def test_opentelemetry_is_not_loaded_unless_traces_are_wanted() -> None:
    program = (
        "import sys, pyjiva.cli.controller, pyjiva.cli.up, pyjiva.cli.trace_options as t;"
        "assert t.open_tracing(t.TraceOptions()) is None;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
