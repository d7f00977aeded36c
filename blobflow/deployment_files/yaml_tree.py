"""YAML and JSON as nodes that know where they stand, in bounded memory. Pure.

Nothing is computed of scalars: each is the text that stands there, so that a tag of 1.10 stays one. Aliases
are the node that they name, not a copy, and no node is inside itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

import yaml

from blobflow.deployment_files.source_text import Piece, SourceText, word_segments
from blobflow.errors import InvalidConfig
from blobflow.printable import one_line

# A file of 16 MiB with the longest manifests that are known has half as many.
MAX_NODES = 1_000_000
MAX_ALIASES = 100_000
# Readers walk down recursively, some calls a level.
MAX_DEPTH = 100
# Mappings that `<<` brings into one.
_MAX_MERGED = 200
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Anchor and tag of a node, which belong to its place.
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*[ \t\r\n]*(?:#[^\n]*\n[ \t\r\n]*)*)+")
# JSON writes what is beyond U+FFFF as two of these; YAML does not know them.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class _Mark(Protocol):
    """A place in a text, as PyYAML's two parsers have it."""

    index: int


def _index(mark: _Mark | None) -> int:
    assert mark is not None
    return mark.index


class Node:
    """A scalar, list or mapping. `start` and `end`: its characters in the text. `depth`: levels below it."""

    __slots__ = ("depth", "end", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end, self.depth = start, end, 0


class Scalar(Node):
    """`style`: the quote, `|` or `>`, else "". `tag`: as it is written, mostly ""."""

    __slots__ = ("source", "style", "tag", "value")

    def __init__(self, source: SourceText, event: yaml.ScalarEvent) -> None:
        super().__init__(_index(event.start_mark), _index(event.end_mark))
        self.source = source
        self.value: str = event.value
        self.style: str = event.style or ""
        self.tag: str = event.tag or ""

    @property
    def is_null(self) -> bool:
        return not self.style and self.value in ("", "~", "null", "Null", "NULL")

    @property
    def piece(self) -> Piece:
        """Its value, as a text that stands in the file."""
        text = self.source.text
        start = self.start
        if properties := _PROPERTIES.match(text, start, self.end):
            start = properties.end()
        quote = self.style if self.style in ("'", '"') else "|" if self.style in ("|", ">") else ""
        inner = 1 if quote in ("'", '"') else 0
        raw = text[start + inner : self.end - inner]
        if raw == self.value:
            segments = [(0, start + inner)]
        elif self.style == "|":
            segments = _literal_segments(self.value, raw, start)
        else:
            segments = word_segments(self.value, raw, start + inner)
        return self.source.excerpt(self.value, segments, start).whole(quote)


class ListNode(Node):
    __slots__ = ("items", "tag")

    def __init__(self, start: int, tag: str) -> None:
        super().__init__(start, start)
        self.items: list[Node] = []
        self.tag = tag


class MappingNode(Node):
    """`pairs`: keys and values in order, `<<` among them. A key that is no scalar is left out, and
    `braces` says so: that is what `{{ … }}` without quotes is to YAML."""

    __slots__ = ("_by_key", "braces", "pairs")

    def __init__(self, start: int) -> None:
        super().__init__(start, start)
        self.pairs: list[tuple[Scalar, Node]] = []
        self.braces = False
        self._by_key: dict[str, Node] | None = None

    def own(self, key: str) -> Node | None:
        """The value of a key that stands in the mapping itself; the last, if it does so twice."""
        if self._by_key is None:
            self._by_key = {name.value: value for name, value in self.pairs}
        return self._by_key.get(key)

    def get(self, key: str) -> Node | None:
        """The value of a key, also of one that `<<` brings in."""
        return next((found for each in self._sources() if (found := each.own(key)) is not None), None)

    def _sources(self) -> Iterator[MappingNode]:
        """The mapping, and those that `<<` brings into it, nearest first."""
        todo, seen = [self], set[int]()
        while todo and len(seen) < _MAX_MERGED:
            each = todo.pop(0)
            if id(each) in seen:
                continue
            seen.add(id(each))
            yield each
            merged = each.own("<<")
            if merged is not None:
                many = merged.items if isinstance(merged, ListNode) else [merged]
                todo += [other for other in many[:_MAX_MERGED] if isinstance(other, MappingNode)]

    def items(self) -> Iterator[tuple[Scalar, Node]]:
        """All keys and values, with those that `<<` brings in and the mapping does not have itself."""
        seen = set[str]()
        for each in self._sources():
            for key, value in each.pairs:
                if key.value != "<<" and (each is self or key.value not in seen):
                    yield key, value
            seen.update(key.value for key, _ in each.pairs)

    def scalar(self, *keys: str) -> Scalar | None:
        """The first of these keys that has a scalar which is not empty."""
        for key in keys:
            if (found := self.get(key)) and isinstance(found, Scalar) and not found.is_null and found.value:
                return found
        return None

    def text(self, key: str) -> str:
        """The text under a key; "" if there is none."""
        found = self.scalar(key)
        return found.value if found else ""

    def mapping(self, key: str) -> MappingNode | None:
        """The mapping under a key."""
        found = self.get(key)
        return found if isinstance(found, MappingNode) else None

    def list(self, key: str) -> list[Node]:
        """The items of the list under a key; none if there is no list."""
        found = self.get(key)
        return found.items if isinstance(found, ListNode) else []


def each_mapping(node: Node, visit: Callable[[MappingNode], None]) -> None:
    """Call for each mapping in a node, once however many aliases name it; not within `metadata`."""
    todo, seen = [node], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, Scalar):
            continue
        seen.add(id(each))
        if isinstance(each, ListNode):
            todo += each.items
        elif isinstance(each, MappingNode):
            visit(each)
            todo += [value for key, value in each.pairs if key.value != "metadata"]


