"""What has none of the platforms that are chosen: what has no platform at all, and images for others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import MissingPlatform, Pair
from blobflow.engine.plan.preview import preview_images
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import ImageRecord
from blobflow.engine.saved.plan import check_saved_plan
from blobflow.engine.sources.configs import MAX_CONFIG_BYTES
from blobflow.engine.targets.verification import Verification
from blobflow.oci import Digest, Manifest, Reference, digest_of, media, parse_manifest
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import AMD64, ARM64, ARMV7, SITE, Image, run, wanted
from tests.scenarios.saved_plans import applied, saved_by
from tests.scenarios.signed_images import OCI_EMPTY

HELM = "application/vnd.cncf.helm.config.v1+json"
NOISE = bytes(range(256)) * 4096
WORDS = json.dumps({"architecture": "amd64", "os": "linux"}).encode()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MirrorScenario]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield MirrorScenario(store, SampleSet({}, {}, {}))


def artifact(
    image: Image,
    config: bytes = b"{}",
    kind: str = OCI_EMPTY,
    *,
    tag: str = "1",
    of: str = media.OCI_MANIFEST,
) -> Manifest:
    layer = image.blob(b"files of " + config[:64], "application/octet-stream")
    return image.put({"config": image.blob(config, kind), "layers": [layer]}, of, tag)


def may_skip(pairs: list[Pair], word: MissingPlatform = "skip") -> list[Pair]:
    return [msgspec.structs.replace(pair, missing_platform=word) for pair in pairs]


ARTIFACTS = {
    "oras": (b"{}", OCI_EMPTY),
    "oras of old": (b"{}", "application/vnd.unknown.config.v1+json"),
    "conda": (b"", "application/vnd.unknown.config.v1+json"),
    "helm": (b'{"name":"chart","version":"1"}', HELM),
    "helm that names words": (WORDS, HELM),
    "wasm": (b'{"architecture":"wasm","os":"wasip1"}', "application/vnd.wasm.config.v0+json"),
    "cosign": (b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}', media.OCI_CONFIG),
    "attestation": (b'{"architecture":"unknown","os":"unknown"}', media.OCI_CONFIG),
    "empty image config": (b"", media.OCI_CONFIG),
    "empty object": (b"{}", media.DOCKER_CONFIG),
    "nulls": (b'{"architecture":null,"os":null}', media.OCI_CONFIG),
    "no object": (b"[1,2]", media.OCI_CONFIG),
    "no words": (b'{"architecture":7,"os":["linux"]}', media.OCI_CONFIG),
    "no JSON": (NOISE, media.OCI_CONFIG),
    "a layer for a config": (NOISE, "application/octet-stream"),
    "longer than any platform": (b'{"os":"%s"}' % (b"x" * 2000), media.OCI_CONFIG),
    "nested a thousandfold": (b"[" * 100_000, media.OCI_CONFIG),
}


@pytest.mark.parametrize("word", ["fail", "skip"])
@pytest.mark.parametrize("name", ARTIFACTS)
async def test_what_has_no_platform_is_carried_as_it_is(
    bench: MirrorScenario, name: str, word: MissingPlatform
) -> None:
    made = artifact(Image(bench.source), *ARTIFACTS[name])
    target = bench.target()
    report = await run(bench, may_skip(wanted(ARM64), word))
    [image] = report.images
    assert (image.status, image.error, image.reason, image.platforms) == ("done", "", "", ())
    assert target.tags[SITE, "1"] == made.descriptor.digest
    assert target.blobs[SITE] == bench.source.blobs[Site("source", "app")]


@pytest.mark.parametrize(
    ("config", "kind", "reads"),
    [
        (WORDS, media.OCI_CONFIG, 1),
        (WORDS, media.DOCKER_CONFIG, 1),
        (WORDS, f"{media.OCI_CONFIG}; charset=utf-8", 1),
        (WORDS, "application/octet-stream", 1),
        (WORDS, "", 1),
        (WORDS, HELM, 0),
        (b"", media.OCI_CONFIG, 0),
        (b"x" * (MAX_CONFIG_BYTES + 1), media.OCI_CONFIG, 0),
        (b" " * (MAX_CONFIG_BYTES - len(WORDS)) + WORDS, media.OCI_CONFIG, 1),
    ],
)
async def test_a_config_is_read_only_where_it_may_be_an_images(
    bench: MirrorScenario, config: bytes, kind: str, reads: int
) -> None:
    artifact(Image(bench.source), config, kind)
    bench.target()
    planned = await plan_pairs(may_skip(wanted(ARM64)), bench.services())
    assert bench.source.count("open") == reads
    names = config.strip() == WORDS and kind != HELM
    assert len(planned.skipped) == names and not planned.failures


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({"architecture": "arm64", "os": "linux", "variant": None, "os.features": None}, True),
        ({"architecture": "aarch64", "os": "linux"}, True),
        ({"architecture": "arm64"}, True),
        ({"architecture": "amd64", "os": None}, False),
        ({"architecture": "arm64", "os": "windows"}, False),
    ],
)
async def test_an_image_is_chosen_by_what_its_config_says(
    bench: MirrorScenario, said: dict[str, object], fits: bool
) -> None:
    artifact(Image(bench.source), json.dumps(said).encode(), media.OCI_CONFIG)
    bench.target()
    [image] = (await run(bench, may_skip(wanted(ARM64)))).images
    assert image.status == ("done" if fits else "skipped")


@pytest.mark.parametrize("index", ["auto", "keep", "prune"])
async def test_an_index_without_platforms_goes_along_whole(bench: MirrorScenario, index: str) -> None:
    image = Image(bench.source)
    parts = [artifact(image, name.encode(), HELM, tag="") for name in ("one", "two")]
    nested = image.index(image.item(parts[1]))
    root = image.index(
        image.item(parts[0]), image.item(parts[1], "unknown/unknown"), image.item(nested), tag="1"
    )
    target = bench.target()
    [record] = (await run(bench, wanted(ARM64, index=index))).images  # type: ignore[arg-type]
    assert (record.status, record.digest, record.platforms) == ("done", root.descriptor.digest, ())
    assert target.manifests[SITE].keys() == bench.source.manifests[Site("source", "app")].keys()


async def test_an_index_of_nothing_has_no_platform_either(bench: MirrorScenario) -> None:
    root = Image(bench.source).index(tag="1")
    bench.target()
    assert (await run(bench, wanted(ARM64))).images[0].digest == root.descriptor.digest


async def test_what_has_no_platform_stays_in_an_index_whichever_image_is_chosen(
    bench: MirrorScenario,
) -> None:
    image = Image(bench.source)
    sbom = artifact(image, tag="")
    images = [image.item(image.child(str(each)), str(each)) for each in (AMD64, ARM64)]
    image.index(*images, image.item(sbom), tag="1")
    target = bench.target()
    [record] = (await run(bench, wanted(ARM64))).images
    made = parse_manifest(target.manifests[SITE][Digest(record.digest)][1], media.OCI_INDEX)
    assert [each.digest for each in made.manifests] == [images[1]["digest"], sbom.descriptor.digest]
    assert record.platforms == ("linux/arm64",)

    [record] = (await run(bench, may_skip(wanted(ARMV7)))).images
    assert record.status == "skipped", "an index has to have an image for the platform, if it has any"


async def lacking(bench: MirrorScenario) -> list[Pair]:
    """A set of an image for arm64 alone, one for amd64 as well, and an artifact; amd64 is wanted."""
    Image(bench.source, "arm").child("linux/arm64", tag="1")
    both = Image(bench.source, "both")
    both.index(*(both.item(both.child(str(each)), str(each)) for each in (AMD64, ARM64)), tag="1")
    artifact(Image(bench.source, "chart"), b'{"name":"chart"}', HELM)
    return [pair for name in ("arm", "both", "chart") for pair in may_skip(wanted(AMD64, repository=name))]


def told(image: ImageRecord) -> tuple[str, str, str, str]:
    return image.status, image.error, image.reason, image.digest


WHY = "there is no linux/amd64 here; there is linux/arm64"


async def test_an_image_for_other_platforms_is_skipped_with_a_reason(bench: MirrorScenario) -> None:
    pairs = await lacking(bench)
    target = bench.target()
    for _ in range(2):
        report = await run(bench, pairs)
        assert report.ok
        assert told(report.images[0]) == ("skipped", "", WHY, "")
        assert {image.status for image in report.images[1:]} <= {"done", "present"}
        assert (report.totals.images, report.totals.failed, report.totals.skipped) == (3, 0, 1)
        assert report.targets[0].skipped == 1
        assert (Site("target", "arm"), "1") not in target.tags

    report = await run(bench, [msgspec.structs.replace(pairs[0], missing_platform="fail"), *pairs[1:]])
    assert (report.images[0].status, report.images[0].reason) == ("failed", "")
    assert report.images[0].error == f"source: source/arm:1: {WHY}"
    assert not report.ok


async def test_a_skipped_image_fails_no_run_that_fails_fast(bench: MirrorScenario) -> None:
    pairs = await lacking(bench)
    bench.target()
    report = await run(bench, pairs, Policy(keep_going=False))
    assert [image.status for image in report.images] == ["skipped", "done", "done"]


async def test_what_the_target_has_under_the_tag_of_a_skipped_image_stays(bench: MirrorScenario) -> None:
    [pair, *_] = await lacking(bench)
    target = bench.target()
    before = await run(bench, [msgspec.structs.replace(pair, choice=wanted(ARM64)[0].choice)])
    report = await run(bench, [pair])
    assert told(report.images[0]) == ("skipped", "", WHY, before.images[0].digest)
    assert target.count("put") == target.count("push") == 0


async def test_a_plan_says_what_it_skips_and_a_saved_one_keeps_it(bench: MirrorScenario) -> None:
    pairs = await lacking(bench)
    bench.target()
    planned = await plan_pairs(pairs, bench.services())
    assert planned.skipped == {pairs[0]: WHY} and not planned.failures
    assert [(each.status, each.reason, each.bare) for each in preview_images(planned)] == [
        ("skipped", WHY, False),
        ("mirror", "", False),
        ("mirror", "", True),
    ]
    assert planned.cost.images == 2 and planned.cost.blobs_unique == 4

    saved = await saved_by(bench, pairs=pairs)
    report = await applied(bench, saved)
    assert report.ok
    assert sorted(told(image)[:3] for image in report.images) == [
        ("done", "", ""),
        ("done", "", ""),
        ("skipped", "", WHY),
    ]
    assert (report.totals.images, report.totals.skipped, report.targets[0].skipped) == (3, 1, 1)


async def test_a_saved_plan_may_skip_all_it_has(bench: MirrorScenario) -> None:
    [pair, *_] = await lacking(bench)
    target = bench.target()
    saved = await saved_by(bench, pairs=[pair])
    report = await applied(bench, saved)
    assert [told(image)[:3] for image in report.images] == [("skipped", "", WHY)]
    assert not target.calls


@pytest.mark.parametrize("late", [False, True], ids=["known at once", "a target each"])
async def test_several_targets_each_skip_it(bench: MirrorScenario, late: bool) -> None:
    pairs = await lacking(bench)
    targets = ["target", "other"]
    for name in targets:
        bench.target(name)
    pairs = [
        msgspec.structs.replace(pair, target=Reference(name, pair.target.repository, "1"))
        for name in targets
        for pair in pairs
    ]
    services = bench.services(patience=0.0) if late else bench.services()
    report = await run_of_pairs(pairs, KEEP_GOING).execute(services)
    assert [image.status for image in report.images] == ["skipped", "done", "done"] * 2
    assert [target.skipped for target in report.targets] == [1, 1]


def twice(image: Image, *platforms: str) -> tuple[Manifest, Manifest]:
    """One image that an index lists for several platforms, and the index."""
    child = image.child(platforms[0])
    return child, image.index(*(image.item(child, each) for each in platforms), tag="1")


@pytest.mark.parametrize("index", ["auto", "keep"])
@pytest.mark.parametrize("sparse", [True, False])
async def test_an_index_that_loses_nothing_by_a_choice_stays_whole(
    bench: MirrorScenario, index: str, sparse: bool
) -> None:
    """One digest for two platforms: it is there, so the index is whole, also where no sparse one is taken."""
    _, root = twice(Image(bench.source), "linux/amd64", "linux/arm64")
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    for status in ("done", "present"):
        [record] = (await run(bench, wanted(ARM64, index=index))).images  # type: ignore[arg-type]
        assert (record.status, record.digest) == (status, root.descriptor.digest)
    assert len(target.manifests[SITE]) == 2


async def test_pruning_drops_entries_and_not_digests(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    child, root = twice(image, "linux/amd64", "linux/arm64")
    target = bench.target()
    [record] = (await run(bench, wanted(ARM64, index="prune"))).images
    made = parse_manifest(target.manifests[SITE][Digest(record.digest)][1], media.OCI_INDEX)
    assert [(each.digest, str(each.platform)) for each in made.manifests] == [
        (child.descriptor.digest, "linux/arm64")
    ]
    assert record.platforms == ("linux/arm64",) and record.digest != root.descriptor.digest


async def test_where_another_digest_is_left_out_the_entries_of_a_chosen_one_go_too(
    bench: MirrorScenario,
) -> None:
    image = Image(bench.source)
    one, other = image.child("linux/amd64"), image.child("linux/arm/v7")
    items = [
        image.item(one, "linux/amd64"),
        image.item(one, "linux/arm64"),
        image.item(other, "linux/arm/v7"),
    ]
    image.index(*items, tag="1")
    target = bench.target()
    [record] = (await run(bench, wanted(ARM64))).images
    made = parse_manifest(target.manifests[SITE][Digest(record.digest)][1], media.OCI_INDEX)
    assert [str(each.platform) for each in made.manifests] == ["linux/arm64"]


@pytest.mark.parametrize("told_of", [True, False], ids=["nested beside", "nested alone"])
async def test_a_nested_index_that_loses_nothing_is_named_as_it_is(
    bench: MirrorScenario, told_of: bool
) -> None:
    image = Image(bench.source)
    child = image.child("linux/amd64")
    inner = image.index(image.item(child, "linux/amd64"), image.item(child, "linux/arm64"))
    other = image.child("linux/arm/v7")
    items = [image.item(inner), *([image.item(other, "linux/arm/v7")] if told_of else [])]
    root = image.index(*items, tag="1")
    target = bench.target()
    [record] = (await run(bench, wanted(ARM64))).images
    assert record.status == "done"
    assert (record.digest == root.descriptor.digest) is not told_of
    assert inner.descriptor.digest in target.manifests[SITE]


async def test_equal_entries_twice_are_one(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    child = image.item(image.child("linux/arm64"), "linux/arm64")
    root = image.index(child, child, tag="1")
    bench.target()
    [record] = (await run(bench, wanted(ARM64, index="prune"))).images
    assert record.digest == root.descriptor.digest, "nothing is left out"


def untold(bench: MirrorScenario) -> Image:
    """An index that says of no child what it runs on."""
    image = Image(bench.source)
    image.index(*(image.item(image.child(str(each))) for each in (AMD64, ARM64, ARMV7)), tag="1")
    return image


@pytest.mark.parametrize("level", ["blobs", "content"])
@pytest.mark.parametrize("sparse", [True, False])
async def test_what_was_chosen_of_an_index_without_platforms_is_verified(
    bench: MirrorScenario, level: str, sparse: bool
) -> None:
    image = untold(bench)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    policy = Policy(verify=level)  # type: ignore[arg-type]
    for statuses in (["done"], ["present"]):
        report = await run(bench, wanted(ARM64, AMD64), policy)
        assert [each.status for each in report.images] == statuses, report.images
    chosen = image.children["linux/arm64"].descriptor.digest
    assert digest_of(target.manifests[SITE][chosen][1]) == chosen


async def test_a_saved_plan_of_an_index_without_platforms_is_verified(bench: MirrorScenario) -> None:
    untold(bench)
    bench.targets["target"] = MemoryRegistry("target", sparse=True)
    saved = await saved_by(bench, Policy(verify="blobs"), wanted(ARM64))
    assert [image.status for image in (await applied(bench, saved)).images] == ["done"]


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
async def test_a_chosen_image_that_is_gone_is_missed(bench: MirrorScenario, told: bool, known: bool) -> None:
    """Where no index tells the platform, only who chose knows what has to be there."""
    image = Image(bench.source)
    items = [image.item(image.child(str(each)), str(each) if told else "") for each in (AMD64, ARM64, ARMV7)]
    image.index(*items, tag="1")
    target = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    [pair] = wanted(ARM64, AMD64)
    await run(bench, [pair])
    gone = image.children["linux/arm64"].descriptor.digest
    del target.manifests[SITE][gone]
    services = bench.services()
    check = Verification(services.source_at, services.sink_at, BoundedRunner(4), read_at_once=1)
    root = await services.source_at(Site("source", "app")).resolve("1")
    chosen = {image.children[each].descriptor.digest for each in ("linux/arm64", "linux/amd64")}
    wrong = await check.check({pair: root}, "blobs", {pair: frozenset(chosen)} if known else {})
    assert [str(error) for error in wrong.values()] == (
        [f"target: target/app has no manifest {gone}, which was chosen of {root.digest}"]
        if told or known
        else []
    )


@pytest.mark.parametrize("kind", [None, "", media.DOCKER_MANIFEST])
async def test_what_an_entry_is_decides_and_not_what_its_index_calls_it(
    bench: MirrorScenario, kind: str | None
) -> None:
    image = Image(bench.source)
    items = [image.item(image.child(str(each))) for each in (AMD64, ARM64)]
    for item in items:
        item.pop("mediaType")
        if kind is not None:
            item["mediaType"] = kind
    image.index(*items, tag="1")
    bench.targets["target"] = MemoryRegistry("target", sparse=True)
    [record] = (await run(bench, wanted(ARM64))).images
    assert (record.status, record.platforms) == ("done", ("linux/arm64",)), record.error
    [record] = (await run(bench, may_skip(wanted(ARMV7)))).images
    assert record.reason == "there is no linux/arm/v7 here; there is linux/amd64, linux/arm64"


async def test_what_a_plan_says_of_skipped_images_is_looked_at_too(bench: MirrorScenario) -> None:
    [pair, *_] = await lacking(bench)
    bench.target()
    saved = await saved_by(bench, pairs=[pair])
    check_saved_plan(saved)
    [skipped] = saved.skipped
    nowhere = msgspec.structs.replace(pair, source=Reference("NOT a host", "app", "1"))
    with pytest.raises(ValueError, match="NOT a host"):
        check_saved_plan(
            msgspec.structs.replace(saved, skipped=(msgspec.structs.replace(skipped, pair=nowhere),))
        )
