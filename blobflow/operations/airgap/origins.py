"""What the names in archives mean, and where the images were: what nodes and deployment files call them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from blobflow.client import Client
from blobflow.engine.services import Services
from blobflow.errors import error_side
from blobflow.oci import Manifest, Reference, parse_manifest, parse_reference
from blobflow.oci.bundle import kind_of
from blobflow.oci.index_grouping import ImageName, parse_image_name
from blobflow.operations.airgap.load import ArchiveInput, archives_of, lacking
from blobflow.transports.layout.image_names import full_name
from blobflow.transports.union_source import UnionSource


class NamedManifest(msgspec.Struct, frozen=True):
    """What an archive has under these names; `origin`: the reference that it had where it was saved, "" where
    that is not said."""

    names: tuple[str, ...]
    manifest: Manifest
    origin: str


async def named_manifests(services: Services, inputs: Sequence[ArchiveInput]) -> AsyncIterator[NamedManifest]:
    """All that the archives name, in their order. Raises what is wrong with an archive."""
    archives = archives_of(services, inputs)
    union = UnionSource(archives, {}, absent=lacking(inputs))
    with error_side("source"):
        for archive in archives:
            origins = await archive.origins()
            for number, names in (await archive.names()).items():
                root = await archive.resolve(f"@{number}")
                manifest = parse_manifest(await union.read(root), root.media_type, digest=root.digest)
                yield NamedManifest(names, manifest, origins.get(number, ""))


async def image_origins(client: Client, inputs: Sequence[ArchiveInput]) -> dict[ImageName, Reference]:
    """The reference that each image of the archives had where it was saved, by its name at a registry; as far
    as a bundle does not say it, its name there with docker's defaults. Plain files have none.

    Raises as `named_manifests`, and InvalidReference.
    """
    async with client.services() as services:
        return {
            name: parse_reference(each.origin or full_name(text))
            async for each in named_manifests(services, inputs)
            if kind_of(each.manifest) != "files"
            for text in each.names
            if (name := parse_image_name(text))
        }
