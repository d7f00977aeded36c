"""What `kubectl kustomize` makes of names: kustomizations among the files that were read, and the images in
resources that their `images:` entries replace. Pure.

A kustomization that no other one takes in is what people build. What it pulls are the names in its resources
after its own entries and those of the kustomizations below it; entries are carried out from below, each on
what those before it made. Of a kustomization that was not read, as one in a folder above, nothing is known.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

import msgspec

from blobflow.deployment_files.contract import NamedImage, UntoldImage
from blobflow.deployment_files.findings import reference_or_reason
from blobflow.errors import InvalidConfig
from blobflow.oci import Reference

# The names of files that kustomize builds a folder by.
_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# Which of the images in resources kustomize replaces.
_REPLACED_FIELDS = frozenset(("container", "initContainer", "patch"))
# Kustomizations that take in one another, one below the other; and names in all of them together.
_MAX_DEPTH = 100
_MAX_NAMES = 1_000_000


class ImageEntry(msgspec.Struct, frozen=True):
    """An entry of `images:`. `line` and `written`: as what it names, or can't be told, was found with.
    `is_known`: whether its tag can be told."""

    name: str
    new_name: str
    tag: str
    digest: str
    suffix: str
    line: int
    written: str
    is_known: bool = True


class Kustomization(msgspec.Struct, frozen=True):
    """`resources`: the files and folders that it names, by their paths."""

    path: str
    entries: tuple[ImageEntry, ...]
    resources: tuple[str, ...]


class BuiltImages(msgspec.Struct, frozen=True):
    """What is pulled, and what can't be told of it. `matched`: names that an entry is for, each with the
    kustomization that has it; if they were others, it would not find them. `finals`: the images that come of
    an entry's new name whose tag stands in resources."""

    images: tuple[NamedImage, ...]
    untold: tuple[UntoldImage, ...]
    matched: dict[NamedImage, str]
    finals: dict[NamedImage, tuple[Reference, ...]]


# An entry: the path of its kustomization, and its number there.
_EntryAt = tuple[str, int]


class _Name(NamedTuple):
    """What has become of an image in a resource: its name now, and the last entry that changed it."""

    image: NamedImage
    text: str
    by: _EntryAt | None = None
    is_known: bool = True


def is_built(path: str) -> bool:
    """Whether a file is a kustomization of its folder, by its name."""
    return PurePath(path).name in _NAMES


def build(
    named: Sequence[NamedImage],
    untold: Sequence[UntoldImage],
    open_names: Sequence[NamedImage],
    kustomizations: Iterable[Kustomization],
) -> BuiltImages:
    """What is pulled of files that name these images, each file by itself. Raises InvalidConfig where
    kustomizations take in more than anybody could deploy."""
    by_path = {posixpath.normpath(each.path): each for each in kustomizations}
    if not by_path:
        return BuiltImages(tuple(named), tuple(untold), {}, {})
    return _Builds(named, by_path).result(named, untold, open_names)


