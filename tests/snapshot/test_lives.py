"""Whatever requests, snapshots, merges and threads do at once, an end loses nothing that it must not lose."""

from random import Random

import pytest
import trio

from tests.snapshot.lives import Lives, fine_steps, live

LIVES = 4
REQUESTS = 600


@pytest.mark.patches
@pytest.mark.parametrize("name", ["anna", "berta", "clara", "dora", "emma", "frida"])
def test_each_life_finds_what_the_one_before_has_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fine_steps(monkeypatch, Random(name))
    lives = Lives(name)
    for _ in range(LIVES):
        trio.run(live, lives, lives.random.randrange(REQUESTS))
