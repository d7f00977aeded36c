"""Registries in this process, for tests of whole runs: started on free ports, filled without HTTP, counted.

Nothing here knows of pytest.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from blobflow.oci import parse_digest, parse_manifest
from blobflow.oci.sample_images import SampleSet, Stored
from blobflow.transports.store import Store
from tools.registry.faulty import Fault, JournallingRegistry, journalling


@contextlib.asynccontextmanager
async def registries(
    root: Path, names: Sequence[str], faults: Sequence[Fault] = ()
) -> AsyncIterator[list[JournallingRegistry]]:
    """One journalling registry for each name, each over a store of its own under `root`.

    The faults are given to the last one: in tests that is the target.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                journalling(root / name, faults if place == len(names) - 1 else ())
            )
            for place, name in enumerate(names)
        ]


def fill(store: Store, images: SampleSet, prefix: str = "") -> None:
    """Put the whole set into the store as if it had been pushed, under `prefix` (as `mirror/`)."""
    for digest, content in images.blobs.items():
        store.blobs.write_small(content, parse_digest(digest))
    for digest, stored in images.manifests.items():
        store.blobs.write_small(stored.raw, parse_digest(digest))
    for name, index in images.images.items():
        repository, _, tag = name.rpartition(":")
        for stored in _tree(images, index):
            manifest = parse_manifest(stored.raw, stored.media_type)
            store.repositories.add(prefix + repository, manifest.descriptor.digest, stored.media_type)
            for blob in manifest.blobs:
                store.repositories.add(prefix + repository, blob.digest)
        store.repositories.set_tag(prefix + repository, tag, parse_digest(index.digest))


def blobs_of(images: SampleSet, name: str) -> set[str]:
    """The digests of all configs and layers that the image `repository:tag` needs."""
    return {
        blob.digest
        for stored in _tree(images, images.images[name])
        for blob in parse_manifest(stored.raw, stored.media_type).blobs
    }


def _tree(images: SampleSet, stored: Stored) -> Iterator[Stored]:
    """The manifest and all manifests below it."""
    yield stored
    for child in parse_manifest(stored.raw, stored.media_type).manifests:
        yield from _tree(images, images.manifests[child.digest])
