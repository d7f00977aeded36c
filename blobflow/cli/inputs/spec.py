"""Spec files: YAML → typed values → a request. Pure.

    version: 1
    defaults: {source: docker.io, targets: [127.0.0.1:5000/mirror]}
    images:
      - rancher/pause:3.1
      - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}
      - {image: library/alpine, tags: {semver: ">=3.18 <4", newest: 3}, rename: {tag: "{tag}-base"}}

- `defaults.source` is where images without a host come from (docker.io if not given), `defaults.targets`
  where all go; each is HOST[/prefix].
- An image is `[host/]repository[:tag][@digest]`, or a mapping of `image`, `tags` (tags or digests of it, or
  rules that choose among its tags: see `oci.tag_selection.rules`) and `target`, the repository path under
  each target's prefix; or `rename`, rules for the names there: see `renaming`.
- `platforms` (as `[linux/amd64, linux/arm64]`) and `index` (auto, keep, prune, only) say what of an image is
  wanted, `missing-platform` (skip, fail) what becomes of one that is for none of them, `referrers` (auto,
  always, off) when what refers to it is looked for; an image's own go before those of `defaults`.

Keys that are not known are errors: a typing mistake must not quietly mirror something else. The descriptions
here are those of the JSON schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from blobflow.cli.inputs.platforms import parse_platforms
from blobflow.cli.inputs.renaming import KEEP_NAMES, RenameRule, RenameRules, check_rename_rule
from blobflow.cli.inputs.requests import (
    ImageRequest,
    MirrorRequest,
    RegistryPrefix,
    hub_path,
    parse_registry_prefix,
)
from blobflow.cli.inputs.yaml_nodes import compose, errors_located_at, line_of, node_at, to_struct
from blobflow.engine.pairs import Lookup, MissingPlatform
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import parse_digest
from blobflow.oci.local_reference import transport_of
from blobflow.oci.platform_choice import IndexMode, PlatformChoice
from blobflow.oci.reference import DOCKER_HUB, check_more_than_host, check_repository, check_tag, split_name
from blobflow.oci.tag_selection.matching import check_rules
from blobflow.oci.tag_selection.rules import By, TagRules

_VERSION = 1
_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that choose tags when the run begins, each among those that the one before it left."""

    include: Annotated[
        tuple[str, ...], _described("Regular expressions (RE2); one has to match the whole tag.")
    ] = ()
    exclude: Annotated[
        tuple[str, ...], _described("Regular expressions (RE2); none may match the whole tag.")
    ] = ()
    semver: Annotated[
        str | tuple[str, ...],
        _described("A range of versions as npm writes it, or several: '>=1.2 <2', '^3.1'."),
    ] = ()
    newest: Annotated[int, _described("So many of them at most.")] = 0
    by: Annotated[
        By,
        _described("The newest by version, or by date: that costs two requests for each tag that is left."),
    ] = "version"
    prereleases: Annotated[bool, _described("Take prereleases for versions as any other.")] = False


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the expression matches the whole name, it is replaced; else the name stays."""

    match: Annotated[str, _described("A regular expression (RE2).")]
    replace: Annotated[str, _described(r"What the name becomes; \1 is the first group.")]


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names at the targets. A template may have {host}, {path}, {name} (of the path, the last) and {tag}."""

    repository: Annotated[str | Replacement, _described("The repository, under the target's prefix.")] = ""
    tag: Annotated[str | Replacement, _described("The tag.")] = ""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image, or some tags of a repository."""

    image: Annotated[str, _described("[host/]repository[:tag][@digest]")]
    tags: Annotated[
        tuple[str, ...] | Tags | None, _described("Tags or digests, or rules that choose tags.")
    ] = None
    target: Annotated[
        str, _described("The repository under the target's prefix, if it is not the source's.")
    ] = ""
    rename: Annotated[Rename | None, _described("Rules for the names at the targets.")] = None
    platforms: Annotated[
        tuple[str, ...] | None, _described("os/architecture[/variant], `system` or `all`.")
    ] = None
    index: Annotated[
        IndexMode | None, _described("What becomes of an index of which some platforms are chosen.")
    ] = None
    referrers: Annotated[
        Lookup | bool | None,
        _described("When to look for signatures, SBOMs and attestations to bring along."),
    ] = None
    missing_platform: Annotated[
        MissingPlatform | None,
        _described("An image that is for none of the platforms: `skip` it and say so, or `fail` it."),
    ] = msgspec.field(default=None, name="missing-platform")


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for all images."""

    source: Annotated[str, _described("HOST[/prefix] of images without a host.")] = DOCKER_HUB
    targets: Annotated[tuple[str, ...], _described("HOST[/prefix]: where all go.")] = ()
    platforms: Annotated[tuple[str, ...], _described("As an image's.")] = ("all",)
    index: Annotated[IndexMode, _described("As an image's.")] = "auto"
    referrers: Annotated[Lookup | bool, _described("As an image's.")] = "auto"
    missing_platform: Annotated[
        MissingPlatform | None, _described("As an image's; `skip` where nothing is said.")
    ] = msgspec.field(default=None, name="missing-platform")


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images, where they are, and where they are to be."""

    version: Annotated[int, _described("The version of this format: 1.")]
    images: Annotated[tuple[str | Entry, ...], _described("An image each, as text or as a mapping.")]
    defaults: Defaults = Defaults()


def spec_schema() -> dict[str, object]:
    """The JSON schema of spec files, for editors and checkers."""
    return {"$schema": _SCHEMA, "title": "blobflow spec", **msgspec.json.schema(Spec)}


def parse_spec(text: str, name: str) -> MirrorRequest:
    """The request of a spec. `name` is what errors call the file.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    node = compose(text, name)
    spec = to_struct(node, name, Spec)
    if spec.version != _VERSION:
        raise InvalidConfig(f"{name} has version {spec.version}; this blobflow reads version {_VERSION}")
    if not spec.images:
        raise UsageError(f"{name} names no image; list them under `images`")
    if not spec.defaults.targets:
        raise InvalidConfig(f"{name} has no targets; write defaults: {{targets: [HOST/prefix]}}")
    source = _registry_prefix(spec.defaults.source, f"{name}: defaults.source")
    targets = tuple(_registry_prefix(target, f"{name}: defaults.targets") for target in spec.defaults.targets)
    images: list[ImageRequest] = []
    for index, entry in enumerate(spec.images):
        where = f"{name} line {line_of(node_at(node, f'.images[{index}]'))}"
        one = entry if isinstance(entry, Entry) else Entry(entry)
        with errors_located_at(where):
            choice, rename = _choice(one, spec.defaults), _rename_rules(one)
            lookup = _lookup(spec.defaults.referrers if one.referrers is None else one.referrers)
            missing = one.missing_platform or spec.defaults.missing_platform
            of_entry = _image_requests(one, source, where, choice, rename)
            images.extend(
                msgspec.structs.replace(each, referrers=lookup, missing_platform=missing) for each in of_entry
            )
    return MirrorRequest(tuple(images), targets)


