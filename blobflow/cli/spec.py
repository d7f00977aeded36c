"""Spec files: YAML → typed → what is asked for. Pure.

    version: 1
    defaults: {source: docker.io, targets: [127.0.0.1:5000/mirror]}
    images:
      - rancher/pause:3.1
      - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}
      - {image: library/alpine, tags: {semver: ">=3.18 <4", newest: 3}, rename: {tag: "{tag}-base"}}

- `defaults.source` is where images without a host come from (docker.io if not given), `defaults.targets`
  where all go; each is HOST[/prefix].
- An image is `[host/]repository[:tag][@digest]`, or a mapping of `image`, `tags` (tags or digests of it, or
  rules that choose among its tags: see `oci.selecting`) and `target`, the repository path under each target's
  prefix; or `rename`, rules for the names there: see `renaming`.
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

from blobflow.cli.choosing import platforms_of
from blobflow.cli.renaming import AS_IT_IS, Renaming, Rule, check_rule
from blobflow.cli.selection import Asked, Place, Wanted, hub_path, parse_place
from blobflow.cli.yamlfile import compose, find, line_of, told_at, typed
from blobflow.engine.plan import Lookup, MissingPlatform
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import parse_digest
from blobflow.oci.choice import Choice, IndexMode
from blobflow.oci.location import transport_of
from blobflow.oci.reference import DOCKER_HUB, check_more_than_host, check_repository, check_tag, split_name
from blobflow.oci.selecting import By, TagRules, check_rules

_VERSION = 1
_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def _said(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that choose tags when the run begins, each among those that the one before it left."""

    include: Annotated[
        tuple[str, ...], _said("Regular expressions (RE2); one has to match the whole tag.")
    ] = ()
    exclude: Annotated[
        tuple[str, ...], _said("Regular expressions (RE2); none may match the whole tag.")
    ] = ()
    semver: Annotated[
        str | tuple[str, ...], _said("A range of versions as npm writes it, or several: '>=1.2 <2', '^3.1'.")
    ] = ()
    newest: Annotated[int, _said("So many of them at most.")] = 0
    by: Annotated[
        By, _said("The newest by version, or by date: that costs two requests for each tag that is left.")
    ] = "version"
    prereleases: Annotated[bool, _said("Take prereleases for versions as any other.")] = False


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the expression matches the whole name, it is replaced; else the name stays."""

    match: Annotated[str, _said("A regular expression (RE2).")]
    replace: Annotated[str, _said(r"What the name becomes; \1 is the first group.")]


class Rename(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names at the targets. A template may have {host}, {path}, {name} (of the path, the last) and {tag}."""

    repository: Annotated[str | Replacement, _said("The repository, under the target's prefix.")] = ""
    tag: Annotated[str | Replacement, _said("The tag.")] = ""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image, or some tags of a repository."""

    image: Annotated[str, _said("[host/]repository[:tag][@digest]")]
    tags: Annotated[tuple[str, ...] | Tags | None, _said("Tags or digests, or rules that choose tags.")] = (
        None
    )
    target: Annotated[str, _said("The repository under the target's prefix, if it is not the source's.")] = ""
    rename: Annotated[Rename | None, _said("Rules for the names at the targets.")] = None
    platforms: Annotated[tuple[str, ...] | None, _said("os/architecture[/variant], `system` or `all`.")] = (
        None
    )
    index: Annotated[
        IndexMode | None, _said("What becomes of an index of which some platforms are chosen.")
    ] = None
    referrers: Annotated[
        Lookup | bool | None, _said("When to look for signatures, SBOMs and attestations to bring along.")
    ] = None
    missing_platform: Annotated[
        MissingPlatform | None,
        _said("An image that is for none of the platforms: `skip` it and say so, or `fail` it."),
    ] = msgspec.field(default=None, name="missing-platform")


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for all images."""

    source: Annotated[str, _said("HOST[/prefix] of images without a host.")] = DOCKER_HUB
    targets: Annotated[tuple[str, ...], _said("HOST[/prefix]: where all go.")] = ()
    platforms: Annotated[tuple[str, ...], _said("As an image's.")] = ("all",)
    index: Annotated[IndexMode, _said("As an image's.")] = "auto"
    referrers: Annotated[Lookup | bool, _said("As an image's.")] = "auto"
    missing_platform: Annotated[
        MissingPlatform | None, _said("As an image's; `skip` where nothing is said.")
    ] = msgspec.field(default=None, name="missing-platform")


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images, where they are, and where they are to be."""

    version: Annotated[int, _said("The version of this format: 1.")]
    images: Annotated[tuple[str | Entry, ...], _said("An image each, as text or as a mapping.")]
    defaults: Defaults = Defaults()


def schema() -> dict[str, object]:
    """The JSON schema of spec files, for editors and checkers."""
    return {"$schema": _SCHEMA, "title": "blobflow spec", **msgspec.json.schema(Spec)}


def parse_spec(text: str, name: str) -> Asked:
    """What a spec asks for. `name` is what the file is called in errors.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    node = compose(text, name)
    spec = typed(node, name, Spec)
    if spec.version != _VERSION:
        raise InvalidConfig(f"{name} has version {spec.version}; this blobflow reads version {_VERSION}")
    if not spec.images:
        raise UsageError(f"{name} names no image; list them under `images`")
    if not spec.defaults.targets:
        raise InvalidConfig(f"{name} has no targets; write defaults: {{targets: [HOST/prefix]}}")
    source = _place(spec.defaults.source, f"{name}: defaults.source")
    targets = tuple(_place(target, f"{name}: defaults.targets") for target in spec.defaults.targets)
    wanted: list[Wanted] = []
    for index, entry in enumerate(spec.images):
        where = f"{name} line {line_of(find(node, f'.images[{index}]'))}"
        one = entry if isinstance(entry, Entry) else Entry(entry)
        with told_at(where):
            choice, rename = _choice(one, spec.defaults), _renaming(one)
            lookup = _lookup(spec.defaults.referrers if one.referrers is None else one.referrers)
            missing = one.missing_platform or spec.defaults.missing_platform
            images = _wanted(one, source, where, choice, rename)
            wanted.extend(
                msgspec.structs.replace(each, referrers=lookup, missing_platform=missing) for each in images
            )
    return Asked(tuple(wanted), targets)


