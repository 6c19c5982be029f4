"""Every reason that the controller gives has a cause, and the page has every cause."""

from pathlib import Path

import pytest

from pyjiva.controller.causes import CAUSES, UNKNOWN, cause_of

PAGE = Path(__file__).parents[2] / "docs/reference/failures.md"


#: A reason of each kind that the controller gives → its cause.
REASONS = [
    ("not connected yet", "never-reached"),
    ("not reachable: Connection refused", "not-running"),
    ("not reachable: No route to host", "unreachable"),
    ("no answer within 5 s", "unreachable"),
    ("it closed the connection", "closed"),
    ("no answer for 4.1 s", "silent"),
    ("its oldest disk operation is 31.0 s old", "stuck-disk"),
    ("its disk could not carry out a WRITE: no-space", "disk-full"),
    ("its disk could not carry out a WRITE: write-error", "disk-error"),
    ("its disk answered read-error to READ", "disk-error"),
    ("could not store its promise (status 19)", "disk-error"),
    ("could not store the membership record (status 17)", "disk-full"),
    ("could not flush what was copied to it (status 17)", "disk-full"),
    ("a scrub found that it differs from the others in 4096 bytes at offset 0", "rot"),
    ("has another volume key", "wrong-replica"),
    ("refused: this replica belongs to another volume", "wrong-replica"),
    ("TLS: certificate has expired", "no-trust"),
    ("closed the connection during the TLS handshake", "no-trust"),
    ("speaks version 3, this controller speaks 2", "wrong-version"),
    ("refused: the API server cannot be asked: get /apis: connection refused", "vote-unknown"),
    ("refused: JivaVolume openebs/v has lost its status.witness", "vote-unknown"),
    ("refused: its vote went back from write 7 to 5, as from a backup", "vote-unknown"),
    ("refused: something else", "misbehaved"),
    ("it missed writes", "behind"),
    ("being rebuilt", "rebuilding"),
    ("being added", "being-added"),
    ("is a witness, and was given as a replica", "wrong-kind"),
    ("copy from replica 1 failed: it was lost", "copy-failed"),
    ("copy of a snapshot from replica 2 failed: hash of both of 4096 bytes: status 18", "copy-failed"),
    ("could not be given the volume's snapshots: create: status 19", "copy-failed"),
    ("could not say which snapshots it has (status 18)", "copy-failed"),
    ("it has a WRITE that the others refused", "copy-failed"),
    ("asked anew after a pause", "asked-again"),
    ("waiting for a majority of the replicas: no answer from 2, 3", "no-majority"),
    ("waiting for replica 2, a little longer", "no-good-copy"),
    ("waiting for the first record of the new volume to be stored by 2", "beginning"),
    ("waiting for the lease of the controller before it to end", "taking-over"),
    ("too few replicas in sync; replica 1 is out: it closed the connection", "too-few-copies"),
    ("the moon is full", "unknown"),
]


@pytest.mark.parametrize(("reason", "name"), REASONS)
def test_reasons_have_their_causes(reason: str, name: str) -> None:
    assert cause_of(reason).name == name


def test_the_page_has_every_cause_as_it_is_told() -> None:
    page = PAGE.read_text()
    for cause in (*CAUSES, UNKNOWN):
        assert f"| `{cause.name}` | {cause.means} | {cause.todo} |" in page
    causes, _, _ = page.partition("## Causes")[2].partition("## Events")
    assert causes.count("\n| `") == len(CAUSES) + 1, "and no other"
