"""The manifests that a run holds in memory: bounded, whatever the sources send.

A manifest may have 4 MiB, an index may name thousands of them, and decoded a document takes several times its
bytes. Planning needs little of that: what each manifest names, under which media type, digest and size. So
the graph holds manifests whole only within a budget; beyond it they are lean, and their bytes are spilled
until they are put at a target. Manifests in transit are bounded too, and so is how many descriptors one
source may name, since each is planned for.

All graphs of a run share one `ManifestBudget`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from itertools import chain

import msgspec

from blobflow.content import Aside, Site, Source
from blobflow.errors import BlobflowError, DigestMismatch, SizeMismatch, UnsupportedContent
from blobflow.oci import (
    MAX_MANIFEST_BYTES,
    UNKNOWN_SIZE,
    Descriptor,
    Digest,
    Manifest,
    digest_of,
    parse_manifest,
)
from blobflow.oci.digest import algorithm_of
from blobflow.oci.platform_choice import without_annotations

# Bytes of manifests that a run holds whole. Those of two thousand ordinary images; beyond that each costs a
# write and a read of some kilobytes.
HELD_BYTES = 8 * 1024 * 1024
# Bytes of manifests in transit from or to one host at once. Ordinary ones (some kilobytes) never wait for it;
# of the largest ones there is one at a time, which takes up to five times its bytes while it is read.
MOVING_BYTES = 6 * 1024 * 1024
# The overhead charged for a string or a small object besides its bytes, about what it takes in memory.
_OBJECT = 100
# How many descriptors the manifests of one source repository may have, for one root and for each further one.
# It takes about 1 kB of memory to plan and move a blob, so one image can make a run hold some 50 MB. Models
# of thousands of files, the largest artifacts known, are far below it, and so are the largest indexes.
NAMED = 50_000
NAMED_MORE = 500


class ManifestBudget:
    """The memory budget for the manifests of one run: those that its graphs hold, and those in transit.

    `aside` spills the bytes of those that exceed it; None: all are held. `held`: what is held now, in bytes.
    """

    def __init__(
        self, aside: Aside | None = None, *, room: int = HELD_BYTES, moving: int = MOVING_BYTES
    ) -> None:
        self.aside = aside
        self._room = room
        self._moving = moving
        self._hosts: dict[str, _Bytes] = {}
        self.held = 0

    @asynccontextmanager
    async def moving(
        self, host: str, manifest: Descriptor, *, before_waiting: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Wait until one more manifest may be read from, or put at, a host. `before_waiting` is called before
        a wait, to release whatever others need to finish theirs."""
        way, size = self.way(host), _size(manifest)
        if before_waiting is not None and not way.has(size):
            before_waiting()
        await way.take(size)
        try:
            yield
        finally:
            way.give_back(size)

    def way(self, host: str) -> _Bytes:
        """The bytes in transit from or to a host."""
        if host not in self._hosts:
            self._hosts[host] = _Bytes(self._moving)
        return self._hosts[host]

    def mapping(self) -> Manifests:
        """A new collection of manifests."""
        return Manifests(self)

    def put_aside(self, manifest: Manifest, weight: int) -> Callable[[], bytes] | None:
        """Spill the manifest's bytes if they exceed the budget; None if they can stay in memory."""
        if self.aside is None or self.held + weight <= self._room:
            return None
        return self.aside.keep(manifest.raw)


