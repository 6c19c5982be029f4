"""What the exporter tells: families for Prometheus, and the same as JSON for OpenEBS' programs.  Pure.

`/metrics/?format=json` is what m-apiserver passed on as a volume's stats and mayactl read: the families of
the Go client (`client_model` `dto.MetricFamily`) as its JSON encoder writes them: type a number, labels as
pairs, families by name.  None but these programs asks for it, so it has the names and units that they know.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pyjiva.maya.exporter.scrape import Outcome, Scrape, Tally
from pyjiva.transport.openebs_metrics import (
    Figures,
    ScrapeErrors,
    error_families,
    openebs_families,
    unknown_status,
)

__all__ = ["Families", "exposition", "families_json", "stats_json"]

#: Type of a family → its number in client_model `metrics.proto`, and the key that a sample's value is under.
_TYPES: Final = {"counter": (0, "counter"), "gauge": (1, "gauge"), "unknown": (3, "untyped")}


def exposition(scrape: Scrape, tally: Tally, *, old: bool) -> Iterator[Metric]:
    """Every family; `old`: OpenEBS' names as they once were.

    Of a controller that did not answer there is nothing but that: no value from before.
    """
    yield from _of_exporter(scrape, tally)
    yield from error_families(tally.errors(), old=old)
    if scrape.figures is not None:
        yield from openebs_families(scrape.figures, old=old)
    elif old or tally.volume:  # without a name it would be another series than the one it is about
        yield unknown_status(tally.volume, old=old)
    yield from scrape.passed_on


def _of_exporter(scrape: Scrape, tally: Tally) -> Iterator[Metric]:
    up = int(scrape.outcome is Outcome.OK)
    yield GaugeMetricFamily("pyjiva_exporter_controller_up", "1 when the controller answered", value=up)
    scrapes = CounterMetricFamily(
        "pyjiva_exporter_scrapes", "looks at the controller, by how they ended", labels=("outcome",)
    )
    for outcome, number in tally.ended.items():
        scrapes.add_metric((outcome.value,), number)
    yield scrapes
    if scrape.figures is not None and scrape.replicas:
        replica_up = GaugeMetricFamily(
            "pyjiva_exporter_replica_up", "1 when the replica answered", labels=("volume", "replica")
        )
        for number, answered in sorted(scrape.replicas.items()):
            replica_up.add_metric((scrape.figures.volume, str(number)), answered)
        yield replica_up


@attrs.define(eq=False)
class Families(Collector):
    """Families that are there already, for prometheus_client to write."""

    families: Iterable[Metric]

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client's Collector."""
        yield from self.families


def stats_json(figures: Figures | None, errors: ScrapeErrors | None = None) -> list[dict[str, Any]]:
    """What OpenEBS' exporter answered to `/metrics/?format=json`, and m-apiserver to
    `/latest/volumes/stats/NAME`, of a volume; None: nobody knows how it is.
    """
    families = [*error_families(errors or ScrapeErrors(), old=True)]
    families += [unknown_status("", old=True)] if figures is None else openebs_families(figures, old=True)
    return families_json(families)


def families_json(families: Iterable[Metric]) -> list[dict[str, Any]]:
    """As the Go client's encoder writes them; of counters, gauges and what has no type."""
    made = []
    for family in families:
        number, key = _TYPES[family.type]
        # A counter's name has lost its _total; the family of an exporter in Go is named as its samples are.
        of_counter = family.type == "counter"
        metrics = [
            {**_labels(sample.labels), key: {"value": sample.value}}
            for sample in family.samples
            if not of_counter or sample.name.endswith("_total")
        ]
        if metrics:  # Go's registry gathers no family without a sample
            name = f"{family.name}_total" if of_counter else family.name
            made.append({"name": name, "help": family.documentation, "type": number, "metric": metrics})
    return sorted(made, key=lambda each: str(each["name"]))


def _labels(labels: dict[str, str]) -> dict[str, Any]:
    pairs = [{"name": name, "value": value} for name, value in sorted(labels.items())]
    return {"label": pairs} if pairs else {}
