"""Layouts and archives of one run, by their sites: each opened once, completed or abandoned at the end."""

from __future__ import annotations

import platform
from pathlib import Path

from blobflow.content import Sink, Site, Source
from blobflow.errors import BlobflowError, StorageError, UsageError
from blobflow.events import Meter
from blobflow.oci import Platform, parse_platform
from blobflow.oci.local_reference import LAYOUT, path_of, transport_of
from blobflow.transports.archive import ArchiveSink, ArchiveSource, CompressMode, Importer, codec
from blobflow.transports.archive.read_only_sink import ReadOnlySink
from blobflow.transports.layout.layout import OciLayout
from blobflow.transports.store import SpillFile, Store


def host_platform() -> Platform:
    """The platform of linux images that this machine runs."""
    return parse_platform(f"linux/{platform.machine() or 'amd64'}")


class LocalTransports:
    """The places of a run that are no registries.

    An archive that is written to is not read from what it held before: it is replaced as a whole. `platform`:
    which image of an index docker's list in an archive names. `looking`: targets are asked for what they
    hold, and nothing is written.
    """

    def __init__(
        self,
        store: Store,
        meter: Meter,
        *,
        compress: CompressMode = "gzip",
        platform: Platform | None = None,
        looking: bool = False,
    ) -> None:
        self._store = store
        self._meter = meter
        self._platform = platform or host_platform()
        self._looking = looking
        self._compress: CompressMode = compress
        self._importer: Importer | None = None
        self._aside = SpillFile(store)
        self._layouts: dict[Site, OciLayout] = {}
        self._archives: dict[Site, ArchiveSource] = {}
        self._written: dict[Site, ArchiveSink] = {}

    def source(self, site: Site) -> Source:
        if transport_of(site.registry) == LAYOUT:
            return self._layout(site)
        if site in self._written:
            return self._written[site]
        return self._archive(site)

    def _archive(self, site: Site) -> ArchiveSource:
        if site not in self._archives:
            meter = self._meter.hosts[site.registry]
            if self._importer is None:
                self._importer = Importer(self._store, codec(self._compress))
            self._archives[site] = ArchiveSource(site, self._store, self._importer, meter)
        return self._archives[site]

    def sink(self, site: Site) -> Sink:
        if transport_of(site.registry) == LAYOUT:
            return self._layout(site)
        if self._looking:
            return ReadOnlySink(self._archive(site))
        if site not in self._written:
            if site in self._archives:
                raise UsageError(f"{site} is both read and written; write another file")
            meter = self._meter.hosts[site.registry]
            self._written[site] = ArchiveSink(
                site, self._store.root, meter, self._platform, aside=self._aside
            )
        return self._written[site]

    def _layout(self, site: Site) -> OciLayout:
        if site not in self._layouts:
            meter = self._meter.hosts[site.registry]
            self._layouts[site] = OciLayout(site, Path(path_of(site.registry)), meter)
        return self._layouts[site]

    async def complete(self) -> dict[Site, BlobflowError]:
        """Complete the archives that were written; says which could not be, and why: those are not there."""
        failures: dict[Site, BlobflowError] = {}
        for site, sink in self._written.items():
            try:
                await sink.complete()
            except StorageError as error:
                failures[site] = error
        return failures

    def close(self) -> None:
        """Leave all places; archives that are not complete are abandoned."""
        for sink in self._written.values():
            sink.abandon()
        self._aside.close()
        for archive in self._archives.values():
            archive.close()
        if self._importer is not None:
            self._importer.close()
