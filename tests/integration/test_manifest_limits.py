"""Runs over more manifests than are held whole, and over manifests that contradict each other."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.oci import digest_of, media
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.referrers import referrer_descriptor
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import SpillFile, Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import AMD64, ARM64, Image, built, wanted
from tests.scenarios.signed_images import OCI_EMPTY

SITE, SOURCE = Site("target", "app"), Site("source", "app")


class Tight(MirrorScenario):
    """A bench whose runs hold no manifest whole."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, SampleSet({}, {}, {}))
        self.aside = SpillFile(store)

    async def run(self, pairs: list[Pair], policy: Policy = KEEP_GOING) -> Report:
        run = run_of_pairs(pairs, policy)
        report = await run.execute(self.services(manifest_budget=ManifestBudget(self.aside, room=0)))
        assert run.planned is not None
        assert not any(each.raw for each in run.planned.graph.manifests.values()), "all are lean"
        return report


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Tight]:
    with closing(Store.open(tmp_path / "store")) as store:
        made = Tight(store)
        with closing(made.aside):
            yield made


def statuses(report: Report) -> dict[str, str]:
    return {str(image.source).rpartition(":")[2]: image.status for image in report.images}


def errors(report: Report) -> dict[str, str]:
    return {str(image.source).rpartition(":")[2]: image.error or "" for image in report.images}


async def test_manifests_that_were_put_aside_arrive_byte_for_byte(bench: Tight) -> None:
    built(bench.source)
    target = bench.target()
    report = await bench.run(wanted())
    assert statuses(report) == {"1": "done"}
    assert target.manifests[SITE] == bench.source.manifests[SOURCE]


@pytest.mark.parametrize("sparse", [True, False])
async def test_platforms_are_chosen_from_them_as_ever(bench: Tight, sparse: bool) -> None:
    root = built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    report = await bench.run(wanted(ARM64, AMD64))
    assert statuses(report) == {"1": "done"}
    assert (target.tags[SITE, "1"] == root.descriptor.digest) is sparse
    assert len(target.manifests[SITE]) == 1 + 2 + 2


async def test_they_are_converted_as_ever(bench: Tight) -> None:
    built(bench.source)
    target = bench.target()
    [pair] = wanted()
    report = await bench.run([Pair(pair.source, pair.target, PlatformChoice(format="v2s2"))])
    assert statuses(report) == {"1": "done"}
    kinds = {kind for kind, _ in target.manifests[SITE].values()}
    assert kinds == {media.DOCKER_LIST, media.DOCKER_MANIFEST}


async def test_referrers_are_listed_with_their_annotations(bench: Tight) -> None:
    bench.source = MemoryRegistry("source", refers="tag")
    image = Image(bench.source)
    root = image.index(image.item(image.child("linux/amd64"), "linux/amd64"), tag="1")
    config, layer = image.blob(b"{}", OCI_EMPTY), image.blob(b"signed", "a/b")
    signature = image.put(
        {
            "artifactType": "a/signature",
            "config": config,
            "layers": [layer],
            "subject": image.item(root),
            "annotations": {"who": "me"},
        },
        media.OCI_MANIFEST,
    )
    await bench.source.at(SOURCE).attach(root.descriptor.digest, [referrer_descriptor(signature)])  # type: ignore[attr-defined]
    target = bench.targets["target"] = MemoryRegistry("target", refers="tag")
    report = await bench.run(wanted())
    assert statuses(report) == {"1": "done"}
    [found] = await target.at(SITE).referrers(root.descriptor.digest)  # type: ignore[attr-defined]
    assert found.manifest.annotations == {"who": "me"}


@pytest.mark.parametrize("lie", [{"size": 0}, {"size": 1}, {"mediaType": media.OCI_INDEX}])
@pytest.mark.parametrize("honest_first", [True, False])
async def test_a_parent_that_lies_about_a_manifest_fails_and_an_honest_one_does_not(
    bench: Tight, lie: dict[str, object], honest_first: bool
) -> None:
    """Both name one digest, which is read once; each is held to what it says itself."""
    liars = Image(bench.source, "app")
    child = liars.child("linux/amd64")
    liars.index({**liars.item(child, "linux/amd64"), **lie}, tag="2")
    honest = Image(bench.source, "aaa" if honest_first else "zzz")
    twin = honest.child("linux/amd64")
    honest.site = Site("source", honest.site.repository)
    for site, made in ((liars.site, child), (honest.site, twin)):
        assert made.descriptor.digest in bench.source.manifests[site]
    bench.source.blobs[honest.site] |= bench.source.blobs[liars.site]
    bench.source.manifests[honest.site][child.descriptor.digest] = (media.OCI_MANIFEST, child.raw)
    honest.index(honest.item(child, "linux/amd64"), tag="1")
    bench.target()
    pairs = [
        *wanted(tag="2"),
        *wanted(repository=honest.site.repository, tag="1"),
    ]
    report = await bench.run(pairs)
    assert statuses(report) == {"1": "done", "2": "failed"}
    assert child.descriptor.digest in errors(report)["2"]


@pytest.mark.parametrize("lie", [{"size": 0}, {"size": 1}, {"size": 10**9}, {"mediaType": media.OCI_INDEX}])
@pytest.mark.parametrize(("liar", "honest"), [("1", "2"), ("2", "1")])
async def test_of_two_parents_in_one_repository_the_one_that_lies_fails(
    bench: Tight, lie: dict[str, object], liar: str, honest: str
) -> None:
    """Whichever is read first."""
    image = Image(bench.source, "app")
    child = image.child("linux/amd64")
    image.index({**image.item(child, "linux/amd64"), **lie}, tag=liar)
    image.index(image.item(child, "linux/amd64"), tag=honest)
    bench.target()
    report = await bench.run([*wanted(tag="1"), *wanted(tag="2")])
    assert statuses(report) == {honest: "done", liar: "failed"}
    assert child.descriptor.digest in errors(report)[liar]


