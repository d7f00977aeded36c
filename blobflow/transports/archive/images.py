"""The images of an opened archive, OCI's or docker's, behind one protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from blobflow.content import Referrer
from blobflow.errors import DigestMismatch, NotFound, StorageError, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, digest_of
from blobflow.oci.bundle import SOURCE
from blobflow.oci.referrers import digest_in_tag, subject_in_tag
from blobflow.transports.archive.contents import StoredFile, one_ahead
from blobflow.transports.archive.docker_manifest import diff_ids, make_manifest
from blobflow.transports.archive.importer import Importer, layer_type
from blobflow.transports.archive.manifest_json import (
    MANIFEST_JSON,
    DockerImage,
    missing_manifest_json,
    parse_manifest_json,
)
from blobflow.transports.archive.open_archive import OpenArchive
from blobflow.transports.compression.compressors import LAYER
from blobflow.transports.compression.detection import decompressor_for, in_blocks
from blobflow.transports.compression.formats import unsupported_compression_of
from blobflow.transports.files import in_thread
from blobflow.transports.layout.cosign_save import MAX_UNLISTED_BYTES
from blobflow.transports.layout.image_names import ImageNames, digest_or_none, unambiguous_names
from blobflow.transports.layout.index_json import (
    check_manifest,
    descriptor_of,
    digest_in_path,
    parse_index_json,
    path_of_blob,
    unambiguous_names_of,
)
from blobflow.transports.layout.referrers import IndexReferrers

_T = TypeVar("_T")
# Layers being compressed at the same time: one a core of the smallest machines that this is used on.
_AT_ONCE = 2


class Images(Protocol):
    """What an archive's images are, and what they are made of."""

    def blob(self, digest: Digest) -> StoredFile | None:
        """Where content is, manifests too; None if it is not here, or of an image that was not resolved.

        Raises UnsupportedContent where links lead on and on.
        """
        ...

    def held(self) -> frozenset[Digest]:
        """All digests that `blob` knows, and that are told by the names of files."""
        ...

    def tags(self) -> list[str]:
        """One name for each image that has any, in the order of the archive."""
        ...

    def names(self) -> dict[int, tuple[str, ...]]:
        """All names of each image, by the n of its `@n`, in the order of the archive."""
        ...

    def origins(self) -> dict[int, str]:
        """Where images were, as far as a bundle says it, by the n of their `@n`."""
        ...

    async def resolve(self, name: str) -> Descriptor:
        """The manifest that a name, `@n`, a digest or "" (the only image) means."""
        ...

    def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        ...

    def has_referrers(self) -> bool:
        """See `RefersAtHand.has_referrers`."""
        ...


def read_manifest(opened: OpenArchive, images: Images, manifest: Descriptor) -> bytes:
    """A manifest's bytes, verified. Raises NotFound, IntegrityError, UnsupportedContent."""
    what = f"manifest {manifest.digest} in {opened.name}"
    raw = opened.small(images.blob(manifest.digest), what)
    check_manifest(raw, manifest, what)
    return raw