class Manifests(MutableMapping[Digest, Manifest]):
    """Manifests by digest. Some are held without bytes and annotations: `raw` and `whole` have the rest."""

    def __init__(self, manifest_budget: ManifestBudget) -> None:
        self.manifest_budget = manifest_budget
        self._roots: defaultdict[Site, set[Digest]] = defaultdict(set)
        self._here: dict[Digest, Manifest] = {}
        self._aside: dict[Digest, Callable[[], bytes]] = {}
        self._named: Counter[Site] = Counter()
        self._refused: dict[Site, str] = {}
        self._load = _Load(manifest_budget)

    def expect(self, site: Site, root: Digest) -> None:
        """Expect another image of this repository, which increases the bound on what may be read there."""
        self._roots[site].add(root)

    async def read(self, site: Site, source: Source, manifest: Descriptor) -> None:
        """Read a manifest as soon as the budget allows, and hold it as what it is: who mentions it with
        another size or media type is told so by `mentions.check_mention`, and whoever mentions it rightly has
        it. A wrong size costs a second request.

        Raises what the source does, StorageError, and UnsupportedContent, also once the site has named too
        much: then nothing more is read there."""
        try:
            await self._read(site, source, manifest)
        except SizeMismatch as error:
            if not manifest.sized:
                raise
            try:
                await self._read(site, source, msgspec.structs.replace(manifest, size=UNKNOWN_SIZE))
            except BlobflowError:
                raise error from None

    async def _read(self, site: Site, source: Source, manifest: Descriptor) -> None:
        way, size = self.manifest_budget.way(site.registry), _size(manifest)
        await way.take(size)
        try:
            if site in self._refused:
                raise UnsupportedContent(self._refused[site])
            raw = await source.read(manifest)
            self.take(_parsed(raw, manifest), site)
        finally:
            way.give_back(size)

    def take(self, manifest: Manifest, site: Site) -> None:
        """Hold a manifest that was read at `site`. Raises UnsupportedContent where that names too much, and
        StorageError."""
        count = 1 + len(manifest.layers) + len(manifest.manifests)
        most = NAMED + NAMED_MORE * max(0, len(self._roots[site]) - 1)
        if self._named[site] + count > most:
            self._refused[site] = (
                f"manifest {manifest.descriptor.digest} names {count} contents, and with what others of"
                f" {site} name that is more than the {most} that a run takes from there"
            )
            raise UnsupportedContent(self._refused[site])
        self._named[site] += count
        self[manifest.descriptor.digest] = manifest

    def raw(self, digest: Digest) -> bytes:
        """The manifest's bytes. Raises StorageError, and DigestMismatch if they came back changed."""
        if digest not in self._aside:
            return self._here[digest].raw
        raw = self._aside[digest]()
        if (actual := digest_of(raw, algorithm_of(digest))) != digest:
            raise DigestMismatch(f"manifest {digest}, put aside,", expected=digest, actual=actual)
        return raw

    def whole(self, digest: Digest) -> Manifest:
        """The manifest with its bytes and all that it says. Raises as `raw`."""
        manifest = self._here[digest]
        if digest not in self._aside:
            return manifest
        read = parse_manifest(self.raw(digest), manifest.descriptor.media_type, digest=digest)
        return read.carrying(manifest.carried)

    def __reduce__(self) -> tuple[type, tuple[dict[Digest, Manifest]]]:
        """Pickled manifests are all whole, and unbounded."""
        return dict, ({digest: self.whole(digest) for digest in self._here},)

    def __setitem__(self, digest: Digest, manifest: Manifest) -> None:
        if digest not in self._here:
            weight = _weight(manifest)
            aside = self.manifest_budget.put_aside(manifest, weight)
            if aside is None:
                self._load.add(weight)
            else:
                self._aside[digest] = aside
        self._here[digest] = without_annotations(manifest) if digest in self._aside else manifest

    def __getitem__(self, digest: Digest) -> Manifest:
        return self._here[digest]

    def __delitem__(self, digest: Digest) -> None:
        del self._here[digest]
        self._aside.pop(digest, None)

    def __contains__(self, digest: object) -> bool:
        return digest in self._here

    def __iter__(self) -> Iterator[Digest]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)


class _Load:
    """The bytes that one collection holds, for as long as it lives."""

    __slots__ = ("__weakref__", "_manifest_budget", "_weight")

    def __init__(self, manifest_budget: ManifestBudget) -> None:
        self._manifest_budget = manifest_budget
        self._weight = 0

    def add(self, weight: int) -> None:
        self._weight += weight
        self._manifest_budget.held += weight

    def __del__(self) -> None:
        self._manifest_budget.held -= self._weight


def _weight(manifest: Manifest) -> int:
    """About what a manifest takes in memory besides the names of its children, in bytes."""
    objects = 2 * len(manifest.annotations)
    for child in chain(manifest.layers, manifest.manifests):
        if child.annotations is not None:
            objects += 2 * len(child.annotations)
        if child.urls is not None:
            objects += len(child.urls)
    return 2 * len(manifest.raw) + _OBJECT * objects


def _parsed(raw: bytes, mention: Descriptor) -> Manifest:
    """The manifest, as what it calls itself where the mention calls it something else."""
    try:
        return parse_manifest(raw, mention.media_type, digest=mention.digest)
    except UnsupportedContent as error:
        try:
            return parse_manifest(raw, digest=mention.digest)
        except UnsupportedContent:
            raise error from None


def _size(manifest: Descriptor) -> int:
    return manifest.size if manifest.sized else MAX_MANIFEST_BYTES


class _Bytes:
    """A fair semaphore over bytes. A request for more than the whole capacity gets the whole capacity."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def has(self, wanted: int) -> bool:
        """Whether `wanted` bytes are free now."""
        return not self._waiting and min(wanted, self._size) <= self._free

    async def take(self, wanted: int) -> None:
        """Wait for `wanted` bytes; give the same number back afterwards."""
        wanted = min(wanted, self._size)
        if self.has(wanted):
            self._free -= wanted
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the bytes were granted already
                self.give_back(wanted)
            self._next()
            raise

    def give_back(self, taken: int) -> None:
        self._free += min(taken, self._size)
        self._next()

    def _next(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._free):
            wanted, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free -= wanted
                turn.set_result(None)
