"""Families of metrics that every process has, or makes in the same way.  Pure."""

import math
import platform
from collections.abc import Iterable, Iterator, Sequence

import attrs
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pyjiva import __version__

__all__ = ["BuildCollector", "Distribution", "histogram"]


@attrs.frozen
class Distribution:
    """The samples of one set of labels."""

    labels: Sequence[str]
    cumulative: Iterable[tuple[float, int]]
    """How many were no larger than so much; the last bound is infinite."""
    total: float


def histogram(name: str, text: str, labels: Sequence[str], samples: Iterable[Distribution]) -> Metric:
    """A family of histograms."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for each in samples:
        buckets = [("+Inf" if bound == math.inf else repr(bound), count) for bound, count in each.cumulative]
        family.add_metric(each.labels, buckets, each.total)
    return family


class BuildCollector(Collector):
    """Which program is running."""

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client's Collector."""
        build = InfoMetricFamily("pyjiva_build", "the program")
        build.add_metric((), {"version": __version__, "python": platform.python_version()})
        yield build