def _choice(entry: Entry, defaults: Defaults) -> Choice:
    words = defaults.platforms if entry.platforms is None else entry.platforms
    return Choice(platforms_of(words), entry.index or defaults.index)


def _lookup(said: Lookup | bool) -> Lookup:
    """YAML reads `off` as a no."""
    if said is True:
        raise UsageError("`referrers` is auto, always or off")
    return said or "off"


def _renaming(entry: Entry) -> Renaming:
    if entry.rename is None:
        return AS_IT_IS
    if entry.target and entry.rename.repository:
        raise UsageError(f"{entry.image} has a `target` as well as `rename.repository`; keep one")
    return Renaming(_rule(entry.rename.repository), _rule(entry.rename.tag))


def _rule(said: str | Replacement) -> Rule:
    if isinstance(said, str):
        return check_rule(Rule(template=said))
    return check_rule(Rule(match=said.match, replace=said.replace))


def _rules(tags: Tags) -> TagRules:
    semver = (tags.semver,) if isinstance(tags.semver, str) else tags.semver
    return check_rules(TagRules(tags.include, tags.exclude, semver, tags.newest, tags.by, tags.prereleases))


def _wanted(entry: Entry, source: Place, where: str, choice: Choice, rename: Renaming) -> Iterator[Wanted]:
    """The images of one entry: one for each of its tags, or one for the rules that choose them."""
    name = entry.image.removeprefix("docker://")
    check_more_than_host(name, dotted=source == Place(DOCKER_HUB))
    host, path, tag, digest = split_name(name)
    if host:
        source = Place(host)
    if entry.tags is not None and (tag or digest):
        raise UsageError(f"{entry.image} has `tags` as well as a tag or digest of its own; keep one")
    if entry.tags == ():
        raise UsageError(f"{entry.image} has no tags in its list of tags; leave `tags` out for latest")
    whole = Wanted(
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
        yield msgspec.structs.replace(whole, rules=_rules(entry.tags))
        return
    if entry.tags is None:
        yield whole if tag or digest else msgspec.structs.replace(whole, tag="latest")
    for name in entry.tags or ():
        if ":" in name:
            yield msgspec.structs.replace(whole, digest=parse_digest(name))
        else:
            yield msgspec.structs.replace(whole, tag=check_tag(name))


def _place(text: str, where: str) -> Place:
    with told_at(where):
        return parse_place(text)