class OciImages:
    """index.json and blobs: all there is, from the start. Any of them may be a link inside of the archive."""

    def __init__(self, opened: OpenArchive, place: str) -> None:
        self._opened = opened
        self._place = place
        index = opened.contents.find("index.json", opened.name)
        if index is None:
            files = set(opened.contents.files)
            if MANIFEST_JSON in files:
                raise UnsupportedContent(f"{opened.name} is docker's; write docker-archive:{opened.name}")
            raise missing_manifest_json(files, opened.name)
        what = f"index.json of {opened.name}"
        self._images = parse_index_json(opened.small(index, what), what)
        self._attached = IndexReferrers(self._images, self._read, self._small_blobs)
        self._others: Sequence[OciImages] = ()

    def is_part(self) -> bool:
        """Whether the index names what is not here, or what belongs to that by its tag."""
        held = self.held()
        tagged = (tag for names, _ in self._images for name in names if (tag := subject_in_tag(name)))
        wanted = {entry.digest for _, entry in self._images} | {digest_in_tag(tag) for tag in tagged}
        return not wanted <= held

    def look_in(self, others: Sequence[OciImages]) -> None:
        """Read in these, too, what the index names: other parts of a bundle."""
        self._others = others

    def _small_blobs(self) -> Iterator[Digest]:
        """See `layout.referrers`."""
        for digest in sorted(self.held()):
            stored = self.blob(digest)
            if stored is not None and stored.size <= MAX_UNLISTED_BYTES:
                yield digest

    def blob(self, digest: Digest) -> StoredFile | None:
        return self._opened.contents.find(path_of_blob(digest), self._opened.name)

    def held(self) -> frozenset[Digest]:
        contents = self._opened.contents
        return frozenset(
            digest for path in (*contents.files, *contents.links) if (digest := digest_in_path(path))
        )

    def tags(self) -> list[str]:
        return unambiguous_names_of(self._attached.images())

    def names(self) -> dict[int, tuple[str, ...]]:
        return {number: self._images[number][0] for number in self._attached.numbers()}

    def origins(self) -> dict[int, str]:
        entries = ((number, self._images[number][1]) for number in self._attached.numbers())
        found = ((number, (entry.annotations or {}).get(SOURCE, "")) for number, entry in entries)
        return {number: origin for number, origin in found if origin}

    def referrers(self, subject: Digest) -> list[Referrer]:
        return self._attached.of(subject)

    def has_referrers(self) -> bool:
        return self._attached.any()

    def root(self, number: int) -> Descriptor:
        """The manifest that `@n` means. Raises NotFound, UnsupportedContent."""
        return self._attached.find(f"@{number}", self._place)

    async def resolve(self, name: str) -> Descriptor:
        if digest := digest_or_none(name):
            return descriptor_of(self._read(Descriptor("", digest, UNKNOWN_SIZE)), digest)
        return self._attached.find(name, self._place)

    def _read(self, manifest: Descriptor) -> bytes:
        for images in (self, *self._others):
            if images.blob(manifest.digest) is not None:
                return read_manifest(images._opened, images, manifest)
        return read_manifest(self._opened, self, manifest)


