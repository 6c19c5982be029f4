"""Volumes without Kubernetes: each is a `pyjiva up` of its own on this machine.

What is wanted is in records (`local_store_sys`), and nothing else is needed to go on: a backend that is
opened starts every volume that has one, and finishes what was being deleted.  So it may be killed at any
moment.
"""

import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from pyjiva.errors import ConfigError, StorageError
from pyjiva.maya.apiserver.backend import (
    AlreadyExists,
    BackendError,
    MetricFamilies,
    NewVolume,
    NotFound,
    PoolView,
    Refused,
    SnapshotView,
    Unavailable,
    VolumeName,
    VolumeView,
    difference,
)
from pyjiva.maya.apiserver.local_process_io import Launch, VolumeProcess, launch_up
from pyjiva.maya.apiserver.local_record import LOOPBACK, LocalRecord, LocalState, check_policy, up_arguments
from pyjiva.maya.apiserver.local_store_sys import DEFAULT_POOL_FOLDER, LocalStore
from pyjiva.maya.apiserver.local_view import view_of
from pyjiva.maya.apiserver.volume_client_io import VolumeClient, snapshot_path
from pyjiva.maya.policy.marks import Origin
from pyjiva.maya.policy.policies import DEFAULT_POOL, read_policies
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.transport.bearer import Token

__all__ = ["LocalBackend", "LocalOptions", "open_local_backend"]

TEND_S: Final = 2.0  # how often a volume that is being filled is looked at
TRIM_S: Final = 60.0
ORIGIN: Final = "origin"
"""The snapshot that a clone has while it is filled: the volume's own."""

_log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class LocalOptions:
    """How the volumes of a machine are made."""

    data: Path
    families_of: Callable[[Any, Any], MetricFamilies]
    """The exporter's: from what `/v1/volume` and `/v1/stats` answer."""
    defaults: VolumePolicy = attrs.field(factory=VolumePolicy)
    pools: Mapping[str, str] = attrs.field(factory=dict)
    namespace: str = "openebs"
    """Of volumes that are asked for without one."""
    portal_host: str = LOOPBACK
    """Where portals listen."""
    node: str = ""
    """The machine's name."""
    launch: Launch = launch_up


