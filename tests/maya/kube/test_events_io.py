"""`maya.kube.events_io`: Events get to the API server, and one that does not stops nobody."""

from structlog.testing import capture_logs
from trio.testing import MockClock

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.resource import CONFIG_MAPS, EVENTS
from pyjiva.testing.kube import FakeCluster, Moment, fail_at
from tests.suites.kube_cluster import config_map

NS = "default"


async def recorder_on(cluster: FakeCluster) -> tuple[Recorder, Object]:
    return Recorder(cluster, "maya", now=cluster.now), await cluster.create(CONFIG_MAPS, config_map(NS))


async def told(cluster: FakeCluster) -> list[tuple[str, int]]:
    return [(event["message"], event["count"]) for event in (await cluster.list(EVENTS)).items]


async def test_events_are_written_and_counted(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    recorder, value = await recorder_on(cluster)
    await recorder.event(value, "Normal", "Made", "it was made")
    await recorder.event(value, "Warning", "Lost", "it is lost")
    await recorder.event(value, "Normal", "Made", "it was made")
    assert await told(cluster) == [("it was made", 2), ("it is lost", 1)]


async def test_an_event_that_the_server_has_forgotten_is_written_anew(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    recorder, value = await recorder_on(cluster)
    await recorder.event(value, "Normal", "Made", "it was made")
    name = (await cluster.list(EVENTS)).items[0]["metadata"]["name"]
    await cluster.delete(EVENTS, NS, name)
    await recorder.event(value, "Normal", "Made", "it was made")
    assert await told(cluster) == [("it was made", 2)]


async def test_what_cannot_be_written_is_logged_and_begins_anew(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    recorder, value = await recorder_on(cluster)
    client = recorder.cluster = cluster.client()
    for moment, expected in ((Moment.BEFORE, [("m", 1)]), (Moment.AFTER, [("m", 1), ("m", 1)])):
        client.fault = fail_at(len(client.writes) + 1, moment)
        with capture_logs() as logs:
            await recorder.event(value, "Normal", "Made", "m")
        assert [(log["event"], log["error"]) for log in logs] == [
            ("an event could not be written", "the connection broke")
        ]
        assert logs[0]["about"] == {"kind": "ConfigMap", "object": "default/m", "event": "Made: m"}
        await recorder.event(value, "Normal", "Made", "m")
        assert await told(cluster) == expected
        recorder = Recorder(client, "maya", now=cluster.now)
