"""What is wanted, as words → pairs. Pure, but for `read_text`.

A *place* is `HOST[/prefix]`. An image's *path* is its repository without the host; at a target it stands
behind the target's prefix. Where the source is docker.io itself, a path of one component is docker's
`library/…` on both sides, so that a mirror answers what a client of docker.io asks for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.renaming import KEEP_NAMES, RenameRules, apply_rename
from blobflow.cli.output.units import count_text
from blobflow.engine.pairs import Lookup, MissingPlatform, Pair
from blobflow.errors import BlobflowError, InvalidConfig, InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import ARCHIVES, split_local_reference, transport_of
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.reference import (
    DOCKER_HUB,
    check_host,
    check_more_than_host,
    check_repository,
    check_tag,
    split_name,
)
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.operations.tags.search import ChosenTags, TagSearch

if TYPE_CHECKING:
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

    def __str__(self) -> str:
        between = ":" if transport_of(self.host) else "/"
        return f"{self.host}{between}{self.prefix}" if self.prefix else self.host


class ImageRequest(msgspec.Struct, frozen=True):
    """One image, or some platforms of it, asked for; or, by `rules`, those tags of its repository that they
    choose when they are looked for. `where` says who asked, as `LIST.txt line 3`.

    `host` is what the image's name begins with in a layout or archive, which has images of several ("": any).
    `target` replaces the path there, `target_tag` the tag, `rename` either. `targets` go before those of the
    whole. With `repositories` the path is "", and it is all repositories of the source that these choose.
    `chosen`: it came of rules, and may have been asked for otherwise as well. `missing_platform`: None if
    nothing was said.
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
        """What is to be looked for at the source before it is known which images these are."""
        if self.rules is None:
            return None
        if self.repositories is not None:
            return TagSearch(self.source.host, "", self.rules, self.repositories, self.source.prefix)
        return TagSearch(self.source.host, self.source.under(self.path, "").repository, self.rules)


class MirrorRequest(msgspec.Struct, frozen=True):
    """All that is wanted, and where to.

    `warnings`: what of a foreign file can't be had here, a sentence each. `hosts`: what it says of hosts.
    `timing`: how to do what it says of the clock, for who runs it once.
    """

    wanted: tuple[ImageRequest, ...]
    targets: tuple[RegistryPrefix, ...]
    warnings: tuple[str, ...] = ()
    hosts: dict[str, HostSettings] = {}
    timing: str = ""

    @property
    def searches(self) -> list[TagSearch]:
        """What is to be looked for, each once."""
        return list(dict.fromkeys(search for image in self.wanted if (search := image.search) is not None))

    @property
    def says_missing(self) -> bool:
        """Whether it says of any image what is to become of it if it lacks the platforms."""
        return any(image.missing_platform is not None for image in self.wanted)

    @property
    def places(self) -> tuple[frozenset[str], frozenset[str]]:
        """The hosts that are read from, and those that are written to."""
        targets = [place for image in self.wanted for place in image.targets or self.targets]
        return (
            frozenset(image.source.host for image in self.wanted),
            frozenset(place.host for place in targets),
        )


class ExpandedRequest(msgspec.Struct, frozen=True):
    """The pairs that were asked for. `lost`: what could not be found out, as pairs of repositories. `notes`:
    what finding out cost, where it was much."""

    pairs: tuple[Pair, ...]
    lost: dict[Pair, BlobflowError] = {}
    notes: tuple[str, ...] = ()


def expand(asked: MirrorRequest, found: Mapping[TagSearch, Sequence[ChosenTags]]) -> ExpandedRequest:
    """Every image at every target, now that it is known what the rules choose. Raises as `make_pairs`."""
    images: list[ImageRequest] = []
    lost: dict[Pair, BlobflowError] = {}
    notes: list[str] = []
    for image in asked.wanted:
        search = image.search
        for chosen in found[search] if search is not None else ():
            path = chosen.repository.removeprefix(f"{image.source.prefix}/" if image.source.prefix else "")
            one = msgspec.structs.replace(image, path=path, rules=None, repositories=None, chosen=True)
            images += [msgspec.structs.replace(one, tag=tag) for tag in chosen.tags]
            if chosen.error is not None:
                for target in image.targets or asked.targets:
                    lost[_repository_pair(one, target)] = chosen.error
            if chosen.dated:
                notes.append(
                    f"{image.where}: {chosen.dated} tags of {image.source.host}/{chosen.repository} were"
                    " asked for their date, by two requests each, or three for an index"
                )
            if chosen.others:
                notes.append(
                    f"{image.where}: {count_text(chosen.others, 'tag')} of {image.source.host}/"
                    f"{chosen.repository} left out, of a media type that is not wanted"
                )
        if search is None:
            images.append(image)
    return ExpandedRequest(tuple(make_pairs(images, asked.targets)), lost, tuple(dict.fromkeys(notes)))


