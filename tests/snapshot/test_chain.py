"""The chain file gives back what was put into it, is never believed when it is damaged, and every change of a
chain gives a tree."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import HEAD, Chain, Layer
from pyjiva.snapshot.chain_file import decode_chain, encode_chain
from pyjiva.snapshot.metadata import DiskMeta, VolumeMeta, layer_names


def grown(*names: str) -> Chain:
    """A chain with snapshots `names`, made in this order."""
    chain = Chain()
    for name in names:
        chain = chain.with_snapshot(Layer(name=name, created="2026-01-01T00:00:00Z", labels={"of": name}))
    return chain


def tree() -> Chain:
    """a ← b ← c, and the head on a: c is a branch."""
    return grown("a", "b", "c").reverted("a", keep_newer=True)


@pytest.mark.parametrize(
    "chain", [Chain(), grown("a"), grown("a", "b", "c"), tree(), grown("x").with_removed("x")]
)
def test_a_chain_outlives_its_file(chain: Chain) -> None:
    assert decode_chain(encode_chain(chain)) == chain


@given(st.data())
def test_a_damaged_file_is_refused(data: st.DataObject) -> None:
    content = bytearray(encode_chain(grown("a", "b")))
    place = data.draw(st.integers(0, len(content) - 2))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ConfigError):
        decode_chain(bytes(content))


KEYS = st.sampled_from(["format", "chain", "checksum", "layers"]) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_chain_or_a_config_error(content: bytes) -> None:
    with pytest.raises(ConfigError):
        decode_chain(content)


def test_a_newer_format_is_not_taken_for_damage() -> None:
    with pytest.raises(ConfigError, match="has format 7"):
        decode_chain(json.dumps({"format": 7}).encode())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_parent": "x"}, "the head stands on x"),
        ({"layers": (Layer(name="a", parent="b"), Layer(name="b", parent="a"))}, "in a circle"),
        ({"layers": (Layer(name="a"), Layer(name="a"))}, "same name"),
        ({"layers": (Layer(name="a", parent="z"),)}, "a stands on z"),
        ({"layers": (Layer(name="a", removed=True, reopened=True),)}, "not the head alone"),
    ],
)
def test_what_is_no_tree_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain(**fields)


@pytest.mark.parametrize(
    "fields", [{}, {"removed": True, "filling": True}, {"removed": True, "whole": False}, {"removed": 1}]
)
def test_only_a_layer_that_was_a_whole_snapshot_is_reopened(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reopened"):
        Layer(name="a", reopened=True, **fields)


def test_a_reopened_layer_is_closed_by_whatever_the_head_stands_on_next() -> None:
    """And it is merged before others: what a merge below it does with what is not stable nobody need ask."""
    chain = grown("a", "b", "c").with_removed("a").with_removed("c").with_reopened("c")
    assert chain.reopened == "c"
    assert chain.next_merge() == ("c", HEAD)
    assert grown("a", "b", "c").with_removed("a").with_removed("c").next_merge() == ("a", "b")
    assert decode_chain(encode_chain(chain)) == chain
    renamed = chain.with_spare_name("c")
    assert renamed.reopened == "c.1"
    for after in (
        chain.with_snapshot(Layer(name="d")),
        chain.sunk("c", child=HEAD),
        chain.absorbed("c", child=HEAD),
        chain.reverted("b", keep_newer=True),
        chain.reverted("b", keep_newer=False),
    ):
        assert after.reopened == ""
        assert not any(layer.reopened for layer in after.layers)


def test_an_older_pyjiva_reads_a_chain_in_which_nothing_is_reopened() -> None:
    """It would not take the fields of the other one, and is told that it is too old for it."""
    chain = grown("a").with_removed("a")
    older, newer = json.loads(encode_chain(chain)), json.loads(encode_chain(chain.with_reopened("a")))
    assert (older["format"], newer["format"]) == (1, 2)
    assert "reopened" not in older["chain"]["layers"][0]
    assert newer["chain"]["layers"][0]["reopened"] is True


@pytest.mark.parametrize("name", ["", ".", "-a", "a/b", "a\0", "ä", "a" * 129, "a b", "../x", "a\n"])
def test_names_that_could_harm_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a snapshot"):
        Layer(name=name)


def test_a_snapshot_seals_the_head_under_its_name() -> None:
    chain = grown("a", "b")
    assert chain.path(HEAD) == ("a", "b", HEAD)
    assert chain.head_file == "volume-head-002.img"
    assert ("volume-head-001.img.held", "volume-snap-b.img.held") in chain.renames


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: grown("a").with_snapshot(Layer(name="a")), "is a snapshot 'a' already"),
        (lambda: grown("a").with_removed("b"), "there is no snapshot 'b'"),
        (lambda: grown("a", "b").with_removed("a").with_removed("a"), "'a' is removed"),
        (lambda: grown("a").with_removed("a").reverted("a", keep_newer=False), "'a' is removed"),
        (lambda: grown("a").with_received(Layer(name="b", parent="c")), "there is no snapshot 'c'"),
        (lambda: grown().with_received(Layer(name="b")).with_removed("b"), "still being received"),
        (lambda: grown("a").with_sealed("a"), "'a' is not being received"),
        (lambda: grown("a").without_received("a"), "'a' is not being received"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        change()


def test_a_removed_layer_waits_until_one_stands_on_it() -> None:
    chain = tree().with_removed("a")
    assert chain.children_of("a") == ("b", HEAD)
    assert chain.next_merge() is None
    chain = chain.with_removed("b")
    assert chain.next_merge() == ("b", "c")
    chain = chain.with_removed("c")
    assert [layer.name for layer in chain.layers] == ["a"]  # the branch is gone
    assert chain.next_merge() == ("a", HEAD)


@pytest.mark.parametrize("goes_down", [False, True])
def test_a_merge_takes_the_removed_layer_out(goes_down: bool) -> None:
    chain = grown("a", "b", "c").with_removed("b")
    assert chain.next_merge() == ("b", "c")
    merged = chain.sunk("b", child="c") if goes_down else chain.absorbed("b", child="c")
    assert merged.path(HEAD) == ("a", "c", HEAD)
    assert merged.layer("c").labels == {"of": "c"}
    assert (("volume-snap-b.img", "volume-snap-c.img") in merged.renames) == goes_down


@pytest.mark.parametrize(
    ("chain", "to", "keep", "left"),
    [
        (grown("a", "b", "c"), "a", False, {"a"}),
        (grown("a", "b", "c"), "a", True, {"a", "b", "c"}),
        (grown("a", "b", "c"), "c", False, {"a", "b", "c"}),
        (tree().with_snapshot(Layer(name="d")), "a", False, {"a", "b", "c"}),
        (tree().with_snapshot(Layer(name="d")), "c", False, {"a", "b", "c"}),
        (grown("a", "b", "c").reverted("b", keep_newer=True), "a", False, {"a", "b", "c"}),
    ],
)
def test_a_revert_drops_what_nothing_else_stands_on(
    chain: Chain, to: str, keep: bool, left: set[str]
) -> None:
    reverted = chain.reverted(to, keep_newer=keep)
    assert {layer.name for layer in reverted.layers} == left
    assert reverted.path(HEAD)[-2:] == (to, HEAD)
    assert reverted.head_number == chain.head_number + 1


def test_jivas_files_tell_the_same_chain() -> None:
    chain = grown("a", "b").with_removed("a")
    metas = chain.metas(4096)
    volume = VolumeMeta.decode(metas["volume.meta"])
    disks = {
        name.removesuffix(".meta"): DiskMeta.decode(name.removesuffix(".meta"), content)
        for name, content in metas.items()
        if name != "volume.meta"
    }
    assert layer_names(volume, disks) == ("volume-head-002.img", "volume-snap-b.img", "volume-snap-a.img")
    assert volume.parent == "volume-snap-b.img"
    assert disks["volume-snap-a.img"].removed
    assert disks["volume-snap-b.img"].labels == {"of": "b"}
    assert disks["volume-snap-b.img"].created == "2026-01-01T00:00:00Z"


def test_the_files_of_a_chain_are_those_that_it_needs() -> None:
    files = grown("a", "b").files()
    assert "volume-snap-b.img.held" in files
    assert "volume-snap-a.img.held" not in files  # nothing is below it
    assert "volume-head-002.img.held" in files


def test_every_field_has_its_type() -> None:
    wrong: dict[str, Any] = {"name": 1, "labels": {"a": 1}, "removed": 0, "parent": None}
    for field, value in wrong.items():
        with pytest.raises(ValueError, match="are"):
            attrs.evolve(Layer(name="a"), **{field: value})
