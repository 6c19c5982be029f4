"""The bench of other ways to read runs, and each way is measured in each round."""

import json

from click.testing import CliRunner

from bench.ways import SMOKE, main


def test_the_smoke_run_measures_everything() -> None:
    result = CliRunner().invoke(main, ["--smoke"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    warm = figures["from the page cache"]
    assert list(warm) == ["copied", "mapped", "sendfile"]
    cold = figures["from the disk, MB/s, by the read-ahead that is set"]
    assert len(cold) == 1, "what the machine is set to is left alone"
    (ways,) = cold.values()
    assert list(ways) == [
        f"{name}, {depth} outstanding" for depth in SMOKE.depths for name in ("the kernel's", "asked for")
    ]
    for each in (*ways.values(), *(part for way in warm.values() for part in way.values())):
        assert len(each["all"]) == SMOKE.rounds
        assert each["median"] > 0
