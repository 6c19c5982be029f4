"""`vote`: which votes there are."""

from typing import Any

import pytest

from pyjiva.membership import MembershipRecord
from pyjiva.vote import Vote

RECORD = MembershipRecord(3, 1, "a", (1, 2, 3), (1, 2), clean=False, witnesses=(3,))


def test_a_vote_begins_without_a_promise() -> None:
    assert Vote() == Vote(0, "", None, 0)
    assert Vote(3, "a", RECORD, 7).record is RECORD


@pytest.mark.parametrize(
    "fields",
    [
        {"promised_epoch": -1},
        {"promised_epoch": True, "promised_to": "a"},
        {"promised_epoch": 3},
        {"promised_to": "a"},
        {"promised_epoch": 3, "promised_to": 3},
        {"promised_epoch": 2, "promised_to": "a", "record": RECORD},
        {"writes": -1},
        {"writes": 1.5},
    ],
)
def test_an_impossible_vote_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"promise|count"):
        Vote(**fields)