def _repository_pair(image: ImageRequest, target: RegistryPrefix) -> Pair:
    """What stands for all images of a repository."""
    path = _path_at(target, image) or image.source.host
    source = Reference(image.source.host, image.source.under(image.path, "").repository if image.path else "")
    return Pair(source, Reference(target.host, f"{target.prefix}/{path}" if target.prefix else path))


def parse_registry_prefix(text: str) -> RegistryPrefix:
    """Read `HOST[/prefix]`, the first component always the host, or `TRANSPORT:PATH[:prefix]`.

    Raises InvalidReference.
    """
    if located := split_local_reference(text.strip()):
        host, prefix, digest = located
        if digest:
            raise InvalidReference(f"{text[:300]!r} names one image by its digest; leave that out")
        return RegistryPrefix(host, prefix)
    host, slash, prefix = text.strip().removeprefix("docker://").rstrip("/").partition("/")
    return RegistryPrefix(check_host(host), check_repository(prefix, text) if slash else "")


def parse_image_list(
    text: str, name: str, source: RegistryPrefix, *, any_host: bool = False
) -> list[ImageRequest]:
    """Read a list: one `repository:tag` or `repository@digest` a line, `#` starts a comment.

    No tag and no digest is `latest`. A line that begins with a host is a whole name: at a registry it has to
    be that of an image of `source`; in a layout or archive it is looked for as it is. With `any_host` hosts
    are dropped, and `source` has an image of each path. `name` is what the file is called in errors.

    Raises UsageError for a list without images, and for names that are not `source`'s; InvalidReference. All
    but the first with file and line.
    """
    found: list[ImageRequest] = []
    strays: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        image = line.partition("#")[0].strip()
        if image:
            where = f"{name} line {number}"
            try:
                found.append(_parse_line(image, source, where, any_host=any_host))
            except _ForeignHost as stray:
                strays.append(f"{where}: {stray}")
    if strays:
        more = f" (and {count_text(len(strays) - 1, 'more line')})" if len(strays) > 1 else ""
        raise UsageError(f"{strays[0]}{more}")
    if not found:
        raise UsageError(f"{name} names no image; write one repository:tag a line")
    return found


class _ForeignHost(Exception):
    """A whole name that is not the source's; the message is what is said of it, without its line."""


def _parse_line(image: str, source: RegistryPrefix, where: str, *, any_host: bool) -> ImageRequest:
    name = image.removeprefix("docker://")
    try:
        check_more_than_host(name, dotted=source == RegistryPrefix(DOCKER_HUB))
        host, path, tag, digest = split_name(name)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None
    if host and not any_host:
        host, path = _at_source(host, path, source, image)
    else:
        host, path = "", hub_path(source, path)
    return ImageRequest(source, path, tag or ("" if digest else "latest"), digest, where, host=host)


def _at_source(host: str, path: str, source: RegistryPrefix, image: str) -> tuple[str, str]:
    """The host ("" where the source says it), and the path under the source's prefix, of a whole name."""
    local = not source.host or bool(transport_of(source.host))
    if not local and host != source.host:
        raise _ForeignHost(
            f"{image[:300]} is of {host}, and --from is {source}; give --from {host}, leave the line out, or "
            f"take what {source} has of that name with --any-host"
        )
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    whole = f"{host}/{path}" if local else path
    if not source.prefix:
        return (host, path) if local else ("", path)
    if not whole.startswith(f"{source.prefix}/"):
        raise _ForeignHost(
            f"{image[:300]} is not in {source}, as --from says; leave its host out for a name below that, or "
            "drop all hosts with --any-host"
        )
    return "", whole.removeprefix(f"{source.prefix}/")


def hub_path(source: RegistryPrefix, path: str) -> str:
    """`path` as docker.io knows it, if `source` is docker.io: one component is in `library/`."""
    official = source == RegistryPrefix(DOCKER_HUB) and "/" not in path
    return f"library/{path}" if official else path


