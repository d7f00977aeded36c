"""The keys of our spec files, as types; their JSON schema is made of these.

The descriptions are what an editor shows. Keys that are not known are errors: a typing mistake must not
quietly mirror something else.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from blobflow.engine.pairs import Lookup, MissingPlatform
from blobflow.oci.platform_choice import IndexMode
from blobflow.oci.reference import DOCKER_HUB
from blobflow.oci.tag_selection.rules import By

_SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules that choose tags when the run begins, each among those that the one before it left."""

    include: Annotated[
        tuple[str, ...],
        _described("Regular expressions (RE2); one has to match the whole tag, or with `anywhere` a part."),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        _described("Regular expressions (RE2); none may match the whole tag, or with `anywhere` a part."),
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
    prereleases: Annotated[
        bool,
        _described(
            "Take prereleases (1.2.0-rc.1) for versions as any other; else a range has only what it names."
        ),
    ] = False
    anywhere: Annotated[
        bool, _described("`include` and `exclude` may match any part of a tag, as skopeo's expressions do.")
    ] = False


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
    source: Annotated[
        str | None, _described("HOST[/prefix] where it comes from, if that is not the defaults' source.")
    ] = None
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
    every: Annotated[
        str | None,
        _described("A span of time, as 30m or 6h: when `sync --every spec` mirrors it again."),
    ] = None
    schedule: Annotated[
        str | None,
        _described("A cron expression, as '0 3 * * *' or @daily, in place of `every`."),
    ] = None
    backup: Annotated[
        str | None,
        _described(
            "The tag that the image at the target gets before its own tag names another one, as "
            "'{{tag}}-old'; {{digest}}, {{date}} and {{time}} may be in it, too. Empty: none."
        ),
    ] = None
    policy: Annotated[
        str | None,
        _described(
            "A signature policy (containers' policy.json) that has to accept it; relative to this file's"
            " folder."
        ),
    ] = None


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
    every: Annotated[str, _described("As an image's.")] = ""
    schedule: Annotated[str, _described("As an image's.")] = ""
    backup: Annotated[str, _described("As an image's.")] = ""
    policy: Annotated[str | None, _described("As an image's.")] = None


class Collect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Deployment files whose images are part of the set."""

    path: Annotated[str, _described("A file, a folder or a pattern, relative to this file's folder.")]
    custom_resources: Annotated[
        bool, _described("Look into custom resources too, for the names that their fields commonly have.")
    ] = msgspec.field(default=False, name="custom-resources")


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images, where they are, and where they are to be."""

    version: Annotated[int, _described("The version of this format: 1.")]
    images: Annotated[tuple[str | Entry, ...], _described("An image each, as text or as a mapping.")] = ()
    defaults: Defaults = Defaults()
    collect: Annotated[
        tuple[str | Collect, ...],
        _described(
            "Deployment files (Kubernetes, Compose, CI, Dockerfiles, lists, lock files) that name further"
            " images: a file, a folder or a pattern each, relative to this file's folder."
        ),
    ] = ()


def spec_schema() -> dict[str, object]:
    """The JSON schema of spec files, for editors and checkers."""
    return {"$schema": _SCHEMA, "title": "blobflow spec", **msgspec.json.schema(Spec)}
