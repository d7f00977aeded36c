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

from blobflow.bounded import Bounded
from blobflow.content import Body, Lists, Refers, Site, Sleep, Source, SourceAt
from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest
from blobflow.server.arriving import Arriving
from blobflow.server.indexes import Readers
from blobflow.server.mentions import Mentions
from blobflow.server.places import Place, digest_in, is_tag
from blobflow.server.refusal import Refusal
from blobflow.server.resting import Kind, Resting, refusal_for
from blobflow.server.taglists import TagList
from blobflow.server.underway import UnderWay
from blobflow.server.upstreams import Upstreams
from blobflow.transports.store import Store, promises

# Seconds for which a tag is what the upstream said last.
TTL = 60.0
# Seconds that a client waits for an upstream where there is something to give it without.
PATIENCE = 5.0
# Seconds in which a manifest has to have come where there is not: 4 MiB at 70 kB/s.
LIMIT = 60.0
# Referrers of one digest that are fetched: what signs and describes an image is a handful.
REFERRERS = 100
# Answers that are remembered, and the bytes of lists of tags: one of a quarter million takes 32 MB.
_MOST_ASKED = 20_000
_LISTS_BYTES = 40 * 1024 * 1024
# Lists of tags that are read at once from one upstream: one may take 100 MB while it comes in.
_LISTS_AT_ONCE = 4

Outcome = Literal["hit", "miss", "stale", "failed"]

_NOT_THERE = (NotFound, IntegrityError, UnsupportedContent)


@runtime_checkable
class _Listing(Lists, Protocol):
    """A source that lists its tags."""


@runtime_checkable
class _Telling(Protocol):
    """A source that can say whether it has a blob: see `Sink.has`."""

    async def has(self, content: Descriptor) -> bool: ...


