"""Groups images of one platform each, from several archives, into one index a name. Pure.

What is alone and was whole stays what it is, byte for byte: the index or the manifest of an OCI archive, and
an index that several archives hold parts of. Everything else becomes a new index. Its children are ordered by
platform, and its bytes depend on nothing but them, so the same archives in any order give the same digest.

A new index has OCI's media type, unless all its children have Docker's: then it is Docker's list. Of children
of both kinds it is OCI's, which may list either, and `GroupedImage.mixed` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from blobflow.errors import InvalidReference, UnsupportedContent, UsageError
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest
from blobflow.oci.index_encoding import encode_index
from blobflow.oci.manifest import Manifest
from blobflow.oci.platform import Platform, implied_variant
from blobflow.oci.platform_choice import attested_digest
from blobflow.oci.reference import DOCKER_HUB, check_tag, split_name

_OFFICIAL = "library"
_DOCKERS = frozenset({media.DOCKER_LIST, media.DOCKER_MANIFEST})


class ImageName(msgspec.Struct, frozen=True, order=True):
    """What an image is called at any registry: a path of at least two components, and a tag or a digest."""

    path: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.tag}" if self.tag else f"{self.path}@{self.digest}"


class ArchivedImage(msgspec.Struct, frozen=True):
    """What one archive holds under a name: `file` is what the archive is called in messages.

    `whole`: the archive has this very manifest or index, and it was not made from a config. `platform` is
    that of an image; None for an index, of which `children` are those that count (None: all of them).
    """

    file: str
    root: Descriptor
    platform: Platform | None = None
    children: tuple[Descriptor, ...] = ()
    whole: bool = False


class GroupedImage(msgspec.Struct, frozen=True):
    """What a name will be: `root`, which is `made` unless an archive has it. `mixed`: see above."""

    root: Descriptor
    made: Manifest | None = None
    mixed: bool = False


def parse_image_name(text: str) -> ImageName | None:
    """What an archive's name for an image is at a registry: without its host, and in `library/` if it is one
    word. None if it is no whole name (`3.1`, as layouts have it). Raises InvalidReference."""
    try:
        _, path, tag, digest = split_name(text)
    except InvalidReference:
        return None
    if not tag and not digest:
        return None
    return ImageName(with_official(path), tag, digest)


def path_at_mirror(names: Sequence[str], origin: str) -> str:
    """The repository that `sync` would bring an image to, which a bundle calls by these names and says to be
    from `origin`: as the first name has it, with nothing put under `library/`. "" where no origin is said."""
    try:
        return split_name(names[0])[1] if names and origin else ""
    except InvalidReference:
        return ""


def host_of(text: str) -> str:
    """The host of an archive's name for an image, docker.io if it has none. Raises InvalidReference."""
    return split_name(text)[0] or DOCKER_HUB


def with_official(path: str) -> str:
    """A path as registries have it where docker.io's images are mirrored: one word is in `library/`."""
    return path if "/" in path else f"{_OFFICIAL}/{path}"


def group_images(name: ImageName, parts: Sequence[ArchivedImage]) -> GroupedImage:
    """What the name will be, of what the archives hold under it.

    Raises UsageError, naming both archives, where two hold an image for the same platform.
    """
    first = parts[0]
    if all(part.whole and part.root.digest == first.root.digest for part in parts):
        return GroupedImage(first.root)
    found: list[tuple[tuple[str, ...], Descriptor, ArchivedImage]] = []
    for part in parts:
        own = [(_place(child), child, part) for child in _children(part)]
        for place, child, _ in tuple(own):
            rivals = [(other, by) for at, other, by in found if at == place]
            if any(other.digest == child.digest and by.whole and part.whole for other, by in rivals):
                own.remove((place, child, part))
            elif rivals:
                raise _clash(name, child, rivals[0][1], part)
        found += own
    children = [child for _, child, _ in sorted(found, key=lambda item: item[0])]
    kinds = {child.media_type in _DOCKERS for child in children}
    made = encode_index(children, "docker" if kinds == {True} else "oci")
    return GroupedImage(made.descriptor, made, mixed=len(kinds) > 1)


def _clash(name: ImageName, child: Descriptor, one: ArchivedImage, other: ArchivedImage) -> UsageError:
    return UsageError(
        f"{one.file} and {other.file} both hold {name} for {child.platform}; leave one of them out, or say "
        "what it is for with FILE,platform=OS/ARCHITECTURE"
    )


def _children(part: ArchivedImage) -> Iterable[Descriptor]:
    if part.platform is None:
        return part.children
    return (msgspec.structs.replace(part.root, platform=part.platform),)


def _place(child: Descriptor) -> tuple[str, ...]:
    """What orders children and must be unlike: the platform; of an attestation what it attests, as well."""
    platform = child.platform or Platform()
    variant = platform.variant or implied_variant(platform.architecture)
    features = " ".join(platform.os_features)
    unlike = child.digest if attested_digest(child) or not (platform.os or platform.architecture) else ""
    return platform.os, platform.architecture, variant, platform.os_version, features, unlike


def platform_tag(tag: str, platform: Platform) -> str:
    """The tag of one platform of a name: `3.1-arm64`, `3.1-armv6`, `3.1-windows-amd64`.

    Raises InvalidReference where that is no tag.
    """
    system = "" if platform.os in ("linux", "") else f"-{platform.os}"
    implied = platform.variant in ("", implied_variant(platform.architecture))
    return check_tag(f"{tag}{system}-{platform.architecture}{'' if implied else platform.variant}")


def digest_name(name: ImageName, root: Digest) -> None:
    """Raise UnsupportedContent if the name is a digest, and not that of `root`."""
    if name.digest and name.digest != root:
        raise UnsupportedContent(f"{name} would become {root}; images in docker's archives have no digest")
