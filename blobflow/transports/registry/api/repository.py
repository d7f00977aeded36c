"""One repository as Source and Sink: distribution-spec 1.1's numbered endpoints as `content` wants them.

resolve, has   HEAD /v2/<name>/manifests/<reference>, HEAD /v2/<name>/blobs/<digest>   [end-3] [end-2]
read           GET  /v2/<name>/manifests/<digest>                                      [end-3]
open           GET  /v2/<name>/blobs/<digest>, with Range                              [end-2]
is_empty       GET  /v2/<name>/tags/list?n=1                                           [end-8a]
mount          POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<name>               [end-11]
push           see `uploads`                                                           [end-4a]…[end-6]
put            see `manifest_push`                                                     [end-7a] [end-7b]
tags           see `tags`                                                              [end-8a] [end-8b]
untag, delete  see `deletion`                                                          [end-9]
referrers      see `referrers`                                                         [end-12a] [end-12b]
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property

from yarl import URL

from blobflow.content import BlobReader, BlobStream, MountRule, Referrer, Site
from blobflow.errors import (
    Denied,
    DigestMismatch,
    NotFound,
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
from blobflow.permits import Permit
from blobflow.transports.registry.api import deletion
from blobflow.transports.registry.api.blobs import RegistryBlob
from blobflow.transports.registry.api.lookups import Lookups
from blobflow.transports.registry.api.manifest_push import ManifestPusher, describe_manifest
from blobflow.transports.registry.api.referrers import RepositoryReferrers
from blobflow.transports.registry.api.tags import list_tags
from blobflow.transports.registry.capabilities.manifests_ahead import MOST_AHEAD
from blobflow.transports.registry.http.content_encoding import length_of
from blobflow.transports.registry.http.digest_headers import check_content, check_digest_header, digests_in
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.limiter import HostLimiter
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.uploads.pusher import BlobPusher
from blobflow.transports.registry.uploads.requests import mount, push_scopes

# Mounts from one repository into another that were denied or failed in a row, after which none is asked for.
_DENIED_MOUNTS = 2
# What a registry whose mounts are broken answers them, or a proxy that had no patience: uploads may work.
_BROKEN_MOUNT = frozenset({500, 502, 504})


class Repository:
    """A `Source` and, with `writes`, a `Sink` over one host's client.

    `writes` makes every request ask for the right to push, so that a target costs one token and not two.
    `fail_fast`: the same can be read elsewhere, so that there are few retries. `written`: it is read to see
    what became of writing there. `permit`: the permit under which it reads, mounts, pushes or puts one thing.
    """

    def __init__(
        self,
        site: Site,
        client: HostClient,
        uploads: BlobPusher,
        *,
        writes: bool,
        fail_fast: bool = False,
        written: bool = False,
        permit: Permit | None = None,
    ) -> None:
        self._site = site
        self._fail_fast = fail_fast
        self._client = client
        self._uploads = uploads
        self._profile = uploads.profile
        self._writes = writes
        self._written = written
        self._permit = permit
        name = site.repository
        self._scopes = push_scopes(name) if writes else (f"repository:{name}:pull",)
        self._root = f"/v2/{name}"
        self._target = target = writes or written
        self._lookups = Lookups(client, site, self._scopes, target=target, writes=writes, fail_fast=fail_fast)

    @cached_property
    def _referrers(self) -> RepositoryReferrers:
        return RepositoryReferrers(self._client, self._site, self._scopes, self)

    @cached_property
    def _manifests(self) -> ManifestPusher:
        return ManifestPusher(
            self._site, self._client, self._profile, self._uploads.limits, self._scopes, self._permit
        )

    @property
    def limiter(self) -> HostLimiter:
        """See `Limited.limiter`."""
        return self._client.limiter

    def with_permit(self, permit: Permit) -> Repository:
        """See `Limited.with_permit`."""
        return Repository(
            self._site,
            self._client,
            self._uploads,
            writes=self._writes,
            fail_fast=self._fail_fast,
            written=self._written,
            permit=permit,
        )

    async def resolve(self, name: str) -> Descriptor:
        """See `Source.resolve`. GET in place of HEAD where HEAD does not tell enough, or is refused.

        Artifactory answers 403 for a manifest that it does not have; where we write, the tags then tell.
        """
        found = await self._find(name, expected=not self._writes and not self._fail_fast)
        self._referrers.saw(name)
        return found

    async def find(self, name: str) -> Descriptor:
        """As `resolve`, of what may well not be there: that it is not costs no second request."""
        return await self._find(name, expected=False)

    async def find_ahead(self, tag: str) -> Descriptor:
        """As `resolve`, of what may well not be there, and else is `read` next: that has the bytes then,
        unless they are many, or reading is counted here, or this is a target, whose names alone are asked."""
        ahead = self._client.capabilities.manifests_ahead
        if self._target or self._client.allowance is not None or not ahead.has_room:
            return await self._find(tag, expected=False)
        response = await self._lookups.send(self._lookups.manifest("GET", tag, MOST_AHEAD), tag)
        self._client.meter.bytes_read += len(response.body)
        described, raw = self._described(tag, response), response.body
        if described is None:
            return await self._find(tag, expected=False)
        if len(raw) <= MOST_AHEAD and digest_of(raw, algorithm_of(described.digest)) == described.digest:
            ahead.keep(self._site.repository, described.digest, raw)
        return described

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
            with self._lookups.in_place_of(error, self._client.capabilities.manifest_heads, name):
                return (await self.fetch(name)).descriptor

    async def _resolve(self, name: str, *, expected: bool) -> Descriptor:
        heads = self._client.capabilities.manifest_heads
        found = await self._lookups.head(self._lookups.manifest("HEAD", name), name, heads, expected=expected)
        if isinstance(found, Response) and (described := self._described(name, found)) is not None:
            return described
        # What was put may be missing by a cache's word alone.
        past = self._target and isinstance(found, NotFound)
        with self._lookups.in_place_of(found, heads, name):
            return (await self._fetch(name, past=past)).descriptor

    def _described(self, name: str, response: Response) -> Descriptor | None:
        """The manifest that a HEAD told of; None if it did not tell enough."""
        pinned = parse_digest(name) if ":" in name else None
        media_type = media.without_parameters(response.headers.get("Content-Type", ""))
        named = digests_in(response.headers)
        if pinned is not None and named:
            check_digest_header(response.headers, pinned, f"manifest {name} at {self._site}")
            named = (pinned,)  # maybe told by the registry's own algorithm
        if len(named) != 1 or media_type not in media.MANIFESTS:
            return None
        # A length of 0, which no manifest has, is what servers say of an answer without a body.
        return Descriptor(media_type, named[0], length_of(response.headers) or UNKNOWN_SIZE)

    async def read(self, manifest: Descriptor) -> bytes:
        """See `Source.read`."""
        ahead = self._client.capabilities.manifests_ahead.take(self._site.repository, manifest)
        if ahead is not None:
            return ahead
        raw, _ = await self._read(manifest.digest, manifest.digest, manifest.size, expected=self._target)
        return raw

    def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """See `Source.open`."""
        client, lookups, ranges = self._client, self._lookups, self._profile.ranges
        reader = RegistryBlob(client, lookups, self._site, blob, ranges=ranges, permit=self._permit)
        return reader.open(offset, end)

    async def is_empty(self) -> bool:
        """See `Sink.is_empty`: only NAME_UNKNOWN is certain. (distribution 2.8 says it also of a repository
        that was given blobs, but never a manifest; of what this process gave it we know better, and the
        engine asks for what earlier runs noted.)"""
        if self._client.capabilities.caches.pushed.any_in(self._site.repository):
            return False
        request = Request(
            "GET",
            URL(f"{self._root}/tags/list?n=1", encoded=True),
            f"repository {self._site.repository}",
            scopes=self._scopes,
        )
        try:
            await self._lookups.send(request, "")
        except NotFound as error:
            return error.code == "NAME_UNKNOWN"
        except RegistryError:
            return False
        return False

    async def has(self, content: Descriptor) -> bool:
        """See `Sink.has`. One that is said to have another size or digest is broken, and
        counts as absent."""
        try:
            return await self._lookups.holds(content)
        except Denied:
            if not self._writes:
                raise
            return False  # as in `resolve`; who may not look may not write either, and is told so then

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        """See `Sink.mount`. Harbor answers 401 for an unknown origin, others 400, 403, 404 or 405.

        What may not be read costs a token, what fails many tries: after two of either it is not named again.
        """
        if origin.registry != self._site.registry or not self._profile.mounts:
            return False
        name, refused = self._site.repository, self._client.capabilities.refused_origins
        if refused[name, origin.repository] >= _DENIED_MOUNTS:
            return False
        request = mount(name, blob.digest, origin.repository, self._permit)
        try:
            mounted = await self._uploads.mount(request, name, blob.digest)
        except RegistryError as error:
            if error.retryable and error.status not in _BROKEN_MOUNT:
                raise
            if error.retryable or isinstance(error, Unauthorized | Denied):
                refused[name, origin.repository] += 1
            return False
        if mounted:
            refused.pop((name, origin.repository), None)
            self._client.capabilities.caches.pushed.put(name, blob.digest, blob.digest)
        return mounted

    def drop_upload(self, blob: Descriptor) -> None:
        """See `KeepsUploads.drop_upload`."""
        self._uploads.drop(self._site.repository, blob.digest)

    @property
    def mount_rule(self) -> MountRule:
        """See `Mounts.mount_rule`."""
        if not self._profile.mounts:
            return "nothing"
        return "named" if self._profile.mounts_need_manifest else "any"

    async def login(self) -> str | None:
        """See `Mounts.login`."""
        return await self._client.login(self._site.repository)

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        """See `Sink.push` and `uploads`."""
        await self._uploads.push(self._site.repository, blob, reader, self._permit)
        self._client.capabilities.caches.pushed.put(self._site.repository, blob.digest, blob.digest)

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """See `Sink.put`."""
        await self._manifests.put(manifest, raw, tags)

    async def tags(self) -> list[str]:
        """See `Lists.tags`."""
        return await list_tags(self._client, self._site, self._scopes)

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        return await self._referrers.find(subject)

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See `Attaches.attach`. It takes several requests, each of which waits for its permit."""
        if self._permit is not None:
            self._permit.release()
        await self._referrers.attach(subject, referrers)

    async def fetch(self, name: str) -> Manifest:
        """The manifest that a tag or digest names, in one request ([end-3], GET), verified as far as its
        name or the registry tells its digest. Raises as `Source.resolve` and `Source.read`, and
        DigestMismatch where the registry tells another digest than the bytes have."""
        return await self._fetch(name)

    async def _fetch(self, name: str, *, past: bool = False) -> Manifest:
        pinned = parse_digest(name) if ":" in name else None
        raw, response = await self._read(name, pinned, past=past)
        named = digests_in(response.headers)
        digest = pinned or (named[0] if len(named) == 1 else None)
        served = response.headers.get("Content-Type", "")
        manifest = parse_manifest(raw, served, digest=digest)
        if media.belied(served, kind := manifest.descriptor.media_type):
            self._client.warn(
                f"{self._site} serves {manifest.descriptor.digest}"
                f" as {media.without_parameters(served)!r}; by its content"
                f" it is {kind!r}, and is taken as that"
            )
        return manifest

    async def untag(self, tag: str) -> bool:
        """See `Deletes.untag`."""
        self._client.capabilities.caches.pushed.removed(self._site.repository, tag)
        return await deletion.delete_tag(self._client, self._site, tag)

    async def delete(self, manifest: Digest) -> None:
        """See `Deletes.delete`."""
        self._client.capabilities.caches.pushed.removed(self._site.repository, manifest)
        await deletion.delete_manifest(self._client, self._site, manifest)

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
        self,
        name: str,
        digest: Digest | None,
        size: int = UNKNOWN_SIZE,
        *,
        expected: bool = False,
        past: bool = False,
    ) -> tuple[bytes, Response]:
        """A manifest's bytes, at most MAX_MANIFEST_BYTES, with the digest that they were asked by, and that
        they were answered with. Asked twice, since a bit that flips on its way does so once.

        No more is read of them than `size`, if that is known: room was made for so many. `expected`, `past`:
        see `Lookups.send`.
        """

        async def read() -> tuple[bytes, Response]:
            limit = MAX_MANIFEST_BYTES if size == UNKNOWN_SIZE else min(size, MAX_MANIFEST_BYTES)
            request = self._lookups.manifest("GET", name, limit)
            response = await self._lookups.send(request, name, expected=expected, past=past)
            return self._checked(name, digest, size, response), response

        try:
            return await read()
        except DigestMismatch:
            return await read()

    def _checked(self, name: str, expected: Digest | None, size: int, response: Response) -> bytes:
        """A manifest's bytes, if the answer brought what was asked for."""
        raw = response.body
        self._client.meter.bytes_read += len(raw)
        what = f"{describe_manifest(self._site.repository, name)} at {self._site.registry}"
        if len(raw) > MAX_MANIFEST_BYTES:
            raise UnsupportedContent(
                f"{what} has more than {MAX_MANIFEST_BYTES} bytes, the most that a manifest may have"
            )
        if size not in (UNKNOWN_SIZE, len(raw)):
            length = length_of(response.headers) or 0
            came = max(length, len(raw)) if len(raw) > size else len(raw)
            raise SizeMismatch(f"manifest {name} at {self._site}", expected=size, actual=came)
        if expected is not None and (actual := digest_of(raw, algorithm_of(expected))) != expected:
            raise DigestMismatch(f"manifest at {self._site}", expected=expected, actual=actual)
        if expected is None and raw.lstrip()[:1] == b"<":
            raise UnsupportedContent(
                f"{what} is a page of HTML: a proxy or a page for logins answered, or it is no registry; "
                "check the host and the way to it"
            )
        served = media.without_parameters(response.headers.get("Content-Type", ""))
        if served not in media.SCHEMA1 or not is_schema1(raw, served):  # that is refused later, in words
            check_content(response.headers, raw, what, known=expected)
        return raw
