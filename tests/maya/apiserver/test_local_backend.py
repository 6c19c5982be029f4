"""`maya.apiserver.local_backend_io`: volumes of one machine, over pretended processes and real files."""

import contextlib
import itertools
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from bench.process_sys import FIRST_PORT
from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver import (
    AlreadyExists,
    CasPhase,
    CloneSource,
    NewVolume,
    NotFound,
    Refused,
    Unavailable,
    VolumeName,
    VolumeView,
    local_store_sys,
)
from pyjiva.maya.apiserver import local_backend_io as module
from pyjiva.maya.apiserver.local_backend_io import LocalBackend, LocalOptions, open_local_backend
from pyjiva.maya.apiserver.local_record import LocalRecord, LocalState
from pyjiva.maya.apiserver.local_store_sys import LocalStore
from pyjiva.maya.policy import PoliciesRefused, VolumePolicy
from tests.maya.apiserver.pretended_volume import Machine

MIB = 1 << 20
A = VolumeName("a")


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at again is so at once."""
    monkeypatch.setattr(module, "TEND_S", 0.02)


@pytest.fixture(autouse=True)
def own_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record's ports are free while nothing of its volume runs: another test's Maya could take them.

    So each worker has its own, between those that Maya gives and those that the bench takes.
    """
    first = 11_000 + 100 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10)
    assert first >= local_store_sys.API_PORTS.stop
    assert first + 100 <= FIRST_PORT
    monkeypatch.setattr(local_store_sys, "PORTAL_PORTS", range(first, first + 50))
    monkeypatch.setattr(local_store_sys, "API_PORTS", range(first + 50, first + 100))


def options(tmp_path: Path, machine: Machine, **more: Any) -> LocalOptions:
    pools = {"fast": str(tmp_path / "fast")}
    (tmp_path / "fast").mkdir(exist_ok=True)
    return LocalOptions(
        data=tmp_path / "maya",
        families_of=lambda volume, stats: [{"name": volume["name"], "of": stats["Name"]}],
        pools=pools,
        node="here",
        launch=machine.launch,
        **more,
    )


@contextlib.asynccontextmanager
async def backend_of(tmp_path: Path, machine: Machine, **more: Any) -> AsyncIterator[LocalBackend]:
    with trio.fail_after(60):
        async with open_local_backend(options(tmp_path, machine, **more)) as backend:
            yield backend


def asked(
    name: str = "a", size: int = 64 * MIB, source: CloneSource | None = None, **policies: str
) -> NewVolume:
    entries = [
        {"name": policy, ("enabled" if text in ("true", "false", "volume") else "value"): text}
        for policy, text in policies.items()
    ]
    return NewVolume(
        name, "", size, annotations={"cas.openebs.io/config": json.dumps(entries)}, source=source
    )


async def until(condition: Callable[[], Any]) -> None:
    """Wait until it is so."""
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.005)


async def available(backend: LocalBackend, name: str = "a") -> VolumeView:
    with trio.fail_after(30):
        while (view := await backend.get(VolumeName(name))).phase is not CasPhase.AVAILABLE:
            await trio.sleep(0.005)
    return view


async def gone(backend: LocalBackend, name: str = "a") -> None:
    await until(lambda: all(each.record.name != name for each in backend._volumes.values()))


