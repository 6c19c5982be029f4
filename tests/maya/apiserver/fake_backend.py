"""Volumes that are nothing but records, and a client of the API over them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import attrs
import httpx
import structlog.testing
import trio
from starlette.applications import Starlette

from pyjiva.maya.apiserver import (
    AlreadyExists,
    CasPhase,
    NewVolume,
    NotFound,
    PoolView,
    Refused,
    ReplicaView,
    SnapshotView,
    Unavailable,
    VolumeName,
    VolumeView,
)
from pyjiva.maya.apiserver.api_document import maya_document
from pyjiva.maya.apiserver.backend import Backend, MetricFamilies, difference
from pyjiva.maya.apiserver.routes_io import maya_application
from pyjiva.maya.policy import Origin, VolumePolicy, read_policies
from tests.controller.served_api import Asked, check_answer

__all__ = ["FakeBackend", "MayaApi", "serving"]

FAMILIES: MetricFamilies = [
    {"name": "openebs_reads", "help": "reads", "type": 1, "metric": [{"gauge": {"value": 3.0}}]}
]


@attrs.define(eq=False)
class FakeBackend:
    """What `Backend` says, at once."""

    volumes: dict[str, VolumeView] = attrs.field(factory=dict)
    kept: dict[tuple[str, str], SnapshotView] = attrs.field(factory=dict)
    unhealthy: str = ""
    creations: int = 0

    async def create(self, wanted: NewVolume) -> VolumeView:
        await self._check()
        origin = Origin("the request", wanted.name, wanted.annotations)
        policy = read_policies(origin, None, defaults=VolumePolicy()).policy
        if wanted.source is not None:
            await self.get_snapshot(VolumeName(wanted.source.volume), wanted.source.snapshot)
        if (there := self.volumes.get(wanted.name)) is not None:
            if differs := difference(there, wanted, policy):
                raise AlreadyExists(f"volume {wanted.name} is there, and is another one: {differs}")
            return there
        self.creations += 1
        made = VolumeView(
            wanted.name,
            wanted.namespace or "openebs",
            f"{self.creations:032x}",
            wanted.capacity_bytes,
            f"iqn.2016-09.com.openebs.jiva:{wanted.name}",
            policy,
            portals=("127.0.0.1:3260",),
            storage_class=wanted.storage_class,
            claim=wanted.claim,
            labels=wanted.labels,
            source=wanted.source,
            phase=CasPhase.AVAILABLE,
            controller_runs=True,
            replicas=tuple(
                ReplicaView(n, f"127.0.0.1:{9500 + n}", "here", "in-sync")
                for n in range(1, policy.replica_count + 1)
            ),
        )
        self.volumes[made.name] = made
        return made

    async def get(self, volume: VolumeName) -> VolumeView:
        await self._check()
        found = self.volumes.get(volume.name)
        if found is None or volume.namespace not in ("", found.namespace):
            raise NotFound("volume", f"there is no volume {volume}")
        return found

    async def list(self, namespace: str = "") -> Sequence[VolumeView]:
        await self._check()
        return [each for _, each in sorted(self.volumes.items()) if namespace in ("", each.namespace)]

    async def delete(self, volume: VolumeName) -> None:
        del self.volumes[(await self.get(volume)).name]
        self.kept = {key: each for key, each in self.kept.items() if key[0] != volume.name}

    async def expand(self, volume: VolumeName, capacity_bytes: int) -> VolumeView:
        found = await self.get(volume)
        if capacity_bytes < found.capacity_bytes:
            raise Refused("volumes do not shrink")
        self.volumes[found.name] = attrs.evolve(found, capacity_bytes=capacity_bytes)
        return self.volumes[found.name]

    async def stats(self, volume: VolumeName) -> MetricFamilies:
        await self.get(volume)
        return FAMILIES

    async def create_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        found = await self.get(volume)
        made = SnapshotView(
            snapshot, found.name, found.namespace, "2026-01-01T00:00:00Z", found.capacity_bytes, True
        )
        return self.kept.setdefault((found.name, snapshot), made)

    async def snapshots(self, volume: VolumeName | None, namespace: str = "") -> Sequence[SnapshotView]:
        found = [await self.get(volume)] if volume else await self.list(namespace)
        names = {each.name for each in found}
        return [each for each in self.kept.values() if each.volume in names]

    async def get_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        found = await self.get(volume)
        if (found.name, snapshot) not in self.kept:
            raise NotFound("snapshot", f"volume {volume} has no snapshot {snapshot!r}")
        return self.kept[found.name, snapshot]

    async def delete_snapshot(self, volume: VolumeName, snapshot: str) -> None:
        await self.get_snapshot(volume, snapshot)
        del self.kept[volume.name, snapshot]

    async def pools(self) -> Sequence[PoolView]:
        await self._check()
        return [PoolView("default", "/var/openebs", size_bytes=100, free_bytes=50)]

    async def why_unhealthy(self) -> str:
        return self.unhealthy

    async def _check(self) -> None:
        await trio.lowlevel.checkpoint()  # others are asked for meanwhile
        if self.unhealthy:
            raise Unavailable(self.unhealthy)


@attrs.define(eq=False)
class MayaApi:
    """The API of one backend, asked without a socket."""

    backend: FakeBackend
    app: Starlette
    client: httpx.AsyncClient
    logged: list[Any]
    document: dict[str, Any] = attrs.field(factory=lambda: maya_document("0"))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        content: bytes | None = None,
        **places: str,
    ) -> httpx.Response:
        """The answer, which is as the document says and comes in time."""
        target = path.format(**{name: quote(text, safe="") for name, text in places.items()})
        with trio.fail_after(30):
            answer = await self.client.request(
                method, target, params=list(query), headers=dict(headers or {}), json=body, content=content
            )
        for each in self.logged:
            if "exc_info" in each:
                raise AssertionError(f"{method} {target}: a bug") from each["exc_info"]
        check_answer(self.document, Asked(method, path, places, tuple(query)), answer)
        return answer


@asynccontextmanager
async def _captured_logs() -> AsyncIterator[list[Any]]:
    with structlog.testing.capture_logs() as logged:
        yield logged


@asynccontextmanager
async def serving() -> AsyncIterator[MayaApi]:
    """Without a volume."""
    fake = FakeBackend()
    backend: Backend = fake
    app = maya_application(backend)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        _captured_logs() as logged,
        httpx.AsyncClient(transport=transport, base_url="http://m") as client,
    ):
        yield MayaApi(fake, app, client, logged)
