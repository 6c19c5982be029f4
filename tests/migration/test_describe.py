"""What `describe` says of directories: whole ones, every kind of damage, and anything at all."""

import json
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.migration import MARKER, DirectoryFacts, ForeignReplica, Hinders, describe, look
from pyjiva.migration.describe import parse_revision_counter
from pyjiva.snapshot.chain import HEAD
from pyjiva.testing.foreign_directory import SECTOR_BYTES, FixtureVolume
from tests.migration.volumes import BRANCHED, SIZE_BYTES, VOLUMES, disk_with

HEAD_FILE: Final = BRANCHED.head_file


def facts_of(volume: FixtureVolume) -> DirectoryFacts:
    return look(disk_with(volume).open_directory())


def kinds(replica: ForeignReplica) -> set[Hinders]:
    return {finding.hinders for finding in replica.findings}


def with_meta(facts: DirectoryFacts, name: str, **fields: Any) -> DirectoryFacts:
    """With other fields in a `.meta`; ... takes one away."""
    meta = json.loads(facts.contents[name]) | fields
    content = json.dumps({key: value for key, value in meta.items() if value is not ...}).encode()
    return attrs.evolve(facts, contents={**facts.contents, name: content})


def without(facts: DirectoryFacts, *names: str) -> DirectoryFacts:
    return attrs.evolve(
        facts,
        names=facts.names - set(names),
        sizes={name: size for name, size in facts.sizes.items() if name not in names},
        allocated={name: size for name, size in facts.allocated.items() if name not in names},
        contents={name: content for name, content in facts.contents.items() if name not in names},
    )


def with_files(facts: DirectoryFacts, **sizes: int) -> DirectoryFacts:
    """With more files; "__" in a name stands for "-", "_dot_" for "."."""
    named = {name.replace("__", "-").replace("_dot_", "."): size for name, size in sizes.items()}
    images = {name: size for name, size in named.items() if name.endswith(".img")}
    return attrs.evolve(
        facts,
        names=facts.names | set(named),
        sizes={**facts.sizes, **dict.fromkeys(images, SIZE_BYTES)},
        allocated={**facts.allocated, **images},
    )


def with_content(facts: DirectoryFacts, name: str, content: bytes) -> DirectoryFacts:
    return attrs.evolve(facts, names=facts.names | {name}, contents={**facts.contents, name: content})


def test_a_whole_directory() -> None:
    replica = describe(facts_of(BRANCHED))
    assert replica.system == "Longhorn"
    assert replica.can_be_upgraded(accept_dirty=False)
    assert replica.layers[-1].name == HEAD
    assert {layer.name: layer.parent for layer in replica.layers} == {
        "a": "", "b": "a", "c": "b", "left": "a", HEAD: "c",
    }  # fmt: skip
    assert {layer.name for layer in replica.layers if not layer.is_live} == {"left"}
    assert [layer.name for layer in replica.path("c")] == ["a", "b", "c"]
    assert {layer.name: layer.allocated_bytes // SECTOR_BYTES for layer in replica.layers} == {
        "a": 3, "b": 2, "c": 2, "left": 2, HEAD: 2,
    }  # fmt: skip
    assert [finding.text for finding in replica.findings] == [
        "volume-snap-a.img has 32KiB: the volume was grown after it; what is beyond counts as not written"
    ]
    assert replica.leftovers == ()


def test_jiva_s_own_fields() -> None:
    replica = describe(facts_of(attrs.evolve(BRANCHED, is_jiva=True, revision_counter=4711)))
    assert (replica.system, replica.revision_counter) == ("Jiva", 4711)
    assert replica.can_be_upgraded(accept_dirty=False)


@pytest.mark.parametrize("is_jiva", [False, True])
def test_a_backing_file_is_named_and_becomes_the_lowest_layer(is_jiva: bool) -> None:
    replica = describe(facts_of(attrs.evolve(BRANCHED, backing=b"x" * 512, is_jiva=is_jiva)))
    assert replica.backing_file == "/images/base.raw"
    chain = replica.chain(backing=True)
    assert chain.path(HEAD) == ("backing-file", "a", "b", "c", HEAD)
    assert chain.layer("backing-file").labels == {"backing-file": "/images/base.raw"}
    assert replica.chain(backing=False).path(HEAD) == ("a", "b", "c", HEAD)


