"""Classes that are written out are what attrs makes of them: in modules made up at random."""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import mypy.api
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiling.plain_classes import NotPlain, written_out
from tests.compiling.comparing import (
    check_same,
    check_signature,
    equality,
    imported,
    is_hashable,
    parameters,
)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = (dict(sys.modules), list(sys.meta_path))
    yield
    assert not [name for name in sys.modules if name.startswith("made_")]
    assert sys.meta_path == before[1]
    assert all(before[0][name] is sys.modules.get(name) for name in before[0])


# --- modules made up at random


@attrs.frozen
class _MadeField:
    name: str
    value: str
    options: tuple[str, ...]

    def text(self) -> str:
        if not self.options and not self.value.startswith("factory"):
            value = self.value.removeprefix("default=")
            return f"    {self.name}: object" + (f" = {value}" if value else "")
        inside = ", ".join([*([self.value] if self.value else []), *self.options])
        return f"    {self.name}: list[object] = attrs.field({inside})"


DEFAULTS = ("default=0", "default=LIMIT", "default=None", 'default=float("inf")', "default=(1, -LIMIT)")
FACTORIES = ("factory=list", "factory=lambda: [LIMIT]", "factory=lambda: 1 if LIMIT else 2")
OPTIONS = ("init=False", "repr=False", "eq=False", "kw_only=True", "kw_only=False", "init=True")
PARTS = (
    "    def __attrs_post_init__(self):\n        CALLS.append(type(self).__name__)",
    '    def __repr__(self):\n        return "by hand"',
    "    def __hash__(self):\n        return 5",
    "    def __eq__(self, other):\n        return self is other",
    "    constant = 7",
    "    def last(self):\n        return LIMIT",
)


def _options() -> st.SearchStrategy[tuple[str, ...]]:
    chosen = st.lists(st.sampled_from(OPTIONS), unique_by=lambda each: each.partition("=")[0], max_size=3)
    return chosen.map(tuple)


def _made_fields() -> st.SearchStrategy[_MadeField]:
    name = st.sampled_from(("a", "b", "c", "_a", "_d", "_e", "f", "__dunder__"))
    plain = st.builds(_MadeField, name, st.sampled_from(("", *DEFAULTS)), st.just(()))
    full = st.builds(_MadeField, name, st.sampled_from(("", *DEFAULTS, *FACTORIES)), _options())
    with_factory = st.builds(_MadeField, name, st.sampled_from(FACTORIES), st.just(("repr=True",)))
    return st.one_of(plain, full, with_factory)


@st.composite
def _made_class(draw: st.DrawFn) -> str:
    """The text of a class, but for its name and base."""
    fields = draw(st.lists(_made_fields(), unique_by=lambda each: each.name, max_size=4))
    parts = draw(st.lists(st.sampled_from(PARTS), unique=True, max_size=2))
    docstring = draw(st.sampled_from(["", '    """What it is."""']))
    body = [docstring, *draw(st.permutations([*(field.text() for field in fields), *parts]))]
    text = "\n".join(each for each in body if each)
    options = draw(
        st.sampled_from(("", "()", "(eq=False)", "(kw_only=True)", "(\n    eq=False,\n    kw_only=True\n)"))
    )
    return f"@attrs.define{options}\nclass NAME_AND_BASE:\n{text or '    pass'}\n"


@st.composite
def _made_modules(draw: st.DrawFn) -> dict[str, str]:
    """Classes that inherit from one another, in two modules."""
    classes = draw(st.lists(_made_class(), min_size=1, max_size=3))
    split = draw(st.integers(0, len(classes)))
    texts: dict[str, str] = {}
    for module, numbers in (("made_lower", range(split)), ("made_upper", range(split, len(classes)))):
        lines = ['"""Made up."""', "import attrs", f"LIMIT = {len(texts) + 3}", "CALLS = []"]
        if module == "made_upper" and split:
            lines[2:2] = [f"from made_lower import C{split - 1}"]
        for number in numbers:
            lines.append(
                classes[number].replace(
                    "NAME_AND_BASE", f"C{number}" + (f"(C{number - 1})" if number else "")
                )
            )
        texts[module] = "\n".join(lines) + "\n"
    return texts


def _made(texts: Mapping[str, str]) -> dict[str, ModuleType] | None:
    """None: attrs does not want such a class."""
    try:
        return imported(texts, *texts)
    except (ValueError, SyntaxError):
        return None


