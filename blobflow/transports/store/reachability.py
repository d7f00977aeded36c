"""Reachable digests, which a sweep must keep: the closure of all roots, kept up to date.

Roots are what served tags name, and the manifests of repositories here that were promised lately. A root
needs what it mentions (config, layers, manifests, its subject), and the manifests that refer to it need to
stay, too. A sweep looks at all of it once, and goes on for as long as it takes; manifests that are put,
tagged or found meanwhile stand in the table `holds`, and are taken in before each decision (`catch_up`).

A digest can be reached before its manifest is here: an index may be sparse, and a signature may come before
the image that it refers to. So to be reached and to be read are two things: what comes later is read then.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable

from blobflow.errors import UnsupportedContent
from blobflow.oci import MAX_MANIFEST_BYTES, Digest, Manifest, parse_manifest
from blobflow.oci.media import MANIFESTS
from blobflow.transports.store.clock import now
from blobflow.transports.store.os_errors import storage_error
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.store import Store

# What the system says of a file that is gone, or that its disk has lost. With any other error (too many open
# files, no permission) it may be read by the next who tries, and what it names is needed then.
_LOST = frozenset({errno.ENOENT, errno.EIO, errno.EISDIR})


class ReachableDigests:
    """The digests that roots reach. It grows, and never forgets: what is not needed any more is the next
    sweep's."""

    def __init__(self, store: Store) -> None:
        """Reads every manifest that is served from here. Raises StorageError, also where one can't be read
        that is not lost."""
        self._state = store.state
        self._paths = store.paths
        self._number = 0
        self._kinds: dict[Digest, str] = {}
        self._referrers: dict[Digest, list[Digest]] = {}
        self._reached: set[Digest] = set()
        self._read: set[Digest] = set()
        self._look()

    def _look(self) -> None:
        # First, so that what comes while we look is looked at twice rather than never.
        self._number = self._last_hold()
        self._referrers.clear()
        self._kinds = {
            Digest(digest): kind
            for digest, kind in self._state.rows("SELECT digest, media_type FROM members WHERE registry = ''")
            if kind in MANIFESTS
        }
        for digest, kind in self._kinds.items():
            self._note_subject(digest, kind)
        roots = [digest for (digest,) in self._state.rows("SELECT DISTINCT digest FROM roots")]
        fresh = self._state.rows("SELECT digest FROM blobs WHERE added > ?", now() - KEPT_SECONDS)
        self._reach([*roots, *(digest for (digest,) in fresh if digest in self._kinds)])

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._reached

    def catch_up(self) -> None:
        """Take in what was put, tagged or found since the last time. Inside the transaction that decides."""
        last = self._last_hold()
        rows = self._state.rows("SELECT number, digest FROM holds WHERE number > ? ORDER BY 1", self._number)
        if len(rows) != last - self._number:
            # Some were forgotten: we are at it for hours, or the clock leapt.
            self._look()
            return
        for number, digest in rows:
            self._number = number
            if digest not in self._kinds:
                kind = self._state.row(
                    "SELECT media_type FROM members WHERE digest = ? AND registry = '' AND media_type != ''",
                    digest,
                )
                if kind is not None:
                    self._kinds[Digest(digest)] = kind[0]
                    self._note_subject(Digest(digest), kind[0])
        self._reach(digest for _, digest in rows)

    def _last_hold(self) -> int:
        row = self._state.row("SELECT seq FROM sqlite_sequence WHERE name = 'holds'")
        return 0 if row is None else int(row[0])

    def _note_subject(self, digest: Digest, kind: str) -> None:
        """Manifests that repositories here hold are the only possible referrers."""
        manifest = _manifest(self._paths, digest, kind)
        if manifest is None or manifest.subject is None:
            return
        subject = manifest.subject.digest
        self._referrers.setdefault(subject, []).append(digest)
        if subject in self._reached:
            self._reach([digest])

    def _reach(self, roots: Iterable[str]) -> None:
        """Add all that is reached from roots."""
        # Digests with the media type under which they were met: only what is called a manifest is opened, by
        # its parent or by a repository here.
        waiting = [(Digest(digest), self._kinds.get(Digest(digest), "")) for digest in roots]
        manifests = {digest for digest, _ in waiting}
        while waiting:
            digest, kind = waiting.pop()
            if digest not in self._reached:
                self._reached.add(digest)
                waiting += [(referrer, self._kinds[referrer]) for referrer in self._referrers.get(digest, ())]
            if kind not in MANIFESTS:
                kind = self._kinds.get(digest, kind)
            if digest in self._read or (digest not in manifests and kind not in MANIFESTS):
                continue
            manifest = _manifest(self._paths, digest, kind)
            if manifest is None:
                continue
            self._read.add(digest)
            mentioned = (*manifest.layers, *manifest.manifests, manifest.config, manifest.subject)
            waiting += [(child.digest, child.media_type) for child in mentioned if child is not None]


def _manifest(paths: StorePaths, digest: Digest, kind: str) -> Manifest | None:
    """The manifest, if it is here and is one; what is lost or damaged reaches nothing.

    A parent may have called it wrongly: then it is what it calls itself. Raises StorageError.
    """
    path = paths.blob(digest)
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_MANIFEST_BYTES else b""
    except OSError as error:
        if error.errno in _LOST:
            return None
        raise storage_error("read", path, error) from error
    for called in (kind, ""):
        with contextlib.suppress(UnsupportedContent):
            return parse_manifest(raw, called, digest=digest, let_in=True)
    return None
