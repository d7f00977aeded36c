"""The tree of what hangs on an image, for programs: as `referrers --json` prints it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from blobflow.operations.artifacts.tree import ReferrerTree, TreeNode


class ReferrerEntry(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A manifest that refers to another. `size` in bytes: of the manifest; `totalSize`: with its blobs.

    `found`: in the registry's own list (api), in the list that clients keep under the fallback tag (tag), by
    its entry in a layout's index.json (index), or under cosign's `tag` for its subject (cosign). `created`
    and `annotations`: what it says itself. `because`: why it is listed and does not count, if so: it is not
    there, or refers to something else. `shown`: what hangs on it stands elsewhere in the tree. `referrers`:
    what refers to it in turn; `manifests`: what is in it, of an index.
    """

    artifact_type: str
    media_type: str
    digest: str
    size: int
    total_size: int
    found: Literal["api", "tag", "index", "cosign"]
    tag: str = ""
    created: str = ""
    annotations: dict[str, str] = {}
    because: str = ""
    shown: bool = False
    referrers: tuple[ReferrerEntry, ...] = ()
    manifests: tuple[ImageEntry, ...] = ()


class ImageEntry(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The image or index that was asked about, or a manifest in it. `size` in bytes: of the manifest.

    `platform`: as the index that lists it says. `because`: why it is not there, if so. `shown`: what hangs on
    it stands elsewhere in the tree. `referrers`: what refers to it; `manifests`: what is in it, of an index.
    """

    media_type: str
    digest: str
    size: int
    platform: str = ""
    because: str = ""
    shown: bool = False
    referrers: tuple[ReferrerEntry, ...] = ()
    manifests: tuple[ImageEntry, ...] = ()


class ReferrersDocument(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What hangs on an image. `name`: as it was asked for. `count`: how many manifests refer to something in
    the tree, and `totalSize`: the bytes of these and of their blobs."""

    version: Literal[1] = 1
    name: str
    count: int
    total_size: int
    image: ImageEntry


def referrers_document(tree: ReferrerTree) -> ReferrersDocument:
    """A tree as `referrers --json` prints it."""
    found = tree.referrers.values()
    return ReferrersDocument(
        name=str(tree.reference),
        count=len(found),
        total_size=sum(node.size for node in found),
        image=_image(tree.root),
    )


def _image(node: TreeNode) -> ImageEntry:
    mention = node.mention
    return ImageEntry(
        media_type=mention.media_type,
        digest=mention.digest,
        size=mention.size,
        platform=str(mention.platform or ""),
        because=node.because,
        shown=node.shown,
        referrers=tuple(map(_referrer, node.referrers)),
        manifests=tuple(map(_image, node.manifests)),
    )


def _referrer(node: TreeNode) -> ReferrerEntry:
    assert node.referrer is not None, "it was found in a list"
    mention = node.mention
    return ReferrerEntry(
        artifact_type=node.artifact_type,
        media_type=mention.media_type,
        digest=mention.digest,
        size=mention.size,
        total_size=node.size,
        found=node.referrer.how,
        tag=node.referrer.tag,
        created=node.created,
        annotations=node.manifest.annotations if node.manifest else {},
        because=node.because,
        shown=node.shown,
        referrers=tuple(map(_referrer, node.referrers)),
        manifests=tuple(map(_image, node.manifests)),
    )
