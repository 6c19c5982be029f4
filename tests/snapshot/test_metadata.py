"""`volume.meta` and `.meta` as Jiva and Longhorn write them; anything else is a ConfigError."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.snapshot import DiskMeta, VolumeMeta
from pyjiva.snapshot.metadata import layer_names

LONGHORN = (
    b'{"Size":1073741824,"Head":"volume-head-001.img","Dirty":true,"Rebuilding":false,"Error":"",'
    b'"Parent":"volume-snap-a.img","SectorSize":512,"BackingFilePath":"/b/img"}\n'
)
JIVA = (
    b'{"Size":5368709120,"Head":"volume-head-003.img","Dirty":true,"Rebuilding":true,'
    b'"Parent":"volume-snap-x.img","SectorSize":4096,"BackingFileName":"","CloneStatus":"NA",'
    b'"Checkpoint":"volume-snap-x.img","RevisionCounter":17,"UUID":"u-1"}\n'
)
DISK = (
    b'{"Name":"volume-snap-a.img","Parent":"volume-snap-0.img","Removed":false,"UserCreated":true,'
    b'"Created":"2026-01-02T03:04:05Z","Labels":{"RecurringJob":"daily"},"RevisionCounter":3}\n'
)


def test_fields_of_longhorn_are_read() -> None:
    meta = VolumeMeta.decode(LONGHORN)
    assert meta == VolumeMeta(
        size_bytes=1073741824, head="volume-head-001.img", dirty=True, parent="volume-snap-a.img",
        sector_size_bytes=512, backing_file_path="/b/img", other={"Error": ""},
    )  # fmt: skip


def test_fields_of_jiva_that_we_do_not_know_are_kept() -> None:
    meta = VolumeMeta.decode(JIVA)
    assert meta.rebuilding
    assert meta.other["RevisionCounter"] == 17
    assert json.loads(meta.encode()) == json.loads(JIVA) | {"BackingFilePath": ""}


def test_disk_meta_survives() -> None:
    meta = DiskMeta.decode("volume-snap-a.img", DISK)
    assert meta.user_created
    assert meta.labels == {"RecurringJob": "daily"}
    assert json.loads(meta.encode()) == json.loads(DISK)
    assert DiskMeta.decode("h.img", b'{"Name":"h.img","Labels":null}').labels is None


@given(st.binary() | st.just(b"[" * 100_000) | st.just(b"{}") | st.just(b"null"))
def test_any_bytes_give_a_config_error(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"volume\.meta is damaged"):
        VolumeMeta.decode(content)
    with pytest.raises(ConfigError, match=r"h\.img\.meta is damaged"):
        DiskMeta.decode("h.img", content)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(sorted(json.loads(LONGHORN))), _JSON)
def test_any_value_in_a_field_of_volume_meta_gives_a_record_or_a_config_error(name: str, value: Any) -> None:
    try:
        meta = VolumeMeta.decode(json.dumps(json.loads(LONGHORN) | {name: value}).encode())
    except ConfigError:
        return
    assert type(meta.size_bytes) is int and meta.size_bytes > 0
    assert "/" not in meta.head + meta.parent


@given(st.sampled_from(sorted(json.loads(DISK))), _JSON)
def test_any_value_in_a_field_of_a_disk_gives_a_record_or_a_config_error(name: str, value: Any) -> None:
    try:
        meta = DiskMeta.decode("volume-snap-a.img", json.dumps(json.loads(DISK) | {name: value}).encode())
    except ConfigError:
        return
    assert meta.name == "volume-snap-a.img"
    assert all(isinstance(label, str) for label in (meta.labels or {}).values())


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "x\0", "x" * 251])
def test_names_do_not_lead_out_of_the_directory(name: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        VolumeMeta.decode(json.dumps({"Size": 512, "Head": name}).encode())


def test_chain_goes_from_the_head_down() -> None:
    volume = VolumeMeta(size_bytes=512, head="h", parent="b")
    disks = {
        "h": DiskMeta(name="h", parent="b"),
        "b": DiskMeta(name="b", parent="a"),
        "a": DiskMeta(name="a"),
    }
    assert layer_names(volume, disks) == ("h", "b", "a")
    with pytest.raises(ConfigError, match=r"a\.meta is missing"):
        layer_names(volume, {name: disk for name, disk in disks.items() if name != "a"})
    with pytest.raises(ConfigError, match="circle at h"):
        layer_names(volume, disks | {"a": DiskMeta(name="a", parent="h")})
