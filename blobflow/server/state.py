"""What the embedded registry holds between requests: its store, its rules, its upload sessions and what it
has counted and remembered."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from blobflow.errors import IntegrityError
from blobflow.events import Warned
from blobflow.oci import Digest
from blobflow.server.counts import Counts
from blobflow.server.logins import Logins
from blobflow.server.overview import Overview
from blobflow.server.publicurl import Addressing
from blobflow.server.recent import Recent
from blobflow.server.sessions import UPLOAD_TTL, Sessions
from blobflow.server.subjects import Subjects
from blobflow.server.through import PullThrough
from blobflow.server.wire import Wire
from blobflow.transports.store import Store

# Seconds between two words to the operator that the disk is full.
_FULL_TOLD = 60.0

Sparse = Literal["accept", "indexes", "refuse"]
# Digests of damaged content that are remembered, so that each is told once.
_DAMAGED_AT_MOST = 1000


class Rules(msgspec.Struct, frozen=True):
    """What a registry lets others do.

    `sparse`: which manifests are accepted while something that they name is not here: all, indexes, or none.
    `read_only`: pull is all there is. `max_blob_size` in bytes; None: what the disk takes. `upload_ttl`:
    seconds that an unfinished upload is kept without a byte. `unreleased`: what the distribution-spec's main
    branch has, and no release of it yet, is done too: tags that come with a digest, mounts without an origin.
    """

    sparse: Sparse = "indexes"
    read_only: bool = False
    max_blob_size: int | None = None
    upload_ttl: float = UPLOAD_TTL
    unreleased: bool = True


class Registry:
    """The rooms' common ground. `logins` None: anybody may come in. `through` None: nothing is pulled
    through."""

    __slots__ = (
        "_damaged",
        "_full_told",
        "addressing",
        "counts",
        "ill",
        "logins",
        "overview",
        "recent",
        "rules",
        "sessions",
        "store",
        "subjects",
        "through",
        "wire",
    )

    def __init__(
        self,
        store: Store,
        *,
        rules: Rules,
        wire: Wire,
        addressing: Addressing | None = None,
        logins: Logins | None = None,
        through: PullThrough | None = None,
    ) -> None:
        self.store = store
        self.rules = rules
        self.wire = wire
        self.addressing = addressing or Addressing()
        self.logins = logins
        self.through = through
        self.counts = Counts()
        self.ill = False  # what /healthz said last
        self._full_told = float("-inf")
        self._damaged: set[Digest] = set()  # of which the operator has been told
        self.recent = Recent()
        self.overview = Overview(store, through)
        self.sessions = Sessions(store, ttl=rules.upload_ttl)
        self.subjects = Subjects(store)

    def full_is_news(self) -> bool:
        """Whether the operator has not been told in the last minute that the disk is full; is told now."""
        now = time.monotonic()
        if now - self._full_told < _FULL_TOLD:
            return False
        self._full_told = now
        return True

    def tell_damaged(self, digest: Digest, error: IntegrityError) -> None:
        """Tell the store's observer of content that turned out damaged when a client wanted it; once, however
        many want it."""
        if digest in self._damaged:
            return
        if len(self._damaged) >= _DAMAGED_AT_MOST:
            self._damaged.clear()
        self._damaged.add(digest)
        again = "pushed or fetched again" if self.through else "pushed again"
        self.store.observer(Warned(f"damaged content can't be pulled until it is {again}: {error}"))