def test_the_backing_file_s_name_may_be_a_snapshot_s_if_there_is_none() -> None:
    renamed = {"a": "backing-file"}
    layers = tuple(
        attrs.evolve(
            each, name=renamed.get(each.name, each.name), parent=renamed.get(each.parent, each.parent)
        )
        for each in BRANCHED.layers
    )
    volume = attrs.evolve(BRANCHED, layers=layers)
    assert describe(facts_of(volume)).can_be_upgraded(accept_dirty=False)
    replica = describe(facts_of(attrs.evolve(volume, backing=b"x" * 512)))
    assert [finding.text for finding in replica.hindrances(Hinders.UPGRADE)] == [
        "snapshot backing-file has a name that the upgrade needs"
    ]


VOLUME: Final = "volume.meta"
A: Final = "volume-snap-a.img"
B: Final = "volume-snap-b.img"
LEFT: Final = "volume-snap-left.img"

Damage = Callable[[DirectoryFacts], DirectoryFacts]
CASES: Final[dict[str, tuple[Damage, Hinders, str]]] = {
    "no volume.meta": (lambda f: without(f, VOLUME), Hinders.READING, "volume.meta is missing"),
    "empty volume.meta": (
        lambda f: with_content(f, VOLUME, b""), Hinders.READING, "volume.meta is empty"),
    "zeros in volume.meta": (
        lambda f: with_content(f, VOLUME, bytes(100)), Hinders.READING, "volume.meta is damaged: not JSON"),
    "no size": (lambda f: with_meta(f, VOLUME, Size=...), Hinders.READING, "no field Size"),
    "size that is no size": (lambda f: with_meta(f, VOLUME, Size=2**70), Hinders.READING, "damaged: Size"),
    "half a sector": (lambda f: with_meta(f, VOLUME, Size=1000), Hinders.READING, "damaged: Size 1000"),
    "sector size": (lambda f: with_meta(f, VOLUME, SectorSize=8192), Hinders.READING, "SectorSize 8192"),
    "head elsewhere": (
        lambda f: with_meta(f, VOLUME, Head="../../etc/passwd"), Hinders.READING, "is not a layer's name"),
    "head is a snapshot": (lambda f: with_meta(f, VOLUME, Head=A), Hinders.READING, "is no head"),
    "rebuilding": (lambda f: with_meta(f, VOLUME, Rebuilding=True), Hinders.READING, "Rebuilding"),
    "cloning": (
        lambda f: with_meta(f, VOLUME, CloneStatus="inProgress"), Hinders.READING, "CloneStatus inProgress"),
    "dirty": (lambda f: with_meta(f, VOLUME, Dirty=True), Hinders.DIRTY, "Dirty: it was not closed"),
    "error": (lambda f: with_meta(f, VOLUME, Error="no space"), Hinders.DIRTY, "it noted 'no space'"),
    "encrypted": (lambda f: with_meta(f, VOLUME, Encrypted=True), Hinders.NOTHING, "LUKS"),
    "in use": (lambda f: attrs.evolve(f, in_use=True), Hinders.READING, "open for writing"),
    "no head": (lambda f: without(f, HEAD_FILE), Hinders.READING, f"{HEAD_FILE} is missing"),
    "no .meta of the head": (
        lambda f: without(f, HEAD_FILE + ".meta"), Hinders.READING, f"{HEAD_FILE}.meta is missing"),
    "no live snapshot": (lambda f: without(f, B), Hinders.READING, f"{B} is missing"),
    "live .meta is damaged": (
        lambda f: with_content(f, B + ".meta", b"{"), Hinders.READING, f"{B}.meta is damaged"),
    "a circle": (lambda f: with_meta(f, A + ".meta", Parent=B), Hinders.READING, "round in a circle"),
    "parent elsewhere": (
        lambda f: with_meta(f, A + ".meta", Parent="../x"), Hinders.READING, "is not a layer's name"),
    "the head is short": (
        lambda f: attrs.evolve(f, sizes={**f.sizes, HEAD_FILE: 4096}), Hinders.READING, "has 4096 bytes"),
    "a layer is long": (
        lambda f: attrs.evolve(f, sizes={**f.sizes, A: 2**20}), Hinders.NOTHING, "more than the volume"),
    "a branch lost its .meta": (
        lambda f: without(f, LEFT + ".meta"), Hinders.UPGRADE, f"{LEFT} is not known"),
    "a branch was removed": (lambda f: without(f, LEFT), Hinders.NOTHING, f"{LEFT} was removed"),
    "a branch's .meta is damaged": (
        lambda f: with_content(f, LEFT + ".meta", b"[]"), Hinders.UPGRADE, "snapshot left cannot be taken"),
    "a branch stands on nothing": (
        lambda f: with_meta(f, LEFT + ".meta", Parent="volume-snap-x.img"), Hinders.UPGRADE, "is not whole"),
    "a branch stands on the head": (
        lambda f: with_meta(f, LEFT + ".meta", Parent=HEAD_FILE), Hinders.UPGRADE, "is not whole"),
    "one file twice": (
        lambda f: attrs.evolve(f, same_file={HEAD_FILE: LEFT, LEFT: HEAD_FILE}),
        Hinders.UPGRADE, "are one file"),
    "an old head with data": (
        lambda f: with_content(
            with_files(f, volume__head__001_dot_img=4096),
            "volume-head-001.img.meta", b'{"Name":"volume-head-001.img"}',
        ),
        Hinders.UPGRADE, "volume-head-001.img holds data"),
    "a new head that is empty": (
        lambda f: with_content(
            with_files(f, volume__head__004_dot_img=0),
            "volume-head-004.img.meta", b'{"Name":"volume-head-004.img"}',
        ),
        Hinders.NOTHING, "volume-head-004.img is not in use"),
    "a layer without .meta": (
        lambda f: with_files(f, volume__snap__x_dot_img=8192), Hinders.UPGRADE, "x.img is not known"),
    "an empty layer without .meta": (
        lambda f: with_files(f, volume__snap__x_dot_img=0), Hinders.NOTHING, "volume-snap-x.img is empty"),
    "an unfinished restore": (
        lambda f: with_files(f, volume__snap__x_dot_img_dot_snap_tmp=1), Hinders.UPGRADE, "is not known"),
    "something else": (lambda f: with_files(f, notes_dot_txt=1), Hinders.NOTHING, "is left as it is"),
    "sums without an upgrade": (
        lambda f: with_files(f, volume__snap__a_dot_img_dot_sums=1), Hinders.UPGRADE, "is not known"),
    "an upgrade was cut": (
        lambda f: with_files(f, pyjiva_dot_upgrading=1, volume__snap__a_dot_img_dot_sums=1),
        Hinders.NOTHING, "an upgrade was interrupted"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_told(name: str) -> None:
    damage, hinders, text = CASES[name]
    replica = describe(damage(facts_of(BRANCHED)))
    matching = [finding for finding in replica.findings if text in finding.text]
    assert [finding.hinders for finding in matching] == [hinders], replica.findings
    assert replica.can_be_read == (hinders is not Hinders.READING)
    assert replica.can_be_upgraded(accept_dirty=False) == (hinders is Hinders.NOTHING)
    assert replica.can_be_upgraded(accept_dirty=True) == (hinders in (Hinders.NOTHING, Hinders.DIRTY))


def test_what_an_upgrade_removes_is_listed() -> None:
    facts = with_files(
        facts_of(BRANCHED), volume__snap__a_dot_img_dot_checksum=100, volume_dot_meta_dot_tmp=10
    )
    replica = describe(without(facts, LEFT))
    assert set(replica.leftovers) == {LEFT + ".meta", A + ".checksum", "volume.meta.tmp"}
    assert replica.can_be_upgraded(accept_dirty=False)


def test_a_head_that_became_a_snapshot_is_under_both_names_after_a_crash() -> None:
    facts = with_content(
        with_files(facts_of(BRANCHED), volume__head__002_dot_img=4096),
        "volume-head-002.img.meta",
        b'{"Name":"volume-head-002.img"}',
    )
    twice = {"volume-head-002.img": "volume-snap-c.img", "volume-snap-c.img": "volume-head-002.img"}
    replica = describe(attrs.evolve(facts, same_file=twice))
    assert replica.can_be_upgraded(accept_dirty=False)
    assert replica.leftovers == ("volume-head-002.img", "volume-head-002.img.meta")


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 129, "ü", "a\nb"])
def test_a_name_that_pyjiva_has_not_is_refused(name: str) -> None:
    facts = facts_of(BRANCHED)
    file = f"volume-snap-{name}.img"
    facts = attrs.evolve(
        facts, sizes={**facts.sizes, file: SIZE_BYTES}, allocated={**facts.allocated, file: 4096}
    )
    facts = attrs.evolve(facts, names=facts.names | {file})
    facts = with_content(facts, file + ".meta", b'{"Name":"x"}')
    assert not describe(facts).can_be_upgraded(accept_dirty=True)
    assert describe(facts).can_be_read


