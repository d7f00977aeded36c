"""Statistics on the content that a run's images share. Pure: a plan → numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from blobflow.engine.plan.planned import Planned
    from blobflow.oci import Descriptor


class ImageDedup(msgspec.Struct, frozen=True):
    """An image's blobs, in bytes: `size` of all, `shared` of those that other images have too.

    `most_with`: the image that it shares most with, and `most` bytes of that; "" if it shares nothing.
    """

    image: str
    blobs: int
    size: int
    shared: int
    most_with: str = ""
    most: int = 0


class SharedBlob(msgspec.Struct, frozen=True):
    """A blob that several images have. `spared`: bytes that are not moved again for the others."""

    digest: str
    size: int
    images: int

    @property
    def spared(self) -> int:
        return self.size * (self.images - 1)


class DedupStats(msgspec.Struct, frozen=True):
    """`named`: bytes of all images, each with all that it has; `unique`: bytes of their blobs, each once.

    Of the images whose manifests were read. `unread`: how many were known to be whole, and were not.
    """

    named: int
    unique: int
    images: tuple[ImageDedup, ...]
    blobs: tuple[SharedBlob, ...]
    unread: int


def collect_dedup_stats(planned: Planned) -> DedupStats:
    """Fold the images of a plan; images and blobs come with the largest first."""
    images: dict[str, dict[str, Descriptor]] = {}
    unread: set[str] = set()
    for pair, desired in planned.desired_images.items():
        blobs: dict[str, Descriptor] = {
            blob.digest: blob for manifest in desired.manifests for blob in manifest.blobs
        }
        if desired.manifests:
            images.setdefault(str(pair.source), {}).update(blobs)
        else:
            unread.add(str(pair.source))
    sizes = {digest: blob.size for blobs in images.values() for digest, blob in blobs.items()}
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for image, named in images.items():
        for digest in named:
            holders[digest].append(image)
    common = _in_common(holders, sizes)
    shares = [
        _image_dedup(image, list(named), holders, sizes, common[image]) for image, named in images.items()
    ]
    shared = [SharedBlob(d, sizes[d], len(found)) for d, found in holders.items() if len(found) > 1]
    return DedupStats(
        named=sum(share.size for share in shares),
        unique=sum(sizes.values()),
        images=tuple(sorted(shares, key=lambda share: (-share.size, share.image))),
        blobs=tuple(sorted(shared, key=lambda blob: (-blob.spared, blob.digest))),
        unread=len(unread - images.keys()),
    )


# With more images than this in one blob, who shares it with whom says nothing, and counting it takes long.
_MAX_HOLDERS = 200


def _in_common(
    holders: dict[str, list[str]], sizes: dict[str, int]
) -> defaultdict[str, defaultdict[str, int]]:
    """Bytes that images have in common, by image and other image."""
    common: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for digest, found in holders.items():
        for image in found if len(found) <= _MAX_HOLDERS else ():
            for other in found:
                if other != image:
                    common[image][other] += sizes[digest]
    return common


def _image_dedup(
    image: str,
    named: list[str],
    holders: dict[str, list[str]],
    sizes: dict[str, int],
    common: dict[str, int],
) -> ImageDedup:
    most_with = min(common, key=lambda other: (-common[other], other), default="")
    return ImageDedup(
        image,
        len(named),
        sum(sizes[digest] for digest in named),
        sum(sizes[digest] for digest in named if len(holders[digest]) > 1),
        most_with,
        common[most_with] if most_with else 0,
    )
