"""Indexes that are made by hand, as `docker manifest` and manifest-tool make them.

    requests ─► gather: resolve, read, ask each config ─► draft ─► put: children by digest, then the index

The engine copies the children; see `oci.index_draft` for what an index may say about them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.client import Client
from blobflow.content import Source
from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.services import Services
from blobflow.engine.sources.configs import read_platform
from blobflow.engine.sources.reader import MAX_NESTING
from blobflow.errors import NotFound, UnsupportedContent, UsageError, error_side
from blobflow.events import Warned
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference, parse_manifest
from blobflow.oci.index_draft import (
    NO_PLATFORM,
    DraftImage,
    IndexDraft,
    check_count,
    check_label,
    label_in_tag,
)
from blobflow.oci.platform_choice import attested_digest


class EntryRequest(msgspec.Struct, frozen=True):
    """An image to put into an index, and the labels that the user gives it."""

    image: Reference
    label: Platform = NO_PLATFORM


async def gather(
    client: Client, wishes: Sequence[EntryRequest], *, force: bool = False, ignore_missing: bool = False
) -> tuple[DraftImage, ...]:
    """Read the images, and return what each is, in the order of the requests.

    An image's config is read for its platform. An index contributes its images, attestations too, however
    deeply they are nested. `force`: labels win over configs. `ignore_missing`: images that are not there are
    left out with a warning, if any remain.

    Raises UsageError for a label that contradicts a config, UnsupportedContent for an index that contains
    itself, is nested too deeply or has too many images, and what the sources raise.
    """
    async with client.services() as services:
        return await gather_in(services, wishes, force=force, ignore_missing=ignore_missing)


async def gather_in(
    services: Services, wishes: Sequence[EntryRequest], *, force: bool = False, ignore_missing: bool = False
) -> tuple[DraftImage, ...]:
    """Like `gather`, with services that are open already."""
    found: dict[EntryRequest, tuple[DraftImage, ...]] = {}

    async def look(wish: EntryRequest) -> None:
        seen = _Look(services.source_at(site_of(wish.image)), wish, force=force)
        try:
            with error_side("source"):
                await seen.look()
        except NotFound as error:
            if not ignore_missing:
                raise
            services.observe(Warned(f"{wish.image} is left out: {error}"))
        else:
            found[wish] = seen.members()

    wanted = list(dict.fromkeys(wishes))
    await BoundedRunner(MAX_SMALL_REQUESTS).for_each(look, wanted)
    if wanted and not found:
        raise NotFound("none of the images is there, so there is nothing to make an index of", status=0)
    return tuple(member for wish in wanted for member in found.get(wish, ()))


class _Look:
    """Reads the images of one request, one level at a time, all of a level at once."""

    def __init__(self, source: Source, wish: EntryRequest, *, force: bool) -> None:
        self._source = source
        self._wish = wish
        self._force = force
        self._runner = BoundedRunner(MAX_SMALL_REQUESTS)
        self._root: Digest
        self._manifests: dict[Digest, Manifest] = {}
        self._configs: dict[Digest, Platform] = {}

    async def look(self) -> None:
        """Read everything. Raises what the source does, and UnsupportedContent for what is too much to
        read."""
        root = await self._source.resolve(self._wish.image.name)
        self._root, level = root.digest, [root]
        for _ in range(MAX_NESTING + 1):
            await self._runner.for_each(self._read, level)
            below = {c.digest: c for each in level for c in self._manifests[each.digest].manifests}
            level = [child for child in below.values() if child.digest not in self._manifests]
            read = sum(not manifest.is_index for manifest in self._manifests.values())
            check_count(read + len(level), self._wish.image)
        if level:
            raise UnsupportedContent(f"{self._wish.image} is nested more than {MAX_NESTING} levels deep")

    def members(self) -> tuple[DraftImage, ...]:
        """The images that were read, checked against their labels. Raises UsageError, UnsupportedContent."""
        manifest = self._manifests[self._root]
        if not manifest.is_index:
            return (self._named(manifest),)
        found: dict[Digest, Descriptor | None] = {}
        self._list(manifest, (), found)
        listed = [child for child in found.values() if child is not None]
        images = [child for child in listed if not attested_digest(child)]
        if self._wish.label != NO_PLATFORM and len(images) != 1:
            there = ", ".join(str(child.platform or "no platform") for child in images[:8])
            raise UsageError(
                f"{self._wish.image} is labelled {self._wish.label}, but it is an index of {len(images)} "
                f"images ({there}); name the one that is meant by its digest"
            )
        return tuple(self._listed(child, alone=len(images) == 1) for child in listed)

    async def _read(self, child: Descriptor) -> None:
        raw = await self._source.read(child)
        manifest = parse_manifest(raw, child.media_type, digest=child.digest)
        self._manifests[child.digest] = manifest
        if not manifest.is_index and not attested_digest(child):
            self._configs[child.digest] = await read_platform(self._source, manifest)

    def _list(
        self, index: Manifest, above: tuple[Digest, ...], listed: dict[Digest, Descriptor | None]
    ) -> None:
        """Add the images below an index to `listed`, in order of mention, each index of them once."""
        above = (*above, index.descriptor.digest)
        if index.layers:
            raise UnsupportedContent(
                f"index {index.descriptor.digest} of {self._wish.image} lists {index.layers[0].digest},"
                f" a {index.layers[0].media_type[:120]!r}; an index made by hand is of images alone"
            )
        for child in index.manifests:
            manifest = self._manifests[child.digest]
            if child.digest in above:
                raise UnsupportedContent(f"index {child.digest} of {self._wish.image} contains itself")
            if child.digest in listed:
                continue
            if manifest.is_index:
                listed[child.digest] = None
                self._list(manifest, above, listed)
            else:
                listed[child.digest] = _as_read(child, manifest)

    def _named(self, manifest: Manifest) -> DraftImage:
        """The member that the request names itself."""
        image, label, config = self._wish.image, self._wish.label, self._configs[manifest.descriptor.digest]
        self._check(image, label, config)
        return DraftImage(image, manifest.descriptor, config, label)

    def _listed(self, child: Descriptor, *, alone: bool) -> DraftImage:
        """A member that an index lists: the platform that the index gives is a label too.

        `alone`: with no other but attestations, as builders push it. Then what is said of the index is meant
        for it.
        """
        image = Reference(self._wish.image.host, self._wish.image.repository, digest=child.digest)
        bare = Descriptor(child.media_type, child.digest, child.size, artifact_type=child.artifact_type)
        member = DraftImage(
            image,
            bare,
            self._configs.get(child.digest, NO_PLATFORM),
            child.platform or NO_PLATFORM,
            child.annotations or {},
        )
        if attested_digest(child):
            return member
        if not self._force:
            check_label(image, member.label, member.config, by=f" in {self._wish.image}")
        if not alone:
            return member
        self._check(self._wish.image, self._wish.label, member.config)
        return member.labelled(self._wish.label)

    def _check(self, image: Reference, label: Platform, config: Platform) -> None:
        """Raise UsageError if the user's label, or the tag's, contradicts the config."""
        if self._force:
            return
        check_label(image, label, config)
        hidden = None if self._wish.image.digest else label_in_tag(self._wish.image.tag)
        if hidden is not None:
            check_label(image, hidden, config, by=" by its tag")


def _as_read(child: Descriptor, manifest: Manifest) -> Descriptor:
    """A descriptor with the manifest's own media type and size, which others' descriptors may lack."""
    own = manifest.descriptor
    return msgspec.structs.replace(child, media_type=own.media_type, size=own.size)


async def put(client: Client, draft: IndexDraft) -> Manifest:
    """Copy a draft's images to its target's repository, by digest, and then put the index under its tags.

    Content that is there stays; blobs that another repository of the registry has are mounted, the rest is
    copied. Raises what `IndexDraft.index` does, before any request, and the error of the first image that did
    not arrive: then the index is not put.
    """
    draft.index()
    async with client.services() as services:
        index = await put_in(services, draft)
        await client.tidy()
        return index


async def put_in(services: Services, draft: IndexDraft) -> Manifest:
    """Like `put`, with services that are open already."""
    index = draft.index()
    site = site_of(draft.target)
    run = run_of_pairs(_pairs(draft), observe=services.observe, meter=services.meter)
    await run.execute(services)
    for error in run.errors.values():
        raise error
    tags = filter(None, dict.fromkeys((draft.target.tag, *draft.tags)))
    with error_side("target"):
        await services.sink_at(site).put(index.descriptor, index.raw, tuple(tags))
    return index


def _pairs(draft: IndexDraft) -> list[Pair]:
    """Each image from where it was found to the target's repository, by digest on both sides."""
    seen = {member.descriptor.digest: member.image for member in draft.members}
    return [
        Pair(
            Reference(image.host, image.repository, digest=digest),
            Reference(draft.target.host, draft.target.repository, digest=digest),
        )
        for digest, image in seen.items()
    ]
