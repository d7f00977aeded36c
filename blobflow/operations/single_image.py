"""One image of a reference: its digest, and its config. Reads what tells the platforms apart, and no layer.

A reference may name an index. Then a platform says which of its images is meant; entries that tell no
platform are asked by their configs, as everywhere (see `engine.sources.configs`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from blobflow.client import Client
from blobflow.content import Source
from blobflow.engine.pairs import site_of
from blobflow.engine.sources.configs import find_platform, read_raw_config
from blobflow.errors import NoSuchPlatform, UnsupportedContent, error_side
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference, media, parse_manifest
from blobflow.oci.platform_choice import declared_platform, entries
from blobflow.printable import first_of

# Indexes inside of indexes are followed to this depth, as deep as any that a mirror would put.
_MAX_LEVELS = 16
# Platforms that an error lists; an index may have thousands.
_SHOWN = 12


class _Entry(msgspec.Struct, frozen=True):
    """What an index lists that is no index; `manifest`, where it was read already."""

    descriptor: Descriptor
    platform: Platform | None
    manifest: Manifest | None = None


async def image_digest(client: Client, reference: Reference, platform: Platform | None = None) -> Digest:
    """The digest of what a reference names; with `platform`, of the image for it, if that is an index.

    Costs one HEAD at a registry, without `platform`. Raises what the source answers, and NoSuchPlatform.
    """
    async with _opened(client, reference) as (source, root):
        if platform is None:
            return root.digest
        return (await _entry_for(source, root, reference, platform)).descriptor.digest


async def image_config(client: Client, reference: Reference, platform: Platform, *, chosen: bool) -> bytes:
    """The config of one image, byte for byte, verified: of the one for `platform`.

    Unless that was `chosen`, an index with one image, and a single image, is taken for whatever platform it
    is. Raises what the source answers, NoSuchPlatform, and UnsupportedContent for what has no config.
    """
    async with _opened(client, reference) as (source, root):
        wanted = await _entry_for(source, root, reference, platform, chosen=chosen)
        manifest = wanted.manifest or await _read(source, wanted.descriptor)
        if manifest.config is None:
            raise UnsupportedContent(f"{reference} is a manifest without a config")
        return await read_raw_config(source, manifest)


@asynccontextmanager
async def _opened(client: Client, reference: Reference) -> AsyncIterator[tuple[Source, Descriptor]]:
    async with client.services() as services:
        with error_side("source"):
            source = services.source_at(site_of(reference))
            yield source, await source.resolve(reference.name)


async def _read(source: Source, descriptor: Descriptor) -> Manifest:
    raw = await source.read(descriptor)
    return parse_manifest(raw, descriptor.media_type, digest=descriptor.digest)


async def _entry_for(
    source: Source, root: Descriptor, reference: Reference, wanted: Platform, *, chosen: bool = True
) -> _Entry:
    """The first entry for a platform. Raises NoSuchPlatform, which says what there is."""
    met: list[_Entry] = []
    async for entry in _entries(source, root, _MAX_LEVELS):
        if entry.platform is not None and entry.platform.matches(wanted):
            return entry
        met.append(entry)
    runnable = [entry for entry in met if entry.platform is not None]
    # What is for no platform at all (a chart, say) is for this one too, where nothing else is meant.
    if len(met) == 1 and (not chosen or not runnable):
        return met[0]
    names = sorted({str(entry.platform) for entry in runnable})
    there = f"it is for {first_of(names, _SHOWN)}" if names else "it lists no image"
    raise NoSuchPlatform(f"{reference} has no image for {wanted}; {there}")


async def _entries(source: Source, root: Descriptor, levels: int) -> AsyncIterator[_Entry]:
    """What is below a root and is no index, in its order; attestations are no entries of their own.

    An entry that tells its platform is not read before it is wanted.
    """
    if declared_platform(root) is not None and root.media_type not in media.INDEXES:
        yield _Entry(root, declared_platform(root))
        return
    manifest = await _read(source, root)
    if not manifest.is_index:
        platform = declared_platform(root) or await find_platform(source, manifest)
        yield _Entry(root, platform, manifest)
        return
    for child in entries(manifest) if levels else ():
        if media.without_parameters(child.media_type) in media.MANIFESTS:  # build caches list blobs, too
            async for entry in _entries(source, child, levels - 1):
                yield entry
