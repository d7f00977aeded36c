"""The state of the registry between requests: its content, options, upload sessions, counters and caches."""

from __future__ import annotations

import asyncio
import time
from typing import Literal, Protocol

import msgspec

from blobflow.errors import IntegrityError
from blobflow.events import Warned
from blobflow.oci import Digest
from blobflow.server.admin.counters import Counters
from blobflow.server.admin.overview import Overview
from blobflow.server.auth.access_rules import AccessRules
from blobflow.server.auth.logins import Logins
from blobflow.server.http.bodies import BodyTransport
from blobflow.server.http.public_url import Addressing
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.pullthrough.stored_names import is_policys
from blobflow.server.referrer_index import ReferrerIndex
from blobflow.server.small_blob_cache import SmallBlobCache
from blobflow.server.upload_sessions import UPLOAD_TTL, UploadSessions
from blobflow.transports.store import Store, promises
from blobflow.transports.store.served_content import ServedContent

# Seconds between two warnings that the disk is full.
_FULL_REPORT_SECONDS = 60.0

SparsePolicy = Literal["accept", "indexes", "refuse"]
# Manifests of more than some kilobytes that are judged at once, each with some ten times its bytes.
_LARGE_MANIFESTS = 4
# Digests of damaged content that are remembered, so that the operator hears of each once.
_MAX_DAMAGED = 1000


class RegistryOptions(msgspec.Struct, frozen=True):
    """What a registry lets others do.

    `sparse`: which manifests it accepts while something that they name is not here: all, indexes, or none.
    `read_only`: it answers what would change something with 405. `max_blob_size` in bytes: it answers longer
    uploads with 413; None: what the disk takes. `upload_ttl`: seconds for which it keeps an unfinished upload
    without a byte. `unreleased`: it also does what the distribution-spec's main branch has and no release of
    it yet: tags that come with a digest, mounts without an origin.
    """

    sparse: SparsePolicy = "indexes"
    read_only: bool = False
    max_blob_size: int | None = None
    upload_ttl: float = UPLOAD_TTL
    unreleased: bool = True


class Aliases(Protocol):
    """Names of repositories beside those under which the content has them."""

    def stands_for(self, namespace: str) -> bool:
        """Whether `?ns=` names a registry of which there is anything here."""
        ...

    def resolve(self, repository: str, namespace: str) -> str:
        """The name that the content has for a repository, or would have; `namespace` is the value of `?ns=`,
        "" without it. What it adds to the name behind a `#` no client hears: see `stored_names`."""
        ...


class Registry:
    """What the endpoints share. `content`: what is answered from. `aliases` None: names are what they are.
    `logins` None: anybody may come in. `pullthrough` None: nothing is pulled
    through. Used on one loop; `close` it when no request is left."""

    __slots__ = (
        "_damaged",
        "_full_reported",
        "_store",
        "access",
        "addressing",
        "aliases",
        "body_transport",
        "content",
        "counters",
        "is_unhealthy",
        "large_manifests",
        "logins",
        "options",
        "overview",
        "pullthrough",
        "referrer_index",
        "sessions",
        "small_blobs",
    )

    def __init__(
        self,
        content: ServedContent,
        *,
        options: RegistryOptions,
        body_transport: BodyTransport,
        access: AccessRules | None = None,
        addressing: Addressing | None = None,
        aliases: Aliases | None = None,
        logins: Logins | None = None,
        pullthrough: PullThroughCache | None = None,
    ) -> None:
        self.content = content
        self._store = content if isinstance(content, Store) else None
        self.options = options
        self.body_transport = body_transport
        self.access = access or AccessRules()
        self.addressing = addressing or Addressing()
        self.aliases = aliases
        self.logins = logins
        self.pullthrough = pullthrough
        self.counters = Counters()
        self.is_unhealthy = False  # what /healthz said last
        self.large_manifests = asyncio.Semaphore(_LARGE_MANIFESTS)
        self._full_reported = float("-inf")
        self._damaged: set[Digest] = set()  # those that the operator has heard of
        self.small_blobs = SmallBlobCache()
        self.overview = Overview(content, pullthrough, self.shows)
        self.sessions = UploadSessions(self._store, ttl=options.upload_ttl)
        self.referrer_index = ReferrerIndex(content)

    @property
    def store(self) -> Store:
        """Where pushes go. Nobody asks for it in a registry that answers from anything else: it is
        read-only."""
        assert self._store is not None, "what is only read takes no pushes"
        return self._store

    @property
    def takes_writes(self) -> bool:
        """Whether there is a store, and it is written to: by clients, or by what is pulled through."""
        return self._store is not None and not self._store.read_only

    async def promise_existing(self, digest: Digest) -> bool:
        """See `promises.promise_existing`; what is only read stays."""
        return self._store is None or await promises.promise_existing(self._store, digest)

    def shows(self, stored: str) -> bool:
        """Whether clients get what the store has in a repository: see `pullthrough.stored_names`."""
        return not is_policys(stored) if self.pullthrough is None else self.pullthrough.names.is_shown(stored)

    def may_report_full(self) -> bool:
        """Whether the operator has not heard in the last minute that the disk is full; is told now."""
        now = time.monotonic()
        if now - self._full_reported < _FULL_REPORT_SECONDS:
            return False
        self._full_reported = now
        return True

    def report_damaged(self, digest: Digest, error: IntegrityError) -> None:
        """Tell the observer of content that turned out damaged when a client wanted it; once, however
        many want it."""
        if digest in self._damaged:
            return
        if len(self._damaged) >= _MAX_DAMAGED:
            self._damaged.clear()
        self._damaged.add(digest)
        if self._store is None:
            again = "served from a sound copy"
        else:
            again = "pushed or fetched again" if self.pullthrough else "pushed again"
        self.content.observer(Warned(f"damaged content can't be pulled until it is {again}: {error}"))

    async def close(self) -> None:
        """Cancel the uploads, and give up what is being read and fetched. The content stays its caller's."""
        await self.overview.close()
        self.sessions.close()
        await self.referrer_index.close()
        if self.pullthrough is not None:
            await self.pullthrough.close()
        if self.logins is not None:
            self.logins.close()
