"""What refers to images, verified: is it at the targets what the sources have of it?

    expected   what a mirror brings with each image: asked of the sources
    listed     the target finds it as what refers to its subject, and has its manifests

What is below those manifests is verified like all content, see `engine.targets.verification`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from blobflow.content import Refers, SinkAt, Site, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import AttachedReferrer
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import ManifestAt, ReferrerLookups, find_referrers
from blobflow.errors import BlobflowError, DigestMismatch, NotFound
from blobflow.oci import Digest
from blobflow.oci.local_reference import DOCKER_ARCHIVE
from blobflow.oci.referrers import artifact_type_of


class ExpectedReferrers(msgspec.Struct, frozen=True):
    """What refers to each pair's image at its source, subjects first, and the pairs where that could not be
    found out."""

    by_pair: dict[Pair, tuple[AttachedReferrer, ...]]
    failures: dict[Pair, BlobflowError]


async def expected_referrers(
    subjects: Mapping[Pair, Collection[Digest]],
    source_at: SourceAt,
    runner: BoundedRunner,
    manifest_budget: ManifestBudget,
) -> ExpectedReferrers:
    """Ask the sources what refers to these manifests of the pairs' images, and to that in turn.

    What is listed and refers to something else, or is gone, is not expected: no mirror brings it.
    """
    places = [(site_of(pair.source), digest) for pair, digests in subjects.items() for digest in digests]
    reader = GraphReader(source_at, manifest_budget=manifest_budget)
    found = await find_referrers(
        places, Graph({}, {}, {}), source_at, runner, ReferrerLookups(source_at), reader
    )
    by_pair: dict[Pair, tuple[AttachedReferrer, ...]] = {}
    failures: dict[Pair, BlobflowError] = {}
    for pair, digests in subjects.items():
        site = site_of(pair.source)
        attached = tuple(AttachedReferrer(*each) for each in found.hanging(site, digests)[0])
        asked = {*digests, *(manifest.descriptor.digest for each in attached for manifest in each.manifests)}
        asked |= {
            each.manifest.digest for digest in asked for each in found.referrers.get((site, digest), ())
        }
        wrong = [digest for digest in sorted(asked) if (site, digest) in found.failures]
        if wrong:
            failures[pair] = found.failures[site, wrong[0]]
        else:
            by_pair[pair] = attached
    return ExpectedReferrers(by_pair, failures)


def holds_referrers(pair: Pair, sink_at: SinkAt, source_at: SourceAt) -> bool:
    """Whether a pair's target can hold what refers to its image."""
    return (
        pair.target.transport != DOCKER_ARCHIVE
        and _lists(site_of(pair.target), sink_at, source_at) is not None
    )


def _lists(site: Site, sink_at: SinkAt, source_at: SourceAt) -> Refers | None:
    """What tells the referrers at a target: an archive that is only looked at does as a source."""
    for place in (sink_at(site), source_at(site)):
        if isinstance(place, Refers):
            return place
    return None


class TargetReferrers:
    """What targets list for their manifests: asked for once."""

    def __init__(self, sink_at: SinkAt, source_at: SourceAt) -> None:
        self._sink_at = sink_at
        self._source_at = source_at
        self._found = AsyncMemo(self._ask)

    async def check(self, site: Site, attached: AttachedReferrer) -> None:
        """Raise NotFound where a target does not find a manifest as referrer of its subject, or lacks it or
        one below it, DigestMismatch where cosign's tag names another one, and what the target raises."""
        referrer, manifest = attached.referrer, attached.manifest
        digest, kind = manifest.descriptor.digest, artifact_type_of(manifest)
        what = f"{digest} ({kind})" if kind else digest
        listed = await self._found.get((site, referrer.subject))
        if referrer.tag:
            named = next((each for tag, each in listed if tag == referrer.tag), None)
            if named is None:
                raise NotFound(f"{site} has no tag {referrer.tag}, which is cosign's for {referrer.subject}")
            if named != digest:
                raise DigestMismatch(f"{site}:{referrer.tag}", expected=digest, actual=named)
        elif digest not in {each for _, each in listed}:
            raise NotFound(f"{site} does not list {what}, which refers to {referrer.subject}")
        for each in attached.manifests:
            if not await self._sink_at(site).has(each.descriptor):
                raise NotFound(
                    f"{site} has no manifest {each.descriptor.digest}, of what refers to its image"
                )

    async def _ask(self, place: ManifestAt) -> list[tuple[str, Digest]]:
        site, subject = place
        lists = _lists(site, self._sink_at, self._source_at)
        found = await lists.referrers(subject) if lists is not None else []
        return [(each.tag, each.manifest.digest) for each in found]
