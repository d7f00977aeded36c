"""Lookups: asks one repository what it has, by HEAD where that is answered, past caches where they
contradict what is known. See `head_support` and `stale_caches`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import aiohttp
import msgspec
from yarl import URL

from blobflow.content import Site
from blobflow.errors import NotFound, RegistryError
from blobflow.oci import MAX_MANIFEST_BYTES, Descriptor, Digest, digest_of, media
from blobflow.oci.digest import algorithm_of
from blobflow.permits import Permit
from blobflow.transports.registry.api.manifest_push import describe_manifest
from blobflow.transports.registry.capabilities.head_support import HeadSupport
from blobflow.transports.registry.http.cache_headers import describe_cache
from blobflow.transports.registry.http.content_encoding import codings_of, length_of
from blobflow.transports.registry.http.digest_headers import contradicting_digest, digests_in
from blobflow.transports.registry.http.headers import parse_content_range
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request, Response


class Lookups:
    """How one repository is asked. `target`: nothing that a cache kept is good enough. `writes`: its tags are
    listed where one is denied. `fail_fast`: what it does not answer is asked elsewhere."""

    def __init__(
        self,
        client: HostClient,
        site: Site,
        scopes: tuple[str, ...],
        *,
        target: bool,
        writes: bool,
        fail_fast: bool,
    ) -> None:
        self._client = client
        self._name = site.repository
        self._scopes = scopes
        self._target = target
        self._writes = writes
        self._fail_fast = fail_fast

    def manifest(self, method: str, name: str, limit: int = MAX_MANIFEST_BYTES) -> Request:
        """HEAD or GET of a manifest [end-3], of whose bytes `limit` are wanted."""
        return Request(
            method,
            URL(f"/v2/{self._name}/manifests/{name}", encoded=True),
            describe_manifest(self._name, name),
            scopes=self._scopes,
            headers={"Accept": media.ACCEPT_MANIFESTS},
            limit=limit,
            fail_fast=self._fail_fast,
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
            fail_fast=self._fail_fast,
        )

    async def send(
        self, request: Request, name: str, *, expected: bool = False, past: bool = False
    ) -> Response:
        """The answer about what a tag or digest names. Raises as `HostClient.send`.

        One that contradicts what was put, or that a cache has kept too long, is asked for past the cache; so
        is a 404 of what is `expected` to be there. `past`: at once.
        """
        caches = self._client.capabilities.caches
        if past or (self._target and caches.are_passed):
            return await self._client.send(_bypassing_caches(request))
        pushed = caches.pushed.at(self._name, name)
        answer: Response | None = None
        try:
            answer = await self._client.send(request)
            cached = describe_cache(answer.headers)
            if cached and not self._target:
                for digest in digests_in(answer.headers) if ":" not in name else ():
                    caches.named(self._name, digest, cached)
                cached = ""
            if not cached and (pushed is None or not _is_another(pushed, answer)):
                return answer
        except NotFound as error:
            if by := caches.named_by(self._name, name):
                error.message += f"; the answer of the tag that names it came {by}"
            doubted = pushed is not None or error.cached or expected
            if not doubted and not (self._target and caches.is_to_be_checked(error)):
                raise
            cached = error.cached
        if cached and self._target:
            caches.saw()
        try:
            fresh = await self._client.send(_bypassing_caches(request))
        except NotFound:
            if answer is not None:
                caches.contradicted(request.description, cached)
            raise
        if answer is None or digests_in(fresh.headers) != digests_in(answer.headers):
            caches.contradicted(request.description, cached)
        return fresh

    @asynccontextmanager
    async def stream(
        self, request: Request, digest: Digest, *, small: bool, expected: bool = True
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Permit]]:
        """A blob's bytes, as `HostClient.stream`. A 404 is asked about past the cache where it is a cache's,
        and at a target also of what is `expected` to be there."""
        caches = self._client.capabilities.caches
        if self._target and caches.are_passed:
            request = _bypassing_caches(request)
        async with AsyncExitStack() as stack:
            try:
                opened = await stack.enter_async_context(self._client.stream(request, small=small))
            except NotFound as error:
                doubtful = error.cached or (self._target and expected) or self._was_put(digest)
                if not doubtful or (self._target and caches.are_passed):
                    raise
                again = self._client.stream(_bypassing_caches(request), small=small)
                opened = await stack.enter_async_context(again)
                caches.contradicted(request.description, error.cached)
            yield opened

    async def head(
        self, request: Request, name: str, heads: HeadSupport, *, expected: bool
    ) -> Response | RegistryError | None:
        """What HEAD says: an answer, the refusal that GET may not share, or None where HEAD is not worth
        sending. Raises refusals that are taken at their word. `expected`: the thing has to exist."""
        if not heads.are_sent(self._name):
            return None
        put = self._was_put(name)
        try:
            answer = await self.send(request, name)
        except RegistryError as error:
            without_login = error.status == 401 and not self._client.wants_login
            tags_tell = error.status == 403 and self._writes and ":" not in name and not put
            doubtful = heads.is_doubtful(self._name, error, expected=expected, put=put)
            if without_login or tags_tell or not doubtful:
                raise
            return error
        heads.worked(self._name)
        return answer

    @contextmanager
    def in_place_of(
        self, refusal: Response | RegistryError | None, heads: HeadSupport, name: str
    ) -> Iterator[None]:
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
        """Whether the repository holds a blob or manifest. One that is said to have another size or digest
        is broken, and counts as absent. Raises refusals but NotFound."""
        is_manifest = content.media_type in media.MANIFESTS
        heads = (
            self._client.capabilities.manifest_heads if is_manifest else self._client.capabilities.blob_heads
        )
        make = self.manifest if is_manifest else self.blob
        try:
            found = await self.head(make("HEAD", content.digest), content.digest, heads, expected=False)
            if isinstance(found, Response):
                return _is_whole(content, found, length_of(found.headers))
            with self.in_place_of(found, heads, content.digest):
                if is_manifest:
                    answer = await self.send(self.manifest("GET", content.digest), content.digest)
                    return _is_whole(content, answer, len(answer.body))
                return await self._begins(content)
        except NotFound:
            return False

    def _was_put(self, name: str) -> bool:
        return self._client.capabilities.caches.pushed.at(self._name, name) is not None

    async def _begins(self, blob: Descriptor) -> bool:
        """Whether a blob's first byte can be had; of the rest, if it comes, nothing is read."""
        request = self.blob("GET", blob.digest, part="bytes=0-0")
        async with self.stream(request, blob.digest, small=True, expected=False) as (response, _):
            if contradicting_digest(blob.digest, response.headers) is not None:
                return False
            if response.status == 200:
                size = response.content_length
            else:
                part = parse_content_range(response.headers.get("Content-Range"))
                size = part.total if part is not None else None
            return not blob.sized or size in (None, blob.size) or bool(codings_of(response.headers))


def _is_another(pushed: Digest, answer: Response) -> bool:
    """Whether an answer is about something else than what was put under that name."""
    if answer.body and not digests_in(answer.headers):
        return digest_of(answer.body, algorithm_of(pushed)) != pushed
    return contradicting_digest(pushed, answer.headers) is not None


def _is_whole(content: Descriptor, answer: Response, length: int | None) -> bool:
    if contradicting_digest(content.digest, answer.headers) is not None:
        return False
    return not content.sized or length is None or length == content.size


def _bypassing_caches(request: Request) -> Request:
    """The same request in a form that no cache has an answer to."""
    text = str(request.url)
    url = URL(f"{text}{'&' if '?' in text else '?'}nocache={secrets.token_hex(8)}", encoded=True)
    return msgspec.structs.replace(request, url=url, headers={**request.headers, "Cache-Control": "no-cache"})
