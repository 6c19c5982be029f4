"""What the exporter makes of a controller's answers."""

import contextlib
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric

from pyjiva.block import Meters, Read, Write
from pyjiva.controller.openebs_metrics import openebs_metrics
from pyjiva.controller.stats import jiva_stats
from pyjiva.controller.status import VolumeStatus
from pyjiva.errors import RemoteProtocolError
from pyjiva.maya.exporter.scrape import Outcome, Scrape, Tally, figures_of, read_metrics
from pyjiva.transport.openebs_metrics import ScrapeErrors, openebs_families
from tests.controller.test_metrics import EXAMPLE, STATUSES, text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def volume_json(status: VolumeStatus, sessions: int = 0) -> Any:
    """As `/v1/volume` has it, as far as the exporter reads it."""
    body = attrs.asdict(status, value_serializer=lambda _, __, v: getattr(v, "value", v))
    return json.loads(json.dumps({**body, "sessions": [{}] * sessions}))


def stats_of(status: VolumeStatus, meters: Meters) -> Any:
    return json.loads(json.dumps(jiva_stats(status, meters, url="http://c/v1/stats", sessions=0)))


def used_meters(reads: int, read_ns: int, written_bytes: int) -> Meters:
    meters = Meters(lambda: 0)
    for _ in range(reads):
        meters.of[Read].times.add(read_ns)
    meters.of[Read].length_bytes = 512 * reads
    meters.of[Write].times.add(7)
    meters.of[Write].length_bytes = written_bytes
    return meters


def samples(families: list[Metric]) -> dict[tuple[str, str], float]:
    return {(s.name, str(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


@given(STATUSES, st.integers(0, 3), st.integers(0, 5), st.integers(0, 10**12), st.integers(0, 2**60))
def test_it_says_of_a_volume_what_the_controller_says(
    status: VolumeStatus, sessions: int, reads: int, read_ns: int, written_bytes: int
) -> None:
    meters = used_meters(reads, read_ns, written_bytes)
    figures = figures_of(volume_json(status, sessions), stats_of(status, meters))
    ours = samples([*openebs_families(figures, old=False)])
    assert ours == samples([*openebs_metrics(status, sessions, meters, old=False)])


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("volume", "name", 7),
        ("volume", "state", "broken"),
        ("volume", "size_bytes", -1),
        ("volume", "size_bytes", True),
        ("volume", "sessions", None),
        ("volume", "replicas", [{"mode": "RW", "used_bytes": None}]),
        ("volume", "replicas", [{"mode": "out"}]),
        ("volume", "replicas", {"mode": "out"}),
        ("stats", "ReadIOPS", "many"),
        ("stats", "UpTime", 1.5),
        ("stats", "TotalWriteTime", None),
    ],
)
def test_what_no_controller_of_ours_says_is_refused(where: str, key: str, value: object) -> None:
    volume, stats = volume_json(EXAMPLE), stats_of(EXAMPLE, Meters(lambda: 0))
    {"volume": volume, "stats": stats}[where][key] = value
    with pytest.raises(RemoteProtocolError):
        figures_of(volume, stats)


@given(JSON, JSON)
def test_any_json_is_refused_and_nothing_worse(volume: object, stats: object) -> None:
    with pytest.raises(RemoteProtocolError):
        figures_of(volume, stats)


def test_the_volumes_own_metrics_are_passed_on_as_they_are() -> None:
    text = text_of(EXAMPLE, 2) + "# TYPE pyjiva_build_info gauge\npyjiva_build_info 1\n"
    found = samples([*read_metrics(text)])
    assert found["pyjiva_volume_rebuild_copied_bytes_total", "[('replica', '2'), ('volume', 'demo')]"] == 70
    assert {name.rpartition("volume_")[0] for name, _ in found} == {"pyjiva_"}


@given(st.text(max_size=60) | st.text(alphabet='ab{}"=,# 1\n\\', max_size=30))
def test_any_text_is_metrics_or_refused(text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert all(family.name.startswith("pyjiva_volume_") for family in read_metrics(text))


def test_errors_are_counted_as_openebs_told_them_apart() -> None:
    tally = Tally()
    for outcome in (*Outcome, Outcome.TIMEOUT):
        tally.add(Scrape(outcome))
    assert tally.errors() == ScrapeErrors(connection=4, parse=1)
    assert tally.volume == ""
