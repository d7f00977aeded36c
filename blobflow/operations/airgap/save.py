"""Saves a set of images and files into one OCI archive, each blob once, or into numbered parts of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from blobflow.client import Client
from blobflow.content import Sink, Site, Source
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.errors import BlobflowError, RunCutShort, UnsupportedContent, UsageError, error_side
from blobflow.events import PhaseStarted
from blobflow.oci import Digest
from blobflow.oci.artifact import named_files
from blobflow.oci.index_grouping import parse_image_name
from blobflow.oci.local_reference import OCI_ARCHIVE, transport_of
from blobflow.operations.airgap.archive_inputs import ArchiveInput, archive_of
from blobflow.operations.airgap.bundled_files import (
    BundledFiles,
    check_titles,
    make_bundled_files,
    make_deployments,
    put_bundled_files,
)
from blobflow.operations.airgap.load import StartRun
from blobflow.operations.artifacts.files import FileArgument
from blobflow.transports.archive import ArchiveSink
from blobflow.transports.files import in_thread
from blobflow.transports.local import host_platform


class Bundle(msgspec.Struct, frozen=True):
    """The archive to write: at `place` (transport and path), in parts of at most `part_bytes` (None: one
    file), and without the blobs that the archives `since` have.

    `files` go into it beside the images, whole whatever `since` has; `deployments` are the paths of the files
    that images were collected from, of custom resources too if `custom_resources` says so.
    """

    place: str
    part_bytes: int | None = None
    since: tuple[ArchiveInput, ...] = ()
    files: tuple[FileArgument, ...] = ()
    deployments: tuple[str, ...] = ()
    custom_resources: bool = False


async def save(client: Client, pairs: Sequence[Pair], bundle: Bundle, begin: StartRun) -> Sequence[Path]:
    """Copy the pairs' images into the bundle, where all their targets are, and its files. Returns what was
    written: the archive or its parts; nothing where there is none now, or it went into a stream.

    The bundle exists when this returns, with every image that arrived; it does not when it raises, or when
    the run ended before all images had been tried, or brought none of several. Failures of images are in the
    report of the run that `begin` makes; what is wrong with a file is raised.
    """
    with TemporaryDirectory(prefix="blobflow-") as scratch:
        if bundle.files:
            client.observer(PhaseStarted("files", len(bundle.files)))
        files = await in_thread(make_bundled_files, bundle.files, Path(scratch))
        files += await in_thread(make_deployments, bundle.deployments, bundle.custom_resources)
        _check_names(files, pairs)
        async with client.services() as services:
            sink = await _sink(client, services, pairs, bundle)
            sink.expect(dict.fromkeys(blob for each in files for blob in each.blobs))
            try:
                written = await _fill(sink, services, pairs, files, begin)
            finally:
                sink.abandon()
            await client.tidy()
        return written


async def _sink(client: Client, services: Services, pairs: Sequence[Pair], bundle: Bundle) -> ArchiveSink:
    site = Site(bundle.place, "")
    elsewhere: set[Digest] = set()
    if bundle.since:
        client.observer(PhaseStarted("archives", len(bundle.since)))
    with error_side("source"):
        for older in bundle.since:
            if transport_of(older.place) != OCI_ARCHIVE:
                raise UsageError(f"--since takes an OCI archive, and {older.label} is docker's")
            elsewhere |= await archive_of(services, older).held()
    return ArchiveSink(
        site,
        (await client.open()).store.root,
        client.meter.hosts[site.registry],
        host_platform(),
        limit=bundle.part_bytes,
        elsewhere=elsewhere,
        aside=services.manifest_budget.aside,
        origins=_origins(pairs),
    )


async def _fill(
    sink: ArchiveSink,
    services: Services,
    pairs: Sequence[Pair],
    files: Sequence[BundledFiles],
    begin: StartRun,
) -> Sequence[Path]:
    """Run the pairs into the archive, and complete it. Returns its files."""
    site, failures = sink.site, dict[Site, BlobflowError]()

    def sink_at(place: Site) -> Sink:
        return sink if place == site else services.sink_at(place)

    def source_at(place: Site) -> Source:
        return sink if place == site else services.source_at(place)

    async def complete() -> dict[Site, BlobflowError]:
        failures.update(await services.complete())
        try:
            if run.cut_short:
                raise RunCutShort(f"{site} is not written: the run ended before all images were there")
            if sink.named or not pairs:
                await put_bundled_files(files, sink)
            await sink.complete()
        except BlobflowError as error:
            failures[site] = error
        return failures

    over = msgspec.structs.replace(services, sink_at=sink_at, source_at=source_at, complete=complete)
    run = begin(pairs, ())
    await run.execute(over)
    if files and site in failures:
        raise failures[site]
    return () if site in failures else sink.files


def _origins(pairs: Sequence[Pair]) -> Mapping[str, str]:
    """Where each image of the bundle is from, by its name there; nothing of those from files, which the other
    side would not know."""
    return {pair.target.tag: str(pair.source) for pair in pairs if not pair.source.transport}


def _check_names(files: Sequence[BundledFiles], pairs: Sequence[Pair]) -> None:
    """Raise UsageError where a file and an image would have one name at a registry, or files one place."""
    try:
        check_titles([each for artifact in files for each in named_files(artifact.manifest)])
    except UnsupportedContent as error:
        raise UsageError(f"{error.message}; rename one, or give it by another path") from None
    images = {parse_image_name(pair.target.tag): pair for pair in pairs}
    for each in files:
        if pair := images.get(parse_image_name(each.name)):
            raise UsageError(
                f"a file of the bundle would be called {each.name}, as {pair.source} is; rename the file"
            )
