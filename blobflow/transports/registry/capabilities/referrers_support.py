"""How one host supports referrers, remembered between requests. Plain state."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import Digest
from blobflow.single_flight import SingleFlight

# Repositories whose tags are remembered, bytes of all, and seconds: a serving process is asked for any number
# of them, and what was told counts no longer.
_REPOSITORIES = 10_000
_TAGS_BYTES = 32 * 1024 * 1024
_TAGS_SECONDS = 60.0
# Seconds for which a tag that was resolved is held against lists of tags: in a large set names are resolved
# long before what hangs on their images is looked up.
_SEEN_SECONDS = 3600.0


class ReferrersSupport:
    """What is known of one host: whether it lists referrers (`tried`: somebody asked), of which of them it
    took note, and the tags of its repositories with when they were told (seconds of the loop), and those that
    are being told (`listing`); `seen`: the tag of each that was resolved last, and when. One for all its
    repositories."""

    def __init__(self) -> None:
        self.lists: bool | None = None
        self.first = asyncio.Lock()
        self.tried = False
        self.listing: SingleFlight[str, frozenset[str] | None] = SingleFlight()
        self.tags: BoundedCache[str, tuple[float, frozenset[str] | None]] = BoundedCache(
            entries=_REPOSITORIES,
            room=_TAGS_BYTES,
            seconds=_TAGS_SECONDS,
            weigh=lambda name, told: 300 + _weight(told[1]),
        )
        self.seen: BoundedCache[str, tuple[float, str]] = BoundedCache(
            entries=_REPOSITORIES, seconds=_SEEN_SECONDS
        )
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._noted: set[tuple[str, Digest]] = set()

    def put(self, repository: str, manifest: Digest, *, noted: bool) -> None:
        """Take in that a manifest was put; `noted`: the registry says that it took note of its subject."""
        self.tags.pop(repository)
        if noted:
            self.lists = True
            self._noted.add((repository, manifest))

    def lock(self, repository: str, what: str) -> asyncio.Lock:
        """The same lock for all who hold it, or wait for it, at the same time."""
        lock = self._locks.get((repository, what))
        if lock is None:
            lock = self._locks[repository, what] = asyncio.Lock()
        return lock

    def noted(self, repository: str, manifest: Digest) -> bool:
        return (repository, manifest) in self._noted


def _weight(tags: frozenset[str] | None) -> int:
    """Bytes, roughly."""
    return sum(len(tag) + 120 for tag in tags or ())
