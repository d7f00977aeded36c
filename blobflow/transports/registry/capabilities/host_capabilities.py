"""What one host has shown of itself: one value for all of its repositories.

What is learned from an answer gets a field here; `HostClient.capabilities` is the way to it. What later runs
should know is noted in the journal, by a key of its own.
"""

from __future__ import annotations

from collections import Counter

from blobflow.content import Journal
from blobflow.events import Observer
from blobflow.transports.registry.capabilities.head_support import HeadSupport
from blobflow.transports.registry.capabilities.manifests_ahead import ManifestsAhead
from blobflow.transports.registry.capabilities.profiles import LearnedLimits
from blobflow.transports.registry.capabilities.range_support import RangeSupport
from blobflow.transports.registry.capabilities.referrers_support import ReferrersSupport
from blobflow.transports.registry.capabilities.stale_caches import StaleCaches


class HostCapabilities:
    """`limits`: of uploads, and whether it takes tags with a digest. `manifest_heads`, `blob_heads`: whether
    its answers to HEAD are right. `caches`: those before it. `referrers`: how it keeps them.
    `manifests_ahead`: those that were read with what tags name. `ranges`: of blobs, side by side.
    `page_sizes`: by the kind of list, the most names that it gives at once. `refused_origins`: how often in
    a row mounts into one repository from another were not allowed, by the names of both."""

    def __init__(self, host: str, journal: Journal, observer: Observer) -> None:
        self.limits = LearnedLimits(journal, host)
        self.manifest_heads = HeadSupport(host, "manifests", journal)
        self.blob_heads = HeadSupport(host, "blobs", journal)
        self.caches = StaleCaches(host, journal, observer)
        self.referrers = ReferrersSupport()
        self.manifests_ahead = ManifestsAhead()
        self.ranges = RangeSupport()
        self.page_sizes: dict[str, int] = {}
        self.refused_origins: Counter[tuple[str, str]] = Counter()
