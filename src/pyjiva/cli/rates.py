"""What two looks at `/metrics` say of the time between them: how many, how much, how long.  Pure."""

import math
from collections.abc import Mapping
from typing import Final

import attrs
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Look", "Rate", "rates_of_hosts", "rates_of_replicas"]

HOST: Final = "pyjiva_volume_host"
REPLICA: Final = "pyjiva_volume_replica"

Labels = frozenset[tuple[str, str]]


@attrs.frozen
class Look:
    """All numbers of one scrape."""

    at_s: float
    values: Mapping[str, Mapping[Labels, float]]
    """By name as it is in the text, by labels."""

    @classmethod
    def of(cls, text: str, at_s: float) -> "Look":
        """Raises ValueError: it is not in Prometheus' format."""
        values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return cls(at_s, values)

    def value(self, name: str, **labels: str) -> float:
        """The sum of those that have these labels among others."""
        wanted = set(labels.items())
        return sum(value for held, value in self.values.get(name, {}).items() if wanted <= held)

    def labels(self, name: str, label: str) -> list[str]:
        """Which values a label has, sorted."""
        return sorted({dict(held)[label] for held in self.values.get(name, {})})


@attrs.frozen
class Rate:
    """What was done between two looks."""

    per_s: float
    bytes_per_s: float
    in_flight: int
    """At the second look."""
    mean_s: float | None
    """None: nothing was done."""
    median_s: float | None
    p99_s: float | None
    """Both: the upper bound of the histogram's bucket, at most twice what it was."""


def rates_of_hosts(before: Look, after: Look) -> dict[str, Rate]:
    """By operation, those that hosts have ever asked for.  All 0 if the counters began anew."""
    operations = after.labels(f"{HOST}_seconds_count", "operation")
    return {
        each: _rate(before, after, HOST, HOST, operation=each)
        for each in operations
        if after.value(f"{HOST}_seconds_count", operation=each)
    }


def rates_of_replicas(before: Look, after: Look) -> dict[int, Rate]:
    """By replica, whatever it was asked."""
    replicas = after.labels(f"{REPLICA}_in_flight", "replica")
    return {int(i): _rate(before, after, f"{REPLICA}_answer", REPLICA, replica=i) for i in replicas}


def _rate(before: Look, after: Look, times: str, prefix: str, **labels: str) -> Rate:
    passed_s = after.at_s - before.at_s

    def done(name: str, **more: str) -> float:
        return max(0.0, after.value(name, **labels, **more) - before.value(name, **labels, **more))

    count, total_s = done(f"{times}_seconds_count"), done(f"{times}_seconds_sum")
    bounds = sorted(after.labels(f"{times}_seconds_bucket", "le"), key=float)
    cumulative = [(float(le), done(f"{times}_seconds_bucket", le=le)) for le in bounds]

    def quantile(share: float) -> float | None:
        if not count:
            return None
        found = next((le for le, below in cumulative if below >= share * count), math.inf)
        return found if math.isfinite(found) else None

    return Rate(
        per_s=count / passed_s,
        bytes_per_s=done(f"{prefix}_bytes_total") / passed_s,
        in_flight=int(after.value(f"{prefix}_in_flight", **labels)),
        mean_s=total_s / count if count else None,
        median_s=quantile(0.5),
        p99_s=quantile(0.99),
    )
