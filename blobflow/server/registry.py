"""What the embedded registry holds between requests: its store, its rules, its upload sessions and what it
has counted and remembered."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from blobflow.errors import IntegrityError
from blobflow.events import Warned
from blobflow.oci import Digest
from blobflow.server.admin.counters import Counters
from blobflow.server.admin.overview import Overview
from blobflow.server.auth.logins import Logins
from blobflow.server.http.bodies import BodyTransport
from blobflow.server.http.public_url import Addressing
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.referrer_index import ReferrerIndex
from blobflow.server.small_blob_cache import SmallBlobCache
from blobflow.server.upload_sessions import UPLOAD_TTL, UploadSessions
from blobflow.transports.store import Store

# Seconds between two words to the operator that the disk is full.
_FULL_TOLD = 60.0

SparsePolicy = Literal["accept", "indexes", "refuse"]
# Digests of damaged content that are remembered, so that each is told once.
_DAMAGED_AT_MOST = 1000


class RegistryOptions(msgspec.Struct, frozen=True):
    """What a registry lets others do.

    `sparse`: which manifests are accepted while something that they name is not here: all, indexes, or none.
    `read_only`: pull is all there is. `max_blob_size` in bytes; None: what the disk takes. `upload_ttl`:
    seconds that an unfinished upload is kept without a byte. `unreleased`: what the distribution-spec's main
    branch has, and no release of it yet, is done too: tags that come with a digest, mounts without an origin.
    """

    sparse: SparsePolicy = "indexes"
    read_only: bool = False
    max_blob_size: int | None = None
    upload_ttl: float = UPLOAD_TTL
    unreleased: bool = True


class Registry:
    """The rooms' common ground. `logins` None: anybody may come in. `pullthrough` None: nothing is pulled
    through."""

    __slots__ = (
        "_damaged",
        "_full_told",
        "addressing",
        "body_transport",
        "counters",
        "is_unhealthy",
        "logins",
        "overview",
        "pullthrough",
        "referrer_index",
        "rules",
        "sessions",
        "small_blobs",
        "store",
    )

    def __init__(
        self,
        store: Store,
        *,
        rules: RegistryOptions,
        body_transport: BodyTransport,
        addressing: Addressing | None = None,
        logins: Logins | None = None,
        pullthrough: PullThroughCache | None = None,
    ) -> None:
        self.store = store
        self.rules = rules
        self.body_transport = body_transport
        self.addressing = addressing or Addressing()
        self.logins = logins
        self.pullthrough = pullthrough
        self.counters = Counters()
        self.is_unhealthy = False  # what /healthz said last
        self._full_told = float("-inf")
        self._damaged: set[Digest] = set()  # of which the operator has been told
        self.small_blobs = SmallBlobCache()
        self.overview = Overview(store, pullthrough)
        self.sessions = UploadSessions(store, ttl=rules.upload_ttl)
        self.referrer_index = ReferrerIndex(store)

    def may_report_full(self) -> bool:
        """Whether the operator has not been told in the last minute that the disk is full; is told now."""
        now = time.monotonic()
        if now - self._full_told < _FULL_TOLD:
            return False
        self._full_told = now
        return True

    def report_damaged(self, digest: Digest, error: IntegrityError) -> None:
        """Tell the store's observer of content that turned out damaged when a client wanted it; once, however
        many want it."""
        if digest in self._damaged:
            return
        if len(self._damaged) >= _DAMAGED_AT_MOST:
            self._damaged.clear()
        self._damaged.add(digest)
        again = "pushed or fetched again" if self.pullthrough else "pushed again"
        self.store.observer(Warned(f"damaged content can't be pulled until it is {again}: {error}"))
