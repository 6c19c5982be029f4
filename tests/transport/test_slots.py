"""Connections of strangers, counted by address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.transport.slots import Slots, neighbourhood


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "fd00:0:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is same


HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", ""])


@given(steps=st.lists(st.tuples(HOSTS, st.booleans()), max_size=40))
def test_slots_are_counted_as_a_list_would(steps: list[tuple[str, bool]]) -> None:
    slots, held = Slots(5, 3), list[str]()
    for host, takes in steps:
        if takes:
            near = [other for other in held if neighbourhood(other) == neighbourhood(host)]
            free = len(held) < 5 and len(near) < 3
            assert slots.take(host) is free
            held += [host] * free
        elif host in held:
            held.remove(host)
            slots.give_back(host)
    assert sum(slots._taken.values()) == len(held)
    assert all(slots._taken.values()), "an address that holds nothing is forgotten"
