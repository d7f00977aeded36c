"""Pulling through: what is not here is fetched from an upstream registry, once, and kept.

Rules
- A manifest by digest never changes: what is here is served, and nobody is asked.
- A tag is what its upstream says, asked (HEAD) when the last answer is older than the time to live. Where the
  upstream can't be asked, or won't answer, the tag is what it was: only "not found" takes it away.
- A blob is fetched if a manifest that is held here names it. However many ask, one read of the upstream grows
  in the store, and all follow it; nobody gets its last bytes before the digest of the whole matched. Where
  the upstream breaks off, the read goes on from there.
- An upstream that failed is left alone for some seconds: what is here is served at once, the rest is refused
  with a Retry-After.
- Requests that go away take nothing from others: who waits for a manifest waits for a task of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Literal, Protocol, TypeVar, runtime_checkable

from blobflow.content import Body, Chunk, Chunks, Lists, Refers, Site, Sleep, Source, SourceAt
from blobflow.errors import (
    BlobflowError,
    Denied,
    IntegrityError,
    NetworkError,
    NotFound,
    RegistryError,
    Throttled,
    Unauthorized,
    Unavailable,
    UnsupportedContent,
)
from blobflow.events import Warned
from blobflow.oci import Descriptor, Digest, parse_manifest
from blobflow.server.mentions import Mentions
from blobflow.server.places import Place, digest_in, is_tag
from blobflow.server.refusal import Refusal
from blobflow.server.upstreams import Upstreams
from blobflow.transports.store import Store, StoreCache

# Seconds for which a tag is what the upstream said last.
TTL = 60.0
# Seconds for which an upstream that failed is left alone.
REST = 5.0
# Seconds that a client waits for an upstream where there is something to give it without.
PATIENCE = 5.0
# Reads of a blob that bring no byte, one after the other, before the blob has failed; seconds between two.
ATTEMPTS = 4
PAUSE = 0.5
# Referrers of one digest that are fetched: what signs and describes an image is a handful.
REFERRERS = 100
# Answers that are remembered before those are forgotten whose time is over.
_MOST_ASKED = 20_000

Outcome = Literal["hit", "miss", "stale", "failed"]
T = TypeVar("T")

_UPSTREAMS_FAULT = (NetworkError, RegistryError, IntegrityError, UnsupportedContent)
_OUT_OF_ORDER = (NetworkError, Throttled, Unavailable)


@runtime_checkable
class _Listing(Lists, Protocol):
    """A source that lists its tags."""


class PullThrough:
    """What a registry fetches from its upstreams. Used on one loop; `close` it with the registry.

    `source_at` gives an upstream's repository. `ttl` in seconds: see TTL. `outcomes` counts the answers of
    manifests and blobs: hits were here, misses were fetched, stale ones could not be asked about.
    """

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        source_at: SourceAt,
        *,
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.upstreams = upstreams
        self.outcomes: Counter[tuple[str, str, Outcome]] = Counter()
        self.bytes_read: Counter[str] = Counter()
        self._store = store
        self._source_at = source_at
        self._ttl = ttl
        self._clock = clock
        self._sleep = sleep
        self._cache = StoreCache(store)
        self._mentions = Mentions(store)
        self._asked: dict[tuple[Site, str], float] = {}
        self._listed: dict[Site, tuple[float, list[str]]] = {}
        self._resting: dict[str, float] = {}
        self._followers: set[asyncio.Future[None]] = set()
        self._under_way: dict[tuple[Site, str], asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Give up what is being asked for just now, and wait until those who follow a blob have left it: they
        have been cancelled by then. What came of it stays for the next process."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._followers:
            await asyncio.wait(self._followers)

    # Manifests

    async def bring(self, place: Place) -> None:
        """See to it that what the upstream has under a manifest's reference is here.

        Returns also where there is nothing to be brought: what is here then is the answer. Raises Refusal.
        """
        origin, name = place.origin, place.item
        assert origin is not None
        if ":" in name:
            if self._holds(place.repository, digest_in(name)):
                self._tell(origin, "manifest", "hit")
                return
            await self._once((origin, name), lambda: self._fetch_pinned(place, origin))
        elif is_tag(name):
            fresh = self._clock() < self._asked.get((origin, name), 0.0)
            if fresh and self._holds(place.repository, self._store.tag_of(place.repository, name)):
                self._tell(origin, "manifest", "hit")
                return
            await self._once((origin, name), lambda: self._revalidate(place, origin))

    def _holds(self, repository: str, digest: Digest | None) -> bool:
        """Whether the repository has the manifest."""
        return bool(digest and self._store.member(repository, digest) and self._store.size_of(digest))

    async def _once(self, key: tuple[Site, str], work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, or wait for who does it already; it is done also if we are cancelled."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._settle(key, done))
        await asyncio.shield(task)

    def _settle(self, key: tuple[Site, str], done: asyncio.Task[None]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # everybody may have gone away

    async def _fetch_pinned(self, place: Place, origin: Site) -> None:
        async with self._asking(origin, "manifest"):
            source = self._source_at(origin)
            await self._take(place.repository, origin, source, await source.resolve(place.item))

    async def _revalidate(self, place: Place, origin: Site) -> None:
        """Make the tag what the upstream says it is."""
        repository, tag = place.repository, place.item
        held = self._store.tag_of(repository, tag)
        here = self._holds(repository, held)
        try:
            async with self._asking(origin, "manifest"), asyncio.timeout(PATIENCE if here else None):
                source = self._source_at(origin)
                told = await source.resolve(tag)
                fetched = await self._take(repository, origin, source, told)
        except (Refusal, TimeoutError) as error:
            if isinstance(error, Refusal) and error.status == 404:
                self._store.drop_tag(repository, tag)
                raise
            if not here:
                raise
            if isinstance(error, TimeoutError):
                self._rest(origin.registry, "it takes too long to answer")
            self._tell(origin, "manifest", "stale")
            return
        if not fetched:
            self._tell(origin, "manifest", "hit")
        if held != told.digest:
            self._store.set_tag(repository, tag, told.digest)
        self._note_asked(origin, tag)

    async def _take(self, repository: str, origin: Site, source: Source, told: Descriptor) -> bool:
        """Hold the manifest; False if it was here."""
        if self._holds(repository, told.digest):
            return False
        raw = await source.read(told)
        manifest = parse_manifest(raw, told.media_type, digest=told.digest)
        self._store.write_small(raw, told.digest)
        self._store.add_member(repository, told.digest, manifest.descriptor.media_type)
        self._mentions.note(repository, manifest)
        self.bytes_read[origin.registry] += len(raw)
        self._tell(origin, "manifest", "miss")
        return True

    async def tags(self, place: Place) -> list[str] | None:
        """The upstream's tags, in byte order; None where it can't say: then those that are here count."""
        origin = place.origin
        assert origin is not None
        until, listed = self._listed.get(origin, (0.0, []))
        if self._clock() < until:
            return listed
        source = self._source_at(origin)
        if not isinstance(source, _Listing):
            return None
        try:
            async with self._asking(origin, "tags"), asyncio.timeout(PATIENCE):
                listed = sorted(await source.tags())
        except (Refusal, TimeoutError):
            return None
        self._listed[origin] = self._clock() + self._ttl, listed
        return listed

    async def bring_referrers(self, place: Place) -> None:
        """See to it that what refers to a digest at the upstream is here, as far as the upstream can say."""
        origin, subject = place.origin, digest_in(place.item)
        assert origin is not None
        if self._clock() >= self._asked.get((origin, f"referrers {subject}"), 0.0):
            key = origin, f"referrers {subject}"
            await self._once(key, lambda: self._fetch_referrers(place.repository, origin, subject))

    async def _fetch_referrers(self, repository: str, origin: Site, subject: Digest) -> None:
        source = self._source_at(origin)
        if not isinstance(source, Refers):
            return
        try:
            async with self._asking(origin, "referrers"), asyncio.timeout(PATIENCE):
                for each in (await source.referrers(subject))[:REFERRERS]:
                    with suppress(NotFound):  # what is listed need not be there
                        await self._take(repository, origin, source, each.manifest)
        except (Refusal, TimeoutError):
            return
        self._note_asked(origin, f"referrers {subject}")

    def _note_asked(self, origin: Site, name: str) -> None:
        """What the upstream said counts for the time to live."""
        now = self._clock()
        if len(self._asked) >= _MOST_ASKED:
            self._asked = {key: until for key, until in self._asked.items() if until > now}
        self._asked[origin, name] = now + self._ttl

    # Blobs

    async def blob(self, place: Place, digest: Digest) -> Descriptor | None:
        """The blob, if it may be pulled through; where it is held already it is made visible, too."""
        found = await self._mentions.find(place.repository, digest)
        if found is not None and self._store.size_of(digest) == found.size:
            self.keep(place, digest)
        return found

    def keep(self, place: Place, digest: Digest) -> None:
        """The blob is here: make it visible in the repository."""
        if self._store.member(place.repository, digest) is None:
            self._store.add_member(place.repository, digest)

    @asynccontextmanager
    async def follow(self, place: Place, blob: Descriptor) -> AsyncIterator[Body]:
        """A Body over the blob while it comes in; see `blobflow.content.Cache.share`. Reading it raises
        Refusal for what the upstream did, IntegrityError and StorageError."""
        origin = place.origin
        assert origin is not None
        body = partial(self._patiently, origin, blob)
        left = asyncio.get_running_loop().create_future()
        self._followers.add(left)
        try:
            async with self._cache.share(blob, body, keep=True) as shared:
                yield shared
        finally:
            self._followers.discard(left)
            left.set_result(None)

    def _patiently(self, origin: Site, blob: Descriptor, offset: int) -> AbstractAsyncContextManager[Chunks]:
        """The upstream's bytes from `offset`, through its breaks."""
        return _closing(self._read(origin, blob, offset))

    async def _read(self, origin: Site, blob: Descriptor, offset: int) -> AsyncGenerator[Chunk, None]:
        failed = 0
        async with self._asking(origin, "blob"):
            self._tell(origin, "blob", "miss")
            source = self._source_at(origin)
            while True:
                before = offset
                try:
                    async with source.open(blob, offset) as chunks:
                        async for chunk in chunks:
                            offset += len(chunk)
                            self.bytes_read[origin.registry] += len(chunk)
                            yield chunk
                    return
                except BlobflowError as error:
                    failed = 1 if offset > before else failed + 1
                    if not error.retryable or failed >= ATTEMPTS:
                        raise
                await self._sleep(PAUSE * failed)

    # What went wrong

    @asynccontextmanager
    async def _asking(self, origin: Site, kind: str) -> AsyncIterator[None]:
        """While an upstream is asked: its errors leave as refusals, and one that failed is left alone."""
        host = origin.registry
        if self._clock() < self._resting.get(host, 0.0):
            raise _refusal_for(host, "it failed just now", 503)
        try:
            yield
        except _UPSTREAMS_FAULT as error:
            if not isinstance(error, NotFound):
                self._tell(origin, kind, "failed")
            if isinstance(error, _OUT_OF_ORDER):
                self._rest(host, error.message)
            raise _refusal_of(host, error) from error

    def _rest(self, host: str, why: str) -> None:
        self._resting[host] = self._clock() + REST
        self._store.observer(Warned(f"upstream {host} is left alone for {REST:.0f} s: {why}"))

    def hit(self, place: Place) -> None:
        """Count a blob that was here."""
        if place.origin is not None:
            self._tell(place.origin, "blob", "hit")

    def _tell(self, origin: Site, kind: str, outcome: Outcome) -> None:
        self.outcomes[origin.registry, kind, outcome] += 1


@asynccontextmanager
async def _closing(chunks: AsyncGenerator[Chunk, None]) -> AsyncIterator[Chunks]:
    async with aclosing(chunks):
        yield chunks


def _refusal_of(host: str, error: BlobflowError) -> Refusal:
    """What a client is told of an upstream's error. Not its words: they may say more than a client should
    know, of our logins there, say."""
    match error:
        case NotFound():
            return Refusal("MANIFEST_UNKNOWN", f"{host} has no such content")
        case Unauthorized() | Denied():
            return Refusal("DENIED", f"{host} does not let this registry have it")
        case Throttled():
            return _refusal_for(host, "it has had too many requests", 429, error.retry_after)
        case IntegrityError() | UnsupportedContent():
            return _refusal_for(host, "it gave something else than was asked for", 502)
        case _:
            return _refusal_for(host, "it can't be reached, or answers with an error", 502)


def _refusal_for(host: str, why: str, status: int, seconds: float | None = None) -> Refusal:
    code = "TOOMANYREQUESTS" if status == 429 else "UNKNOWN"
    headers = {"Retry-After": str(round(seconds or REST))} if status in (429, 503) else {}
    return Refusal(code, f"upstream {host}: {why}", status=status, headers=headers)
