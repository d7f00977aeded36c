"""Registries in a thread of this process, and images signed with keys as cosign signs them."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blobflow.oci import Digest, Manifest, media
from blobflow.transports.store import Store
from tests.deadlines import HANGS_AFTER
from tests.scenarios.registries import registries
from tests.scenarios.signed_images import SIMPLE_SIGNING, Content
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


class Signer:
    """A key, and what is signed with it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> bytes:
        """The public key in PEM form."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, content: Content, subject: Manifest, payload: bytes, *, over: bytes | None = None) -> None:
        """Put a signature of `payload` under cosign's tag for `subject`; `over`: what is signed instead."""
        signature = self._key.sign(payload if over is None else over, ec.ECDSA(hashes.SHA256()))
        layer = content.blob(payload, SIMPLE_SIGNING)
        layer["annotations"] = {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}
        config = content.blob(b'{"architecture":"","os":"","rootfs":{"type":"layers"}}', media.OCI_CONFIG)
        tag = subject.descriptor.digest.replace(":", "-") + ".sig"
        content.manifest({"config": config, "layers": [layer]}, media.OCI_MANIFEST, tag)


def payload_for(repository: str, digest: str) -> bytes:
    """What cosign signs (simple signing)."""
    critical = {
        "identity": {"docker-reference": repository},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def key_policy(key: Path, *scopes: str) -> dict[str, object]:
    """A policy that rejects all but what is signed with a key, for its repository."""
    signed = {"type": "sigstoreSigned", "keyPath": str(key), "signedIdentity": {"type": "matchRepository"}}
    docker = {scope: [signed] for scope in scopes}
    return {"default": [{"type": "reject"}], "transports": {"docker": docker}}
