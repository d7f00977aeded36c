"""The overview of the registry's content, for the page that people look at, and for the metrics.

Work and memory are bounded whatever clients push: see the constants. A manifest that is named a thousand
times is read once; what is beyond the bounds is counted, and shown as "and so many more".
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci import Digest, Manifest, Platform, media, parse_manifest
from blobflow.oci.json_decoding import decode
from blobflow.oci.manifest import MAX_MANIFEST_BYTES
from blobflow.server.admin.repository_pages import MayPull, find_page
from blobflow.server.admin.snapshots import Abandoned, ShouldStop, Snapshot, SnapshotCache
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.pullthrough.stored_names import public_name
from blobflow.transports.store.served_content import ServedContent
from blobflow.transports.store.state.database import State
from blobflow.transports.store.stats import (
    RepositoryStats,
    StoreStats,
    collect_stats,
    open_reader,
    tags_with_types,
)

# Repositories on a page, and tags of one that are shown.
REPOSITORIES = 100
TAGS = 50
# Images of one tag, and of all tags of a page. Well-known indexes have about 20, attestations included.
IMAGES = 40
IMAGES_IN_ALL = 2000
# Manifests and configs that are read for a page, and their bytes: a second's work for a slow disk. An index
# may have 4 MiB, decoding which holds up other threads for some milliseconds.
FILES = 2000
BYTES = 32 * 1024 * 1024
# Children of one manifest that are taken out of it; docker takes no image with more than 127 layers.
_CHILDREN = 256
# Bytes of a config that is read; those of images have some kilobytes.
_MAX_CONFIG = 1024 * 1024
# Bytes in memory of the figures of one repository.
_SHARE_BYTES = 400
# A name of a repository in a request that is longer can't be one in the store, nor be found in one.
_LONGEST_NAME = 300

_platform = msgspec.json.Decoder(Platform)


class ImageRow(msgspec.Struct, frozen=True):
    """One image under a tag. `size` in bytes, of its config and layers; None: it is not here. `at_least`: it
    has more layers than are counted."""

    platform: str
    size: int | None
    at_least: bool = False


class TagRow(msgspec.Struct, frozen=True):
    """A tag with its images; `size` of what they need together, each blob once, at least: `more` images were
    not looked into. `unread`: nor was the tag's own manifest."""

    tag: str
    digest: Digest
    images: tuple[ImageRow, ...]
    size: int
    more: int = 0
    unread: bool = False

    @property
    def at_least(self) -> bool:
        return self.more > 0 or any(image.at_least for image in self.images)


class RepositoryRow(msgspec.Struct, frozen=True):
    """`share`: what it holds, if that was counted. `shared`: whether what others hold of it is shown."""

    name: str
    share: RepositoryStats | None
    tags: tuple[TagRow, ...]
    more_tags: bool
    shared: bool = True


class UpstreamRow(msgspec.Struct, frozen=True):
    """How often clients asked for something that is pulled through, and how often it was here."""

    host: str
    asked: int
    hits: int
    bytes_read: int


class OverviewRows(msgspec.Struct, frozen=True):
    """The page. `stats` counts all that is held (None: not for this viewer). `following` is where
    the next page begins, "" on the last; `previous`, `before`, `total` and `at_least` as in `RepositoryPage`.
    `find`: what the names have in them."""

    stats: StoreStats | None
    repositories: tuple[RepositoryRow, ...]
    following: str = ""
    upstreams: tuple[UpstreamRow, ...] = ()
    previous: str | None = None
    before: int | None = 0
    total: int = 0
    at_least: bool = False
    find: str = ""


class RenderedPage(msgspec.Struct, frozen=True):
    """A page as HTML, in two parts; how old it is belongs between them."""

    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        return len(self.head) + len(self.tail)


