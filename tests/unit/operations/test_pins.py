"""What names mean now: their pins, how often a registry is asked for them, and what can't be pinned."""

from __future__ import annotations

import pytest

from blobflow.client import Client
from blobflow.content import Site
from blobflow.custom_transports import CustomTransports
from blobflow.errors import BlobflowError, NoSuchPlatform, NotFound, Unavailable
from blobflow.oci import Platform, Reference, parse_manifest
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.operations.pins import moved_tags, pin_images
from blobflow.settings import Settings
from tests.fakes.memory_registry import MemoryRegistry

ARM64 = PlatformChoice((Platform("arm64", "linux", "v8"),))


@pytest.fixture
def images() -> SampleSet:
    return sample_set(seed=5, images=3, layer_size=2_000)


@pytest.fixture
def source(images: SampleSet) -> MemoryRegistry:
    registry = MemoryRegistry("source")
    registry.fill(images)
    return registry


def client_of(source: MemoryRegistry) -> Client:
    return Client(Settings(), transports=CustomTransports(sources={"source": source.at}))


def names_of(images: SampleSet) -> list[Reference]:
    return [Reference("source", *name.rsplit(":", 1)) for name in images.images]


def size_of(images: SampleSet, name: str, *platforms: str) -> int:
    """Bytes of an index with its images for these platforms, each part once."""
    root = images.images[name]
    parts = {root.digest: len(root.raw)}
    for child in parse_manifest(root.raw, root.media_type).manifests:
        if str(child.platform) in platforms:
            parts[child.digest] = child.size
            manifest = parse_manifest(images.manifests[child.digest].raw, child.media_type)
            parts |= {blob.digest: blob.size for blob in manifest.blobs}
    return sum(parts.values())


async def test_a_pin_has_digest_platforms_and_the_bytes_that_an_image_is(
    images: SampleSet, source: MemoryRegistry
) -> None:
    async with client_of(source) as client:
        whole = await pin_images(client, names_of(images))
        arm = await pin_images(client, names_of(images), ARM64)
    platforms = ("linux/amd64", "linux/arm64/v8", "linux/arm/v7")
    assert len(whole.by_name) == len(images.images)
    for name, (key, root) in zip(names_of(images), images.images.items(), strict=True):
        assert whole.by_name[name].digest == arm.by_name[name].digest == root.digest
        assert set(whole.by_name[name].platforms) == set(platforms)
        assert whole.by_name[name].size == size_of(images, key, *platforms)
        assert arm.by_name[name].platforms == ("linux/arm64/v8",)
        assert arm.by_name[name].size == size_of(images, key, "linux/arm64/v8")


async def test_each_name_is_asked_for_once_and_each_manifest_read_once(
    images: SampleSet, source: MemoryRegistry
) -> None:
    names = names_of(images)
    async with client_of(source) as client:
        await pin_images(client, [*names, *names])
    assert source.count("resolve") == len(names)
    manifests = {root.digest for root in images.images.values()} | set(images.manifests)
    assert source.count("read") == len(manifests)


async def test_what_can_not_be_pinned_hinders_nothing_else(images: SampleSet, source: MemoryRegistry) -> None:
    good, *_ = names = names_of(images)
    away = Reference("source", "no/such", "1")

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        return Unavailable("down") if call == "read" and site.repository == names[1].repository else None

    source.fault = fault
    async with client_of(source) as client:
        pins = await pin_images(client, [good, names[1], away])
    assert list(pins.by_name) == [good]
    assert isinstance(pins.failures[away], NotFound)
    assert set(pins.failures) == {names[1], away}


async def test_an_image_for_other_platforms_is_told_apart(images: SampleSet, source: MemoryRegistry) -> None:
    (name, *_) = names_of(images)
    async with client_of(source) as client:
        pins = await pin_images(client, [name], PlatformChoice((Platform("riscv64", "linux"),)))
    assert isinstance(pins.failures[name], NoSuchPlatform)


async def test_an_image_that_no_index_lists_tells_its_platform_itself(
    images: SampleSet, source: MemoryRegistry
) -> None:
    (name, *_) = names_of(images)
    index = parse_manifest(images.images[str(name).removeprefix("source/")].raw)
    child = index.manifests[0]
    alone = Reference("source", name.repository, digest=child.digest)
    async with client_of(source) as client:
        pins = await pin_images(client, [alone])
    assert pins.by_name[alone].platforms == (str(child.platform),)
    assert source.count("read") == 1


async def test_moved_tags_are_found_by_one_question_each(images: SampleSet, source: MemoryRegistry) -> None:
    names = names_of(images)
    pinned = {name: images.images[f"{name.repository}:{name.tag}"].digest for name in names}
    async with client_of(source) as client:
        assert await moved_tags(client, pinned) == {}
        assert (source.count("resolve"), source.count("read")) == (len(names), 0)
        other = parse_manifest(images.images[f"{names[0].repository}:{names[0].tag}"].raw).manifests[0].digest
        source.tags[source.site(names[0].repository), names[0].tag] = other
        del source.tags[source.site(names[1].repository), names[1].tag]
        moved = await moved_tags(client, pinned)
    assert moved[names[0]] == other
    assert isinstance(moved[names[1]], NotFound)
    assert len(moved) == 2
