"""Mounts across runs: a set that a registry has comes again under another prefix, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Copy, Mount
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.saved.plan import to_saved_plan
from blobflow.engine.services import CacheMode
from blobflow.oci import Digest, Reference
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings
from blobflow.transports.registry.capabilities.profiles import profiles_by_name
from blobflow.transports.store import Store
from tests.library import execute, mirror, plan
from tests.scenarios.registries import fill, registries
from tests.scenarios.request_kinds import counted
from tools.registry.faulty import Fault, JournallingRegistry, MountReferenced, RefuseMount, Status

SAMPLE = sample_set(3, images=3, layer_size=1024)
IMAGES = len(SAMPLE.images)
BLOBS = len(SAMPLE.blobs)


def pairs(source: str, target: str, prefix: str, sample: SampleSet = SAMPLE) -> list[Pair]:
    names = [name.rpartition(":") for name in sample.images]
    return [
        Pair(Reference(source, repository, tag), Reference(target, f"{prefix}/{repository}", tag))
        for repository, _, tag in names
    ]


class Stand:
    """A source that has the set, a target, and one machine's store."""

    def __init__(self, source: JournallingRegistry, target: JournallingRegistry, folder: Path) -> None:
        self.source = source
        self.target = target
        self.folder = folder
        self.hosts: dict[str, HostSettings] = {}

    def settings(self, *, machine: str = "cache", cache: CacheMode = "auto") -> Settings:
        return Settings(cache_dir=self.folder / machine, cache=cache, hosts=self.hosts)

    async def run(self, prefix: str, policy: Policy = KEEP_GOING, *, cache: CacheMode = "auto") -> Report:
        """Mirror the set to `prefix`; the journals have this run alone then."""
        self.source.journal.clear()
        self.target.journal.clear()
        wanted = pairs(self.source.host, self.target.host, prefix)
        report = await mirror(wanted, self.settings(cache=cache), policy)
        assert report.ok, [image.error for image in report.images]
        return report

    @property
    def uploaded(self) -> int:
        """Bytes of blobs that the target was sent."""
        return sum(self.target.journal.bytes_in(digest) for digest in SAMPLE.blobs)

    @property
    def asked_for_mounts(self) -> int:
        return counted(self.target.journal)["POST mount"]

    def remove(self, prefix: str, digests: Sequence[str] = ()) -> None:
        """Take blobs, or all that there is, out of the target's repositories below `prefix`."""
        repositories = self.target.store.repositories
        for pair in pairs("", "", prefix):
            for digest in digests or [*SAMPLE.blobs, *SAMPLE.manifests]:
                repositories.remove(pair.target.repository, Digest(digest))


@asynccontextmanager
async def standing(folder: Path, faults: Sequence[Fault] = ()) -> AsyncIterator[Stand]:
    async with registries(folder, ["source", "target"], faults) as [source, target]:
        fill(source.store, SAMPLE)
        yield Stand(source, target, folder)


