"""Places in memory: the smallest honest Source and Sink, for the engine's tests.

`MemoryRegistry` keeps the distribution spec's rules that the engine leans on: blobs are visible only in
repositories that have them, manifests are refused while their children are missing, digests are checked. It
counts every call. It passes the same contract suite as the registry transport.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal

from blobflow.content import BlobReader, BlobStream, Chunk, MountRule, Referrer, Site
from blobflow.errors import BlobflowError, DigestMismatch, NotFound, Rejected, SizeMismatch
from blobflow.oci import Descriptor, Digest, digest_of, media, parse_digest, parse_manifest
from blobflow.oci.referrers import cosign_tags, fallback_tag, merge_referrers_index, referrer_descriptor
from blobflow.oci.sample_images import SampleSet

CHUNK = 64 * 1024

Fault = Callable[[str, Site, str], BlobflowError | None]


class MemoryRegistry:
    """One registry. `calls` counts (call, digest or tag); `fault` may answer a call with an error; pushes
    wait for `push_from`, which is set at first. `sparse`: indexes are taken that lack children. `refers`:
    what refers to manifests is told, from a list of its own or from those under fallback tags. `logins`: who
    asks, by repository; then later runs mount what earlier ones put."""

    def __init__(
        self,
        name: str,
        *,
        mounts: bool = True,
        sparse: bool = False,
        refers: Literal["", "api", "tag"] = "",
        logins: Callable[[str], str | None] | None = None,
    ) -> None:
        self.name = name
        self.mounts = mounts
        self.sparse = sparse
        self.refers = refers
        self.logins = logins
        self.blobs: dict[Site, dict[Digest, bytes]] = {}
        self.manifests: dict[Site, dict[Digest, tuple[str, bytes]]] = {}
        self.tags: dict[tuple[Site, str], Digest] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.fault: Fault = lambda call, site, name: None
        self.push_from = asyncio.Event()
        self.push_from.set()

    def count(self, call: str) -> int:
        return sum(n for (made, _), n in self.calls.items() if made == call)

    def at(self, site: Site) -> MemoryPlace:
        assert site.registry == self.name
        if self.logins is not None:
            return MountingPlace(self, site, self.logins)
        return ReferringPlace(self, site) if self.refers else MemoryPlace(self, site)

    def site(self, repository: str) -> Site:
        return Site(self.name, repository)

    def fill(self, sample: SampleSet) -> None:
        """Put a whole sample set here."""
        for name, root in sample.images.items():
            repository, _, tag = name.rpartition(":")
            site = self.site(repository)
            self.tags[site, tag] = parse_digest(root.digest)
            held = self.manifests.setdefault(site, {})
            blobs = self.blobs.setdefault(site, {})
            todo = [(root.media_type, root.raw)]
            while todo:
                media_type, raw = todo.pop()
                manifest = parse_manifest(raw, media_type)
                held[manifest.descriptor.digest] = (media_type, raw)
                for blob in manifest.blobs:
                    blobs[blob.digest] = sample.blobs[blob.digest]
                for child in manifest.manifests:
                    stored = sample.manifests[child.digest]
                    todo.append((stored.media_type, stored.raw))


class MemoryPlace:
    """A repository of a MemoryRegistry: a Source and a Sink."""

    def __init__(self, registry: MemoryRegistry, site: Site) -> None:
        self._registry = registry
        self._site = site

    def _call(self, call: str, name: str) -> None:
        self._registry.calls[call, name] += 1
        error = self._registry.fault(call, self._site, name)
        if error is not None:
            raise error

    def _manifests(self) -> dict[Digest, tuple[str, bytes]]:
        return self._registry.manifests.setdefault(self._site, {})

    def _blobs(self) -> dict[Digest, bytes]:
        return self._registry.blobs.setdefault(self._site, {})

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"{self._site} has no {name}", status=404)

    async def resolve(self, name: str) -> Descriptor:
        self._call("resolve", name)
        digest = self._registry.tags.get((self._site, name), name)
        found = self._manifests().get(Digest(digest))
        if found is None:
            raise self._missing(name)
        return Descriptor(media_type=found[0], digest=Digest(digest), size=len(found[1]))

    async def read(self, manifest: Descriptor) -> bytes:
        self._call("read", manifest.digest)
        found = self._manifests().get(manifest.digest)
        if found is None:
            raise self._missing(manifest.digest)
        if digest_of(found[1], manifest.digest[:6]) != manifest.digest:
            raise DigestMismatch(
                f"manifest in {self._site}", expected=manifest.digest, actual=digest_of(found[1])
            )
        if manifest.sized and len(found[1]) != manifest.size:
            raise SizeMismatch(f"manifest in {self._site}", expected=manifest.size, actual=len(found[1]))
        return found[1]

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        self._call("open", blob.digest)
        content = self._blobs().get(blob.digest)
        if content is None:
            raise self._missing(blob.digest)
        if len(content) != blob.size:
            raise SizeMismatch(f"blob {blob.digest} in {self._site}", expected=blob.size, actual=len(content))

        async def chunks() -> AsyncGenerator[Chunk, None]:
            for at in range(offset, end or len(content), CHUNK):
                yield content[at : min(at + CHUNK, end or len(content))]

        async with aclosing(chunks()) as stream:
            yield stream

    async def is_empty(self) -> bool:
        self._call("is_empty", "")
        return not self._registry.manifests.get(self._site) and not self._registry.blobs.get(self._site)

    async def has(self, content: Descriptor) -> bool:
        self._call("has", content.digest)
        held = self._manifests() if content.media_type in media.MANIFESTS else self._blobs()
        return content.digest in held

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        self._call("mount", blob.digest)
        content = self._registry.blobs.get(origin, {}).get(blob.digest)
        if content is None or not self._registry.mounts:
            return False
        self._blobs()[blob.digest] = content
        return True

    async def push(self, blob: Descriptor, body: BlobReader) -> None:
        self._call("push", blob.digest)
        await self._registry.push_from.wait()
        content = bytearray()
        async with body.open(0) as chunks:
            async for chunk in chunks:
                content += chunk
        if digest_of(bytes(content), blob.digest[:6]) != blob.digest:
            raise Rejected("DIGEST_INVALID", status=400)
        self._blobs()[blob.digest] = bytes(content)

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        self._call("put", manifest.digest)
        parsed = parse_manifest(raw, manifest.media_type, digest=manifest.digest)
        missing = [child.digest for child in parsed.manifests if child.digest not in self._manifests()]
        missing += [blob.digest for blob in parsed.blobs if blob.digest not in self._blobs()]
        if missing and not (parsed.is_index and self._registry.sparse):
            raise Rejected(f"{manifest.digest} lacks {missing}", missing=missing, status=404)
        self._manifests()[manifest.digest] = (manifest.media_type, raw)
        for tag in tags:
            self._registry.tags[self._site, tag] = manifest.digest


class MountingPlace(MemoryPlace):
    """One at a registry that tells who asks, and what it mounts."""

    mount_rule: MountRule = "any"

    def __init__(self, registry: MemoryRegistry, site: Site, logins: Callable[[str], str | None]) -> None:
        super().__init__(registry, site)
        self._logins = logins

    async def login(self) -> str | None:
        return self._logins(self._site.repository)


class ReferringPlace(MemoryPlace):
    """One that knows what refers to its manifests."""

    async def referrers(self, subject: Digest) -> list[Referrer]:
        self._call("referrers", subject)
        found = [Referrer(named, subject, "cosign", tag) for tag, named in self._named(*cosign_tags(subject))]
        if self._registry.refers == "tag":
            for _, index in self._named(fallback_tag(subject)):
                listed = parse_manifest(self._manifests()[index.digest][1], index.media_type).manifests
                found += [Referrer(each, subject, "tag") for each in listed]
            return found
        for digest, (kind, raw) in self._manifests().items():
            manifest = parse_manifest(raw, kind, digest=digest)
            if manifest.subject is not None and manifest.subject.digest == subject:
                found.append(Referrer(referrer_descriptor(manifest), subject, "api"))
        return found

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        self._call("attach", subject)
        if self._registry.refers == "api":
            return
        tag = fallback_tag(subject)
        there = [self._manifests()[index.digest][1] for _, index in self._named(tag)]
        raw = merge_referrers_index(there[0] if there else None, referrers)
        if raw is not None:
            await self.put(Descriptor(media.OCI_INDEX, digest_of(raw), len(raw)), raw, [tag])

    def _named(self, *tags: str) -> list[tuple[str, Descriptor]]:
        digests = [(tag, self._registry.tags.get((self._site, tag))) for tag in tags]
        held = self._manifests()
        return [(t, Descriptor(held[d][0], d, len(held[d][1]))) for t, d in digests if d is not None]
