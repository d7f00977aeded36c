"""Blobs that a bundle omits because an older one had them, at registries where that one was loaded.

The survey finds a blob in the image's own repository. But a new image may share it with another that the
older bundle brought: then it is in that one's repository, and is mounted from there before the run, which
could only look for it in the archives. A blob that is not found fails in the run, by its digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from blobflow.content import Refers, Site, Source
from blobflow.engine.blob_readers import SourceReader
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.signature_checks import SignatureChecks, judged_manifests
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import ReferrerLookups
from blobflow.errors import BlobflowError, NotFound
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest

# Pairs processed at once, and repositories asked for one blob: those whose images have it come first.
_AT_ONCE = 8
_ASKED = 64


async def mount_omitted_blobs(
    pairs: Sequence[Pair],
    sources: Mapping[str, Source],
    held: Collection[Digest],
    services: Services,
    policy: Policy,
) -> None:
    """Mount into each pair's target what the archives do not hold and another pair's target does; nothing of
    images that a signature policy does not accept."""
    lacking: dict[Pair, list[Descriptor]] = {}
    for pair in pairs:
        source = sources.get(pair.source.repository)
        if source is None or pair.target.transport:
            continue
        blobs = await _blobs(source, pair, referrers=policy.lookup(pair) != "off")
        if left_out := [blob for blob in blobs if blob.digest not in held]:
            lacking[pair] = left_out
    lacking = await _accepted(lacking, sources, services, policy)
    homes = _homes(pairs, lacking)

    async def bring(pair: Pair) -> None:
        with suppress(BlobflowError):  # the run meets it too, and says whose image it fails
            await _bring(pair, lacking[pair], homes, services)

    await BoundedRunner(_AT_ONCE).for_each(bring, lacking)


async def _accepted(
    lacking: dict[Pair, list[Descriptor]],
    sources: Mapping[str, Source],
    services: Services,
    policy: Policy,
) -> dict[Pair, list[Descriptor]]:
    """Those of the pairs whose images are accepted, as far as they are judged at all."""
    reader = GraphReader(services.source_at, manifest_budget=services.manifest_budget)
    checks = SignatureChecks(policy, services, ReferrerLookups(services.source_at), reader)
    wanted: dict[Pair, list[Descriptor]] = {}
    for pair in checks.demanded(lacking):
        source = sources[pair.source.repository]
        root = await source.resolve(pair.source.name)
        wanted[pair] = judged_manifests(policy.judged, root, (await _closure(source, root)).values())
    if not wanted:
        return lacking
    failures = (await checks.check(wanted, BoundedRunner(_AT_ONCE))).failures
    return {pair: blobs for pair, blobs in lacking.items() if pair not in failures}


async def _blobs(source: Source, pair: Pair, *, referrers: bool) -> Iterable[Descriptor]:
    """Every blob of an image, and of what refers to it, each once; none of an image that the archives do not
    have."""
    try:
        manifests = await _closure(source, await source.resolve(pair.source.name))
    except NotFound:
        return ()
    waiting = list(manifests) if referrers else []
    while waiting and isinstance(source, Refers):
        for each in await source.referrers(waiting.pop()):
            if each.manifest.digest not in manifests:
                with suppress(BlobflowError):  # one that can't be read is left by the run, which says so
                    below = await _closure(source, each.manifest)
                    waiting += below.keys() - manifests.keys()
                    manifests |= below
    return {blob.digest: blob for each in manifests.values() for blob in each.blobs}.values()


async def _closure(source: Source, root: Descriptor) -> dict[Digest, Manifest]:
    """A manifest and all below it. Raises NotFound where one is not there."""
    found: dict[Digest, Manifest] = {}
    waiting = [root]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.digest not in found:
            found[descriptor.digest] = manifest = await _read(source, descriptor)
            waiting += manifest.manifests
    return found


async def _read(source: Source, manifest: Descriptor) -> Manifest:
    return parse_manifest(await source.read(manifest), manifest.media_type, digest=manifest.digest)


def _homes(
    pairs: Sequence[Pair], lacking: Mapping[Pair, Iterable[Descriptor]]
) -> dict[tuple[str, Digest], list[Site]]:
    """Where each blob may be at each host, the likeliest repositories first."""
    sites: dict[str, dict[Site, None]] = {}
    likely: dict[tuple[str, Digest], dict[Site, None]] = {}
    for pair in pairs:
        sites.setdefault(pair.target.host, {})[site_of(pair.target)] = None
        for blob in lacking.get(pair, ()):
            likely.setdefault((pair.target.host, blob.digest), {})[site_of(pair.target)] = None
    return {key: list(found | sites[key[0]])[:_ASKED] for key, found in likely.items()}


async def _bring(
    pair: Pair,
    blobs: Iterable[Descriptor],
    homes: Mapping[tuple[str, Digest], list[Site]],
    services: Services,
) -> None:
    site = site_of(pair.target)
    sink = services.sink_at(site)
    for blob in blobs:
        if await sink.has(blob):
            continue
        for home in homes[site.registry, blob.digest]:
            if home != site and await services.sink_at(home).has(blob):
                if not await sink.mount(blob, home):
                    await sink.push(blob, SourceReader(services.source_at(home), blob))
                break
