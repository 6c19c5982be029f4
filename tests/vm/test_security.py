"""The Linux kernel's initiator with CHAP and digests: let in by the right secrets, kept out by wrong ones."""

from pathlib import Path

import pytest

from tests.real.volume_process import running_up
from tests.vm.guest import Guest

pytestmark = pytest.mark.real

INITIATOR, SECRET = "guest.example", "Qm4dTn0sZx8w"
TARGET, TARGET_SECRET = "target.example", "vN7-kLp2_eYbR5"

SETTINGS = """
while ! pidof iscsid > /dev/null; do sleep 0.1; done; sleep 0.5
set_to() {{ iscsiadm -m node -o update -n "$1" -v "$2" > /dev/null; }}
auth() {{ set_to node.session.auth."$1" "$2"; }}
log_in() {{
    iscsiadm -m node --login > /tmp/said 2>&1; code=$?
    grep -q 'authorization failure' /tmp/said && echo "$1: NOT AUTHORIZED"
    [ $code = 0 ] && iscsiadm -m session -P 2 | grep -q 'Session State: LOGGED_IN' && echo "$1: LOGGED IN"
}}
log_out() {{ iscsiadm -m node --logout > /dev/null 2>&1; }}
set -- $(iscsiadm -m discovery -t sendtargets -p {portal})
echo "discovered $2"
log_in nobody
auth authmethod CHAP; auth username {initiator}; auth password wrong-wrong-wrong; auth chap_algs MD5
log_in wrong-secret
auth password {secret}
for hash in MD5 SHA1 SHA256 SHA3-256; do auth chap_algs $hash; log_in one-way-$hash; log_out; done
auth username_in {target}; auth password_in never-the-right-one; log_in mutual-with-another-target; log_out
auth password_in {target_secret}; log_in mutual; log_out
set_to node.conn[0].iscsi.HeaderDigest CRC32C; set_to node.conn[0].iscsi.DataDigest CRC32C
log_in digests
iscsiadm -m session -P 2 | grep Digest
until blockdev --getsize64 /dev/sda 2> /dev/null | grep -q "[1-9]"; do sleep 0.1; done
dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2>/dev/null
dd if=/tmp/noise of=/dev/sda bs=1M oflag=direct 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /tmp/noise | cut -d' ' -f1
dd if=/dev/sda bs=1M count=8 iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1
log_out
"""


def test_chap_both_ways_and_digests(guest: Guest, tmp_path: Path) -> None:
    files = {"chap": f"{INITIATOR} {SECRET}\n", "mutual": f"{TARGET} {TARGET_SECRET}\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    options = ("--chap-file", str(tmp_path / "chap"), "--mutual-chap-file", str(tmp_path / "mutual"))
    with running_up(tmp_path / "data", "--size", "64MiB", *options) as up:
        script = SETTINGS.format(
            portal=up.ready["portal"],
            initiator=INITIATOR,
            secret=SECRET,
            target=TARGET,
            target_secret=TARGET_SECRET,
        )
        output = guest.run(script)
        log = up.log.read_text()
    lines = output.splitlines()
    assert f"discovered {up.ready['iqn']}" in lines, output
    for kept_out in ("nobody", "wrong-secret"):
        assert f"{kept_out}: NOT AUTHORIZED" in lines, output
    for let_in in ("one-way-MD5", "one-way-SHA1", "one-way-SHA256", "one-way-SHA3-256", "mutual", "digests"):
        assert f"{let_in}: LOGGED IN" in lines, output
    assert "mutual-with-another-target: LOGGED IN" not in lines, "it would trust a target that is another"
    assert [line.split() for line in lines if "Digest:" in line] == [
        ["HeaderDigest:", "CRC32C"],
        ["DataDigest:", "CRC32C"],
    ], output
    assert len(lines[-1]) == 64, output
    assert lines[-1] == lines[-2], "what was read is what was written"
    for secret in (SECRET, TARGET_SECRET, "wrong-wrong-wrong"):
        assert secret not in log
