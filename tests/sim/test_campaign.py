"""What `make sim` does: the worlds of its seeds, and the bugs that it plants."""

import shutil
from pathlib import Path

import pytest
import trio

from pyjiva.snapshot import Merge, Merger
from pyjiva.snapshot.chain import HEAD
from tests.sim import campaign
from tests.sim.campaign import ROOT, SNAPSHOT_STRIDE, find, hold, play, world_of, world_with_snapshots
from tests.sim.planted_bugs import PLANTED_BUGS


@pytest.mark.parametrize("name", PLANTED_BUGS)
def test_every_bug_can_still_be_planted(name: str, tmp_path: Path) -> None:
    """The table follows the code: a bug that cannot be planted would never be missed."""
    shutil.copytree(ROOT / "src" / "pyjiva", tmp_path / "pyjiva")
    path = tmp_path / "pyjiva" / PLANTED_BUGS[name].module
    before = path.read_text()
    PLANTED_BUGS[name].plant(tmp_path / "pyjiva")
    assert path.read_text() != before
    compile(path.read_text(), path, "exec")


def test_a_planted_bug_is_found() -> None:
    assert find(PLANTED_BUGS["promise-not-durable"], 0, 1).startswith("scenario ")


def test_there_are_worlds_of_every_kind() -> None:
    kinds = [world_of(seed) for seed in range(20)]
    assert {world.replicas for world in kinds} == {1, 2, 3, 5}
    assert sum(world.faults.rots > 0 for world in kinds) == 2


def test_worlds_of_stated_seeds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert hold(range(20, 30), 10, here=True) == 0
    output = capsys.readouterr().out
    assert "10 worlds of 10 s with faults, seeds 20 to 29" in output
    assert "acknowledged" in output


def test_the_only_copy_that_lost_its_power_of_seed_1831() -> None:
    """It came back without what it had not flushed; the others were brought only what they had missed."""
    _, failure = play(1831, 12, windows=False)
    assert failure is None


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (4, "a disk that refused to sync is no better than lost power"),
        (117, "the copy that stays is to be rebuilt from the one that is removed"),
        (
            1462,
            "a write with too few copies to be answered, and with none when it was",
        ),
        (1943, "an answer to a write that was settled without it"),
        (2573, "all that was whole taken out for one whose machine lost its power: the disks were full"),
        (2659, "nobody was told that it took part: the disks were full when the volume was born"),
        (7339, "the last copy lost when a replica had got the snapshots, and the volume's next"),
        (8050, "the copy that was to be left had been heard a moment before it lost its power behind a cut"),
        (8278, "a disk failed when a snapshot was made: its process did not know whether it was"),
        (3167, "a set of one copy was proposed, and not committed, when a write with one copy was answered"),
        (3588, "as 2573, of five replicas, whose disks refused to sync"),
        (9945, "the copy that was to be left lost its power before it stored that another one is removed"),
        (1559, "zeros over two blocks: that the second had rotted before it was copied was not looked at"),
        (9640, "a write that failed broke a store for good, and nobody started that process anew"),
    ],
)
def test_what_other_worlds_found(seed: int, what: str) -> None:
    _, failure = play(seed, 12, windows=False)
    assert failure is None, what


@pytest.mark.parametrize("seed", [1299, 2429, 2669, 3749])
def test_rot_on_a_disk_beside_others_that_fail_to_sync(seed: int) -> None:
    """Where all failed, that one too, nothing told the rot from what was not flushed (seed 1389 once)."""
    world, failure = play(seed, 12, windows=False)
    assert failure is None
    assert world.counts["rot"]
    others = [i for i in world.ids if i != world.rotting]
    assert any(f"disk error {others} sync" in line for line in world.trace)


@pytest.mark.parametrize("seed", [81, 29, 42, 55, 68])
def test_worlds_with_snapshots_hold(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind; what was found in others has its tests in `test_changes.py` and `test_lineage.py`."""
    monkeypatch.setattr(campaign, "world_of", lambda seed, **_: world_with_snapshots(seed))
    world, failure = play(seed, 15)
    assert failure is None
    assert world.counts["snapshots answered"] > 2


@pytest.mark.parametrize("seed", [61, 91, 109, 116, 163])
def test_worlds_hold_whose_deleted_snapshots_take_writes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hosts wrote more than is merged, from the first step of each merge with a head, and for long."""
    reopened: list[str] = []
    begin, give_way = Merge.__attrs_post_init__, Merger._give_way

    def begin_reopened(merge: Merge) -> None:
        begin(merge)
        if merge.child == HEAD and not merge.layers.chain.layer(merge.name).unsettled:
            reopened.append(merge.name)
            merge.reopen()

    async def give_way_for_long(merger: Merger) -> None:
        if merger.merge is not None and merger.merge.is_reopened:
            await trio.sleep(1.0)
        await give_way(merger)

    monkeypatch.setattr(Merge, "__attrs_post_init__", begin_reopened)
    monkeypatch.setattr(Merger, "_give_way", give_way_for_long)
    monkeypatch.setattr(campaign, "world_of", lambda seed, **_: world_with_snapshots(seed))
    _, failure = play(seed, 15)
    assert failure is None
    assert reopened


def test_some_worlds_have_snapshots() -> None:
    kinds = [world for seed in range(5 * SNAPSHOT_STRIDE) if (world := world_of(seed)).faults.snapshots]
    assert {(world.replicas, world.witnesses, world.spares) for world in kinds} == {
        (1, 0, 0),
        (2, 1, 0),
        (3, 0, 0),
        (3, 0, 2),
    }


def test_one_seed_gives_one_world() -> None:
    (first, _), (second, _) = play(33, 5), play(33, 5)
    assert first.trace == second.trace
    assert first.counts["acknowledged"] > 10
