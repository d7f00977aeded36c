"""The names of images in layouts and archives, and finding the image that a reference means. Pure.

A name in such a place may be a bare tag (`3.1`, as skopeo writes into a layout), a full reference
(`docker.io/rancher/pause:3.1`, as docker and podman write) or a part of one. So a name that is asked for is
looked for as it stands, then with docker's defaults on both sides, then, if it has no host, under any host.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from blobflow.errors import InvalidDigest, InvalidReference, NotFound, UnsupportedContent, UsageError
from blobflow.oci import Digest, parse_digest
from blobflow.oci.reference import DOCKER_HUB, split_name
from blobflow.oci.referrers import subject_in_tag
from blobflow.printable import first_of

# Annotations that name an image: image-spec annotations.md, and containerd's.
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_Image = TypeVar("_Image")
_SHOWN = 8


def digest_or_none(name: str) -> Digest | None:
    """`name` if it is a digest: anything else with a colon may be a reference."""
    try:
        return parse_digest(name)
    except InvalidDigest:
        return None


def full_name(name: str) -> str:
    """`name` with docker's defaults, as `docker.io/library/alpine:latest`; "" if it is no reference."""
    try:
        host, path, tag, digest = split_name(name)
    except InvalidReference:
        return ""
    host = host or DOCKER_HUB
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return f"{host}/{path}@{digest}" if digest else f"{host}/{path}:{tag or 'latest'}"


def tagged_name(name: str) -> str:
    """As `full_name`, but "" for a bare word or tag: what it belongs to is not said."""
    return full_name(name) if ":" in name and "@" not in name else ""


def _without_host(name: str) -> str:
    full = full_name(name)
    return full.partition("/")[2].removeprefix("library/")


def _has_host(name: str) -> bool:
    try:
        return bool(split_name(name)[0])
    except InvalidReference:
        return False


_WAYS: tuple[Callable[[str], str], ...] = (str, full_name)
_WAYS_WITHOUT_HOST = (*_WAYS, _without_host)


class ImageNames(Generic[_Image]):
    """The images of a place, each with its names, to be asked many times: they are looked through once for
    each way of reading names. Images of one `identity` are one, however often and under however many names
    they are listed; the first listing counts."""

    def __init__(
        self, images: Sequence[tuple[Iterable[str], _Image]], identity: Callable[[_Image], Hashable]
    ) -> None:
        self._images = images
        self._distinct = _Distinct(images, identity)
        self._bearers: dict[Callable[[str], str], dict[str, list[int]]] = {}

    def choose(self, name: str, place: str, own: Sequence[int] | None = None) -> _Image:
        """The image that `name` means among those of `place`.

        `@n` is the n-th from 0; "" is the only one, of those with the numbers `own` (None: of all). Raises
        NotFound; UsageError where several fit, with what to write; UnsupportedContent where several bear the
        very name.
        """
        images = self._images
        if name.startswith("@"):
            return _numbered(images, name, place)
        if not name:
            found = self._distinct.among(range(len(images)) if own is None else own)
            if len(found) == 1:
                return images[found[0]][1]
            if not found:
                raise NotFound(f"{place} holds no image")
            raise UsageError(f"{place} holds {len(found)} images; {self._distinct.choices(found, place)}")
        for way in _WAYS if _has_host(name) else _WAYS_WITHOUT_HOST:
            found = self._distinct.among(self._bearing(way).get(way(name), ()))
            if len(found) == 1:
                return images[found[0]][1]
            if found:
                error = UnsupportedContent if way is str else UsageError
                said = f"images named {name}" if way is str else f"images that {name} may mean"
                raise error(f"{place} has {len(found)} {said}; {self._distinct.choices(found, place)}")
        raise NotFound(f"{place} has no image {name}; {_known(images, place)}")

    def bearing(self, name: str) -> list[_Image]:
        """The images that bear the very name, as they are listed."""
        return [self._images[number][1] for number in self._bearing(str).get(name, ())]

    def _bearing(self, way: Callable[[str], str]) -> Mapping[str, Sequence[int]]:
        """The numbers of the images that bear each name, read that way."""
        if way not in self._bearers:
            found: dict[str, list[int]] = {}
            for number, (names, _) in enumerate(self._images):
                for word in filter(None, map(way, names)):
                    found.setdefault(word, []).append(number)
            self._bearers[way] = found
        return self._bearers[way]


class _Distinct(Generic[_Image]):
    """Images by their identity, each spoken of by the number of its first listing."""

    def __init__(
        self, images: Sequence[tuple[Iterable[str], _Image]], identity: Callable[[_Image], Hashable]
    ) -> None:
        first: dict[Hashable, int] = {}
        self._first = [first.setdefault(identity(image), number) for number, (_, image) in enumerate(images)]
        self._images = images

    def among(self, numbers: Iterable[int]) -> list[int]:
        """The images of some listings, each once."""
        return list(dict.fromkeys(self._first[number] for number in numbers))

    def choices(self, found: Sequence[int], place: str) -> str:
        """What to write for each of these: a name that no other image has, or its number."""
        bearers: dict[str, set[int]] = {}
        own: dict[int, list[str]] = {}
        for first, (names, _) in zip(self._first, self._images, strict=True):
            for name in names:
                bearers.setdefault(name, set()).add(first)
                own.setdefault(first, []).append(name)
        words = [
            next((name for name in own.get(number, ()) if len(bearers[name]) == 1), f"@{number}")
            for number in found[:_SHOWN]
        ]
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        return f"write {place}:NAME with one of {', '.join(words)}{more}"


def unambiguous_names(
    images: Sequence[tuple[Sequence[str], _Image]], identity: Callable[[_Image], Hashable]
) -> list[str]:
    """One name for each image that has any, as it is to be asked for: the first that no other image has."""
    bearers: dict[str, set[Hashable]] = {}
    for names, image in images:
        for name in names:
            bearers.setdefault(name, set()).add(identity(image))
    chosen = (
        next((name for name in names if len(bearers[name]) == 1), names[0]) for names, _ in images if names
    )
    return list(dict.fromkeys(chosen))


def _numbered(images: Sequence[tuple[Iterable[str], _Image]], name: str, place: str) -> _Image:
    if not name[1:].isdecimal():
        raise UsageError(f"{name} is neither a name nor a number; write @0 for the first image of {place}")
    if int(name[1:]) >= len(images):
        raise NotFound(f"{place} has {len(images)} images, numbered from @0; there is no {name}")
    return images[int(name[1:])][1]


def _known(images: Sequence[tuple[Iterable[str], _Image]], place: str) -> str:
    names = list(dict.fromkeys(name for own, _ in images for name in own))
    if not names:
        return f"none of its images has a name, so write {place}:@n"
    # What hangs on images has names, too, and more of them.
    return f"it has {first_of([each for each in names if not subject_in_tag(each)] or names, _SHOWN)}"
