"""What the exporter tells, as families and as JSON, and that docs/reference/metrics.md names all of it."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.maya.exporter.exposition import Families, exposition, families_json, stats_json
from pyjiva.maya.exporter.scrape import Outcome, Scrape, Tally, read_metrics
from pyjiva.transport.openebs_metrics import Figures, ScrapeErrors
from tests.controller.test_metrics import EXAMPLE, Samples, samples_of, text_of

PAGE = Path(__file__).parents[3] / "docs/reference/metrics.md"
FIGURES = Figures(
    volume="demo",
    state="degraded",
    size_bytes=2**30,
    block_size_bytes=512,
    sessions=1,
    modes=("in-sync", "out", "witness"),
    used_bytes=2**29,
    uptime_s=60,
    reads=3,
    read_time_ns=3000,
    read_bytes=1536,
    writes=1,
    write_time_ns=500,
    write_bytes=512,
)
GOOD = Scrape(Outcome.OK, "", FIGURES, read_metrics(text_of(EXAMPLE)), {1: True, 2: False})
BAD = Scrape(Outcome.TIMEOUT, "no answer within 1 s")


def tally_of(*scrapes: Scrape) -> Tally:
    tally = Tally()
    for scrape in scrapes:
        tally.add(scrape)
    return tally


def text(*scrapes: Scrape, old: bool = False) -> str:
    """As it stands there after the last of them."""
    registry = CollectorRegistry()
    registry.register(Families([*exposition(scrapes[-1], tally_of(*scrapes), old=old)]))
    return generate_latest(registry).decode()


def openebs(samples: Samples) -> dict[str, float]:
    return {name: value for (name, _), value in samples.items() if name.startswith("openebs_")}


@pytest.mark.parametrize("old", [False, True])
def test_a_controller_that_answers(old: bool) -> None:
    found = samples_of(text(GOOD, old=old))
    assert found["pyjiva_exporter_controller_up", ()] == 1
    assert found["openebs_connection_error_total", ()] == 0
    labels = () if old else (("volume", "demo"),)
    assert found["openebs_volume_status", labels] == 2
    assert ("openebs_reads" if old else "openebs_reads_total") in openebs(found)
    assert found["pyjiva_volume_epoch", (("volume", "demo"),)] == 4
    assert found["pyjiva_exporter_replica_up", (("replica", "1"), ("volume", "demo"))] == 1
    assert found["pyjiva_exporter_replica_up", (("replica", "2"), ("volume", "demo"))] == 0


@pytest.mark.parametrize("old", [False, True])
def test_of_one_that_does_not_there_is_no_value_from_before(old: bool) -> None:
    found = samples_of(text(GOOD, BAD, old=old))
    assert found["pyjiva_exporter_controller_up", ()] == 0
    assert found["pyjiva_exporter_scrapes_total", (("outcome", "timeout"),)] == 1
    assert found["pyjiva_exporter_scrapes_total", (("outcome", "ok"),)] == 1
    assert found["openebs_volume_status", () if old else (("volume", "demo"),)] == 4
    assert not [name for name, _ in found if name.startswith("pyjiva_volume")]
    errors = {"openebs_connection_error_total": 1, "openebs_parse_error_total": 0, "openebs_volume_status": 4}
    if old:
        errors |= {"openebs_connection_retry_total": 0, "openebs_target_reject_request_counter": 0}
    assert openebs(found) == errors


def test_a_volume_whose_name_is_not_known_has_no_status() -> None:
    assert not [name for name, _ in samples_of(text(BAD)) if name == "openebs_volume_status"]


def test_types_of_errors_are_right_or_as_they_were() -> None:
    for old, type_ in ((False, "counter"), (True, "gauge")):
        types = {
            f.name.removesuffix("_total"): f.type for f in text_string_to_metric_families(text(BAD, old=old))
        }
        assert types["openebs_connection_error"] == type_


def test_json_is_as_the_go_client_writes_it() -> None:
    counter = CounterMetricFamily("b_bytes", "of b", labels=("z", "a"))
    counter.add_metric(("1", "2"), 7.0, created=12.5)
    gauge = GaugeMetricFamily("a", "of a", value=1.5)
    untyped = UnknownMetricFamily("c_counter", "of c", value=0)
    none = GaugeMetricFamily("d", "of none", labels=("x",))
    assert families_json([counter, gauge, untyped, none]) == [
        {"name": "a", "help": "of a", "type": 1, "metric": [{"gauge": {"value": 1.5}}]},
        {
            "name": "b_bytes_total",
            "help": "of b",
            "type": 0,
            "metric": [
                {
                    "label": [{"name": "a", "value": "2"}, {"name": "z", "value": "1"}],
                    "counter": {"value": 7.0},
                }
            ],
        },
        {"name": "c_counter", "help": "of c", "type": 3, "metric": [{"untyped": {"value": 0}}]},
    ]


def test_stats_have_the_names_that_mayactl_knows() -> None:
    found = {each["name"]: each["metric"][0] for each in stats_json(FIGURES, ScrapeErrors(2, 1))}
    assert found["openebs_reads"]["gauge"]["value"] == 3
    assert found["openebs_size_of_volume"]["gauge"]["value"] == 1.0
    assert found["openebs_read_block_count"]["gauge"]["value"] == 1536
    assert found["openebs_connection_error_total"]["gauge"]["value"] == 2
    assert found["openebs_volume_uptime"]["label"] == [
        {"name": "castype", "value": "jiva"},
        {"name": "volName", "value": "demo"},
    ]
    assert [*found] == sorted(found)


def test_stats_of_a_volume_that_is_away() -> None:
    assert [each for each in stats_json(None) if each["name"] == "openebs_volume_status"] == [
        {
            "name": "openebs_volume_status",
            "help": "1 parked (offline), 2 degraded, 3 healthy, 4 unknown",
            "type": 1,
            "metric": [{"gauge": {"value": 4}}],
        }
    ]


def test_the_page_names_what_is_the_exporters_own() -> None:
    section = PAGE.read_text().partition("## Exporter\n")[2].partition("\n## ")[0]
    named = {
        row.split("|")[1].strip(" `"): set(re.findall("`([a-z]+)`", row.split("|")[3]))
        for row in section.splitlines()
        if row.startswith("| `")
    }
    told: dict[str, set[str]] = {}
    for name, labels in samples_of(text(GOOD)):
        about_volume = any(label == "volume" for label, _ in labels)
        if not about_volume or name.startswith("pyjiva_exporter_"):
            told.setdefault(name, set()).update(label for label, _ in labels)
    assert named == told
