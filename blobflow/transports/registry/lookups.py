"""Questions to one repository about what it has: by HEAD where that is answered, past caches where they
contradict what is known. See `heads` and `caches`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import aiohttp
from yarl import URL

from blobflow.content import Site
from blobflow.errors import NotFound, RegistryError
from blobflow.oci import MAX_MANIFEST_BYTES, Descriptor, Digest, digest_of, media
from blobflow.oci.digest import algorithm_of
from blobflow.transports.registry.answers import cache_of, content_range
from blobflow.transports.registry.caches import past_caches
from blobflow.transports.registry.digests import other_than, told
from blobflow.transports.registry.encodings import codings_of, length_of
from blobflow.transports.registry.gate import Turn
from blobflow.transports.registry.heads import Heads
from blobflow.transports.registry.putting import called
from blobflow.transports.registry.session import Answer, Request, Session


class Lookups:
    """How one repository is asked. `target`: nothing that a cache kept is good enough. `writes`: its tags are
    listed where one is denied. `hasty`: what it does not answer is asked elsewhere."""

    def __init__(
        self,
        session: Session,
        site: Site,
        scopes: tuple[str, ...],
        *,
        target: bool,
        writes: bool,
        hasty: bool,
    ) -> None:
        self._session = session
        self._name = site.repository
        self._scopes = scopes
        self._target = target
        self._writes = writes
        self._hasty = hasty

    def manifest(self, method: str, name: str, limit: int = MAX_MANIFEST_BYTES) -> Request:
        """HEAD or GET of a manifest [end-3], of whose bytes `limit` are wanted."""
        return Request(
            method,
            URL(f"/v2/{self._name}/manifests/{name}", encoded=True),
            called(self._name, name),
            scopes=self._scopes,
            headers={"Accept": media.ACCEPT_MANIFESTS},
            limit=limit,
            hasty=self._hasty,
        )

    def blob(self, method: str, digest: Digest, *, part: str = "") -> Request:
        """HEAD or GET of a blob [end-2], or of a `part` of it, as Range has it."""
        return Request(
            method,
            URL(f"/v2/{self._name}/blobs/{digest}", encoded=True),
            f"blob {digest} of {self._name}",
            scopes=self._scopes,
            headers={"Range": part} if part else {},
            ok=(200, 206, 416) if part else (200,),
            hasty=self._hasty,
        )

    async def ask(self, request: Request, name: str, *, expected: bool = False, past: bool = False) -> Answer:
        """The answer about what a tag or digest names. Raises as `Session.ask`.

        One that contradicts what was put, or that a cache has kept too long, is asked for past the cache; so
        is a 404 of what is `expected` to be there. `past`: at once.
        """
        caches = self._session.caches
        if past or (self._target and caches.are_passed):
            return await self._session.ask(past_caches(request))
        placed = caches.placed.at(self._name, name)
        answer: Answer | None = None
        try:
            answer = await self._session.ask(request)
            cached = cache_of(answer.headers)
            if cached and not self._target:
                for digest in told(answer.headers) if ":" not in name else ():
                    caches.named(self._name, digest, cached)
                cached = ""
            if not cached and (placed is None or not _is_another(placed, answer)):
                return answer
        except NotFound as error:
            if by := caches.named_by(self._name, name):
                error.message += f"; the answer of the tag that names it came {by}"
            doubted = placed is not None or error.cached or expected
            if not doubted and not (self._target and caches.is_to_be_checked(error)):
                raise
            cached = error.cached
        if cached and self._target:
            caches.saw()
        try:
            fresh = await self._session.ask(past_caches(request))
        except NotFound:
            if answer is not None:
                caches.contradicted(request.asked, cached)
            raise
        if answer is None or told(fresh.headers) != told(answer.headers):
            caches.contradicted(request.asked, cached)
        return fresh

    @asynccontextmanager
    async def stream(
        self, request: Request, digest: Digest, *, small: bool, expected: bool = True
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Turn]]:
        """A blob's bytes, as `Session.stream`. A 404 is asked about past the cache where it is a cache's, and
        at a target also of what is `expected` to be there."""
        caches = self._session.caches
        if self._target and caches.are_passed:
            request = past_caches(request)
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(self._session.stream(request, small=small))
            except NotFound as error:
                doubtful = error.cached or (self._target and expected) or self._was_put(digest)
                if not doubtful or (self._target and caches.are_passed):
                    raise
                again = self._session.stream(past_caches(request), small=small)
                opened = await stack.enter_async_context(again)
                caches.contradicted(request.asked, error.cached)
            yield opened

    async def head(
        self, request: Request, name: str, heads: Heads, *, expected: bool
    ) -> Answer | RegistryError | None:
        """What HEAD says: an answer, the refusal that GET may not share, or None where HEAD is not worth
        sending. Raises refusals that are taken at their word. `expected`: the thing has to exist."""
        if not heads.are_sent(self._name):
            return None
        put = self._was_put(name)
        try:
            answer = await self.ask(request, name)
        except RegistryError as error:
            without_login = error.status == 401 and not self._session.wants_login
            tags_tell = error.status == 403 and self._writes and ":" not in name and not put
            doubtful = heads.is_doubtful(self._name, error, expected=expected, put=put)
            if without_login or tags_tell or not doubtful:
                raise
            return error
        heads.worked(self._name)
        return answer

    @contextmanager
    def in_place_of(self, refusal: Answer | RegistryError | None, heads: Heads, name: str) -> Iterator[None]:
        """GET is sent inside, in place of the HEAD that came to this. That something is not there is an
        answer, where HEAD did not say so."""
        if not isinstance(refusal, RegistryError):
            yield
            return
        try:
            yield
        except NotFound:
            if refusal.status != 404:
                heads.was_wrong(self._name, refusal.status, surely=True)
            raise
        except RegistryError as error:
            if not error.retryable:
                heads.was_right(self._name, refusal.status)
            raise
        # Of what was put, HEAD was asked past the cache too; else a cache may have kept its 404.
        heads.was_wrong(self._name, refusal.status, surely=refusal.status != 404 or self._was_put(name))

    async def holds(self, content: Descriptor) -> bool:
        """Whether the repository holds a blob or manifest. What is told to have another size or digest is a
        broken one: not there. Raises refusals but NotFound."""
        is_manifest = content.media_type in media.MANIFESTS
        heads = self._session.manifest_heads if is_manifest else self._session.blob_heads
        make = self.manifest if is_manifest else self.blob
        try:
            found = await self.head(make("HEAD", content.digest), content.digest, heads, expected=False)
            if isinstance(found, Answer):
                return _is_whole(content, found, length_of(found.headers))
            with self.in_place_of(found, heads, content.digest):
                if is_manifest:
                    answer = await self.ask(self.manifest("GET", content.digest), content.digest)
                    return _is_whole(content, answer, len(answer.body))
                return await self._begins(content)
        except NotFound:
            return False

    def _was_put(self, name: str) -> bool:
        return self._session.caches.placed.at(self._name, name) is not None

    async def _begins(self, blob: Descriptor) -> bool:
        """Whether a blob's first byte can be had; of the rest, if it comes, nothing is read."""
        request = self.blob("GET", blob.digest, part="bytes=0-0")
        async with self.stream(request, blob.digest, small=True, expected=False) as (response, _):
            if other_than(blob.digest, response.headers) is not None:
                return False
            if response.status == 200:
                size = response.content_length
            else:
                part = content_range(response.headers.get("Content-Range"))
                size = part.total if part is not None else None
            return not blob.sized or size in (None, blob.size) or bool(codings_of(response.headers))


def _is_another(placed: Digest, answer: Answer) -> bool:
    """Whether an answer is about something else than what was put under that name."""
    if answer.body and not told(answer.headers):
        return digest_of(answer.body, algorithm_of(placed)) != placed
    return other_than(placed, answer.headers) is not None


def _is_whole(content: Descriptor, answer: Answer, length: int | None) -> bool:
    if other_than(content.digest, answer.headers) is not None:
        return False
    return not content.sized or length is None or length == content.size
