"""The pull-through cache: content that is not here is fetched from an upstream registry, once, and kept.

Rules
- A manifest by digest never changes: if it is here, it is served without a question to its upstream.
- A tag is what its upstream says, asked (HEAD) when the last answer is older than the time to live. If the
  upstream can't be asked, or won't answer, the tag is what it was: only "not found" takes it away.
- A blob is fetched if a manifest that is held here names it. However many clients want it, the upstream is
  read once, into the store, and all of them follow that; no client gets the last bytes before the digest of
  the whole matched. Where the upstream breaks off, the read resumes.
- A repository or an upstream that failed is not asked for some seconds (`circuit_breaker`): what is here is
  served at once, and what is not gets an error with a Retry-After.
- A request that goes away takes nothing from others: a task of its own fetches each manifest.
- With a signature policy, nothing comes in that this does not accept (`admission`), and nothing is given out
  that did not come in so (`stored_names`). A tag whose upstream moved it to what is refused is refused, too:
  it is not what it was before.
- What is remembered of upstreams has a bound, in bytes and in time, whatever clients ask for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Literal

from blobflow.bounded_cache import BoundedCache
from blobflow.content import BlobReader, Refers, Site, Sleep, Source, SourceAt
from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough.admission import Admission, Refused
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker
from blobflow.server.pullthrough.incoming import IncomingBlobs
from blobflow.server.pullthrough.referenced_blobs import ReferencedBlobs
from blobflow.server.pullthrough.stored_names import StoredNames
from blobflow.server.pullthrough.tag_lists import TagLists
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.server.pullthrough.upstreams import Upstreams
from blobflow.server.routes import is_tag, parse_digest_parameter
from blobflow.signatures.contract import SignatureJudge
from blobflow.transports.store import Store, promises

TAG_TTL = 60.0  # seconds for which a tag is what the upstream said last
# Seconds that a client waits for an upstream where there is something to give it without.
REVALIDATE_SECONDS = 5.0
# Seconds that a client waits for a manifest where there is not: 4 MiB at 70 kB/s.
FETCH_SECONDS = 60.0
# Referrers of one digest that are fetched: what signs and describes an image is a handful.
MAX_REFERRERS = 100
# Answers of upstreams that are remembered.
_MAX_ANSWERS = 20_000

CacheOutcome = Literal["hit", "miss", "stale", "failed", "refused"]

_NOT_THERE = (NotFound, IntegrityError, UnsupportedContent)


class PullThroughCache:
    """What a registry fetches from its upstreams. Used on one loop; `close` it with the registry.

    In all methods `repository` is the name in the store (`names`), `upstream` the repository that it is
    pulled through from.

    `source_at` opens an upstream's repository. `ttl` in seconds: see TAG_TTL. `judge`: the signature policy
    (None: everything is given out). `retry_times`: see `IncomingBlobs`. `outcomes` counts answers: hits were
    here, misses fetched, stale ones here when the upstream could not be asked, and refused ones are not
    accepted by the policy. Its keys, and those of `bytes_read`, are the configured upstreams: few.
    """

    def __init__(
        self,
        store: Store,
        upstreams: Upstreams,
        source_at: SourceAt,
        *,
        ttl: float = TAG_TTL,
        judge: SignatureJudge | None = None,
        retry_times: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.upstreams = upstreams
        self.names = StoredNames(upstreams, judge.fingerprint if judge else "")
        self.outcomes: Counter[tuple[str, str, CacheOutcome]] = Counter()
        self.bytes_read: Counter[str] = Counter()
        self._store = store
        self._source_at = source_at
        self._reader = ManifestReader(store)
        self._referenced = ReferencedBlobs(store, self._reader)
        self._answers: BoundedCache[tuple[Site, str], bool] = BoundedCache(
            entries=_MAX_ANSWERS, seconds=ttl, clock=clock
        )
        breaker = CircuitBreaker(clock, store.observer, lambda site, kind: self._count(site, kind, "failed"))
        self._requests = UpstreamRequests(breaker)
        self._tag_lists = TagLists(self._requests, self._reader, source_at, ttl=ttl, clock=clock)
        self._admission = None
        if judge is not None:
            self._admission = Admission(
                judge, self.names, store, self._reader, self._requests, source_at, self._have, ttl, clock
            )
        self._incoming = IncomingBlobs(
            store,
            source_at,
            breaker,
            clock=clock,
            sleep=sleep,
            begun=lambda site: self._count(site, "blob", "miss"),
            read=self._count_bytes,
            retry_times=retry_times,
        )

    async def close(self) -> None:
        """Give up what is being fetched, and wait until those who follow a blob, who have been cancelled by
        then, have left it. What has arrived of it stays for the next process."""
        await self._requests.close()
        await self._referenced.close()
        if self._admission is not None:
            await self._admission.close()
        self._reader.close()
        await self._incoming.close()

    def replace_judge(self, judge: SignatureJudge) -> None:
        """Have another policy in force, where there is one: what that did not accept itself is not found."""
        assert self._admission is not None, "there is a policy from the beginning, or never"
        self.names = StoredNames(self.upstreams, judge.fingerprint)
        self._admission.replace(judge, self.names)

    # Manifests

    async def fetch_manifest(self, repository: str, upstream: Site, reference: str) -> None:
        """Have here what the upstream has under a manifest's reference, a tag or a digest.

        Returns also where there is nothing to fetch: what is here then is the answer. Raises ApiError.
        """
        try:
            await self._fetch_manifest(repository, upstream, reference)
        except Refused:
            self._count(upstream, "manifest", "refused")
            raise

    async def _fetch_manifest(self, repository: str, upstream: Site, reference: str) -> None:
        if ":" in reference:
            digest = parse_digest_parameter(reference)
            if self._holds(repository, digest):
                self._count(upstream, "manifest", "hit")
                return
            await self._have(repository, upstream, digest, 0)
        elif is_tag(reference):
            is_fresh = self._answers.get((upstream, reference))
            if is_fresh and self._holds_tag(repository, reference):
                self._count(upstream, "manifest", "hit")
                return
            try:
                name = f"{repository}:{reference}"
                await self._requests.once(
                    upstream, name, lambda: self._revalidate(repository, upstream, reference)
                )
            except ApiError as error:
                gone = isinstance(error, Refused) or isinstance(error.__cause__, NotFound)
                if gone or not self._holds_tag(repository, reference):
                    raise
                self._count(upstream, "manifest", "stale")

    def _holds(self, repository: str, digest: Digest | None) -> bool:
        """Whether the repository has the manifest."""
        return bool(
            digest
            and self._store.repositories.media_type_of(repository, digest)
            and self._store.blobs.size_of(digest)
        )

    def _holds_tag(self, repository: str, tag: str) -> bool:
        return self._holds(repository, self._store.repositories.resolve(repository, tag))

    async def _have(self, repository: str, upstream: Site, digest: Digest, depth: int) -> None:
        """Have the manifest here. `depth`: how far it hangs on what was asked for."""
        if not self._holds(repository, digest):
            name = f"{repository}@{digest}"
            await self._requests.once(
                upstream, name, lambda: self._fetch_by_digest(repository, upstream, digest, depth)
            )

    async def _fetch_by_digest(self, repository: str, upstream: Site, digest: Digest, depth: int) -> None:
        if self._admission is not None:
            await self._admission.recall(repository, digest)
        async with self._requests.guard(upstream, "manifest", FETCH_SECONDS):
            source = self._source_at(upstream)
            descriptor = await source.resolve(digest)
            fetched = await self._read(repository, upstream, source, descriptor)
        if fetched is not None:
            await self._admit(repository, upstream, fetched, depth=depth)
            await self._keep_manifest(repository, upstream, fetched)

    async def _revalidate(self, repository: str, upstream: Site, tag: str) -> None:
        """Make the tag what the upstream says it is. Raises ApiError where the upstream does not say."""
        store = self._store
        held = store.repositories.resolve(repository, tag)
        seconds = REVALIDATE_SECONDS if self._holds(repository, held) else FETCH_SECONDS
        try:
            async with self._requests.guard(upstream, "manifest", seconds):
                source = self._source_at(upstream)
                descriptor = await source.resolve(tag)
                # What was accepted by its digest is not yet accepted by the name of the tag.
                to_judge = self._admission is not None and descriptor.digest != held
                if self._admission is not None and to_judge:
                    await self._admission.recall(repository, descriptor.digest, tag)
                fetched = await self._read(repository, upstream, source, descriptor, anew=to_judge)
            if fetched is not None:
                await self._admit(repository, upstream, fetched, tag, seconds=seconds)
        except ApiError as error:
            gone = isinstance(error, Refused) or isinstance(error.__cause__, NotFound)
            if held is not None and gone:
                await store.commit(lambda: store.repositories.remove_tag(repository, tag))
            raise

        def retag() -> bool:
            here = self._holds(repository, descriptor.digest)
            if here:
                store.repositories.set_tag(repository, tag, descriptor.digest)
            return here

        if fetched is not None:
            await self._keep_manifest(repository, upstream, fetched, tag)
        elif held == descriptor.digest or await store.commit(retag):
            self._count(upstream, "manifest", "hit")
        else:  # it has just been evicted
            await self._revalidate(repository, upstream, tag)
            return
        self._answers.put((upstream, tag), True)

    async def _read(
        self, repository: str, upstream: Site, source: Source, descriptor: Descriptor, *, anew: bool = False
    ) -> Manifest | None:
        """The manifest from the upstream; None if it is here, unless it is wanted `anew`."""
        if self._holds(repository, descriptor.digest) and not anew:
            return None
        raw = await source.read(descriptor)
        self._count_bytes(upstream, len(raw))
        return parse_manifest(raw, descriptor.media_type, digest=descriptor.digest)

    async def _admit(
        self,
        repository: str,
        upstream: Site,
        manifest: Manifest,
        tag: str = "",
        *,
        depth: int = 0,
        seconds: float = FETCH_SECONDS,
    ) -> None:
        """Raise Refused for what the signature policy does not accept."""
        if self._admission is not None:
            await self._admission.admit(repository, upstream, manifest, tag, depth=depth, seconds=seconds)

    async def _keep_manifest(
        self, repository: str, upstream: Site, manifest: Manifest, tag: str = ""
    ) -> None:
        """Put the manifest into the store, and let the tag name it, if there is one: all of it or nothing."""
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
        if self._admission is not None:
            self._admission.note(repository, manifest)
        self._count(upstream, "manifest", "miss")

    async def note_served(
        self, repository: str, digest: Digest, media_type: str, read: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Let the blobs of a manifest that a client gets be pulled through, whatever becomes of the manifest;
        `read` gives its bytes."""
        await self._referenced.note_served(repository, digest, media_type, read)

    # Lists

    async def list_tags(self, repository: str, upstream: Site, last: str, n: int) -> list[str] | None:
        """The first `n` of the upstream's tags after `last`, in byte order. None where the upstream can't
        say: then those that are here count. Raises ApiError where none are here either."""
        try:
            tags = await self._tag_lists.get(upstream, REVALIDATE_SECONDS)
        except ApiError:
            if self._store.repositories.exists(repository):
                return None
            raise
        return None if tags is None else tags.after(last, n)

    async def fetch_referrers(self, repository: str, upstream: Site, subject: Digest) -> None:
        """Have here what refers to a digest at the upstream, as far as the upstream can say."""
        name = f"referrers of {repository}@{subject}"
        if self._answers.get((upstream, name)) is None:
            with suppress(ApiError):
                if await self._requests.once(
                    upstream, name, lambda: self._fetch_referrers(repository, upstream, subject)
                ):
                    self._answers.put((upstream, name), True)

    async def _fetch_referrers(self, repository: str, upstream: Site, subject: Digest) -> bool:
        """Fetch for REVALIDATE_SECONDS; the next request for the list goes on from there. Returns whether
        that is all. What the upstream lists may be missing, or not be what it should be."""
        source = self._source_at(upstream)
        if not isinstance(source, Refers):
            return False
        if self._admission is not None:
            await self._have(repository, upstream, subject, 0)
        now = asyncio.get_running_loop().time
        until = now() + REVALIDATE_SECONDS
        try:
            async with self._requests.guard(upstream, "referrers", REVALIDATE_SECONDS):
                listed = (await source.referrers(subject))[:MAX_REFERRERS]
        except ApiError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            listed = []
        for each in listed:
            if now() >= until:
                return False
            try:
                async with self._requests.guard(upstream, "referrers", REVALIDATE_SECONDS):
                    fetched = await self._read(repository, upstream, source, each.manifest)
                if fetched is not None:
                    cosigns = each.tag if each.how == "cosign" else ""
                    await self._admit(repository, upstream, fetched, cosigns, seconds=REVALIDATE_SECONDS)
            except ApiError as error:
                if not isinstance(error, Refused) and not isinstance(error.__cause__, _NOT_THERE):
                    raise
                continue
            if fetched is not None:
                await self._keep_manifest(repository, upstream, fetched)
        return True

    # Blobs

    async def find_blob(
        self,
        repository: str,
        upstream: Site,
        digest: Digest,
        *,
        confirm: bool = False,
        may_have: Callable[[], Awaitable[bool]],
        links: bool = True,
    ) -> Descriptor | None:
        """The blob, if it may be pulled through. `confirm`: ask the upstream for it, unless the store has it.

        `may_have`: whether the client could have it elsewhere; if not, the upstream is asked, as anybody may
        write manifests. What it has, or with `links` all that is held, is shown here. Raises ApiError.
        """
        blob = await self._referenced.find(repository, digest)
        if blob is None:
            return None
        is_held = self._store.blobs.size_of(digest) == blob.size
        must_ask = not await may_have() if is_held else confirm
        if must_ask and not await self._is_at_upstream(upstream, blob):
            return None
        if is_held and (must_ask or links):
            await self.link_blob(repository, digest)
        return blob

    async def _is_at_upstream(self, upstream: Site, blob: Descriptor) -> bool:
        """Whether the upstream has the blob. A yes is remembered for as long as what it says of tags."""
        name = f"blob {blob.digest}"
        if self._answers.get((upstream, name)):
            return True
        source = self._source_at(upstream)
        found = await self._requests.once(
            upstream, name, lambda: self._requests.has_blob(upstream, source, blob, FETCH_SECONDS)
        )
        if found:
            self._answers.put((upstream, name), True)
        return found

    async def link_blob(self, repository: str, digest: Digest) -> None:
        """Make a blob that the store holds visible in the repository."""
        if self._store.repositories.media_type_of(repository, digest) is None:
            await promises.link_blob(self._store, repository, digest)

    def follow(
        self, upstream: Site, blob: Descriptor, *, anywhere: bool = True
    ) -> AbstractAsyncContextManager[BlobReader]:
        """A reader of the blob while it comes in: see `IncomingBlobs.follow`."""
        return self._incoming.follow(upstream, blob, self._is_at_upstream, anywhere=anywhere)

    def count_hit(self, upstream: Site) -> None:
        """Count a blob that was here."""
        self._count(upstream, "blob", "hit")

    def _count(self, upstream: Site, kind: str, outcome: CacheOutcome) -> None:
        self.outcomes[upstream.registry, kind, outcome] += 1

    def _count_bytes(self, upstream: Site, size: int) -> None:
        self.bytes_read[upstream.registry] += size
