"""What a manifest is its content decides, whoever serves or lists it as something else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.errors import DigestMismatch, UnsupportedContent
from blobflow.events import Event, Warned
from blobflow.oci import Manifest, Reference, digest_of, media, parse_manifest, parse_platform
from blobflow.oci.manifest import is_schema1
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import SampleSet
from blobflow.transports.store import Store
from tests.fakes.manifests import IMAGE, INDEX, docker, encoded
from tests.fakes.registry import answers, scripted_server, world
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import Image

SITE = Site("target", "app")
FORMS = [
    (encoded(IMAGE), media.OCI_MANIFEST),
    (encoded(docker(IMAGE)), media.DOCKER_MANIFEST),
    (encoded(INDEX), media.OCI_INDEX),
    (encoded(docker(INDEX)), media.DOCKER_LIST),
]


@pytest.mark.parametrize(("raw", "kind"), FORMS)
def test_a_document_is_what_it_calls_itself_in_whosoever_s_words(raw: bytes, kind: str) -> None:
    same = media.INDEXES if kind in media.INDEXES else media.IMAGES
    for said in (
        *same,
        *sorted(media.SCHEMA1),
        "",
        "text/plain",
        "application/octet-stream",
        f"{kind}; charset=utf-8",
    ):
        assert parse_manifest(raw, said).descriptor.media_type == kind
    for said in media.MANIFESTS - same:
        with pytest.raises(UnsupportedContent, match="but was served as"):
            parse_manifest(raw, said)


@pytest.mark.parametrize(
    "config", [media.OCI_CONFIG, media.DOCKER_CONFIG, "application/vnd.cncf.helm.config.v1+json"]
)
def test_without_a_type_of_its_own_an_image_is_oci_s(config: str) -> None:
    """Whatever its config: docker and its registry refuse one of theirs that does not name its type."""
    raw = encoded(IMAGE, "mediaType", config={**IMAGE["config"], "mediaType": config})
    for said in (*sorted(media.IMAGES), *sorted(media.SCHEMA1), "", "application/json"):
        assert parse_manifest(raw, said).descriptor.media_type == media.OCI_MANIFEST


@pytest.mark.parametrize("said", [*sorted(media.SCHEMA1), *sorted(media.IMAGES), ""])
def test_a_schema_1_manifest_is_one_whatever_it_is_served_as(said: str) -> None:
    documents = (
        {"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "history": []},
        {"schemaVersion": 1, "mediaType": media.DOCKER_SCHEMA1_SIGNED},
        {"schemaVersion": 2, "mediaType": media.DOCKER_SCHEMA1},
    )
    for document in documents:
        assert is_schema1(json.dumps(document).encode(), said)
        with pytest.raises(UnsupportedContent, match="schema 1"):
            parse_manifest(json.dumps(document).encode(), said)


def test_what_tells_nothing_of_itself_is_schema_1_if_it_is_served_as_that() -> None:
    for raw in (b"{}", b'{"schemaVersion": 2}', b"[]", b"nonsense"):
        assert is_schema1(raw, media.DOCKER_SCHEMA1)
        assert not is_schema1(raw, media.OCI_MANIFEST)
    assert not is_schema1(encoded(IMAGE), media.DOCKER_SCHEMA1_SIGNED)


@pytest.mark.parametrize("said", [*sorted(media.SCHEMA1), media.OCI_MANIFEST, media.OCI_INDEX])
def test_no_label_makes_one_document_of_two(said: str) -> None:
    others: list[dict[str, object]] = [{"manifests": []}, {"fsLayers": [{}]}, {"history": [{}]}]
    for more in others:
        for without in ((), ("mediaType",)):
            with pytest.raises(UnsupportedContent, match=r"clients differ|schema 1|but was served as"):
                parse_manifest(encoded(IMAGE, *without, **more), said)


# Runs


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[MirrorScenario]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield MirrorScenario(store, SampleSet({}, {}, {}))


async def run(bench: MirrorScenario, *tags: str) -> list[str]:
    """Mirror these, which have to succeed; returns what was warned of."""
    told: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Warned):
            told.append(event.message)

    pairs = [Pair(Reference("source", "app", tag), Reference("target", "app", tag)) for tag in tags]
    services = bench.services()
    report = await run_of_pairs(pairs, observe=observe).execute(
        msgspec.structs.replace(services, observe=observe)
    )
    assert report.ok, [image.error for image in report.images]
    return told


def served_as(bench: MirrorScenario, manifest: Manifest, kind: str) -> None:
    """Let the source call it that."""
    bench.source.manifests[Site("source", "app")][manifest.descriptor.digest] = (kind, manifest.raw)


@pytest.mark.parametrize(
    ("kind", "said"), list(itertools.permutations([media.OCI_MANIFEST, media.DOCKER_MANIFEST], 2))
)
async def test_what_is_served_as_another_form_is_put_as_what_it_is_and_told_once(
    bench: MirrorScenario, kind: str, said: str
) -> None:
    image = Image(bench.source)
    config, layer = image.blob(b"{}", media.OCI_CONFIG), image.blob(b"x", media.OCI_LAYER_GZIP)
    made = image.put({"config": config, "layers": [layer]}, kind, "1")
    bench.source.tags[image.site, "2"] = made.descriptor.digest
    served_as(bench, made, said)
    target = bench.target()
    [told] = await run(bench, "1", "2")
    assert made.descriptor.digest in told
    assert told.index(said) < told.index(kind)
    assert target.manifests[SITE] == {made.descriptor.digest: (kind, made.raw)}
    assert not await run(bench, "1", "2"), "nothing was read"


async def test_indexes_that_list_images_as_another_form_are_kept_and_a_registry_told_of_once(
    bench: MirrorScenario,
) -> None:
    image = Image(bench.source)
    children = [image.child(f"linux/{name}") for name in ("amd64", "arm64")]
    items = [{**image.item(child), "mediaType": media.DOCKER_MANIFEST} for child in children]
    roots = [image.index(*items, tag="1"), image.index(*reversed(items), tag="2")]
    target = bench.target()
    [told] = await run(bench, "1", "2")
    assert "as whatever else is called so at source" in told
    assert sum(child.descriptor.digest in told for child in children) == 1
    for child in children:
        assert target.manifests[SITE][child.descriptor.digest] == (media.OCI_MANIFEST, child.raw)
    for root in roots:
        assert target.manifests[SITE][root.descriptor.digest][1] == root.raw


@pytest.mark.parametrize("said", [*sorted(media.SCHEMA1), media.DOCKER_MANIFEST, "", None])
async def test_an_image_runs_on_what_its_config_says_whatever_it_is_called(
    bench: MirrorScenario, said: str | None
) -> None:
    image = Image(bench.source)
    inner = image.index(image.item(image.child("linux/arm64")))
    items = [image.item(image.child("linux/amd64")), image.item(inner)]
    root = image.index(*({**item, "mediaType": said} for item in items[: 2 if not said else 1]), tag="1")
    bench.target()
    for name, left in (("linux/amd64", 0), ("linux/arm64", 1), ("linux/s390x", 2)):
        if left == 1 and said:
            continue
        choice = PlatformChoice((parse_platform(name),), "prune")
        pair = Pair(Reference("source", "app", "1"), Reference("target", "app", name[6:]), choice)
        [record] = (await bench.mirror(pairs=[pair])).images
        assert (record.status == "failed") is (left == 2)
        assert (record.digest == root.descriptor.digest) is (bool(said) and left == 0)


async def test_who_does_not_say_what_a_manifest_is_contradicts_nothing(bench: MirrorScenario) -> None:
    image = Image(bench.source)
    child = image.child("linux/amd64")
    for number, kind in enumerate(("application/json", "", media.OCI_MANIFEST)):
        image.index(
            {**image.item(child), "mediaType": kind} if kind != "application/json" else image.item(child),
            tag=f"{number}",
        )
    bench.target()
    assert not await run(bench, "0", "1", "2")


# Over HTTP


def serving(raw: bytes, kind: str, told: str | None) -> web.Response:
    headers = {"Content-Type": kind} | ({} if told is None else {"Docker-Content-Digest": told})
    return web.Response(body=raw, headers=headers)


async def resolved(raw: bytes, kind: str, told: str | None) -> tuple[str, list[str]]:
    """The media type that a tag resolves to, twice, and what was warned of meanwhile."""
    async with scripted_server(answers(lambda: serving(raw, kind, told))) as server, world() as w:
        found = [(await w.source(server.host).resolve("1")).media_type for _ in range(2)]
    assert len(set(found)) == 1
    return found[0], [event.message for event in w.events if isinstance(event, Warned)]


@pytest.mark.parametrize("said", sorted(media.SCHEMA1))
async def test_an_image_that_is_served_as_schema_1_is_what_it_is_and_told_once(said: str) -> None:
    raw = encoded(docker(IMAGE))
    kind, [told] = await resolved(raw, said, digest_of(raw))
    assert kind == media.DOCKER_MANIFEST
    assert digest_of(raw) in told
    assert said in told


@pytest.mark.parametrize("said", [*sorted(media.SCHEMA1), media.DOCKER_MANIFEST])
async def test_what_is_served_wrongly_is_held_to_the_digest_that_is_told(said: str) -> None:
    """Schema 1 alone has another digest than its bytes: what only is called so has not."""
    with pytest.raises(DigestMismatch):
        async with (
            scripted_server(answers(lambda: serving(encoded(IMAGE), said, digest_of(b"other")))) as server,
            world() as w,
        ):
            manifest = await w.source(server.host).fetch("1")
            raise AssertionError(manifest)


async def test_a_tag_without_a_digest_that_is_served_as_docker_s_is_told_once() -> None:
    raw = encoded(IMAGE, "mediaType")
    kind, [told] = await resolved(raw, media.DOCKER_MANIFEST, None)
    assert kind == media.OCI_MANIFEST
    assert media.DOCKER_MANIFEST in told