async def test_a_set_under_another_prefix_moves_no_byte_and_is_mounted_alone(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        first = await stand.run("one")
        mounted_at_first = first.totals.blobs_mounted
        report = await stand.run("two")
        asked = counted(stand.target.journal)
        assert stand.uploaded == 0
        assert asked.pop("POST mount") == stand.target.journal.mounts() == BLOBS + mounted_at_first
        assert asked.pop("PUT manifests") == counted(stand.target.journal)["PUT manifests"]
        assert asked.pop("HEAD manifests") <= 2 * IMAGES
        assert asked.pop("GET tags") <= IMAGES
        assert not asked, "nothing is uploaded, and nothing else is asked"
        assert counted(stand.source.journal)["GET blobs"] == 0
        assert (report.totals.blobs_copied, report.totals.blobs_mounted) == (0, BLOBS + mounted_at_first)
        assert report.totals.bytes_mounted > sum(map(len, SAMPLE.blobs.values()))


async def test_what_a_survey_found_is_an_origin_too(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        fill(stand.target.store, SAMPLE, "one/")
        assert (await stand.run("one")).totals.blobs_copied == 0
        assert (await stand.run("two")).totals.blobs_copied == 0
        assert stand.uploaded == 0


async def test_nothing_is_offered_without_a_store_or_at_another_registry(tmp_path: Path) -> None:
    async with registries(tmp_path, ["source", "here", "there"]) as [source, here, there]:
        fill(source.store, SAMPLE)
        await Stand(source, here, tmp_path).run("one")
        elsewhere = Stand(source, there, tmp_path)
        await elsewhere.run("two")
        assert not [each for each in there.journal if "one/" in str(each.query)]
        stand = Stand(source, here, tmp_path)
        report = await stand.run("three", cache="off")
        assert report.totals.blobs_copied == BLOBS
        assert not [each for each in here.journal if "one/" in str(each.query)]


async def test_a_refused_mount_costs_one_request_and_is_forgotten(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        mounted = (await stand.run("one")).totals.blobs_mounted
        posts = counted(stand.target.journal)["POST uploads"]
        stand.remove("one")
        report = await stand.run("two")
        asked = counted(stand.target.journal)
        assert report.totals.blobs_copied == BLOBS
        assert asked["POST mount"] == BLOBS + mounted
        assert asked["POST uploads"] == posts - BLOBS, "the session of the refusal is the upload's"
        stand.remove("two")
        stand.target.journal.clear()
        await stand.run("three")
        assert not [each for each in stand.target.journal if "one/" in str(each.query)], "forgotten"


async def test_a_registry_that_refuses_all_mounts_is_not_asked_again(tmp_path: Path) -> None:
    refuses = Fault("POST", "from=", times=0, act=RefuseMount(202))
    async with standing(tmp_path, [refuses]) as stand:
        mounts = (await stand.run("one")).totals
        assert mounts.blobs_mounted == 0
        within = stand.asked_for_mounts
        await stand.run("two")
        assert stand.asked_for_mounts == within, "as many as without a memory"
        assert not [each for each in stand.target.journal if "one/" in str(each.query)]


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_whatever_a_mount_is_answered_the_blob_is_uploaded(tmp_path: Path, status: int) -> None:
    answers = Fault("POST", "from=one", times=0, act=Status(status))
    async with standing(tmp_path, [answers]) as stand:
        await stand.run("one")
        report = await stand.run("two")
        assert report.totals.blobs_copied == BLOBS


async def test_an_unchanged_run_writes_nothing_of_it(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.run("one")
        before = remembered(tmp_path)
        await stand.run("one")
        await stand.run("one", Policy(verify="blobs"))
        assert remembered(tmp_path) == before


async def test_a_dry_run_shows_what_a_run_does_and_a_saved_plan_does_it(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        await stand.run("one")
        planned = await plan(pairs(stand.source.host, stand.target.host, "two"), stand.settings())
        assert not [step for step in planned.plan.steps if isinstance(step, Copy)]
        assert planned.cost.bytes_to_read == 0
        assert planned.cost.bytes_to_read_if_mounts_fail == sum(map(len, SAMPLE.blobs.values()))
        stand.target.journal.clear()
        saved = to_saved_plan(planned)
        report = await execute(saved, stand.settings(machine="another"))
        assert report.ok
        assert stand.uploaded == 0
        stand.remove("one")
        stand.remove("two")
        report = await execute(saved, stand.settings(machine="another"))
        assert report.ok
        assert report.totals.blobs_copied == BLOBS, "stale, and so uploaded once"


async def test_ecr_mounts_what_this_run_put_once_its_manifest_is_there(tmp_path: Path) -> None:
    referenced = Fault("POST", "mount=", times=0, act=MountReferenced())
    async with standing(tmp_path, [referenced]) as stand:
        ecr = profiles_by_name()["ecr"]
        stand.hosts = {stand.target.host: HostSettings(profile=ecr)}
        report = await stand.run("one")
        assert report.totals.blobs_copied == BLOBS
        assert stand.asked_for_mounts == report.totals.blobs_mounted > 0, "none is refused"
        again = await stand.run("two")
        assert again.totals.blobs_copied == 0
        assert stand.asked_for_mounts == again.totals.blobs_mounted


async def test_stale_origins_of_a_home_cost_its_siblings_nothing(tmp_path: Path) -> None:
    """A home that is refused its mount uploads; the others mount from it, without trying what it tried."""
    async with standing(tmp_path) as stand:
        await stand.run("one")
        stand.remove("one")
        planned = await plan(pairs(stand.source.host, stand.target.host, "two"), stand.settings())
        guesses = Counter(s.blob.digest for s in planned.plan.steps if isinstance(s, Mount) and s.remembered)
        assert set(guesses.values()) == {1}


def remembered(folder: Path) -> list[tuple[Any, ...]]:
    """What the store remembers, as rows."""
    store = Store.open(folder / "cache", read_only=True)
    try:
        return store.state.rows("SELECT * FROM mount_origins ORDER BY number")
    finally:
        store.close()
