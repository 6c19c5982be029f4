"""Snapshots and growth under a file system of the Linux kernel's initiator."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.real.volume_process import UpProcess, running_up, wait_until
from tests.vm.guest import Guest
from tests.vm.test_linux_initiator import LOGIN, LOGOUT

pytestmark = pytest.mark.real

ASK = """
post() {{ wget -q -O /dev/null --post-data "" "{api}$1" && echo "DONE $1"; }}
delete() {{ printf "DELETE $1 HTTP/1.0\\r\\n\\r\\n" | nc {host} {port} | grep -q " 200 " && echo "DONE $1"; }}
"""
GO_BACK = """
/tools/mke2fs -q -t ext4 /dev/sda && mount -t ext4 /dev/sda /mnt
dd if=/dev/urandom of=/tmp/noise bs=1M count=16 2>/dev/null
for n in 1 2; do cp /tmp/noise /mnt/$n; done; echo old > /mnt/text; sync
post /v1/snapshots/before
echo new > /mnt/text; rm /mnt/1; dd if=/dev/urandom of=/mnt/2 bs=1M count=4 conv=notrunc 2>/dev/null; sync
umount /mnt
post /v1/snapshots/before/revert; echo STILL-LOGGED-IN
iscsiadm -m node --logout > /dev/null
post /v1/snapshots/before/revert
iscsiadm -m node --login > /dev/null
until blockdev --getsize64 /dev/sda 2> /dev/null | grep -q "[1-9]"; do sleep 0.1; done
/tools/e2fsck -fp /dev/sda > /dev/null; mount -t ext4 /dev/sda /mnt
for n in 1 2; do cmp /mnt/$n /tmp/noise && echo FILE-SAME; done; grep -q old /mnt/text && echo TEXT-OLD
"""
SPACE_COMES_BACK = """
cp /tmp/noise /mnt/3; sync; post /v1/snapshots/second
rm /mnt/1 /mnt/3; sync
delete /v1/snapshots/before; delete /v1/snapshots/second
sync; /tools/fstrim /mnt && echo TRIMMED; sync
/tools/dumpe2fs -h /dev/sda 2>/dev/null | grep -E "^(Block count|Free blocks|Block size)"
"""
GROW = """
post "/v1/size?size=384MiB"
iscsiadm -m session --rescan > /dev/null
until [ "$(blockdev --getsize64 /dev/sda)" = 402653184 ]; do sleep 0.1; done; echo DEVICE-LARGER
/tools/resize2fs /dev/sda 2>&1 | grep -i "now" && echo RESIZED
dd if=/tmp/noise of=/mnt/4 bs=1M 2>/dev/null; sync
cmp /mnt/4 /tmp/noise && cmp /mnt/2 /tmp/noise && echo USED
umount /mnt; /tools/e2fsck -fn /dev/sda > /dev/null && echo FSCK-CLEAN
dmesg | grep -i "capacity data has changed\\|capacity change" && echo KERNEL-TOLD
"""


def ask(up: UpProcess) -> str:
    host, _, port = up.ready["api"].removeprefix("http://").partition(":")
    return ASK.format(api=up.ready["api"], host=host, port=port)


def test_a_file_system_goes_back_gives_its_space_back_and_grows(guest: Guest, tmp_path: Path) -> None:
    """mkfs, files, snapshot, other files, revert; delete and fstrim; expand and resize2fs while mounted."""
    data = tmp_path / "data"
    with running_up(data, "--size", "256MiB") as up:
        script = LOGIN.format(portal=up.ready["portal"]) + ask(up).replace("{{", "{").replace("}}", "}")
        output = guest.run(script + GO_BACK + SPACE_COMES_BACK)
        assert "DONE /v1/snapshots/before\n" in output, output
        assert "DONE /v1/snapshots/before/revert\nSTILL-LOGGED-IN" not in output, output
        assert "STILL-LOGGED-IN\nDONE /v1/snapshots/before/revert" in output, output
        assert output.count("FILE-SAME") == 2, output
        assert "TEXT-OLD" in output, output
        assert "TRIMMED" in output, output
        fs = {
            key: int(value)
            for key, value in re.findall(r"(Block count|Free blocks|Block size): +(\d+)", output)
        }
        used = (fs["Block count"] - fs["Free blocks"]) * fs["Block size"]
        wait_until(lambda: not past(up)["removed_bytes"], "the deleted snapshots to be merged")
        for replica in (1, 2, 3):
            head = next((data / f"demo/replica-{replica}").glob("volume-head-*.img"))
            held = head.stat().st_blocks * 512
            assert held < 1.05 * used, f"replica {replica} holds {held}, the file system uses {used}"
        script = LOGIN.format(portal=up.ready["portal"]) + ask(up).replace("{{", "{").replace("}}", "}")
        grow = "mount -t ext4 /dev/sda /mnt; cp /mnt/2 /tmp/noise\n" + GROW
        output = guest.run(script + grow + LOGOUT)
        for line in ("DEVICE-LARGER", "RESIZED", "USED", "FSCK-CLEAN", "KERNEL-TOLD", "LOGGED-OUT"):
            assert line in output, output
        assert "KERNEL-COMPLAINS" not in output, output
        assert up.stop() == 0


def past(up: UpProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"{up.ready['api']}/v1/snapshots", timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
        return body
