"""Choosing some platforms of an index, and what the index then is. Pure.

    keep    the index byte for byte, the others absent: a sparse index (image-spec image-index.md allows it)
    prune   a new index of what was chosen; its digest is another one
    auto    keep, and prune where the registry refuses a sparse index
    only    the index alone, without anything below it

A pruned index is the old one with items cut out of its text: every other key, its order and the formatting
stay as they are, so the same choice always gives the same digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci import media
from blobflow.oci.convert import Format
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest, digest_of
from blobflow.oci.manifest import Manifest, parse_manifest
from blobflow.oci.platform import Platform

IndexMode = Literal["auto", "keep", "prune", "only"]
INDEX_MODES: tuple[IndexMode, ...] = ("auto", "keep", "prune", "only")

# BuildKit's mark of an attestation manifest, which has the platform unknown/unknown and names its image.
_REFERS = "vnd.docker.reference.digest"


class Choice(msgspec.Struct, frozen=True, order=True, gc=False):
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

    def wants(self, platform: Platform | None) -> bool:
        return not self.platforms or (platform is not None and any(map(platform.matches, self.platforms)))


EVERYTHING = Choice()


def attests(child: Descriptor) -> str:
    """The digest of the image that an index's child attests, "" if it is no attestation."""
    return (child.annotations or {}).get(_REFERS, "")


def lean(manifest: Manifest) -> Manifest:
    """The manifest with what it takes to choose from it and to plan with it: without its bytes and without
    annotations, but for the mark of attestations."""
    return msgspec.structs.replace(
        manifest,
        raw=b"",
        annotations={},
        config=bare(manifest.config) if manifest.config is not None else None,
        layers=tuple(map(bare, manifest.layers)),
        manifests=tuple(map(bare, manifest.manifests)),
        subject=bare(manifest.subject) if manifest.subject is not None else None,
    )


def bare(child: Descriptor) -> Descriptor:
    """A mention without annotations, but for the mark of attestations, and without the places of `urls`."""
    if child.annotations is None and child.urls is None:
        return child
    image = attests(child)
    return msgspec.structs.replace(
        child,
        annotations={_REFERS: image} if image else None,
        urls=("",) if child.urls else None,  # that there are any makes a layer foreign
    )


def candidates(index: Manifest, choice: Choice) -> tuple[Descriptor, ...]:
    """The children that have to be read to know which of them are chosen: the chosen ones, and those of
    which the index does not tell the platform."""
    if choice.index == "only":
        return ()
    return _with_attestations(
        index, lambda child: _platform_of(child) is None or choice.wants(_platform_of(child))
    )


def certain(index: Manifest, choice: Choice) -> frozenset[Digest]:
    """Those of the `candidates` that are chosen by what the index itself tells of them."""
    if choice.index == "only":
        return frozenset()
    told = _with_attestations(index, lambda child: choice.wants(_platform_of(child)))
    return frozenset(child.digest for child in told)


def chosen(
    index: Manifest,
    choice: Choice,
    known: Callable[[Descriptor], Platform | None],
    has: Callable[[Digest], bool],
) -> tuple[Descriptor, ...]:
    """The children that are chosen; in Docker's format there are no attestations.

    `known` tells a child's platform where the index does not; `has` says whether anything is chosen below a
    nested index.
    """

    def wanted(child: Descriptor) -> bool:
        if child.media_type in media.INDEXES:
            return has(child.digest)
        return choice.wants(_platform_of(child) or known(child))

    kept = _with_attestations(index, wanted)
    return tuple(child for child in kept if choice.format != "v2s2" or not attests(child))


def _platform_of(child: Descriptor) -> Platform | None:
    """What the index says; a platform without a system says nothing."""
    platform = child.platform
    return platform if platform is not None and (platform.os or platform.architecture) else None


def _with_attestations(index: Manifest, wanted: Callable[[Descriptor], bool]) -> tuple[Descriptor, ...]:
    own = {child.digest for child in index.manifests if not attests(child) and wanted(child)}
    return tuple(child for child in index.manifests if child.digest in own or attests(child) in own)


def pruned(index: Manifest, kept: Iterable[Descriptor], replaced: Mapping[Digest, Descriptor]) -> Manifest:
    """The index without the children that are not kept; those `replaced` have become other indexes.

    Raises UnsupportedContent where that can't be cut: numbers of thousands of digits, or nested a
    thousandfold.
    """
    try:
        return _pruned(index, kept, replaced)
    except (ValueError, RecursionError) as error:
        raise UnsupportedContent(f"index {index.descriptor.digest} can't be pruned: {error}") from None


def _pruned(index: Manifest, kept: Iterable[Descriptor], replaced: Mapping[Digest, Descriptor]) -> Manifest:
    text = index.raw.decode()
    wanted = {child.digest for child in kept}
    start, end = _members(text, 0)["manifests"]
    items = _items(text, start)
    parts: list[str] = []
    for item_start, item_end in items:
        item = text[item_start:item_end]
        digest = Digest(json.loads(item)["digest"])
        if digest in wanted:
            parts.append(_renamed(item, replaced[digest]) if digest in replaced else item)
    between = text[items[0][1] : items[1][0]] if len(items) > 1 else ","
    lead, tail = text[start + 1 : items[0][0]], text[items[-1][1] : end]
    raw = (text[:start] + "[" + lead + between.join(parts) + tail + text[end:]).encode()
    return parse_manifest(
        raw, index.descriptor.media_type, digest=digest_of(raw, index.descriptor.digest[:6])
    )


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