@pytest.mark.parametrize("lie", [0, 3, 10**9])
@pytest.mark.parametrize("liar", ["1", "2"])
async def test_of_two_images_that_differ_in_how_large_a_blob_is_the_wrong_one_fails(
    bench: Tight, lie: int, liar: str
) -> None:
    image = Image(bench.source)
    config, layer = image.blob(b"{}", media.OCI_CONFIG), image.blob(b"the layer", media.OCI_LAYER_GZIP)
    right, wrong = [layer], [{**layer, "size": lie}]
    for tag in ("1", "2"):
        image.put({"config": config, "layers": wrong if tag == liar else right}, media.OCI_MANIFEST, tag)
    target = bench.target()
    report = await bench.run([*wanted(tag="1"), *wanted(tag="2")])
    good = "2" if liar == "1" else "1"
    assert statuses(report) == {good: "done", liar: "failed"}
    assert str(layer["digest"]) in errors(report)[liar]
    assert bench.source.count("open") <= 2 + 2, "each claim is asked about once, each blob read once"
    assert target.blobs[SITE][digest_of(b"the layer")] == b"the layer"


async def test_an_image_whose_only_layer_is_said_to_be_empty_fails(bench: Tight) -> None:
    image = Image(bench.source)
    config, layer = image.blob(b"{}", media.OCI_CONFIG), image.blob(b"the layer", media.OCI_LAYER_GZIP)
    image.put({"config": config, "layers": [{**layer, "size": 0}]}, media.OCI_MANIFEST, "1")
    bench.target()
    report = await bench.run(wanted())
    assert statuses(report) == {"1": "failed"} and str(layer["digest"]) in errors(report)["1"]


async def test_a_layer_without_bytes_is_a_layer(bench: Tight) -> None:
    image = Image(bench.source)
    config, layer = image.blob(b"{}", media.OCI_CONFIG), image.blob(b"", media.OCI_LAYER_GZIP)
    image.put({"config": config, "layers": [layer]}, media.OCI_MANIFEST, "1")
    target = bench.target()
    assert statuses(await bench.run(wanted())) == {"1": "done"}
    assert target.blobs[SITE][digest_of(b"")] == b""


async def test_what_a_list_says_of_referrers_is_not_held(bench: Tight) -> None:
    bench.source = MemoryRegistry("source", refers="tag")
    image = Image(bench.source)
    root = image.index(image.item(image.child("linux/amd64"), "linux/amd64"), tag="1")
    config = image.blob(b"{}", OCI_EMPTY)
    signature = image.put(
        {"config": config, "layers": [config], "subject": image.item(root), "annotations": {"n": "x" * 9000}},
        media.OCI_MANIFEST,
    )
    await bench.source.at(SOURCE).attach(root.descriptor.digest, [referrer_descriptor(signature)])  # type: ignore[attr-defined]
    bench.targets["target"] = MemoryRegistry("target", refers="tag")
    run = run_of_pairs(wanted(), KEEP_GOING)
    await run.execute(bench.services(manifest_budget=ManifestBudget(bench.aside, room=0)))
    assert run.planned is not None
    [shape] = run.planned.desired_images.values()
    [attached] = shape.attached
    assert attached.referrer.manifest.digest == signature.descriptor.digest
    assert "xxx" not in repr((attached, run.planned.graph))


async def test_a_platform_that_is_endless_is_none_and_is_not_held(bench: Tight) -> None:
    """An index that does not say what its images run on is chosen from by their configs."""
    image = Image(bench.source)
    said: list[Any] = [{"os.version": "10.0.20348"}, {"os.version": "x" * 5000}, {"os.features": [""] * 5000}]
    for number, more in enumerate(said):
        content = json.dumps({"os": "linux", "architecture": "amd64", **more}).encode()
        child = image.put({"config": image.blob(content, media.OCI_CONFIG), "layers": []}, media.OCI_MANIFEST)
        image.index(image.item(child), tag=str(number))
    bench.target()
    pairs = [pair for tag in "012" for pair in wanted(AMD64, tag=tag)]
    run = run_of_pairs(pairs)
    report = await run.execute(bench.services(manifest_budget=ManifestBudget(bench.aside, room=0)))
    assert statuses(report) == {"0": "done", "1": "done", "2": "done"}, "what has no platform goes along"
    assert run.planned is not None
    assert list(map(str, run.planned.graph.platforms.values())) == ["linux/amd64 (10.0.20348)"]


async def test_an_error_that_is_kept_does_not_hold_what_was_read(bench: Tight) -> None:
    """A manifest that is refused is in the frames of the error that says so."""
    image = Image(bench.source)
    for tag in ("1", "2", "3"):
        raw = json.dumps({"schemaVersion": 2, "config": [tag], "note": f"{tag} is refused" * 99}).encode()
        image.registry.manifests.setdefault(image.site, {})[digest_of(raw)] = (media.OCI_MANIFEST, raw)
        item = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)}
        image.index(item, tag=tag)
    bench.target()
    run = run_of_pairs([pair for tag in "123" for pair in wanted(tag=tag)], KEEP_GOING)
    await run.execute(bench.services())
    assert len(run.errors) == 3
    todo: list[BaseException | None] = [*run.errors.values()]
    while todo:
        error = todo.pop()
        if error is not None:
            walked = traceback.walk_tb(error.__traceback__)
            assert not any("is refused" in repr(frame.f_locals) for frame, _ in walked)
            todo += [error.__cause__, error.__context__]
