"""What every kind of store does alike: a directory, an S3 server, the one in memory of other tests."""

import resource
import secrets
import signal
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup.directory_objects_sys import DirectoryObjects
from pyjiva.backup.objects import KEY_PATTERN, MissingError, Objects
from pyjiva.backup.s3_objects_sys import S3Objects
from pyjiva.errors import BackupError, ConfigError
from tests.backup.s3_server import S3Server
from tests.backup.worlds import MemoryObjects


@pytest.fixture(params=["directory", "memory", pytest.param("s3", marks=pytest.mark.real)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Objects]:
    """An empty store."""
    if request.param == "directory":
        yield DirectoryObjects(tmp_path / "store")
    elif request.param == "memory":
        yield MemoryObjects(clock=time.time)
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        with server.credentials():
            yield S3Objects.open(f"s3://{server.bucket}/{secrets.token_hex(4)}", server.url)


def keys(objects: Objects, prefix: str) -> list[str]:
    """Those in the list."""
    return sorted(listed.key for listed in objects.list(prefix))


def test_what_was_put_is_there(objects: Objects) -> None:
    for content in (b"one", b"", b"another one" * 100_000):
        objects.put("tables/x", content)
        assert objects.get("tables/x") == content


def test_what_was_not_put_is_missing(objects: Objects) -> None:
    for key in ("nothing", "tables/nothing"):
        with pytest.raises(MissingError, match=f"{key} is missing"):
            objects.get(key)
    assert keys(objects, "tables/") == []
    objects.delete("tables/nothing")


def test_put_new_leaves_what_is_there(objects: Objects) -> None:
    assert objects.put_new("a", b"first")
    assert not objects.put_new("a", b"second")
    assert objects.get("a") == b"first"


def test_of_several_that_put_new_at_once_one_wins(objects: Objects) -> None:
    with ThreadPoolExecutor(8) as threads:
        for n in range(10):
            won = list(
                threads.map(lambda name, n=n: objects.put_new(f"a/{n}", name), map(b"%d".__mod__, range(8)))
            )
            assert won.count(True) == 1
            assert objects.get(f"a/{n}") == b"%d" % won.index(True)


def test_a_list_has_exactly_what_is_there(objects: Objects) -> None:
    expected = {f"chunks/{n % 5:02}/{n}" for n in range(40)}
    for key in sorted(expected):
        objects.put(key, b"content")
    objects.put("chunk", b"")
    objects.put("other/x", b"")
    for key in ("chunks/00/0", "chunks/03/3"):
        objects.delete(key)
        expected.remove(key)
    assert set(keys(objects, "chunks/")) == expected
    assert keys(objects, "chunks/04/") == sorted(key for key in expected if key.startswith("chunks/04/"))
    listed = next(iter(objects.list("other/")))
    assert (listed.key, listed.size_bytes) == ("other/x", 0)
    assert abs(listed.modified_s - time.time()) < 300


def test_a_list_of_more_than_one_page_is_whole(objects: Objects) -> None:
    if isinstance(objects, DirectoryObjects):
        pytest.skip("a directory has no pages")
    for n in range(1005):
        objects.put(f"chunks/{n}", b"")
    assert len(keys(objects, "chunks/")) == 1005


@given(text=st.text())
def test_no_key_leads_out_of_the_store(text: str) -> None:
    if KEY_PATTERN.fullmatch(text):
        assert not text.startswith("/")
        assert not any(part.startswith(".") for part in text.split("/"))


def test_a_directory_keeps_no_half_of_an_object(tmp_path: Path) -> None:
    """A write that fails leaves the old object, and no file under a name that counts."""
    store = DirectoryObjects(tmp_path)
    store.put("a", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(BackupError, match="cannot put a"):
            store.put("a", b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.get("a") == b"old"
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["a"]
    assert keys(store, "") == ["a"]


def test_what_a_killed_process_left_is_no_object(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "1-0-a").write_bytes(b"half")
    assert keys(DirectoryObjects(tmp_path), "") == []


def test_a_directory_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackupError, match="cannot put tables/x: File exists"):
        DirectoryObjects(tmp_path / "file").put("tables/x", b"")


def test_objects_are_for_their_owner_alone(tmp_path: Path) -> None:
    DirectoryObjects(tmp_path).put("a", b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("address", ["s3://", "s3:///x", "s3://bucket/../x", "s3://bucket/a b"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="write s3://BUCKET"):
        S3Objects.open(address)


@pytest.mark.real
def test_an_s3_server_that_refuses_is_one_error(s3_server: S3Server) -> None:
    with s3_server.credentials():
        store = S3Objects.open("s3://no-such-bucket", s3_server.url)
        for ask in (lambda: store.put("a", b""), lambda: store.get("a"), lambda: list(store.list(""))):
            with pytest.raises(BackupError, match=r"s3://no-such-bucket: cannot .*NoSuchBucket"):
                ask()
    with s3_server.credentials(secret="wrong"):
        store = S3Objects.open(f"s3://{s3_server.bucket}", s3_server.url)
        with pytest.raises(BackupError, match="SignatureDoesNotMatch"):
            store.get("a")
