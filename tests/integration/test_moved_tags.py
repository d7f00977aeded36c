"""`moved` is about the source's tag alone: what was made of the image on its way does not count."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.cli.output.report_text import summary_lines
from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.results.report import ImageRecord
from blobflow.errors import BlobflowError
from blobflow.events import Event, Warned
from blobflow.oci import Digest, Reference
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import SampleSet
from blobflow.settings import Settings
from blobflow.transports.archive import CompressMode
from blobflow.transports.store import Store
from tests.fakes.archives import layer_of, podman_entries, write
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import mirror
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import AMD64, Image, built
from tests.scenarios.registries import registries

SOURCE = Site("source", "app")
TAGGED = Reference("source", "app", "1")
ROADS = {
    "whole": PlatformChoice(),
    "sparse": PlatformChoice((AMD64,), "keep"),
    "pruned": PlatformChoice((AMD64,), "prune"),
    "pruned since it was refused": PlatformChoice((AMD64,), "auto"),
    "the index only": PlatformChoice((), "only"),
    "docker's format": PlatformChoice((), "auto", "v2s2"),
    "docker's format, pruned": PlatformChoice((AMD64,), "auto", "v2s2"),
}
SPARSE = ("sparse", "the index only")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MirrorScenario]:
    with closing(Store.open(tmp_path / "store")) as store:
        made = MirrorScenario(store, SampleSet({}, {}, {}))
        made.source = MemoryRegistry("source", refers="api")
        yield made


async def carried(
    bench: MirrorScenario, choice: PlatformChoice, source: Reference = TAGGED
) -> tuple[ImageRecord, list[str]]:
    """What the report says of a copy by this road, and what was told on the way."""
    told: list[Event] = []
    pair = Pair(source, Reference("target", "app", "1"), choice)
    report = await run_of_pairs([pair], observe=told.append).execute(bench.services())
    assert report.ok, report.images
    [record] = report.images
    assert any("moved at the source" in line for line in summary_lines(report)) == bool(record.moved)
    return record, [event.message for event in told if isinstance(event, Warned)]


@pytest.mark.parametrize("road", ROADS)
async def test_a_tag_that_stands_still_is_not_said_to_have_moved(bench: MirrorScenario, road: str) -> None:
    root = built(bench.source)
    sparse = road in SPARSE
    bench.targets["target"] = MemoryRegistry("target", sparse=sparse, refers="api")
    record, told = await carried(bench, ROADS[road])
    assert record.source_digest == root.descriptor.digest
    assert (record.digest != record.source_digest) == ("pruned" in road or "docker" in road)
    assert (record.moved, told) == ("", [])


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("road", ROADS)
async def test_a_tag_that_moves_meanwhile_is_told_on_every_road(
    bench: MirrorScenario, road: str, gone: bool
) -> None:
    root = built(bench.source)
    other = Image(bench.source).child("linux/s390x").descriptor.digest
    sparse = road in SPARSE
    target = bench.targets["target"] = MemoryRegistry("target", sparse=sparse, refers="api")

    def move(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "put" and gone:
            bench.source.tags.pop((SOURCE, "1"), None)
        elif call == "put":
            bench.source.tags[SOURCE, "1"] = other
        return None

    target.fault = move
    record, told = await carried(bench, ROADS[road])
    assert record.source_digest == root.descriptor.digest
    assert record.moved == ("nothing" if gone else other)
    assert len(told) == 1
    assert ("is gone" if gone else other) in told[0]


async def test_a_tag_that_came_to_name_what_was_made_of_it_has_moved(bench: MirrorScenario) -> None:
    """The digest that was put is not what the tag named when it was resolved."""
    built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", refers="api")

    def move(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "put" and name not in bench.source.manifests[SOURCE]:
            bench.source.manifests[SOURCE][Digest(name)] = ("application/vnd.oci.image.index.v1+json", b"{}")
            bench.source.tags[SOURCE, "1"] = Digest(name)
        return None

    target.fault = move
    record, told = await carried(bench, ROADS["pruned"])
    assert record.moved == record.digest != record.source_digest
    assert len(told) == 1


@pytest.mark.parametrize("road", ["whole", "pruned"])
@pytest.mark.parametrize("tag", ["", "1"])
async def test_a_digest_never_moves(bench: MirrorScenario, road: str, tag: str) -> None:
    root = built(bench.source)
    target = bench.targets["target"] = MemoryRegistry("target", refers="api")

    def remove(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "put":
            bench.source.tags.clear()
        return None

    target.fault = remove
    source = Reference("source", "app", tag, root.descriptor.digest)
    record, told = await carried(bench, ROADS[road], source)
    assert (record.moved, told) == ("", [])


async def test_two_forms_of_one_source_ask_for_its_tag_once_and_say_the_same(bench: MirrorScenario) -> None:
    built(bench.source)
    bench.targets["target"] = MemoryRegistry("target", refers="api")
    pairs = [
        Pair(TAGGED, Reference("target", "app", f"t{number}"), choice)
        for number, choice in enumerate((ROADS["whole"], ROADS["pruned"], ROADS["docker's format"]))
    ]
    report = await bench.mirror(pairs=pairs)
    assert report.ok
    assert [image.moved for image in report.images] == ["", "", ""]
    assert bench.source.count("resolve") == 2


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[str]:
    async with registries(tmp_path, ["target"]) as [target]:
        yield target.host


@pytest.mark.parametrize("compress", ["gzip", "zstd", "none"])
async def test_what_an_archive_becomes_on_its_way_is_no_move(
    tmp_path: Path, host: str, compress: CompressMode
) -> None:
    """Bare layers get compressed, Docker's media types become OCI's, and back again into an archive."""
    archive = write(tmp_path / "saved.tar", podman_entries({"app:1": [layer_of("one", 9_000)]}))
    settings = Settings(cache_dir=tmp_path / "cache", compress=compress)
    registry = Reference(host, "app", "1")
    places = [
        (Reference(f"docker-archive:{archive}", "", "app:1"), registry),
        (registry, Reference(f"docker-archive:{tmp_path / 'out.tar'}", "", "app:1")),
        (registry, Reference(f"oci-archive:{tmp_path / 'oci.tar'}", "", "app:1")),
        (Reference(f"oci-archive:{tmp_path / 'oci.tar'}", "", "app:1"), Reference(host, "again", "1")),
    ]
    if compress == "zstd":  # for which docker's format has no word
        del places[1]
    for source, target in places:
        choice = (
            PlatformChoice((), "auto", "v2s2") if target.transport == "docker-archive" else PlatformChoice()
        )
        told: list[Event] = []
        report = await mirror([Pair(source, target, choice)], settings, observer=told.append)
        assert report.ok, report.images
        assert [image.moved for image in report.images] == [""]
        assert [event for event in told if isinstance(event, Warned)] == []
