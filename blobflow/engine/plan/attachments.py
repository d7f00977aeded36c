"""Attachments: referrers are mirrored with their images, where the targets can hold them.

The referrers of each wanted manifest are looked up at its source (`sources.referrers`) and attached to the
desired images that have their subjects. Referrers that can't be attached are skipped; the report says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from blobflow.content import Attaches, Rebuilds, Referrer, SinkAt, Site, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import AttachedReferrer, DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import (
    FoundReferrers,
    ManifestAt,
    ReferrerLookups,
    SkippedReferrer,
    find_referrers,
    list_referrers,
    listed_below,
)
from blobflow.errors import BlobflowError
from blobflow.oci import Digest
from blobflow.oci.hanging import would_run
from blobflow.oci.local_reference import DOCKER_ARCHIVE

REPLACED = "its subject is not at the target, another manifest was made of it"
IMAGES_ALONE = "its target holds images alone"
UNJUDGED = "it is an image, which the signature policy has not accepted; copied by its digest it is judged"


class WithReferrers(msgspec.Struct, frozen=True):
    """Desired images with their attached referrers, the graph that includes these, and the pairs whose lookup
    failed. `unknown`: pairs of which it is not known what was left, since their targets hold images alone and
    their sources could not say."""

    desired_images: dict[Pair, DesiredImage]
    graph: Graph
    failures: dict[Pair, BlobflowError]
    unknown: dict[Pair, BlobflowError]


async def attach_referrers(
    pairs: Iterable[Pair],
    desired_images: Mapping[Pair, DesiredImage],
    graph: Graph,
    source_at: SourceAt,
    sink_at: SinkAt,
    runner: BoundedRunner,
    lookups: ReferrerLookups,
    reader: GraphReader,
    judged: Collection[Pair] = (),
) -> WithReferrers:
    """Look up the referrers of these pairs' images, where their targets can hold them, and attach them: of
    `judged` pairs, for whose images there is a signature policy, not those that are images themselves.

    Where a target can't hold them they are listed as left, without being read. `reader` is the one that read
    the graph.
    """
    wanted = {
        pair: _told_of_rebuilt(desired_images[pair], source_at(site_of(pair.source)))
        for pair in pairs
        if pair in desired_images
    }
    able = [pair for pair in wanted if accepts_referrers(pair, sink_at)]
    places = [place for pair in able for place in _places(pair, wanted[pair], graph)]
    found = await find_referrers(places, graph, source_at, runner, lookups, reader)
    attached, failures = dict(desired_images), dict[Pair, BlobflowError]()
    for pair in able:
        site = site_of(pair.source)
        attached[pair] = _with_referrers(wanted[pair], site, found, judged=pair in judged)
        subjects = [
            *source_manifests(wanted[pair], graph),
            *(a.manifest.descriptor.digest for a in attached[pair].attached),
        ]
        for digest in subjects:
            if (site, digest) in found.failures:
                failures.setdefault(pair, found.failures[site, digest])
    unable = {pair: _places(pair, wanted[pair], graph) for pair in wanted.keys() - set(able)}
    listed = await list_referrers([place for own in unable.values() for place in own], runner, lookups)
    unknown = dict[Pair, BlobflowError]()
    for pair, own in sorted(unable.items()):
        left = tuple(SkippedReferrer(each, IMAGES_ALONE) for each in listed.below(own))
        attached[pair] = msgspec.structs.replace(desired_images[pair], left=left)
        for place in own:
            if place in listed.failures:
                unknown.setdefault(pair, listed.failures[place])
    return WithReferrers(attached, found.graph, failures, unknown)


def _told_of_rebuilt(desired: DesiredImage, source: object) -> DesiredImage:
    """The image, which also replaces what its source itself made its root of."""
    rebuilt = source.rebuilt(desired.root.digest) if isinstance(source, Rebuilds) else ()
    return msgspec.structs.replace(desired, replaced=(*desired.replaced, *rebuilt)) if rebuilt else desired


def _places(pair: Pair, desired: DesiredImage, graph: Graph) -> list[ManifestAt]:
    return [(site_of(pair.source), digest) for digest in source_manifests(desired, graph)]


def source_manifests(desired: DesiredImage, graph: Graph) -> list[Digest]:
    """An image's manifests as its source has them: for a rebuilt one, the one that it replaces."""
    digests = (manifest.descriptor.digest for manifest in desired.manifests)
    return [*(digest for digest in digests if digest in graph.manifests), *desired.replaced]


def accepts_referrers(pair: Pair, sink_at: SinkAt) -> bool:
    """Whether referrers of a pair's image are found again at its target. docker's archives list images alone,
    also where they are layouts beside that."""
    return pair.target.transport != DOCKER_ARCHIVE and isinstance(sink_at(site_of(pair.target)), Attaches)


def _with_referrers(
    desired: DesiredImage, site: Site, found: FoundReferrers, *, judged: bool
) -> DesiredImage:
    """The image with the referrers that were found at its source."""
    there = {manifest.descriptor.digest: None for manifest in desired.manifests}
    lost = [(site, digest) for digest in desired.replaced if digest not in there]
    left = [SkippedReferrer(each, REPLACED) for each in listed_below(found.referrers, lost, there)]
    left += [each for place in lost for each in found.strangers.get(place, ())]
    hanging, others = found.hanging(
        site, there, lambda closure: UNJUDGED if judged and any(map(would_run, closure)) else ""
    )
    return msgspec.structs.replace(
        desired,
        attached=tuple(AttachedReferrer(*each) for each in hanging),
        left=(*left, *others),
        referring=tuple(_referring(desired)),
    )


def _referring(desired: DesiredImage) -> Iterable[AttachedReferrer]:
    """Those of an image's own manifests that have a subject. The client that pushes one also lists it under
    the fallback tag where needed (distribution-spec, "Pushing Manifests with Subject")."""
    for manifest in desired.manifests:
        if manifest.subject is not None:
            yield AttachedReferrer(Referrer(manifest.descriptor, manifest.subject.digest, "api"), (manifest,))


def without_overwrites(
    desired_images: Mapping[Pair, DesiredImage], inventory: Inventory
) -> dict[Pair, DesiredImage]:
    """The images without referrers that would overwrite a tag at the target (`--no-overwrite`)."""
    return {
        pair: _without_overwrites(desired, site_of(pair.target), inventory)
        for pair, desired in desired_images.items()
    }


def _without_overwrites(desired: DesiredImage, site: Site, inventory: Inventory) -> DesiredImage:
    kept, left = [], list(desired.left)
    for each in desired.attached:
        tag = each.referrer.tag
        there = inventory.tags.get((site, tag)) if tag else None
        if there in (None, each.referrer.manifest.digest):
            kept.append(each)
        else:
            left.append(
                SkippedReferrer(
                    each.referrer, f"{tag} names {there} there; --no-overwrite leaves it as it is"
                )
            )
    return msgspec.structs.replace(desired, attached=tuple(kept), left=tuple(left))
