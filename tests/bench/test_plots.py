"""The pictures: what they show, and that the same numbers give the same bytes."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import attrs
import pytest

from bench.errors import BenchError
from bench.plots import Plot, draw
from bench.summary import summarize
from bench.targets_sys import TARGETS
from tests.bench.measured import TITLES, samples

ROOT = Path(__file__).parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def plots(*targets: str, faster: float = 1.0) -> dict[str, Plot]:
    """The plots of a bench of these targets, by name; pyjiva-3 is `faster` than in `measured`."""
    pytest.importorskip("matplotlib")
    titles = {name: TITLES[name] for name in targets}
    chosen = [
        attrs.evolve(sample, iops=sample.iops * (faster if sample.target == "pyjiva-3" else 1.0))
        for sample in samples()
        if sample.target in titles
    ]
    drawn = draw(summarize(chosen, "tgtd", ["limit"]), titles, baseline="tgtd", limits=["limit"])
    return {plot.name: plot for plot in drawn}


def words(plot: Plot) -> set[str]:
    """Every text of a picture."""
    return {(element.text or "").strip() for element in ET.fromstring(plot.svg).iter(f"{SVG}text")}


def test_each_picture_names_its_targets_loads_and_axes() -> None:
    drawn = plots("tgtd", "limit", "pyjiva-3")
    assert list(drawn) == ["throughput", "latency"]
    assert {*TITLES.values(), "µs"} <= words(drawn["latency"])
    assert {"tgtd", "pyjiva, 3 replicas", "ratio to tgtd", "% of the kernel alone"} <= words(
        drawn["throughput"]
    )
    for plot in drawn.values():
        assert {"4 KiB random", "read, QD 32", "1 MiB", "sequential", "read, QD 8"} <= words(plot)


@pytest.mark.parametrize(
    ("targets", "there", "absent"),
    [
        (["tgtd", "pyjiva-3"], "ratio to tgtd", "% of the kernel alone"),
        (["limit", "pyjiva-3"], "% of the kernel alone", "ratio to tgtd"),
    ],
)
def test_what_was_not_measured_is_not_compared_with(targets: list[str], there: str, absent: str) -> None:
    found = words(plots(*targets)["throughput"])
    assert there in found
    assert absent not in found


def test_one_target_alone_has_latencies_alone() -> None:
    assert list(plots("pyjiva-3")) == ["latency"]


def test_other_numbers_make_another_picture() -> None:
    every = ("tgtd", "limit", "pyjiva-3")
    slow, fast = plots(*every), plots(*every, faster=1.1)
    assert slow["throughput"].svg != fast["throughput"].svg
    assert slow["latency"].svg == fast["latency"].svg


def test_the_same_numbers_make_the_same_bytes_in_every_process() -> None:
    drawn = plots("tgtd", "limit", "pyjiva-3")
    assert plots("tgtd", "limit", "pyjiva-3") == drawn
    program = (
        "from tests.bench.test_plots import plots\n"
        "print(*(plot.svg for plot in plots('tgtd', 'limit', 'pyjiva-3').values()), sep='', end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "".join(plot.svg for plot in drawn.values())
    assert "<dc:date>" not in done.stdout


def test_every_target_has_its_colour() -> None:
    pytest.importorskip("matplotlib")
    every = [attrs.evolve(sample, target=name) for sample in samples() for name in TARGETS]
    titles = {name: kind.title for name, kind in TARGETS.items()}
    for plot in draw(summarize(every, "tgtd", ["limit"]), titles, baseline="tgtd", limits=["limit"]):
        assert "pyjiva, 1 replica" in words(plot)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"matplotlib is missing: pip install 'pyjiva\[bench\]'"):
        draw(summarize(samples(), "tgtd", ["limit"]), TITLES, baseline="tgtd", limits=["limit"])
