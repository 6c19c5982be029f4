"""A traced device server answers as the plain one, and tells of the commands that were drawn."""

import struct
from functools import partial

import pytest

from pyjiva.block import MemoryDevice, Sampler, Span, TracedDevice
from pyjiva.scsi import LogicalUnit, Nexus, Quiescing, TaskAttribute, TracedServer, UnitIdentity
from pyjiva.testing.target import HeldDevice
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB
from tests.scsi.conftest import VOLUME_ID, Disk

INITIATOR = "iqn.2026-01.test:one"


def write_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def disk_of(spans: list[Span], share: float = 1) -> Disk:
    """As the fixture of that name, traced."""
    sampler = Sampler(lambda: 0, share, lambda: 0.5, lambda span, _: spans.append(span))
    memory = MemoryDevice(4 * MIB)
    held = HeldDevice(memory, EndOfBatch())
    unit = LogicalUnit(TracedDevice(held, sampler, lambda _: "the disk"), UnitIdentity(VOLUME_ID), 512)
    server = partial(TracedServer, sampler=sampler)({0: unit}, "")
    nexus = Nexus(INITIATOR)
    server.attach(nexus)
    unit.attentions.clear()
    return Disk(server, unit, held, memory, nexus)


def test_a_command_says_what_it_was_and_how_it_came_out() -> None:
    spans: list[Span] = []
    disk = disk_of(spans)
    assert disk.run(write_10(8, 2), b"1" * 1024).status == 0
    (span,) = spans
    assert span.name == "WRITE(10)" and not span.error
    assert span.attributes == {
        "pyjiva.operation_code": 0x2A,
        "pyjiva.initiator": INITIATOR,
        "pyjiva.lba": 8,
        "pyjiva.blocks": 2,
        "pyjiva.status": "GOOD",
    }
    assert [child.name for child in span.children] == ["write"]


@pytest.mark.parametrize(
    ("cdb", "error"),
    [
        (write_10(8 * 1024, 1), "ILLEGAL_REQUEST 2100"),  # beyond the end
        (b"\xc1" + bytes(9), "ILLEGAL_REQUEST 2000"),  # of a vendor
    ],
)
def test_a_command_that_fails_says_why(cdb: bytes, error: str) -> None:
    spans: list[Span] = []
    disk_of(spans).run(cdb, bytes(512) if cdb[0] == 0x2A else b"")
    assert spans[0].error == error
    assert spans[0].name == ("WRITE(10)" if cdb[0] == 0x2A else "0xc1")


def test_commands_of_several_steps_have_all_of_them() -> None:
    spans: list[Span] = []
    disk = disk_of(spans)
    compare = b"\x89\0" + bytes(8) + bytes(3) + b"\1" + bytes(2)
    disk.run(compare, bytes(512) + b"2" * 512)
    assert [child.name for child in spans[0].children] == ["read", "write"]


def test_a_command_that_waits_for_its_turn_says_so() -> None:
    spans: list[Span] = []
    disk = disk_of(spans)
    disk.device.holding = True
    disk.start(write_10(0, 1), b"1" * 512)
    disk.start(write_10(0, 1), b"2" * 512, attribute=TaskAttribute.ORDERED)
    disk.device.holding = False
    disk.device.release()
    waits = [
        [c.attributes.get("pyjiva.waits_for") for c in span.children if c.name == "wait"] for span in spans
    ]
    assert waits == [[], ["the order of commands"]]
    assert [[c.name for c in span.children if c.name == "write"] for span in spans] == [["write"], ["write"]]


def test_a_command_that_is_aborted_while_it_waits_leaves_nothing_behind() -> None:
    spans: list[Span] = []
    disk = disk_of(spans)
    disk.device.holding = True
    running = disk.start(write_10(0, 1), b"1" * 512)
    waiting = disk.start(write_10(0, 1), b"2" * 512, attribute=TaskAttribute.ORDERED)
    waiting.abort(None)
    over: list[bool] = []
    running.abort(Quiescing(lambda: over.append(True)))
    disk.device.holding = False
    disk.device.release()
    assert [span.error for span in spans] == ["aborted"]
    assert isinstance(disk.server, TracedServer) and not disk.server.sampler.requests


def test_nothing_is_told_of_commands_that_were_not_drawn() -> None:
    spans: list[Span] = []
    disk = disk_of(spans, share=0)
    assert disk.run(write_10(0, 1), b"1" * 512).status == 0
    assert not spans
