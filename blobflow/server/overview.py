"""What the registry holds, gathered for the page that a person looks at."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci import Digest, Manifest, Platform, parse_manifest
from blobflow.server.through import PullThrough
from blobflow.transports.store import Store
from blobflow.transports.store.census import Share, holdings, served_bytes, shares, tagged

# Repositories on a page, and tags of one that are shown.
REPOSITORIES = 100
TAGS = 50
# Bytes of a config that is looked into; those of images have some kilobytes.
_MAX_CONFIG = 1024 * 1024


class ImageShown(msgspec.Struct, frozen=True):
    """One image under a tag. `size` in bytes, of its config and layers; None: it is not here."""

    platform: str
    size: int | None


class TagShown(msgspec.Struct, frozen=True):
    """A tag with its images; `size` of what they need together, each blob once."""

    tag: str
    digest: Digest
    images: tuple[ImageShown, ...]
    size: int


class RepositoryShown(msgspec.Struct, frozen=True):
    share: Share
    tags: tuple[TagShown, ...]
    more_tags: bool


class UpstreamShown(msgspec.Struct, frozen=True):
    """How often something was asked for that is pulled through, and how often it was here."""

    host: str
    asked: int
    hits: int
    bytes_read: int


class Shown(msgspec.Struct, frozen=True):
    """The page. `served` is what the repositories would take if they shared nothing; `following` is where the
    next page begins, "" on the last."""

    blobs: int
    size: int
    served: int
    repositories: tuple[RepositoryShown, ...]
    following: str
    upstreams: tuple[UpstreamShown, ...]


class _Repository(msgspec.Struct, frozen=True):
    share: Share
    tags: list[tuple[str, Digest, str]]


class Overview:
    """Used on one loop; what `gather` returns runs in a thread, as it reads files."""

    def __init__(self, store: Store, through: PullThrough | None) -> None:
        self._store = store
        self._through = through

    def gather(self, last: str = "") -> Callable[[], Shown]:
        """Ask the state file now; read the manifests later."""
        found = shares(self._store, REPOSITORIES + 1, last)
        listed = [
            _Repository(each, tagged(self._store, each.repository, TAGS + 1)) for each in found[:REPOSITORIES]
        ]
        blobs, size = holdings(self._store)
        served = served_bytes(self._store)
        following = listed[-1].share.repository if len(found) > REPOSITORIES else ""
        upstreams = tuple(self._upstreams())

        def read() -> Shown:
            repositories = tuple(self._repository(each) for each in listed)
            return Shown(blobs, size, served, repositories, following, upstreams)

        return read

    def _upstreams(self) -> list[UpstreamShown]:
        if self._through is None:
            return []
        found = []
        for host in sorted({host for host, _, _ in self._through.outcomes}):
            told = {key[1:]: n for key, n in self._through.outcomes.items() if key[0] == host}
            hits = sum(n for (_, outcome), n in told.items() if outcome in ("hit", "stale"))
            found.append(UpstreamShown(host, sum(told.values()), hits, self._through.bytes_read[host]))
        return found

    def _repository(self, listed: _Repository) -> RepositoryShown:
        tags = tuple(self._tag(*each) for each in listed.tags[:TAGS])
        return RepositoryShown(listed.share, tags, len(listed.tags) > TAGS)

    def _tag(self, tag: str, digest: Digest, kind: str) -> TagShown:
        root = self._manifest(digest, kind)
        if root is None:
            return TagShown(tag, digest, (), 0)
        images: list[ImageShown] = []
        sizes: dict[Digest, int] = {}
        if not root.is_index:
            sizes = {blob.digest: blob.size for blob in root.blobs}
            size = sum(sizes.values())
            return TagShown(tag, digest, (ImageShown(self._platform(root), size),), size)
        for child in root.manifests:
            image = self._manifest(child.digest, child.media_type)
            blobs = {blob.digest: blob.size for blob in image.blobs} if image else {}
            sizes |= blobs
            name = str(child.platform) if child.platform else ""
            images.append(ImageShown(name, sum(blobs.values()) if image else None))
        return TagShown(tag, digest, tuple(images), sum(sizes.values()))

    def _platform(self, image: Manifest) -> str:
        """What the image's config says that it runs on; "" if that can't be read, or is no image's."""
        if image.config is None or image.config.size > _MAX_CONFIG:
            return ""
        try:
            raw = self._store.path_of(image.config.digest).read_bytes()
            platform = msgspec.json.decode(raw, type=Platform)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return ""
        return str(platform) if platform.os else ""

    def _manifest(self, digest: Digest, kind: str) -> Manifest | None:
        """The manifest; None if it is not here, or damaged."""
        try:
            return parse_manifest(self._store.path_of(digest).read_bytes(), kind, digest=digest)
        except (OSError, UnsupportedContent):
            return None
