"""Saves a set of images into one OCI archive, each blob once, or into numbered parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.client import Client
from blobflow.content import Sink, Site, Source
from blobflow.engine.pairs import Pair
from blobflow.errors import BlobflowError, StorageError, UsageError, error_side
from blobflow.events import PhaseStarted
from blobflow.oci import Digest
from blobflow.oci.local_reference import OCI_ARCHIVE, transport_of
from blobflow.operations.airgap.load import ArchiveInput, StartRun, archive_of
from blobflow.transports.archive import ArchiveSink
from blobflow.transports.local import host_platform


class Bundle(msgspec.Struct, frozen=True):
    """The archive to write: at `place` (transport and path), in parts of at most `part_bytes` (None: one
    file), and without the blobs that the archives `since` have."""

    place: str
    part_bytes: int | None = None
    since: tuple[ArchiveInput, ...] = ()


async def save(client: Client, pairs: Sequence[Pair], bundle: Bundle, begin: StartRun) -> None:
    """Copy the pairs' images into the bundle, where all their targets are.

    The bundle exists when this returns, with every image that arrived; it does not when it raises, or when
    the run ended before all images had been tried. Failures are in the report of the run that `begin` makes.
    """
    async with client.services() as services:
        site = Site(bundle.place, "")
        elsewhere: set[Digest] = set()
        if bundle.since:
            client.observer(PhaseStarted("archives", len(bundle.since)))
        with error_side("source"):
            for older in bundle.since:
                if transport_of(older.place) != OCI_ARCHIVE:
                    raise UsageError(f"--since takes an OCI archive, and {older.label} is docker's")
                elsewhere |= await archive_of(services, older).held()
        sink = ArchiveSink(
            site,
            (await client.open()).store.root,
            client.meter.hosts[site.registry],
            host_platform(),
            limit=bundle.part_bytes,
            elsewhere=elsewhere,
            aside=services.manifest_budget.aside,
        )

        def sink_at(place: Site) -> Sink:
            return sink if place == site else services.sink_at(place)

        def source_at(place: Site) -> Source:
            return sink if place == site else services.source_at(place)

        async def complete() -> dict[Site, BlobflowError]:
            failures = dict(await services.complete())
            try:
                if run.cut_short:
                    raise StorageError(f"{site} is not written: the run ended before all images were there")
                await sink.complete()
            except BlobflowError as error:
                failures[site] = error
            return failures

        over = msgspec.structs.replace(services, sink_at=sink_at, source_at=source_at, complete=complete)
        run = begin(pairs, ())
        try:
            await run.execute(over)
        finally:
            sink.abandon()
        await client.tidy()
