"""The local transports (layouts, archives), in one table by the prefix of their references.

To add one: its word in `blobflow.oci.local_reference`, a class that is a `LocalTransport`, and its row in
`TRANSPORTS`. What is done with an image at a place is `blobflow.content`'s Source and Sink.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from blobflow.content import Sink, Site, Source
from blobflow.errors import BlobflowError
from blobflow.events import Meter
from blobflow.oci import Platform, parse_platform
from blobflow.oci.local_reference import DOCKER_ARCHIVE, LAYOUT, OCI_ARCHIVE, transport_of
from blobflow.transports.archive import Archives, CompressMode
from blobflow.transports.layout.layout import OciLayouts
from blobflow.transports.store import Store


class LocalTransport(Protocol):
    """All layouts or archives of one kind in one run, each opened once."""

    def source(self, site: Site) -> Source: ...

    def sink(self, site: Site) -> Sink:
        """Raises UsageError for a place that can't be a target of this run."""
        ...

    async def complete(self) -> Mapping[Site, BlobflowError]:
        """Complete what was written, at the end of the run; returns what could not be, and why."""
        ...

    def close(self) -> None:
        """Leave all places. What was written and is not complete is abandoned."""
        ...


class LocalRun(msgspec.Struct, frozen=True):
    """The settings of a run for its local transports.

    `compress` is for bare layers that archives are read with. `platform` is that of the image which docker's
    list in an archive names, of an index. With `read_only`, targets are asked for what they hold, and nothing
    is written.
    """

    store: Store
    meter: Meter
    compress: CompressMode
    platform: Platform
    read_only: bool


def _layouts(run: LocalRun) -> LocalTransport:
    return OciLayouts(run.meter)


def _archives(run: LocalRun) -> LocalTransport:
    return Archives(run.store, run.meter, run.compress, run.platform, read_only=run.read_only)


TRANSPORTS: Mapping[str, Callable[[LocalRun], LocalTransport]] = {
    LAYOUT: _layouts,
    OCI_ARCHIVE: _archives,
    DOCKER_ARCHIVE: _archives,
}


def host_platform() -> Platform:
    """The platform of linux images that this machine runs."""
    return parse_platform(f"linux/{platform.machine() or 'amd64'}")


class LocalTransports:
    """The local transports of one run, each created when the first of its paths is used."""

    def __init__(
        self,
        store: Store,
        meter: Meter,
        *,
        compress: CompressMode = "gzip",
        platform: Platform | None = None,
        read_only: bool = False,
    ) -> None:
        """`platform`: None for this machine's. For the rest see `LocalRun`."""
        self._run = LocalRun(store, meter, compress, platform or host_platform(), read_only)
        self._made: dict[Callable[[LocalRun], LocalTransport], LocalTransport] = {}

    def source(self, site: Site) -> Source:
        return self._at(site).source(site)

    def sink(self, site: Site) -> Sink:
        return self._at(site).sink(site)

    def _at(self, site: Site) -> LocalTransport:
        make = TRANSPORTS[transport_of(site.registry)]
        if make not in self._made:
            self._made[make] = make(self._run)
        return self._made[make]

    async def complete(self) -> dict[Site, BlobflowError]:
        """Complete what was written; returns what could not be, and why: those places are as they were."""
        failures: dict[Site, BlobflowError] = {}
        for transport in self._made.values():
            failures |= await transport.complete()
        return failures

    def close(self) -> None:
        """Leave all places; what is not complete is abandoned."""
        for transport in self._made.values():
            transport.close()
