"""Platform choices: which platforms of an index are wanted, and the index that results. Pure.

    keep    the index byte for byte, the others absent: a sparse index (image-spec image-index.md allows it)
    prune   a new index of what was chosen; its digest is another one
    auto    keep, and prune where the registry refuses a sparse index
    only    the index alone, without anything below it

A pruned index is the old one with items cut out of its text: every other key, its order and the formatting
stay as they are, so the same choice always gives the same digest.

What has a platform
-------------------

An entry of an index runs on what the index says; else, as an image that is no entry, on what its config says
(see `engine.sources.configs`). `unknown/unknown` says nothing. Whatever has no platform by then (charts,
signatures, files: artifacts) is no image for some machine, and goes with every choice, byte for byte. An
index is chosen if something below it is; it lacks the platform if all that has one there has another; and if
nothing there has one, all of it goes along.

Entries are chosen, not digests: one digest may be listed for two platforms, and may stay for one of them.
Attestations (BuildKit's) follow the image that they name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest, digest_of
from blobflow.oci.docker_conversion import Format
from blobflow.oci.json_decoding import without_nulls
from blobflow.oci.manifest import Manifest, parse_manifest
from blobflow.oci.platform import Platform

IndexMode = Literal["auto", "keep", "prune", "only"]

# What a choice says of something: that it is chosen, that it has another platform, or that it has none.
Match = Literal["chosen", "other", "bare"]

# BuildKit's mark of an attestation manifest, which has the platform unknown/unknown and names its image.
_REFERS = "vnd.docker.reference.digest"


class PlatformChoice(msgspec.Struct, frozen=True, order=True, gc=False):
    """What is wanted of an image: all of it, or the children for these platforms; how it is indexed; and the
    format that its manifests are put in, where it has to be a certain one."""

    platforms: tuple[Platform, ...] = ()
    index: IndexMode = "auto"
    format: Format = ""

    @property
    def whole(self) -> bool:
        return not self.platforms and self.index != "only" and not self.format

    @property
    def key(self) -> str:
        """The choice as the journal has it. What is kept and what may be kept is the same thing."""
        if self.index == "only":
            return "index only"
        platforms = ",".join(sorted(map(str, self.platforms))) or "all"
        if self.format:
            return f"{platforms}; {self.format}"
        return f"{platforms}; pruned" if self.index == "prune" and self.platforms else platforms

    def match(self, platform: Platform | None) -> Match:
        """What the choice says of something for a platform; None: of something that has none."""
        if not self.platforms:
            return "chosen"
        if platform is None or not platform.is_known:
            return "bare"
        fits = any(_filled(platform, wanted).matches(wanted) for wanted in self.platforms)
        return "chosen" if fits else "other"

    def wants(self, platform: Platform | None) -> bool:
        """Whether something for a platform, or that has none (None), goes along."""
        return self.match(platform) != "other"


EVERYTHING = PlatformChoice()


def _filled(platform: Platform, wanted: Platform) -> Platform:
    """The platform with what it does not say, system or architecture, as it is wanted: half a platform
    contradicts nothing with the other half."""
    if platform.os and platform.architecture:
        return platform
    os, architecture = platform.os or wanted.os, platform.architecture or wanted.architecture
    return msgspec.structs.replace(platform, os=os, architecture=architecture)


def combine_matches(matches: Iterable[Match]) -> Match:
    """What a choice says of an index, by what it says of its entries."""
    found = set(matches)
    return "chosen" if "chosen" in found else "other" if "other" in found else "bare"


def attested_digest(child: Descriptor) -> str:
    """The digest of the image that an index's child attests, "" if it is no attestation."""
    return (child.annotations or {}).get(_REFERS, "")


def without_annotations(manifest: Manifest) -> Manifest:
    """The manifest with what it takes to choose from it and to plan with it: without its bytes and without
    annotations, but for the mark of attestations."""
    return msgspec.structs.replace(
        manifest,
        raw=b"",
        annotations={},
        config=without_platform(manifest.config) if manifest.config is not None else None,
        layers=tuple(map(without_platform, manifest.layers)),
        manifests=tuple(map(without_platform, manifest.manifests)),
        subject=without_platform(manifest.subject) if manifest.subject is not None else None,
    )


def without_platform(child: Descriptor) -> Descriptor:
    """A mention without annotations, but for the mark of attestations, and without the places of `urls`."""
    if child.annotations is None and child.urls is None:
        return child
    image = attested_digest(child)
    return msgspec.structs.replace(
        child,
        annotations={_REFERS: image} if image else None,
        urls=("",) if child.urls else None,  # that there are any makes a layer foreign
    )


def declared_platform(child: Descriptor) -> Platform | None:
    """The platform that a parent says; None where it says none, or that it is not known."""
    return child.platform if child.platform is not None and child.platform.is_known else None


