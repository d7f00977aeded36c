"""What hangs on images goes into layouts and archives with them, and out again."""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path

import pytest

from blobflow.content import NullJournal, Sink, Site, Source
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.errors import UsageError
from blobflow.events import Meter
from blobflow.oci import Descriptor, Digest, Reference, media, parse_platform
from blobflow.oci.local_reference import transport_of
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.referrers import cosign_tags, fallback_tag
from blobflow.permits import FixedLimiters
from blobflow.transports.layout.layout import OciLayout
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.signed_images import Signed, item_of


class Desk:
    """Registries in memory and the files of a folder, each run with files of its own opened anew."""

    def __init__(self, store: Store) -> None:
        self.registries: dict[str, MemoryRegistry] = {}
        self._store = store

    def registry(self, name: str, refers: str = "api") -> MemoryRegistry:
        assert refers in ("api", "tag")
        made = MemoryRegistry(name, refers="api" if refers == "api" else "tag")
        return self.registries.setdefault(name, made)

    async def copy(self, source: Reference, target: Reference, choice: PlatformChoice = EVERYTHING) -> Report:
        async with self.services() as services:
            pairs = [Pair(source, target, choice)]
            return await run_of_pairs(pairs, observe=lambda event: None).execute(services)

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        with closing(LocalTransports(self._store, Meter())) as local:

            def source_at(site: Site) -> Source:
                at_hand = transport_of(site.registry)
                return local.source(site) if at_hand else self.registries[site.registry].at(site)

            def sink_at(site: Site) -> Sink:
                at_hand = transport_of(site.registry)
                return local.sink(site) if at_hand else self.registries[site.registry].at(site)

            yield Services(
                source_at=source_at,
                sink_at=sink_at,
                cache=StoreCache(self._store),
                journal=NullJournal(),
                observe=lambda event: None,
                meter=Meter(),
                limiter_at=FixedLimiters().at,
                complete=local.complete,
            )


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


async def loaded(desk: Desk, name: str = "source") -> Signed:
    signed = Signed()
    await signed.content.put(desk.registry(name).at(Site(name, "app")))
    return signed


async def found_at(source: object, signed: Signed) -> set[tuple[Digest, Digest, str]]:
    """Subject, digest and tag of all that is found to refer to what was signed."""
    subjects = {*signed.by_subject, *signed.by_tag}
    assert isinstance(source, OciLayout) or hasattr(source, "referrers")
    return {
        (subject, each.manifest.digest, each.tag)
        for subject in subjects
        for each in await source.referrers(subject)
    }


def all_of(signed: Signed) -> set[tuple[Digest, Digest, str]]:
    own = {
        (subject, each.descriptor.digest, "") for subject, made in signed.by_subject.items() for each in made
    }
    tagged = {
        (subject, each.descriptor.digest, cosign_tags(subject)[0])
        for subject, made in signed.by_tag.items()
        for each in made
    }
    return own | tagged


@pytest.mark.parametrize("last", ["api", "tag"])
async def test_everything_comes_through_a_layout_and_an_archive(
    desk: Desk, tmp_path: Path, last: str
) -> None:
    signed = await loaded(desk)
    there = desk.registry("last", last)
    way = [
        Reference("source", "app", "1"),
        Reference(f"oci:{tmp_path}/layout", "", "one"),
        Reference(f"oci-archive:{tmp_path}/one.tar", "", "two"),
        Reference(f"oci:{tmp_path}/again", "", "four"),
        Reference("last", "app", "5"),
    ]
    for source, target in pairwise(way):
        report = await desk.copy(source, target)
        assert report.ok
        assert len(report.images[0].referrers) == len(all_of(signed)), target
        assert not any(each.left for each in report.images[0].referrers)
    assert await found_at(there.at(Site("last", "app")), signed) == all_of(signed)


