"""manifest-tool's words for an index: its YAML file and its template, as wishes. Pure.

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

from blobflow.cli.figures import one_line
from blobflow.complaints import hint, split_complaint, worded
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.indexes import Wish
from blobflow.oci import Platform, Reference, parse_platform, parse_reference
from blobflow.oci.drafts import make_label
from blobflow.oci.reference import check_tag


class ListSpec(msgspec.Struct, frozen=True):
    """An index that is wanted: of what, and what it is to be called."""

    target: Reference
    wishes: tuple[Wish, ...]
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
        return make_label(
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
    """Makes text of every scalar. YAML forbids a key twice in a mapping; PyYAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            problem = "" if isinstance(key, yaml.ScalarNode) else "a key has to be a word"
            problem = problem or (f"`{key.value}` is there twice" if key.value in seen else "")
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_list_spec(text: str, name: str) -> ListSpec:
    """What a file asks for; `name` is what it is called in errors.

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
    file = _typed(document, name)
    if not file.manifests:
        raise InvalidConfig(f"{name}: `manifests` is empty; an index needs an image")
    wishes = []
    for number, entry in enumerate(file.manifests):
        image = _reference(entry.image, f"{name}: manifests[{number}].image")
        wishes.append(Wish(image, entry.platform.label))
    return ListSpec(
        _reference(file.image, f"{name}: image"),
        tuple(wishes),
        tuple(_tag(tag, f"{name}: tags") for tag in file.tags),
        file.annotations,
    )


def list_of(target: str, images: Iterable[str], tags: Iterable[str] = ()) -> ListSpec:
    """An index of images of which nothing is said. Raises InvalidReference."""
    return ListSpec(
        parse_reference(target),
        tuple(Wish(parse_reference(image)) for image in images),
        tuple(_tag(tag, "--tags") for tag in tags),
    )


def list_from_template(
    platforms: Iterable[str], template: str, target: str, tags: Iterable[str] = ()
) -> ListSpec:
    """An image for each platform: `template` with ARCH, OS and VARIANT (each once) replaced by its words.

    Raises UsageError or InvalidReference.
    """
    wishes = []
    for text in platforms:
        label = parse_platform(text)
        words = {"ARCH": label.architecture, "OS": label.os, "VARIANT": label.variant}
        wishes.append(Wish(_reference(_filled(template, words), f"--template for {text}"), label))
    if not wishes:
        raise UsageError("--platforms names no platform; write --platforms linux/amd64,linux/arm64")
    if len({wish.image for wish in wishes}) < len(wishes):
        raise UsageError(
            f"--template {template} names one image for several platforms; put ARCH into it, and VARIANT for "
            "platforms that differ in it"
        )
    return ListSpec(_reference(target, "--target"), tuple(wishes), tuple(_tag(tag, "--tags") for tag in tags))


def _filled(template: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        template = template.replace(placeholder, word, 1)
    return template


def _reference(text: str, where: str) -> Reference:
    try:
        return parse_reference(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


def _tag(text: str, where: str) -> str:
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


_IN_YAML = {"array": "list", "object": "mapping", "str": "text", "Object missing required": "It misses the"}


def _typed(document: object, name: str) -> _File:
    _refuse_unknown(document, _File, name)
    try:
        return msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        problem, path = split_complaint(str(error))
        where = f"{name}: {path.lstrip('.')}".rstrip(": ")
        raise InvalidConfig(f"{where}: {worded(problem, _IN_YAML)}") from None


def _refuse_unknown(document: Any, kind: type[msgspec.Struct], where: str) -> None:
    """manifest-tool passes over what it does not know; a typing mistake would make another index."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key, value in document.items() if isinstance(document, dict) else ():
        if key not in known:
            raise InvalidConfig(f"{where}: unknown key `{one_line(str(key))}`; {hint(str(key), known)}")
        if kind is _File and key == "manifests":
            for number, entry in enumerate(_items(value)):
                _refuse_unknown(entry, _Entry, f"{where}: manifests[{number}]")
        if kind is _Entry and key == "platform":
            _refuse_unknown(value, _Platform, f"{where}.platform")


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
