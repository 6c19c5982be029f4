"""`maya.policy.readers`: what values may be."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.policy import LabelRequirement, Toleration, readers
from pyjiva.maya.policy.readers import Reader
from pyjiva.maya.policy.table import POLICIES


def read(reader: Reader, text: str) -> tuple[Any, list[tuple[str, str]]]:
    """What it makes of it, and what it tells."""
    wrong: list[tuple[str, str]] = []
    return reader(text, lambda found, expected: wrong.append((found, expected))), wrong


TOLERATIONS = """
t1:
  key: a
  operator: Equal
  value: b
  effect: NoSchedule
t2:
  operator: Exists
  effect: NoExecute
  tolerationSeconds: 30
"""
GOOD: list[tuple[Reader, str, Any]] = [
    (readers.whole_number(1, 6), "3", 3),
    (readers.duration, "0", 0.0),
    (readers.duration, "1.5", 1.5),
    (readers.duration, "1h30m", 5400.0),
    (readers.duration, "2d", 172800.0),
    (readers.image, "quay.io:5000/openebs/jiva:1.0.0", "quay.io:5000/openebs/jiva:1.0.0"),
    (readers.image, f"jiva@sha256:{'a' * 64}", f"jiva@sha256:{'a' * 64}"),
    (readers.object_name, "openebs-maya-operator", "openebs-maya-operator"),
    (readers.named({"fast": "/mnt/fast"}), "fast", "/mnt/fast"),
    (readers.named({}), "/mnt/slow/", "/mnt/slow"),
    (readers.label_key, "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    (readers.selector, "a.b/c: d\ne: ''\n", {"a.b/c": "d", "e": ""}),
    (readers.resources, "memory: 1.5Gi\ncpu: 500m", {"memory": "1.5Gi", "cpu": "500m"}),
    (readers.resources, "example.com/disk: 1\nhugepages-2Mi: 4Mi",
        {"example.com/disk": "1", "hugepages-2Mi": "4Mi"}),
    (readers.tolerations, TOLERATIONS,
        (Toleration("a", "Equal", "b", "NoSchedule"), Toleration("", "Exists", "", "NoExecute", 30))),
    (readers.requirements, "t1: {key: disk, operator: In, values: [a, b]}\nt2: {key: x, operator: Exists}",
        (LabelRequirement("disk", "In", ("a", "b")), LabelRequirement("x", "Exists"))),
    (readers.requirements, "t1: {key: disks, operator: Gt, values: ['3']}",
        (LabelRequirement("disks", "Gt", ("3",)),)),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "text", "meant"), GOOD)
def test_what_is_right_is_read(reader: Reader, text: str, meant: Any) -> None:
    assert read(reader, text) == (meant, [])


BAD: list[tuple[Reader, str, str, str]] = [
    (readers.whole_number(1, 6), "7", "7", "a whole number from 1 to 6"),
    (readers.whole_number(1, 6), "-1", "-1", "a whole number"),
    (readers.whole_number(1, 6), "three", "three", "a whole number"),
    (readers.whole_number(1, 6), "٣", "٣", "a whole number"),
    (readers.duration, "5 minutes", "5 minutes", "90s, 5m"),
    (readers.duration, "-1", "-1", "90s, 5m"),
    (readers.duration, "nan", "nan", "90s, 5m"),
    (readers.read_fs_type, "zfs", "zfs", "one of ext4, ext3, ext2, xfs, btrfs"),
    (readers.image, "two words", "two words", "an image"),
    (readers.image, "", "", "an image"),
    (readers.object_name, "Big", "Big", "lower-case"),
    (readers.named({"default": "/var/openebs"}), "fast", "fast", "default"),
    (readers.named({}), "/", "/", "an absolute path"),
    (readers.named({}), "/var/../etc", "/var/../etc", "an absolute path"),
    (readers.label_key, "/a", "/a", "a label's key"),
    (readers.selector, "- a", "- a", "lines of KEY: VALUE"),
    (readers.selector, "a: [b]", "a: a list", "a label's value"),
    (readers.selector, "a: b c", "a: b c", "a label's value"),
    (readers.resources, "memroy: 1Gi", "memroy", "one of the resources cpu, memory"),
    (readers.resources, "memory: lots", "memory: lots", "a quantity"),
    (readers.resources, "memory: -1", "memory: -1", "a quantity"),
    (readers.tolerations, "t1: [", "t1: [", "not YAML"),
    (readers.tolerations, "- key: a", "- key: a", "entries such as t1:"),
    (readers.tolerations, "key: a", "key: a text", "under it key, operator"),
    (readers.tolerations, "t1: {operator: Exists, value: b}", "t1: value b", "no value"),
    (readers.tolerations, "t1: {value: b}", "t1: no key", "a key, or operator: Exists"),
    (readers.tolerations, "t1: {key: a, effect: Never}", "t1: effect: Never", "NoSchedule"),
    (readers.tolerations, "t1: {key: a, operator: In}", "t1: operator: In", "Equal"),
    (readers.tolerations, "t1: {key: a, tolerationSeconds: 5}", "t1: tolerationSeconds", "NoExecute"),
    (readers.tolerations, "t1: {key: a, effect: NoExecute, tolerationSeconds: x}",
        "t1: tolerationSeconds: x", "a whole number"),
    (readers.tolerations, "t1: {key: a, kee: b}", "t1: kee", "one of key, operator"),
    (readers.tolerations, "t1: {key: [a]}", "t1: key is a list", "a text"),
    (readers.requirements, "t1: {key: a, operator: In}", "t1: In without values", "values: and a list"),
    (readers.requirements, "t1: {key: a, operator: Exists, values: [b]}", "t1: Exists with values", "no v"),
    (readers.requirements, "t1: {key: a, operator: Gt, values: [b]}", "t1: Gt with b", "one whole number"),
    (readers.requirements, "t1: {key: a, operator: is}", "t1: operator: is", "one of In, NotIn"),
    (readers.requirements, "t1: {key: a, operator: In, values: b}", "t1: values is a text", "a list of"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "text", "found", "expected"), BAD)
def test_what_is_wrong_is_told(reader: Reader, text: str, found: str, expected: str) -> None:
    _, told = read(reader, text)
    assert [each for each in told if each[0] == found and expected in each[1]], told


def test_all_of_a_text_is_looked_at() -> None:
    _, told = read(readers.tolerations, "t1: {key: a b, effect: No}\nt2: x\nt3: {kee: c}")
    assert {found.partition(":")[0] for found, _ in told} == {"t1", "t2", "t3"}
    assert len(told) >= 5


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(("1", 1), ("1.5", Fraction(3, 2)), ("500m", Fraction(1, 2)), ("1k", 1000), ("1Ki", 1024)),
        *(("1E", 10**18), ("1Ei", 2**60), ("1e3", 1000), ("1E3", 1000), ("5e-1", Fraction(1, 2))),
        *(("1u", Fraction(1, 10**6)), ("x", None), ("1KB", None), ("", None), ("-1", None)),
    ],
)
def test_quantities_are_exact(text: str, meant: Fraction | None) -> None:
    assert readers.quantity(text) == meant


@given(text=st.text() | st.sampled_from(["t1:\n  ", "a: "]).flatmap(lambda s: st.text().map(lambda t: s + t)))
def test_any_text_is_read_or_told(text: str) -> None:
    for policy in POLICIES:
        _, told = read(policy.read, text)
        assert all(isinstance(expected, str) and expected for _, expected in told)
