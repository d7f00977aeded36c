"""Spec files: YAML → typed → pairs. Pure.

    version: 1
    defaults: {source: docker.io, targets: [127.0.0.1:5000/mirror]}
    images:
      - rancher/pause:3.1
      - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}

- `defaults.source` is where images without a host come from (docker.io if not given), `defaults.targets`
  where all go; each is HOST[/prefix].
- An image is `[host/]repository[:tag][@digest]`, or a mapping of `image`, `tags` (tags or digests of it) and
  `target`, the repository path under each target's prefix.
- `platforms` (as `[linux/amd64, linux/arm64]`) and `index` (auto, keep, prune, only) say what of an image is
  wanted; an image's own go before those of `defaults`.

YAML reads 1.10 as the number 1.1, so anything but quoted or plainly textual tags is refused. Keys that are
not known are errors: a typing mistake must not quietly mirror something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

import msgspec
import yaml

from blobflow.cli.choosing import platforms_of
from blobflow.cli.selection import Place, Wanted, hub_path, make_pairs, parse_place
from blobflow.engine.plan import Pair
from blobflow.errors import InvalidConfig, InvalidDigest, InvalidReference, UsageError
from blobflow.oci import parse_digest
from blobflow.oci.choice import Choice, IndexMode
from blobflow.oci.reference import DOCKER_HUB, check_repository, check_tag, split_name

_VERSION = 1


class _Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str = DOCKER_HUB
    targets: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("all",)
    index: IndexMode = "auto"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    image: str
    tags: tuple[str, ...] | None = None
    target: str = ""
    platforms: tuple[str, ...] | None = None
    index: IndexMode | None = None


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    images: tuple[str | _Entry, ...]
    defaults: _Defaults = _Defaults()


def spec_pairs(text: str, name: str) -> list[Pair]:
    """The pairs that a spec asks for. `name` is what the file is called in errors.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    node = _compose(text, name)
    spec = _typed(node, name)
    if spec.version != _VERSION:
        raise InvalidConfig(f"{name} has version {spec.version}; this blobflow reads version {_VERSION}")
    if not spec.images:
        raise UsageError(f"{name} names no image; list them under `images`")
    if not spec.defaults.targets:
        raise InvalidConfig(f"{name} has no targets; write defaults: {{targets: [HOST/prefix]}}")
    source = _place(spec.defaults.source, f"{name}: defaults.source")
    targets = [_place(target, f"{name}: defaults.targets") for target in spec.defaults.targets]
    wanted: list[Wanted] = []
    for index, entry in enumerate(spec.images):
        where = f"{name} line {_line(_find(node, f'.images[{index}]'))}"
        try:
            typed = entry if isinstance(entry, _Entry) else _Entry(entry)
            wanted.extend(_wanted(typed, source, where, _choice(typed, spec.defaults, where)))
        except (InvalidReference, InvalidDigest) as error:
            raise InvalidReference(f"{where}: {error}") from None
    return make_pairs(wanted, targets)


def _choice(entry: _Entry, defaults: _Defaults, where: str) -> Choice:
    words = defaults.platforms if entry.platforms is None else entry.platforms
    try:
        return Choice(platforms_of(words), entry.index or defaults.index)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _wanted(entry: _Entry, source: Place, where: str, choice: Choice) -> Iterator[Wanted]:
    """The images of one entry: one for each of its tags."""
    host, path, tag, digest = split_name(entry.image.removeprefix("docker://"))
    if host:
        source = Place(host)
    if entry.tags is not None and (tag or digest):
        raise UsageError(f"{where}: {entry.image} has `tags` as well as a tag or digest of its own; keep one")
    if entry.tags == ():
        raise UsageError(
            f"{where}: {entry.image} has no tags in its list of tags; leave `tags` out for latest"
        )
    target = check_repository(entry.target) if entry.target else ""
    path = hub_path(source, path)
    if entry.tags is None:
        yield Wanted(source, path, tag or ("" if digest else "latest"), digest, where, target, choice)
    for name in entry.tags or ():
        if ":" in name:
            yield Wanted(source, path, "", parse_digest(name), where, target, choice)
        else:
            yield Wanted(source, path, check_tag(name), "", where, target, choice)


def _place(text: str, where: str) -> Place:
    try:
        return parse_place(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


def _compose(text: str, name: str) -> yaml.MappingNode:
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
        raise InvalidConfig(f"{name} is not a spec: it has to be a mapping with version, defaults and images")
    return node


def _typed(node: yaml.MappingNode, name: str) -> _Spec:
    _refuse_repeated_keys(node, name)
    loader = yaml.SafeLoader("")
    try:
        return msgspec.convert(loader.construct_document(node), _Spec)
    except msgspec.ValidationError as error:
        raise InvalidConfig(_explain(str(error), node, name)) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise InvalidConfig(f"{name} can't be read: {getattr(error, 'problem', None) or error}") from None
    finally:
        loader.dispose()


def _refuse_repeated_keys(root: yaml.MappingNode, name: str) -> None:
    """YAML forbids a key twice in a mapping; the parser lets the last one win."""
    images = _child(root, "images")
    entries = images.value if isinstance(images, yaml.SequenceNode) else []
    for node in (root, _child(root, "defaults"), *entries):
        seen: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise InvalidConfig(f"{name} line {_line(key)}: a key has to be a word")
            if key.value in seen:
                raise InvalidConfig(
                    f"{name} line {_line(key)}: `{key.value}` is there already, at line {seen[key.value]}"
                )
            seen[key.value] = _line(key)


# msgspec's message: what is wrong, and a path as `$.images[1].tags[0]` unless it is the root.
_COMPLAINT = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_IN_YAML = {
    " | null`": "`",
    "array": "list",
    "object": "mapping",
    "str": "text",
    "Object missing required": "It misses the",
}
_KINDS = {"int": "a number", "float": "a number", "bool": "yes or no", "timestamp": "a date"}


def _explain(complaint: str, root: yaml.MappingNode, name: str) -> str:
    """One sentence for a validation error: file, line, and what to write instead."""
    found = _COMPLAINT.match(complaint)
    problem, path = (found["problem"], found["path"] or "") if found else (complaint, "")
    node = _find(root, path)
    if unknown := _UNKNOWN.match(problem):
        key = unknown[1]
        line = next((_line(k) for k, _ in node.value if getattr(k, "value", None) == key), _line(node))
        known = msgspec.structs.fields(_struct_at(path))
        close = get_close_matches(key, [field.name for field in known], n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(f.name for f in known)}"
        return f"{name} line {line}: unknown key `{key}`; {hint}"
    where = f"{name} line {_line(node)}"
    what = path.lstrip(".") or "the spec"
    kind = node.tag.rpartition(":")[2]
    if isinstance(node, yaml.ScalarNode) and kind in _KINDS and "`str" in problem:
        return (
            f"{where}: {what} is {node.value}, which YAML reads as {_KINDS[kind]}; quote it: '{node.value}'"
        )
    for theirs, ours in _IN_YAML.items():
        problem = problem.replace(theirs, ours)
    return f"{where}: {what}: {problem[:1].lower()}{problem[1:]}"


def _struct_at(path: str) -> type[msgspec.Struct]:
    return _Defaults if path.startswith(".defaults") else _Entry if path.startswith(".images") else _Spec


def _find(node: yaml.Node, path: str) -> yaml.Node:
    """The node at a path as `.images[1].tags[0]`, or the nearest one above it."""
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        below = node.value[int(index)] if index else _child(node, key)
        if below is None:
            return node
        node = below
    return node


def _child(node: yaml.Node, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
