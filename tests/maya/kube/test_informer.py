"""`maya.kube.informer`: the cache knows what was listed and watched, and which keys a new list changes."""

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.kube import Listing, Object, WatchEvent, WatchKind
from pyjiva.maya.kube.informer import Key, ObjectCache, key_of

OBJECTS = st.dictionaries(
    st.tuples(st.sampled_from(["", "ns"]), st.sampled_from("abc")),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),  # uid, version
)


def thing(key: Key, uid: int, version: int) -> Object:
    metadata: Object = {"name": key[1], "uid": f"u{uid}", "resourceVersion": str(version)}
    if key[0]:
        metadata["namespace"] = key[0]
    return {"metadata": metadata}


def listing(objects: dict[Key, tuple[int, int]]) -> Listing:
    return Listing(tuple(thing(key, *state) for key, state in objects.items()), "99")


@given(before=OBJECTS, after=OBJECTS)
def test_a_new_list_tells_exactly_what_differs(
    before: dict[Key, tuple[int, int]], after: dict[Key, tuple[int, int]]
) -> None:
    cache = ObjectCache()
    assert cache.replace(listing(before)) == tuple(sorted(before))
    expected = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    assert cache.replace(listing(after)) == tuple(expected)
    assert {key_of(value) for value in cache} == set(after)
    assert cache.version == "99"


def test_events_change_what_is_known() -> None:
    cache = ObjectCache()
    cache.replace(listing({("ns", "a"): (1, 1)}))
    assert cache.apply(WatchEvent(WatchKind.ADDED, thing(("ns", "b"), 2, 5))) == ("ns", "b")
    assert cache.apply(WatchEvent(WatchKind.MODIFIED, thing(("ns", "a"), 1, 6))) == ("ns", "a")
    assert cache.get(("ns", "a")) == thing(("ns", "a"), 1, 6)
    assert cache.apply(WatchEvent(WatchKind.DELETED, thing(("ns", "b"), 2, 7))) == ("ns", "b")
    assert cache.get(("ns", "b")) is None
    assert cache.version == "7"
    assert cache.apply(WatchEvent(WatchKind.BOOKMARK, {"metadata": {"resourceVersion": "12"}})) is None
    assert cache.version == "12"
    assert cache.all_keys() == [("ns", "a")]


def test_the_deletion_of_what_is_not_known_is_told() -> None:
    """It may have come and gone between a list and its watch."""
    cache = ObjectCache()
    assert cache.apply(WatchEvent(WatchKind.DELETED, thing(("", "x"), 1, 3))) == ("", "x")
