"""YAML → typed values, with errors that name the line and what to write instead. Pure.

YAML reads 1.10 as the number 1.1, so where text is wanted anything but quoted or plainly textual values is
refused. A key twice in a mapping is refused too: the parser would let the last one win.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec
import yaml
from msgspec import inspect

from blobflow.errors import InvalidConfig, InvalidDigest, InvalidReference, UsageError
from blobflow.printable import printable
from blobflow.validation_messages import reworded, split_message, suggestion

T = TypeVar("T")

_SHOWN_LINES = 5
_SHOWN = 60  # characters
# Scalars that are something else than a text: nothing, and the key that takes another mapping in.
_NON_TEXT_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


def compose(text: str, name: str) -> yaml.MappingNode:
    """The YAML as nodes, which know their lines and how a scalar was written."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{name}{at} is not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} is nested too deeply to be a spec") from None
    if not isinstance(node, yaml.MappingNode):
        raise InvalidConfig(
            f"{name} is not a spec: it has to be a mapping with version, defaults and images; a list"
            " of images goes with --from, --to and --images"
        )
    return node


def to_struct(node: yaml.Node, name: str, kind: type[T], *, as_written: bool = False) -> T:
    """The node as a value of `kind`. Raises InvalidConfig with file, line, and what to write instead.

    `as_written`: every scalar is the text that stands there, as programs read it that know which type they
    want: 1.10 is a tag then.
    """
    _reject_repeated_keys(node, name)
    if as_written:
        for each in _nodes(node):
            if isinstance(each, yaml.ScalarNode) and each.tag not in _NON_TEXT_TAGS:
                each.tag = "tag:yaml.org,2002:str"

    def convert() -> T:
        return msgspec.convert(_plain(node, name), kind, strict=not as_written)

    try:
        return convert()
    except msgspec.ValidationError as error:
        complaint = str(error)
    problem, path = split_message(complaint)
    steps = _steps(path)
    for at in range(len(steps)):
        if steps[at] == _ANY_KEY:
            steps[at] = _failing_key(complaint, _walk(node, steps[:at]), convert)
    raise InvalidConfig(_explain_error(problem, steps, node, name, kind))


def _failing_key(complaint: str, mapping: yaml.Node, convert: Callable[[], object]) -> str:
    """The key of a mapping that a complaint is about, which does not name it.

    It is the first key that alone gives the same complaint; the mapping keeps only that one.
    """
    whole = mapping.value
    for pair in whole if isinstance(mapping, yaml.MappingNode) else ():
        mapping.value = [pair]
        try:
            convert()
        except msgspec.ValidationError as error:
            if str(error) == complaint:
                return str(pair[0].value)
    mapping.value = whole
    return _ANY_KEY


def _plain(node: yaml.Node, name: str) -> object:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise InvalidConfig(f"{name} can't be read: {getattr(error, 'problem', None) or error}") from None
    finally:
        loader.dispose()


