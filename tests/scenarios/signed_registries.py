"""Registries in a thread of this process, and signatures beside the images that they sign."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from blobflow.oci import Digest, Manifest, media
from blobflow.signatures.contract import FoundSignature
from blobflow.transports.store import Store
from tests.deadlines import HANGS_AFTER
from tests.scenarios.registries import registries
from tests.scenarios.signed_images import SIGNATURE, SIMPLE_SIGNING, Content
from tests.unit.signatures.signing import BUNDLE
from tools.registry.faulty import JournallingRegistry

_T = TypeVar("_T")


class ServedRegistries:
    """A source and a target, served by an event loop in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.source: JournallingRegistry
        self.target: JournallingRegistry

    def call(self, act: Callable[[], _T]) -> _T:
        """What `act` returns, run where the registries are: a store belongs to one thread."""

        async def there() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(HANGS_AFTER)

    def load(self, repository: str, content: Content) -> None:
        """Have the source hold this, as if it had been pushed."""
        self.call(lambda: load(self.source.store, repository, content))

    def forget(self) -> None:
        """Begin to count requests anew."""
        self.call(self.source.journal.clear)
        self.call(self.target.journal.clear)

    @property
    def writes(self) -> int:
        """Requests at the target that would change something."""
        return sum(self.target.journal.count(method) for method in ("PUT", "POST", "PATCH", "DELETE"))

    @property
    def requests(self) -> int:
        """Requests at both."""
        return len(self.source.journal) + len(self.target.journal)

    def named(self, repository: str, tag: str) -> Digest | None:
        """What a tag names at the target."""
        return self.call(lambda: self.target.store.repositories.resolve(repository, tag))

    def holds(self, repository: str, manifest: Digest) -> bool:
        """Whether the target has a manifest."""
        return self.call(
            lambda: self.target.store.repositories.media_type_of(repository, manifest) is not None
        )


def load(store: Store, repository: str, content: Content) -> None:
    for digest, blob in content.blobs.items():
        store.blobs.write_small(blob, digest)
        store.repositories.add(repository, digest)
    for digest, manifest in content.manifests.items():
        store.blobs.write_small(manifest.raw, digest)
        store.repositories.add(repository, digest, manifest.descriptor.media_type)
    for tag, digest in content.tags.items():
        store.repositories.set_tag(repository, tag, digest)


@contextmanager
def served_registries(root: Path) -> Iterator[ServedRegistries]:
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    served = ServedRegistries(loop)

    async def serve() -> None:
        async with registries(root, ["source", "target"]) as (source, target):
            served.source, served.target = source, target
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        assert ready.wait(HANGS_AFTER), "the registries did not come up"
        yield served
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def hang(content: Content, subject: Manifest, *found: FoundSignature, by_subject: bool = False) -> None:
    """Put signatures beside what they sign: payloads under cosign's tag, or with a subject; each bundle in a
    manifest of its own."""
    payloads = [each for each in found if each.form == "simple"]
    layers = [_layer(content, each, SIMPLE_SIGNING) for each in payloads]
    if by_subject:
        content.referrer(subject, SIGNATURE, *layers)
    elif layers:
        config = content.blob(b'{"architecture":"","os":"","rootfs":{"type":"layers"}}', media.OCI_CONFIG)
        tag = subject.descriptor.digest.replace(":", "-") + ".sig"
        content.manifest({"config": config, "layers": layers}, media.OCI_MANIFEST, tag)
    for each in found:
        if each.form == "bundle":
            content.referrer(subject, BUNDLE, _layer(content, each, BUNDLE))


def _layer(content: Content, found: FoundSignature, kind: str) -> dict[str, object]:
    layer = content.blob(found.content, kind)
    return layer | {"annotations": dict(found.annotations)} if found.annotations else layer
