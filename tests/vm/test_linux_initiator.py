"""The Linux kernel's initiator on a replicated volume: discovery, login, a file system, fstrim, a
replica's death.
"""

import hashlib
import threading
from pathlib import Path

import pytest

from tests.real.volume_process import running_up, wait_until
from tests.vm.guest import Guest

pytestmark = pytest.mark.real

#: busybox has programs of the same names as some of /tools, and its shell prefers its own.
LOGIN = """
while ! pidof iscsid > /dev/null; do sleep 0.1; done; sleep 0.5
iscsiadm -m discovery -t sendtargets -p {portal}
iscsiadm -m node --login
until blockdev --getsize64 /dev/sda 2> /dev/null | grep -q "[1-9]"; do sleep 0.1; done
"""
LOGOUT = """
sync
iscsiadm -m node --logout && echo LOGGED-OUT
dmesg | grep -iE 'i/o error|medium error|timed out|aborting journal' && echo KERNEL-COMPLAINS
"""
FILE_SYSTEM = """
dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2>/dev/null
dd if=/tmp/noise of=/dev/sda bs=1M oflag=direct 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
dd if=/dev/sda bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/noise && echo READ-BACK-SAME
/tools/mke2fs -q -t ext4 /dev/sda && mount -t ext4 /dev/sda /mnt
for n in 1 2 3 4; do cp /tmp/noise /mnt/$n; sync; done
umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/sda /mnt && echo MOUNTED-AGAIN
for n in 1 2 3 4; do cmp /mnt/$n /tmp/noise && echo FILE-SAME; done
used() {{ sg_logs --page=0xc /dev/sda 2> /dev/null | sed -n 's/.*Used LBA.*: //p'; }}
until [ "$(used)" -ge 32 ] 2> /dev/null; do sleep 1; done; echo ROOM-TOLD
rm /mnt/*; sync; /tools/fstrim /mnt && echo TRIMMED
umount /mnt; e2fsck -fn /dev/sda > /dev/null && echo FSCK-CLEAN
"""
#: Asks to be warned when less than 4 PiB are left.
THRESHOLD = """
page=5c,2,0,14,0,0,0,0,0,0,0,0,0,0,0,0,80,1,0,0,ff,ff,ff,ff
sg_wr_mode --page=0x1c,2 --contents=$page /dev/sda
until dmesg | grep -i 'thin provisioning soft threshold'; do
    dd if=/dev/sda of=/dev/null bs=512 count=1 iflag=direct 2>/dev/null && echo READ; sleep 1
done
echo WARNED
"""


def test_a_file_system_survives_the_death_of_a_replica(guest: Guest, tmp_path: Path) -> None:
    """Nothing in the guest notices; afterwards the replicas are equal, and what was trimmed is free."""
    data = tmp_path / "data"
    with running_up(data, "--size", "256MiB") as up:
        output: list[str] = []
        script = (LOGIN + FILE_SYSTEM + THRESHOLD + LOGOUT).format(portal=up.ready["portal"])
        machine = threading.Thread(target=lambda: output.append(guest.run(script)))
        machine.start()
        head = data / "demo/replica-1/volume-head-000.img"
        # The raw copy and the first files are written: the file system is in use.
        wait_until(
            lambda: head.stat().st_blocks * 512 > 12 << 20 or not machine.is_alive(), "the guest to write"
        )
        if machine.is_alive():
            up.kill("replica-2")
        machine.join()
        assert output, "the guest failed: see the thread's exception above"
        wanted = (
            "READ-BACK-SAME",
            "MOUNTED-AGAIN",
            "ROOM-TOLD",
            "TRIMMED",
            "FSCK-CLEAN",
            "WARNED",
            "LOGGED-OUT",
        )
        for line in wanted:
            assert line in output[0], output[0]
        assert output[0].count("FILE-SAME") == 4
        assert "KERNEL-COMPLAINS" not in output[0], output[0]
        assert "replica-2 was ended by SIGKILL" in up.log.read_text()
        up.wait_state("healthy")
        assert head.stat().st_blocks * 512 < 6 << 20
        assert up.stop() == 0
    digests = {
        hashlib.blake2b(p.read_bytes()).digest() for p in data.glob("demo/replica-*/volume-head-*.img")
    }
    assert len(digests) == 1


def test_a_controller_killed_under_a_mounted_file_system(guest: Guest, tmp_path: Path) -> None:
    """The session comes back by itself and the file system stays writable."""
    data = tmp_path / "data"
    script = LOGIN + FILE_SYSTEM + LOGOUT
    with running_up(data, "--size", "256MiB") as up:
        output: list[str] = []
        machine = threading.Thread(
            target=lambda: output.append(guest.run(script.format(portal=up.ready["portal"])))
        )
        machine.start()
        head = data / "demo/replica-1/volume-head-000.img"
        wait_until(
            lambda: head.stat().st_blocks * 512 > 12 << 20 or not machine.is_alive(), "the guest to write"
        )
        if machine.is_alive():
            up.kill("controller")
        machine.join()
        assert output, "the guest failed: see the thread's exception above"
        assert output[0].count("FILE-SAME") == 4, output[0]
        assert "MOUNTED-AGAIN" in output[0], output[0]
        assert "FSCK-CLEAN" in output[0], output[0]
        assert "controller was ended by SIGKILL" in up.log.read_text()
