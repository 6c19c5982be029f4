"""The bench of folios runs, and measures each kind of file."""

import json

from click.testing import CliRunner

from bench.folios import main


def test_the_smoke_run_measures_everything() -> None:
    result = CliRunner().invoke(main, ["--smoke"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)["cpu_us"]
    assert list(figures) == ["written by 4KiB", "written by 1MiB", "read back"]
    for file in figures.values():
        assert set(file) == {"write_4k", "write_1m", "write_1m_cut", "read_1m"}
        assert all(cost > 0 for cost in file.values())