async def test_an_archive_for_docker_holds_images_alone_and_the_report_says_what_was_left(
    desk: Desk, tmp_path: Path
) -> None:
    signed = await loaded(desk)
    target = Reference(f"docker-archive:{tmp_path}/d.tar", "", "docker.io/library/app:1")
    report = await desk.copy(Reference("source", "app", "1"), target)
    assert report.ok
    left = {(each.subject, each.digest) for each in report.images[0].referrers}
    assert left == {(subject, digest) for subject, digest, _ in all_of(signed)}
    assert {each.left for each in report.images[0].referrers} == {"its target holds images alone"}
    reads = {name for call, name in desk.registries["source"].calls if call == "read"}
    assert not reads & {digest for _, digest, _ in all_of(signed)}, "what is left is not read"
    with tarfile.open(tmp_path / "d.tar") as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert [each["digest"] for each in index["manifests"]] == [signed.index.descriptor.digest]


PARTS = {
    "one platform": PlatformChoice((parse_platform("linux/arm64"),)),
    "pruned": PlatformChoice((parse_platform("linux/arm64"),), "prune"),
    "sparse": PlatformChoice((parse_platform("linux/arm64"),), "keep"),
    "the index alone": PlatformChoice((), "only"),
    "docker's format": PlatformChoice((), "auto", "v2s2"),
}


@pytest.mark.parametrize(
    "place", ["oci:{}/l:one", "oci-archive:{}/a.tar:one", "docker-archive:{}/d.tar:one:1"]
)
@pytest.mark.parametrize("part", PARTS)
async def test_of_a_part_each_referrer_goes_along_or_is_told_as_left(
    desk: Desk, tmp_path: Path, place: str, part: str
) -> None:
    signed = await loaded(desk)
    word, path, name = place.format(tmp_path).split(":", 2)
    target = Reference(f"{word}:{path}", "", name)
    report = await desk.copy(Reference("source", "app", "1"), target, PARTS[part])
    [image] = report.images
    if place.startswith("docker") and part == "the index alone":
        assert image.status == "failed"  # which docker could not load
        return
    assert image.status == "done", image.error
    amd64, arm64 = (signed.children[each].descriptor.digest for each in ("amd64", "arm64"))
    concerned = {signed.index.descriptor.digest}
    concerned |= set() if part == "the index alone" else {arm64}
    concerned |= {amd64} if part == "docker's format" else set()
    for subject in tuple(concerned):
        concerned |= {made.descriptor.digest for made in signed.by_subject[subject]}
    went = {each for each in all_of(signed) if each[0] in concerned}
    assert {(each.subject, each.digest) for each in image.referrers} == {each[:2] for each in went}
    for each in image.referrers:
        of_index = each.subject in {signed.index.descriptor.digest} | {
            made.descriptor.digest for made in signed.by_subject[signed.index.descriptor.digest]
        }
        lost = part == "docker's format" or (of_index and image.digest != image.source_digest)
        said = "its subject is not at the target, another manifest was made of it" if lost else ""
        assert each.left == ("its target holds images alone" if place.startswith("docker") else said)


async def test_an_unchanged_layout_is_left_as_it_is(desk: Desk, tmp_path: Path) -> None:
    await loaded(desk)
    source, target = Reference("source", "app", "1"), Reference(f"oci:{tmp_path}/layout", "", "one")
    await desk.copy(source, target)
    index = (tmp_path / "layout/index.json").read_bytes()
    report = await desk.copy(source, target)
    assert report.images[0].status == "present"
    assert (tmp_path / "layout/index.json").read_bytes() == index


async def test_what_hangs_on_the_only_image_of_a_layout_makes_no_second_one(
    desk: Desk, tmp_path: Path
) -> None:
    signed = await loaded(desk)
    for place in (f"oci:{tmp_path}/layout", f"oci-archive:{tmp_path}/one.tar"):
        await desk.copy(Reference("source", "app", "1"), Reference(place, "", "one"))
        async with desk.services() as services:
            source = services.source_at(Site(place, ""))
            assert (await source.resolve("")).digest == signed.index.descriptor.digest
            assert await source.tags() == ["one"]  # type: ignore[attr-defined]