@given(_made_modules(), st.randoms(use_true_random=False))
def test_made_up_classes_are_the_same(texts: dict[str, str], random: Any) -> None:
    made = _made(texts)
    if made is None:
        with pytest.raises(NotPlain):
            written_out(texts)
        return
    written = written_out(texts)
    plain = imported(written, *texts)
    for module, theirs in made.items():
        ours = plain[module]
        for name in re.findall(r"^class (\w+)", texts[module], re.MULTILINE):
            _compare_made(getattr(theirs, name), getattr(ours, name), random)
    assert [each.CALLS for each in plain.values()] == [each.CALLS for each in made.values()]


def _compare_made(made: Any, plain: Any, random: Any) -> None:
    assert not attrs.has(plain) and plain.__doc__ == made.__doc__
    check_signature(made, plain)
    objects = []
    for _ in range(4):
        arguments = {
            each.name: random.choice(("x", 1, (2,)))
            for each in parameters(made)
            if each.default is inspect.Parameter.empty or random.random() < 0.5
        }
        theirs, ours = made(**arguments), plain(**arguments)
        check_same(theirs, ours)
        objects.append((theirs, ours))
    for their, our in objects:
        assert is_hashable(our) == is_hashable(their)
        for their_other, our_other in objects:
            assert equality(our, our_other) == equality(their, their_other)


def _plain(text: str, before: str = "") -> ModuleType:
    texts = {"made_one": f"import attrs\n{before}\n{text}"}
    return imported(written_out(texts), "made_one")["made_one"]


def test_an_object_inside_itself_is_shown_once() -> None:
    node = _plain("@attrs.define\nclass Node:\n    inside: list[object] = attrs.field(factory=list)\n").Node()
    node.inside.append(node)
    assert repr(node) == "Node(inside=[...])"
    assert repr(node) == "Node(inside=[...])"


@pytest.mark.parametrize(
    ("above", "of_base", "of_class"),
    [
        ("eq=False", "", "pass"),
        ("eq=True", "", "pass"),
        ("eq=True", "", "def __attrs_post_init__(self): CALLS.append(self.a)"),
        ("eq=False", "def __attrs_post_init__(self): CALLS.append(self.a)", "pass"),
        ("eq=False", "def __repr__(self): return 'by hand'", "pass"),
        ("eq=True", "def __hash__(self): return 5", "pass"),
    ],
)
def test_a_class_without_fields_is_not_always_as_its_base_is(above: str, of_base: str, of_class: str) -> None:
    text = f"""import attrs
CALLS = []
@attrs.define({above})
class A:
    {of_base}
    a: int = 1
@attrs.define
class B(A):
    {of_class}
"""
    texts = {"made_one": text}
    made, plain = (
        _module["made_one"] for _module in (imported(texts, *texts), imported(written_out(texts), *texts))
    )
    for name in "AB":
        their, our = getattr(made, name), getattr(plain, name)
        assert not attrs.has(our)
        check_same(their(2), our(2))
        assert equality(our(2), our(2)) == equality(their(2), their(2))
        assert is_hashable(our(2)) == is_hashable(their(2))
    assert equality(plain.A(2), plain.B(2)) == equality(made.A(2), made.B(2))
    assert equality(plain.B(2), plain.A(2)) == equality(made.B(2), made.A(2))
    assert plain.CALLS == made.CALLS


def test_a_base_in_a_third_module_is_found_behind_one_without_fields() -> None:
    texts = {
        "made_lower": "import attrs\nLIMIT = 3\n@attrs.define\nclass A:\n    a: int = LIMIT\n",
        "made_middle": "import attrs\nfrom made_lower import A\n@attrs.define\nclass B(A):\n    pass\n",
        "made_upper": "import attrs\nfrom made_middle import B\n@attrs.define\nclass C(B):\n    c: int = 1\n",
    }
    made, plain = imported(texts, *texts), imported(written_out(texts), *texts)
    check_signature(made["made_upper"].C, plain["made_upper"].C)
    assert repr(plain["made_upper"].C()) == repr(made["made_upper"].C()) == "C(a=3, c=1)"


# --- what is refused

