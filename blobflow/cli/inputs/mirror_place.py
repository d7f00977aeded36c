"""Where images have their place in a mirror: by the rules that nodes are told, and for those of a spec by the
same expansion that `sync` follows. Pure, but for `read_places`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from blobflow import mirror_places
from blobflow.cli.inputs.expansion import pair_of
from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix
from blobflow.cli.inputs.spec_files import with_files_of
from blobflow.cli.inputs.spec_formats import detect_format, read_spec
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError
from blobflow.oci import Reference
from blobflow.oci.local_reference import transport_of
from blobflow.oci.reference import check_repository
from blobflow.oci.tag_selection.matching import matching_tags

# An image's place, its digest kept. Raises UsageError, the end of a sentence about it, where it has none.
PlaceOf = Callable[[Reference], Reference]


def check_mirror(place: RegistryPrefix) -> RegistryPrefix:
    """The place, if it is a registry's. Raises UsageError."""
    if transport_of(place.host):
        raise UsageError(f"{place} is no registry, and nodes pull from one; say which with --to")
    return place


def is_at(image: Reference, mirror: RegistryPrefix) -> bool:
    """Whether an image is named in the mirror already."""
    return mirror.holds(image)


def places_below(mirror: RegistryPrefix, source: RegistryPrefix | None = None) -> PlaceOf:
    """The places that `sync --to MIRROR` brings images to; with `source`, those of images that are there, as
    `--from` takes them."""
    check_mirror(mirror)
    to = str(mirror)
    places = mirror_places.places_below(to) if source is None else mirror_places.places_under(str(source), to)

    def place_of(image: Reference) -> Reference:
        if is_at(image, mirror):
            return image
        place = places.place_of(image) if source is None or source.holds(image) else None
        if place is None:
            raise UsageError(f"is not of {source}, as --from says")
        check_repository(place.repository)
        return place

    return place_of


def _placed(request: ImageRequest, image: Reference, mirror: RegistryPrefix) -> Reference:
    """The image's place, with its own digest."""
    return msgspec.structs.replace(pair_of(request, mirror).target, digest=image.digest)


class SpecPlaces:
    """The places that the images of a spec have at one of its targets, by their names there."""

    def __init__(self, request: MirrorRequest, name: str, mirror: RegistryPrefix | None) -> None:
        self._name = name
        self._mirror = mirror
        self._targets = request.targets
        self._requests: dict[str, list[ImageRequest]] = {}
        for image in request.images:
            self._requests.setdefault(image.source.host, []).append(image)

    def place_of(self, image: Reference) -> Reference:
        """The image's place. Raises UsageError where the spec does not name it."""
        if any(is_at(image, mirror) for mirror in ([self._mirror] if self._mirror else self._targets)):
            return image
        named = next(self._naming(image), None)
        if named is None:
            raise UsageError(f"is not among the images of {self._name}")
        return _placed(named, image, self._target(named))

    def _target(self, image: ImageRequest) -> RegistryPrefix:
        targets = image.targets or self._targets
        if self._mirror is not None:
            if self._mirror in targets:
                return self._mirror
            raise UsageError(f"goes nowhere in {self._mirror} by {self._name}")
        if len(targets) != 1:
            raise UsageError(f"has several places by {self._name}; say with --to which mirror is meant")
        return check_mirror(targets[0])

    def _naming(self, image: Reference) -> Iterator[ImageRequest]:
        """What of the spec the image is, the most exact first: by its tag or digest, by rules, and for an
        image that is named by digest alone by its repository."""
        loose: list[ImageRequest] = []
        for each in self._requests.get(image.host, ()):
            if each.repositories is None and each.source.under(each.path, "").repository != image.repository:
                continue
            if each.search is None:
                if each.tag == image.tag and each.digest in ("", image.digest):
                    yield each
                elif not image.tag:
                    loose.append(each)
            elif (chosen := _chosen(each, image)) is not None:
                loose.append(chosen)
        yield from (msgspec.structs.replace(each, tag=image.tag, digest=image.digest) for each in loose)


def _chosen(request: ImageRequest, image: Reference) -> ImageRequest | None:
    """The image as one that rules choose, so far as names tell it; None if they don't."""
    path = image.repository.removeprefix(f"{request.source.prefix}/" if request.source.prefix else "")
    if request.repositories is not None and not matching_tags([path], request.repositories):
        return None
    if image.tag and request.rules is not None and not matching_tags([image.tag], request.rules):
        return None
    return msgspec.structs.replace(request, path=path, rules=None, repositories=None)


def read_places(spec: Path, mirror: RegistryPrefix | None) -> PlaceOf:
    """The places that a spec, ours or another tool's, gives its images at `mirror`, or at its only target.

    Raises as `read_spec`, and UsageError where it has no such target.
    """
    text, name = read_text(spec), input_name(spec)
    form = detect_format(text, name)
    targets = (mirror,) if form == "skopeo" and mirror is not None else ()
    request = with_files_of(
        read_spec(text, name, targets, form, environ=os.environ, needs_targets=False), spec.parent
    )
    own = dict.fromkeys([*request.targets, *(target for image in request.images for target in image.targets)])
    if mirror is None and len(own) > 1:
        raise UsageError(
            f"{name} has several targets; say with --to which is meant: {', '.join(map(str, own))}"
        )
    if not own and mirror is not None:
        request = msgspec.structs.replace(request, targets=(mirror,))
    elif mirror is not None and mirror not in own:
        raise UsageError(f"{mirror} is no target of {name}, which has {', '.join(map(str, own)) or 'none'}")
    if not own and mirror is None:
        raise UsageError(f"{name} has no target; say with --to which mirror is meant")
    return SpecPlaces(request, name, mirror).place_of