@attrs.define(eq=False)
class _Volume:
    """One that is wanted, or on its way out."""

    record: LocalRecord
    process: VolumeProcess
    client: VolumeClient
    news: trio.Event = attrs.field(factory=trio.Event)
    """Its process has become ready."""
    saving: trio.Lock = attrs.field(factory=trio.Lock)
    snapshots: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while one is made, let go, or looked at for a clone.  Taken before `_changing`."""


@contextlib.asynccontextmanager
async def open_local_backend(options: LocalOptions) -> AsyncIterator["LocalBackend"]:
    """The backend over a folder; at the end all volumes stop cleanly.

    Raises ConfigError: it cannot be that folder, or another process has it.
    """
    async with contextlib.AsyncExitStack() as last:
        store = await trio.to_thread.run_sync(LocalStore, options.data)
        last.callback(store.close)
        async with trio.open_nursery() as nursery:
            backend = LocalBackend(options, store, nursery)
            last.push_async_callback(backend.close)  # after all tasks: one just woken asks first
            try:
                await backend.begin()
                yield backend
            finally:
                nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class LocalBackend:
    """See Backend."""

    options: LocalOptions
    _store: LocalStore
    _nursery: trio.Nursery
    _volumes: dict[str, _Volume] = attrs.field(factory=dict, init=False)
    _damaged: dict[str, str] = attrs.field(factory=dict, init=False)
    _changing: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """Held while it is decided which volumes there are."""

    async def begin(self) -> None:
        """Go on where the one before ended."""
        records, self._damaged = await self._do(self._store.records)
        for name, why in self._damaged.items():
            _log.error("a volume is left alone", volume=name, reason=why)
        await self._do(self._store.remove_other_secrets, {*(each.name for each in records), *self._damaged})
        for record in records:
            self._take_up(record, await self._do(self._store.make_secrets, record.name))
        self._nursery.start_soon(self._trim_logs)

    async def close(self) -> None:
        """Let connections to volumes go."""
        with trio.CancelScope(shield=True):
            for each in self._volumes.values():
                await each.client.aclose()

    @property
    def pool_paths(self) -> Mapping[str, str]:
        """Name to path."""
        return {DEFAULT_POOL: str(self._store.data / DEFAULT_POOL_FOLDER), **self.options.pools}

    @property
    def defaults(self) -> VolumePolicy:
        """Of policies."""
        return attrs.evolve(self.options.defaults, pool_path=self.pool_paths[DEFAULT_POOL])

    # The verbs

    async def create(self, wanted: NewVolume) -> VolumeView:
        """See Backend."""
        title = f"volume {wanted.name}"
        origin = Origin(title, wanted.claim or wanted.name, wanted.annotations, wanted.labels)
        decided = read_policies(origin, None, defaults=self.defaults, pools=self.pool_paths)
        check_policy(decided.policy, self.defaults, self.pool_paths, title)
        async with self._source_of(wanted) as source, self._changing:
            if (there := self._volumes.get(wanted.name)) is not None:
                return await self._same(there, wanted, decided.policy)
            if wanted.name in self._damaged:
                raise Refused(f"volume {wanted.name}: {self._damaged[wanted.name]}")
            port = await self._check_source(wanted, source)
            volume = self._take_up(*await self._do(self._make_record, wanted, decided.policy, port))
        for note in decided.notes:
            _log.info("a volume's policy is seldom meant", volume=wanted.name, note=note)
        return await self._view(volume)

    async def get(self, volume: VolumeName) -> VolumeView:
        """See Backend."""
        return await self._view(self._find(volume))

    async def list(self, namespace: str = "") -> Sequence[VolumeView]:
        """See Backend."""
        chosen = [each for _, each in sorted(self._volumes.items())]
        chosen = [each for each in chosen if namespace in ("", each.record.namespace)]
        found: dict[str, VolumeView] = {}

        async def look(volume: _Volume) -> None:
            found[volume.record.name] = await self._view(volume)

        async with trio.open_nursery() as nursery:
            for each in chosen:
                nursery.start_soon(look, each)
        return [found[each.record.name] for each in chosen]

    async def delete(self, volume: VolumeName) -> None:
        """See Backend."""
        async with self._changing:
            found = self._find(volume)
            if found.record.state is LocalState.DELETING:
                return
            self._check_unneeded(found.record.name)
            await self._save(found, state=LocalState.DELETING)
        self._nursery.start_soon(self._finish, found)

    async def expand(self, volume: VolumeName, capacity_bytes: int) -> VolumeView:
        """See Backend."""
        found = self._find_wanted(volume)
        there = int((await found.client.look("/v1/volume"))["size_bytes"])
        if capacity_bytes < there:
            raise Refused(f"volume {volume} has {there} bytes: volumes do not become smaller")
        if capacity_bytes > there:
            await found.client.change("POST", "/v1/size", size=str(capacity_bytes))
        await self._save(found, capacity_bytes=max(capacity_bytes, found.record.capacity_bytes))
        return await self._view(found)

    async def stats(self, volume: VolumeName) -> MetricFamilies:
        """See Backend."""
        client = self._find_wanted(volume).client
        return self.options.families_of(await client.look("/v1/volume"), await client.look("/v1/stats"))

    async def create_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """See Backend."""
        found = self._find_wanted(volume)
        async with found.snapshots:
            if all(each.name != snapshot for each in await self._snapshots_of(found)):
                await found.client.change("POST", snapshot_path(snapshot))
        return await self.get_snapshot(volume, snapshot)

    async def snapshots(self, volume: VolumeName | None, namespace: str = "") -> Sequence[SnapshotView]:
        """See Backend."""
        if volume is not None:
            return await self._snapshots_of(self._find_wanted(volume))
        return [
            snapshot
            for _, each in sorted(self._volumes.items())
            if namespace in ("", each.record.namespace) and each.record.state is LocalState.WANTED
            for snapshot in await self._snapshots_of(each)
        ]

    async def get_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """See Backend."""
        for each in await self._snapshots_of(self._find_wanted(volume)):
            if each.name == snapshot:
                return each
        raise NotFound("snapshot", f"volume {volume} has no snapshot {snapshot!r}")

    async def delete_snapshot(self, volume: VolumeName, snapshot: str) -> None:
        """See Backend."""
        found = self._find_wanted(volume)
        async with found.snapshots:
            self._check_unneeded(found.record.name, snapshot)
            await found.client.change("DELETE", snapshot_path(snapshot))

    async def pools(self) -> Sequence[PoolView]:
        """See Backend."""
        found: Sequence[PoolView] = await self._do(self._store.pools, self.pool_paths, self.options.node)
        return found

    async def why_unhealthy(self) -> str:
        """See Backend: what is wrong with one volume does not keep it from the others."""
        return ""

    # Deciding which volumes there are; `_changing` is held

    async def _same(self, there: _Volume, wanted: NewVolume, policy: VolumePolicy) -> VolumeView:
        if there.record.state is LocalState.DELETING:
            raise Unavailable(f"a volume {wanted.name} is being deleted: ask again when it is gone")
        view = await self._view(there)
        if differs := difference(view, wanted, policy):
            raise AlreadyExists(f"volume {wanted.name} is there, and is another one: {differs}")
        return view

    @contextlib.asynccontextmanager
    async def _source_of(self, wanted: NewVolume) -> AsyncIterator[_Volume | None]:
        """The volume that it is to be a clone of, whose snapshots stay meanwhile."""
        source = None if wanted.source is None else self._volumes.get(wanted.source.volume)
        if source is None:
            yield None
        else:
            async with source.snapshots:
                yield source

    async def _check_source(self, wanted: NewVolume, source: _Volume | None) -> int:
        """The port of its API.  Raises NotFound, Refused, Unavailable: a clone cannot be made of it."""
        if wanted.source is None:
            return 0
        if source is None or source.record.state is not LocalState.WANTED:
            raise NotFound("volume", f"there is no volume {wanted.source.volume} to make a clone of")
        snapshot = await self.get_snapshot(VolumeName(wanted.source.volume), wanted.source.snapshot)
        if wanted.capacity_bytes < snapshot.size_bytes:
            has = f"snapshot {snapshot.name} of {snapshot.volume} has {snapshot.size_bytes} bytes"
            raise Refused(f"{has}: a clone of {wanted.capacity_bytes} is too small")
        return source.record.api_port

    def _make_record(
        self, wanted: NewVolume, policy: VolumePolicy, source_port: int
    ) -> tuple[LocalRecord, Token]:
        self._store.check_free(policy.pool_path, wanted.name)
        records = [each.record for each in self._volumes.values()]
        taken = {port for record in records for port in (record.portal_port, record.api_port)}
        portal_port, api_port = self._store.free_ports(self.options.portal_host, taken)
        record = LocalRecord(
            name=wanted.name,
            namespace=wanted.namespace or self.options.namespace,
            uid=secrets.token_hex(16),
            created_bytes=wanted.capacity_bytes,
            capacity_bytes=wanted.capacity_bytes,
            policy=policy,
            portal_port=portal_port,
            api_port=api_port,
            storage_class=wanted.storage_class,
            claim=wanted.claim,
            labels=wanted.labels,
            source=wanted.source,
            source_port=source_port,
        )
        token = self._store.make_secrets(wanted.name)
        self._store.save(record)
        return record, token

    def _check_unneeded(self, volume: str, snapshot: str = "") -> None:
        """Raises Refused: a clone is not complete without it."""
        for each in self._volumes.values():
            if each.record.needs_source(volume, snapshot):
                what = f"snapshot {snapshot} of {volume}" if snapshot else f"volume {volume}"
                raise Refused(f"{what}: {each.record.name} is being filled from it; wait for that")

    # The life of a volume

    def _take_up(self, record: LocalRecord, token: Token) -> _Volume:
        """Start what there is to do for it.  Waits for nothing: what has a record is looked after."""
        volume: _Volume

        def arguments() -> Sequence[str]:
            return up_arguments(volume.record, self._store.files(volume.record), self.options.portal_host)

        process = VolumeProcess(
            record.name,
            self.options.launch,
            arguments,
            self._store.log_path(record.name),
            lambda: self._store.last_words(record.name),
            lambda: volume.news.set(),
        )
        url = f"http://{LOOPBACK}:{record.api_port}"
        volume = _Volume(record, process, VolumeClient(record.name, url, token))
        self._volumes[record.name] = volume
        if record.state is LocalState.DELETING:
            self._nursery.start_soon(self._finish, volume)
        else:
            process.start(self._nursery)
            self._nursery.start_soon(self._tend, volume)
        return volume

    async def _tend(self, volume: _Volume) -> None:
        """Note down what the volume has become, until that cannot change any more by itself."""
        while volume.record.state is LocalState.WANTED:
            await volume.news.wait()
            volume.news = trio.Event()
            try:
                status = await volume.client.look("/v1/volume")
                record = volume.record
                # Not known (null) until its controller has looked.
                filled = record.filled or record.source is None or status["filled"] == 1.0
                await self._save(volume, filled=filled, capacity_bytes=int(status["size_bytes"]))
                if filled:
                    continue
            except (BackendError, KeyError, TypeError, ValueError) as error:
                _log.info("a volume's status is not known", volume=volume.record.name, reason=str(error))
            await trio.sleep(TEND_S)
            if volume.process.view().ready:
                volume.news.set()

    async def _finish(self, volume: _Volume) -> None:
        """Take away what is left of one that is deleted; tried until it is done."""
        record = volume.record
        await volume.process.stop()
        while True:
            try:
                if record.policy.retain_replica_data:
                    kept = await self._do(self._store.retain_data, record)
                    _log.info("a deleted volume's data is kept", volume=record.name, path=str(kept))
                else:
                    await self._do(self._store.remove_data, record)
                await self._do(self._store.forget, record.name)
                break
            except Unavailable as error:
                _log.error("a volume cannot be deleted yet", volume=record.name, reason=str(error))
                await trio.sleep(TEND_S)
        del self._volumes[record.name]
        await volume.client.aclose()
        _log.info("a volume is gone", volume=record.name)

    async def _trim_logs(self) -> None:
        while True:
            for name in list(self._volumes):
                await self._do(self._store.trim_log, name)
            await trio.sleep(TRIM_S)

    # What they have in common

    def _find(self, volume: VolumeName) -> _Volume:
        found = self._volumes.get(volume.name)
        if found is None and volume.name in self._damaged:
            raise Refused(f"volume {volume.name}: {self._damaged[volume.name]}")
        if found is None or volume.namespace not in ("", found.record.namespace):
            raise NotFound("volume", f"there is no volume {volume}")
        return found

    def _find_wanted(self, volume: VolumeName) -> _Volume:
        found = self._find(volume)
        if found.record.state is not LocalState.WANTED:
            raise NotFound("volume", f"volume {volume} is being deleted")
        return found

    async def _view(self, volume: _Volume) -> VolumeView:
        status = None
        if volume.record.state is LocalState.WANTED and volume.process.view().ready:
            with contextlib.suppress(BackendError):  # the view says that it does not answer
                status = await volume.client.look("/v1/volume")
        where = {"host": self.options.portal_host, "node": self.options.node}
        record, process = volume.record, volume.process.view()
        try:
            return view_of(record, process, status, **where)
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("a volume's status is not understood", volume=record.name, reason=repr(error))
            return view_of(record, process, None, **where)

    async def _snapshots_of(self, volume: _Volume) -> tuple[SnapshotView, ...]:
        """Those that somebody asked for."""
        body = await volume.client.look("/v1/snapshots")
        try:
            size_bytes = int(body["size_bytes"])
            return tuple(
                SnapshotView(
                    str(each["name"]),
                    volume.record.name,
                    volume.record.namespace,
                    str(each["created"]),
                    size_bytes,
                    ready=True,
                )
                for each in body["snapshots"]
                if each["user_created"] or each["name"] != ORIGIN
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"volume {volume.record.name}: its snapshots are not understood") from error

    async def _save(self, volume: _Volume, **changes: Any) -> None:
        """Nothing is changed on one that is on its way out: its record may be gone already."""
        async with volume.saving:
            record = attrs.evolve(volume.record, **changes)
            if record != volume.record and volume.record.state is LocalState.WANTED:
                await self._do(self._store.save, record)
                volume.record = record

    @staticmethod
    async def _do(step: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread.  Raises Unavailable: the disk does not do it."""
        try:
            return await trio.to_thread.run_sync(functools.partial(step, *arguments))
        except (StorageError, ConfigError, OSError) as error:
            raise Unavailable(str(error)) from error