class DockerImages:
    """manifest.json: an image's manifest is made, and its layers compressed, when it is asked for."""

    def __init__(self, opened: OpenArchive, place: str, importer: Importer) -> None:
        self._opened = opened
        self._place = place
        self._importer = importer
        self._blobs: dict[Digest, StoredFile] = {}
        stored = opened.contents.find(MANIFEST_JSON, opened.name)
        if stored is None:
            raise missing_manifest_json(set(opened.contents.files), opened.name)
        raw = opened.small(stored, f"{MANIFEST_JSON} of {opened.name}")
        self._images = parse_manifest_json(raw, opened.name)
        numbered = [(image.names, number) for number, image in enumerate(self._images)]
        self._named = ImageNames(numbered, lambda number: self._images[number].content)
        self._made: dict[int, Manifest] = {}
        self._layers: dict[tuple[StoredFile, Digest], Descriptor] = {}
        self._locks: dict[int | Digest, asyncio.Lock] = {}
        self._cores = asyncio.Semaphore(_AT_ONCE)

    def blob(self, digest: Digest) -> StoredFile | None:
        return self._blobs.get(digest)

    def held(self) -> frozenset[Digest]:
        return frozenset(self._blobs)

    def tags(self) -> list[str]:
        return unambiguous_names(
            [(image.names, image.content) for image in self._images], lambda content: content
        )

    def names(self) -> dict[int, tuple[str, ...]]:
        return {number: image.names for number, image in enumerate(self._images)}

    def origins(self) -> dict[int, str]:
        return {}

    def referrers(self, subject: Digest) -> list[Referrer]:
        return []  # docker's own form of an archive has no place for them

    def has_referrers(self) -> bool:
        return False

    async def resolve(self, name: str) -> Descriptor:
        digest = digest_or_none(name)
        if digest is None:
            number = self._named.choose(name, self._place)
            return (await self._manifest(number)).descriptor
        for number in range(len(self._images)):
            made = await self._manifest(number)
            if made.descriptor.digest == digest:
                return made.descriptor
        raise NotFound(f"{self._place} has no image whose manifest becomes {digest}")

    async def _manifest(self, number: int) -> Manifest:
        async with self._locks.setdefault(number, asyncio.Lock()):
            if number not in self._made:
                self._made[number] = await self._make(self._images[number])
            return self._made[number]

    async def _make(self, image: DockerImage) -> Manifest:
        what = f"{image.config} of {self._opened.name}"
        config = self._opened.small(self._needed(image.config), what)
        expected = diff_ids(config, len(image.layers), what)
        pairs = list(zip(image.layers, expected, strict=True))
        each = list(dict.fromkeys(pairs))
        found = dict(zip(each, await _all(self._layer(*pair) for pair in each), strict=True))
        made = make_manifest(config, [found[pair] for pair in pairs])
        self._blobs[digest_of(config)] = StoredFile(len(config), raw=config)
        self._blobs[made.descriptor.digest] = StoredFile(len(made.raw), raw=made.raw)
        return made

    def _needed(self, path: str) -> StoredFile:
        stored = self._opened.contents.find(path, self._opened.name)
        if stored is None:
            raise StorageError(
                f"{self._opened.name} has no {path}, which its {MANIFEST_JSON} lists; it is not complete"
            )
        return stored

    async def _layer(self, path: str, diff_id: Digest) -> Descriptor:
        """The layer as it goes to a registry. Raises DigestMismatch if it is not what the config says."""
        stored, what = self._needed(path), f"layer {path} of {self._opened.name}"
        async with self._locks.setdefault(diff_id, asyncio.Lock()):
            if (stored, diff_id) not in self._layers:
                if stored.offset is not None:
                    ready, digest = await self._layer_in_place(stored, diff_id, what)
                elif stored.digest is None or stored.diff_id is None:
                    raise UnsupportedContent(f"{what} is neither a tar nor compressed in a way that is read")
                else:
                    ready, digest = stored, stored.digest
                    _check(what, expected=diff_id, actual=stored.diff_id)
                self._blobs[digest] = ready
                described = Descriptor(ready.media_type or LAYER, digest, ready.size)
                self._layers[stored, diff_id] = described
            return self._layers[stored, diff_id]

    async def _layer_in_place(
        self, stored: StoredFile, diff_id: Digest, what: str
    ) -> tuple[StoredFile, Digest]:
        """A layer of an archive that can be read anywhere: as it is where that will do, else compressed."""
        head = self._opened.head(stored)
        if unread := unsupported_compression_of(head):
            raise UnsupportedContent(f"{what} is compressed by {unread.name}, which is not read")
        if kind := layer_type(head):
            async with self._cores:
                digest, actual = await in_thread(self._opened.digests, stored, what)
            _check(what, expected=diff_id, actual=actual)
            return StoredFile(stored.size, stored.offset, media_type=kind, diff_id=diff_id), digest
        inflater = decompressor_for(head, what)
        if self._importer.codec.mode == "none" and inflater is None:
            return stored, diff_id  # which is verified as every blob is, when it is moved
        bare = self._opened.blocks(stored)
        if inflater is not None:
            bare = in_blocks(inflater.whole(bare))
        async with self._cores, aclosing(one_ahead(bare)) as blocks:
            made = await self._importer.compress(blocks, diff_id, what)
        assert made.digest is not None, "what was compressed is in the store"
        return made, made.digest


def _check(what: str, *, expected: Digest, actual: Digest) -> None:
    if actual != expected:
        raise DigestMismatch(f"{what}, uncompressed,", expected=expected, actual=actual)


async def _all(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results in order. If one fails, or we are cancelled, the others are, and are waited for."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
