"""`maya.yaml_text`: less than YAML, and never more than a moment of work."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.maya.yaml_text import BYTES_MAX, DEPTH_MAX, NODES_MAX, read_json_like, read_strings

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def test_strings_stay_as_they_are_written() -> None:
    text = "- name: A\n  enabled: on\n  value: 0.50\n- {name: B, value: 010, data: {}}\n- \n"
    assert read_strings(text) == [
        {"name": "A", "enabled": "on", "value": "0.50"},
        {"name": "B", "value": "010", "data": {}},
        "",
    ]


def test_json_like_is_what_json_would_be() -> None:
    text = (
        "a: 1\nb: -0.5\nc: true\nd: yes\ne: null\nf: '1'\ng: 2001-01-01\nh: .inf\ni: [~, 1e3]\nj: |-\n  7\n"
    )
    assert read_json_like(text) == {
        "a": 1, "b": -0.5, "c": True, "d": "yes", "e": None, "f": "1", "g": "2001-01-01",
        "h": ".inf", "i": [None, 1000.0], "j": "7",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "line 1: anchors and aliases"),
        ("a: *b", "anchors and aliases"),
        ("!!python/object/apply:os.system [id]", "tags"),
        ("a: 1\na: 2", "line 2: key 'a' stands there twice"),
        ("? [a]\n: b", "a key is no text"),
        ("a\n---\nb", "more than one document"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"more than {DEPTH_MAX} deep"),
        ("[" * 50000, f"more than {DEPTH_MAX} deep"),
        ("[" + "a," * NODES_MAX + "]", f"more than {NODES_MAX} parts"),
        ("é" * (BYTES_MAX // 2 + 1), f"at most {BYTES_MAX}"),
        ("a: [", "line 1"),
        ("a\x00", "not YAML"),
        ('"\\ud800\\udc00"', "half a character"),
        ("\ud800", "not YAML"),
    ],
)
def test_what_is_not_taken_is_named(text: str, why: str) -> None:
    for read in (read_strings, read_json_like):
        with pytest.raises(ConfigError, match=why):
            read(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_strings, read_json_like):
        try:
            read(text)
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017  either is well


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_yaml(value: Any) -> None:
    """JSON that is no deeper than is allowed means the same."""
    text = json.dumps(value, ensure_ascii=False)
    if any(ord(each) in (0x7F, *range(0x80, 0xA0), 0xFEFF, 0xFFFE, 0xFFFF) for each in text):
        return  # YAML wants these escaped, JSON does not
    assert read_json_like(text) == value
