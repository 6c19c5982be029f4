"""How long requests took, by route, method and status.  Pure.

m-apiserver counted under the status of the last request that had failed (`http.go`, `wrap`); here each
request brings its own.
"""

import bisect
import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import attrs
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pyjiva.transport.exposition import Distribution, histogram

__all__ = ["RequestTimes"]

#: Upper ends in seconds, m-apiserver's; a volume takes seconds to come up.
BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, math.inf)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE")
OTHER: Final = "other"


@attrs.define(eq=False)
class RequestTimes(Collector):
    """All since the start."""

    _counts: dict[tuple[str, str, str], list[int]] = attrs.field(factory=dict, init=False)
    _totals_s: dict[tuple[str, str, str], float] = attrs.field(factory=dict, init=False)

    def add(self, route: str, method: str, status: int, took_s: float) -> None:
        """One request has been answered.

        `route`: as the document has it; "" if there is none, so that strangers make no series.
        """
        labels = (route or OTHER, method if method in METHODS else OTHER, str(status))
        counts = self._counts.setdefault(labels, [0] * len(BOUNDS_S))
        counts[bisect.bisect_left(BOUNDS_S, took_s)] += 1
        self._totals_s[labels] = self._totals_s.get(labels, 0.0) + took_s

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client's Collector."""
        yield histogram(
            "pyjiva_maya_request_duration_seconds",
            "how long requests to Maya's API took",
            ("route", "method", "code"),
            [
                Distribution(
                    labels, list(zip(BOUNDS_S, accumulate(counts), strict=True)), self._totals_s[labels]
                )
                for labels, counts in sorted(self._counts.items())
            ],
        )
