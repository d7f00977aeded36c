"""All registries of a run: their settings, one client a host, and repositories that share it.

Everything that a host needs to remember is in its one `HostClient` and `BlobPusher`; a repository has no
state of its own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial

import msgspec

from blobflow.content import Allowance, BlobStream, Journal, NullJournal, Site, Sleep, Source
from blobflow.events import Meter, Observer, ignore
from blobflow.oci import Descriptor, Digest
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS
from blobflow.transports.registry.api.cache_probe import probe_cache
from blobflow.transports.registry.api.deletion import delete_blob
from blobflow.transports.registry.api.repository import Repository
from blobflow.transports.registry.api.tags import list_repositories
from blobflow.transports.registry.capabilities.profiles import profile_of
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.http.rate_limit import rate_limit_of
from blobflow.transports.registry.http.read_ahead import ReadAhead
from blobflow.transports.registry.mirrors import Mirror, MirroredSource, MirrorHealth, parse_mirror
from blobflow.transports.registry.uploads.pusher import BlobPusher


class Registries:
    """All registries of a run, each with one client that connects when it is first used.

    `access` says how a host (`host[:port]`, as in references) is reached, and is asked once a host. `trace`
    makes every HTTP exchange a `Traced` event. Over all hosts `bytes_per_second` are read, and as many
    written, at most; 0 is no limit. `longest_wait`: seconds that are waited at most where a host wants fewer
    requests; one that wants more time than that raises Throttled, or Unavailable. `sleep`, `clock` (seconds)
    and `jitter` (0 ≤ j < 1) are there for tests.
    """

    def __init__(
        self,
        access: Callable[[str], HostAccess],
        *,
        observer: Observer = ignore,
        meter: Meter | None = None,
        journal: Journal | None = None,
        trace: bool = False,
        user_agent: str = "blobflow",
        bytes_per_second: float = 0,
        longest_wait: float = MAX_RETRY_AFTER_SECONDS,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._access = access
        self._observer = observer
        self._meter = meter or Meter()
        self._journal = journal or NullJournal()
        self._trace = trace
        self._user_agent = user_agent
        self._longest_wait = longest_wait
        self._reading = rate_limit_of(bytes_per_second, clock)
        self._writing = rate_limit_of(bytes_per_second, clock)
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._read_ahead = ReadAhead()
        self._hosts: dict[str, tuple[HostClient, BlobPusher]] = {}
        self._mirrors: dict[str, tuple[str, ...]] = {}
        self._health = MirrorHealth(clock, observer)
        self._written: set[Site] = set()
        self._part = 1.0

    def source(self, site: Site) -> Source:
        """The repository as a Source: asked at its registry's mirrors first, if it has any.

        What is written in this run is read where it is written: a mirror lags behind.
        """
        written = site in self._written
        own = self._reader(site, written=written)
        mirrors = [] if written else self._mirrors_of(site)
        return MirroredSource(mirrors, own, self._health) if mirrors else own

    def sink(self, site: Site) -> Repository:
        """The repository as a Sink."""
        self._written.add(site)
        return Repository(site, *self._host(site.registry), writes=True)

    def repository(self, site: Site) -> Repository:
        """The repository at the registry itself, never at a mirror of it."""
        return self._reader(site)

    def allowance(self, host: str) -> Allowance | None:
        """See `AllowanceOf`."""
        found = self._hosts.get(host)
        return found[0].allowance if found is not None else None

    def change_limits(self, *, bytes_per_second: float = 0, part: float = 1.0) -> None:
        """Ask `access` anew for the limits of hosts, and keep those from now on: others may have their part
        of them. Rates are changed where they were limited from the start. `part`: of the requests a second,
        this process sends so much."""
        self._part = part
        for host, (client, _) in self._hosts.items():
            client.change_limits(self._limited(host))
        for limit in (self._reading, self._writing):
            if limit is not None and bytes_per_second > 0:
                limit.rate = bytes_per_second

    def probe_cache(
        self, site: Site, blob: Descriptor, *, again: bool = False
    ) -> AbstractAsyncContextManager[BlobStream | None]:
        """Whether a pull-through cache has a blob stored, or else its bytes: see `probe_cache`."""
        client, _ = self._host(site.registry)
        return probe_cache(client, site, blob, again=again)

    async def delete_blob(self, site: Site, blob: Digest) -> bool:
        """Take a blob out of a repository: see `deletion.delete_blob`."""
        client, _ = self._host(site.registry)
        return await delete_blob(client, site, blob)

    async def ping(self, host: str) -> bool:
        """Ask whether `host[:port]` is a registry that lets us in; False if it lets anybody in."""
        client, _ = self._host(host)
        return await client.ping()

    async def repositories(self, host: str) -> list[str]:
        """The repositories of `host[:port]`: see `tags.list_repositories`."""
        client, _ = self._host(host)
        return await list_repositories(client)

    def cancel_abandoned_uploads(self, hosts: Iterable[str]) -> None:
        """Cancel the upload sessions at those hosts that processes left which were killed: nobody goes on
        with them any more. In the background; `close` waits for it."""
        for host in hosts:
            if self._journal.abandoned_uploads(host):
                self._host(host)[1].cancel_abandoned()

    async def close(self) -> None:
        """Cancel the upload sessions of refused mounts that nobody used, and close all connections."""
        hosts, self._hosts = list(self._hosts.values()), {}
        await asyncio.gather(*(uploads.close() for _, uploads in hosts))
        await asyncio.gather(*(client.close() for client, _ in hosts))

    def _reader(self, site: Site, *, fail_fast: bool = False, written: bool = False) -> Repository:
        return Repository(
            site, *self._host(site.registry), writes=False, fail_fast=fail_fast, written=written
        )

    def _mirrors_of(self, site: Site) -> list[Mirror]:
        """The repository at the mirrors of its registry; mirrors of mirrors are not asked."""
        self._host(site.registry)
        found = []
        for text in self._mirrors[site.registry]:
            place = parse_mirror(text)
            repository = f"{place.repository}/{site.repository}" if place.repository else site.repository
            there = Site(place.registry, repository)
            if there != site:
                found.append(Mirror(place.registry, partial(self._reader, there, fail_fast=True)))
        return found

    def _limited(self, host: str) -> HostAccess:
        access = self._access(host)
        rate = access.requests_per_second * self._part
        return msgspec.structs.replace(access, requests_per_second=rate)

    def _host(self, host: str) -> tuple[HostClient, BlobPusher]:
        found = self._hosts.get(host)
        if found is None:
            access = self._limited(host)
            self._mirrors[host] = access.mirrors
            client = HostClient(
                host,
                access,
                observer=self._observer,
                meter=self._meter.hosts[host],
                sleep=self._sleep,
                clock=self._clock,
                random=self._jitter,
                trace=self._trace,
                user_agent=self._user_agent,
                reading=self._reading,
                writing=self._writing,
                longest_wait=self._longest_wait,
                journal=self._journal,
                read_ahead=self._read_ahead,
            )
            uploads = BlobPusher(client, access.profile or profile_of(host), self._journal)
            found = self._hosts[host] = client, uploads
        return found
