"""Verification: do the targets have what the sources name now? Independent of any run; writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from blobflow.content import NullJournal
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import Lookup, Pair
from blobflow.engine.plan.desired import (
    AttachedReferrer,
    DesiredImage,
    DesiredImages,
    build_desired_images,
    choices_of,
)
from blobflow.engine.policy import VerifyLevel
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.sources.roots import resolve_roots
from blobflow.engine.targets.audit import mark_doubtful
from blobflow.engine.targets.referrer_verification import (
    ExpectedReferrers,
    expected_referrers,
    holds_referrers,
)
from blobflow.engine.targets.survey import TargetLookups, survey_tags
from blobflow.engine.targets.verification import Verification
from blobflow.errors import BlobflowError
from blobflow.events import PhaseStarted, Warned
from blobflow.oci import Descriptor, Digest, Reference


async def verify_pairs(
    services: Services,
    pairs: Sequence[Pair],
    level: VerifyLevel,
    *,
    read_at_once: int,
    referrers: Lookup | None = None,
) -> dict[Pair, BlobflowError | None]:
    """Check whether every pair's target has what the source names now, as closely as `level` says.

    What refers to the images is looked up at the sources and checked as closely; not with `referrers` "off"
    (None: as each pair says). `read_at_once`: blobs that are read back at the same time. Returns for each
    pair, in the order given, what is wrong (None: nothing), and NoSuchPlatform also for one that may lack its
    platforms. Later runs don't count what was found wrong as complete because an earlier run put it there.
    """
    services.observe(PhaseStarted("resolve", len(pairs)))
    resolving = BoundedRunner(MAX_LOOKUPS)
    counts = services.meter.counts
    resolved = await resolve_roots(
        (pair.source for pair in pairs), services.source_at, resolving, count=counts["resolve"]
    )
    good = [pair for pair in pairs if pair.source in resolved.roots]
    services.observe(PhaseStarted("verify", len(good)))
    desired_images = await _desired_images(services, good, resolved.roots)
    roots = {pair: desired.root for pair, desired in desired_images.by_pair.items()}
    verification = Verification(
        services.source_at,
        services.sink_at,
        BoundedRunner(MAX_LOOKUPS if level == "roots" else MAX_SMALL_REQUESTS),
        read_at_once=read_at_once,
        manifest_budget=services.manifest_budget,
        count=counts["verify"],
    )
    images = {pair: desired.images for pair, desired in desired_images.by_pair.items()}
    looked_up = [pair for pair in roots if (referrers or pair.referrers) != "off"]
    hanging = await _Hanging(services, desired_images.by_pair).find(looked_up)
    wrong = await verification.check(roots, level, images, hanging.by_pair)
    wrong = {**hanging.failures, **wrong}
    for pair in wrong:
        mark_doubtful(services.journal, pair, resolved.roots[pair.source].digest, roots[pair].digest)
    wrong = {**desired_images.failures, **desired_images.skipped, **wrong}
    return {pair: wrong.get(pair) or resolved.failures.get(pair.source) for pair in pairs}


class _Hanging:
    """What refers to the pairs' images at their sources. The images are read at their targets, which have
    the same digests: many registries count what is read at a source."""

    def __init__(self, services: Services, desired_images: Mapping[Pair, DesiredImage]) -> None:
        self._services = services
        self._desired_images = desired_images
        self._runner = BoundedRunner(MAX_SMALL_REQUESTS)
        self._subjects: dict[Pair, Collection[Digest]] = {}

    async def find(self, pairs: Sequence[Pair]) -> ExpectedReferrers:
        """Find it, and tell observers of what the targets can't hold."""
        services = self._services
        await self._runner.for_each(self._read, pairs)
        lost = {pair: self._desired_images[pair].replaced for pair in pairs}
        everything = {pair: (*self._subjects.get(pair, ()), *lost[pair]) for pair in pairs}
        found = await expected_referrers(
            everything, services.source_at, self._runner, services.manifest_budget
        )
        held: dict[Pair, tuple[AttachedReferrer, ...]] = {}
        for pair, attached in found.by_pair.items():
            able = holds_referrers(pair, services.sink_at, services.source_at)
            below = set(lost[pair])
            kept = []
            for each in attached:
                if able and each.referrer.subject not in below:
                    kept.append(each)
                else:
                    below.update(manifest.descriptor.digest for manifest in each.manifests)
            held[pair] = tuple(kept)
            if len(kept) < len(attached):
                why = "another manifest was made of its subject" if able else "images alone are held there"
                left = len(attached) - len(kept)
                services.observe(
                    Warned(f"{pair.target} can't have {left} of what refers to {pair.source}: {why}")
                )
        return ExpectedReferrers(held, found.failures)

    async def _read(self, pair: Pair) -> None:
        """Find out which manifests the image has. What can't be read is found wrong by others."""
        desired = self._desired_images[pair]
        if desired.manifests:
            self._subjects[pair] = [manifest.descriptor.digest for manifest in desired.manifests]
            return
        pinned = Reference(pair.target.host, pair.target.repository, digest=desired.root.digest)
        read = await read_graph(
            {pinned: desired.root},
            self._services.source_at,
            self._runner,
            manifest_budget=self._services.manifest_budget,
            sparse=True,
        )
        below = read.graph.closure(desired.root.digest)
        self._subjects[pair] = [manifest.descriptor.digest for manifest in below] or [desired.root.digest]


async def _desired_images(
    services: Services, pairs: Sequence[Pair], roots: Mapping[Reference, Descriptor]
) -> DesiredImages:
    """What each pair's target tag should name. Where only some platforms are wanted that may be a pruned
    index, which is known only after reading the source's."""
    runner = BoundedRunner(MAX_SMALL_REQUESTS)
    partial = [pair for pair in pairs if not pair.choice.whole]
    read = await read_graph(
        {pair.source: roots[pair.source] for pair in partial},
        services.source_at,
        runner,
        choices=choices_of(partial),
        manifest_budget=services.manifest_budget,
    )
    targets = TargetLookups(partial, services.sink_at)
    tags = await survey_tags(partial, roots, targets, NullJournal(), runner)
    failures = {p: read.failures[p.source] for p in partial if p.source in read.failures} | tags.failures
    graph = msgspec.structs.replace(read.graph, roots=dict(roots))
    built = build_desired_images((p for p in pairs if p not in failures), graph, tags.tags)
    return DesiredImages(built.by_pair, {**failures, **built.failures}, built.skipped)
