"""The archives of one run, by site: each is opened once, and completed or abandoned at the end."""

from __future__ import annotations

from blobflow.content import Sink, Site, Source
from blobflow.errors import BlobflowError, StorageError, UsageError
from blobflow.events import Meter
from blobflow.oci import Platform
from blobflow.oci.media import CompressMode
from blobflow.transports.archive.importer import Importer
from blobflow.transports.archive.read_only_sink import ReadOnlySink
from blobflow.transports.archive.sink import ArchiveSink
from blobflow.transports.archive.source import ArchiveSource
from blobflow.transports.compression.compressors import codec
from blobflow.transports.store import SpillFile, Store


class Archives:
    """`oci-archive:` and `docker-archive:`, see `blobflow.transports.local.LocalTransport`.

    An archive that is written is replaced as a whole, so what it held before is not read from it.
    """

    def __init__(
        self, store: Store, meter: Meter, compress: CompressMode, platform: Platform, *, read_only: bool
    ) -> None:
        self._store = store
        self._meter = meter
        self._compress: CompressMode = compress
        self._platform = platform
        self._read_only = read_only
        self._importer: Importer | None = None
        self._spill_file = SpillFile(store)
        self._read: dict[Site, ArchiveSource] = {}
        self._written: dict[Site, ArchiveSink] = {}

    def source(self, site: Site) -> Source:
        return self._written[site] if site in self._written else self._source(site)

    def _source(self, site: Site) -> ArchiveSource:
        if site not in self._read:
            if self._importer is None:
                self._importer = Importer(self._store, codec(self._compress))
            meter = self._meter.hosts[site.registry]
            self._read[site] = ArchiveSource(site, self._store, self._importer, meter)
        return self._read[site]

    def sink(self, site: Site) -> Sink:
        """Raises UsageError for an archive that is read as well."""
        if self._read_only:
            return ReadOnlySink(self._source(site))
        if site not in self._written:
            if site in self._read:
                raise UsageError(f"{site} is both read and written; write another file")
            meter = self._meter.hosts[site.registry]
            self._written[site] = ArchiveSink(
                site, self._store.root, meter, self._platform, aside=self._spill_file
            )
        return self._written[site]

    async def complete(self) -> dict[Site, BlobflowError]:
        """Complete the archives that were written; returns those that could not be, which are not there."""
        failures: dict[Site, BlobflowError] = {}
        for site, sink in self._written.items():
            try:
                await sink.complete()
            except StorageError as error:
                failures[site] = error
        return failures

    def close(self) -> None:
        for sink in self._written.values():
            sink.abandon()
        self._spill_file.close()
        for source in self._read.values():
            source.close()
        if self._importer is not None:
            self._importer.close()
