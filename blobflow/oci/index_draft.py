"""Drafts: indexes that are made by hand, whose labels are checked against their images' configs. Pure.

The platform in an index is a *label*: clients choose by it, and nothing stops it from being wrong. Labels are
put by hand (`--arch`, a spec), taken from an index that listed the image before, or hidden in a tag
(`app:1-arm64`). The image's own word is its config. A label may add to that (a variant, say), but one that
contradicts it is refused, unless it is forced.

An index is of one kind with its images: a Docker list of Docker images, an OCI index of OCI images. Of both
kinds one is only made if its format is asked for. The images stay as they are in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from blobflow.errors import UnsupportedContent, UsageError
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.index_encoding import IndexFormat, encode_index
from blobflow.oci.manifest import Manifest
from blobflow.oci.platform import Platform, implied_variant, parse_platform
from blobflow.oci.platform_choice import attested_digest
from blobflow.oci.reference import Reference

# Indexes of real images have some ten entries, the largest some dozens; each costs two or three requests.
MAX_MEMBERS = 1000

NO_PLATFORM = Platform()
_FORMS: dict[str, IndexFormat] = {media.OCI_MANIFEST: "oci", media.DOCKER_MANIFEST: "docker"}

# What tags call architectures, besides what platforms do.
_ARCHITECTURES = (
    "amd64|386|arm64|arm|ppc64le|ppc64|s390x|riscv64|mips64le|mips64|mipsle|mips|loong64"
    "|x86_64|x64|i386|i686|x86|aarch64|arm32|armhf|armel"
)
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm32": ("arm", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", ""),  # v5 and v6 go by this name
}
_TAG_LABEL = re.compile(rf"(?:.*[-_])?(?P<architecture>{_ARCHITECTURES})[-_]?(?P<variant>v[1-9])?\Z")


class DraftImage(msgspec.Struct, frozen=True):
    """An image of a draft.

    `image`: the reference that it came by. `descriptor` has neither platform nor annotations. `config`: what
    its config says it runs on. `label`: what is said besides.
    """

    image: Reference
    descriptor: Descriptor
    config: Platform = NO_PLATFORM
    label: Platform = NO_PLATFORM
    annotations: dict[str, str] = {}

    @property
    def platform(self) -> Platform:
        """What the index will say: the label's words where it has any, else the config's."""
        features = dict.fromkeys((*self.config.os_features, *self.label.os_features))
        return Platform(
            architecture=self.label.architecture or self.config.architecture,
            os=self.label.os or self.config.os,
            variant=self.label.variant or self.config.variant,
            os_version=self.label.os_version or self.config.os_version,
            os_features=tuple(features),
        )

    def labelled(self, label: Platform) -> DraftImage:
        """This member with more said of it: words replace earlier ones, features are added."""
        features = dict.fromkeys((*self.label.os_features, *label.os_features))
        words = {key: word for key, word in msgspec.structs.asdict(label).items() if word}
        merged = msgspec.structs.replace(self.label, **{**words, "os_features": tuple(features)})
        return msgspec.structs.replace(self, label=merged)

    @property
    def mention(self) -> Descriptor:
        return msgspec.structs.replace(
            self.descriptor, platform=self.platform, annotations=self.annotations or None
        )

    def is_named(self, reference: Reference) -> bool:
        """Whether a reference means this member: the one that it came by, or its digest there."""
        own = self.image
        here = (own.host, own.repository) == (reference.host, reference.repository)
        return own == reference or (here and reference.digest == self.descriptor.digest)


class IndexDraft(msgspec.Struct, frozen=True):
    """An index that is not put yet. `tags`: what it is to be called besides the target's own tag."""

    target: Reference
    members: tuple[DraftImage, ...] = ()
    tags: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    form: IndexFormat | None = None

    def amended(self, other: IndexDraft) -> IndexDraft:
        """This draft with what another says: images that both have are the other's, in their old place."""
        members = {member.image: member for member in (*self.members, *other.members)}
        return msgspec.structs.replace(
            self,
            members=tuple(members.values()),
            tags=tuple(dict.fromkeys((*self.tags, *other.tags))),
            annotations={**self.annotations, **other.annotations},
            form=other.form or self.form,
        )

    def index(self) -> Manifest:
        """The index as it will be put.

        Raises UsageError for no images, images of both kinds and no `form`, an image without a platform, two
        for the same one, and annotations in a Docker list, which has no place for them; UnsupportedContent
        for too many.
        """
        if not self.members:
            raise UsageError(f"{self.target} has no images; an index of none is of no use")
        check_count(len(self.members), self.target)
        _check_platforms(self.members)
        form = self.form or _common_form(self.members)
        if form == "docker":
            self._refuse_annotations()
        return encode_index([member.mention for member in self.members], form, self.annotations)

    def _refuse_annotations(self) -> None:
        annotated = [self.target] if self.annotations else []
        annotated += [member.image for member in self.members if member.annotations]
        if annotated:
            raise UsageError(
                f"{annotated[0]} has annotations, and a Docker list has no place for them; leave them "
                "out, or say --format oci"
            )


