"""`maya.kube.events`: one Event for what happens again, and none that the API would refuse."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.events import MESSAGE_BYTES_MAX, EventSeries, NewEvent, SameEvent, cut_message

NS_PER_S = 1_000_000_000


def thing(name: str = "v", namespace: str = "ns", uid: str = "u1") -> Object:
    metadata: Object = {"name": name, "uid": uid, "resourceVersion": "9"}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "openebs.io/v1", "kind": "JivaVolume", "metadata": metadata, "spec": {}}


def record(
    series: EventSeries, value: Object | None = None, at_s: int = 1, **options: Any
) -> NewEvent | SameEvent:
    said = {"type_": "Normal", "reason": "Ready", "message": "it is", **options}
    return series.record(value or thing(), now=f"t{at_s}", now_ns=at_s * NS_PER_S, **said)


def test_an_event_says_who_what_and_when() -> None:
    made = record(EventSeries("maya", "maya-0"))
    assert made == NewEvent(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"v.{NS_PER_S:x}", "namespace": "ns"},
            "involvedObject": {
                "apiVersion": "openebs.io/v1",
                "kind": "JivaVolume",
                "name": "v",
                "namespace": "ns",
                "uid": "u1",
                "resourceVersion": "9",
            },
            "type": "Normal",
            "reason": "Ready",
            "message": "it is",
            "source": {"component": "maya", "host": "maya-0"},
            "reportingComponent": "maya",
            "reportingInstance": "maya-0",
            "firstTimestamp": "t1",
            "lastTimestamp": "t1",
            "count": 1,
        }
    )


def test_what_happens_again_is_counted() -> None:
    series = EventSeries("maya")
    first = record(series)
    record(series, message="another")
    record(series, thing(uid="u2"))
    again = record(series, at_s=5)
    assert isinstance(first, NewEvent) and isinstance(again, SameEvent)
    assert again.change == {"count": 2, "lastTimestamp": "t5"}
    assert (again.namespace, again.name) == ("ns", first.value["metadata"]["name"])
    third = record(series, at_s=6)
    assert isinstance(third, SameEvent)
    assert third.value == first.value | {"count": 3, "lastTimestamp": "t6"}
    series.forget(third.value)
    assert isinstance(record(series, at_s=7), NewEvent)


def test_names_are_unique_and_short_enough() -> None:
    series = EventSeries("maya")
    made = [record(series, thing("a" * 253), message=str(number)) for number in range(3)]
    names = [event.value["metadata"]["name"] for event in made]
    assert len(set(names)) == 3
    assert all(len(name) == 253 for name in names)


def test_events_of_what_has_no_namespace_stand_in_default() -> None:
    made = record(EventSeries("maya"), thing(namespace=""))
    assert made.value["metadata"]["namespace"] == "default"
    assert "namespace" not in made.value["involvedObject"]


def test_memory_is_bounded_and_keeps_what_happens_often() -> None:
    series = EventSeries("maya", remembered_max=2)
    record(series, message="often")
    record(series, message="once")
    assert isinstance(record(series, message="often"), SameEvent)
    record(series, message="new")
    assert isinstance(record(series, message="often"), SameEvent)
    assert isinstance(record(series, message="once"), NewEvent)


@given(message=st.text(max_size=2000))
def test_messages_are_cut_between_characters(message: str) -> None:
    cut = cut_message(message)
    assert len(cut.encode()) <= MESSAGE_BYTES_MAX
    if len(message.encode()) <= MESSAGE_BYTES_MAX:
        assert cut == message
    else:
        assert cut.endswith("…") and message.startswith(cut[:-1])
        assert len(cut.encode()) > MESSAGE_BYTES_MAX - 8