@pytest.mark.parametrize(
    ("names", "message"),
    [({"pyjiva.json", VOLUME}, "is a pyjiva replica already"), ({"a", "b"}, "holds nothing that")],
)
def test_other_directories_are_refused(names: set[str], message: str) -> None:
    facts = DirectoryFacts(names=frozenset(names), sizes={}, allocated={}, contents={})
    with pytest.raises(ConfigError, match=message):
        describe(facts)


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"0", 0), (b"4711" + bytes(4092), 4711), (b"", None), (b"-1", None), (b"9" * 20, None), (b"1 2", None)],
)
def test_revision_counters(content: bytes, value: int | None) -> None:
    assert parse_revision_counter(content) == value


@given(st.binary())
def test_any_revision_counter_is_a_count_or_none(content: bytes) -> None:
    value = parse_revision_counter(content)
    assert value is None or value >= 0


@given(VOLUMES)
def test_any_tree_is_described_as_it_is(volume: FixtureVolume) -> None:
    replica = describe(facts_of(volume))
    assert replica.can_be_upgraded(accept_dirty=False)
    assert {layer.name: layer.parent for layer in replica.layers} == {
        layer.name: layer.parent for layer in volume.layers
    }
    chain = replica.chain(backing=False)
    assert {each.name: each.removed for each in chain.layers} == {
        each.name: each.removed for each in volume.layers if each.name
    }


