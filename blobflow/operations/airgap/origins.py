"""Where the images of bundles are from: what nodes and deployment files call them."""

from __future__ import annotations

from collections.abc import Sequence

from blobflow.client import Client
from blobflow.errors import error_side
from blobflow.oci import Reference, parse_manifest, parse_reference
from blobflow.oci.bundle import kind_of
from blobflow.oci.index_grouping import ImageName, parse_image_name
from blobflow.operations.airgap.load import ArchiveInput, archives_of, lacking
from blobflow.transports.layout.image_names import full_name
from blobflow.transports.union_source import UnionSource


async def image_origins(client: Client, inputs: Sequence[ArchiveInput]) -> dict[ImageName, Reference]:
    """The reference that each image of the archives had where it was saved, by its name at a registry; as far
    as a bundle does not say it, its name there with docker's defaults. Plain files have none.

    Raises what is wrong with an archive, and InvalidReference.
    """
    found: dict[ImageName, Reference] = {}
    async with client.services() as services:
        archives = archives_of(services, inputs)
        union = UnionSource(archives, {}, absent=lacking(inputs))
        with error_side("source"):
            for archive in archives:
                said = await archive.origins()
                for number, texts in (await archive.names()).items():
                    root = await archive.resolve(f"@{number}")
                    manifest = parse_manifest(await union.read(root), root.media_type, digest=root.digest)
                    for text in texts if kind_of(manifest) != "files" else ():
                        if name := parse_image_name(text):
                            found.setdefault(name, parse_reference(said.get(number) or full_name(text)))
    return found
