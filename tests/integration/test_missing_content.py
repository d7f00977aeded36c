"""What a registry names as lacking: brought in the same run, once, whatever it said of it before."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from blobflow.content import BlobReader, Site
from blobflow.errors import Rejected
from blobflow.oci import Descriptor, Digest, parse_manifest, parse_platform
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.saved_plans import applied, saved_by, statuses

ARM64 = PlatformChoice((parse_platform("linux/arm64"),))


class Believed(MemoryRegistry):
    """A registry before which a cache says that `kept` is there. Of what it lacks it names `named` things at
    once. `lost`: blobs that it takes and does not find."""

    def __init__(self, name: str, *, sparse: bool = False) -> None:
        super().__init__(name, sparse=sparse)
        self.kept: set[Digest] = set()
        self.lost: set[Digest] = set()
        self.named = 1000

    def at(self, site: Site) -> MemoryPlace:
        return _Place(self, site)


class _Place(MemoryPlace):
    def __init__(self, registry: Believed, site: Site) -> None:
        super().__init__(registry, site)
        self._believed = registry

    async def is_empty(self) -> bool:
        return False

    async def has(self, content: Descriptor) -> bool:
        return await super().has(content) or content.digest in self._believed.kept

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        return await super().mount(blob, origin) or blob.digest in self._believed.kept

    async def push(self, blob: Descriptor, body: BlobReader) -> None:
        await super().push(blob, body)
        if blob.digest in self._believed.lost:
            del self._blobs()[blob.digest]

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        try:
            await super().put(manifest, raw, tags)
        except Rejected as error:
            error.missing = error.missing[: self._believed.named]
            raise


def believed(bench: MirrorScenario, *, sparse: bool = False) -> Believed:
    target = bench.targets["target"] = Believed("target", sparse=sparse)
    return target


def all_of(bench: MirrorScenario) -> set[Digest]:
    """Every digest of the sample but those of the roots."""
    roots = {image.digest for image in bench.sample.images.values()}
    return {Digest(each) for each in (*bench.sample.blobs, *bench.sample.manifests) if each not in roots}


@pytest.mark.parametrize("named", [1, 1000])
async def test_what_a_cache_had_said_to_be_there_is_brought_once(store: Store, named: int) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench)
    target.kept, target.named = all_of(bench), named
    report = await bench.mirror()
    assert report.ok, report.images
    bench.assert_whole(target)
    assert report.totals.blobs_copied == len(bench.blobs())
    assert report.totals.manifests_put == sum(map(len, target.manifests.values()))
    pushed = {name: n for (call, name), n in target.calls.items() if call == "push"}
    assert pushed == dict.fromkeys(bench.blobs(), 1)
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)


async def test_what_several_images_of_a_repository_lack_comes_once(store: Store) -> None:
    bench = MirrorScenario(store)
    target = believed(bench)
    target.kept = {Digest(each) for each in bench.sample.blobs}
    pairs = [
        msgspec.structs.replace(
            pair, target=msgspec.structs.replace(pair.target, repository="all", tag=f"t{number}")
        )
        for number, pair in enumerate(bench.pairs)
    ]
    report = await bench.mirror(pairs=pairs)
    assert report.ok, report.images
    assert target.blobs[Site("target", "all")].keys() == {Digest(each) for each in bench.sample.blobs}
    assert max(n for (call, _), n in target.calls.items() if call == "push") == 1


async def test_what_is_brought_and_still_not_found_fails_with_a_sentence(store: Store) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench)
    lost = Digest(min(bench.sample.blobs))
    target.kept = target.lost = {lost}
    report = await bench.mirror()
    assert statuses(report) == ["failed"]
    assert "brought just now" in report.images[0].error
    assert target.calls["push", lost] == 1


async def test_what_the_source_lost_as_well_is_the_source_s_error(store: Store) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench)
    gone = Digest(min(bench.sample.blobs))
    target.kept = {gone}
    for blobs in bench.source.blobs.values():
        blobs.pop(gone, None)
    report = await bench.mirror()
    assert statuses(report) == ["failed"]
    assert report.images[0].error.startswith("source: ") and gone in report.images[0].error


@pytest.mark.parametrize("sparse", [True, False])
async def test_platforms_that_were_not_chosen_stay_absent(store: Store, sparse: bool) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench, sparse=sparse)
    target.kept = all_of(bench)
    if sparse:  # then the index is taken without its images, and nobody names what is lacking
        target.kept -= {Digest(each) for each in bench.sample.manifests}
    pairs = [msgspec.structs.replace(pair, choice=ARM64) for pair in bench.pairs]
    report = await bench.mirror(pairs=pairs)
    assert report.ok, report.images
    (site,) = target.manifests
    root = target.tags[site, pairs[0].target.tag]
    assert (root == report.images[0].source_digest) is sparse
    kind, raw = target.manifests[site][root]
    whole = parse_manifest(
        bench.source.manifests[Site("source", site.repository)][Digest(report.images[0].source_digest)][1]
    )
    here = {each.digest for each in parse_manifest(raw, kind).manifests} & target.manifests[site].keys()
    assert 0 < len(here) < len(whole.manifests)


async def test_a_saved_plan_brings_what_was_there_when_it_was_made(store: Store) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench)
    target.kept = all_of(bench)
    saved = await saved_by(bench)
    report = await applied(bench, saved)
    assert statuses(report) == ["done"], report.images
    bench.assert_whole(target)
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)


async def test_a_saved_plan_says_what_can_not_be_brought_any_more(store: Store) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = believed(bench)
    target.kept = all_of(bench)
    saved = await saved_by(bench)
    site = Site("source", bench.pairs[0].source.repository)
    for digest in target.kept & bench.source.manifests[site].keys():
        del bench.source.manifests[site][digest]
    report = await applied(bench, saved)
    assert statuses(report) == ["failed"]
    assert report.images[0].error.endswith("make the plan anew")