NAMES: Final = (
    VOLUME, "pyjiva.json", MARKER, "x", "revision.counter",
    *(f"volume-{base}.img{suffix}"
      for base in ("head-000", "head-001", "snap-a", "snap-b", "snap-../c")
      for suffix in ("", ".meta", ".sums", ".checksum", ".meta.tmp")),
)  # fmt: skip
FILES: Final = [name for name in NAMES if name.endswith(".img")]
FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "Size": st.sampled_from([0, -1, 4096, 8192, 2**64, "1", None, 1.5]),
    "Head": st.sampled_from([*FILES, "", "../x", 7]),
    "Parent": st.sampled_from([*FILES, "", "../x", None]),
    "Name": st.sampled_from([*FILES, "", 3]),
    "Dirty": st.booleans() | st.none(),
    "Rebuilding": st.booleans(),
    "Removed": st.booleans() | st.just("yes"),
    "SectorSize": st.sampled_from([512, 4096, 0, -1]),
    "Labels": st.none() | st.dictionaries(st.text(max_size=3), st.text() | st.integers(), max_size=2),
    "Created": st.text(max_size=5),
    "BackingFilePath": st.text(max_size=5),
    "BackingFileName": st.text(max_size=5) | st.integers(),
    "CloneStatus": st.sampled_from(["inProgress", "NA", 5, None]),
    "Error": st.text(max_size=5) | st.integers(),
}
METAS = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: json.dumps(fields).encode())