def candidates(index: Manifest, choice: PlatformChoice) -> tuple[Descriptor, ...]:
    """The entries that have to be read to know which of them are chosen: the chosen ones, and those of
    which the index does not tell the platform."""
    if choice.index == "only":
        return ()
    return _with_attestations(index, lambda child: choice.wants(declared_platform(child)))


def certain(index: Manifest, choice: PlatformChoice) -> frozenset[Digest]:
    """Those of the `candidates` that are chosen by what the index itself tells of them."""
    if choice.index == "only":
        return frozenset()
    told = _with_attestations(index, lambda child: choice.match(declared_platform(child)) == "chosen")
    return frozenset(child.digest for child in told)


def chosen(
    index: Manifest, choice: PlatformChoice, match: Callable[[Descriptor], Match]
) -> tuple[Descriptor, ...]:
    """The entries that go along; in Docker's format there are no attestations.

    `match`: what the choice says of an entry.
    """
    kept = _with_attestations(index, lambda child: match(child) != "other")
    return tuple(child for child in kept if choice.format != "v2s2" or not attested_digest(child))


def entries(index: Manifest) -> tuple[Descriptor, ...]:
    """The entries of an index that stand for themselves: all but what attests another one."""
    listed = {child.digest for child in index.manifests}
    return tuple(child for child in index.manifests if attested_digest(child) not in listed)


def _with_attestations(index: Manifest, wanted: Callable[[Descriptor], bool]) -> tuple[Descriptor, ...]:
    listed = {child.digest for child in index.manifests}
    of = [attested_digest(child) for child in index.manifests]
    keeps = [image not in listed and wanted(child) for child, image in zip(index.manifests, of, strict=True)]
    own = {child.digest for child, keep in zip(index.manifests, keeps, strict=True) if keep}
    return tuple(
        child
        for child, image, keep in zip(index.manifests, of, keeps, strict=True)
        if keep or (image in listed and image in own)
    )


def prune_index(
    index: Manifest, kept: Iterable[Descriptor], replaced: Mapping[Digest, Descriptor]
) -> Manifest:
    """The index without the entries that are not kept; those `replaced` have become other indexes. Entries
    that are equal are one.

    Raises UnsupportedContent where that can't be cut: numbers of thousands of digits, or nested a
    thousandfold.
    """
    try:
        return _pruned(index, kept, replaced)
    except (ValueError, RecursionError) as error:
        raise UnsupportedContent(f"index {index.descriptor.digest} can't be pruned: {error}") from None


def _pruned(index: Manifest, kept: Iterable[Descriptor], replaced: Mapping[Digest, Descriptor]) -> Manifest:
    text = index.raw.decode()
    dropped = set(map(_entry, index.manifests)) - set(map(_entry, kept))
    start, end = _members(text, 0)["manifests"]
    items = _items(text, start)
    parts: list[str] = []
    met: set[str] = set()
    for item_start, item_end in items:
        item = text[item_start:item_end]
        said = json.loads(item)
        same = json.dumps(said, sort_keys=True)
        if same in met or _entry_said(said) in dropped:
            continue
        met.add(same)
        digest = Digest(said["digest"])
        parts.append(_renamed(item, replaced[digest]) if digest in replaced else item)
    between = text[items[0][1] : items[1][0]] if len(items) > 1 else ","
    lead, tail = text[start + 1 : items[0][0]], text[items[-1][1] : end]
    raw = (text[:start] + "[" + lead + between.join(parts) + tail + text[end:]).encode()
    return parse_manifest(
        raw, index.descriptor.media_type, digest=digest_of(raw, index.descriptor.digest[:6])
    )


# What tells the entries of an index apart, as far as choosing goes: digest, platform, and what it attests.
_Entry = tuple[str, Platform, str]


def _entry(child: Descriptor) -> _Entry:
    return child.digest, child.platform or Platform(), attested_digest(child)


def _entry_said(item: dict[str, Any]) -> _Entry:
    """The same of an item as its index has it, where a null is an absent field."""
    platform = msgspec.convert(without_nulls(item.get("platform") or {}), Platform)
    return item["digest"], platform, (item.get("annotations") or {}).get(_REFERS) or ""


def _renamed(item: str, child: Descriptor) -> str:
    """An item whose digest and size are those of another child."""
    found = _members(item, 0)
    edits = sorted(
        [(found["digest"], json.dumps(child.digest)), (found["size"], str(child.size))], reverse=True
    )
    for (start, end), value in edits:
        item = item[:start] + value + item[end:]
    return item


_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def _members(text: str, at: int) -> dict[str, tuple[int, int]]:
    """Where each member's value of the object at `at` begins and ends. Of equal keys the last counts."""
    members: dict[str, tuple[int, int]] = {}
    at = _skip(text, _skip(text, at) + 1)
    while text[at] != "}":
        key, at = _decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _decode(text, start)
        members[key] = (start, end)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return members


def _items(text: str, at: int) -> list[tuple[int, int]]:
    """Where each item of the array at `at` begins and ends."""
    items: list[tuple[int, int]] = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, end = _decode(text, at)
        items.append((at, end))
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return items


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