def _reject_repeated_keys(root: yaml.Node, name: str) -> None:
    for node in _nodes(root):
        seen: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise InvalidConfig(f"{name} line {line_of(key)}: a key has to be a word")
            if key.value in seen:
                raise InvalidConfig(
                    f"{name} line {line_of(key)}: `{key.value}` is there already, at line {seen[key.value]}"
                )
            seen[key.value] = line_of(key)


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """The nodes of a tree, each once: aliases can repeat them, or make a circle."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            todo += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_IN_YAML = {
    " | null`": "`",
    "array": "list",
    "object": "mapping",
    "str": "text",
    "bool": "true or false",
    "int": "number",
    "float": "number",
    "Object missing required": "It misses the",
}
# How msgspec writes any key of a mapping that may have any.
_ANY_KEY = "..."
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_KINDS = {"int": "a number", "float": "a number", "bool": "yes or no", "timestamp": "a date"}


def _explain_error(problem: str, steps: list[str | int], root: yaml.Node, name: str, kind: type) -> str:
    """One sentence for a validation error: file, line, and what to write instead."""
    node, types = _walk(root, steps), _types_at(kind, steps)
    if unknown := _UNKNOWN.match(problem):
        key = unknown[1]
        line = next((line_of(k) for k, _ in node.value if getattr(k, "value", None) == key), line_of(node))
        keys = [field.encode_name for each in types for field in _fields(each)]
        return f"{name} line {line}: unknown key `{key}`; {suggestion(key, keys)}"
    where = f"{name} line {line_of(node)}"
    what = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    what = what or "the spec"
    scalar = node.tag.rpartition(":")[2]
    if isinstance(node, yaml.ScalarNode) and scalar in _KINDS and "`str" in problem:
        return (
            f"{where}: {what} is {node.value}, which YAML reads as {_KINDS[scalar]}; quote it: '{node.value}'"
        )
    words = [str(word) for each in types if isinstance(each, inspect.LiteralType) for word in each.values]
    if words and isinstance(node, yaml.ScalarNode):
        return f"{where}: {what} is {printable(node.value, _SHOWN)!r}; it can be {' or '.join(words)}"
    return f"{where}: {what}: {reworded(problem, _IN_YAML)}"


def _types_at(kind: type, steps: Sequence[str | int]) -> list[inspect.Type]:
    """The types at a path, with unions taken apart."""
    types = _alternatives(inspect.type_info(kind))
    for step in steps:
        types = [below for each in types for below in _below(each, step)]
    return types


def _below(kind: inspect.Type, step: str | int) -> list[inspect.Type]:
    """The types under a key, or in a list at an index, with unions taken apart."""
    if isinstance(kind, inspect.VarTupleType):
        return _alternatives(kind.item_type)
    if isinstance(kind, inspect.DictType):
        return _alternatives(kind.value_type)
    return [
        each for field in _fields(kind) if field.encode_name == step for each in _alternatives(field.type)
    ]


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return _alternatives(kind.type)
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def _fields(kind: inspect.Type) -> tuple[inspect.Field, ...]:
    return kind.fields if isinstance(kind, inspect.StructType) else ()


def _steps(path: str) -> list[str | int]:
    """Keys and indexes of a path as `.images[1].tags[0]`."""
    return [key or (int(index) if index.isdecimal() else index) for key, index in _STEP.findall(path)]


def node_at(node: yaml.Node, path: str) -> yaml.Node:
    """The node at a path as `.images[1].tags[0]`, or the nearest one above it."""
    return _walk(node, _steps(path))


def _walk(node: yaml.Node, steps: Sequence[str | int]) -> yaml.Node:
    for step in steps:
        below = child(node, step)
        if below is None:
            return node
        node = below
    return node


def child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    """The node under a key of a mapping, or at an index of a list; None if there is none."""
    if isinstance(step, int):
        return node.value[step] if isinstance(node, yaml.SequenceNode) and step < len(node.value) else None
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == step), None)


def is_null(node: yaml.Node) -> bool:
    """Whether the node is empty or null."""
    return bool(node.tag == "tag:yaml.org,2002:null")


def line_of(node: yaml.Node) -> int:
    """The line in which a node begins, from 1."""
    line: int = node.start_mark.line
    return line + 1


def lines_text(lines: Sequence[int]) -> str:
    """`line 3`, or `lines 3, 9, 12, 15, 20 …`."""
    shown = ", ".join(map(str, lines[:_SHOWN_LINES]))
    return f"line{'s' if len(lines) > 1 else ''} {shown}{' …' if len(lines) > _SHOWN_LINES else ''}"


@contextmanager
def errors_located_at(where: str) -> Iterator[None]:
    """Put `where` before the message of an error about the input that is raised inside."""
    try:
        yield
    except (InvalidReference, InvalidDigest) as error:
        raise InvalidReference(f"{where}: {error}") from None
    except InvalidConfig as error:
        raise InvalidConfig(f"{where}: {error}") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
