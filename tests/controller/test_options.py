"""What a controller is told at its start is checked before anything opens."""

import math
from typing import Any

import pytest

from pyjiva.controller import ControllerOptions, ReplicaAddress, Tuning
from pyjiva.controller.quorum import MAJORITY, REPLICAS_MAX
from pyjiva.errors import ConfigError


def replicas(*ids: int) -> tuple[ReplicaAddress, ...]:
    """Addresses of replicas."""
    return tuple(ReplicaAddress(id_, "127.0.0.1", 9502) for id_ in ids)


def options(**changes: Any) -> ControllerOptions:
    """Options that can be, but for `changes`."""
    fields: dict[str, Any] = {
        "volume_name": "demo",
        "volume_id": "ab" * 16,
        "size_bytes": 1024**3,
        "block_size_bytes": 512,
        "replicas": replicas(1, 2, 3),
        "key": b"secret",
    }
    return ControllerOptions(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"replicas": ()}, "0 replicas: a volume has 1 to 7"),
        ({"replicas": replicas(*range(1, REPLICAS_MAX + 2))}, "8 replicas: a volume has 1 to 7"),
        ({"replicas": replicas(1, 2, 2)}, "must be different"),
        ({"replicas": replicas(0, 1)}, "at least 1"),
        ({"block_size_bytes": 1024}, "block size 1024: 512 or 4096"),
        ({"size_bytes": 0}, "size 0"),
        ({"size_bytes": -512}, "size -512"),
        ({"replicas": (ReplicaAddress(1, "h", 1, witness=True),)}, "no witness"),
        ({"tuning": Tuning(min_copies=0)}, "minimum copies 0"),
        ({"tuning": Tuning(min_copies=4)}, "1 to the number of replicas"),
        ({"size_bytes": 513}, "multiple of the block size 512"),
        ({"size_bytes": 512, "block_size_bytes": 4096}, "multiple of the block size 4096"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        options(**changes)


@pytest.mark.parametrize("count", range(1, REPLICAS_MAX + 1))
def test_writes_need_a_majority_of_copies(count: int) -> None:
    assert Tuning().min_copies_of(count, 0) == MAJORITY[count]


@pytest.mark.parametrize(
    ("min_copies", "data", "witnesses", "needed"), [(None, 2, 1, 1), (2, 2, 1, 2), (3, 3, 0, 3), (3, 2, 0, 2)]
)
def test_how_many_copies_a_write_needs_can_be_told(
    min_copies: int | None, data: int, witnesses: int, needed: int
) -> None:
    assert Tuning(min_copies=min_copies).min_copies_of(data, witnesses) == needed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rebuild_rate", 0),
        ("background_floor", 0),
        ("member_timeout_s", 0.9),
        ("member_timeout_s", 30.1),
        ("member_timeout_s", math.nan),
        ("park_limit_s", -1),
        ("park_limit_s", math.inf),
        ("park_limit_s", math.nan),
    ],
)
def test_tuning_that_makes_no_sense_is_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field.removesuffix('_s').replace('_', ' ')}"):
        Tuning(**{field: value})  # type: ignore[arg-type]  # one of several types


def test_addresses_are_written_and_read() -> None:
    for address in (ReplicaAddress(1, "10.0.0.1", 9502), ReplicaAddress(2, "fd00::1", 9502, witness=True)):
        assert ReplicaAddress.parse(address.replica_id, str(address), witness=address.witness) == address
    assert ReplicaAddress.parse(1, "", witness=False) is None
    assert ReplicaAddress.parse(1, "host:port", witness=False) is None
    assert ReplicaAddress.parse(1, "host:65535", witness=False) is not None
    for text in ("host:65536", "host:" + "1" * 5000, "h" * 254 + ":9502"):
        assert ReplicaAddress.parse(1, text, witness=False) is None


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(options())