class Overview:
    """Builds pages and figures. Used on one loop; `close` it with the registry.

    Figures have a thread to themselves, so that whoever scrapes metrics does not wait for pages.
    """

    def __init__(
        self,
        content: ServedContent,
        pullthrough: PullThroughCache | None,
        shows: Callable[[str], bool] = lambda stored: True,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._content = content
        self._pullthrough = pullthrough
        self._shows = shows
        self._figures = SnapshotCache(clock=clock)
        self._pages = SnapshotCache(clock=clock)

    async def stats(self, gone: Callable[[], bool]) -> Snapshot[StoreStats]:
        """What there is in all. `gone`: see `SnapshotCache.get`. Raises StorageError, ApiError."""

        def count(stopped: ShouldStop) -> StoreStats:
            with open_reader(self._content, stopped) as state:
                return collect_stats(state)

        return await self._figures.get("stats", count, gone=gone, weigh=_weight)

    async def page(
        self,
        render: Callable[[OverviewRows], RenderedPage],
        last: str = "",
        *,
        find: str = "",
        viewer: str = "",
        may_pull: MayPull | None = None,
        gone: Callable[[], bool],
    ) -> tuple[RenderedPage, float]:
        """The page after the repository `last`, and its age in seconds. `find`: what the names of the
        repositories have in them, in any letters.

        `render` runs in the thread as well. `may_pull`: which repositories are shown; then figures about
        others are left out. `viewer` names what it lets through: equal viewers are shown the same page. Both
        are about the moment: call `forget` when rules change. Raises StorageError, ApiError.
        """
        last, find = _cut(last), _cut(find.strip())
        stats = await self.stats(gone)
        upstreams = () if may_pull else tuple(self._upstreams())

        def build(stopped: ShouldStop) -> RenderedPage:
            with open_reader(self._content, stopped) as state:
                read = self._content.blobs.read_now
                look = _OverviewReader(state, read, stats.value, self._shows, may_pull, stopped)
                return render(msgspec.structs.replace(look.shown(last, find), upstreams=upstreams))

        key = viewer, may_pull is None, last, find
        found = await self._pages.get(key, build, gone=gone, weigh=lambda page: page.size)
        return found.value, max(self._pages.age(found), self._figures.age(stats))

    @property
    def gathered(self) -> int:
        """How many pages and figures were built."""
        return self._figures.done + self._pages.done

    def forget(self) -> None:
        """Build everything anew for the next who asks."""
        self._figures.forget()
        self._pages.forget()

    def stop(self) -> None:
        """Give up what is being built; whoever waits for it gets an error."""
        self._figures.stop()
        self._pages.stop()

    async def close(self) -> None:
        await self._figures.close()
        await self._pages.close()

    def _upstreams(self) -> list[UpstreamRow]:
        if self._pullthrough is None:
            return []
        found = []
        for host in sorted({host for host, _, _ in self._pullthrough.outcomes}):
            told = {key[1:]: n for key, n in self._pullthrough.outcomes.items() if key[0] == host}
            hits = sum(n for (_, outcome), n in told.items() if outcome in ("hit", "stale"))
            found.append(UpstreamRow(host, sum(told.values()), hits, self._pullthrough.bytes_read[host]))
        return found


def _cut(name: str) -> str:
    """What a request says of a name, in no more than a name can have, and with all characters whole."""
    return name[:_LONGEST_NAME].encode("utf-8", "replace").decode()


def _weight(stats: StoreStats) -> int:
    return _SHARE_BYTES * (len(stats.shares) + 1)


class _Image(msgspec.Struct, frozen=True):
    """What one image needs: its blobs with their sizes. `at_least`: it has more layers than these."""

    blobs: dict[Digest, int]
    at_least: bool = False


class _OverviewReader:
    """Builds one page, in its thread: what it has read and shown so far."""

    def __init__(
        self,
        state: State,
        read_now: Callable[[Digest, int], bytes | None],
        stats: StoreStats,
        shows: Callable[[str], bool],
        may_pull: MayPull | None,
        stopped: ShouldStop,
    ) -> None:
        self._state = state
        self._shows = shows
        self._read_now = read_now
        self._census = stats
        self._may_pull = may_pull
        self._stopped = stopped
        self._files = FILES
        self._bytes = BYTES
        self._shown = IMAGES_IN_ALL
        self._roots: dict[tuple[Digest, str], TagRow] = {}
        self._images: dict[Digest, _Image | None] = {}

    def shown(self, last: str, find: str) -> OverviewRows:
        page = find_page(
            self._state,
            REPOSITORIES,
            last=last,
            find=find,
            may_pull=self._may_see,
            check_stopped=self._check_stopped,
        )
        every = self._may_pull is None
        return OverviewRows(
            self._census if every else None,
            tuple(self._repository(name, shared=every) for name in page.names),
            page.following,
            previous=page.previous,
            before=page.before,
            total=page.total,
            at_least=page.at_least,
            find=find,
        )

    def _may_see(self, stored: str) -> bool:
        return self._shows(stored) and (self._may_pull is None or self._may_pull(public_name(stored)))

    def _check_stopped(self) -> None:
        if self._stopped():
            raise Abandoned

    def _repository(self, stored: str, *, shared: bool) -> RepositoryRow:
        self._check_stopped()
        found = tags_with_types(self._state, stored, TAGS + 1)
        tags = tuple(self._tag(*each) for each in found[:TAGS])
        share = self._census.shares.get(stored)
        return RepositoryRow(public_name(stored), share, tags, len(found) > TAGS, shared)

    def _tag(self, tag: str, digest: Digest, kind: str) -> TagRow:
        known = self._roots.get((digest, kind))
        if known is None:
            known = self._root(digest, kind)
            self._roots[digest, kind] = known
        if len(known.images) > self._shown:
            known = TagRow(tag, digest, (), 0, more=known.more + len(known.images))
        self._shown -= len(known.images)
        return msgspec.structs.replace(known, tag=tag)

    def _root(self, digest: Digest, kind: str) -> TagRow:
        """What a tag names; the caller fills in the tag's name."""
        raw = self._read(digest, MAX_MANIFEST_BYTES)
        if raw is None:
            return TagRow("", digest, (), 0, unread=self._spent)
        root = _parsed(raw, kind, digest)
        if root is None:
            return TagRow("", digest, (), 0)
        if not root.is_index:
            image = _image_of(root)
            size = sum(image.blobs.values())
            return TagRow("", digest, (ImageRow(self._platform(root), size, image.at_least),), size)
        return self._index(root)

    def _index(self, root: Manifest) -> TagRow:
        images: list[ImageRow] = []
        sizes: dict[Digest, int] = {}
        for child in root.manifests[:IMAGES]:
            if child.digest not in self._images:
                image = self._image(child.digest, child.media_type)
                if image is None and self._spent:
                    break
                self._images[child.digest] = image
            image = self._images[child.digest]
            platform = str(child.platform) if child.platform else ""
            if image is None:
                images.append(ImageRow(platform, None))
            else:
                sizes |= image.blobs
                images.append(ImageRow(platform, sum(image.blobs.values()), image.at_least))
        more = len(root.manifests) + root.more - len(images)
        if root.blobs:  # a build's cache, not an image
            blobs = {blob.digest: blob.size for blob in root.blobs}
            images.append(ImageRow("blobs", sum(blobs.values())))
            sizes |= blobs
        return TagRow("", root.descriptor.digest, tuple(images), sum(sizes.values()), more=more)

    def _image(self, digest: Digest, kind: str) -> _Image | None:
        """What the image needs; None if it is not here, or damaged."""
        raw = self._read(digest, MAX_MANIFEST_BYTES)
        manifest = _parsed(raw, kind, digest) if raw is not None else None
        return _image_of(manifest) if manifest is not None else None

    def _platform(self, image: Manifest) -> str:
        """What the image's config says that it runs on; "" if that can't be read, or is no image's."""
        if image.config is None or image.config.size > _MAX_CONFIG:
            return ""
        raw = self._read(image.config.digest, _MAX_CONFIG)
        try:
            platform = decode(raw or b"", _platform)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return ""
        return str(platform) if platform.os else ""

    @property
    def _spent(self) -> bool:
        """Whether all has been read that may be read."""
        return self._files <= 0 or self._bytes <= 0

    def _read(self, digest: Digest, most: int) -> bytes | None:
        """A small blob; None if it is not here, is larger than it may be, or nothing more may be read."""
        self._check_stopped()
        if self._spent:
            return None
        self._files -= 1
        raw = self._read_now(digest, most)
        self._bytes -= len(raw or b"")
        return raw


def _parsed(raw: bytes, kind: str, digest: Digest) -> Manifest | None:
    try:
        return parse_manifest(raw, kind, digest=digest, most=_CHILDREN, let_in=True)
    except UnsupportedContent:
        return None


def _image_of(manifest: Manifest) -> _Image:
    """What a manifest needs; nothing of an index inside an index."""
    if manifest.descriptor.media_type in media.INDEXES:
        return _Image({})
    return _Image({blob.digest: blob.size for blob in manifest.blobs}, manifest.more > 0)
