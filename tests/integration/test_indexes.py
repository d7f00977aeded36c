"""Indexes made by hand over registries in memory: what is asked, what is moved, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.engine.services import Services
from blobflow.errors import BlobflowError, Denied, NotFound, UnsupportedContent, UsageError
from blobflow.events import Event, Meter, Warned
from blobflow.oci import (
    Descriptor,
    Digest,
    Platform,
    Reference,
    digest_of,
    media,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.index_draft import MAX_MEMBERS, DraftImage, IndexDraft, parse_label
from blobflow.operations.indexes import EntryRequest, gather_in, put_in
from blobflow.permits import FixedLimiters
from blobflow.transports.store import Store, StoreCache, StoreJournal
from tests.fakes.memory_registry import MemoryRegistry

LAYER = b"a layer" * 1000


class Bench:
    """Two registries, `here` and `there`, and the world that they are in."""

    def __init__(self, store: Store) -> None:
        self.here, self.there = MemoryRegistry("here"), MemoryRegistry("there")
        self.told: list[Event] = []
        registries = {"here": self.here, "there": self.there}
        self.services = Services(
            source_at=lambda site: registries[site.registry].at(site),
            sink_at=lambda site: registries[site.registry].at(site),
            cache=StoreCache(store),
            journal=StoreJournal(store),
            observe=self.told.append,
            meter=Meter(),
            limiter_at=FixedLimiters(4).at,
        )

    def image(
        self, name: str, platform: str, kind: str = media.OCI_MANIFEST, config: bytes | None = None
    ) -> Descriptor:
        """An image whose config says `platform`, at `repository:tag` of `here`."""
        if config is None:
            said = parse_platform(platform) if platform else Platform()
            words = {"os": said.os, "architecture": said.architecture, "variant": said.variant, "name": name}
            config = json.dumps(words).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": described(config, media.OCI_CONFIG),
            "layers": [described(LAYER, media.OCI_LAYER_GZIP)],
        }
        site = self.here.site(name.partition(":")[0])
        for blob in (config, LAYER):
            self.here.blobs.setdefault(site, {})[digest_of(blob)] = blob
        return self.manifest(name, json.dumps(document).encode(), kind)

    def index(self, name: str, children: Sequence[Mapping[str, Any]]) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": list(children)}
        return self.manifest(name, json.dumps(document).encode(), media.OCI_INDEX)

    def manifest(self, name: str, raw: bytes, kind: str) -> Descriptor:
        repository, _, tag = name.partition(":")
        site, digest = self.here.site(repository), digest_of(raw)
        self.here.manifests.setdefault(site, {})[digest] = (kind, raw)
        if tag:
            self.here.tags[site, tag] = digest
        return Descriptor(kind, digest, len(raw))

    async def gather(self, *names: str, label: str = "", **how: bool) -> tuple[DraftImage, ...]:
        said = parse_platform(label) if label else parse_label()
        return await gather_in(self.services, [EntryRequest(named(name), said) for name in names], **how)

    async def put(self, target: str, *names: str, **more: Any) -> bytes:
        return (await put_in(self.services, IndexDraft(named(target), await self.gather(*names), **more))).raw


def named(name: str) -> Reference:
    """`host/repository:tag` or `host/repository@digest`; `here/` is left out."""
    if not name.startswith("there/"):
        name = f"here/{name}"
    host, _, rest = name.partition("/")
    rest, _, digest = rest.partition("@")
    repository, _, tag = rest.partition(":")
    return Reference(host, repository, tag, digest)


def described(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


def mention(child: Descriptor, platform: str = "", **more: Any) -> dict[str, Any]:
    entry = {"mediaType": child.media_type, "digest": child.digest, "size": child.size, **more}
    if platform:
        os, _, architecture = platform.partition("/")
        entry["platform"] = {"os": os, "architecture": architecture}
    return entry


def platforms(raw: bytes) -> list[str]:
    return [str(child.platform) for child in parse_manifest(raw).manifests]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield Bench(store)


async def test_platforms_come_from_the_configs_one_read_each(bench: Bench) -> None:
    bench.image("app:a", "linux/arm/v7")
    bench.image("app:b", "linux/amd64")
    raw = await bench.put("app:1", "app:a", "app:b")
    assert platforms(raw) == ["linux/arm/v7", "linux/amd64"], "in the order in which they were given"
    assert bench.here.count("open") == 2
    assert bench.here.manifests[bench.here.site("app")][digest_of(raw)] == (media.OCI_INDEX, raw)
    assert bench.here.tags[bench.here.site("app"), "1"] == digest_of(raw)


async def test_images_of_the_same_repository_are_not_moved(bench: Bench) -> None:
    bench.image("app:a", "linux/amd64")
    bench.here.calls.clear()
    await bench.put("app:1", "app:a")
    assert (bench.here.count("push"), bench.here.count("mount"), bench.here.count("put")) == (0, 0, 1)


async def test_images_of_other_repositories_are_mounted_within_the_registry(bench: Bench) -> None:
    image = bench.image("app-arm64:1", "linux/arm64")
    await bench.put("app:1", "app-arm64:1")
    assert (bench.here.count("push"), bench.here.count("mount")) == (0, 2)
    assert image.digest in bench.here.manifests[bench.here.site("app")]
    assert set(bench.here.tags) == {(bench.here.site("app-arm64"), "1"), (bench.here.site("app"), "1")}


async def test_images_of_other_registries_are_copied_shared_layers_once(bench: Bench) -> None:
    bench.image("app:a", "linux/amd64")
    bench.image("app:b", "linux/arm64")
    await bench.put("there/app:1", "app:a", "app:b", tags=("latest",))
    assert bench.there.count("push") == 3, "two configs and the layer that both have"
    assert {tag for _, tag in bench.there.tags} == {"1", "latest"}


async def test_an_image_that_does_not_arrive_leaves_no_index(bench: Bench) -> None:
    bench.image("app:a", "linux/amd64")
    bench.there.fault = lambda call, site, name: Denied("no, you may not") if call == "push" else None
    with pytest.raises(Denied) as refused:
        await bench.put("there/app:1", "app:a")
    assert refused.value.side == "target"
    assert bench.there.tags == {}


async def test_an_index_that_can_not_be_made_moves_nothing(bench: Bench) -> None:
    bench.image("app:a", "linux/amd64", media.DOCKER_MANIFEST)
    bench.image("app:b", "linux/arm64")
    with pytest.raises(UsageError, match="say --format oci or --format docker"):
        await bench.put("there/app:1", "app:a", "app:b")
    assert bench.there.calls.total() == 0


async def test_a_label_by_hand_that_contradicts_the_config_is_refused_unless_forced(bench: Bench) -> None:
    bench.image("app:x", "linux/arm64")
    with pytest.raises(UsageError) as refused:
        await bench.gather("app:x", label="linux/amd64")
    assert str(refused.value).startswith(
        "here/app:x is labelled linux/amd64, but its config says linux/arm64; "
    )
    assert refused.value.side is None, "it is nobody's answer"
    (forced,) = await bench.gather("app:x", label="linux/amd64", force=True)
    assert str(forced.platform) == "linux/amd64"


async def test_a_tag_that_contradicts_the_config_is_refused_unless_forced_or_by_digest(bench: Bench) -> None:
    image = bench.image("app:1-arm", "linux/arm64")
    with pytest.raises(
        UsageError, match="here/app:1-arm is labelled linux/arm by its tag, but its config says"
    ):
        await bench.gather("app:1-arm")
    for name, how in (("app:1-arm", True), (f"app@{image.digest}", False)):
        (member,) = await bench.gather(name, force=how)
        assert str(member.platform) == "linux/arm64"


async def test_a_label_may_add_a_variant(bench: Bench) -> None:
    bench.image("app:1-armv6", "linux/arm")
    (member,) = await bench.gather("app:1-armv6", label="linux/arm/v6")
    assert str(member.platform) == "linux/arm/v6"
    assert member.config == Platform("arm", "linux")


async def test_the_images_of_an_index_are_taken_with_what_it_says_of_them(bench: Bench) -> None:
    image, other = bench.image("app", "linux/arm"), bench.image("app2", "linux/amd64")
    bench.here.manifests[bench.here.site("app")] |= bench.here.manifests[bench.here.site("app2")]
    bench.here.blobs[bench.here.site("app")] |= bench.here.blobs[bench.here.site("app2")]
    entry = mention(image, "linux/arm", annotations={"k": "v"})
    entry["platform"]["variant"] = "v6"
    inner = bench.index("app:inner", [{"digest": other.digest, "size": 0}])
    bench.index("app:old", [entry, mention(inner), mention(other)])
    raw = await bench.put("new:1", "app:old")
    assert platforms(raw) == ["linux/arm/v6", "linux/amd64"], "each once, however deep it is"
    first, second = parse_manifest(raw).manifests
    assert first.annotations == {"k": "v"}
    assert (second.media_type, second.size) == (other.media_type, other.size), "also where nobody said so"


async def test_a_label_that_an_index_has_wrong_is_refused(bench: Bench) -> None:
    image = bench.image("app", "linux/arm64")
    bench.index("app:old", [mention(image, "linux/amd64")])
    with pytest.raises(UsageError, match=rf"{image.digest} is labelled linux/amd64 in here/app:old, but its"):
        await bench.gather("app:old")


def attested(bench: Bench, name: str, platform: str) -> None:
    """What builders push for one platform: an index of the image and its attestation."""
    repository = name.partition(":")[0]
    image, attestation = (
        bench.image(repository, platform),
        bench.image(f"{repository}", "", config=b"no JSON"),
    )
    marks = {"vnd.docker.reference.digest": image.digest}
    bench.index(name, [mention(image, platform), mention(attestation, "unknown/unknown", annotations=marks)])


async def test_what_is_said_of_an_index_of_one_image_is_said_of_the_image(bench: Bench) -> None:
    attested(bench, "one:1-arm", "linux/arm")
    attested(bench, "two:1-arm64", "linux/arm64")
    raw = await bench.put("app:1", "one:1-arm", "two:1-arm64")
    assert platforms(raw) == ["linux/arm", "unknown/unknown", "linux/arm64", "unknown/unknown"]
    (image, attestation) = await bench.gather("one:1-arm", label="linux/arm/v7")
    assert (str(image.platform), str(attestation.platform)) == ("linux/arm/v7", "unknown/unknown")
    with pytest.raises(UsageError, match="one:1-arm is labelled linux/amd64, but its config says linux/arm;"):
        await bench.gather("one:1-arm", label="linux/amd64")
    attested(bench, "three:1-arm", "linux/arm64")
    with pytest.raises(UsageError, match="three:1-arm is labelled linux/arm by its tag, but its config says"):
        await bench.gather("three:1-arm")


async def test_a_label_for_an_index_of_several_images_is_refused(bench: Bench) -> None:
    images = [mention(bench.image("app", name), name) for name in ("linux/amd64", "linux/arm64")]
    bench.index("app:old", images)
    with pytest.raises(UsageError, match=r"index of 2 images \(linux/amd64, linux/arm64\); name the one"):
        await bench.gather("app:old", label="linux/arm64")


async def test_what_is_missing_is_an_error_or_left_out_with_a_warning(bench: Bench) -> None:
    bench.image("app:a", "linux/amd64")
    with pytest.raises(NotFound) as refused:
        await bench.gather("app:a", "app:b")
    assert refused.value.side == "source"
    (member,) = await bench.gather("app:b", "app:a", ignore_missing=True)
    assert member.image == named("app:a")
    (warning,) = [event for event in bench.told if isinstance(event, Warned)]
    assert warning.message.startswith("here/app:b is left out: source: ")
    with pytest.raises(NotFound, match="none of the images is there"):
        await bench.gather("app:b", ignore_missing=True)


async def test_only_what_is_missing_is_ignored(bench: Bench) -> None:
    bench.here.fault = lambda call, site, name: Denied("no, you may not") if call == "resolve" else None
    with pytest.raises(Denied):
        await bench.gather("app:a", ignore_missing=True)


class Loop:
    """A place that serves an index which lists itself, as no honest digest lets it."""

    def __init__(self, bench: Bench) -> None:
        self._inner = bench.here.at(bench.here.site("app"))
        digest = digest_of(b"loop")
        entries = [mention(Descriptor(media.OCI_INDEX, digest, 0))]
        self.raw = json.dumps(
            {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        ).encode()
        self.root = Descriptor(media.OCI_INDEX, digest, len(self.raw))

    async def resolve(self, name: str) -> Descriptor:
        return self.root

    async def read(self, manifest: Descriptor) -> bytes:
        return self.raw

    def open(self, blob: Descriptor, offset: int = 0, end: int | None = None) -> Any:
        return self._inner.open(blob, offset, end)


async def test_an_index_that_contains_itself_is_told(bench: Bench) -> None:
    loop = Loop(bench)
    bench.services = msgspec.structs.replace(bench.services, source_at=lambda site: loop)
    with pytest.raises(UnsupportedContent, match=rf"index {loop.root.digest} of here/app:1 contains itself"):
        await bench.gather("app:1")


async def test_an_index_nested_too_deeply_is_told(bench: Bench) -> None:
    child = bench.image("app", "linux/amd64")
    for depth in range(8):
        child = bench.index(f"app:{depth}", [mention(child)])
    assert len(await bench.gather("app:7")) == 1
    bench.index("app:8", [mention(child)])
    with pytest.raises(UnsupportedContent, match="here/app:8 is nested more than 8 levels deep"):
        await bench.gather("app:8")


async def test_indexes_that_list_each_other_a_thousand_times_cost_one_read_each(bench: Bench) -> None:
    child = bench.image("app", "linux/amd64")
    for depth in range(8):
        child = bench.index(f"app:{depth}", [mention(child)] * 1000)
    bench.here.calls.clear()
    assert len(await bench.gather("app:7")) == 1
    assert bench.here.count("read") == 9


async def test_ten_thousand_children_are_refused_before_they_are_read(bench: Bench) -> None:
    children = [
        mention(Descriptor(media.OCI_MANIFEST, Digest(f"sha256:{n:064x}"), 500)) for n in range(10_000)
    ]
    bench.index("app:1", children)
    with pytest.raises(
        UnsupportedContent, match=f"app:1 has 10000 images, more than the {MAX_MEMBERS} that an index"
    ):
        await bench.gather("app:1")
    assert bench.here.count("read") == 1


@pytest.mark.parametrize("config", [b"no JSON", b"[]", b'{"architecture": 1}'])
async def test_a_config_that_is_none_is_told(bench: Bench, config: bytes) -> None:
    bench.image("app:1", "", config=config)
    with pytest.raises(BlobflowError) as refused:
        await bench.gather("app:1")
    assert refused.value.exit_code == 7
    assert str(refused.value).startswith(f"source: config {digest_of(config)} can't be read")


async def test_an_index_that_lists_more_than_images_is_refused_by_name(bench: Bench) -> None:
    """What would be left out without a word."""
    image = bench.image("app", "linux/arm")
    cached = described(b"a step", media.OCI_LAYER_GZIP)
    bench.index("app:old", [mention(image), cached])
    with pytest.raises(UnsupportedContent, match=rf"here/app:old lists {cached['digest']}, a 'application/"):
        await bench.gather("app:old")
