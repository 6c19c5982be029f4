"""Failures at stated moments do no harm; that each can is seen by the bugs that are planted for them."""

import pytest

from tests.sim.campaign import SCENARIO_SECONDS_MAX, play_world
from tests.sim.planted_bugs import PLANTED_BUGS
from tests.sim.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_hold(name: str) -> None:
    _, failure = play_world(SCENARIOS[name].world(), SCENARIO_SECONDS_MAX)
    if failure is not None:
        raise failure


def test_planted_bugs_name_scenarios_that_are_there() -> None:
    assert {bug.scenario for bug in PLANTED_BUGS.values()} - {""} <= set(SCENARIOS)
