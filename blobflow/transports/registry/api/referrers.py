"""The referrers of a manifest at one repository: distribution-spec 1.1, "Listing Referrers" ([end-12a]).

    GET /v2/<name>/referrers/<digest> → 200 and an index, in pages; 404: this registry keeps no such lists

Where it keeps none, clients keep an index under the fallback tag ("Referrers Tag Schema"), and cosign has
tags of its own everywhere. Which of those tags there are, the list of a repository's tags says at once, where
it is short, and whole: caches list what they hold, so one that lacks a tag which was resolved says nothing.
Else each is asked for.

Putting: a registry that takes note of a manifest's subject says so (OCI-Subject, [end-7]). Where it did not,
the fallback index is read again, merged and put. There is no way to do that at once. Merges of one process
are done one after the other. Another process may put a list in which ours are not. So what the tag names is
asked again after each put, and before one that replaces a list; if it is another one, all begins anew. And
it is asked once more a moment later, for puts that were made before ours; but not of the first list of what
this process put itself, which nobody else knows yet. What is left is a put that arrives later still.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from yarl import URL

from blobflow.content import Referrer, Site
from blobflow.errors import (
    BlobflowError,
    Denied,
    NotFound,
    ProtocolViolation,
    RegistryError,
    Rejected,
    Unauthorized,
    Unavailable,
    UnsupportedContent,
)
from blobflow.oci import MAX_MANIFEST_BYTES, Descriptor, Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.digest import algorithm_of
from blobflow.oci.referrers import cosign_tags, fallback_tag, merge_referrers_index
from blobflow.transports.registry.api.tags import list_tags
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.link_header import next_link, next_page
from blobflow.transports.registry.http.messages import Request

# A repository with more pages of tags than this is asked for each tag that we look for: four a manifest.
TAG_PAGES = 5
# What was told of a repository's tags counts for so many seconds: many images of it are asked for at once,
# and a process that runs for days has to see what is signed meanwhile.
TAGS_SECONDS = 60.0
# What may hang on one manifest. A signature or SBOM is one; images signed again every night have hundreds.
MAX_PAGES = 100
MAX_REFERRERS = 10_000
MAX_BYTES = 64 * 1024 * 1024
# How often a list is merged that others change at the same time: of so many who begin at once one is done in
# each turn.
MAX_MERGES = 20
# Seconds until a list is looked at once more: a put that was made of an older one arrives by then.
SETTLE_SECONDS = 0.25

# With these codes a 404 is about the name that was asked for, not about the endpoint.
_ABOUT_THE_NAME = frozenset({"NAME_UNKNOWN", "MANIFEST_UNKNOWN"})
# And with these one of a list of tags is about the repository; the last is Harbor's.
_NO_REPOSITORY = _ABOUT_THE_NAME | {"NOT_FOUND"}

_Named = TypeVar("_Named", Descriptor, Manifest)


class Manifests(Protocol):
    """The part of a repository that is leaned on here."""

    async def find(self, name: str) -> Descriptor: ...

    async def find_ahead(self, name: str) -> Descriptor: ...

    async def fetch(self, name: str) -> Manifest: ...

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None: ...


class RepositoryReferrers:
    """What refers to the manifests of one repository."""

    def __init__(self, client: HostClient, site: Site, scopes: tuple[str, ...], manifests: Manifests) -> None:
        self._client = client
        self._site = site
        self._scopes = scopes
        self._manifests = manifests
        self._host = client.capabilities.referrers

    def saw(self, name: str) -> None:
        """Take in that there is a tag of this name, if it is none of a digest."""
        if ":" not in name:
            self._host.seen.put(self._site.repository, (asyncio.get_running_loop().time(), name))

    async def find(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        found = await self._by_api(subject)
        if found is None:
            found = await self._by_tag(subject)
        for tag in cosign_tags(subject):
            named = await self._named(tag, self._manifests.find_ahead)
            if named is not None:
                found.append(Referrer(named, subject, "cosign", tag))
        return found

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See `Attaches.attach`."""
        name = self._site.repository
        unnoted = [each for each in referrers if not self._host.noted(name, each.digest)]
        if not unnoted or await self._by_api(subject) is not None:
            return
        async with self._host.lock(name, subject):
            await self._merge(subject, unnoted)

    async def _merge(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """Have the fallback index list these. Raises Unavailable where others change it again and again."""
        tag = fallback_tag(subject)
        for turn in range(MAX_MERGES):
            index = await self._list(tag)
            raw, before = (index.raw, index.descriptor) if index is not None else (None, None)
            content = merge_referrers_index(raw, referrers)
            if content is None:
                return
            if raw is not None and _digest(await self._named_by(tag)) != _digest(before):
                continue
            put = await self._put_merged(content, raw, subject, referrers)
            # What was there before is what a cache on the way still says.
            expected = (put, _digest(before))
            if _digest(await self._named_by(tag)) not in expected:
                continue
            if raw is None and turn == 0 and self._put_here(subject):
                return
            await asyncio.sleep(SETTLE_SECONDS)
            if _digest(await self._named_by(tag)) in expected:
                return
        raise Unavailable(
            f"others change the tag {tag} at {self._site}, which lists referrers, all the time; try again"
        )

    def _put_here(self, manifest: Digest) -> bool:
        """Whether this process put the manifest into this repository."""
        return self._client.capabilities.caches.pushed.at(self._site.repository, manifest) is not None

    async def _put_merged(
        self, content: bytes, raw: bytes | None, subject: Digest, referrers: Sequence[Descriptor]
    ) -> Digest:
        """Put a list that was made of `raw`. Returns the digest of what was put."""
        try:
            return await self._put(content, subject)
        except Rejected as error:
            # A list that names what is gone by now is refused where indexes have to be whole.
            gone = set(error.missing) - {each.digest for each in referrers}
            without = merge_referrers_index(raw, referrers, gone) if gone else None
            if without is None:
                raise
            return await self._put(without, subject)

    async def _put(self, content: bytes, subject: Digest) -> Digest:
        index = Descriptor(media.OCI_INDEX, digest_of(content, algorithm_of(subject)), len(content))
        await self._manifests.put(index, content, [fallback_tag(subject)])
        return index.digest

    async def _named_by(self, tag: str) -> Descriptor | None:
        """What a tag names now, if it names anything."""
        try:
            return await self._manifests.find(tag)
        except NotFound:
            return None

    async def _list(self, tag: str) -> Manifest | None:
        """The fallback index as it is now; None if there is none."""
        try:
            index = await self._manifests.fetch(tag)
        except NotFound:
            return None
        if not index.is_index:
            raise UnsupportedContent(
                f"the tag {tag} at {self._site} should name a list of referrers, but names an image"
            )
        return index

    async def _by_tag(self, subject: Digest) -> list[Referrer]:
        index = await self._named(fallback_tag(subject), self._manifests.fetch)
        return [Referrer(each, subject, "tag") for each in index.manifests] if index is not None else []

    async def _named(self, tag: str, ask: Callable[[str], Awaitable[_Named]]) -> _Named | None:
        """What a tag names, as `ask` finds it; None if there is no such tag. Where the tags are not told, one
        that is denied is none: Artifactory answers 403 for a tag that it does not have."""
        tags = await self._tags()
        if tags is not None and tag not in tags:
            return None
        try:
            return await ask(tag)
        except NotFound:
            return None
        except RegistryError as error:
            if error.retryable or tags is not None:
                raise
            return None

    async def _tags(self) -> frozenset[str] | None:
        """The repository's tags; None if they are too many, or not told, or not all."""
        name = self._site.repository
        told, tags = self._host.tags.get(name) or (-math.inf, None)
        seen, tag = self._host.seen.get(name) or (-math.inf, "")
        is_old = tags is not None and tag not in tags and told < seen
        if asyncio.get_running_loop().time() - told < TAGS_SECONDS and not is_old:
            return tags
        return await self._host.listing.of(name, self._list_tags)

    async def _list_tags(self) -> frozenset[str] | None:
        tags: frozenset[str] | None
        try:
            tags = frozenset(await list_tags(self._client, self._site, self._scopes, pages=TAG_PAGES))
        except NotFound as error:
            tags = frozenset() if error.code in _NO_REPOSITORY else None
        except RegistryError as error:
            if error.retryable:
                raise
            tags = None
        _, seen = self._host.seen.get(self._site.repository) or (0.0, "")
        if tags is not None and seen and seen not in tags:
            tags = None
        self._host.tags.put(self._site.repository, (asyncio.get_running_loop().time(), tags))
        return tags

    # The API

    async def _by_api(self, subject: Digest) -> list[Referrer] | None:
        """What the registry lists; None: it keeps no list. The first to ask finds that out for all; where it
        did not find out, nobody waits in turn for the same disappointment."""
        host = self._host
        if host.lists is None and not host.tried:
            async with host.first:
                if host.lists is None and not host.tried:
                    try:
                        found = await self._listed(subject)
                    except BlobflowError:
                        host.tried = True
                        raise
                    host.tried = True
                    return found
        return await self._listed(subject) if host.lists is not False else None

    async def _listed(self, subject: Digest) -> list[Referrer] | None:
        found: dict[Digest, Descriptor] = {}
        url: URL | None = URL(f"/v2/{self._site.repository}/referrers/{subject}", encoded=True)
        description, seen = f"referrers of {self._site.repository}@{subject}", set[str]()
        size = 0
        for _ in range(MAX_PAGES):
            assert url is not None
            page = await self._page(url, description, first=not seen)
            if page is None:
                return None
            entries, here, link, length = page
            size += length
            seen |= {str(url), str(here)}
            found.update((each.digest, each) for each in entries)
            if link is None:
                return [Referrer(each, subject, "api") for each in found.values()]
            url = next_page(self._client.home, here, link, description)
            if str(url) in seen or len(found) > MAX_REFERRERS or size > MAX_BYTES:
                break
        raise ProtocolViolation(f"{self._client.host} lists {description} without end")

    async def _page(
        self, url: URL, description: str, *, first: bool
    ) -> tuple[tuple[Descriptor, ...], URL, str | None, int] | None:
        """One page: its entries, where it came from, the link to the next one, and its bytes."""
        request = Request(
            "GET",
            url,
            description,
            scopes=self._scopes,
            headers={"Accept": media.OCI_INDEX},
            limit=MAX_MANIFEST_BYTES,
        )
        is_list = False
        try:
            response = await self._client.send(request)
            self._client.meter.bytes_read += len(response.body)
            kind = response.headers.get("Content-Type", "")
            is_list = media.without_parameters(kind) == media.OCI_INDEX
            index = parse_manifest(response.body, kind)
            if not index.is_index:
                raise UnsupportedContent(f"{self._client.host} answered {description} with no list of them")
        except (RegistryError, UnsupportedContent) as error:
            # A list with an entry that can't be taken is one: whoever pushes that must not hide the others.
            if error.retryable or not first or is_list:
                raise
            self._no_list(error)
            return None
        self._host.lists = True
        link = next_link(response.headers.getall("Link", []))
        return index.manifests, response.url, link, len(response.body)

    def _no_list(self, error: RegistryError | UnsupportedContent) -> None:
        """Take in that there was no list. Whether that holds for the whole host, the answer tells."""
        about_one = isinstance(error, Denied | Unauthorized) or (
            isinstance(error, RegistryError) and error.code in _ABOUT_THE_NAME
        )
        if self._host.lists is None and not about_one:
            self._host.lists = False


def _digest(manifest: Descriptor | None) -> Digest | None:
    return None if manifest is None else manifest.digest
