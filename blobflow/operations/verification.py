"""Verification: do the targets have what the sources name now? Independent of any run; writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from blobflow.content import NullJournal
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.desired import DesiredImages, build_desired_images, choices_of
from blobflow.engine.policy import VerifyLevel
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.sources.roots import resolve_roots
from blobflow.engine.targets.audit import mark_doubtful
from blobflow.engine.targets.survey import TargetLookups, survey_tags
from blobflow.engine.targets.verification import Verification
from blobflow.errors import BlobflowError
from blobflow.events import PhaseStarted
from blobflow.oci import Descriptor, Reference


async def verify_pairs(
    services: Services, pairs: Sequence[Pair], level: VerifyLevel, *, read_at_once: int
) -> dict[Pair, BlobflowError | None]:
    """Check whether every pair's target has what the source names now, as closely as `level` says.

    `read_at_once`: blobs that are read back at the same time. Returns for each pair, in the order given, what
    is wrong (None: nothing), and NoSuchPlatform also for one that may lack its platforms. Later runs don't
    count what was found wrong as complete because an earlier run put it there.
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
    wrong = await verification.check(roots, level, images)
    for pair in wrong:
        mark_doubtful(services.journal, pair, resolved.roots[pair.source].digest, roots[pair].digest)
    wrong = {**desired_images.failures, **desired_images.skipped, **wrong}
    return {pair: wrong.get(pair) or resolved.failures.get(pair.source) for pair in pairs}


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