async def test_a_volume_is_made_and_runs(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        made = await backend.create(asked(ReplicaCount="2", Witness="true", BlockSize="4096", ParkLimit="5m"))
        assert (made.name, made.namespace, made.capacity_bytes) == ("a", "openebs", 64 * MIB)
        assert made.iqn == "iqn.2016-09.com.openebs.jiva:a"
        view = await available(backend)
        assert view.portals == made.portals
        assert [(each.id, each.mode, each.node) for each in view.replicas] == [
            (1, "in-sync", "here"),
            (2, "out", "here"),
        ]
        arguments = machine.running["a"]
        given = dict(itertools.pairwise(arguments))
        assert (given["--replicas"], given["--block-size"], given["--park-limit"]) == ("2", "4096", "300")
        assert given["--portal"] == view.portals[0]
        assert {"--witness", "--stop-with-stdin", "--chap-file"} <= set(arguments)
        check_secrets(given, arguments)
        assert await backend.stats(A) == [{"name": "a", "of": "a"}]
        assert [each.name for each in await backend.list()] == ["a"]
        assert await backend.list("other") == []
        with pytest.raises(NotFound):
            await backend.get(VolumeName("a", "other"))
    assert machine.running == {}


def check_secrets(given: dict[str, str], arguments: list[str]) -> None:
    """In files for their owner alone, and on no command line."""
    name, secret = Path(given["--chap-file"]).read_text().split()
    assert (name, len(secret)) == ("a", 32)
    for option in ("--chap-file", "--api-token-file"):
        assert stat.S_IMODE(Path(given[option]).stat().st_mode) == 0o600
        assert Path(given[option]).read_text().strip() not in " ".join(arguments)


async def test_what_is_asked_for_again_is_there(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        first = await backend.create(asked())
        again = await backend.create(asked())
        assert again.volume_id == first.volume_id
        with pytest.raises(AlreadyExists, match="capacity: it has 64Mi, asked for was 128Mi"):
            await backend.create(asked(size=128 * MIB))
        with pytest.raises(AlreadyExists, match="policy replica_count: it has 3, asked for was 2"):
            await backend.create(asked(ReplicaCount="2"))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(backend.create, asked("b"))
        assert machine.started.count("b") == 1


async def test_no_two_volumes_share_a_port(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        for name in ("a", "b", "c"):
            await backend.create(asked(name))
        records = [each.record for each in backend._volumes.values()]
        assert len({port for each in records for port in (each.portal_port, each.api_port)}) == 6


async def test_volumes_that_have_news_at_the_end_are_not_asked_any_more(
    tmp_path: Path, machine: Machine
) -> None:
    async with backend_of(tmp_path, machine) as backend:
        for name in ("a", "b", "c"):
            await backend.create(asked(name))
        await available(backend)
        for volume in backend._volumes.values():
            volume.news.set()


@pytest.mark.parametrize(
    ("policies", "name"),
    [
        ({"Witness": "volume"}, "Witness"),
        ({"TargetNodeSelector": "a: b"}, "TargetNodeSelector"),
        ({"ReplicaTolerations": "t1: {key: a}"}, "ReplicaTolerations"),
        ({"ReplicaImage": "a/b:1"}, "ReplicaImage"),
        ({"VolumeMonitor": "false"}, "VolumeMonitor"),
        ({"ReplicaResourceLimits": "cpu: 1"}, "ReplicaResourceRequests, ReplicaResourceLimits"),
        ({"ReplaceAfter": "1h"}, "ReplaceAfter"),
    ],
)
async def test_what_means_nothing_here_is_refused_by_name(
    tmp_path: Path, machine: Machine, policies: dict[str, str], name: str
) -> None:
    async with backend_of(tmp_path, machine) as backend:
        with pytest.raises(PoliciesRefused) as info:
            await backend.create(asked("a", 64 * MIB, None, **policies))
        (fault,) = info.value.faults
        assert (fault.source, fault.policy) == ("volume a", name)
        assert "without Kubernetes" in fault.expected
    assert not machine.started


async def test_what_is_as_by_default_may_be_said(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked(VolumeMonitor="true", TargetNodeSelector="none", ReplaceAfter="300"))


async def test_pools_are_those_that_maya_was_started_with(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked(StoragePool="fast"))
        await available(backend)
        assert (tmp_path / "fast" / "a").is_dir()
        with pytest.raises(PoliciesRefused, match=r"StoragePool: found '/etc'.*default, fast"):
            await backend.create(asked("b", StoragePool="/etc"))
        pools = await backend.pools()
        assert [(each.name, each.path) for each in pools] == [
            ("default", str(tmp_path / "maya" / "volumes")),
            ("fast", str(tmp_path / "fast")),
        ]
        assert all(each.size_bytes and each.free_bytes is not None for each in pools)


async def test_data_that_is_nobodys_is_not_taken(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "maya" / "volumes" / "a").mkdir(parents=True)
    async with backend_of(tmp_path, machine) as backend:
        with pytest.raises(Refused, match="is there already, and of no volume that Maya knows"):
            await backend.create(asked())
        with pytest.raises(NotFound):
            await backend.get(A)


async def test_a_process_that_dies_is_started_again(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        view = await available(backend)
        machine.crashes["a"].set()
        await until(lambda: machine.started.count("a") == 2)
        assert (await available(backend)).portals == view.portals


async def test_one_that_cannot_start_says_why(tmp_path: Path, machine: Machine) -> None:
    machine.broken["a"] = 2
    async with backend_of(tmp_path, machine) as backend:
        made = await backend.create(asked())
        assert (made.phase, made.reason) == (CasPhase.PENDING, "Starting")
        with trio.fail_after(30):
            while (view := await backend.get(A)).phase is not CasPhase.FAILED:
                await trio.sleep(0.01)
        assert view.reason == "CannotStart"
        assert view.message.endswith("exit code 2: cannot listen on 127.0.0.1:3260: in use")
        with pytest.raises(Unavailable, match="volume a does not answer"):
            await backend.stats(A)
        del machine.broken["a"]
        await available(backend)


async def test_how_a_volume_is(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await available(backend)
        machine.state = "degraded"
        view = await backend.get(A)
        assert (view.phase, view.reason, view.message) == (
            *(CasPhase.AVAILABLE, "Degraded"),
            "replica 1 is away",
        )
        machine.state = "parked"
        view = await backend.get(A)
        assert (view.phase, view.reason, view.controller_runs) == (CasPhase.PENDING, "Parked", True)


async def test_growing(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await available(backend)
        assert (await backend.expand(A, 128 * MIB)).capacity_bytes == 128 * MIB
        assert (await backend.expand(A, 128 * MIB)).capacity_bytes == 128 * MIB
        with pytest.raises(Refused, match="do not become smaller"):
            await backend.expand(A, 64 * MIB)
    async with backend_of(tmp_path, machine) as backend:
        assert (await backend.get(A)).capacity_bytes == 128 * MIB
        await available(backend)
        arguments = machine.running["a"]
        assert arguments[arguments.index("--size") + 1] == str(64 * MIB)


async def test_snapshots_and_clones(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await available(backend)
        made = await backend.create_snapshot(A, "s")
        assert (made.ready, made.size_bytes, made.volume) == (True, 64 * MIB, "a")
        assert await backend.create_snapshot(A, "s") == made
        assert await backend.snapshots(A) == (made,)
        assert await backend.snapshots(None) == [made]
        with pytest.raises(NotFound, match="no snapshot 'none'"):
            await backend.get_snapshot(A, "none")
        with pytest.raises(NotFound, match="no snapshot 'none'"):
            await backend.create(asked("b", source=CloneSource("a", "none")))
        with pytest.raises(NotFound, match="there is no volume x"):
            await backend.create(asked("b", source=CloneSource("x", "s")))
        with pytest.raises(Refused, match="too small"):
            await backend.create(asked("b", size=MIB, source=CloneSource("a", "s")))
        clone = asked("b", size=128 * MIB, source=CloneSource("a", "s"))
        await backend.create(clone)
        await available(backend, "b")
        arguments = machine.running["b"]
        source = arguments[arguments.index("--fill-from") + 1]
        assert source == f"http://127.0.0.1:{backend._volumes['a'].record.api_port}/v1/snapshots/s"
        for refused in (backend.delete_snapshot(A, "s"), backend.delete(A)):
            with pytest.raises(Refused, match="b is being filled from it"):
                await refused
        machine.contents[tmp_path / "maya/volumes/b"].filled = None  # begun anew, and not looked yet
        await trio.sleep(2 * module.TEND_S)
        assert not backend._volumes["b"].record.filled
        machine.contents[tmp_path / "maya/volumes/b"].filled = 1.0
        await until(lambda: backend._volumes["b"].record.filled)
        machine.contents[tmp_path / "maya/volumes/b"].filled = None  # begun anew: it stays filled
        backend._volumes["b"].news.set()
        await trio.sleep(2 * module.TEND_S)
        assert backend._volumes["b"].record.filled
        await backend.delete_snapshot(A, "s")
        with pytest.raises(NotFound):
            await backend.delete_snapshot(A, "s")
        await backend.delete(A)
        await gone(backend)
        assert (await backend.create(clone)).name == "b"


@pytest.mark.parametrize("retain", ["true", "false"])
async def test_deleting(tmp_path: Path, machine: Machine, retain: str) -> None:
    async with backend_of(tmp_path, machine) as backend:
        made = await backend.create(asked(RetainReplicaData=retain))
        await available(backend)
        await backend.delete(A)
        assert [(each.phase, each.reason) for each in await backend.list()] in (
            [(CasPhase.PENDING, "Deleting")],
            [],
        )
        await gone(backend)
        assert machine.running == {}
        with pytest.raises(NotFound):
            await backend.delete(A)
        again = await backend.create(asked(RetainReplicaData=retain))
        assert again.volume_id != made.volume_id
        await available(backend)
    pool = tmp_path / "maya" / "volumes"
    kept = pool / f"retained.{made.volume_id}"
    assert sorted(each.name for each in pool.iterdir()) == (["a", kept.name] if retain == "true" else ["a"])
    assert (kept / "a" / "replica-1" / "data").exists() == (retain == "true")


async def test_what_is_noted_down_late_brings_no_volume_back(tmp_path: Path, machine: Machine) -> None:
    """A look at the volume was under way when it was deleted."""
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await available(backend)
        volume = backend._volumes["a"]
        await backend.delete(A)
        await backend._save(volume, filled=True)
        assert volume.record.state is LocalState.DELETING
        await gone(backend)
        await backend._save(volume, filled=False)
        check_nothing_is_left(tmp_path / "maya", retain=False)


async def test_volumes_come_back_with_their_ports_and_secrets(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await available(backend)
        before = machine.running["a"]
    async with backend_of(tmp_path, machine) as backend:
        await available(backend)
        assert machine.running["a"] == before


async def test_a_damaged_record_harms_no_other_volume(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine) as backend:
        await backend.create(asked())
        await backend.create(asked("b"))
    record = tmp_path / "maya" / "records" / "a.json"
    record.write_text("{")
    async with backend_of(tmp_path, machine) as backend:
        await available(backend, "b")
        with pytest.raises(Refused, match="damaged; put a good copy back"):
            await backend.get(A)
        with pytest.raises(Refused, match="damaged; put a good copy back"):
            await backend.create(asked())
    assert (tmp_path / "maya" / "secrets" / "a.chap").exists()


async def test_a_folder_has_one_backend(tmp_path: Path, machine: Machine) -> None:
    async with backend_of(tmp_path, machine):
        with pytest.raises(ConfigError, match="another process has it open"):
            await trio.to_thread.run_sync(LocalStore, tmp_path / "maya")


def test_a_long_log_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    try:
        with store.log_path("a").open("ab") as log:
            log.write(b"pyjiva: first\n" * 400_000)
            log.flush()
            store.trim_log("a")
            log.write(b"pyjiva: new\n")
        assert store.log_path("a").read_bytes() == b"pyjiva: new\n"
        assert store.last_words("a") == "new"
        assert store.log_path("a").with_suffix(".log.1").stat().st_size > 4 << 20
    finally:
        store.close()


# --- killed at every step


class Killed(BaseException):
    """The process ends here."""


def dying_store(after: int) -> type[LocalStore]:
    """One whose process is killed before its step number `after`, and does nothing from then on."""

    @attrs.define(eq=False)
    class Dying(LocalStore):
        steps: int = attrs.field(default=0, init=False)

        def _step(self) -> None:
            self.steps += 1
            if self.steps > after:
                raise Killed

        def _replace(self, *arguments: Any) -> None:
            self._step()
            super()._replace(*arguments)

        def _remove(self, *arguments: Any) -> None:
            self._step()
            super()._remove(*arguments)

        def _rename(self, *arguments: Any) -> None:
            self._step()
            super()._rename(*arguments)

        def _remove_tree(self, path: Path) -> None:
            """It may also be killed in the middle of it."""
            self._step()
            for inner in path.rglob("data"):
                inner.unlink()
            self._step()
            super()._remove_tree(path)

    return Dying


async def live(tmp_path: Path, machine: Machine, *, retain: str) -> bool:
    """Make a volume and delete it; whether it was killed before the end."""
    done = False
    try:
        async with backend_of(tmp_path, machine) as backend:
            await backend.create(asked(RetainReplicaData=retain))
            await available(backend)
            await backend.delete(A)
            await gone(backend)
            done = True
    except* Killed:
        done = False
    return not done


@pytest.mark.parametrize("retain", ["true", "false"])
async def test_killed_at_any_step_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retain: str
) -> None:
    """After each death there is the volume, or nothing of it; and what was asked for can be asked again."""
    for after in range(100):
        place, machine = tmp_path / str(after), Machine()
        place.mkdir()
        monkeypatch.setattr(module, "LocalStore", dying_store(after))
        killed = await live(place, machine, retain=retain)
        monkeypatch.setattr(module, "LocalStore", LocalStore)
        assert machine.running == {}
        async with backend_of(place, machine) as backend:
            found = backend._volumes.get("a")
            if found is not None and found.record.state is LocalState.WANTED:
                await available(backend)
                assert killed
            else:
                await gone(backend)
                check_nothing_is_left(place / "maya", retain=retain == "true")
            await backend.create(asked(RetainReplicaData=retain))
            await available(backend)
            await backend.delete(A)
            await gone(backend)
        check_nothing_is_left(place / "maya", retain=retain == "true")
        if not killed:
            assert after > 5
            return
    raise AssertionError("it never came to its end")


def check_nothing_is_left(data: Path, *, retain: bool) -> None:
    """Neither records nor secrets nor logs; data only where it was to be kept."""
    for folder in ("records", "secrets", "logs"):
        assert list((data / folder).iterdir()) == []
    left = [each.name for each in (data / "volumes").iterdir()]
    assert all(retain and name.startswith("retained.") for name in left), left


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"format": 2}', b"\xff"])
def test_a_record_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError):
        LocalRecord.from_json(text)


def test_a_record_is_read_as_it_was_written() -> None:
    record = LocalRecord(
        name="a", namespace="n", uid="0" * 32, created_bytes=4096, capacity_bytes=8192,
        policy=VolumePolicy(witness=True), portal_port=1, api_port=2, labels={"a": "b"},
        source=CloneSource("x", "y"), source_port=3, state=LocalState.DELETING, filled=True,
    )  # fmt: skip
    assert LocalRecord.from_json(record.to_json()) == record
    for field in ("portal_port", "capacity_bytes"):
        damaged = json.loads(record.to_json()) | {field: "1"}
        with pytest.raises(ConfigError):
            LocalRecord.from_json(json.dumps(damaged).encode())
