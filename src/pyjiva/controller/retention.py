"""Which snapshots that were made on a schedule may go.  Pure.

Of the newest `keep_last` each is kept; of each of the last `keep_hourly` hours, and `keep_daily` days, in
which there is one, the newest.  Hours and days are those of UTC.  Snapshots that somebody asked for are never
touched.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.lineage import Snapshot

__all__ = ["SCHEDULE_LABEL", "Retention", "expired"]

SCHEDULE_LABEL: Final = "pyjiva.io/schedule"
"""What tells a snapshot that was made on a schedule."""
EVERY_S_MIN: Final = 60.0  # more often, and they would be made faster than their space comes back


@attrs.frozen
class Retention:
    """The schedule of one volume.  Raises ConfigError: it makes no sense."""

    every_s: float
    """Seconds from one snapshot to the next."""
    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0

    def __attrs_post_init__(self) -> None:
        if self.every_s < EVERY_S_MIN:
            raise ConfigError(f"a snapshot every {self.every_s:g} s: at least {EVERY_S_MIN:g}")
        kept = (self.keep_last, self.keep_hourly, self.keep_daily)
        if min(kept) < 0 or not any(kept):
            raise ConfigError("snapshots on a schedule: say how many to keep, by --keep-last and its like")


def expired(snapshots: Sequence[Snapshot], retention: Retention) -> list[Snapshot]:
    """Those that may go, the oldest first."""
    ours = sorted(
        (snapshot for snapshot in snapshots if SCHEDULE_LABEL in snapshot.labels),
        key=lambda snapshot: snapshot.number,
        reverse=True,
    )
    kept = {snapshot.number for snapshot in ours[: retention.keep_last]}
    for pattern, count in (("%Y-%m-%dT%H", retention.keep_hourly), ("%Y-%m-%d", retention.keep_daily)):
        newest: dict[str, int] = {}
        for snapshot in ours:
            newest.setdefault(_time(snapshot).strftime(pattern), snapshot.number)
        kept.update(list(newest.values())[:count])
    return [snapshot for snapshot in reversed(ours) if snapshot.number not in kept]


def _time(snapshot: Snapshot) -> datetime:
    """When it was made.  One whose time cannot be read is as old as can be."""
    try:
        made = datetime.fromisoformat(snapshot.created)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return made.astimezone(UTC) if made.tzinfo is not None else made.replace(tzinfo=UTC)
