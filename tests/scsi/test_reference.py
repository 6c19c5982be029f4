"""docs/reference/scsi.md lists the commands and pages that there are."""

import re
from pathlib import Path

from pyjiva.scsi import command_table
from tests.scsi.conftest import Disk

REFERENCE = (Path(__file__).parents[2] / "docs/reference/scsi.md").read_text()


def test_every_command_is_listed() -> None:
    listed = re.findall(r"^\| `(.+)` \| ([0-9A-F]{2})h(?:/([0-9A-F]{2})h)? \|$", REFERENCE, re.MULTILINE)
    found = [(name, int(code, 16), int(action, 16) if action else None) for name, code, action in listed]
    assert found == [(c.name, c.operation_code, c.service_action) for c in command_table.COMMANDS]


def test_every_page_of_vital_product_data_is_listed(disk: Disk) -> None:
    pages = disk.data(bytes([0x12, 1, 0, 0, 255, 0]))[4:]
    assert [int(code, 16) for code in re.findall(r"^\| ([0-9A-F]{2})h \|", REFERENCE, re.MULTILINE)] == list(
        pages
    )
