"""Indexes of blobs, as BuildKit pushes its cache (layers and a cache config), and of images beside blobs:
blobs are moved, counted and missed as blobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Copy, Mount
from blobflow.engine.policy import Policy
from blobflow.engine.results.report import Report
from blobflow.engine.targets.verification import Verification
from blobflow.oci import Descriptor, Manifest, Reference, digest_of, media, parse_manifest
from blobflow.oci.media import is_manifest
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import AMD64, ARM64, Image
from tests.scenarios.saved_plans import applied, moved, saved_by
from tests.scenarios.signed_images import OCI_EMPTY

CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
SITE = Site("target", "app")
LAYERS = (b"the first step's layer", b"the second step's")
CONFIG = b'{"layers":[{"blob":"sha256:\xe2\x80\xa6","parent":-1}],"records":[]}'


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MirrorScenario]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield MirrorScenario(store, SampleSet({}, {}, {}))


def cached(
    registry: MemoryRegistry, repository: str = "app", tag: str = "1", kind: str = media.OCI_INDEX
) -> Manifest:
    """A cache as BuildKit exports it, in OCI's words or in Docker's."""
    image = Image(registry, repository)
    layer = DOCKER_LAYER if kind == media.DOCKER_LIST else media.OCI_LAYER_GZIP
    items = [image.blob(content, layer) for content in LAYERS]
    items[0]["annotations"] = {"buildkit/createdat": "2024-01-01T00:00:00Z"}
    return image.put({"manifests": [*items, image.blob(CONFIG, CACHE_CONFIG)]}, kind, tag)


def mixed(registry: MemoryRegistry, *, tag: str = "1") -> Manifest:
    """Images of two platforms, and blobs before, between and behind them."""
    image = Image(registry)
    first, second = (image.child(str(platform)) for platform in (AMD64, ARM64))
    return image.index(
        image.blob(LAYERS[0], media.OCI_LAYER_GZIP),
        image.item(first, "linux/amd64"),
        image.blob(CONFIG, CACHE_CONFIG),
        image.item(second, "linux/arm64"),
        image.blob(b"notes", "text/plain"),
        tag=tag,
    )


def pairs(*repositories: str, choice: PlatformChoice = EVERYTHING, tag: str = "1") -> list[Pair]:
    return [
        Pair(Reference("source", each, tag), Reference("target", each, tag), choice)
        for each in repositories or ("app",)
    ]


def statuses(report: Report) -> list[str]:
    return [image.status for image in report.images]


@pytest.mark.parametrize("kind", [media.OCI_INDEX, media.DOCKER_LIST])
async def test_a_build_s_cache_is_moved_blob_by_blob_and_the_second_time_not(
    bench: MirrorScenario, kind: str
) -> None:
    root = cached(bench.source, kind=kind)
    target = bench.target()
    report = await bench.mirror(pairs=pairs())
    assert statuses(report) == ["done"]
    assert target.manifests[SITE] == {root.descriptor.digest: (kind, root.raw)}
    assert set(target.blobs[SITE].values()) == {*LAYERS, CONFIG}
    size = sum(map(len, (*LAYERS, CONFIG)))
    assert (report.totals.blobs_copied, report.totals.manifests_put) == (3, 1)
    assert report.totals.bytes_written in (0, size + len(root.raw)), "memory counts none"
    assert bench.source.count("read") == 1, "what is no manifest is not read as one"
    bench.forget_calls()
    assert statuses(await bench.mirror(pairs=pairs())) == ["present"]
    assert bench.source.calls.total() == target.calls.total() == 1, "each tag is asked for"


async def test_what_a_cache_costs_is_known_before(bench: MirrorScenario) -> None:
    root = cached(bench.source)
    bench.target()
    planned = await plan_pairs(pairs(), bench.services())
    size = sum(map(len, (*LAYERS, CONFIG)))
    cost = planned.cost
    assert (cost.blobs_unique, cost.copies, cost.manifests) == (3, 3, 1)
    assert (cost.bytes_to_read, cost.bytes_to_write) == (size, size + len(root.raw))


async def test_blobs_of_several_caches_go_up_once_and_are_mounted(bench: MirrorScenario) -> None:
    for repository in ("a", "b", "c"):
        cached(bench.source, repository)
    target = bench.target()
    planned = await plan_pairs(pairs("a", "b", "c"), bench.services())
    kinds = [type(step) for step in planned.plan.steps]
    assert (kinds.count(Copy), kinds.count(Mount)) == (3, 6)
    assert statuses(await bench.mirror(pairs=pairs("a", "b", "c"))) == ["done"] * 3
    assert (target.count("push"), target.count("mount")) == (3, 6)


async def test_a_blob_that_only_the_cache_lost_is_brought_again(bench: MirrorScenario) -> None:
    """An index that is there stands for nothing but itself: not for the blobs that it lists, either."""
    cached(bench.source)
    target = bench.target()
    await bench.mirror(pairs=pairs())
    del target.blobs[SITE][digest_of(LAYERS[1])]
    assert statuses(await bench.mirror(Policy(audit="none"), pairs())) == ["present"], (
        "as told by the journal"
    )
    bench.forget_calls()
    report = await bench.mirror(Policy(audit="all"), pairs())
    assert statuses(report) == ["done"]
    assert target.count("push") == 1
    assert digest_of(LAYERS[1]) in target.blobs[SITE]


async def test_what_is_missing_is_seen_without_a_memory_of_earlier_runs(bench: MirrorScenario) -> None:
    root = cached(bench.source)
    target = bench.target()
    target.manifests[SITE] = {root.descriptor.digest: (media.OCI_INDEX, root.raw)}
    target.tags[SITE, "1"] = root.descriptor.digest
    target.blobs[SITE] = {digest_of(LAYERS[0]): LAYERS[0]}
    assert statuses(await bench.mirror(pairs=pairs())) == ["done"]
    assert (target.count("push"), target.count("put")) == (2, 1)


@pytest.mark.parametrize("level", ["blobs", "content"])
async def test_verifying_asks_for_the_blobs_of_an_index(bench: MirrorScenario, level: str) -> None:
    cached(bench.source)
    target = bench.target()
    [pair] = pairs()
    await bench.mirror(pairs=[pair])
    services = bench.services()
    root = await services.source_at(Site("source", "app")).resolve("1")

    async def check() -> list[str]:
        from blobflow.engine.concurrency.bounded_runner import BoundedRunner

        verification = Verification(services.source_at, services.sink_at, BoundedRunner(4), read_at_once=2)
        wrong = await verification.check({pair: root}, level)  # type: ignore[arg-type]
        return [error.message for error in wrong.values()]

    assert not await check()
    del target.blobs[SITE][digest_of(CONFIG)]
    [message] = await check()
    assert digest_of(CONFIG) in message


async def test_a_cache_whose_source_lost_a_blob_fails_alone_and_names_it(bench: MirrorScenario) -> None:
    cached(bench.source, "a")
    lost = Image(bench.source, "b")
    lost.put({"manifests": [lost.blob(b"gone", media.OCI_LAYER_GZIP)]}, media.OCI_INDEX, "1")
    bench.source.blobs[Site("source", "b")].clear()
    target = bench.target()
    report = await bench.mirror(pairs=pairs("a", "b"))
    assert statuses(report) == ["done", "failed"]
    assert digest_of(b"gone") in (report.images[1].error or "")
    assert (Site("target", "b"), "1") not in target.tags


async def test_a_saved_plan_brings_a_cache(bench: MirrorScenario) -> None:
    root = cached(bench.source)
    target = bench.target()
    saved = await saved_by(bench, pairs=pairs())
    assert statuses(await applied(bench, saved)) == ["done"]
    assert target.tags[SITE, "1"] == root.descriptor.digest
    assert set(target.blobs[SITE].values()) == {*LAYERS, CONFIG}
    assert statuses(await applied(bench, saved)) == ["present"]
    assert moved(target) == 0
    del target.blobs[SITE][digest_of(CONFIG)]
    await applied(bench, saved)
    assert target.count("push") == 1


# Beside images


async def test_an_index_of_images_and_blobs_is_moved_whole(bench: MirrorScenario) -> None:
    root = mixed(bench.source)
    target = bench.target()
    assert statuses(await bench.mirror(pairs=pairs())) == ["done"]
    assert target.tags[SITE, "1"] == root.descriptor.digest
    assert len(target.manifests[SITE]) == 3
    assert target.blobs[SITE].keys() == bench.source.blobs[Site("source", "app")].keys()


@pytest.mark.parametrize("sparse", [True, False])
async def test_blobs_go_along_with_whatever_platform_is_chosen(bench: MirrorScenario, sparse: bool) -> None:
    root = mixed(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    report = await bench.mirror(pairs=pairs(choice=PlatformChoice((ARM64,))))
    assert statuses(report) == ["done"]
    there = target.tags[SITE, "1"]
    assert (there == root.descriptor.digest) is sparse
    index = parse_manifest(target.manifests[SITE][there][1])
    assert [blob.digest for blob in index.blobs] == [blob.digest for blob in root.blobs]
    assert {LAYERS[0], CONFIG, b"notes"} < set(target.blobs[SITE].values())
    assert b"layer of linux/amd64 in source/app" not in target.blobs[SITE].values()
    if not sparse:
        assert [str(child.platform) for child in index.manifests] == ["linux/arm64"]


async def test_a_cache_among_images_that_are_wanted_for_one_platform_goes_along_as_it_is(
    bench: MirrorScenario,
) -> None:
    root = cached(bench.source)
    target = bench.target()
    assert statuses(await bench.mirror(pairs=pairs(choice=PlatformChoice((ARM64,))))) == ["done"]
    assert target.tags[SITE, "1"] == root.descriptor.digest
    assert len(target.blobs[SITE]) == 3


@pytest.mark.parametrize("make", [cached, mixed])
async def test_an_index_that_is_wanted_alone_comes_without_its_blobs(
    bench: MirrorScenario, make: object
) -> None:
    root: Manifest = make(bench.source)  # type: ignore[operator]
    target = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    assert statuses(await bench.mirror(pairs=pairs(choice=PlatformChoice(index="only")))) == ["done"]
    assert target.manifests[SITE] == {root.descriptor.digest: (media.OCI_INDEX, root.raw)}
    assert not target.blobs.get(SITE)


async def test_who_copies_an_index_that_is_sparse_at_its_registry_is_told_what_to_do(
    bench: MirrorScenario,
) -> None:
    mixed(bench.source)
    image = Image(bench.source)
    gone = image.child("linux/arm64").descriptor.digest
    del bench.source.manifests[image.site][gone]
    bench.targets["target"] = MemoryRegistry("target", sparse=True)
    [failed] = (await bench.mirror(pairs=pairs())).images
    assert gone in (failed.error or "")
    assert "--platform" in (failed.error or "")
    assert statuses(await bench.mirror(pairs=pairs(choice=PlatformChoice((AMD64,))))) == ["done"]


# What is a blob


@pytest.mark.parametrize(
    "kind",
    [
        CACHE_CONFIG,
        DOCKER_LAYER,
        media.OCI_LAYER_GZIP,
        media.OCI_CONFIG,
        OCI_EMPTY,
        "application/vnd.in-toto+json",
        "application/octet-stream",
        "text/plain",
        "Application/JSON; charset=utf-8",
    ],
)
async def test_what_an_index_lists_under_no_manifest_s_type_is_a_blob(
    bench: MirrorScenario, kind: str
) -> None:
    assert not is_manifest(kind)
    image = Image(bench.source)
    image.put({"manifests": [image.blob(b"{}", kind)]}, media.OCI_INDEX, "1")
    target = bench.target()
    assert statuses(await bench.mirror(pairs=pairs())) == ["done"]
    assert list(target.blobs[SITE].values()) == [b"{}"]


@pytest.mark.parametrize(
    "kind",
    [
        *sorted(media.MANIFESTS | media.SCHEMA1),
        "",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/vnd.oci.image.index.v2+json",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
    ],
)
def test_what_may_be_a_manifest_is_read_as_one(kind: str) -> None:
    """What it lists could not be carried otherwise: better to say so than to leave it."""
    assert is_manifest(kind)


async def test_an_entry_that_does_not_say_what_it_is_is_read(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    child = image.child("linux/amd64")
    item = {key: value for key, value in image.item(child).items() if key != "mediaType"}
    image.put({"manifests": [item | {"mediaType": None}]}, media.OCI_INDEX, "1")
    target = bench.target()
    assert statuses(await bench.mirror(pairs=pairs())) == ["done"]
    assert child.descriptor.digest in target.manifests[SITE]


def test_an_index_has_its_blobs_among_its_layers_in_order() -> None:
    registry = MemoryRegistry("r")
    index = mixed(registry)
    kinds = [media.OCI_LAYER_GZIP, CACHE_CONFIG, "text/plain"]
    assert [blob.media_type for blob in index.layers] == kinds
    assert index.blobs == index.layers
    assert [str(child.platform) for child in index.manifests] == ["linux/amd64", "linux/arm64"]
    named: list[Descriptor] = [*index.manifests, *index.layers]
    assert len(named) == 5
    assert index.config is None
    assert msgspec.structs.replace(index, layers=()).blobs == ()
