"""Images with signatures and SBOMs between places that list what refers to a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from blobflow.content import Site
from blobflow.engine.pairs import Lookup, Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import ImageRecord
from blobflow.oci import (
    Manifest,
    Reference,
    media,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.platform_choice import IndexMode, PlatformChoice
from blobflow.oci.referrers import fallback_tag
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.signed_images import Content, Signed, digests

Kept = Literal["api", "tag"]
SOURCE, TARGET = Site("source", "app"), Site("target", "app")


class ReferrersScenario(MirrorScenario):
    """A source with a signed image, and a target."""

    def __init__(self, store: Store, source: Kept = "api", target: Kept = "api") -> None:
        super().__init__(store, SampleSet({}, {}, {}))
        self.signed = Signed()
        self.source = MemoryRegistry("source", refers=source)
        self.targets["target"] = MemoryRegistry("target", refers=target)
        if source == "tag":
            self.signed.content.listing()
        self.load(self.signed.content)

    @property
    def there(self) -> MemoryRegistry:
        return self.targets["target"]

    def load(self, content: Content) -> None:
        self.source.blobs.setdefault(SOURCE, {}).update(content.blobs)
        for manifest in content.manifests.values():
            kept = (manifest.descriptor.media_type, manifest.raw)
            self.source.manifests.setdefault(SOURCE, {})[manifest.descriptor.digest] = kept
        self.source.tags.update({(SOURCE, tag): digest for tag, digest in content.tags.items()})

    async def run(
        self,
        policy: Policy = KEEP_GOING,
        *platforms: str,
        index: IndexMode = "auto",
        referrers: Lookup = "auto",
    ) -> ImageRecord:
        self.forget_calls()
        choice = PlatformChoice(tuple(map(parse_platform, platforms)), index)
        source, target = (Reference(host, "app", "1") for host in ("source", "target"))
        report = await self.mirror(policy, [Pair(source, target, choice, referrers)])
        return report.images[0]

    def arrived(self, manifests: Sequence[Manifest]) -> bool:
        """Whether these are at the target, each found as what its subject's referrers are."""
        held = self.there.manifests[TARGET]
        for manifest in manifests:
            if manifest.descriptor.digest not in held:
                return False
            subject = manifest.subject
            if subject and self.there.refers == "tag":
                _, raw = held[self.there.tags[TARGET, fallback_tag(subject.digest)]]
                listed = {each.digest for each in parse_manifest(raw, media.OCI_INDEX).manifests}
                if manifest.descriptor.digest not in listed:
                    return False
        return True

    def has_any(self, manifests: Sequence[Manifest]) -> bool:
        return bool(digests(manifests) & self.there.manifests[TARGET].keys())
