"""What a registry accepted is journaled: the next run begins with the form that is proven, and nothing is
refused twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from blobflow.engine.pairs import Pair
from blobflow.oci import Reference
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings, Profile
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from tests.library import mirror
from tests.scenarios.registries import fill
from tools.registry.faulty import Fault, JournallingRegistry, Refuse, Status, journalling

KIB = 1024
UPLOADS = "/blobs/uploads/"
# Different layers of the same sizes; 96 KiB is the largest.
YESTERDAY, TODAY = (
    sample_set(seed, images=2, architectures=("amd64",), layer_size=96 * KIB) for seed in (31, 32)
)
BLOBS = len(TODAY.blobs)


class Lesson(msgspec.Struct, frozen=True):
    """What a registry refuses always, the forms that are tried in order, how many refusals the first run has,
    and by which requests the second one brings its blobs."""

    name: str
    refuses: tuple[Fault, ...]
    rungs: tuple[UploadMethod, ...]
    refused: int
    second: dict[str, int]
    single_bytes: int = 2**40

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


LESSONS = [
    Lesson(
        "single PUTs are refused",
        (Fault("PUT", "digest=", times=0, act=Refuse(404, over=0)),),
        ("single", "stream"),
        refused=1,
        second={"POST": BLOBS, "PATCH": BLOBS, "PUT": BLOBS},
    ),
    Lesson(
        "large single PUTs are refused",
        (Fault("PUT", "digest=", times=0, act=Refuse(413, over=30 * KIB)),),
        ("single", "stream"),
        refused=1,
        second={"POST": BLOBS, "PATCH": 4, "PUT": BLOBS},
    ),
    Lesson(
        "chunks are refused",
        (Fault("PATCH", "", times=0, act=Refuse(416, ranged=True)),),
        ("chunked", "stream"),
        refused=3,
        second={"POST": BLOBS, "PATCH": BLOBS, "PUT": BLOBS},
    ),
    Lesson(
        "streams are refused",
        (Fault("PATCH", "", times=0, act=Status(405)),),
        ("stream", "single"),
        refused=1,
        second={"POST": BLOBS, "PUT": BLOBS},
    ),
    Lesson(
        "a form that was not trusted with large blobs is proven",
        (),
        ("single", "stream"),
        refused=0,
        second={"POST": BLOBS, "PUT": BLOBS},
        single_bytes=KIB,
    ),
]


async def bring(
    day: str, images: SampleSet, source: JournallingRegistry, target: JournallingRegistry, settings: Settings
) -> Counter[str]:
    """Mirror the images of a day; the methods of the uploads, and under "refused" how many of them were."""
    fill(source.store, images, f"{day}/")
    target.journal.clear()
    pairs = []
    for name in images.images:
        repository, _, tag = f"{day}/{name}".rpartition(":")
        pairs.append(Pair(Reference(source.host, repository, tag), Reference(target.host, repository, tag)))
    assert (await mirror(pairs, settings)).ok
    uploads = [each for each in target.journal.select(pattern=UPLOADS) if "mount" not in each.query]
    refused = sum(each.status >= 400 for each in uploads)
    return Counter({"refused": refused}) + Counter(each.method for each in uploads)


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
async def test_the_second_run_begins_with_what_the_first_one_learnt(
    tmp_path: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)  # one upload after another
    async with (
        journalling(tmp_path / "source") as source,
        journalling(tmp_path / "target", lesson.refuses) as target,
    ):
        profile = Profile("p", lesson.rungs, single_bytes=lesson.single_bytes, chunk_bytes=32 * KIB)
        settings = Settings(
            cache_dir=tmp_path / "cache", concurrency=1, hosts={target.host: HostSettings(profile=profile)}
        )
        first = await bring("yesterday", YESTERDAY, source, target, settings)
        second = await bring("today", TODAY, source, target, settings)
    assert first["refused"] == lesson.refused
    assert second == lesson.second