class PullThrough:
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
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.upstreams = upstreams
        self.outcomes: Counter[tuple[str, str, Outcome]] = Counter()
        self.bytes_read: Counter[str] = Counter()
        self._store = store
        self._source_at = source_at
        self._readers = Readers(store)
        self._mentions = Mentions(store, self._readers)
        self._asked: Bounded[tuple[Site, str], bool] = Bounded(entries=_MOST_ASKED, seconds=ttl, clock=clock)
        self._listed: Bounded[Site, TagList] = Bounded(
            entries=_MOST_ASKED,
            room=_LISTS_BYTES,
            seconds=ttl,
            weigh=lambda site, tags: tags.weight,
            clock=clock,
        )
        self._listing: dict[str, asyncio.Semaphore] = {}
        self._resting = Resting(clock, store.observer, lambda site, kind: self._tell(site, kind, "failed"))
        self._under_way = UnderWay()
        self._arriving = Arriving(
            store,
            source_at,
            self._resting,
            clock=clock,
            sleep=sleep,
            begun=lambda site: self._tell(site, "blob", "miss"),
            read=self._count,
        )

    async def close(self) -> None:
        """Give up what is being asked for just now, and wait until those who follow a blob have left it: they
        have been cancelled by then. What came of it stays for the next process."""
        await self._under_way.close()
        await self._mentions.close()
        self._readers.close()
        await self._arriving.close()

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
            await self._under_way.once(origin, name, lambda: self._fetch_pinned(place, origin))
        elif is_tag(name):
            fresh = self._asked.get((origin, name))
            if fresh and self._holds(place.repository, self._store.tag_of(place.repository, name)):
                self._tell(origin, "manifest", "hit")
                return
            try:
                await self._under_way.once(origin, name, lambda: self._revalidate(place, origin))
            except Refusal as refusal:
                here = self._holds(place.repository, self._store.tag_of(place.repository, name))
                if not here or isinstance(refusal.__cause__, NotFound):
                    raise
                self._tell(origin, "manifest", "stale")

    def _holds(self, repository: str, digest: Digest | None) -> bool:
        """Whether the repository has the manifest."""
        return bool(digest and self._store.member(repository, digest) and self._store.size_of(digest))

    async def _fetch_pinned(self, place: Place, origin: Site) -> None:
        async with self._asking(origin, "manifest", LIMIT):
            source = self._source_at(origin)
            told = await source.resolve(place.item)
            fetched = await self._read(place.repository, origin, source, told)
        if fetched is not None:
            await self._hold(place.repository, origin, fetched)

    async def _revalidate(self, place: Place, origin: Site) -> None:
        """Make the tag what the upstream says it is. Raises Refusal where that is not told."""
        repository, tag, store = place.repository, place.item, self._store
        held = store.tag_of(repository, tag)
        patience = PATIENCE if self._holds(repository, held) else LIMIT
        try:
            async with self._asking(origin, "manifest", patience):
                source = self._source_at(origin)
                told = await source.resolve(tag)
                fetched = await self._read(repository, origin, source, told)
        except Refusal as refusal:
            if held is not None and isinstance(refusal.__cause__, NotFound):
                await store.commit(lambda: store.drop_tag(repository, tag))
            raise

        def retag() -> bool:
            here = self._holds(repository, told.digest)
            if here:
                store.set_tag(repository, tag, told.digest)
            return here

        if fetched is not None:
            await self._hold(repository, origin, fetched, tag)
        elif held == told.digest or await store.commit(retag):
            self._tell(origin, "manifest", "hit")
        else:  # it has just been evicted
            await self._revalidate(place, origin)
            return
        self._asked.put((origin, tag), True)

    async def _read(self, repository: str, origin: Site, source: Source, told: Descriptor) -> Manifest | None:
        """The manifest; None if it is here."""
        if self._holds(repository, told.digest):
            return None
        raw = await source.read(told)
        self._count(origin, len(raw))
        return parse_manifest(raw, told.media_type, digest=told.digest)

    async def _hold(self, repository: str, origin: Site, manifest: Manifest, tag: str = "") -> None:
        """Hold the manifest, and let the tag name it, if one is given: all of it or nothing."""
        descriptor = manifest.descriptor
        await promises.put(
            self._store,
            repository,
            manifest.raw,
            descriptor.digest,
            descriptor.media_type,
            tags=[tag] if tag else [],
        )
        self._mentions.note(repository, manifest)
        self._tell(origin, "manifest", "miss")

    # Lists

    async def tags(self, place: Place, last: str, n: int) -> list[str] | None:
        """The first `n` of the upstream's tags after `last`, in byte order. None where it can't say: then
        those that are here count. Raises Refusal where none are here either."""
        origin = place.origin
        assert origin is not None
        listed = self._listed.get(origin)
        if listed is None:
            source = self._source_at(origin)
            if not isinstance(source, _Listing):
                return None
            try:
                listed = await self._under_way.once(
                    origin, "tags list", lambda: self._list_tags(origin, source)
                )
            except Refusal:
                if self._store.has_repository(place.repository):
                    return None
                raise
        return listed.after(last, n)

    async def _list_tags(self, origin: Site, source: _Listing) -> TagList:
        slots = self._listing.setdefault(origin.registry, asyncio.Semaphore(_LISTS_AT_ONCE))
        try:
            async with asyncio.timeout(PATIENCE):
                await slots.acquire()
        except TimeoutError:
            raise refusal_for(
                origin.registry, "it is being asked for too much; try again later", 503
            ) from None
        try:
            async with self._asking(origin, "tags", PATIENCE):
                names = await source.tags()
            listed = await self._readers.run(lambda: TagList(names))
        finally:
            slots.release()
        self._listed.put(origin, listed)
        return listed

    async def bring_referrers(self, place: Place) -> None:
        """See to it that what refers to a digest at the upstream is here, as far as the upstream can say."""
        origin, subject = place.origin, digest_in(place.item)
        assert origin is not None
        name = f"referrers {subject}"
        if self._asked.get((origin, name)) is None:
            try:
                await self._under_way.once(
                    origin, name, lambda: self._fetch_referrers(place.repository, origin, subject)
                )
            except Refusal:
                return

    async def _fetch_referrers(self, repository: str, origin: Site, subject: Digest) -> None:
        """As far as PATIENCE goes: who asks again goes on. What is listed need not be there, or be what it
        should be."""
        source = self._source_at(origin)
        if not isinstance(source, Refers):
            return
        now = asyncio.get_running_loop().time
        until = now() + PATIENCE
        try:
            async with self._asking(origin, "referrers", PATIENCE):
                listed = [each.manifest for each in (await source.referrers(subject))[:REFERRERS]]
        except Refusal as refusal:
            if not isinstance(refusal.__cause__, NotFound):
                raise
            listed = []
        for told in listed:
            if now() >= until:
                return
            try:
                async with self._asking(origin, "referrers", PATIENCE):
                    fetched = await self._read(repository, origin, source, told)
            except Refusal as refusal:
                if not isinstance(refusal.__cause__, _NOT_THERE):
                    raise
                continue
            if fetched is not None:
                await self._hold(repository, origin, fetched)
        self._asked.put((origin, f"referrers {subject}"), True)

    # Blobs

    async def blob(self, place: Place, digest: Digest, *, sure: bool = False) -> Descriptor | None:
        """The blob, if it may be pulled through; where it is held already it is made visible, too.

        `sure`: if it is not held, the upstream is asked whether it has it. Raises Refusal.
        """
        found = await self._mentions.find(place.repository, digest)
        if found is None:
            return None
        if self._store.size_of(digest) == found.size:
            await self.keep(place, digest)
        elif sure and not await self._is_there(place, found):
            return None
        return found

    async def _is_there(self, place: Place, blob: Descriptor) -> bool:
        """Whether the upstream has the blob; remembered as what it says of tags is, if it has."""
        origin, name = place.origin, f"blob {blob.digest}"
        assert origin is not None
        if self._asked.get((origin, name)):
            return True
        source = self._source_at(origin)
        if not isinstance(source, _Telling):
            return True

        async def ask() -> bool:
            async with self._asking(origin, "blob", LIMIT):
                return await source.has(blob)

        there = await self._under_way.once(origin, name, ask)
        if there:
            self._asked.put((origin, name), True)
        return there

    async def keep(self, place: Place, digest: Digest) -> None:
        """The blob is here: make it visible in the repository."""
        if self._store.member(place.repository, digest) is None:
            await promises.shown(self._store, place.repository, digest)

    def follow(self, place: Place, blob: Descriptor) -> AbstractAsyncContextManager[Body]:
        """A Body over the blob while it comes in: see `Arriving.follow`."""
        assert place.origin is not None
        return self._arriving.follow(place.origin, blob)

    def hit(self, place: Place) -> None:
        """Count a blob that was here."""
        if place.origin is not None:
            self._tell(place.origin, "blob", "hit")

    @asynccontextmanager
    async def _asking(self, origin: Site, kind: Kind, seconds: float) -> AsyncIterator[None]:
        """While something small is asked for, in a turn of its repository, within so many seconds; what goes
        wrong is a Refusal. In a task of `_under_way`."""
        async with self._resting.asking(origin, kind), self._under_way.turn(origin, seconds):
            self._resting.check(origin)
            yield

    def _count(self, origin: Site, size: int) -> None:
        self.bytes_read[origin.registry] += size

    def _tell(self, origin: Site, kind: str, outcome: Outcome) -> None:
        self.outcomes[origin.registry, kind, outcome] += 1