def _choice(entry: Entry, defaults: Defaults) -> PlatformChoice:
    words = defaults.platforms if entry.platforms is None else entry.platforms
    return PlatformChoice(parse_platforms(words), entry.index or defaults.index)


def _lookup(said: Lookup | bool) -> Lookup:
    """YAML reads `off` as a no."""
    if said is True:
        raise UsageError("`referrers` is auto, always or off")
    return said or "off"


def _rename_rules(entry: Entry) -> RenameRules:
    if entry.rename is None:
        return KEEP_NAMES
    if entry.target and entry.rename.repository:
        raise UsageError(f"{entry.image} has a `target` as well as `rename.repository`; keep one")
    return RenameRules(_rename_rule(entry.rename.repository), _rename_rule(entry.rename.tag))


def _rename_rule(said: str | Replacement) -> RenameRule:
    if isinstance(said, str):
        return check_rename_rule(RenameRule(template=said))
    return check_rename_rule(RenameRule(match=said.match, replace=said.replace))


def _tag_rules(tags: Tags) -> TagRules:
    semver = (tags.semver,) if isinstance(tags.semver, str) else tags.semver
    return check_rules(TagRules(tags.include, tags.exclude, semver, tags.newest, tags.by, tags.prereleases))


def _image_requests(
    entry: Entry, source: RegistryPrefix, where: str, choice: PlatformChoice, rename: RenameRules
) -> Iterator[ImageRequest]:
    """The images of one entry: one for each of its tags, or one for the rules that choose them."""
    name = entry.image.removeprefix("docker://")
    check_more_than_host(name, dotted=source == RegistryPrefix(DOCKER_HUB))
    host, path, tag, digest = split_name(name)
    if host:
        source = RegistryPrefix(host)
    if entry.tags is not None and (tag or digest):
        raise UsageError(f"{entry.image} has `tags` as well as a tag or digest of its own; keep one")
    if entry.tags == ():
        raise UsageError(f"{entry.image} has no tags in its list of tags; leave `tags` out for latest")
    whole = ImageRequest(
        source,
        hub_path(source, path),
        tag,
        digest,
        where,
        check_repository(entry.target) if entry.target else "",
        choice,
        rename=rename,
    )
    if isinstance(entry.tags, Tags):
        if transport_of(source.host):
            raise UsageError(f"rules choose among the tags of a registry; list those of {source}")
        yield msgspec.structs.replace(whole, rules=_tag_rules(entry.tags))
        return
    if entry.tags is None:
        yield whole if tag or digest else msgspec.structs.replace(whole, tag="latest")
    for name in entry.tags or ():
        if ":" in name:
            yield msgspec.structs.replace(whole, digest=parse_digest(name))
        else:
            yield msgspec.structs.replace(whole, tag=check_tag(name))


def _registry_prefix(text: str, where: str) -> RegistryPrefix:
    with errors_located_at(where):
        return parse_registry_prefix(text)
