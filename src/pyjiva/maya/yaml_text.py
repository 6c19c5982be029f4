"""YAML from strangers: an annotation, a request's body.  Pure.

Read with PyYAML's own parser, and less than YAML allows: no anchors and aliases (a few of them are a text of
gigabytes), no tags, one document, no key twice (YAML 1.2 §3.2.1.3 forbids it, PyYAML takes the last), at most
so large, so deep and so many parts.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import yaml

from pyjiva.errors import ConfigError

__all__ = ["BYTES_MAX", "DEPTH_MAX", "NODES_MAX", "read_json_like", "read_strings"]

BYTES_MAX: Final = 64 * 1024
"""Kubernetes takes 256 KiB for all annotations of an object together; a policy list of all names has 4."""
DEPTH_MAX: Final = 16
NODES_MAX: Final = 4096


def read_strings(text: str) -> Any:
    """Dictionaries, lists, and every scalar as the text that stands there ("" where there is none).

    So `cpu: 0.50` stays 0.50, and `on` is no boolean.  None: there is nothing.  Raises ConfigError: it is no
    YAML, or not of this kind.
    """
    return _read(text, _text)


def read_json_like(text: str) -> Any:
    """Scalars that JSON has are those (the core schema of YAML 1.2, without NaN and infinity); others text.

    Raises ConfigError: as `read_strings`.
    """
    return _read(text, _json_scalar)


def _made(node: Any, scalar: Callable[[Any], Any]) -> Any:
    """What a node stands for.  Depth is limited by now."""
    if isinstance(node, yaml.ScalarNode):
        return scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_made(each, scalar) for each in node.value]
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refused("a key is no text", key_node)
        key = _text(key_node)
        if key in made:
            raise _refused(f"key {key!r} stands there twice", key_node)
        made[key] = _made(value_node, scalar)
    return made


def _text(node: Any) -> str:
    text = str(node.value)
    if _HALF_CHARACTER.search(text):
        raise _refused("an escape of half a character", node)
    return text


def _json_scalar(node: Any) -> Any:
    text = _text(node)
    if node.style in ("'", '"', "|", ">"):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")  # JSON's escapes make whole ones of two, YAML's do not
_WORDS: Final[dict[str, bool | None]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,40}", re.ASCII)  # the longest that mean something are of 128 bits
_NUMBER: Final = re.compile(
    r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,2})?", re.ASCII
)


def _read(text: str, scalar: Callable[[Any], Any]) -> Any:
    size_bytes = len(text.encode(errors="replace"))
    if size_bytes > BYTES_MAX:
        raise ConfigError(f"YAML of {size_bytes} bytes: at most {BYTES_MAX}")
    try:
        _check_events(text)
        # Nodes alone, without PyYAML's constructors: what is made of them is made here.
        node: Any = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if node is None else _made(node, scalar)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"not YAML that is read here: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML has not; a lone surrogate
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}") from error


def _check_events(text: str) -> None:
    """Before anything is made of it: the parser needs no recursion, the rest does."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("anchors and aliases are not taken", event)
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
            if getattr(event, "tag", None) not in (None, "!"):
                raise _refused("tags are not taken", event)
            if nodes > NODES_MAX:
                raise _refused(f"more than {NODES_MAX} parts", event)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise _refused(f"more than {DEPTH_MAX} deep", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _refused("more than one document", event)


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
