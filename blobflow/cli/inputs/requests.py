"""Requests: the images to mirror, their sources and their targets, as values. Pure.

A *prefix* is `HOST[/prefix]`. An image's *path* is its repository without the host; at a target it stands
behind the target's prefix. Where the source is docker.io itself, a path of one component is docker's
`library/…` on both sides, so that a mirror answers what a client of docker.io asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.renaming import KEEP_NAMES, RenameRule, RenameRules
from blobflow.engine.pairs import Lookup, MissingPlatform
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference
from blobflow.oci.local_reference import split_local_reference, transport_of
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.reference import DOCKER_HUB, check_host, check_repository, refuse_login
from blobflow.oci.tag_selection.rules import ALL_TAGS, TagRules
from blobflow.operations.tags.search import TagSearch

if TYPE_CHECKING:
    from blobflow.cli.runtime.cron import Schedule
    from blobflow.transports.registry import HostSettings


class RegistryPrefix(msgspec.Struct, frozen=True, order=True):
    """A registry, or the part of one under a prefix ("" for the whole); or a layout or archive.

    In a layout or archive an image's name is its path and tag, behind the prefix.
    """

    host: str
    prefix: str = ""

    def under(self, path: str, tag: str, digest: str = "") -> Reference:
        """The reference of a path here. Raises InvalidReference if it makes no repository name."""
        repository = f"{self.prefix}/{path}" if self.prefix else path
        if transport_of(self.host):
            return Reference(
                self.host, "", f"{repository}:{tag}" if tag else f"{repository}@{digest}", digest
            )
        return Reference(self.host, check_repository(repository), tag=tag, digest=digest)

    def holds(self, image: Reference) -> bool:
        """Whether an image is named as one of this registry, or below this prefix of it."""
        return image.host == self.host and (not self.prefix or image.repository.startswith(f"{self.prefix}/"))

    def __str__(self) -> str:
        between = ":" if transport_of(self.host) else "/"
        return f"{self.host}{between}{self.prefix}" if self.prefix else self.host


class ImageRequest(msgspec.Struct, frozen=True):
    """One image, or some platforms of it; or with `rules`, the tags of its repository that these choose.

    `where` is the place in the input, as `LIST.txt line 3`. `host` is what the image's name begins with in a
    layout or archive, which holds images of several hosts ("" for any). `target` replaces the path at the
    target, `target_tag` the tag, `rename` either. `targets` replace those of the whole request. With
    `repositories` the path is "", and the request is for all repositories of the source that these choose.
    `chosen`: rules chose it, so another entry may name it too. `missing_platform`: None if not given.
    `schedule`: when it is due in a daemon that keeps each entry's own time. `backup`: see `Pair.backup`.
    `locked`: its digest is what a lock file says that its tag meant.
    `signature_policy`: the file that judges it; "" if none is named.
    """

    source: RegistryPrefix
    path: str
    tag: str
    digest: str
    where: str
    target: str = ""
    choice: PlatformChoice = EVERYTHING
    rules: TagRules | None = None
    repositories: TagRules | None = None
    rename: RenameRules = KEEP_NAMES
    target_tag: str = ""
    targets: tuple[RegistryPrefix, ...] = ()
    chosen: bool = False
    referrers: Lookup = "auto"
    host: str = ""
    missing_platform: MissingPlatform | None = None
    schedule: Schedule | None = None
    backup: str = ""
    signature_policy: str = ""
    locked: bool = False

    def __str__(self) -> str:
        return str(self.origin)

    @property
    def named(self) -> str:
        """The path as the source has it, which in a layout or archive may begin with a host."""
        return f"{self.host}/{self.path}" if self.host else self.path

    @property
    def origin(self) -> Reference:
        """The image at its source. Raises InvalidReference."""
        return self.source.under(self.named, self.tag, self.digest)

    @property
    def search(self) -> TagSearch | None:
        """The search at the source that finds the tags of the rules; None without rules."""
        if self.rules is None:
            return None
        if self.repositories is not None:
            return TagSearch(self.source.host, "", self.rules, self.repositories, self.source.prefix)
        return TagSearch(self.source.host, self.source.under(self.path, "").repository, self.rules)


class CollectedPath(msgspec.Struct, frozen=True):
    """Deployment files that a spec names: a file, a folder or a pattern, relative to the spec's folder.
    `where` is the place in the spec."""

    path: str
    where: str
    custom_resources: bool = False


class MirrorRequest(msgspec.Struct, frozen=True):
    """All images of a run, and their targets.

    `warnings`: what another tool's file says and blobflow can't do, a sentence each. `hosts`: its settings of
    hosts. `schedule_hint`: the command that keeps the file's schedule, for a run that runs once. `collect`:
    files whose images are part of it once they are read. `like`: what those have besides their names.
    `collected`: those files that were read and name images; `custom_resources`: also in custom resources.
    """

    images: tuple[ImageRequest, ...]
    targets: tuple[RegistryPrefix, ...]
    warnings: tuple[str, ...] = ()
    hosts: dict[str, HostSettings] = {}
    schedule_hint: str = ""
    unread_schedules: tuple[str, ...] = ()
    collect: tuple[CollectedPath, ...] = ()
    like: ImageRequest | None = None
    collected: tuple[str, ...] = ()
    custom_resources: bool = False

    @property
    def searches(self) -> list[TagSearch]:
        """The searches that find the tags of all rules, each once."""
        return list(dict.fromkeys(search for image in self.images if (search := image.search) is not None))

    @property
    def signature_policies(self) -> frozenset[str]:
        """The files of all signature policies that images name."""
        return frozenset(image.signature_policy for image in self.images if image.signature_policy)

    @property
    def sets_missing_platform(self) -> bool:
        """Whether any image says what to do if it lacks the platforms."""
        return any(image.missing_platform is not None for image in self.images)

    @property
    def host_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The hosts of the sources, and those of the targets."""
        targets = [place for image in self.images for place in image.targets or self.targets]
        return (
            frozenset(image.source.host for image in self.images),
            frozenset(place.host for place in targets),
        )


