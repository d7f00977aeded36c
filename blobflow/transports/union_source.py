"""A union of several sources, with manifests of our own over their content.

What is read is looked for in one source after the other. The manifests that were made here, and what their
names are, are held in memory; everything below them is where it was.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from blobflow.content import BlobStream, Referrer, Refers, RefersAtHand, Source
from blobflow.errors import NoSuchFile, NotFound
from blobflow.oci import Descriptor, Digest, Manifest
from blobflow.transports.layout.image_names import digest_or_none


class UnionSource:
    """Implements Source, RefersAtHand and Rebuilds. `roots`: what the names at `path` mean; `rebuilt`: what
    the manifests that were made here stand for; `absent`: what is said of content that is nowhere, which is
    NoSuchFile: some file is lacking."""

    def __init__(
        self,
        sources: Sequence[Source],
        roots: Mapping[str, Descriptor],
        made: Iterable[Manifest] = (),
        *,
        rebuilt: Mapping[Digest, Sequence[Digest]] | None = None,
        path: str = "",
        absent: str = "",
    ) -> None:
        self._sources = tuple(sources)
        self._roots = roots
        self._path = path
        self._made = {manifest.descriptor.digest: manifest for manifest in made}
        self._rebuilt = rebuilt or {}
        self._absent = f"; {absent}" if absent else ""
        self._found: dict[Digest, Source] = {}

    async def resolve(self, name: str) -> Descriptor:
        if name in self._roots:
            return self._roots[name]
        raise NotFound(f"none of the archives has {self._path}{'@' if digest_or_none(name) else ':'}{name}")

    async def read(self, manifest: Descriptor) -> bytes:
        if manifest.digest in self._made:
            return self._made[manifest.digest].raw
        for source in self._order(manifest.digest):
            try:
                raw = await source.read(manifest)
            except NotFound:
                continue
            self._found[manifest.digest] = source
            return raw
        raise NoSuchFile(f"none of the archives has the manifest {manifest.digest}{self._absent}")

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:
            for source in self._order(blob.digest):
                try:
                    stream = await stack.enter_async_context(source.open(blob, offset, end))
                except NotFound:
                    continue
                self._found[blob.digest] = source
                yield stream
                return
        raise NoSuchFile(f"none of the archives has the blob {blob.digest}{self._absent}")

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`: what any of the sources knows, each once."""
        found: dict[tuple[Digest, str], Referrer] = {}
        for source in self._sources:
            if isinstance(source, Refers):
                for each in await source.referrers(subject):
                    found.setdefault((each.manifest.digest, each.tag), each)
        return [*found.values()]

    async def has_referrers(self) -> bool:
        """See `RefersAtHand.has_referrers`."""
        for source in self._sources:
            if isinstance(source, RefersAtHand) and await source.has_referrers():
                return True
        return False

    def rebuilt(self, manifest: Digest) -> Sequence[Digest]:
        """See `Rebuilds.rebuilt`."""
        return self._rebuilt.get(manifest, ())

    def _order(self, digest: Digest) -> Iterable[Source]:
        """Where it was found before, if it was; else everywhere."""
        return (self._found[digest],) if digest in self._found else self._sources