class _Builds:
    def __init__(self, named: Sequence[NamedImage], by_path: Mapping[str, Kustomization]) -> None:
        self._kustomizations = by_path
        self._images: dict[str, list[NamedImage]] = {}
        for image in named:
            if image.field in _REPLACED_FIELDS:
                self._images.setdefault(posixpath.normpath(image.path), []).append(image)
        self._matched: dict[NamedImage | _EntryAt, str] = {}
        self._hit: set[_EntryAt] = set()
        self._built: dict[str, tuple[_Name, ...]] = {}
        self._open: set[str] = set()
        self._count = 0
        taken_in = {found for path in by_path for found in self._below(path)}
        roots = [path for path in by_path if path not in taken_in] or list(by_path)
        self._names: dict[NamedImage, dict[_Name, None]] = {}
        self._finals: dict[_EntryAt, dict[_Name, None]] = {}
        for root in roots:
            for name in self._build(root, 0):
                self._names.setdefault(name.image, {})[name] = None
                if name.by is not None:
                    self._finals.setdefault(name.by, {})[name] = None

    def _below(self, path: str) -> Iterator[str]:
        """The kustomizations that one takes in."""
        for resource in self._kustomizations[path].resources:
            for each in (resource, *(posixpath.join(resource, name) for name in _NAMES)):
                if each in self._kustomizations and each != path:
                    yield each

    def _build(self, path: str, depth: int) -> tuple[_Name, ...]:
        """The names that a kustomization pulls. One that takes in itself is what kustomize refuses; here it
        is passed over."""
        if (built := self._built.get(path)) is not None:
            return built
        if path in self._open or depth > _MAX_DEPTH:
            return ()
        self._open.add(path)
        kustomization = self._kustomizations[path]
        names: dict[_Name, None] = {}
        for file in (path, *kustomization.resources):
            names.update(dict.fromkeys(_Name(image, image.written) for image in self._images.get(file, ())))
        for below in dict.fromkeys(self._below(path)):
            names.update(dict.fromkeys(self._build(below, depth + 1)))
        self._count += len(names) * (1 + len(kustomization.entries))
        if self._count > _MAX_NAMES:
            raise InvalidConfig(f"{kustomization.path} and what it takes in name over {_MAX_NAMES} images")
        for number, entry in enumerate(kustomization.entries):
            names = dict.fromkeys(self._apply(entry, (path, number), name) for name in names)
        self._open.discard(path)
        self._built[path] = tuple(names)
        return self._built[path]

    def _apply(self, entry: ImageEntry, at: _EntryAt, name: _Name) -> _Name:
        bare, end = _split(name.text)
        if not entry.name or bare != entry.name:
            return name
        self._hit.add(at)
        before = name.image if name.by is None else name.by
        self._matched.setdefault(before, self._kustomizations[at[0]].path)
        if entry.tag or entry.digest:
            end = (f":{entry.tag}" if entry.tag else "") + (f"@{entry.digest}" if entry.digest else "")
            return _Name(name.image, (entry.new_name or bare) + end, at, entry.is_known)
        end = f"{end.partition('@')[0]}{entry.suffix}" if entry.suffix else end
        return _Name(name.image, (entry.new_name or bare) + end, at, name.is_known and entry.is_known)

    def result(
        self,
        named: Sequence[NamedImage],
        untold: Sequence[UntoldImage],
        open_names: Sequence[NamedImage],
    ) -> BuiltImages:
        entries = {
            (kustomization.path, entry.line, entry.written): (path, number)
            for path, kustomization in self._kustomizations.items()
            for number, entry in enumerate(kustomization.entries)
        }
        images: list[NamedImage] = []
        matched: dict[NamedImage, str] = {}
        for image in named:
            at = entries.get(_key(image)) if image.field.startswith("kustomize") else None
            by = self._matched.get(image if at is None else at)
            if by is not None:
                matched[image] = by
            images += self._pulled(image, at)
        finals: dict[NamedImage, tuple[Reference, ...]] = {}
        for image in open_names:
            at = entries.get(_key(image))
            if at is not None and (by := self._matched.get(at)):
                matched[image] = by
            if at is not None and (known := self._told(at)):
                finals[image] = known
        left = [
            each
            for each in untold
            if not each.field.startswith("kustomize") or not self._is_told(entries.get(_key(each)))
        ]
        return BuiltImages(tuple(images), tuple(left), matched, finals)

    def _pulled(self, image: NamedImage, at: _EntryAt | None) -> Iterator[NamedImage]:
        """What is pulled because of a name in a file: the image itself, or what entries make of it. `at`: of
        a name that an entry has."""
        if at is not None:
            if at not in self._hit or image.reference in self._told(at):
                yield image
            return
        names = self._names.get(image)
        if names is None:
            yield image
            return
        for name in names:
            if name.by is None:
                yield image
            elif name.is_known and not isinstance(found := reference_or_reason(name.text), str):
                by = self._kustomizations[name.by[0]].path
                field = f"{image.field} (replaced by {by})"
                yield msgspec.structs.replace(image, reference=found, field=field, parts=())

    def _told(self, at: _EntryAt) -> tuple[Reference, ...]:
        """The images that come of an entry, as far as they can be told."""
        found = [reference_or_reason(name.text) for name in self._finals.get(at, ()) if name.is_known]
        return tuple(dict.fromkeys(each for each in found if not isinstance(each, str)))

    def _is_told(self, at: _EntryAt | None) -> bool:
        """Whether all is known that comes of an entry whose own tag can't be told."""
        return at is not None and at in self._hit and all(name.is_known for name in self._finals.get(at, ()))


def _key(found: NamedImage | UntoldImage) -> tuple[str, int, str]:
    return found.path, found.line, found.written


def bare_name(text: str) -> str:
    """A name without tag and digest."""
    return _split(text)[0]


def _split(text: str) -> tuple[str, str]:
    """A name without tag and digest, as kustomize compares it, and these."""
    name = text.partition("@")[0]
    name = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    return name, text[len(name) :]
