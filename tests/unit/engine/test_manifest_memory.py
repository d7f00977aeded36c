"""What a run holds of manifests, counted in bytes."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.sources import manifests as module
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.reader import read_graph
from blobflow.errors import DigestMismatch, StorageError, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Manifest, digest_of, media, parse_manifest, parse_reference
from blobflow.oci.platform_choice import attested_digest
from blobflow.transports.store import SpillFile, Store

SITE = Site("source", "app")


class Kept:
    """An Aside in memory. `bytes`: how much is there; `reads`: how often something was read back."""

    def __init__(self) -> None:
        self.bytes = 0
        self.reads = 0
        self.spoil = False

    def keep(self, content: bytes) -> Callable[[], bytes]:
        self.bytes += len(content)

        def read() -> bytes:
            self.reads += 1
            return content[:-1] + b" " if self.spoil else content

        return read


def image(number: int, notes: int = 0, layers: int = 1) -> Manifest:
    config = {"mediaType": media.OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2}
    listed = [
        {"mediaType": media.OCI_LAYER_GZIP, "digest": digest_of(f"{number} {n}".encode()), "size": n + 1}
        for n in range(layers)
    ]
    annotations = {"number": str(number), "notes": "x" * notes}
    document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": listed}
    return parse_manifest(json.dumps({**document, "annotations": annotations}).encode())


def test_manifests_are_held_whole_while_there_is_room_and_lean_beyond() -> None:
    kept = Kept()
    documents = ManifestBudget(kept, room=100_000)
    held = documents.mapping()
    images = [image(number, notes=10_000) for number in range(50)]
    for each in images:
        held.take(each, SITE)
    assert 0 < documents.held <= 100_000
    whole = [each for each in held.values() if each.raw]
    assert 0 < len(whole) < 10 and kept.bytes == sum(len(i.raw) for i in images) - sum(
        len(w.raw) for w in whole
    )
    for each in images:
        lean = held[each.descriptor.digest]
        assert (lean.descriptor, lean.blobs) == (each.descriptor, each.blobs)
        assert held.raw(each.descriptor.digest) == each.raw
        assert held.whole(each.descriptor.digest) == each
    assert set(held) == {each.descriptor.digest for each in images}


def test_without_a_place_to_put_them_aside_all_are_held() -> None:
    held = ManifestBudget(room=0).mapping()
    held.take(image(1), SITE)
    assert held[image(1).descriptor.digest] == image(1)


def test_what_is_charged_is_given_back_with_the_last_who_can_read_it() -> None:
    documents = ManifestBudget(Kept(), room=1_000_000)
    one, two = documents.mapping(), documents.mapping()
    one.take(image(1), SITE)
    alone = documents.held
    two.take(image(2), SITE)
    assert documents.held > alone > 0
    graph = Graph(two, {}, {})
    del two
    gc.collect()
    assert documents.held > alone, "the graph holds them still"
    del graph
    gc.collect()
    assert documents.held == alone
    del one
    gc.collect()
    assert documents.held == 0


def test_bytes_that_changed_while_they_were_aside_are_not_put() -> None:
    kept = Kept()
    held = ManifestBudget(kept, room=0).mapping()
    held.take(image(1), SITE)
    kept.spoil = True
    with pytest.raises(DigestMismatch, match="put aside"):
        held.raw(image(1).descriptor.digest)


def test_a_lean_manifest_still_knows_what_planning_asks() -> None:
    foreign = {**_described(image(1)), "mediaType": "a/b", "urls": ["https://example.com/" + "x" * 5000]}
    noted = {
        **_described(image(2)),
        "annotations": {"vnd.docker.reference.digest": "sha256:x", "n": "x" * 9000},
    }
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [noted]}
    config = {"mediaType": "a/c", "digest": digest_of(b"{}"), "size": 2, "annotations": {"x": "x" * 9000}}
    made = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": [foreign]}
    held = ManifestBudget(Kept(), room=0).mapping()
    for document in (index, made):
        held.take(parse_manifest(json.dumps(document).encode()), SITE)
    lean_index, lean_image = held.values()
    assert attested_digest(lean_index.manifests[0]) == "sha256:x"
    assert lean_image.foreign and len(lean_image.blobs) == 1
    carried = lean_image.carrying([lean_image.layers[0].digest])
    held[lean_image.descriptor.digest] = carried
    assert len(held[lean_image.descriptor.digest].blobs) == 2
    assert len(held.whole(lean_image.descriptor.digest).blobs) == 2
    assert len(repr((lean_index, lean_image))) < 2500, "no long text is left"


def _described(manifest: Manifest) -> dict[str, object]:
    own = manifest.descriptor
    return {"mediaType": own.media_type, "digest": own.digest, "size": own.size}


def test_what_one_repository_may_name_is_bounded_and_grows_with_the_images_that_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NAMED", 30)
    monkeypatch.setattr(module, "NAMED_MORE", 12)
    other = Site("source", "other")
    held = ManifestBudget().mapping()
    for site, roots in ((SITE, 2), (other, 1)):
        for number in range(roots):
            held.expect(site, image(number).descriptor.digest)
    for number in range(3):
        held.take(image(number, layers=10), SITE)
    held.take(image(3, layers=8), SITE)
    with pytest.raises(UnsupportedContent, match="more than the 42 that a run takes from there"):
        held.take(image(4), SITE)
    held.take(image(5, layers=20), other)


class Source:
    """Gives manifests; counts how many bytes of them are on their way at once."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self._raw = {each.descriptor.digest: each.raw for each in manifests}
        self.moving = 0
        self.most = 0

    async def read(self, manifest: Descriptor) -> bytes:
        raw = self._raw[manifest.digest]
        self.moving += len(raw)
        self.most = max(self.most, self.moving)
        await asyncio.sleep(0)
        self.moving -= len(raw)
        return raw


