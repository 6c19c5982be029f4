"""Persistent reservations as clusters use them: sg_persist in two machines, through a controller's death."""

import base64
import json
import threading
from pathlib import Path

import pytest

from pyjiva.scsi.saved import decode_saved
from tests.real.volume_process import running_up, wait_until
from tests.vm.guest import Guest

pytestmark = pytest.mark.real

#: Both machines; {name} is their initiator's.
LOGIN = """
while ! pidof iscsid > /dev/null; do sleep 0.1; done; sleep 0.5
iface() {{ iscsiadm -m iface -I own -o "$@" > /dev/null; }}
iface new; iface update -n iface.transport_name -v tcp
iface update -n iface.initiatorname -v iqn.1993-08.org.debian:01:{name}
iscsiadm -m discovery -t sendtargets -p {portal} -I own > /dev/null
iscsiadm -m node -I own --login > /dev/null
until blockdev --getsize64 /dev/sda 2> /dev/null | grep -q "[1-9]"; do sleep 0.1; done
try() {{ echo "$1"; shift; "$@" > /tmp/said 2>&1 && echo done || echo refused; }}
keys() {{ sg_persist -n -k /dev/sda 2> /dev/null; }}
write() {{ dd if=/dev/zero of=/dev/sda bs=512 count=1 oflag=direct conv=fsync; }}
parked() {{ grep -q '"state": *"parked"' /tmp/volume; }}
epoch() {{ wget -q -O /tmp/volume {api}/v1/volume 2>/dev/null && grep -o '"epoch": *[0-9]*' /tmp/volume; }}
"""
HOLDER = """
sg_persist -n --out --register --param-sark=0xaaa -Z /dev/sda > /dev/null && echo REGISTERED
sg_persist -n --out --reserve --param-rk=0xaaa --prout-type=5 /dev/sda > /dev/null && echo RESERVED
try holder-writes write
until keys | grep -q 0xbbb; do sleep 0.3; done
while keys > /tmp/keys; ! grep -q 0xbbb /tmp/keys || grep -q 0xaaa /tmp/keys; do sleep 0.3; done
dd if=/dev/sda of=/dev/null bs=512 count=1 iflag=direct 2> /dev/null
try preempted-writes write
try preempted-reads dd if=/dev/sda of=/dev/null bs=512 count=1 iflag=direct
"""
OTHER = """
until sg_persist -n -r /dev/sda 2> /dev/null | grep -q 'Key=0xaaa'; do sleep 0.3; done
try other-writes write
try other-reads dd if=/dev/sda of=/dev/null bs=512 count=1 iflag=direct
before=$(epoch)
sg_persist -n --out --register --param-sark=0xbbb -Z /dev/sda > /dev/null
while now=$(epoch); [ "$now" = "" -o "$now" = "$before" ] || parked; do sleep 0.2; done
echo CONTROLLER-IS-ANOTHER
for n in 1 2 3 4 5 6 7 8 9; do keys > /tmp/keys && break; sleep 1; done
cat /tmp/keys
sg_persist -n -r /dev/sda
try other-writes-as-registrant write
preempt="--out --preempt-abort --param-rk=0xbbb --param-sark=0xaaa --prout-type=5"
sg_persist -n $preempt -Z /dev/sda > /dev/null && echo PREEMPTED
try preemptor-writes write
sg_persist -n -r /dev/sda
sg_vpd --page=sn --raw /dev/sda; echo
sg_readcap -b /dev/sda
"""
LOGOUT = """
iscsiadm -m node --logout > /dev/null 2>&1 && echo LOGGED-OUT
"""


def test_sg_persist_in_two_machines_through_the_death_of_the_controller(guest: Guest, tmp_path: Path) -> None:
    """What the holder was promised holds for a machine that never heard of the old controller."""
    data = tmp_path / "data"
    with running_up(data, "--size", "64MiB") as up:
        output: dict[str, list[str]] = {}

        def run(name: str, script: str) -> None:
            said = guest.run(
                (LOGIN + script + LOGOUT).format(name=name, portal=up.ready["portal"], api=up.ready["api"])
            )
            output[name] = [line.strip() for line in said.splitlines()]

        machines = [
            threading.Thread(target=run, args=("holder", HOLDER)),
            threading.Thread(target=run, args=("other", OTHER)),
        ]
        for machine in machines:
            machine.start()
        wait_until(
            lambda: keys_kept(data / "demo/replica-1") == 2 or not all(m.is_alive() for m in machines),
            "both registrations to be on a replica",
            timeout_s=180,
        )
        up.kill("controller")
        for machine in machines:
            machine.join()
        status = up.status()
    assert set(output) == {"holder", "other"}, "a guest failed: see the thread's exception above"
    holder, other = output["holder"], output["other"]
    for line in ("REGISTERED", "RESERVED", "LOGGED-OUT"):
        assert line in holder, holder
    for line in ("CONTROLLER-IS-ANOTHER", "PREEMPTED", "LOGGED-OUT", "0x20000 0x200"):
        assert line in other, other
    for lines, step, outcome in (
        (holder, "holder-writes", "done"),
        (other, "other-writes", "refused"),
        (other, "other-reads", "done"),  # write exclusive, registrants only
        (other, "other-writes-as-registrant", "done"),
        (other, "preemptor-writes", "done"),
        (holder, "preempted-writes", "refused"),
        (holder, "preempted-reads", "done"),
    ):
        assert lines[lines.index(step) + 1] == outcome, (step, lines)
    another = other[other.index("CONTROLLER-IS-ANOTHER") : other.index("PREEMPTED")]
    assert {"0xaaa", "0xbbb", "Key=0xaaa"} <= set(another), "the reservation outlived its controller"
    assert "Key=0xbbb" in other[other.index("PREEMPTED") :]
    assert status is not None
    assert status["volume_id"] in "".join(other), "the serial number"
    assert "controller was ended by SIGKILL" in up.log.read_text()


def keys_kept(replica: Path) -> int:
    """How many registrations a replica has on its disk."""
    state = json.loads((replica / "pyjiva.json").read_text())["state"]
    record = state["record"] or {}
    reservations = decode_saved(base64.b64decode(record.get("parameters", ""))).reservations
    return 0 if reservations is None else len(reservations.registrations)
