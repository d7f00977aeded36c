"""YAML → typed values, with errors that name the line and what to write instead. Pure.

YAML reads 1.10 as the number 1.1, so where text is wanted anything but quoted or plainly textual values is
refused. A key twice in a mapping is refused too: the parser would let the last one win.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeVar

import yaml

from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.printable import printable
from blobflow.typed_values import Checked, Mistake, check_value, path_text
from blobflow.validation_messages import reworded, suggestion

T = TypeVar("T")

_SHOWN_LINES = 5
_SHOWN = 60  # characters
_MAX_TEXT = 8 * 1024**2  # characters; hundreds of thousands of images
_MAX_MERGED = 100_000  # keys
# Scalars that are something else than a text: nothing, and the key that takes another mapping in.
_MERGE = "tag:yaml.org,2002:merge"
_NON_TEXT_TAGS = ("tag:yaml.org,2002:null", _MERGE)
_UNREADABLE = object()


_SPEC_KEYS = "version, defaults and images; a list of images goes with --from, --to and --images"


def compose(text: str, name: str, what: str = "a spec", keys: str = _SPEC_KEYS) -> yaml.MappingNode:
    """The YAML as nodes, which know their lines and how a scalar was written. `what` it should be, and the
    keys of its mapping, are for errors. Raises InvalidConfig for what is no mapping."""
    if len(text) > _MAX_TEXT:
        raise InvalidConfig(f"{name} has more than {_MAX_TEXT // 1024**2} MiB, which is too much for {what}")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        wrong = f"{name} line {line} has a character that YAML forbids: U+{error.character:04X}"
        raise InvalidConfig(wrong) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{name}{at} is not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} is nested too deeply to be {what}") from None
    if not isinstance(node, yaml.MappingNode):
        raise InvalidConfig(f"{name} is not {what}: it has to be a mapping with {keys}")
    return node


def to_struct(
    node: yaml.Node, name: str, kind: type[T], errors: FileErrors, *, as_written: bool = False
) -> T | None:
    """What of the node is right, as a value of `kind`; None if too little is.

    What is wrong goes to `errors`, with file, line, and what to write instead; items of lists that are left
    out for it leave the node, too, and misspelt keys become right, so that `node_at` finds the others.
    `as_written`: every scalar is the text that stands there, as programs read it that know which type they
    want: 1.10 is a tag then.
    """
    _drop_repeated_keys(node, name, errors)
    for each in _nodes(node):
        if not isinstance(each, yaml.ScalarNode) or each.tag in _NON_TEXT_TAGS:
            continue
        # No number and no date is that long; to compute one of 1:59:59… takes the square of its length.
        if as_written or len(each.value) > _SHOWN:
            each.tag = "tag:yaml.org,2002:str"
    if (line := _endless_merge(node)) is not None:
        wrong = f"{name} line {line}: with the keys that `<<` brings in, the file has too many"
        errors.add(InvalidConfig(wrong), line=line, typo=True)
        return None
    plain = _plain(node, name, errors)
    if plain is _UNREADABLE:
        return None
    checked = check_value(plain, kind, strict=not as_written)
    for mistake in checked.mistakes:
        sentence, line = _explain(mistake, node, name)
        errors.add(InvalidConfig(sentence), line=line, typo=bool(mistake.unknown))
    _mend(node, checked)
    value: T | None = checked.value
    return value


def drop_empty_keys(node: yaml.Node) -> None:
    """Remove keys without a value from all mappings, and extensions (`x-…`).

    Null is an absent field to Go's decoders; anchors are often put under extensions.
    """
    for each in _nodes(node):
        if isinstance(each, yaml.MappingNode):
            each.value = [
                (key, value)
                for key, value in each.value
                if not (is_null(value) or str(key.value).startswith("x-"))
            ]


def _mend(root: yaml.Node, checked: Checked) -> None:
    """Take what was dropped out of the nodes, and write misspelt keys right."""
    dropped = [(node_at(root, *path[:-1]), path[-1]) for path in checked.dropped]
    misspelt = [(node_at(root, *each.path), each) for each in checked.mistakes if each.meant]
    for whole, index in reversed(dropped):
        if isinstance(whole, yaml.SequenceNode) and isinstance(index, int) and index < len(whole.value):
            del whole.value[index]
    for whole, mistake in misspelt:
        for key, _ in whole.value if isinstance(whole, yaml.MappingNode) else ():
            if key.value == mistake.unknown:
                key.value = mistake.meant


def _plain(node: yaml.Node, name: str, errors: FileErrors) -> object:
    """The node as dicts, lists and scalars. Scalars that are not what they look like become text."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        wrong = [*_unreadable(node)]
        if not wrong:
            mark = getattr(error, "problem_mark", None)
            at = f" line {mark.line + 1}" if mark else ""
            wrong_file = f"{name}{at} can't be read: {getattr(error, 'problem', None) or error}"
            errors.add(InvalidConfig(wrong_file), line=mark.line + 1 if mark else 0, typo=True)
            return _UNREADABLE
        for each, why in wrong:
            each.tag = "tag:yaml.org,2002:str"
            shown = printable(each.value, _SHOWN)
            sentence = f"{name} line {line_of(each)}: {shown} can't be read: {why}; quote it: '{shown}'"
            errors.add(InvalidConfig(sentence), line=line_of(each))
        return _plain(node, name, errors)
    finally:
        loader.dispose()