@st.composite
def any_facts(draw: Any) -> DirectoryFacts:
    names = draw(st.frozensets(st.sampled_from(NAMES)))
    images = [name for name in names if name.endswith(".img")]
    links = st.dictionaries(st.sampled_from(FILES), st.sampled_from(FILES), max_size=2)
    return DirectoryFacts(
        names=names,
        sizes={name: draw(st.sampled_from([0, 4096, 8192])) for name in images},
        allocated={name: draw(st.sampled_from([0, 4096])) for name in images},
        contents={
            name: draw(METAS | st.binary(max_size=20))
            for name in names
            if name.endswith((".meta", "counter")) and draw(st.integers(0, 9))
        },
        same_file=draw(links),
        in_use=draw(st.booleans()),
    )


WHOLE: Final = facts_of(BRANCHED)
IMAGES: Final = sorted(WHOLE.sizes)
METAS_THERE: Final = sorted(name for name in WHOLE.contents)
CHANGES: Final[st.SearchStrategy[Damage]] = st.one_of(
    st.builds(
        lambda name, field, draw: lambda facts: _with_field(facts, name, field, draw),
        st.sampled_from(METAS_THERE),
        st.sampled_from(sorted(FIELDS)),
        st.data(),
    ),
    st.sampled_from(sorted(WHOLE.names)).map(lambda name: lambda facts: without(facts, name)),
    st.builds(
        lambda name, content: lambda facts: with_content(facts, name, content),
        st.sampled_from([*METAS_THERE, "volume-head-009.img.meta"]),
        st.binary(max_size=20) | METAS,
    ),
    st.builds(
        lambda name, size: lambda facts: attrs.evolve(facts, sizes={**facts.sizes, name: size}),
        st.sampled_from(IMAGES),
        st.sampled_from([0, 4096, 2**40]),
    ),
    st.builds(
        lambda one, other: lambda facts: attrs.evolve(facts, same_file={one: other, other: one}),
        st.sampled_from(IMAGES),
        st.sampled_from(IMAGES),
    ),
    st.sampled_from([*NAMES, "pyjiva.upgrading"]).map(
        lambda name: lambda facts: with_files(facts, **{name.replace("-", "__").replace(".", "_dot_"): 4096})
    ),
)
"""What a whole directory may suffer."""


def _with_field(facts: DirectoryFacts, name: str, field: str, data: st.DataObject) -> DirectoryFacts:
    value = data.draw(FIELDS[field] | st.just(...))
    try:
        return with_meta(facts, name, **{field: value})
    except (KeyError, ValueError, TypeError):  # another change took it or made it unreadable
        return facts


@st.composite
def damaged_facts(draw: Any) -> DirectoryFacts:
    facts = WHOLE
    for change in draw(st.lists(CHANGES, max_size=3)):
        facts = change(facts)
    # One change may have taken a file that the next one made longer: who looks sees both or neither.
    sizes = {file: size for file, size in facts.sizes.items() if file in facts.allocated}
    return attrs.evolve(facts, sizes=sizes)


def test_damaged_directories_are_of_every_kind() -> None:
    """Else the property below says little."""
    seen = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(damaged_facts())
    def look_at(facts: DirectoryFacts) -> None:
        try:
            replica = describe(facts)
        except ConfigError:
            return
        seen.add((replica.can_be_read, replica.can_be_upgraded(accept_dirty=True)))

    look_at()
    assert seen == {(False, False), (True, False), (True, True)}


@given(damaged_facts() | any_facts())
def test_anything_is_refused_or_described(facts: DirectoryFacts) -> None:
    """Never a crash; and what can be upgraded has a chain of layers that are all there."""
    try:
        replica = describe(facts)
    except ConfigError:
        return
    if replica.can_be_read:
        assert replica.path(HEAD)[-1].name == HEAD
        assert replica.size_bytes > 0
    if replica.can_be_upgraded(accept_dirty=True):
        chain = replica.chain(backing=bool(replica.backing_file))
        files = {chain.file_of(layer.name) for layer in chain.layers if layer.name != "backing-file"}
        assert files | {chain.head_file} <= set(facts.sizes)
        for name in (HEAD, *(layer.name for layer in replica.layers)):
            assert replica.path(name)
