"""Why a replica is not in sync, or the volume parked: what each reason means, and what to do.  Pure.

The reasons themselves are made where the thing happens, with their figures; here they are recognised.  A test
holds that every reason has its cause, and that docs/reference/failures.md has every cause.
"""

import re
from typing import Final

import attrs

from pyjiva.replication import Status

__all__ = ["CAUSES", "UNKNOWN", "Cause", "cause_of"]


@attrs.frozen
class Cause:
    """One kind of reason."""

    name: str
    reason: str
    """A regular expression that the reason begins with."""
    means: str
    todo: str


_WAIT: Final = "Nothing: it goes on by itself."
UNKNOWN: Final = Cause("unknown", "", "It is not one of the known causes.", "Look at the logs of both sides.")

CAUSES: Final = (
    Cause(
        "never-reached",
        "not connected yet",
        "This controller has just started and has not heard of it.",
        "Wait some seconds; then see that its `pyjiva-replica` runs.",
    ),
    Cause(
        "not-running",
        "not reachable: Connection refused",
        "Its machine answers, but no `pyjiva-replica` listens at this address.",
        "Start it again; see its log for why it ended.",
    ),
    Cause(
        "unreachable",
        "not reachable|no answer within",
        "Its machine is down, or the network between it and the controller is.",
        "Check the machine and the network. It is rebuilt by itself when it is back.",
    ),
    Cause(
        "closed",
        "it closed the connection|closed the connection during the handshake",
        "Its process ended or was restarted.",
        "See that it runs again; its log says why it ended.",
    ),
    Cause(
        "silent",
        "no answer for",
        "It is connected and stopped answering: its process hangs, its machine died, or the network is cut.",
        "Check the machine and the network. It is rebuilt by itself when it is back.",
    ),
    Cause(
        "stuck-disk",
        "its oldest disk operation",
        "Its process answers, but its disk does not.",
        "Check the disk (`dmesg`, SMART) and replace it if it fails, then start the replica again.",
    ),
    Cause(
        "disk-full",
        rf"its disk (answered|could not carry out).*no-space|could not .*\(status {Status.NO_SPACE.value}\)",
        "The file system that it is on has no room for a write. The others have the write.",
        "Make room on it. It is tried again, and rebuilt, by itself.",
    ),
    Cause(
        "disk-error",
        "its disk (answered|could not carry out)|could not store|could not flush",
        "Its disk refused to read or write. The others have everything.",
        "Check the disk (`dmesg`, SMART) and replace it if it fails.",
    ),
    Cause(
        "rot",
        "too many of its blocks are not what was written|a scrub found that it differs",
        "What its disk gives is not what was written to it. It is rebuilt from the others.",
        "Check the disk (SMART) and the machine's memory; replace what fails.",
    ),
    Cause(
        "wrong-replica",
        "has another volume key|says that it is replica|has [0-9]+ bytes in blocks"
        "|refused: (the controller has another volume key|this replica belongs to another)",
        "Another replica answers at this address: of another volume, another number or another size.",
        "Check the controller's `--replica`, and the replica's `--volume-id`, `--replica-id`, `--key-file`.",
    ),
    Cause(
        "no-trust",
        "TLS: |closed the connection during the TLS handshake",
        "One side has no certificate that the other takes: expired, of another authority, for another "
        "address, or none.",
        "Check `--tls-cert` and `--tls-ca` of both sides; the log of the other side has its reason.",
    ),
    Cause(
        "wrong-version",
        "speaks version|refused: the controller speaks versions",
        "It is of another release that does not understand this one.",
        "Run the same release on both sides.",
    ),
    Cause(
        "vote-unknown",
        "refused: (the API server|JivaVolume|there is no JivaVolume|no answer within|its vote went back)",
        "A witness whose vote is in the JivaVolume cannot read it there, or does not believe what it finds.",
        "If the API server is away, nothing. Else the reason says what is wrong, and what to do.",
    ),
    Cause(
        "misbehaved",
        "answered [A-Z_]+ by a frame|says that it has promised|refused:|replica [0-9]+ |remembers a write"
        "|it answered|a hash without bytes|READ of",
        "It sent what no replica sends: a damaged connection, or a fault in pyjiva.",
        "It is connected to again by itself. If it happens again, report it with the logs of both sides.",
    ),
    Cause(
        "behind",
        "it missed writes",
        "It was away while the others took writes. It may be blank, of an older time, or just restarted.",
        "Nothing: it is rebuilt when it can be reached.",
    ),
    Cause("rebuilding", "being rebuilt|everything is copied", "It gets what it missed.", _WAIT),
    Cause(
        "being-added",
        "being added",
        "It is to belong to the volume, and has not been reached yet.",
        "See that its `pyjiva-replica` runs at this address; or call it off with `pyjiva replica rm`.",
    ),
    Cause(
        "wrong-kind",
        "is a (witness|replica)",
        "It was started with `--witness` and given as a replica, or the other way round.",
        "Give it as what it is: `--witness` to both sides, or to none.",
    ),
    Cause(
        "copy-failed",
        "copy (of a snapshot )?from replica|could not (say which snapshots|be given the volume's)"
        "|it has a [A-Z_]+ that the others refused",
        "A rebuild of it broke off; it begins again where it was.",
        "If it happens again and again: the reason names the side whose disk or network fails.",
    ),
    Cause(
        "asked-again",
        "asked anew",
        "Another controller of this volume is starting too; one of them ends by itself.",
        "Run one controller. If two are meant to take over from each other, nothing.",
    ),
    Cause(
        "no-majority",
        "waiting for (the replicas to be reached|a majority)",
        "Fewer than half of the configured replicas answer: another controller may serve the others.",
        "Bring replicas back until more than half of them answer.",
    ),
    Cause(
        "beginning",
        "waiting for the first record of the new volume",
        "The volume is new, and takes I/O when each of its replicas has stored durably who belongs to it.",
        _WAIT,
    ),
    Cause(
        "no-good-copy",
        "waiting for (a replica that holds every write|replica )",
        "What can be reached may lack writes that the host was promised.",
        "Bring the named replicas back. Their data is the newest.",
    ),
    Cause(
        "taking-over",
        "waiting for (the lease|the replicas to be made equal|another controller)",
        "The controller is taking the volume over from one that did not end cleanly.",
        _WAIT,
    ),
    Cause(
        "too-few-copies",
        "too few replicas in sync",
        "Fewer copies are in sync than there must be for a write: I/O waits, and fails after 120 s.",
        "Bring the named replicas back; I/O goes on by itself.",
    ),
)


def cause_of(reason: str) -> Cause:
    """What stands behind a reason of `VolumeStatus` or `ReplicaStatus`."""
    return next((cause for cause in CAUSES if re.match(cause.reason, reason)), UNKNOWN)