def make_pairs(wanted: Iterable[ImageRequest], targets: Sequence[RegistryPrefix]) -> list[Pair]:
    """Every image at every target. Raises UsageError naming both places that ask for the same pair."""
    wanted = list(wanted)
    if not targets and not all(image.targets for image in wanted):
        raise UsageError("no target: say where to with --to HOST[/prefix], or `targets` in the spec")
    if len(set(targets)) < len(targets):
        twice = next(place for index, place in enumerate(targets) if place in targets[:index])
        raise UsageError(f"the target {twice} is given twice")
    asked: dict[tuple[Reference, Reference], ImageRequest] = {}
    pairs: list[Pair] = []
    for image in wanted:
        for target in image.targets or targets:
            pair = _pair(image, target)
            before = asked.setdefault((pair.source, pair.target), image)
            if before is image:
                pairs.append(pair)
            elif not (before.chosen or image.chosen):
                raise UsageError(f"{image.where}: {image} is listed already, at {before.where}")
    return pairs


def _pair(image: ImageRequest, target: RegistryPrefix) -> Pair:
    try:
        source = image.origin
        # Put under its digest alone, a manifest has no other name than that digest.
        tag = _tag_at(image)
        goal = target.under(_path_at(target, image), tag, "" if tag else image.digest)
    except InvalidReference as error:
        raise InvalidReference(f"{image.where}: {error}") from None
    if source == goal:
        raise UsageError(f"{image.where}: {source} is both source and target; give another host or prefix")
    return Pair(source, goal, image.choice, image.referrers, image.missing_platform or "skip")


def _path_at(target: RegistryPrefix, image: ImageRequest) -> str:
    """The path at a target. In an archive it begins with a host: the source's, if no other is given."""
    facts = {"host": image.source.host, "path": image.path, "tag": image.tag}
    path = image.target or apply_rename(image.rename.repository, image.path, **facts)
    own = target.prefix or path != image.path or image.target
    if own or transport_of(target.host) not in ARCHIVES:
        return path
    if transport_of(image.source.host):
        return image.named
    return str(image.source.under(path, "latest")).removesuffix(":latest")


def _tag_at(image: ImageRequest) -> str:
    """The tag at a target; what has only a digest gets none."""
    if not image.tag:
        return image.target_tag
    facts = {"host": image.source.host, "path": image.path, "tag": image.tag}
    tag = image.target_tag or apply_rename(image.rename.tag, image.tag, **facts)
    return tag if tag == image.tag else check_tag(tag)


def _default_name(origin: Reference, goal: Reference) -> str:
    """What a copy is called at a target that was given no name: as its source, fully so in an archive."""
    if origin.transport:
        tag = origin.tag if not origin.tag.startswith("@") else ""
        if goal.transport:
            return tag or "latest"
        return tag.rpartition(":")[2] if ":" in tag else "latest"
    if goal.transport not in ARCHIVES:
        return origin.tag or "latest"
    name = f"{origin.host}/{origin.repository}"
    return f"{name}:{origin.tag}" if origin.tag else f"{name}@{origin.digest}"


def copy_pairs(source: str, targets: Sequence[str]) -> list[Pair]:
    """The pairs of `blobflow copy`. A target without a tag takes the source's, or `latest`.

    Raises InvalidReference; UsageError for a target given twice, the source among the targets, or a target
    with a digest, which nobody can choose.
    """
    origin = parse_reference(source)
    pairs = []
    for text in targets:
        goal = parse_reference(text)
        if goal.digest and goal.digest != origin.digest:
            raise UsageError(f"{text[:300]!r} has a digest; content decides the digest, give a tag instead")
        if goal.transport and goal.tag.startswith("@"):
            raise UsageError(f"{text[:300]!r} numbers an image; give the one that is written a name")
        named = goal.tag if goal.transport else split_name(text.removeprefix("docker://"))[2]
        if not named and not goal.digest:
            goal = msgspec.structs.replace(goal, tag=_default_name(origin, goal))
        pair = Pair(origin, goal)
        if (origin.host, origin.repository, origin.name) == (goal.host, goal.repository, goal.name):
            raise UsageError(f"{origin} is both source and target")
        if pair in pairs:
            raise UsageError(f"the target {goal} is given twice")
        pairs.append(pair)
    return pairs


def read_text(path: Path) -> str:
    """The text of a file, or of stdin for `-`. Raises InvalidConfig naming the file and what is wrong."""
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise InvalidConfig(f"can't read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not UTF-8 text (byte {error.start})") from None
