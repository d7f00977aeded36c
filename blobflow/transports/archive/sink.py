"""`oci-archive:FILE` and `docker-archive:FILE` as Sinks: one tar that is an OCI layout and has docker's list.

Both are written alike, so that OCI tools, containerd, podman and docker take either. An archive is written
anew, beside its place, and takes it when the run has ended well; what an archive of that name held before is
gone then. It has oci-layout, the blobs in the order in which they were announced, the manifests by digest,
manifest.json, docker's older `repositories` and index.json: the same images give the same bytes.

docker's list knows one platform a name: the preferred one, else the first. In an OCI archive a name that is
no reference, or an image that is none to docker (an artifact, one with layers elsewhere), is in index.json
alone. In docker's own a bare word is a repository, as docker has it, and what is no image is refused before
anything is written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path

from blobflow.content import Aside, BlobReader, BlobStream, Referrer, Site, Verifier
from blobflow.errors import NotFound, StorageError, UsageError
from blobflow.events import HostMeter
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, Platform, media, parse_manifest
from blobflow.oci.bundle import kind_of
from blobflow.oci.local_reference import DOCKER_ARCHIVE, STREAM, path_of, transport_of
from blobflow.oci.platform_choice import without_annotations
from blobflow.oci.referrers import digest_in_tag, fallback_tag, subject_in_tag
from blobflow.transports.archive.manifest_json import (
    MANIFEST_JSON,
    REPOSITORIES,
    check_loadable,
    listed_images,
    write_manifest_json,
    write_repositories,
)
from blobflow.transports.archive.parts import Parts, check_fits
from blobflow.transports.files import (
    BLOCK,
    in_thread,
    is_stream,
    read_range,
    remove_stale_temporaries,
    stream_at,
)
from blobflow.transports.layout.image_names import ImageNames, digest_or_none, full_name, tagged_name
from blobflow.transports.layout.index_json import (
    check_blobs,
    check_manifest,
    check_size,
    descriptor_of,
    find_image,
    image_names,
    parse_index_json,
    path_of_blob,
    write_index_json,
)
from blobflow.transports.layout.referrers import updated_referrers_index

# Bytes of manifests that are held until the archive is complete. What is more waits in a file.
HELD_BYTES = 8 * 1024 * 1024
_EMPTY_BYTES = len(b"{}")


class ArchiveSink:
    """One archive being written. Implements Sink and Attaches, and Source over what has come in so
    far.

    It exists under its name only after `complete`; `abandon` leaves nothing. Made without touching the disk.
    Cut into parts, or without what is elsewhere, it has no list for docker, which could not load it.
    """

    def __init__(
        self,
        site: Site,
        scratch: Path,
        meter: HostMeter,
        platform: Platform,
        *,
        limit: int | None = None,
        elsewhere: Collection[Digest] = (),
        aside: Aside | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        """`scratch`: the folder for a file that standard output is prepared in. `limit`: bytes of each of the
        parts that it is cut into; None: it is one file. `elsewhere`: what counts as here without being in it.
        `aside`: where manifests wait for the end that are too many for memory. `origins`: it is a bundle, and
        says of these names where the image was.
        """
        self.site = site
        path = path_of(site.registry)
        self._path = None if path == STREAM else Path(path)
        self._dockers = transport_of(site.registry) == DOCKER_ARCHIVE
        self._scratch = scratch
        self._meter = meter
        self._platform = platform
        self._stack = ExitStack()
        self._limit = limit
        self._elsewhere = elsewhere
        self._parts: Parts | None = None
        self._expected: list[Descriptor] = []
        self._pushing: dict[Digest, asyncio.Lock] = {}
        self._manifests: dict[Digest, Manifest] = {}
        self._aside = aside
        self._origins = origins
        self._files: Sequence[Path] = ()
        self._put_aside: dict[Digest, Callable[[], bytes]] = {}
        self._held = 0
        self._tags: dict[str, Descriptor] = {}
        self._named: ImageNames[Descriptor] | None = None  # what the tags are, until there is another
        self._referrers: dict[Digest, dict[Digest, Descriptor]] = {}

    # What is here

    async def resolve(self, name: str) -> Descriptor:
        if digest := digest_or_none(name):
            return descriptor_of(await self.read(Descriptor("", digest, UNKNOWN_SIZE)), digest)
        if self._named is None:
            self._named = image_names(parse_index_json(self._index(), str(self.site)))
        return find_image(self._named, name, str(self.site), lambda entry: b"")

    async def read(self, manifest: Descriptor) -> bytes:
        if manifest.digest not in self._manifests:
            raise NotFound(f"{self.site} has no manifest {manifest.digest} yet")
        raw = self._raw(manifest.digest)
        check_size(raw, manifest, f"manifest {manifest.digest} of {self.site}")
        return raw

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        tar = self._parts.holding(blob.digest) if self._parts else None
        region = tar.region(blob.digest) if tar else None
        if tar is None or region is None:
            raise NotFound(f"{self.site} has no blob {blob.digest} yet")
        start, stop = region.content, blob.size if end is None else end
        async with aclosing(read_range(tar.fd, str(self.site), start + offset, start + stop)) as stream:
            yield stream

    async def is_empty(self) -> bool:
        """An archive is written anew, so nothing is in it before something was put. Raises StorageError."""
        if self._path is not None and not self._path.parent.is_dir():
            raise StorageError(f"can't write {self._path}: there is no folder {self._path.parent}")
        if self._path is not None and self._path.is_dir():
            raise StorageError(f"can't write {self._path}: it is a folder; a layout is oci:{self._path}")
        if self._path is not None and self._limit is not None and is_stream(self._path):
            raise StorageError(f"can't write {self._path} in parts: it is no file")
        return not self._manifests and self._parts is None and not self._elsewhere

    @property
    def named(self) -> bool:
        """Whether an image has come in under a name, without which there is no archive."""
        return bool(self._tags)

    @property
    def files(self) -> Sequence[Path]:
        """The files that it has become, in order; none where it did not, or is in a stream."""
        return self._files

    async def has(self, content: Descriptor) -> bool:
        if content.digest in self._manifests or self._left_out(content):
            return True
        tar = self._parts.holding(content.digest) if self._parts else None
        region = tar.region(content.digest) if tar else None
        return region is not None and region.size == content.size

    def _left_out(self, content: Descriptor) -> bool:
        """Whether it counts as here; manifests, which are small, are never left out, nor is the empty config
        of every artifact (image-spec manifest.md), which is wanted in repositories that never had it."""
        if content.media_type in media.MANIFESTS or content.size <= _EMPTY_BYTES:
            return False
        return content.digest in self._elsewhere

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        return origin.registry == self.site.registry and await self.has(blob)

    def check_image(self, name: str, root: Digest, manifests: Mapping[Digest, Manifest]) -> None:
        """See `Selective`: what docker can't load would be lost in an archive for it."""
        if self._dockers:
            if name and not full_name(name):
                raise UsageError(f"{self.site}:{name} is no name for docker; write {self.site}:NAME:TAG")
            check_loadable(root, manifests, self._platform, str(self.site))

    # Writing

    def expect(self, blobs: Iterable[Descriptor]) -> None:
        """Blobs that will come, in the order in which they shall stand."""
        for blob in sorted(blobs := list(blobs), key=lambda blob: -blob.size)[:1]:
            check_fits(path_of_blob(blob.digest), blob.size, self._limit)
        self._expected += blobs

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        """Several come in at once, each to its own place. A blob that is here is not asked for again."""
        async with self._pushing.setdefault(blob.digest, asyncio.Lock()):
            parts = self._begin()
            if parts.holding(blob.digest):
                return
            verifier = Verifier(blob, f"blob {blob.digest} for {self.site}")
            path = path_of_blob(blob.digest)
            tar = parts.taking(blob.digest, path, blob.size)
            at = tar.reserve(blob.digest, path, blob.size).content
            gathered = bytearray()
            async with reader.open() as stream:
                async for chunk in stream:
                    verifier.feed(chunk)
                    self._meter.bytes_written += len(chunk)
                    gathered += chunk
                    if len(gathered) >= BLOCK:
                        tar.write(gathered, at)
                        at += len(gathered)
                        gathered.clear()
            tar.write(gathered, at)
            verifier.finish()
            tar.fill(blob.digest)

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """Kept until `complete`. A sparse index is fine here; an image without a blob is not."""
        check_manifest(raw, manifest, f"manifest {manifest.digest}")
        parsed = parse_manifest(raw, manifest.media_type, digest=manifest.digest)
        await check_blobs(self, parsed)
        for tag in tags:
            if tag.startswith("@"):
                raise UsageError(f"{self.site}:{tag} numbers an image; give the one that is written a name")
            self._tags[tag] = parsed.descriptor
            self._named = None
        self._begin()
        self._hold(parsed)
        self._meter.bytes_written += len(raw)

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`; of what has come in."""
        return [Referrer(each, subject, "tag") for each in self._referrers.get(subject, {}).values()]

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See `Attaches.attach`, and `layout.referrers`. Kept until `complete`."""
        self._referrers.setdefault(subject, {}).update((each.digest, each) for each in referrers)

    def _hold(self, manifest: Manifest) -> None:
        digest = manifest.descriptor.digest
        if digest in self._manifests:
            return
        if self._aside is not None and self._held + len(manifest.raw) > HELD_BYTES:
            self._put_aside[digest] = self._aside.keep(manifest.raw)
            self._manifests[digest] = without_annotations(manifest)
        else:
            self._held += len(manifest.raw)
            self._manifests[digest] = manifest

    def _raw(self, digest: Digest) -> bytes:
        """A manifest's bytes. Raises StorageError, IntegrityError."""
        held = self._manifests[digest]
        if digest not in self._put_aside:
            return held.raw
        raw = self._put_aside[digest]()
        check_manifest(raw, held.descriptor, f"manifest {digest}, put aside for {self.site},")
        return raw

    def _begin(self) -> Parts:
        """The files, begun when the first thing comes."""
        if self._parts is None:
            folder = self._scratch if self._path is None or is_stream(self._path) else self._path.parent
            remove_stale_temporaries(folder)
            self._parts = Parts(self._stack, folder, str(self.site), self._limit)
            for blob in self._expected:
                self._parts.taking(blob.digest, path_of_blob(blob.digest), blob.size)
        return self._parts

    async def complete(self) -> None:
        """Make it the archive, durably, or write it to standard output. Raises StorageError.

        Of what came in only what a name reaches stays. Without any image there is no archive.
        """
        try:
            if self._parts is not None and self._tags:
                await in_thread(self._finish, self._parts)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave nothing of an archive that is not complete."""
        self._stack.close()
        self._parts = None

    def _finish(self, parts: Parts) -> None:
        kept = self._listed()
        parts.keep(blob.digest for manifest in kept for blob in manifest.blobs)
        for manifest in kept:
            digest = manifest.descriptor.digest
            parts.add(path_of_blob(digest), self._raw(digest))
        if self._limit is None and not self._elsewhere:
            name_of = full_name if self._dockers else tagged_name
            own = {tag: root for tag, root in self._tags.items() if not self._hangs(tag)}
            listed = listed_images(own, self._manifests, self._platform, name_of)
            parts.add(MANIFEST_JSON, write_manifest_json(listed))
            parts.add(REPOSITORIES, write_repositories(listed))
        parts.finish(self._index())
        if self._path is not None and not is_stream(self._path):
            self._files = parts.land(self._path)
        else:
            _pour(parts.fd, self._path)

    def _listed(self) -> list[Manifest]:
        """The manifests that the tags reach, after what refers to these has got its lists."""
        while True:
            kept = self._reached()
            here = [each.descriptor.digest for each in kept]
            fresh = [digest for digest in here if digest in self._referrers]
            if not fresh:
                return kept
            for subject in fresh:
                made = updated_referrers_index(subject, None, self._referrers.pop(subject).values())
                assert made is not None, "there was no list"
                self._hold(made)
                self._tags[fallback_tag(subject)] = made.descriptor

    def _hangs(self, tag: str) -> bool:
        """Whether what a tag names is there because of its subject, and would be strange to docker."""
        subject = subject_in_tag(tag)
        return bool(subject) and digest_in_tag(subject) in self._manifests

    def _reached(self) -> list[Manifest]:
        """The manifests that the tags reach, by digest."""
        found: dict[Digest, Manifest] = {}
        wanted = [root.digest for root in self._tags.values()]
        while wanted:
            digest = wanted.pop()
            if digest in self._manifests and digest not in found:
                found[digest] = self._manifests[digest]
                wanted += [child.digest for child in found[digest].manifests]
        return [found[digest] for digest in sorted(found)]

    def _index(self) -> bytes:
        manifests = {tag: self._manifests[root.digest] for tag, root in self._tags.items()}
        files = {tag for tag, manifest in manifests.items() if kind_of(manifest) == "files"}
        return write_index_json(self._tags, self._origins, files)


def _pour(fd: int, path: Path | None) -> None:
    """Write a whole file to what `is_stream`, or to standard output (None); in a thread. Raises
    StorageError."""
    at = 0
    with stream_at(path) as write:
        while block := os.pread(fd, BLOCK, at):
            at += len(block)
            write(block)
