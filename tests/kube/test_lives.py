"""Provisioner and reconciler are killed at every step of a claim's life, with a real API server.

The steps are the requests of an undisturbed life that change what others go by.  Each is died at twice:
before the server has seen it, and after it has carried it out while the answer is not read.  Between two of
them nothing differs for who comes next, however many reads and Events there are.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from pyjiva.maya.kube import Access, load_access
from pyjiva.maya.kube import Cluster as KubeCluster
from pyjiva.maya.kube import open_cluster as open_kube
from pyjiva.maya.kube.resource import NAMESPACES
from pyjiva.maya.manifest.crd import custom_resource_definitions
from pyjiva.testing.kube import Moment
from tests.kube.api import Api
from tests.kube.cluster import Cluster, cluster_or_skip
from tests.kube.lives import Call, Death, FormedVolumes, Life, Seen, left, open_seen
from tests.kube.many_claims import Kubelets

pytestmark = pytest.mark.real

NODES: Final = ("m0", "m1", "m2")
LIVES_AT_ONCE: Final = 16
LIFE_S: Final = 180.0  # seconds are enough for a machine that does nothing else


def deaths(calls: Sequence[Call]) -> list[Death]:
    """All that half a life can bring."""
    steps = [call.step for call in calls if call.matters]
    numbered = [(step, steps[: number + 1].count(step)) for number, step in enumerate(steps)]
    return [Death(step, nth, moment) for step, nth in numbered for moment in Moment]


@attrs.define
class Lives:
    """Those of one test."""

    access: Access
    cluster: KubeCluster
    seen: Seen
    lives: list[Life] = attrs.field(factory=list)
    dying: list[tuple[int, Death]] = attrs.field(factory=list)
    """In which half of a life who died where."""

    async def live(self, first: Death | None, second: Death | None) -> None:
        """One life, in a namespace of its own and with a client of its own."""
        name = f"life-{len(self.lives)}"
        async with open_kube(self.access) as cluster:
            life = Life(cluster, self.seen, FormedVolumes(self.seen), name)
            self.lives.append(life)
            await cluster.create(NAMESPACES, {"metadata": {"name": name}})
            with trio.move_on_after(LIFE_S) as scope:
                await life.live(first, second)
        if scope.cancelled_caught:
            asked = "\n".join(map(str, life.calls))
            raise AssertionError(
                f"{name} of {first}, {second}: not within {LIFE_S} s: died {life.died}, "
                f"there is {self.seen.within(name)}, since then asked:\n{asked}"
            )
        self.dying += [(1 if death is first else 2, death) for death in life.died]

    async def live_all(self) -> None:
        """An undisturbed one, then one for each way to die."""
        limit = trio.CapacityLimiter(LIVES_AT_ONCE)

        async def one(*deaths: Death | None) -> None:
            async with limit:
                await self.live(*deaths)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, None, None)
            await self.seen.until(lambda: self.lives and self.lives[0].is_over())
            first, second = deaths(self.lives[0].provisioned or ()), deaths(self.lives[0].calls)
            goes = [
                attrs.evolve(each, claim_goes=True)
                for each in first
                if (each.nth, each.moment) == (1, Moment.AFTER)
            ]
            for pair in (*zip_longest(first, second), *((each, None) for each in goes)):
                nursery.start_soon(one, *pair)

    async def left(self) -> list[str]:
        """What there is now of all that were lived."""
        return [f"{life.name}: {what}" for life in self.lives for what in await left(self.cluster, life.name)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One of its own: its nodes say of themselves that they run pods."""
    with cluster_or_skip(tmp_path) as cluster:
        cluster.apply(*custom_resource_definitions())
        for definition in custom_resource_definitions():
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{definition['metadata']['name']}")
        yield cluster


def test_provisioner_and_reconciler_may_die_at_any_call_of_a_life(cluster: Cluster) -> None:
    """One PersistentVolume and one volume come of the claim, and nothing is left when it is deleted."""

    async def work() -> tuple[Lives, list[str]]:
        access = load_access(str(cluster.kubeconfig))
        async with open_kube(access) as kube, Api(cluster.access) as api, open_seen(kube) as seen:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Kubelets(kube, api, list(NODES), namespace="").run)
                lives = Lives(access, kube, seen)
                await lives.live_all()
                nursery.cancel_scope.cancel()
            return lives, await lives.left()

    began = time.monotonic()
    with capture_logs() as logs:
        lives, there = cluster.in_namespace(work)
    print(f"{len(lives.lives)} lives, {len(lives.dying)} deaths, {time.monotonic() - began:.0f} s")
    assert there == []
    bugs: list[Any] = [entry["exc_info"] for entry in logs if "exc_info" in entry]
    assert not bugs, bugs
    whole = lives.lives[0]
    for half, calls in enumerate((whole.provisioned or (), whole.calls), 1):
        died_at = {(death.step, death.moment) for which, death in lives.dying if which == half}
        assert {(death.step, death.moment) for death in deaths(calls)} == died_at
