"""What `pyjiva explain` says of every state and cause: `python -m tests.cli.explanations` writes it down."""

from pathlib import Path
from typing import Any

from pyjiva.cli.explanation import explain
from tests.cli.fake_api import REBUILD, STATUS
from tests.controller.test_causes import REASONS

__all__ = ["CASES", "FILE", "written"]

FILE = Path(__file__).with_name("explanations.txt")
AT_S = 1_800_000_000.0


def volume(state: str, of_replica_2: dict[str, Any], reason: str = "") -> dict[str, Any]:
    """Three replicas, of which the second is as it says."""
    healthy: dict[str, Any] = {"mode": "in-sync", "progress": None, "rebuild": None, "reason": ""}
    healthy["behind_bytes"] = None
    replicas = [
        replica | healthy | {"rot": {"repairing": 0, "repaired": 0, "hopeless": 0}}
        for replica in STATUS["replicas"]
    ]
    replicas[1] |= of_replica_2
    return STATUS | {"state": state, "reason": reason, "replicas": replicas, "parked_requests": 5}


def event(text: str, replica: int | None = 2, kind: str = "replica") -> dict[str, Any]:
    """One of a history."""
    return {"number": 1, "at_s": AT_S, "kind": kind, "replica": replica, "text": text}


def _cases() -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    gone = {"mode": "out", "reason": "no answer for 5.0 s", "behind_bytes": 1288490188}
    rebuilt = {"mode": "rebuilding", "reason": "being rebuilt", "progress": 0.42}
    rot = {"repairing": 0, "repaired": 1, "hopeless": 0}
    cases = {
        "healthy": (volume("healthy", {}), [event("rebuilding → in-sync")]),
        "out, and since when": (volume("degraded", gone), [event("in-sync → out: no answer for 5.0 s")]),
        "out, and that is long ago": (volume("degraded", gone), [event("in-sync → out", replica=3)]),
        "out, and nobody knows how far behind": (volume("degraded", gone | {"behind_bytes": None}), []),
        "rebuilding": (
            volume("degraded", rebuilt | {"rebuild": REBUILD}),
            [event("in-sync → out"), event("out → rebuilding: being rebuilt")],
        ),
        "rebuilding, begun just now": (
            volume("degraded", rebuilt | {"rebuild": REBUILD | {"eta_s": None}}),
            [],
        ),
        "rebuilding, everything copied": (volume("degraded", rebuilt), []),
        "a witness votes": (volume("healthy", {"mode": "witness"}), []),
        "a witness is gone": (volume("degraded", {"mode": "out", "reason": "it closed the connection"}), []),
        "rot under repair": (volume("healthy", {"rot": rot | {"repairing": 2}}), []),
        "rot repaired": (volume("healthy", {"rot": rot}), []),
        "rot without a good copy": (volume("healthy", {"rot": rot | {"hopeless": 3}}), []),
    }
    for reason, _ in REASONS:
        of_volume = reason.startswith(("waiting for", "too few"))
        parked, degraded = volume("parked", {}, reason), volume("degraded", {"mode": "out", "reason": reason})
        status = parked if of_volume else degraded
        cases[f"reason: {reason}"] = (status, [])
    return cases


CASES = _cases()


def written(name: str) -> str:
    """The section of a case, as the file has it."""
    lines = [sentence.text for sentence in explain(*CASES[name])]
    return "\n".join([f"## {name}", *lines, ""])


if __name__ == "__main__":
    FILE.write_text("\n".join(map(written, CASES)))
