"""Who gives way to whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup.locks import CONFLICTS, EXPIRY_S, RENEW_S, TRUST_S, Lock, LockKind, SeenLock, judge
from pyjiva.backup.objects import DamagedError


def seen(kind: LockKind, *, age_s: float = 0.0, process: str = "p") -> SeenLock:
    """A lock that was put `age_s` before 0."""
    return SeenLock("locks/x", Lock(kind, process, "today"), -age_s)


@pytest.mark.parametrize(
    ("own", "other", "conflict"),
    [
        (LockKind.CREATE, LockKind.CREATE, False),
        (LockKind.CREATE, LockKind.COLLECT, True),
        (LockKind.COLLECT, LockKind.CREATE, True),
        (LockKind.COLLECT, LockKind.COLLECT, True),
    ],
)
def test_only_makers_work_beside_each_other(own: LockKind, other: LockKind, conflict: bool) -> None:
    verdict = judge(own, [seen(other)], 0.0, lambda _: False)
    assert bool(verdict.in_the_way) == conflict
    assert not verdict.dead
    assert (other in CONFLICTS[own]) == conflict


@pytest.mark.parametrize(
    ("age_s", "gone", "dead"),
    [(0.0, False, False), (EXPIRY_S, False, False), (EXPIRY_S + 1, False, True), (0.0, True, True)],
)
def test_a_lock_is_dead_by_its_age_or_its_process(age_s: float, gone: bool, dead: bool) -> None:
    verdict = judge(LockKind.COLLECT, [seen(LockKind.CREATE, age_s=age_s)], 0.0, lambda _: gone)
    assert (len(verdict.dead), len(verdict.in_the_way)) == ((1, 0) if dead else (0, 1))


def test_a_process_stops_believing_long_before_others_do() -> None:
    assert RENEW_S * 10 < TRUST_S < EXPIRY_S / 2


@given(kind=st.sampled_from(LockKind), process=st.text(), began=st.text())
def test_a_lock_comes_back(kind: LockKind, process: str, began: str) -> None:
    lock = Lock(kind, process, began)
    assert Lock.decode(lock.encode(), "k") == lock


@given(anything=st.binary() | st.sampled_from([b"[]", b"{}", b'{"kind":"create","process":1,"began":""}']))
def test_any_bytes_are_damage(anything: bytes) -> None:
    with pytest.raises(DamagedError):
        Lock.decode(anything, "k")
