"""The capabilities that were learned of one host: one value for all of its repositories."""

from __future__ import annotations

from blobflow.content import Journal
from blobflow.events import Observer
from blobflow.transports.registry.capabilities.head_support import HeadSupport
from blobflow.transports.registry.capabilities.profiles import LearnedLimits
from blobflow.transports.registry.capabilities.referrers_support import ReferrersSupport
from blobflow.transports.registry.capabilities.stale_caches import StaleCaches


class HostCapabilities:
    """`limits`: of uploads, and whether it takes tags with a digest. `caches`: those before it. `referrers`:
    how it keeps them. `page_sizes`: by the kind of list, the most names that it gives at once."""

    def __init__(self, host: str, journal: Journal, observer: Observer) -> None:
        self.limits = LearnedLimits(journal, host)
        self.manifest_heads = HeadSupport(host, "manifests", journal)
        self.blob_heads = HeadSupport(host, "blobs", journal)
        self.caches = StaleCaches(host, journal, observer)
        self.referrers = ReferrersSupport()
        self.page_sizes: dict[str, int] = {}