CLASS = "@attrs.define\nclass A:\n"
REFUSED: Final = (
    ("the option slots", "@attrs.define(slots=False)\nclass A:\n    a: int\n"),
    ("the option converter", CLASS + "    a: int = attrs.field(converter=int)\n"),
    (r"the option \*\*", CLASS + "    a: int = attrs.field(**OPTIONS)\n"),
    ("arguments without a name", CLASS + "    a: int = attrs.field(1)\n"),
    ("neither True nor False", CLASS + "    a: int = attrs.field(repr=str)\n"),
    ("neither True nor False", "@attrs.define(eq=EQ)\nclass A:\n    a: int\n"),
    ("is not attrs.define", "@define\nclass A:\n    a: int\n"),
    ("is not attrs.define", "@attr.s(auto_attribs=True)\nclass A:\n    a: int\n"),
    ("cannot see the fields of its base", CLASS + "    a: int\n@attrs.frozen\nclass B(A):\n    b: int\n"),
    ("its base Exception is not written out", "@attrs.define\nclass A(Exception):\n    a: int\n"),
    ("more than one base", CLASS + "    a: int\n@attrs.define\nclass B(A, Other):\n    b: int\n"),
    ("keywords or type parameters", "@attrs.define\nclass A(metaclass=Meta):\n    a: int\n"),
    ("has __init__ of its own", CLASS + "    a: int\n    def __init__(self):\n        pass\n"),
    ("has __attrs_pre_init__", CLASS + "    a: int\n    def __attrs_pre_init__(self):\n        pass\n"),
    ("has __setattr__", CLASS + "    a: int\n    def __setattr__(self, name, value):\n        pass\n"),
    ("has __slots__", CLASS + "    a: int\n    __slots__ = ()\n"),
    (
        "eq=True and an __eq__",
        "@attrs.define(eq=True)\nclass A:\n    def __eq__(self, other):\n        return True\n",
    ),
    ("more than one statement", "@attrs.define\nclass A: a: int = 1\n"),
    ("more than one statement", CLASS + "    a: int; b: int\n"),
    (
        "a.validator is not understood",
        CLASS + "    a: int\n    @a.validator\n    def check(self, *_):\n        pass\n",
    ),
    ("a has no annotation", CLASS + "    a = attrs.field()\n"),
    ("neither a field nor a method", CLASS + "    if True:\n        a: int = 1\n"),
    ("__a is not a name", CLASS + "    __a: int\n"),
    ("a belongs to the class", CLASS + "    a: ClassVar[int] = 1\n"),
    ("a belongs to the class", CLASS + '    a: "typing.ClassVar[int]" = 1\n'),
    ("a belongs to the class", CLASS + "    a: Final = 1\n"),
    ("a default and a factory", CLASS + "    a: list[int] = attrs.field(default=(), factory=list)\n"),
    ("attrs.Factory is not understood", CLASS + "    a: list[int] = attrs.Factory(list)\n"),
    ("field is not understood", CLASS + "    a: list[int] = field()\n"),
    ("may be None and has a factory", CLASS + "    a: list[int] | None = attrs.field(factory=list)\n"),
    ("may be None and has a factory", CLASS + '    a: "Optional[list[int]]" = attrs.field(factory=list)\n'),
    ("neither a name nor a lambda", CLASS + "    a: int = attrs.field(factory=made())\n"),
    ("neither a name nor a lambda", CLASS + "    a: int = attrs.field(factory=lambda n=1: n)\n"),
    ("its default names what the class holds: N", CLASS + "    N = 1\n    a: int = N\n"),
    (
        "its factory names what the class holds: make",
        CLASS + "    make = list\n    a: int = attrs.field(factory=make)\n",
    ),
    (
        "names what the class holds: N",
        CLASS + "    a: int = N\n@attrs.define\nclass B(A):\n    N = 1\n    b: int = 1\n",
    ),
    ("'_' is no name|'' is no name", CLASS + "    _: int\n"),
    ("'class' is no name", CLASS + "    _class: int\n"),
    ("'self' is no name", CLASS + "    _self: int\n"),
    ("two arguments a", CLASS + "    a: int\n    _a: int\n"),
    ("evaluated more than once", CLASS + "    a: object = attrs.field(default=object(), init=False)\n"),
    ("evaluated more than once", CLASS + "    a: list[int] = attrs.field(default=[], init=False)\n"),
    (
        "evaluated more than once",
        CLASS + "    a: list[int] = []\n@attrs.define\nclass B(A):\n    b: int = 1\n",
    ),
    (
        "is made of size",
        CLASS + "    size: int\n    a: int = attrs.field(init=False, factory=lambda: size + 1)\n",
    ),
    ("is made of size", CLASS + "    _size: int\n    a: int = attrs.field(init=False, default=size)\n"),
    ("b: has no default and is behind a", CLASS + "    a: int = 1\n    b: int\n"),
)


@pytest.mark.parametrize(("message", "text"), REFUSED)
def test_what_is_not_understood_is_refused(message: str, text: str) -> None:
    with pytest.raises(NotPlain, match=f"^module: .*({message})"):
        written_out({"module": "import attrs\n" + text})


