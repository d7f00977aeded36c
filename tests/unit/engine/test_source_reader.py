"""Reading closures: level by level, each manifest once, and what is to be read told before it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.sources.pull_quota import DescriptorAt
from blobflow.engine.sources.reader import MAX_NESTING, GraphRead, GraphReader, read_graph
from blobflow.errors import BlobflowError, NotFound, Throttled, UnsupportedContent
from blobflow.oci import Descriptor, Reference, digest_of, media, parse_platform
from blobflow.oci.platform_choice import PlatformChoice
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry

PLACES = ("one", "two")


class Shelf:
    """Manifests made for a test, at one registry or more; `told` is what was to be admitted, each time."""

    def __init__(self) -> None:
        self.registries = {name: MemoryRegistry(name) for name in PLACES}
        self.told: list[int] = []

    def put(self, *children: Descriptor, name: str = "", at: Sequence[str] = PLACES[:1]) -> Descriptor:
        """An index of these children; `name` makes it differ from others."""
        listed = [{"mediaType": c.media_type, "digest": c.digest, "size": c.size} for c in children]
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}
        raw = json.dumps(document | {"annotations": {"name": name}}).encode()
        descriptor = Descriptor(media.OCI_INDEX, digest_of(raw), len(raw))
        for place in at:
            registry = self.registries[place]
            registry.manifests.setdefault(registry.site("app"), {})[descriptor.digest] = (
                media.OCI_INDEX,
                raw,
            )
        return descriptor

    def reads(self, place: str = "one") -> int:
        return self.registries[place].count("read")

    async def admit(self, wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        self.told.append(len(wanted))
        return wanted

    async def read(self, *roots: Descriptor, at: Sequence[str] = PLACES[:1]) -> GraphRead:
        named = {
            Reference(place, "app", f"tag-{number}"): root
            for place in at
            for number, root in enumerate(roots)
        }
        return await read_graph(
            named, self.source, BoundedRunner(4), reader=GraphReader(self.source, self.admit)
        )

    def source(self, site: Site) -> MemoryPlace:
        return self.registries[site.registry].at(site)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_each_level_is_told_before_it_is_read_and_each_manifest_is_read_once(shelf: Shelf) -> None:
    leaves = [shelf.put(name=f"leaf {number}") for number in range(4)]
    one, two = shelf.put(*leaves[:3], name="one"), shelf.put(*leaves[1:], name="two")
    read = await shelf.read(one, two)
    assert not read.failures
    assert shelf.told == [2, 4]
    assert shelf.reads() == len(read.graph.manifests) == 6


async def test_what_two_places_have_is_read_at_the_first_and_known_of_both(shelf: Shelf) -> None:
    leaf = shelf.put(name="leaf", at=PLACES)
    root = shelf.put(leaf, at=PLACES)
    read = await shelf.read(root, at=PLACES)
    assert not read.failures
    assert (shelf.reads("one"), shelf.reads("two")) == (2, 0)
    assert shelf.told == [1, 1]
    assert {site.registry for site in read.graph.origins[leaf.digest]} == set(PLACES)


async def test_what_fails_at_one_place_is_read_at_the_other_and_only_the_first_fails(shelf: Shelf) -> None:
    leaf = shelf.put(name="leaf", at=["two"])
    root = shelf.put(leaf, at=PLACES)
    read = await shelf.read(root, at=PLACES)
    assert {reference.host: type(error) for reference, error in read.failures.items()} == {"one": NotFound}
    assert all(error.side == "source" for error in read.failures.values())
    assert [reference.host for reference in read.graph.roots] == ["two"]


async def test_a_child_that_is_missing_fails_those_that_list_it_and_no_other(shelf: Shelf) -> None:
    lost = shelf.put(name="lost", at=[])
    good = shelf.put(name="good")
    read = await shelf.read(shelf.put(lost, good, name="a"), shelf.put(good, name="b"))
    assert [reference.tag for reference in read.failures] == ["tag-0"]
    assert [reference.tag for reference in read.graph.roots] == ["tag-1"]


async def test_nesting_has_an_end(shelf: Shelf) -> None:
    chain = [shelf.put(name="leaf")]
    for _ in range(MAX_NESTING + 1):
        chain.append(shelf.put(chain[-1]))
    read = await shelf.read(chain[-2])
    assert not read.failures
    shelf.registries["one"].calls.clear()
    read = await shelf.read(chain[-1])
    (error,) = read.failures.values()
    assert isinstance(error, UnsupportedContent)
    assert f"nested more than {MAX_NESTING} levels deep" in str(error)
    assert shelf.reads() == MAX_NESTING + 1  # the one below is never asked for


async def test_a_permit_in_portions_reads_all_of_a_level_before_the_next(shelf: Shelf) -> None:
    leaves = [shelf.put(name=f"leaf {number}") for number in range(5)]
    root = shelf.put(*leaves)

    async def two_at_a_time(wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        shelf.told.append(len(wanted))
        return wanted[:2]

    read = await read_graph(
        {Reference("one", "app", "1"): root},
        shelf.source,
        BoundedRunner(4),
        reader=GraphReader(shelf.source, two_at_a_time),
    )
    assert not read.failures
    assert shelf.told == [1, 5, 3, 1]


async def test_a_permit_that_refuses_ends_it_all(shelf: Shelf) -> None:
    async def never(wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        raise Throttled("no")

    with pytest.raises(BlobflowError, match="no"):
        await read_graph(
            {Reference("one", "app", "1"): shelf.put()},
            shelf.source,
            BoundedRunner(4),
            reader=GraphReader(shelf.source, never),
        )
    assert shelf.reads() == 0


async def test_an_image_too_deep_to_be_read_is_not_asked_what_it_runs_on() -> None:
    shelf = Shelf()
    deep = Descriptor(media.OCI_MANIFEST, digest_of(b"an image"), 8)
    for level in range(MAX_NESTING + 1):
        deep = shelf.put(deep, name=str(level))
    choice = PlatformChoice((parse_platform("linux/arm64"),))
    named = Reference("one", "app", "1")
    read = await read_graph({named: deep}, shelf.source, BoundedRunner(4), choices={named: [choice]})
    assert "nested more than" in str(read.failures[named])
