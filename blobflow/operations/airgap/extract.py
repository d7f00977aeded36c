"""Writes the plain files of bundles into a folder, each where its title says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from blobflow.client import Client
from blobflow.engine.services import Services
from blobflow.errors import error_side
from blobflow.oci import Manifest, Reference, parse_manifest
from blobflow.oci.bundle import CUSTOM_RESOURCES, DEPLOYMENT_TYPE, FILES_TYPE
from blobflow.oci.local_reference import OCI_ARCHIVE, transport_of
from blobflow.operations.airgap.archive_inputs import ArchiveInput, archives_of, lacking
from blobflow.operations.airgap.bundled_files import check_titles
from blobflow.operations.airgap.load import ARCHIVES, with_archives
from blobflow.operations.artifacts.pull import PulledFile, files_of, files_there, pulled_file, write_files
from blobflow.transports.files import in_thread
from blobflow.transports.union_source import UnionSource


class ExtractedFiles(msgspec.Struct, frozen=True):
    """The files that are there. `custom_resources`: whether images were collected from these, too, of the
    deployment files among them."""

    files: tuple[PulledFile, ...]
    custom_resources: bool


async def extract_files(
    client: Client, inputs: Sequence[ArchiveInput], folder: Path, *, deployments_alone: bool = False
) -> ExtractedFiles:
    """Write the bundles' files below `folder`, which is made if need be; what is there is replaced.

    `deployments_alone`: those that images were collected from, and no others. Raises UnsupportedContent for a
    title that leads out of the folder or is taken by another file, and for links in the way, before anything
    is written; what is wrong with an archive; and StorageError, as for a disk that is full: then each file is
    as it was or whole.
    """
    kinds = (DEPLOYMENT_TYPE,) if deployments_alone else (DEPLOYMENT_TYPE, FILES_TYPE)
    async with client.services() as services:
        artifacts = {
            Reference(ARCHIVES, "files", digest=manifest.descriptor.digest): manifest
            async for manifest in _manifests(services, inputs)
            if manifest.artifact_type in kinds
        }
        files = {reference: files_of(reference, manifest) for reference, manifest in artifacts.items()}
        check_titles([each for found in files.values() for each in found])
        current = {
            reference: await in_thread(files_there, found, folder, True) for reference, found in files.items()
        }
        roots = {str(each.descriptor.digest): each.descriptor for each in artifacts.values()}
        union = UnionSource(archives_of(services, inputs), roots, absent=lacking(inputs))
        over = with_archives(services, {"files": union})
        for reference, found in files.items():
            if wanted := [each for each in found if each not in current[reference]]:
                await write_files(over, reference, wanted, folder)
        await client.tidy()
    return ExtractedFiles(
        tuple(pulled_file(each, folder, current[at]) for at, found in files.items() for each in found),
        any(each.annotations.get(CUSTOM_RESOURCES) == "true" for each in artifacts.values()),
    )


async def _manifests(services: Services, inputs: Sequence[ArchiveInput]) -> AsyncIterator[Manifest]:
    """All that the OCI archives name, in their order; docker's have no files."""
    archives = archives_of(services, inputs)
    union = UnionSource(archives, {}, absent=lacking(inputs))
    with error_side("source"):
        for item, archive in zip(inputs, archives, strict=True):
            for number in await archive.names() if transport_of(item.place) == OCI_ARCHIVE else ():
                root = await archive.resolve(f"@{number}")
                yield parse_manifest(await union.read(root), root.media_type, digest=root.digest)