def test_a_base_with_the_name_of_another_is_not_taken_for_it() -> None:
    texts = {
        "one": "import attrs\n" + CLASS + "    a: int\n",
        "two": "import attrs\nfrom three import A\n@attrs.define\nclass B(A):\n    b: int\n",
    }
    with pytest.raises(NotPlain, match="two: B: its base A is not written out"):
        written_out(texts)


# --- what stays


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"""Only said."""',
        "import attrs\n\n\n@attrs.frozen\nclass A:\n    a: int = 1  # said",
        "class Outer:\n    @attrs.define\n    class Inner:\n        a: int\n",
        "X = '\x0c\u2028'\r\n\n",
    ],
)
def test_a_module_without_such_classes_stays(text: str) -> None:
    assert written_out({"module": text}) == {"module": text}


def test_comments_and_what_stands_beside_stay() -> None:
    text = '''"""Said of it."""
"not a docstring"
from __future__ import division

import attrs
import typing

ODD = "\x0c\u2028"


@typing.final
@attrs.define(  # why
    eq=False,
)  # hot
class A:  # of all
    """Said of the class."""

    CONSTANT = 3  # stays
    a: "list['A']"  # type: ignore[name-defined]

    @property
    def b(self) -> int:
        return 1

    class Inner:
        c: int = 5

    d: int = attrs.field(  # type: ignore[assignment]
        default=4,  # four
    )  # end
    """Said of d."""
    # Said before e.
    def e(self) -> int:
        return self.d
@attrs.define
class F(A):
    """Only said."""
    g: int = 6
@attrs.define
class G(F):
    h: int = 7
'''.replace('"not a docstring"\n', "")
    written = written_out({"module": text})["module"]
    for line in (
        "from __future__ import division\nfrom __future__ import annotations\n",
        '\nODD = "\x0c\u2028"\n',
        "@typing.final\n# why  # hot\n\n\nclass A:  # of all\n",
        "    CONSTANT = 3  # stays\n    a: list[A]  # type: ignore[name-defined]\n\n    @property\n",
        "    class Inner:\n        c: int = 5\n",
        '    d: int  # type: ignore[assignment]  # four  # end\n\n\n    """Said of d."""\n\n    def __init__',
        "\n    # Said before e.\n    def e(self) -> int:\n        return self.d\n\nclass F(A):\n",
        "\n    g: int\n\n    def __init__",
    ):
        assert line in written
    assert "attrs.define" not in written and "attrs.field" not in written
    made = imported({"module": written}, "module")["module"]
    assert repr(made.G([])) == "G(a=[], d=4, g=6, h=7)"
    assert made.A([], 5).e() == 5 and made.A.Inner.c == 5


def test_types_are_kept_across_modules(tmp_path: Path) -> None:
    """A base's annotations and defaults are not names of the module of the class; mypy must find them."""
    texts = {
        "made_types": '"""Said."""\n\n\nclass Other:\n    """Said."""\n',
        "made_lower": """
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal
import attrs
import math
if TYPE_CHECKING:
    from made_types import Other
LIMIT = 3
@attrs.define
class A:
    size: int
    other: "Sequence[Other | None]" = ()
    mode: Literal["r", "w"] = "r"
    then: Callable[["A"], None] | None = None
    limit: int = LIMIT
    ratio: float = math.pi
    kept: "dict[int, list[A]]" = attrs.field(factory=dict)
""",
        "made_upper": """
import attrs
from made_lower import A
@attrs.define
class B(A):
    also: int = 1
def made() -> B:
    return B(1, (None,), "w", lambda a: None, kept={1: [A(2)]}, also=3)
""",
    }
    written = written_out(texts)
    for module, text in written.items():
        (tmp_path / f"{module}.py").write_text(text)
    out, err, failed = mypy.api.run(
        ["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", *map(str, tmp_path.glob("*.py"))]
    )
    assert not failed, out + err
    assert "\nif _plain_typing.TYPE_CHECKING:\n    import " in written["made_upper"]
    upper = imported(written, *texts)["made_upper"]
    assert repr(upper.B(1)) == repr(imported(texts, *texts)["made_upper"].B(1))
    assert upper.made().also == 3


def test_classes_that_hold_nothing() -> None:
    module = _plain('@attrs.define\nclass A:\n    """Said."""\n\n\n@attrs.define\nclass B:\n    pass\n')
    assert (repr(module.A()), repr(module.B()), module.A.__doc__) == ("A()", "B()", "Said.")
    assert module.A() == module.A() and module.A() != module.B() and not is_hashable(module.A())
