"""Writes the plain files of bundles into a folder, each where its title says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blobflow.client import Client
from blobflow.errors import UnsupportedContent, error_side
from blobflow.oci import Manifest, Reference, parse_manifest
from blobflow.oci.artifact import NamedFile
from blobflow.oci.bundle import DEPLOYMENT_TYPE, kind_of
from blobflow.operations.airgap.load import ARCHIVES, ArchiveInput, archives_of, lacking, with_archives
from blobflow.operations.artifacts.pull import PulledFile, files_of, files_there, pulled_file, write_files
from blobflow.printable import printable
from blobflow.transports.files import in_thread
from blobflow.transports.union_source import UnionSource


async def extract_files(
    client: Client, inputs: Sequence[ArchiveInput], folder: Path, *, deployments: bool | None = None
) -> list[PulledFile]:
    """Write the bundles' files below `folder`, which is made if need be; what is there is replaced.

    `deployments`: those alone that images were collected from, or none of them; None: all. Raises
    UnsupportedContent for a title that leads out of the folder or is taken by another file, and for links in
    the way, before anything is written; what is wrong with an archive; and StorageError, as for a disk that
    is full: then each file is as it was or whole.
    """
    async with client.services() as services:
        archives = archives_of(services, inputs)
        union = UnionSource(archives, {}, absent=lacking(inputs))
        artifacts: dict[Reference, Manifest] = {}
        with error_side("source"):
            for archive in archives:
                for number in await archive.names():
                    root = await archive.resolve(f"@{number}")
                    manifest = parse_manifest(await union.read(root), root.media_type, digest=root.digest)
                    if kind_of(manifest) == "files" and _is_wanted(manifest, deployments):
                        artifacts[Reference(ARCHIVES, "files", digest=root.digest)] = manifest
        files = {reference: files_of(reference, manifest) for reference, manifest in artifacts.items()}
        _check_titles([each for found in files.values() for each in found])
        current = {
            reference: await in_thread(files_there, found, folder, True) for reference, found in files.items()
        }
        roots = {str(each.descriptor.digest): each.descriptor for each in artifacts.values()}
        over = with_archives(services, {"files": UnionSource(archives, roots, absent=lacking(inputs))})
        for reference, found in files.items():
            if wanted := [each for each in found if each not in current[reference]]:
                await write_files(over, reference, wanted, folder)
        await client.tidy()
    return [pulled_file(each, folder, current[at]) for at, found in files.items() for each in found]


def _is_wanted(manifest: Manifest, deployments: bool | None) -> bool:
    return deployments is None or (manifest.artifact_type == DEPLOYMENT_TYPE) == deployments


def _check_titles(files: Sequence[NamedFile]) -> None:
    """Raise UnsupportedContent where a file would be in another's way. Into folders more may come."""
    taken: dict[tuple[str, ...], NamedFile] = {}
    for each in files:
        if each.parts in taken:
            raise UnsupportedContent(f"two files of the bundle are called {printable(each.title)!r}")
        taken[each.parts] = each
    for each in files:
        for length in range(1, len(each.parts)):
            above = taken.get(each.parts[:length])
            if above is not None and not above.unpack:
                raise UnsupportedContent(
                    f"a file of the bundle is called {printable(above.title)!r}, and another one is in a "
                    "folder of that name"
                )
