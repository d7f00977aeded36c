"""Some platforms of many: what is read, what is put, and what a second run asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.oci import (
    Digest,
    Platform,
    Reference,
    media,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import ALL, AMD64, ARM64, ARMV7, SITE, Image, built, run, wanted


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MirrorScenario]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield MirrorScenario(store, SampleSet({}, {}, {}))


async def test_a_sparse_index_is_kept_where_it_is_taken(bench: MirrorScenario) -> None:
    root = built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    report = await run(bench, wanted(ARM64, AMD64))
    assert target.tags[SITE, "1"] == root.descriptor.digest
    assert len(target.manifests[SITE]) == 1 + 2 + 2
    [image] = report.images
    assert image.digest == image.source_digest == root.descriptor.digest
    assert image.platforms == ("linux/amd64", "linux/arm64")
    assert bench.source.count("read") == 5, "what nobody wants is not even read"

    await run(bench, wanted(ARM64, AMD64))
    assert bench.source.calls.total() == target.calls.total() == 1, "each tag is asked for"


async def test_auto_prunes_where_a_sparse_index_is_refused_and_knows_it_afterwards(
    bench: MirrorScenario,
) -> None:
    root, other = built(bench.source), built(bench.source, "other")
    target = bench.target()
    report = await run(bench, wanted(ARM64))
    [image] = report.images
    pruned = parse_manifest(target.manifests[SITE][Digest(image.digest)][1], media.OCI_INDEX)
    assert target.tags[SITE, "1"] == image.digest != image.source_digest == root.descriptor.digest
    assert [str(child.platform) for child in pruned.manifests] == ["linux/arm64", "unknown/unknown"]
    assert image.platforms == ("linux/arm64",)

    again = await run(bench, wanted(ARM64))
    assert [each.status for each in again.images] == ["present"]
    assert bench.source.count("read") == target.count("put") == target.count("push") == 0

    await run(bench, wanted(ARM64, repository="other"))
    puts = [name for (call, name) in target.calls if call == "put"]
    assert other.descriptor.digest not in puts, "it is remembered that the registry refuses"


async def test_a_run_that_remembers_nothing_finds_the_pruned_index_whole(
    bench: MirrorScenario, tmp_path: Path
) -> None:
    built(bench.source)
    target = bench.target()
    await run(bench, wanted(ARM64))
    with closing(Store.open(tmp_path / "elsewhere")) as store:
        bench.reopen(store)
        report = await run(bench, wanted(ARM64))
    assert [each.status for each in report.images] == ["present"]
    assert target.count("put") == target.count("push") == target.count("mount") == 0


async def test_prune_and_only_do_what_they_say(bench: MirrorScenario) -> None:
    root = built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    await run(bench, wanted(AMD64, index="prune"))
    assert target.tags[SITE, "1"] != root.descriptor.digest
    await run(bench, wanted(index="only"))
    assert target.tags[SITE, "1"] == root.descriptor.digest
    assert target.count("push") == 0 and target.count("put") == 1
    assert bench.source.count("read") == 1


async def test_keep_says_what_else_there_is_where_it_is_refused(bench: MirrorScenario) -> None:
    built(bench.source)
    target = bench.target()
    report = await run(bench, wanted(ARM64, index="keep"))
    [image] = report.images
    assert image.status == "failed"
    assert "takes no sparse index: use --index prune, or --index auto" in image.error
    assert (SITE, "1") not in target.tags


async def test_a_sparse_index_is_completed_by_another_run(bench: MirrorScenario) -> None:
    root = built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    await run(bench, wanted(ARM64))
    report = await run(bench, wanted(*ALL))
    assert [each.status for each in report.images] == ["done"]
    assert target.count("push") == 4 + 2, "two configs and layers, and two attestations' layers"
    everything = [Pair(pair.source, pair.target) for pair in wanted()]
    assert [each.status for each in (await run(bench, everything)).images] == ["present"]
    assert target.manifests[SITE].keys() == bench.source.manifests[Site("source", "app")].keys()
    assert target.tags[SITE, "1"] == root.descriptor.digest


async def test_two_choices_of_one_tag_are_a_clash(bench: MirrorScenario) -> None:
    built(bench.source)
    bench.target()
    report = await run(bench, wanted(ARM64) + wanted(AMD64))
    assert [each.status for each in report.images] == ["failed", "failed"]
    assert "which differ" in report.images[0].error


@pytest.mark.parametrize("sparse", [True, False])
async def test_nested_indexes_are_kept_or_pruned_all_the_way_down(
    bench: MirrorScenario, sparse: bool
) -> None:
    image = Image(bench.source)
    inner = image.index(*(image.item(image.child(str(each)), str(each)) for each in (AMD64, ARM64)))
    lone = image.index(image.item(image.child(str(ARMV7)), str(ARMV7)))
    root = image.index(image.item(inner), image.item(lone), tag="1")
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    report = await run(bench, wanted(ARM64))
    [record] = report.images
    assert record.status == "done" and record.platforms == ("linux/arm64",)
    assert (record.digest == root.descriptor.digest) == sparse
    put = [parse_manifest(raw, kind) for kind, raw in target.manifests[SITE].values()]
    assert sorted(each.is_index for each in put) == [False, True, True]
    assert [each.status for each in (await run(bench, wanted(ARM64))).images] == ["present"]


async def test_platforms_that_match_nothing_say_what_there_is(bench: MirrorScenario) -> None:
    built(bench.source)
    bench.target()
    pairs = [
        msgspec.structs.replace(p, choice=PlatformChoice((parse_platform("linux/s390x"),))) for p in wanted()
    ]
    report = await run(bench, pairs)
    assert (
        "there is no linux/s390x here; there is linux/amd64, linux/arm64, linux/arm/v7"
        in report.images[0].error
    )


async def test_a_single_image_says_by_its_config_what_it_is(bench: MirrorScenario) -> None:
    Image(bench.source).child("linux/arm64", tag="1")
    target = bench.target()
    report = await run(bench, wanted(AMD64))
    assert "there is no linux/amd64 here; there is linux/arm64" in report.images[0].error
    report = await run(bench, wanted(ARM64))
    assert report.images[0].status == "done" and (SITE, "1") in target.tags
    assert report.images[0].platforms == ("linux/arm64",)


async def test_what_an_image_has_that_can_not_be_planned_is_not_counted_as_present(
    bench: MirrorScenario,
) -> None:
    Image(bench.source).child("linux/arm64", tag="1")
    Image(bench.source, "other").child("linux/amd64", tag="1")
    bench.target()
    pairs = wanted(AMD64) + wanted(AMD64, repository="other")
    planned = await plan_pairs(pairs, bench.services())
    assert set(planned.failures) == {pairs[0]}
    assert (planned.cost.images, planned.cost.blobs_unique, planned.cost.blobs_present) == (1, 2, 0)


async def test_children_without_a_platform_are_chosen_by_their_configs(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    image.index(*(image.item(image.child(str(each))) for each in ALL), tag="1")
    target = bench.target()
    report = await run(bench, wanted(ARM64, AMD64, index="prune"))
    assert report.images[0].status == "done"
    assert target.count("push") == 4


async def test_wanting_all_by_name_is_wanting_all(bench: MirrorScenario) -> None:
    root = built(bench.source)
    target = bench.target()
    report = await run(bench, wanted(*ALL))
    assert report.images[0].digest == root.descriptor.digest == target.tags[SITE, "1"]


@pytest.mark.parametrize("level", ["roots", "blobs", "content"])
@pytest.mark.parametrize("sparse", [True, False])
async def test_what_was_chosen_is_verified(bench: MirrorScenario, level: str, sparse: bool) -> None:
    built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    policy = Policy(verify=level)  # type: ignore[arg-type]
    report = await run(bench, wanted(ARM64), policy)
    assert [each.status for each in report.images] == ["done"]
    target.blobs[SITE].clear()
    report = await run(bench, wanted(ARM64), policy)
    assert [each.status for each in report.images] == ["present" if level == "roots" else "done"]


@pytest.mark.parametrize("platforms", [(), (ARM64,)], ids=["all", "one"])
async def test_a_target_that_takes_one_format_gets_that(
    bench: MirrorScenario, platforms: tuple[Platform, ...]
) -> None:
    built(bench.source)
    target = bench.target()
    [pair] = wanted()
    choice = PlatformChoice(platforms, "auto", "v2s2")
    report = await run(bench, [msgspec.structs.replace(pair, choice=choice)])
    [image] = report.images
    assert image.status == "done" and image.digest != image.source_digest
    kinds = {kind for kind, _ in target.manifests[SITE].values()}
    assert kinds == {media.DOCKER_LIST, media.DOCKER_MANIFEST}
    put = [parse_manifest(raw, kind) for kind, raw in target.manifests[SITE].values()]
    assert sorted(str(child.platform) for each in put for child in each.manifests) == sorted(
        map(str, platforms or ALL)
    )
    assert {each.config.media_type for each in put if each.config} == {media.DOCKER_CONFIG}
    again = await run(bench, [msgspec.structs.replace(pair, choice=choice)])
    assert [each.status for each in again.images] == ["present"]

    back = Pair(
        Reference("target", "app", "1"), Reference("source", "back", "1"), PlatformChoice((), "auto", "oci")
    )
    report = await run(bench, [back])
    assert report.images[0].status == "done"
    kinds = {kind for kind, _ in bench.source.manifests[Site("source", "back")].values()}
    assert kinds == {media.OCI_INDEX, media.OCI_MANIFEST}


async def test_what_the_other_format_has_no_word_for_is_said(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    layer = image.blob(b"zstd", "application/vnd.oci.image.layer.v1.tar+zstd")
    config = image.blob(b"{}", media.OCI_CONFIG)
    image.put({"config": config, "layers": [layer]}, media.OCI_MANIFEST, "1")
    bench.target()
    [pair] = wanted()
    report = await run(bench, [msgspec.structs.replace(pair, choice=PlatformChoice((), "auto", "v2s2"))])
    assert "tar+zstd', for which the other format has no word" in report.images[0].error


async def test_a_form_made_anew_that_is_there_gets_another_tag(bench: MirrorScenario) -> None:
    """As of two versions that differ in a platform that nobody wants, or of a tag that was moved."""
    image = Image(bench.source)
    kept, one, other = image.child("linux/amd64"), image.child("linux/arm64"), image.child("linux/arm/v7")
    first = [image.item(kept, "linux/amd64"), image.item(one, "linux/arm64")]
    second = [image.item(kept, "linux/amd64"), image.item(other, "linux/arm/v7")]
    image.index(*first, tag="1")
    image.index(*second, tag="2")
    target = bench.target()
    await run(bench, wanted(AMD64, index="prune"))
    report = await run(bench, wanted(AMD64, index="prune", tag="2"))
    assert [each.status for each in report.images] == ["done"]
    assert target.tags[SITE, "1"] == target.tags[SITE, "2"] == report.images[0].digest