def check_count(images: int, name: Reference) -> None:
    """Raise UnsupportedContent for more images than an index by hand takes."""
    if images > MAX_MEMBERS:
        raise UnsupportedContent(
            f"{name} has {images} images, more than the {MAX_MEMBERS} that an index made by hand takes"
        )


def _common_form(members: tuple[DraftImage, ...]) -> IndexFormat:
    first: dict[IndexFormat, DraftImage] = {}
    for member in members:
        first.setdefault(_FORMS[member.descriptor.media_type], member)
    if len(first) > 1:
        raise UsageError(
            f"{first['docker'].image} is a Docker image and {first['oci'].image} is an OCI image; say "
            "--format oci or --format docker for the index that lists both (they stay as they are)"
        )
    return next(iter(first))


def _check_platforms(members: tuple[DraftImage, ...]) -> None:
    taken: dict[tuple[object, ...], DraftImage] = {}
    for member in members:
        if attested_digest(member.mention):
            continue
        platform = member.platform
        if not (platform.os and platform.architecture):
            raise UsageError(
                f"{member.image} says no platform: neither its config nor a label does; give it one with "
                "index annotate --os OS --arch ARCH"
            )
        rival = taken.setdefault(_place(platform), member)
        if rival is not member:
            raise UsageError(
                f"{rival.image} and {member.image} are both for {platform}, and clients would only ever take "
                "the first; leave one out, or tell them apart with index annotate --variant or --os-version"
            )


def _place(platform: Platform) -> tuple[object, ...]:
    """What clients tell platforms apart by."""
    variant = platform.variant or implied_variant(platform.architecture)
    return platform.os, platform.architecture, variant, platform.os_version, frozenset(platform.os_features)


def parse_label(
    architecture: str = "",
    os: str = "",
    variant: str = "",
    os_version: str = "",
    os_features: Iterable[str] = (),
) -> Platform:
    """A label from words as people write them: aarch64 is arm64. Raises UsageError."""
    os, variant = os.lower(), variant.lower()
    if architecture:
        named = parse_platform(f"{os or 'linux'}/{architecture}")
        architecture, variant = named.architecture, variant or named.variant
    return Platform(architecture, os, variant, os_version, tuple(os_features))


def label_in_tag(tag: str) -> Platform | None:
    """The architecture that a tag ends with, as `1-arm64`, `v2.1_armv7` or `amd64`; None if with none."""
    found = _TAG_LABEL.match(tag)
    if found is None:
        return None
    architecture, variant = _ALIASES.get(found["architecture"], (found["architecture"], ""))
    return Platform(architecture=architecture, variant=found["variant"] or variant)


def check_label(image: Reference, label: Platform, config: Platform, *, by: str = "") -> None:
    """Raise UsageError if a label contradicts an image's config; `by`: what says so, if it is no option.

    What either leaves unsaid is no contradiction, and neither are more features.
    """
    pairs = (
        (label.os, config.os),
        (label.architecture, config.architecture),
        (label.variant, config.variant),
        (label.os_version, config.os_version),
    )
    if any(said and own and said != own for said, own in pairs):
        raise UsageError(
            f"{image} is labelled {_shown(label, config)}{by}, but its config says {config}; rebuild or "
            "rename it, correct the label, or say --force to keep it"
        )


def _shown(label: Platform, config: Platform) -> str:
    """A label as a whole platform: of system and architecture what it leaves out is the config's."""
    named = {"os": label.os or config.os, "architecture": label.architecture or config.architecture}
    return str(msgspec.structs.replace(label, **named))
