"""Contradictory descriptors: several parents may name one digest with different sizes and media types.

The digest is the node of a graph, and is read once, for the first parent that names it. The size and media
type that the other parents give are checked here, so that an image with a wrong descriptor fails also when a
right one was read first, and the right one does not fail for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import cast

from blobflow.content import Site, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.errors import BlobflowError, IntegrityError, SizeMismatch, error_side
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, parse_manifest
from blobflow.oci.digest import algorithm_of

# A manifest at one source.
ManifestAt = tuple[Site, Digest]


class Origins(dict[Digest, Collection[Site]]):
    """The sites that have each content. Most content is at one site: that costs no object of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._alone: dict[Site, tuple[Site]] = {}

    def note(self, digest: Digest, site: Site) -> None:
        """Record that a site has this content."""
        sites = self.get(digest)
        if sites is None:
            self[digest] = self._alone.setdefault(site, (site,))
        elif isinstance(sites, set):
            sites.add(site)
        elif site not in sites:
            self[digest] = {*sites, site}

    def settled(self) -> dict[Digest, tuple[Site, ...]]:
        """The sites in order, for a graph. The same object, in order until more is noted."""
        for digest, sites in self.items():
            if isinstance(sites, set):
                self[digest] = tuple(sorted(sites))
        return cast(dict[Digest, tuple[Site, ...]], self)


def check_mention(
    mention: Descriptor, manifest: Descriptor, raw: Callable[[], bytes], where: str
) -> BlobflowError | None:
    """What is wrong with the descriptor of a manifest that was read already; None if nothing. `raw` has its
    bytes."""
    if mention.sized and mention.size != manifest.size:
        what = f"manifest {manifest.digest} in {where}"
        return SizeMismatch(what, expected=mention.size, actual=manifest.size, side="source")
    if mention.media_type != manifest.media_type:
        try:
            parse_manifest(raw(), mention.media_type, digest=manifest.digest)
        except BlobflowError as error:
            error.side = error.side or "source"
            return error
    return None


async def find_wrong_sizes(
    manifests: Mapping[Digest, Manifest],
    origins: Mapping[Digest, Collection[Site]],
    source_at: SourceAt,
    runner: BoundedRunner,
) -> dict[ManifestAt, BlobflowError]:
    """The manifests that give a wrong size for a blob, where others give another one.

    Costs nothing where all agree; else each site that has such a blob is asked for its first byte, once for
    each size that was given. A blob that can't be asked for counts as failed too.
    """
    said: dict[Digest, int] = {}
    doubtful: set[Digest] = set()
    for manifest in manifests.values():
        for blob in chain(filter(None, (manifest.config,)), manifest.layers):
            if said.setdefault(blob.digest, blob.size) != blob.size:
                doubtful.add(blob.digest)
    wrong: dict[ManifestAt, BlobflowError] = {}
    if not doubtful:
        return wrong
    naming: dict[tuple[Site, Digest, int], list[Digest]] = {}
    of: dict[tuple[Site, Digest, int], Descriptor] = {}
    for digest, manifest in manifests.items():
        for blob in manifest.blobs:
            for site in origins.get(digest, ()) if blob.digest in doubtful else ():
                naming.setdefault((site, blob.digest, blob.size), []).append(digest)
                of[site, blob.digest, blob.size] = blob

    async def ask(claim: tuple[Site, Digest, int]) -> None:
        site, blob = claim[0], of[claim]
        try:
            with error_side("source"):
                await _check_size(site, blob, source_at)
        except BlobflowError as error:
            wrong.update({(site, digest): error for digest in naming[claim]})

    await runner.for_each(ask, sorted(naming))
    return wrong


async def _check_size(site: Site, blob: Descriptor, source_at: SourceAt) -> None:
    what = f"blob {blob.digest} of {site}"
    if digest_of(b"", algorithm_of(blob.digest)) == blob.digest:
        if blob.size:
            raise SizeMismatch(what, expected=blob.size, actual=0)
    elif not blob.size:
        raise IntegrityError(f"{what} is said to have no bytes, and its digest is not that of none")
    else:
        async with source_at(site).open(blob, 0, 1):
            pass
