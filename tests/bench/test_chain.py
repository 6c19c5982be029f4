"""The bench of layers runs, and its figures are those of the store that it asks."""

import json

from click.testing import CliRunner

from bench.chain import main


def test_the_smoke_run_measures_everything() -> None:
    result = CliRunner().invoke(main, ["--smoke"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert set(figures["depth"]) == {"1", "3"}
    assert all(depth["read_us"] > 0 for depth in figures["depth"].values())
    assert figures["depth"]["1"]["index_bytes"] == 0, "one layer needs no table"
    assert all(figures["writes"][f"{kind}_us"] > 0 for kind in ("no snapshot", "first", "again"))
    (index,) = figures["index"].values()
    assert 0 < index["index_mib_per_tib"] < 64
    assert figures["merge"]["copied_mib_s"] > 0