def entries(folder: Path, *items: Descriptor, **named: Descriptor) -> None:
    """Write the index.json of a layout anew."""
    listed = [
        *({**item_of(each)} for each in items),
        *(
            {**item_of(each), "annotations": {"org.opencontainers.image.ref.name": name}}
            for name, each in named.items()
        ),
    ]
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}
    (folder / "index.json").write_text(json.dumps(index))


async def test_a_layout_that_lists_referrers_without_a_name_as_oras_does_is_read(
    desk: Desk, tmp_path: Path
) -> None:
    signed = await loaded(desk)
    await desk.copy(Reference("source", "app", "1"), Reference(f"oci:{tmp_path}/l", "", "x"))
    bare = {each.descriptor.digest: each.descriptor for made in signed.by_subject.values() for each in made}
    entries(tmp_path / "l", *bare.values(), x=signed.index.descriptor)
    there = desk.registry("there")
    report = await desk.copy(Reference(f"oci:{tmp_path}/l", ""), Reference("there", "app", "1"))
    assert report.images[0].status == "done"
    assert {each.how for each in report.images[0].referrers} == {"index"}
    wanted = {each for each in all_of(signed) if not each[2]}
    assert await found_at(there.at(Site("there", "app")), signed) == wanted


async def test_what_refers_to_something_that_is_elsewhere_is_an_image_of_its_own(
    desk: Desk, tmp_path: Path
) -> None:
    signed = await loaded(desk)
    await desk.copy(Reference("source", "app", "1"), Reference(f"oci:{tmp_path}/l", "", "x"))
    lone, subject = signed.by_subject[signed.index.descriptor.digest][0].descriptor, signed.index.descriptor
    entries(tmp_path / "l", lone)
    (tmp_path / "l/blobs/sha256" / subject.digest[7:]).unlink()
    async with desk.services() as services:
        assert (await services.source_at(Site(f"oci:{tmp_path}/l", "")).resolve("")).digest == lone.digest


async def test_two_images_stay_two_whatever_hangs_on_them(desk: Desk, tmp_path: Path) -> None:
    signed = await loaded(desk)
    for platform, child in signed.children.items():
        source = Reference("source", "app", digest=child.descriptor.digest)
        await desk.copy(source, Reference(f"oci:{tmp_path}/l", "", platform))
    async with desk.services() as services:
        with pytest.raises(UsageError, match="holds 2 images"):
            await services.source_at(Site(f"oci:{tmp_path}/l", "")).resolve("")


async def test_lists_are_added_to_as_others_keep_them(desk: Desk, tmp_path: Path) -> None:
    """regctl's way: an index under the subject's digest, written as a tag."""
    signed = await loaded(desk)
    await desk.copy(Reference("source", "app", "1"), Reference(f"oci:{tmp_path}/l", "", "x"))
    layout = OciLayout(Site(f"oci:{tmp_path}/l", ""), tmp_path / "l", Meter().hosts["l"])
    named = await layout.resolve(fallback_tag(signed.index.descriptor.digest))
    assert named.media_type == media.OCI_INDEX
    listed = json.loads(await layout.read(named))["manifests"]
    assert [each["digest"] for each in listed] == sorted(each["digest"] for each in listed)
    assert len(listed) == 2


async def test_what_hangs_on_an_image_is_not_for_docker_to_load(desk: Desk, tmp_path: Path) -> None:
    """A tag of cosign's may name anything, also what docker could load."""
    signed = await loaded(desk)
    here = desk.registry("source").at(Site("source", "app"))
    subject = signed.index.descriptor.digest
    child = next(iter(signed.children.values()))
    await here.put(child.descriptor, child.raw, [f"{fallback_tag(subject)}.att"])
    for place in (f"docker-archive:{tmp_path}/d.tar", f"oci-archive:{tmp_path}/o.tar"):
        await desk.copy(Reference("source", "app", "1"), Reference(place, "", "docker.io/library/app:1"))
        with tarfile.open(place.partition(":")[2]) as tar:
            listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            old = json.load(tar.extractfile("repositories"))  # type: ignore[arg-type]
        assert [each["RepoTags"] for each in listed] == [["docker.io/library/app:1"]]
        assert list(old) == ["app"]
