"""manifest-tool's ways to describe an index: its YAML file and its template. Pure.

    image: registry.example.com/app:1.2
    tags: ["1", latest]
    annotations: {org.opencontainers.image.licenses: MIT}
    manifests:
      - image: registry.example.com/app:1.2-arm64
        platform: {architecture: arm64, os: linux, variant: v8}

Scalars are text as they are written, as they are to manifest-tool: the tag 1.10 is no number. A platform is
`architecture`, `os`, `variant`, `os.version` and `os.features` (or `osversion`, `osfeatures`: the names that
manifest-tool itself reads); `features` are read and left out, since no index has a place for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import yaml

from blobflow.cli.output.units import one_line
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.oci import Platform, Reference, parse_platform, parse_reference
from blobflow.oci.index_draft import parse_label
from blobflow.oci.reference import check_tag
from blobflow.operations.indexes import EntryRequest
from blobflow.validation_messages import reworded, split_message, suggestion


class IndexSpec(msgspec.Struct, frozen=True):
    """An index to make: its entries, its name and its further tags."""

    target: Reference
    wishes: tuple[EntryRequest, ...]
    tags: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: tuple[str, ...] = msgspec.field(name="os.features", default=())
    osversion: str = ""
    osfeatures: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def label(self) -> Platform:
        return parse_label(
            self.architecture,
            self.os,
            self.variant,
            self.os_version or self.osversion,
            self.os_features or self.osfeatures,
        )


class _Entry(msgspec.Struct, frozen=True):
    image: str
    platform: _Platform = _Platform()


class _File(msgspec.Struct, frozen=True):
    image: str
    manifests: tuple[_Entry, ...]
    tags: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


class _Loader(yaml.BaseLoader):
    """Reads every scalar as text. YAML forbids a repeated key; PyYAML alone would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            problem = "" if isinstance(key, yaml.ScalarNode) else "a key has to be a word"
            problem = problem or (f"`{key.value}` is there twice" if key.value in seen else "")
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_manifest_tool(text: str, name: str) -> IndexSpec:
    """The index that a file describes; `name` is what the file is called in errors.

    Raises InvalidConfig or InvalidReference with the file, the place and what is wrong there.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{name}{at} is not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} is nested too deeply to be a list of images") from None
    file = _to_file(document, name)
    if not file.manifests:
        raise InvalidConfig(f"{name}: `manifests` is empty; an index needs an image")
    wishes = []
    for number, entry in enumerate(file.manifests):
        image = _parse_image(entry.image, f"{name}: manifests[{number}].image")
        wishes.append(EntryRequest(image, entry.platform.label))
    return IndexSpec(
        _parse_image(file.image, f"{name}: image"),
        tuple(wishes),
        tuple(_parse_tag(tag, f"{name}: tags") for tag in file.tags),
        file.annotations,
    )


def index_spec_of(target: str, images: Iterable[str], tags: Iterable[str] = ()) -> IndexSpec:
    """An index of images without labels. Raises InvalidReference."""
    return IndexSpec(
        parse_reference(target),
        tuple(EntryRequest(parse_reference(image)) for image in images),
        tuple(_parse_tag(tag, "--tags") for tag in tags),
    )


def index_spec_from_template(
    platforms: Iterable[str], template: str, target: str, tags: Iterable[str] = ()
) -> IndexSpec:
    """An index with one image a platform: `template`, with ARCH, OS and VARIANT (each once) filled in.

    Raises UsageError or InvalidReference.
    """
    wishes = []
    for text in platforms:
        label = parse_platform(text)
        words = {"ARCH": label.architecture, "OS": label.os, "VARIANT": label.variant}
        wishes.append(
            EntryRequest(_parse_image(_fill_template(template, words), f"--template for {text}"), label)
        )
    if not wishes:
        raise UsageError("--platforms names no platform; write --platforms linux/amd64,linux/arm64")
    if len({wish.image for wish in wishes}) < len(wishes):
        raise UsageError(
            f"--template {template} names one image for several platforms; put ARCH into it, and VARIANT for "
            "platforms that differ in it"
        )
    return IndexSpec(
        _parse_image(target, "--target"), tuple(wishes), tuple(_parse_tag(tag, "--tags") for tag in tags)
    )


def _fill_template(template: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        template = template.replace(placeholder, word, 1)
    return template


def _parse_image(text: str, where: str) -> Reference:
    try:
        return parse_reference(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


def _parse_tag(text: str, where: str) -> str:
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


_IN_YAML = {"array": "list", "object": "mapping", "str": "text", "Object missing required": "It misses the"}


def _to_file(document: object, name: str) -> _File:
    _reject_unknown_keys(document, _File, name)
    try:
        return msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        problem, path = split_message(str(error))
        where = f"{name}: {path.lstrip('.')}".rstrip(": ")
        raise InvalidConfig(f"{where}: {reworded(problem, _IN_YAML)}") from None


def _reject_unknown_keys(document: Any, kind: type[msgspec.Struct], where: str) -> None:
    """Raise InvalidConfig for unknown keys: manifest-tool ignores them, and a typing mistake makes another
    index."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key, value in document.items() if isinstance(document, dict) else ():
        if key not in known:
            raise InvalidConfig(f"{where}: unknown key `{one_line(str(key))}`; {suggestion(str(key), known)}")
        if kind is _File and key == "manifests":
            for number, entry in enumerate(_items(value)):
                _reject_unknown_keys(entry, _Entry, f"{where}: manifests[{number}]")
        if kind is _Entry and key == "platform":
            _reject_unknown_keys(value, _Platform, f"{where}.platform")


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
