"""`pyjiva up` with secrets and rules, over real processes."""

from pathlib import Path

import pytest
import trio

from pyjiva.iscsi.pdu import LoginStatus
from pyjiva.testing.initiator import INITIATOR_NAME, open_initiator
from pyjiva.testing.initiator_chap import ChapLogin, log_in_with_chap
from tests.real.volume_process import UpProcess, running_up

pytestmark = pytest.mark.real

SECRET, OWN = "initiator-secret", "target-own-secret"


def log_in(up: UpProcess, portal: str, secret: str, name: str = INITIATOR_NAME) -> int:
    """The status of a mutual CHAP login."""
    chap = ChapLogin(name="alice", secret=secret.encode(), target_secret=OWN.encode())

    async def run() -> int:
        host, _, port = portal.rpartition(":")
        async with open_initiator(host, int(port)) as initiator:
            return (await log_in_with_chap(initiator, chap, up.ready["iqn"], name)).status

    return trio.run(run)


def test_up_asks_for_chap_and_hides_its_secrets(tmp_path: Path) -> None:
    chap, mutual = tmp_path / "chap", tmp_path / "mutual"
    chap.write_text(f"alice {SECRET}\n")
    mutual.write_text(f"target {OWN}\n")
    arguments = ("--chap-file", str(chap), "--mutual-chap-file", str(mutual))
    rules = ("--initiator", INITIATOR_NAME, "--initiator", "127.0.0.0/8")
    portals = ("--portal", "127.0.0.1:0", "--portal", "127.0.0.2:0")
    with running_up(
        tmp_path / "data", "--size", "64MiB", "--replicas", "1", *arguments, *rules, *portals
    ) as up:
        status = up.status()
        assert status is not None
        assert [portal.rpartition(":")[0] for portal in status["portals"]] == ["127.0.0.1", "127.0.0.2"]
        for portal in status["portals"]:
            assert log_in(up, portal, SECRET) == LoginStatus.SUCCESS
        assert log_in(up, up.ready["portal"], "x" * 12) == LoginStatus.AUTHENTICATION_FAILURE
        refused = log_in(up, up.ready["portal"], SECRET, "iqn.2026-01.test:other")
        assert refused == LoginStatus.AUTHORIZATION_FAILURE
        shown = [up.log.read_bytes(), str(up.status()).encode()]
        shown += [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in up.children().values()]
        assert not any(secret.encode() in text for secret in (SECRET, OWN) for text in shown)
        assert b"secrets-readable-by-others" in shown[0]
        assert b"initiators have to log in with CHAP" in shown[0]
