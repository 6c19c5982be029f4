"""The tables for people."""

from pathlib import Path

import attrs
import pytest

from bench.errors import BenchError
from bench.report import BLOCK_BEGIN, BLOCK_END, Heading, markdown, replace_block
from bench.summary import Sample, summarize
from bench.workload import SMOKE
from tests.bench.measured import TITLES, samples

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "explanation" / "performance.md"
HEADING = Heading({"kernel": "6.1"}, "abc123+", "2026-01-02 03:04 UTC", SMOKE, "0123456789abcdef")


def tables(*targets: str) -> str:
    """What is written of a bench of these targets; of all without an argument."""
    titles = {name: title for name, title in TITLES.items() if not targets or name in targets}
    cells = summarize([sample for sample in samples() if sample.target in titles], "tgtd", ["limit"])
    return markdown(cells, titles, HEADING, baseline="tgtd", limits=["limit"])


def cells_of(text: str, start: str) -> list[str]:
    """The cells of the first row after the first line with `start`, that begins with the random load."""
    section = text[text.index(start) :]
    line = next(line for line in section.splitlines() if line.startswith("| 4 KiB random read, QD 32 |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize(
    ("section", "cells"),
    [
        ("**Throughput**", ["21.0k (20.0k–22.0k)", "52.5k (50.0k–55.0k)", "10.5k (10.0k–11.0k)"]),
        ("**Ratio to tgtd**", ["2.50 (2.50–2.50)", "0.50 (0.50–0.50)"]),
        ("**Share of the limit**", ["40 (40–40)", "20 (20–20)"]),
        ("**Latency**", ["100 / 150 / 300 / 400"] * 3),
        (
            "**Processor time",
            ["tgtd 40, driver 12", "limit 4, driver 5", "controller 50, replica ×3 90, driver 13"],
        ),
    ],
)
def test_each_table_shows_each_target(section: str, cells: list[str]) -> None:
    text = tables()
    assert cells_of(text, section) == cells


def test_sequential_loads_are_shown_in_bytes() -> None:
    text = tables()
    assert "| 1 MiB sequential read, QD 8 | 991 (944–1038) | 2477 (2359–2595) | 495 (472–519) |" in text


def test_where_the_numbers_come_from_is_said() -> None:
    text = tables()
    for part in ("abc123+", "kernel 6.1", "2 rounds", "seed 20160901", "0123456789abcdef", "8MiB"):
        assert part in text
    assert (
        "busy for at most 25 % of one core, 80 % at the limit; targets that were not under load for 1 %. "
        "The machine's own host took at most 2 % of a run." in text
    )
    assert "| pyjiva, 3 replicas | replica ×3 120 |" in text
    assert "| the kernel alone | limit 3 |" in text


def test_without_the_baseline_there_are_no_ratios() -> None:
    text = tables("pyjiva-3")
    assert "Ratio" not in text
    assert "Share" not in text
    assert "10.5k (10.0k–11.0k)" in text


def test_the_limit_without_the_baseline_has_shares_alone() -> None:
    text = tables("limit", "pyjiva-3")
    assert "Ratio" not in text
    assert cells_of(text, "**Share of the limit**") == ["20 (20–20)"]


def test_each_limit_that_was_measured_has_a_table_of_shares() -> None:
    def one_more(sample: Sample) -> Sample:
        return attrs.evolve(sample, target="limit-each", iops=sample.iops / 2)

    every = [*samples(), *(one_more(sample) for sample in samples() if sample.target == "limit")]
    titles = {**TITLES, "limit-each": "the same, more calls"}
    limits = ["limit", "limit-each"]
    text = markdown(summarize(every, "tgtd", limits), titles, HEADING, baseline="tgtd", limits=limits)
    heading = "**Share of the limit** in percent: commands to those of "
    assert cells_of(text, f"{heading}the kernel alone") == ["40 (40–40)", "20 (20–20)", "50 (50–50)"]
    assert cells_of(text, f"{heading}the same, more calls") == ["80 (80–80)", "200 (200–200)", "40 (40–40)"]
    assert "80 % at the limit" in text


def test_the_block_is_replaced_and_the_rest_is_kept() -> None:
    text = f"before\n{BLOCK_BEGIN}\nold\n{BLOCK_END}\nafter\n"
    once = replace_block(text, "new\n")
    assert once == f"before\n{BLOCK_BEGIN}\n\nnew\n\n{BLOCK_END}\nafter\n"
    assert replace_block(once, "new\n") == once


@pytest.mark.parametrize(
    "text",
    ["", BLOCK_BEGIN, BLOCK_END, f"{BLOCK_END} {BLOCK_BEGIN}", f"{BLOCK_BEGIN}{BLOCK_END}" * 2],
)
def test_a_text_without_exactly_one_block_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="each once"):
        replace_block(text, "new")


def test_pictures_stand_above_the_tables() -> None:
    text = markdown(
        summarize(samples(), "tgtd", ["limit"]), TITLES, HEADING,
        baseline="tgtd", limits=["limit"], pictures={"page-speed.svg": "How fast"},
    )  # fmt: skip
    assert "\n\n![How fast](page-speed.svg)\n\n**Throughput**" in text


def test_the_page_has_room_for_the_tables() -> None:
    assert "new" in replace_block(PAGE.read_text(), "new")


def test_the_page_lists_the_hot_modules() -> None:
    source = ROOT / "src" / "pyjiva"
    hot = [path.relative_to(source) for path in source.rglob("*.py") if "# hot\n" in path.read_text()]
    listed = PAGE.read_text()
    assert [str(path) for path in hot if f"`{path}`" not in listed] == []
    assert len(hot) > 10
