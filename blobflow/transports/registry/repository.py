"""One repository as Source and Sink: distribution-spec 1.1's numbered endpoints, as `content.py` wants them.

resolve, has   HEAD /v2/<name>/manifests/<reference>, HEAD /v2/<name>/blobs/<digest>   [end-3] [end-2]
read           GET  /v2/<name>/manifests/<digest>                                      [end-3]
open           GET  /v2/<name>/blobs/<digest>, with Range                              [end-2]
vacant         GET  /v2/<name>/tags/list?n=1                                           [end-8a]
mount          POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<name>               [end-11]
push           see `upload`                                                            [end-4a]…[end-6]
put            see `putting`                                                           [end-7a] [end-7b]
tags           see `tags`                                                              [end-8a] [end-8b]
untag, delete  see `removing`                                                          [end-9]
referrers      see `referrers`                                                         [end-12a] [end-12b]
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from blobflow.content import Body, Chunks, Referrer, Site, is_small
from blobflow.errors import (
    Denied,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    RegistryError,
    SizeMismatch,
    Unauthorized,
    UnsupportedContent,
)
from blobflow.oci import (
    MAX_MANIFEST_BYTES,
    UNKNOWN_SIZE,
    Descriptor,
    Digest,
    Manifest,
    digest_of,
    media,
    parse_digest,
    parse_manifest,
)
from blobflow.oci.digest import algorithm_of
from blobflow.oci.manifest import is_schema1
from blobflow.transports.registry import removing
from blobflow.transports.registry.answers import content_range
from blobflow.transports.registry.digests import check_bytes, check_told, told
from blobflow.transports.registry.encodings import codings_over, length_of
from blobflow.transports.registry.flowing import flowing
from blobflow.transports.registry.lookups import Lookups
from blobflow.transports.registry.putting import Putting, called
from blobflow.transports.registry.referrers import Referrals
from blobflow.transports.registry.session import Answer, Request, Session
from blobflow.transports.registry.tags import list_tags
from blobflow.transports.registry.tickets import push_scopes
from blobflow.transports.registry.upload import Uploads, mount_scopes


class Repository:
    """A `Source` and, with `writes`, a `Sink` over one host's session.

    `writes` makes every request ask for the right to push, so that a target costs one token and not two.
    `hasty`: what it fails to answer is asked elsewhere, so that little is tried again.
    """

    def __init__(
        self, site: Site, session: Session, uploads: Uploads, *, writes: bool, hasty: bool = False
    ) -> None:
        self._site = site
        self._hasty = hasty
        self._session = session
        self._uploads = uploads
        self._profile = uploads.profile
        self._writes = writes
        name = site.repository
        self._scopes = push_scopes(name) if writes else (f"repository:{name}:pull",)
        self._root = f"/v2/{name}"
        self._lookups = Lookups(session, site, self._scopes, writes=writes, hasty=hasty)
        self._referrals = Referrals(session, site, self._scopes, self)
        self._putting = Putting(site, session, uploads.profile, uploads.learnt, self._scopes)

    async def resolve(self, name: str) -> Descriptor:
        """See `Source.resolve`. GET in place of HEAD where HEAD does not tell enough, or is refused.

        Artifactory answers 403 for a manifest that it does not have; where we write, the tags then tell.
        """
        return await self._find(name, expected=not self._writes and not self._hasty)

    async def find(self, name: str) -> Descriptor:
        """As `resolve`, of what may well not be there: that it is not costs no second request."""
        return await self._find(name, expected=False)

    async def _find(self, name: str, *, expected: bool) -> Descriptor:
        try:
            return await self._resolve(name, expected=expected)
        except Denied as error:
            if not self._writes or ":" in name:
                raise
            if not await self._lists(name):
                raise NotFound(
                    error.message, status=error.status, code=error.code, detail=error.detail
                ) from None
            if error.method != "HEAD":
                raise
            with self._lookups.in_place_of(error, self._session.manifest_heads):
                return (await self.fetch(name)).descriptor

    async def _resolve(self, name: str, *, expected: bool) -> Descriptor:
        heads = self._session.manifest_heads
        found = await self._lookups.head(self._lookups.manifest("HEAD", name), name, heads, expected=expected)
        if isinstance(found, Answer) and (described := self._described(name, found)) is not None:
            return described
        with self._lookups.in_place_of(found, heads):
            return (await self.fetch(name)).descriptor

    def _described(self, name: str, answer: Answer) -> Descriptor | None:
        """The manifest that a HEAD told of; None if it did not tell enough."""
        pinned = parse_digest(name) if ":" in name else None
        media_type = media.bare(answer.headers.get("Content-Type", ""))
        named = told(answer.headers)
        if pinned is not None and named:
            check_told(answer.headers, pinned, f"manifest {name} at {self._site}")
            named = (pinned,)  # maybe told by the registry's own algorithm
        if len(named) != 1 or media_type not in media.MANIFESTS:
            return None
        # A length of 0, which no manifest has, is what servers say of an answer without a body.
        return Descriptor(media_type, named[0], length_of(answer.headers) or UNKNOWN_SIZE)

    async def read(self, manifest: Descriptor) -> bytes:
        """See `Source.read`."""
        raw, _ = await self._read(manifest.digest, manifest.digest, manifest.size)
        return raw

    @asynccontextmanager
    async def open(self, blob: Descriptor, offset: int = 0, end: int | None = None) -> AsyncIterator[Chunks]:
        """See `Source.open`: the chunks are aiohttp's own, as they come from the socket."""
        stop = blob.size if end is None else min(end, blob.size)
        if offset >= stop:
            yield _nothing()
            return
        for ranged in (offset > 0 or stop < blob.size) and self._profile.ranges, False:
            request = self._reading(blob, offset, stop, ranged=ranged)
            opening = self._lookups.stream(request, blob.digest, small=is_small(blob))
            async with opening as (response, turn):
                codings = codings_over(response, blob, self._session.host, request.asked)
                if codings and ranged and response.status != 200:
                    continue  # a part of something else: of what it came as
                if not codings:
                    self._session.etags.note(request.url.path, response.headers.get("ETag", ""))
                begins = 0 if codings else self._begins_at(response, blob, offset, stop)
                if begins is None:
                    continue  # no ranges here: all of it, and what comes before is passed over
                skip = offset - begins
                length, whole = stop - offset, stop - begins == blob.size and not skip
                packed = (codings, blob) if codings else None
                expected = skip + length
                with flowing(
                    self._session, response, request.asked, expected, turn.leave, packed=packed
                ) as chunks:
                    yield chunks if whole else _part(chunks, skip, length)
                return

    async def vacant(self) -> bool:
        """See `Sink.vacant`: only NAME_UNKNOWN is certain. (distribution 2.8 says it also of a repository
        that was given blobs, but never a manifest.)"""
        request = Request(
            "GET",
            URL(f"{self._root}/tags/list?n=1", encoded=True),
            f"repository {self._site.repository}",
            scopes=self._scopes,
        )
        try:
            await self._session.ask(request)
        except NotFound as error:
            return error.code == "NAME_UNKNOWN"
        except RegistryError:
            return False
        return False

    async def has(self, content: Descriptor) -> bool:
        """See `Sink.has`. What is told to have another size or digest is a broken one: not there."""
        try:
            return await self._lookups.holds(content)
        except Denied:
            if not self._writes:
                raise
            return False  # as in `resolve`; who may not look may not write either, and is told so then

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        """See `Sink.mount`. Harbor answers 401 for an unknown origin, others 400, 403, 404 or 405."""
        if origin.registry != self._site.registry or not self._profile.mounts:
            return False
        name = self._site.repository
        request = Request(
            "POST",
            URL(f"{self._root}/blobs/uploads/?mount={blob.digest}&from={origin.repository}", encoded=True),
            f"mount of blob {blob.digest} from {origin.repository} into {name}",
            scopes=mount_scopes(name, origin.repository),
            body=b"",
            ok=(201, 202),
        )
        try:
            mounted = await self._uploads.mount(request, name, blob.digest)
        except RegistryError as error:
            if error.retryable:
                raise
            return False
        if mounted:
            self._session.caches.placed.put(name, blob.digest, blob.digest)
        return mounted

    async def push(self, blob: Descriptor, body: Body) -> None:
        """See `Sink.push` and `upload`."""
        await self._uploads.push(self._site.repository, blob, body)
        self._session.caches.placed.put(self._site.repository, blob.digest, blob.digest)

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """See `Sink.put`."""
        await self._putting.put(manifest, raw, tags)

    async def tags(self) -> list[str]:
        """See `Lists.tags`."""
        return await list_tags(self._session, self._site, self._scopes)

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        return await self._referrals.find(subject)

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See `Attaches.attach`."""
        await self._referrals.attach(subject, referrers)

    async def fetch(self, name: str) -> Manifest:
        """The manifest that a tag or digest names, in one request ([end-3], GET), verified as far as its
        name or the registry tells its digest. Raises as `Source.resolve` and `Source.read`, and
        DigestMismatch where the registry tells another digest than the bytes have."""
        pinned = parse_digest(name) if ":" in name else None
        raw, answer = await self._read(name, pinned)
        named = told(answer.headers)
        digest = pinned or (named[0] if len(named) == 1 else None)
        served = answer.headers.get("Content-Type", "")
        manifest = parse_manifest(raw, served, digest=digest)
        if media.belied(served, kind := manifest.descriptor.media_type):
            self._session.warn(
                f"{self._site} serves {manifest.descriptor.digest} as {media.bare(served)!r}; by its content"
                f" it is {kind!r}, and is taken as that"
            )
        return manifest

    async def untag(self, tag: str) -> bool:
        """See `Deletes.untag`."""
        self._session.caches.placed.removed(self._site.repository, tag)
        return await removing.untag(self._session, self._site, tag)

    async def delete(self, manifest: Digest) -> None:
        """See `Deletes.delete`."""
        self._session.caches.placed.removed(self._site.repository, manifest)
        await removing.delete(self._session, self._site, manifest)

    async def _lists(self, tag: str) -> bool:
        """Whether the repository has the tag, for all that it tells."""
        try:
            return tag in await self.tags()
        except NotFound:
            return False
        except (Denied, Unauthorized):
            return True  # it tells nothing

    # Manifests

    async def _read(
        self, name: str, expected: Digest | None, size: int = UNKNOWN_SIZE
    ) -> tuple[bytes, Answer]:
        """A manifest's bytes, at most MAX_MANIFEST_BYTES, with the digest that they were asked by, and that
        they were answered with. Asked twice, since a bit that flips on its way does so once.

        No more is read of them than `size`, if that is known: room was made for so many.
        """
        try:
            return await self._read_once(name, expected, size)
        except DigestMismatch:
            return await self._read_once(name, expected, size)

    async def _read_once(self, name: str, expected: Digest | None, size: int) -> tuple[bytes, Answer]:
        limit = MAX_MANIFEST_BYTES if size == UNKNOWN_SIZE else min(size, MAX_MANIFEST_BYTES)
        answer = await self._lookups.ask(self._lookups.manifest("GET", name, limit), name)
        raw = answer.body
        self._session.meter.bytes_read += len(raw)
        if len(raw) > MAX_MANIFEST_BYTES:
            what = f"{called(self._site.repository, name)} at {self._site.registry}"
            raise UnsupportedContent(
                f"{what} has more than {MAX_MANIFEST_BYTES} bytes, the most that a manifest may have"
            )
        if size not in (UNKNOWN_SIZE, len(raw)):
            length = length_of(answer.headers) or 0
            came = max(length, len(raw)) if len(raw) > size else len(raw)
            raise SizeMismatch(f"manifest {name} at {self._site}", expected=size, actual=came)
        if expected is not None and (actual := digest_of(raw, algorithm_of(expected))) != expected:
            raise DigestMismatch(f"manifest at {self._site}", expected=expected, actual=actual)
        served = media.bare(answer.headers.get("Content-Type", ""))
        if served not in media.SCHEMA1 or not is_schema1(raw, served):  # that is refused later, in words
            what = f"{called(self._site.repository, name)} at {self._site.registry}"
            check_bytes(answer.headers, raw, what, known=expected)
        return raw, answer

    # Blobs

    def _reading(self, blob: Descriptor, offset: int, stop: int, *, ranged: bool) -> Request:
        """GET of the blob, or of its bytes from `offset` to `stop`, of the version that was read before."""
        part = f"bytes={offset}-{stop - 1}" if ranged else ""
        request, etags = self._lookups.blob("GET", blob.digest, part=part), self._session.etags
        path = request.url.path
        if ranged and offset and path in etags:
            request.headers["If-Range"] = etags[path]
        return request

    def _begins_at(
        self, response: aiohttp.ClientResponse, blob: Descriptor, offset: int, stop: int
    ) -> int | None:
        """Where in the blob the answer's body begins; None: it is none (416). Raises SizeMismatch or
        DigestMismatch where the answer announces another blob."""
        what = f"blob {blob.digest} at {self._site}"
        length = response.content_length
        check_told(response.headers, blob.digest, what)
        if response.status == 200:
            if length is not None and length != blob.size:
                raise SizeMismatch(what, expected=blob.size, actual=length)
            return 0
        told = content_range(response.headers.get("Content-Range"))
        if told is not None and told.total is not None and told.total != blob.size:
            raise SizeMismatch(what, expected=blob.size, actual=told.total)
        if response.status == 416:
            return None
        first, last = (told.first, told.last) if told is not None else (None, None)
        if first is None or last is None or first > offset or last + 1 < stop:
            raise ProtocolViolation(f"{self._session.host} served other bytes of {what} than asked for")
        return first


async def _nothing() -> Chunks:
    """No bytes at all."""
    return
    yield b""


async def _part(chunks: Chunks, skip: int, length: int) -> Chunks:
    """`length` bytes after the first `skip`: for registries that answer a range with more."""
    async for chunk in chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        part = memoryview(chunk)[skip : skip + length]
        skip = 0
        length -= len(part)
        yield part
        if not length:
            return