def _endless_merge(root: yaml.Node) -> int | None:
    """The line of the mapping whose `<<` is one too many: mappings that take in others, which take in others
    again, have more keys than any memory. None if all is well."""
    mappings = [each for each in _nodes(root) if isinstance(each, yaml.MappingNode)]
    sizes: dict[int, int] = {}
    total = 0
    for node in sorted(mappings, key=lambda each: each.end_mark.index):  # what is taken in ends before
        merged = 0
        for key, value in node.value:
            if key.tag == _MERGE:
                taken = value.value if isinstance(value, yaml.SequenceNode) else [value]
                merged += sum(sizes.get(id(each), 0) for each in taken)
        sizes[id(node)] = len(node.value) + merged
        total += merged
        if total > _MAX_MERGED:
            return line_of(node)
    return None


def _unreadable(root: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, str]]:
    """Scalars that can't be what they look like, and why."""
    loader = yaml.SafeLoader("")
    try:
        for node in _nodes(root):
            if isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":str", ":merge")):
                try:
                    loader.construct_document(node)
                except (yaml.YAMLError, ValueError) as error:
                    yield node, str(getattr(error, "problem", None) or error)
    finally:
        loader.dispose()


def _drop_repeated_keys(root: yaml.Node, name: str, errors: FileErrors) -> None:
    """Leave the first of each key in every mapping; the others, and keys that are no words, are errors."""
    for node in _nodes(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[str, int] = {}
        kept = []
        for key, value in node.value:
            line = line_of(key)
            if not isinstance(key, yaml.ScalarNode):
                wrong = f"{name} line {line}: a key has to be a word"
                errors.add(InvalidConfig(wrong), line=line, typo=True)
            elif key.value in seen:
                sentence = f"{name} line {line}: `{key.value}` is there already, at line {seen[key.value]}"
                errors.add(InvalidConfig(sentence), line=line, typo=True)
            else:
                seen[key.value] = line
                if key.tag != _MERGE:
                    key.tag = "tag:yaml.org,2002:str"
                kept.append((key, value))
        node.value = kept


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """The nodes of a tree, each once: aliases can repeat them, or make a circle."""
    seen: set[int] = set()
    todo = deque([root])
    while todo:
        node = todo.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            todo += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


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
_KINDS = {"int": "a number", "float": "a number", "bool": "yes or no", "timestamp": "a date"}


def _explain(mistake: Mistake, root: yaml.Node, name: str) -> tuple[str, int]:
    """One sentence for a mistake, with file, line, and what to write instead; and the line."""
    node, steps = node_at(root, *mistake.path), mistake.path
    if mistake.unknown:
        key = mistake.unknown
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        line = next((line_of(k) for k, _ in pairs if k.value == key), line_of(node))
        return (
            f"{name} line {line}: unknown key `{key}`; {suggestion(key, mistake.known, mistake.below)}",
            line,
        )
    line = line_of(node)
    where = f"{name} line {line}"
    what = path_text(steps)
    what = f"{what}: " if what else ""
    scalar = node.tag.rpartition(":")[2]
    if isinstance(node, yaml.ScalarNode) and scalar in _KINDS and "`str" in mistake.problem:
        kind = _KINDS[scalar]
        return (
            f"{where}: {what[:-2]} is {node.value}, which YAML reads as {kind}; quote it: '{node.value}'",
            line,
        )
    if mistake.words and isinstance(node, yaml.ScalarNode):
        words = " or ".join(sorted(mistake.words))
        return f"{where}: {what[:-2]} is {printable(node.value, _SHOWN)!r}; it can be {words}", line
    return f"{where}: {what}{reworded(mistake.problem, _IN_YAML)}", line


def node_at(node: yaml.Node, *steps: str | int) -> yaml.Node:
    """The node below these keys and indexes, or the nearest one above it."""
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
