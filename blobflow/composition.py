"""Composition: opens registries, the store, layouts and archives, and gives them to the engine as `Services`.

Here, and only here, the engine meets the transports.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from blobflow.content import Cache, Journal, NullJournal, Sink, Site, Source
from blobflow.custom_transports import CustomTransports, OncePerSite
from blobflow.engine.services import Services
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer
from blobflow.oci.local_reference import transport_of
from blobflow.permits import FixedLimiters
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.store import (
    BestEffortCache,
    SpillFile,
    Store,
    StoreCache,
    StoreJournal,
    StrictCache,
    available_capacity,
)
from blobflow.version import USER_AGENT

if TYPE_CHECKING:
    from blobflow.transports.local import LocalTransports

NO_CUSTOM_TRANSPORTS = CustomTransports()


def open_registries(
    settings: Settings,
    observer: Observer,
    meter: Meter,
    *,
    journal: Journal | None = None,
    bytes_per_second: float = 0,
    access: Callable[[str], HostAccess] | None = None,
) -> Registries:
    """The registries, to be closed. Nothing is asked of one before it is needed.

    `journal`: what remembers upload sessions and what is known of hosts; None: nothing does.
    `bytes_per_second`: of all blobs together; 0: no limit. `access`: how a host is reached; None: as the
    settings say.
    """
    logins = logins_of(settings)
    return Registries(
        access or (lambda host: host_access(host, settings, logins)),
        observer=observer,
        meter=meter,
        journal=journal,
        trace=settings.trace,
        user_agent=USER_AGENT,
        bytes_per_second=bytes_per_second,
    )


def lasting_root(settings: Settings) -> Path | None:
    """Where the store is; None: it is a temporary one."""
    return None if settings.cache == "off" else settings.cache_dir


@contextmanager
def open_store(settings: Settings, observer: Observer) -> Iterator[Store]:
    """The store of the settings, or a temporary one that is gone in the end. Raises StorageError."""
    with ExitStack() as stack:
        root = lasting_root(settings)
        if root is None:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="blobflow-"))) / "store"
        yield stack.enter_context(closing(Store.open(root, observer=observer)))


class Opened(msgspec.Struct, frozen=True):
    """What several runs can share: the store and what it remembers, and registries with their connections."""

    store: Store
    journal: Journal
    registries: Registries


@asynccontextmanager
async def open_shared(settings: Settings, observer: Observer, meter: Meter) -> AsyncIterator[Opened]:
    """Open the store and the registries of runs. Raises StorageError where the store can't be opened."""
    if (root := lasting_root(settings)) is not None:
        await Store.free(root, meter.waits)
    with open_store(settings, observer) as store:
        journal = journal_of(settings, store)
        registries = open_registries(
            settings, observer, meter, journal=journal, bytes_per_second=settings.bytes_per_second
        )
        try:
            yield Opened(store, journal, registries)
        finally:
            await registries.close()


def journal_of(settings: Settings, store: Store) -> Journal:
    """What outlives a run; nothing does where there is no cache."""
    return NullJournal() if settings.cache == "off" else StoreJournal(store)


@asynccontextmanager
async def open_services(
    opened: Opened,
    settings: Settings,
    observer: Observer,
    meter: Meter,
    *,
    reading: bool = False,
    transports: CustomTransports = NO_CUSTOM_TRANSPORTS,
) -> AsyncIterator[Services]:
    """Everything outside its plan that one run touches: what is opened, and layouts and archives beside it.

    `reading`: archives that are targets are read, not written.
    """
    if settings.compress == "gzip-portable":
        from blobflow.transports.archive import codec

        codec(settings.compress)  # raises where it can't be had, before anything is moved
    store, registries = opened.store, opened.registries
    capacity = available_capacity(store, settings.cache_size)
    local = _LocalWhenWanted(lambda make: make(store, meter, compress=settings.compress, read_only=reading))
    own_sources, own_sinks = OncePerSite(transports.sources), OncePerSite(transports.sinks)

    def ours(site: Site) -> LocalTransports | Registries:
        return local() if transport_of(site.registry) else registries

    def source_at(site: Site) -> Source:
        own = own_sources.at(site)
        return ours(site).source(site) if own is None else own

    def sink_at(site: Site) -> Sink:
        own = own_sinks.at(site)
        return ours(site).sink(site) if own is None else own

    with closing(SpillFile(store)) as aside, closing(local):
        yield Services(
            source_at=source_at,
            sink_at=sink_at,
            cache=_cache_of(settings, store, capacity),
            journal=opened.journal,
            observe=observer,
            meter=meter,
            limiter_at=FixedLimiters(settings.blobs_at_once).at,
            allowance_of=registries.allowance,
            cache_mode=settings.cache,
            staging_bytes=capacity,
            staging_blobs=_most_staged_blobs(),
            complete=local.complete,
            retry_times=settings.retry_times,
            manifest_budget=ManifestBudget(aside),
        )


def _cache_of(settings: Settings, store: Store, capacity: int) -> Cache:
    """How runs use the store: as a place that has to take every blob, or as one that may be full."""
    kept = StoreCache(store)
    return StrictCache(store, kept, capacity) if settings.cache == "all" else BestEffortCache(store, kept)


def _most_staged_blobs() -> int | None:
    """How many blobs may pass through the store at once: each has two files open, and half of those that this
    process may have are left for its connections."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == resource.RLIM_INFINITY else max(1, most // 4)


class _LocalWhenWanted:
    """Layouts and archives, with their codecs: imported and opened when the first of them is asked for."""

    def __init__(self, make: Callable[[type[LocalTransports]], LocalTransports]) -> None:
        self._make = make
        self._places: LocalTransports | None = None

    def __call__(self) -> LocalTransports:
        if self._places is None:
            from blobflow.transports.local import LocalTransports

            self._places = self._make(LocalTransports)
        return self._places

    async def complete(self) -> Mapping[Site, BlobflowError]:
        """Let archives take their places. Returns why some can't."""
        return {} if self._places is None else await self._places.complete()

    def close(self) -> None:
        """Give up what is not complete."""
        if self._places is not None:
            self._places.close()
