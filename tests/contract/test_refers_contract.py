"""What `Refers` and `Attaches` promise, for every implementation of them, with the API and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import Attaches, Refers, Sink
from blobflow.errors import NotFound
from blobflow.oci import Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.referrers import cosign_tags, fallback_tag, referrer_descriptor
from tests.contract.implementations import Places, docker_host, open_places, over_http
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.signed_images import SPDX, Content, Signed
from tools.registry.faulty import DropHeader, Fault, Status, journalling

__all__ = ["docker_host"]  # a fixture

NO_API = [
    Fault("GET", "/referrers/", times=0, act=Status(404, body="404 page not found")),
    Fault("PUT", "/manifests/", times=0, act=DropHeader("OCI-Subject")),
]
WITH_API = ["memory", "embedded"]
WITHOUT = ["memory-tags", "embedded-tags", "oci", pytest.param("docker-registry", marks=pytest.mark.e2e)]


@asynccontextmanager
async def opened(kind: str, folder: Path, docker_host: Callable[[], str]) -> AsyncIterator[Places]:
    if kind.startswith("memory"):
        memory = MemoryRegistry("memory.example", refers="tag" if kind == "memory-tags" else "api")
        yield Places(memory.name, memory.at, memory.at)
    elif kind == "embedded-tags":
        async with journalling(folder / "store", NO_API) as registry, over_http(registry.host) as places:
            yield places
    else:
        async with open_places(kind, folder, docker_host) as places:
            yield places


@pytest.fixture(params=[*WITH_API, *WITHOUT])
async def places(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Places]:
    async with opened(request.param, tmp_path, lambda: request.getfixturevalue("docker_host")) as made:
        yield made


@pytest.fixture
def signed() -> Signed:
    return Signed()


async def attach_all(sink: Sink, signed: Signed) -> None:
    assert isinstance(sink, Attaches)
    for subject, found in signed.by_subject.items():
        await sink.attach(subject, [referrer_descriptor(each) for each in found])


async def found(places: Places, subject: Digest) -> set[tuple[str, str]]:
    """Digests and tags of what refers to a manifest."""
    source = places.source()
    assert isinstance(source, Refers)
    return {(each.manifest.digest, each.tag) for each in await source.referrers(subject)}


def expected(signed: Signed, subject: Digest) -> set[tuple[str, str]]:
    by_subject = {(each.descriptor.digest, "") for each in signed.by_subject.get(subject, ())}
    by_tag = signed.by_tag.get(subject, ())
    return by_subject | {(each.descriptor.digest, cosign_tags(subject)[0]) for each in by_tag}


async def test_what_was_attached_is_found_on_every_subject(places: Places, signed: Signed) -> None:
    await signed.content.put(places.sink())
    await attach_all(places.sink(), signed)
    for subject in signed.by_subject:
        assert await found(places, subject) == expected(signed, subject)


async def test_attaching_again_and_one_more_loses_nothing(places: Places, signed: Signed) -> None:
    await signed.content.put(places.sink())
    await attach_all(places.sink(), signed)
    await attach_all(places.sink(), signed)
    subject = signed.index
    more, content = Content(), Content()
    late = more.signature(subject, words="later")
    content.blobs, content.manifests = more.blobs, {late.descriptor.digest: late}
    await content.put(places.sink())
    sink = places.sink()
    assert isinstance(sink, Attaches)
    await sink.attach(subject.descriptor.digest, [referrer_descriptor(late)])
    digest = subject.descriptor.digest
    assert await found(places, digest) == expected(signed, digest) | {(late.descriptor.digest, "")}


async def test_artifact_types_are_told(places: Places, signed: Signed) -> None:
    await signed.content.put(places.sink())
    await attach_all(places.sink(), signed)
    source = places.source()
    assert isinstance(source, Refers)
    listed = await source.referrers(signed.index.descriptor.digest)
    sboms = {each.manifest.digest for each in listed if each.manifest.artifact_type == SPDX}
    assert sboms == {signed.by_subject[signed.index.descriptor.digest][1].descriptor.digest}


async def test_nothing_refers_to_what_is_not_there_or_not_signed(places: Places, signed: Signed) -> None:
    assert await found(places, digest_of(b"nowhere")) == set()
    await signed.content.put(places.sink())
    lone = signed.by_subject[signed.index.descriptor.digest][0]
    assert await found(places, lone.descriptor.digest) == set()


@pytest.mark.parametrize("kind", WITHOUT)
async def test_without_an_api_the_list_is_under_the_fallback_tag_whatever_the_order(
    kind: str, tmp_path: Path, signed: Signed, request: pytest.FixtureRequest
) -> None:
    async with opened(kind, tmp_path, lambda: request.getfixturevalue("docker_host")) as places:
        digest = signed.index.descriptor.digest
        lists = []
        for name, order in (("one", 1), ("two", -1)):
            sink = places.sink(name)
            await signed.content.put(sink)
            assert isinstance(sink, Attaches)
            for each in signed.by_subject[digest][::order]:
                await sink.attach(digest, [referrer_descriptor(each)])
            lists.append(await fallback(places, name, digest))
        assert lists[0].raw == lists[1].raw
        assert len(lists[0].manifests) == 2


@pytest.mark.parametrize("kind", WITH_API)
async def test_with_an_api_no_list_is_kept_by_hand(kind: str, tmp_path: Path, signed: Signed) -> None:
    async with opened(kind, tmp_path, str) as places:
        await signed.content.put(places.sink())
        await attach_all(places.sink(), signed)
        with pytest.raises(NotFound):
            await fallback(places, "app", signed.index.descriptor.digest)


async def fallback(places: Places, name: str, subject: Digest) -> Manifest:
    source = places.source(name)
    named = await source.resolve(fallback_tag(subject))
    return parse_manifest(await source.read(named), media.OCI_INDEX)