def with_policies_in(request: MirrorRequest, folder: Path) -> MirrorRequest:
    """The request with the names of signature policies as paths: they are relative to their spec's folder."""

    def located(image: ImageRequest) -> ImageRequest:
        if not image.signature_policy:
            return image
        return msgspec.structs.replace(image, signature_policy=str(folder / image.signature_policy))

    like = located(request.like) if request.like is not None else None
    return msgspec.structs.replace(request, images=tuple(map(located, request.images)), like=like)


def parse_registry_prefix(text: str) -> RegistryPrefix:
    """Read `HOST[/prefix]`, the first component always the host, or `TRANSPORT:PATH[:prefix]`.

    Raises InvalidReference.
    """
    if located := split_local_reference(text.strip()):
        host, prefix, digest = located
        if digest:
            raise InvalidReference(f"{text[:300]!r} names one image by its digest; leave that out")
        return RegistryPrefix(host, prefix)
    refuse_login(text)
    host, slash, prefix = text.strip().removeprefix("docker://").rstrip("/").partition("/")
    return RegistryPrefix(check_host(host), check_repository(prefix, text) if slash else "")


def split_scheme(text: str) -> tuple[str, str]:
    """Cut a place given as a URL, `https://HOST[/prefix]`, into the scheme and the rest; "" without one."""
    scheme, there, rest = text.strip().partition("://")
    return (scheme.lower(), rest) if there and scheme.lower() in ("https", "http") else ("", text)


def parse_place(text: str) -> RegistryPrefix:
    """As `parse_registry_prefix`, also of a URL; what its scheme says is in `scheme_settings`."""
    return parse_registry_prefix(split_scheme(text)[1])


def scheme_settings(places: Iterable[str]) -> dict[str, HostSettings]:
    """The settings of the hosts that are given as URLs: whether they speak http.

    Raises InvalidReference, and UsageError for a host that is given with both schemes.
    """
    schemes: dict[str, str] = {}
    for text in places:
        scheme, rest = split_scheme(text)
        if scheme and schemes.setdefault(host := parse_registry_prefix(rest).host, scheme) != scheme:
            raise UsageError(f"{host} is given as https:// and as http://; give it one of them")
    if not schemes:
        return {}
    from blobflow.transports.registry import HostSettings

    return {host: HostSettings(http=scheme == "http") for host, scheme in schemes.items()}


def repository_request(text: str, *, scoped: bool) -> ImageRequest:
    """All tags of the repository `HOST/REPOSITORY`. At a target it has its last name, as `skopeo sync` puts
    it; `scoped`: its host and whole path.

    Raises InvalidReference; UsageError for a place that is no repository.
    """
    last = text.rpartition("/")[2]
    if "/" in text.removeprefix("docker://") and (":" in last or "@" in last) and not transport_of(text):
        refuse_login(text)
        raise UsageError(
            f"{text[:300]!r} is one image, and sync --from takes all tags of a repository; `blobflow copy`"
            " brings one"
        )
    place = parse_registry_prefix(text)
    if transport_of(place.host):
        raise UsageError(f"{place} is no registry; say with --images LIST which of its images are meant")
    if not place.prefix:
        raise UsageError(
            f"{place} is a registry; give one of its repositories, as {place}/REPOSITORY, or say with "
            "--images LIST which images are meant"
        )
    rename = RenameRules(RenameRule(template="{host}/{path}" if scoped else "{name}"))
    path = hub_path(RegistryPrefix(place.host), place.prefix)
    return ImageRequest(RegistryPrefix(place.host), path, "", "", "--from", rules=ALL_TAGS, rename=rename)


def hub_path(source: RegistryPrefix, path: str) -> str:
    """`path` as docker.io knows it, if `source` is docker.io: one component is in `library/`."""
    official = source == RegistryPrefix(DOCKER_HUB) and "/" not in path
    return f"library/{path}" if official else path
