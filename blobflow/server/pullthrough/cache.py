"""Pulling through: what is not here is fetched from an upstream registry, once, and kept.

Rules
- A manifest by digest never changes: what is here is served, and nobody is asked.
- A tag is what its upstream says, asked (HEAD) when the last answer is older than the time to live. Where the
  upstream can't be asked, or won't answer, the tag is what it was: only "not found" takes it away.
- A blob is fetched if a manifest that is held here names it. However many ask, one read of the upstream grows
  in the store, and all follow it; nobody gets its last bytes before the digest of the whole matched. Where
  the upstream breaks off, the read goes on from there.
- What failed is left alone for some seconds, the repository or the whole upstream (`resting`): what is here
  is served at once, the rest is refused with a Retry-After.
- Requests that go away take nothing from others: who waits for a manifest waits for a task of its own.
- What is remembered of upstreams has a bound, in bytes and in time, whatever is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol, runtime_checkable

from blobflow.bounded_cache import BoundedCache
from blobflow.content import BlobReader, Lists, Refers, Site, Sleep, Source, SourceAt
from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker, ContentKind, upstream_error
from blobflow.server.pullthrough.incoming import IncomingBlobs
from blobflow.server.pullthrough.referenced_blobs import ReferencedBlobs
from blobflow.server.pullthrough.tag_lists import TagList
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.server.pullthrough.upstreams import Upstreams
from blobflow.server.routes import Route, is_tag, parse_digest_parameter
from blobflow.transports.store import Store, promises

# Seconds for which a tag is what the upstream said last.
TAG_TTL = 60.0
# Seconds that a client waits for an upstream where there is something to give it without.
REVALIDATE_SECONDS = 5.0
# Seconds in which a manifest has to have come where there is not: 4 MiB at 70 kB/s.
FETCH_SECONDS = 60.0
# Referrers of one digest that are fetched: what signs and describes an image is a handful.
MAX_REFERRERS = 100
# Answers that are remembered, and the bytes of lists of tags: one of a quarter million takes 32 MB.
_MOST_ASKED = 20_000
_LISTS_BYTES = 40 * 1024 * 1024
# Lists of tags that are read at once from one upstream: one may take 100 MB while it comes in.
_LISTS_AT_ONCE = 4

CacheOutcome = Literal["hit", "miss", "stale", "failed"]

_NOT_THERE = (NotFound, IntegrityError, UnsupportedContent)


@runtime_checkable
class _Listing(Lists, Protocol):
    """A source that lists its tags."""


@runtime_checkable
class _Telling(Protocol):
    """A source that can say whether it has a blob: see `Sink.has`."""

    async def has(self, content: Descriptor) -> bool: ...


class PullThroughCache:
    """What a registry fetches from its upstreams. Used on one loop; `close` it with the registry.

    `source_at` gives an upstream's repository. `ttl` in seconds: see TTL. `outcomes` counts the answers of
    manifests and blobs: hits were here, misses were fetched, stale ones could not be asked about. Its keys,
    and those of `bytes_read`, are of upstreams that were configured: few.
    """

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        source_at: SourceAt,
        *,
        ttl: float = TAG_TTL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.upstreams = upstreams
        self.outcomes: Counter[tuple[str, str, CacheOutcome]] = Counter()
        self.bytes_read: Counter[str] = Counter()
        self._store = store
        self._source_at = source_at
        self._reader = ManifestReader(store)
        self._referenced = ReferencedBlobs(store, self._reader)
        self._asked: BoundedCache[tuple[Site, str], bool] = BoundedCache(
            entries=_MOST_ASKED, seconds=ttl, clock=clock
        )
        self._listed: BoundedCache[Site, TagList] = BoundedCache(
            entries=_MOST_ASKED,
            room=_LISTS_BYTES,
            seconds=ttl,
            weigh=lambda site, tags: tags.weight,
            clock=clock,
        )
        self._listing: dict[str, asyncio.Semaphore] = {}
        self._breaker = CircuitBreaker(
            clock, store.observer, lambda site, kind: self._tell(site, kind, "failed")
        )
        self._requests = UpstreamRequests()
        self._incoming = IncomingBlobs(
            store,
            source_at,
            self._breaker,
            clock=clock,
            sleep=sleep,
            begun=lambda site: self._tell(site, "blob", "miss"),
            read=self._count,
        )

    async def close(self) -> None:
        """Give up what is being asked for just now, and wait until those who follow a blob have left it: they
        have been cancelled by then. What came of it stays for the next process."""
        await self._requests.close()
        await self._referenced.close()
        self._reader.close()
        await self._incoming.close()

    # Manifests

    async def fetch_manifest(self, route: Route) -> None:
        """See to it that what the upstream has under a manifest's reference is here.

        Returns also where there is nothing to fetch: what is here then is the answer. Raises ApiError.
        """
        upstream, name = route.upstream, route.reference
        assert upstream is not None
        if ":" in name:
            if self._holds(route.repository, parse_digest_parameter(name)):
                self._tell(upstream, "manifest", "hit")
                return
            await self._requests.once(upstream, name, lambda: self._fetch_pinned(route, upstream))
        elif is_tag(name):
            fresh = self._asked.get((upstream, name))
            if fresh and self._holds(
                route.repository, self._store.repositories.resolve(route.repository, name)
            ):
                self._tell(upstream, "manifest", "hit")
                return
            try:
                await self._requests.once(upstream, name, lambda: self._revalidate(route, upstream))
            except ApiError as error:
                here = self._holds(route.repository, self._store.repositories.resolve(route.repository, name))
                if not here or isinstance(error.__cause__, NotFound):
                    raise
                self._tell(upstream, "manifest", "stale")

    def _holds(self, repository: str, digest: Digest | None) -> bool:
        """Whether the repository has the manifest."""
        return bool(
            digest
            and self._store.repositories.media_type_of(repository, digest)
            and self._store.blobs.size_of(digest)
        )

    async def _fetch_pinned(self, route: Route, upstream: Site) -> None:
        async with self._guard(upstream, "manifest", FETCH_SECONDS):
            source = self._source_at(upstream)
            told = await source.resolve(route.reference)
            fetched = await self._read(route.repository, upstream, source, told)
        if fetched is not None:
            await self._hold(route.repository, upstream, fetched)

    async def _revalidate(self, route: Route, upstream: Site) -> None:
        """Make the tag what the upstream says it is. Raises ApiError where it does not say."""
        repository, tag, store = route.repository, route.reference, self._store
        held = store.repositories.resolve(repository, tag)
        patience = REVALIDATE_SECONDS if self._holds(repository, held) else FETCH_SECONDS
        try:
            async with self._guard(upstream, "manifest", patience):
                source = self._source_at(upstream)
                told = await source.resolve(tag)
                fetched = await self._read(repository, upstream, source, told)
        except ApiError as error:
            if held is not None and isinstance(error.__cause__, NotFound):
                await store.commit(lambda: store.repositories.remove_tag(repository, tag))
            raise

        def retag() -> bool:
            here = self._holds(repository, told.digest)
            if here:
                store.repositories.set_tag(repository, tag, told.digest)
            return here

        if fetched is not None:
            await self._hold(repository, upstream, fetched, tag)
        elif held == told.digest or await store.commit(retag):
            self._tell(upstream, "manifest", "hit")
        else:  # it has just been evicted
            await self._revalidate(route, upstream)
            return
        self._asked.put((upstream, tag), True)

    async def _read(
        self, repository: str, upstream: Site, source: Source, told: Descriptor
    ) -> Manifest | None:
        """The manifest; None if it is here."""
        if self._holds(repository, told.digest):
            return None
        raw = await source.read(told)
        self._count(upstream, len(raw))
        return parse_manifest(raw, told.media_type, digest=told.digest)

    async def _hold(self, repository: str, upstream: Site, manifest: Manifest, tag: str = "") -> None:
        """Hold the manifest, and let the tag name it, if one is given: all of it or nothing."""
        descriptor = manifest.descriptor
        await promises.put_manifest(
            self._store,
            repository,
            manifest.raw,
            descriptor.digest,
            descriptor.media_type,
            tags=[tag] if tag else [],
        )
        self._referenced.note(repository, manifest)
        self._tell(upstream, "manifest", "miss")

    # Lists

    async def list_tags(self, route: Route, last: str, n: int) -> list[str] | None:
        """The first `n` of the upstream's tags after `last`, in byte order. None where it can't say: then
        those that are here count. Raises ApiError where none are here either."""
        upstream = route.upstream
        assert upstream is not None
        listed = self._listed.get(upstream)
        if listed is None:
            source = self._source_at(upstream)
            if not isinstance(source, _Listing):
                return None
            try:
                listed = await self._requests.once(
                    upstream, "tags list", lambda: self._list_tags(upstream, source)
                )
            except ApiError:
                if self._store.repositories.exists(route.repository):
                    return None
                raise
        return listed.after(last, n)

    async def _list_tags(self, upstream: Site, source: _Listing) -> TagList:
        slots = self._listing.setdefault(upstream.registry, asyncio.Semaphore(_LISTS_AT_ONCE))
        try:
            async with asyncio.timeout(REVALIDATE_SECONDS):
                await slots.acquire()
        except TimeoutError:
            raise upstream_error(
                upstream.registry, "it is being asked for too much; try again later", 503
            ) from None
        try:
            async with self._guard(upstream, "tags", REVALIDATE_SECONDS):
                names = await source.tags()
            listed = await self._reader.run(lambda: TagList(names))
        finally:
            slots.release()
        self._listed.put(upstream, listed)
        return listed

    async def fetch_referrers(self, route: Route) -> None:
        """See to it that what refers to a digest at the upstream is here, as far as the upstream can say."""
        upstream, subject = route.upstream, parse_digest_parameter(route.reference)
        assert upstream is not None
        name = f"referrers {subject}"
        if self._asked.get((upstream, name)) is None:
            try:
                await self._requests.once(
                    upstream, name, lambda: self._fetch_referrers(route.repository, upstream, subject)
                )
            except ApiError:
                return

    async def _fetch_referrers(self, repository: str, upstream: Site, subject: Digest) -> None:
        """As far as PATIENCE goes: who asks again goes on. What is listed need not be there, or be what it
        should be."""
        source = self._source_at(upstream)
        if not isinstance(source, Refers):
            return
        now = asyncio.get_running_loop().time
        until = now() + REVALIDATE_SECONDS
        try:
            async with self._guard(upstream, "referrers", REVALIDATE_SECONDS):
                listed = [each.manifest for each in (await source.referrers(subject))[:MAX_REFERRERS]]
        except ApiError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            listed = []
        for told in listed:
            if now() >= until:
                return
            try:
                async with self._guard(upstream, "referrers", REVALIDATE_SECONDS):
                    fetched = await self._read(repository, upstream, source, told)
            except ApiError as error:
                if not isinstance(error.__cause__, _NOT_THERE):
                    raise
                continue
            if fetched is not None:
                await self._hold(repository, upstream, fetched)
        self._asked.put((upstream, f"referrers {subject}"), True)

    # Blobs

    async def find_blob(self, route: Route, digest: Digest, *, sure: bool = False) -> Descriptor | None:
        """The blob, if it may be pulled through; where it is held already it is made visible, too.

        `sure`: if it is not held, the upstream is asked whether it has it. Raises ApiError.
        """
        found = await self._referenced.find(route.repository, digest)
        if found is None:
            return None
        if self._store.blobs.size_of(digest) == found.size:
            await self.link_blob(route, digest)
        elif sure and not await self._is_there(route, found):
            return None
        return found

    async def _is_there(self, route: Route, blob: Descriptor) -> bool:
        """Whether the upstream has the blob; remembered as what it says of tags is, if it has."""
        upstream, name = route.upstream, f"blob {blob.digest}"
        assert upstream is not None
        if self._asked.get((upstream, name)):
            return True
        source = self._source_at(upstream)
        if not isinstance(source, _Telling):
            return True

        async def ask() -> bool:
            async with self._guard(upstream, "blob", FETCH_SECONDS):
                return await source.has(blob)

        there = await self._requests.once(upstream, name, ask)
        if there:
            self._asked.put((upstream, name), True)
        return there

    async def link_blob(self, route: Route, digest: Digest) -> None:
        """The blob is here: make it visible in the repository."""
        if self._store.repositories.media_type_of(route.repository, digest) is None:
            await promises.link_blob(self._store, route.repository, digest)

    def follow(self, route: Route, blob: Descriptor) -> AbstractAsyncContextManager[BlobReader]:
        """A reader of the blob while it comes in: see `IncomingBlobs.follow`."""
        assert route.upstream is not None
        return self._incoming.follow(route.upstream, blob)

    def count_hit(self, route: Route) -> None:
        """Count a blob that was here."""
        if route.upstream is not None:
            self._tell(route.upstream, "blob", "hit")

    @asynccontextmanager
    async def _guard(self, upstream: Site, kind: ContentKind, seconds: float) -> AsyncIterator[None]:
        """While something small is asked for, in a turn of its repository, within so many seconds; what goes
        wrong is an ApiError. In a task of `_requests`."""
        async with self._breaker.guard(upstream, kind), self._requests.slot(upstream, seconds):
            self._breaker.check(upstream)
            yield

    def _count(self, upstream: Site, size: int) -> None:
        self.bytes_read[upstream.registry] += size

    def _tell(self, upstream: Site, kind: str, outcome: CacheOutcome) -> None:
        self.outcomes[upstream.registry, kind, outcome] += 1