def _literal_segments(value: str, raw: str, at: int) -> list[tuple[int, int]]:
    """The segments of a `|` scalar: each of its lines is the end of a line of the file."""
    segments: list[tuple[int, int]] = []
    cursor = raw.find("\n") + 1
    start = 0
    for line in value.split("\n"):
        end = raw.find("\n", cursor)
        end = len(raw) if end < 0 else end
        written = raw[cursor:end].rstrip("\r")
        if not cursor or not written.endswith(line.rstrip("\r")):
            break
        segments.append((start, at + cursor + len(written) - len(line.rstrip("\r"))))
        start += len(line) + 1
        cursor = end + 1
    return segments


class NotYaml(InvalidConfig):
    """A text is no YAML; it may be something else."""


def compose(source: SourceText) -> list[Node]:
    """The documents of a text. Raises NotYaml; InvalidConfig for more of something than is held."""
    name, composer = source.path, _Composer(source)
    text = source.text
    if text.lstrip()[:1] in ("{", "["):
        text = _SURROGATE.sub(r"\\u003f", text)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.reader.ReaderError as error:
        raise NotYaml(f"{name} has a character that YAML forbids: U+{_code(error):04X}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {source.line(min(mark.index, len(source.text)))}" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be read"
        raise NotYaml(f"{name}{at} is not YAML: {one_line(str(problem))}") from None
    return composer.documents


def _code(error: yaml.reader.ReaderError) -> int:
    found: object = error.character
    if isinstance(found, int):
        return found
    return ord(found[0]) if isinstance(found, str | bytes) and found and isinstance(found[0], str) else 0


class _Composer:
    """Makes nodes of events."""

    def __init__(self, source: SourceText) -> None:
        self.documents: list[Node] = []
        self._source = source
        self._open: list[tuple[ListNode | MappingNode, str | None]] = []
        self._keys: list[Node | None] = []
        self._anchors: dict[str, Node] = {}
        self._nodes = self._aliases = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._add(Scalar(self._source, event), event.anchor)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.SequenceStartEvent():
                self._begin(ListNode(_index(event.start_mark), event.tag or ""), event.anchor)
            case yaml.MappingStartEvent():
                self._begin(MappingNode(_index(event.start_mark)), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                node, anchor = self._open.pop()
                self._keys.pop()
                node.end = _index(event.end_mark)
                self._add(node, anchor)
            case yaml.DocumentStartEvent():
                self._anchors.clear()

    def _begin(self, node: ListNode | MappingNode, anchor: str | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            self._refuse(node.start, f"is nested over {MAX_DEPTH} levels deep")
        if anchor:
            self._anchors.pop(anchor, None)
        self._open.append((node, anchor))
        self._keys.append(None)

    def _alias(self, event: yaml.AliasEvent) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            self._refuse(_index(event.start_mark), f"has over {MAX_ALIASES} aliases")
        node = self._anchors.get(event.anchor or "")
        if node is None:
            inside = any(anchor == event.anchor for _, anchor in self._open)
            wrong = "stands inside what it names" if inside else "names no anchor before it"
            line = self._source.line(_index(event.start_mark))
            shown = one_line(event.anchor or "", 60)
            raise NotYaml(f"{self._source.path} line {line} has an alias that {wrong}: *{shown}")
        self._attach(node)

    def _add(self, node: Node, anchor: str | None) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(node.start, f"has over {MAX_NODES} values")
        if anchor:
            self._anchors[anchor] = node
        self._attach(node)

    def _attach(self, node: Node | None) -> None:
        assert node is not None
        if not self._open:
            self.documents.append(node)
            return
        parent, _ = self._open[-1]
        parent.depth = max(parent.depth, node.depth + 1)
        if parent.depth > MAX_DEPTH:  # aliases stack what is nested
            self._refuse(parent.start, f"is nested over {MAX_DEPTH} levels deep")
        if isinstance(parent, ListNode):
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = node
            return
        self._keys[-1] = None
        if isinstance(key, Scalar):
            parent.pairs.append((key, node))
        else:
            parent.braces = True

    def _refuse(self, offset: int, why: str) -> None:
        raise InvalidConfig(f"{self._source.path} line {self._source.line(offset)} {why}")
