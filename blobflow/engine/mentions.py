"""Mentions against each other: several parents may name one digest, and say different things of it.

The digest is the node of a graph, and is read once, for the first parent that names it. What the other
parents say of its size and kind is checked here, so that an image whose manifest is wrong fails in company of
a right one too, and the right one does not fail for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from blobflow.content import Site, SourceAt
from blobflow.engine.bodies import blame
from blobflow.engine.lane import Lane
from blobflow.errors import BlobflowError, IntegrityError, SizeMismatch, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, media
from blobflow.oci.digest import algorithm_of

# A manifest at one source.
Place = tuple[Site, Digest]


def check_mention(mention: Descriptor, manifest: Descriptor, where: str) -> BlobflowError | None:
    """What is wrong with a mention of a manifest that was read; None if nothing is."""
    what = f"manifest {manifest.digest} in {where}"
    if mention.sized and mention.size != manifest.size:
        return SizeMismatch(what, expected=mention.size, actual=manifest.size, side="source")
    called = media.bare(mention.media_type)
    if not media.is_specific(called) or manifest.media_type in (called, media.OCI_FORMS.get(called)):
        return None
    return UnsupportedContent(
        f"{what} is {manifest.media_type!r}, but is listed as {called[:120]!r}", side="source"
    )


async def disputed(
    manifests: Mapping[Digest, Manifest],
    origins: Mapping[Digest, Collection[Site]],
    source_at: SourceAt,
    lane: Lane,
) -> dict[Place, BlobflowError]:
    """The manifests that say a size of a blob that it does not have, where others say another one.

    Costs nothing where all agree; else each site that has such a blob is asked for its first byte, once for
    each size that was said. What can't be asked counts as failed too.
    """
    said: dict[Digest, int] = {}
    doubtful: set[Digest] = set()
    for manifest in manifests.values():
        for blob in manifest.blobs:
            if said.setdefault(blob.digest, blob.size) != blob.size:
                doubtful.add(blob.digest)
    wrong: dict[Place, BlobflowError] = {}
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
            with blame("source"):
                await _check_size(site, blob, source_at)
        except BlobflowError as error:
            wrong.update({(site, digest): error for digest in naming[claim]})

    await lane.each(ask, sorted(naming))
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
