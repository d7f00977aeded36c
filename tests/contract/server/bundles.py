"""Bundles made by hand, served, and the contract's client over what was pushed and then put into one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import ClientSession

from blobflow.events import Event, Observer, Warned, ignore
from blobflow.oci import Digest, digest_of, media
from blobflow.server import Server, make_app
from blobflow.transports.archive.served.content import open_bundles
from blobflow.transports.layout.index_json import OCI_LAYOUT_FILE, path_of_blob
from blobflow.transports.store import Store
from tests.contract.server.client import image
from tests.fakes.archives import write

# Where what is pushed by the contract's tests is said to come from.
HOST = "registry.example.com"


def bundle(
    path: Path, names: Mapping[str, bytes], *contents: bytes, kinds: Mapping[bytes, str] | None = None
) -> Path:
    """An OCI archive in which `names` name manifests; `contents` is what else is in it. `kinds`: the media
    types of manifests that are no images."""
    blobs = {digest_of(each): each for each in (*names.values(), *contents)}
    return write_bundle(path, [(name, raw, (kinds or {}).get(raw, "")) for name, raw in names.items()], blobs)


def write_bundle(path: Path, named: Sequence[tuple[str, bytes, str]], blobs: Mapping[Digest, bytes]) -> Path:
    listed = [
        {
            "mediaType": kind or media.OCI_MANIFEST,
            "digest": digest_of(raw) if "@sha512" not in name else name.partition("@")[2],
            "size": len(raw),
            **({"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}),
        }
        for name, raw, kind in named
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}).encode()
    entries = [("oci-layout", OCI_LAYOUT_FILE)]
    entries += [(path_of_blob(digest), content) for digest, content in blobs.items()]
    return write(path, [*entries, ("index.json", index)])


def told(into: list[str]) -> Observer:
    """An observer that keeps the sentences of warnings."""

    def observe(event: Event) -> None:
        if isinstance(event, Warned):
            into.append(event.message)

    return observe


@asynccontextmanager
async def serving(*paths: Path, observer: Observer = ignore, **options: Any) -> AsyncIterator[ClientSession]:
    """A raw client of a registry that answers from these bundles."""
    with closing(open_bundles(paths, observer)) as content:
        app = make_app(content, aliases=content.names, **options)
        async with Server(app) as server, ClientSession(server.url) as client:
            yield client


class Frozen:
    """As a raw client: what it changes goes to a registry over `store`, and what it reads is answered from a
    bundle that has all that is in that store by then."""

    def __init__(self, store: Store, client: ClientSession, folder: Path, stack: AsyncExitStack) -> None:
        self._store = store
        self._writing = client
        self._folder = folder
        self._stack = stack
        self._made = 0
        self._reading: ClientSession | None = None

    @asynccontextmanager
    async def request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        reads = method in ("GET", "HEAD")
        client = await self._frozen() if reads else self._thawed()
        async with client.request(method, path, **options) as answer:
            yield answer

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> Any:
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Any) -> Any:
        return self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> aiohttp.ClientResponse:
        return await self._thawed().put(path, **options)

    def _thawed(self) -> ClientSession:
        self._reading = None
        return self._writing

    async def _frozen(self) -> ClientSession:
        if self._reading is None:
            self._made += 1
            path = self._folder / f"{self._made}.tar"
            freeze(self._store, path)
            self._reading = await self._stack.enter_async_context(serving(path))
        return self._reading


def freeze(store: Store, path: Path) -> None:
    """Write a bundle that has what the repositories of a store have: by their tags, or else by digest. Blobs
    that no manifest names are those of one more."""
    blobs: dict[Digest, bytes] = {}
    named: list[tuple[str, bytes, str]] = [(f"{HOST}/some/image:1", image(config=b"{}"), "")]
    for repository in store.repositories.names():
        kinds = dict(store.repositories.contents(repository))
        blobs |= {digest: store.blobs.read_small(digest) for digest in kinds}
        for digest, kind in kinds.items():
            if kind:
                named.append((f"{HOST}/{repository}@{digest}", blobs[digest], kind))
        for tag in store.repositories.tags(repository):
            tagged = store.repositories.resolve_manifest(repository, tag)
            assert tagged is not None
            named.append((f"{HOST}/{repository}:{tag}", blobs[tagged[0]], tagged[1]))
        layers = [
            {"mediaType": "application/octet-stream", "digest": digest, "size": len(blobs[digest])}
            for digest, kind in kinds.items()
            if not kind
        ]
        more = image(*layers, config=b"{}")
        named.append((f"{HOST}/{repository}@{digest_of(more)}", more, ""))
    blobs |= {digest_of(raw): raw for _, raw, _ in named}
    write_bundle(path, named, blobs)
