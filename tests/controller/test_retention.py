"""Which scheduled snapshots may go."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.retention import SCHEDULE_LABEL, Retention, expired
from pyjiva.errors import ConfigError
from pyjiva.lineage import Snapshot

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def snapshots(*ages_h: float) -> list[Snapshot]:
    """Scheduled ones, the oldest first; each is named by its age in hours."""
    return [
        Snapshot(
            number=number,
            name=f"{age:g}",
            created=(NOON - timedelta(hours=age)).isoformat(),
            labels={SCHEDULE_LABEL: "yes"},
            user_created=False,
        )
        for number, age in enumerate(sorted(ages_h, reverse=True), 1)
    ]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"keep_last": 2}, "0.5 0"),
        ({"keep_hourly": 2}, "0.5 0"),  # 11:30 and 12:00
        ({"keep_hourly": 3}, "2 0.5 0"),
        ({"keep_daily": 2}, "12.5 0"),  # 23:30 of the day before
        ({"keep_daily": 9}, "50 12.5 0"),
        ({"keep_last": 1, "keep_daily": 2}, "12.5 0"),
    ],
)
def test_what_is_kept(keep: dict[str, int], kept: str) -> None:
    made = snapshots(50, 13, 12.5, 2.5, 2, 0.75, 0.5, 0)
    gone = expired(made, Retention(3600.0, **keep))
    assert [each.name for each in made if each not in gone] == kept.split()


def test_what_somebody_made_stays() -> None:
    by_hand = Snapshot(number=1, name="by-hand", created=NOON.isoformat())
    assert (
        expired([by_hand, *snapshots(3, 2, 1)[1:]], Retention(60.0, keep_last=1)) == snapshots(3, 2, 1)[1:2]
    )


def test_one_whose_time_nobody_can_read_is_old() -> None:
    odd = Snapshot(number=1, name="odd", created="yesterday", labels={SCHEDULE_LABEL: "yes"})
    made = [odd, *snapshots(2, 1)[1:]]
    assert expired(made, Retention(60.0, keep_daily=1)) == [odd]


@given(
    st.lists(st.floats(0, 1000), max_size=20),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_the_newest_are_never_gone_and_nothing_goes_twice(
    ages: list[float], last: int, hourly: int, daily: int
) -> None:
    if not last + hourly + daily:
        last = 1
    made = snapshots(*ages)
    retention = Retention(60.0, last, hourly, daily)
    gone = expired(made, retention)
    assert not made or made[-1] not in gone
    left = [each for each in made if each not in gone]
    assert len(left) <= last + hourly + daily
    assert expired(left, retention) == []


@pytest.mark.parametrize("fields", [(59.0, 1), (3600.0,), (3600.0, -1, 2)])
def test_what_makes_no_sense_is_refused(fields: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        Retention(*fields)  # type: ignore[arg-type]
