"""Persistent reservations as clusters use them: sg_persist by two initiators, through a controller's death."""

import base64
import json
import threading
from pathlib import Path

import pytest

from pyjiva.scsi.saved import decode_saved
from tests.real.volume_process import running_up, wait_until
from tests.vm.guest import Guest

pytestmark = pytest.mark.real

#: Two sessions of one guest, with initiator names of their own; $one and $two are their disks.
TWO_INITIATORS = """
while ! pidof iscsid > /dev/null; do sleep 0.1; done; sleep 0.5
for name in one two; do
    iscsiadm -m iface -I $name -o new > /dev/null
    iscsiadm -m iface -I $name -o update -n iface.transport_name -v tcp > /dev/null
    iscsiadm -m iface -I $name -o update -n iface.initiatorname -v iqn.1993-08.org.debian:01:$name > /dev/null
done
iscsiadm -m discovery -t sendtargets -p {portal} -I one -I two > /dev/null
disk_of() {{
    iscsiadm -m node -I $1 --login > /dev/null
    while true; do
        for session in /sys/class/iscsi_session/session*; do
            [ "$(cat $session/initiatorname)" = iqn.1993-08.org.debian:01:$1 ] || continue
            for disk in $session/device/target*/*/block/*; do
                [ -b /dev/${{disk##*/}} ] && echo /dev/${{disk##*/}} && return
            done
        done
        sleep 0.1
    done
}}
one=$(disk_of one); two=$(disk_of two)
try() {{ echo "$1"; shift; "$@" > /tmp/said 2>&1 && echo " done" || echo " refused: $?"; }}
write() {{ dd if=/dev/zero of=$1 bs=512 count=1 oflag=direct conv=fsync; }}
"""
SCRIPT = (
    TWO_INITIATORS
    + """
sg_persist -n --out --register --param-sark=0xaaa -Z $one > /dev/null && echo REGISTERED-ONE
sg_persist -n --out --reserve --param-rk=0xaaa --prout-type=5 $one > /dev/null && echo RESERVED
try one-writes write $one
try two-writes write $two
try two-reads dd if=$two of=/dev/null bs=512 count=1 iflag=direct
epoch() {{ wget -q -O /tmp/volume {api}/v1/volume 2>/dev/null && grep -o '"epoch": *[0-9]*' /tmp/volume; }}
before=$(epoch)
sg_persist -n --out --register --param-sark=0xbbb -Z $two > /dev/null && echo REGISTERED-TWO
while now=$(epoch); [ "$now" = "" -o "$now" = "$before" ] || grep -q parked /tmp/volume; do sleep 0.2; done
echo CONTROLLER-IS-ANOTHER
for n in 1 2 3 4 5 6 7 8 9; do sg_persist -n -k $two > /tmp/keys 2>&1 && break; sleep 1; done
cat /tmp/keys
sg_persist -n -r $two
preempt="--out --preempt-abort --param-rk=0xbbb --param-sark=0xaaa --prout-type=5"
sg_persist -n $preempt -Z $two > /dev/null && echo PREEMPTED
try two-writes-now write $two
dd if=$one of=/dev/null bs=512 count=1 iflag=direct 2> /dev/null
try one-writes-now write $one
sg_persist -n -k $two
sg_vpd --page=di --quiet $one > /tmp/id-one; sg_vpd --page=di --quiet $two > /tmp/id-two
cmp /tmp/id-one /tmp/id-two && echo SAME-UNIT
sg_readcap -b $one
iscsiadm -m node --logout > /dev/null 2>&1 && echo LOGGED-OUT
"""
)


def test_sg_persist_through_the_death_of_the_controller(guest: Guest, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_up(data, "--size", "64MiB") as up:
        output: list[str] = []
        script = SCRIPT.format(portal=up.ready["portal"], api=up.ready["api"])
        machine = threading.Thread(target=lambda: output.append(guest.run(script)))
        machine.start()
        wait_until(
            lambda: not machine.is_alive() or keys_kept(data / "demo/replica-1") == 2,
            "both registrations to be on a replica",
            timeout_s=180,
        )
        if machine.is_alive():
            up.kill("controller")
        machine.join()
        assert output, "the guest failed: see the thread's exception above"
    lines = [line.strip() for line in output[0].splitlines()]
    for line in ("REGISTERED-ONE", "RESERVED", "REGISTERED-TWO", "CONTROLLER-IS-ANOTHER", "PREEMPTED"):
        assert line in lines, output[0]
    assert "SAME-UNIT" in lines, output[0]
    assert "LOGGED-OUT" in lines, output[0]
    outcome = {
        name: lines[lines.index(name) + 1] for name in lines if name.endswith(("writes", "reads", "now"))
    }
    assert outcome["one-writes"] == "done", output[0]
    assert outcome["two-writes"].startswith("refused"), output[0]
    assert outcome["two-reads"] == "done", "write exclusive, registrants only"
    assert outcome["two-writes-now"] == "done", output[0]
    assert outcome["one-writes-now"].startswith("refused"), "it was preempted"
    after = lines[lines.index("CONTROLLER-IS-ANOTHER") :]
    assert any(line.startswith("0xaaa") for line in after[: after.index("PREEMPTED")]), output[0]
    assert any("Write Exclusive, registrants only" in line for line in after), output[0]
    assert not any(line.startswith("0xaaa") for line in after[after.index("PREEMPTED") :]), output[0]
    assert "controller was ended by SIGKILL" in up.log.read_text()


def keys_kept(replica: Path) -> int:
    """How many registrations a replica has on its disk."""
    state = json.loads((replica / "pyjiva.json").read_text())["state"]
    record = state["record"] or {}
    reservations = decode_saved(base64.b64decode(record.get("parameters", ""))).reservations
    return 0 if reservations is None else len(reservations.registrations)