async def test_a_wide_lane_reads_only_so_many_bytes_of_manifests_at_once() -> None:
    images = [image(number, notes=9_000) for number in range(40)]
    items = [_described(each) for each in images]
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": items}
    root = parse_manifest(json.dumps(index).encode())
    kept, source = Kept(), Source([root, *images])
    documents = ManifestBudget(kept, room=50_000, moving=40_000)
    name = parse_reference("127.0.0.1:1/app:1")
    read = await read_graph(
        {name: root.descriptor},
        lambda site: source,  # type: ignore[arg-type, return-value]
        BoundedRunner(32),
        manifest_budget=documents,
    )
    assert not read.failures and len(read.graph.manifests) == 41
    assert 30_000 < source.most <= 40_000
    assert documents.held <= 50_000 and kept.bytes > 300_000


async def test_what_is_larger_than_all_the_room_gets_all_of_it_and_no_host_waits_for_another() -> None:
    documents = ManifestBudget(moving=100)
    large = Descriptor(media.OCI_MANIFEST, digest_of(b"large"), UNKNOWN_SIZE)
    small = Descriptor(media.OCI_MANIFEST, digest_of(b"small"), 60)
    order: list[str] = []

    async def move(host: str, what: Descriptor, name: str) -> None:
        async with documents.moving(host, what):
            order.append(name)
            await asyncio.sleep(0)

    async with documents.moving("one", large):
        tasks = [asyncio.create_task(move("one", small, f"one {n}")) for n in range(3)]
        await move("two", large, "two")
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        assert order == ["two"]
    await asyncio.gather(*tasks[1:])
    assert order == ["two", "one 1", "one 2"]
    await move("one", large, "all of it is free again")


async def test_cancelling_those_who_wait_at_random_loses_no_room() -> None:
    chance, documents = random.Random(5), ManifestBudget(moving=100)
    free: list[int] = []

    async def move(size: int) -> None:
        async with documents.moving("one", Descriptor(media.OCI_MANIFEST, digest_of(b"x"), size)):
            free.append(size)
            assert sum(free) <= 100
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            free.remove(size)

    async def cancelled(size: int) -> None:
        async with documents.moving("one", Descriptor(media.OCI_MANIFEST, digest_of(b"x"), size)):
            await asyncio.sleep(0)

    for _ in range(200):
        tasks = [asyncio.create_task(move(chance.randrange(101))) for _ in range(4)]
        others = [asyncio.create_task(cancelled(chance.randrange(101))) for _ in range(4)]
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*tasks)
    await move(100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as opened:
        yield opened


def test_what_is_put_aside_in_a_store_comes_back_and_leaves_nothing_there(store: Store) -> None:
    aside = SpillFile(store)
    contents = [bytes([n]) * (n * 1000) for n in range(60)]
    readers = [aside.keep(content) for content in contents]
    assert [read() for read in readers] == contents == [read() for read in readers]
    assert not list((store.root / "partials").iterdir()), "the file has no name"
    held = gc.get_referents(*readers)
    assert not any(isinstance(each, bytes) for each in held), "who can read it does not hold it"
    aside.close()


def test_a_store_without_a_place_to_write_says_so(store: Store) -> None:
    (store.root / "partials").rmdir()
    with pytest.raises(StorageError, match="put manifests aside"):
        SpillFile(store).keep(b"x")


def test_nothing_is_made_where_nothing_is_put_aside(store: Store) -> None:
    SpillFile(store).close()
