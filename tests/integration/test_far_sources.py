"""Whole runs from a source that is far away: how many blobs move at once, and how the last one is read.

What is far is a relay, what is slow are the registry's bodies; both go by a clock on which only waiting takes
time.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from blobflow import composition
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.oci import Reference, digest_of, media
from blobflow.oci.sample_images import SampleSet, Stored
from blobflow.permits import PermitKind
from blobflow.settings import FAR_CONCURRENCY, Settings
from blobflow.transports.registry import Registries
from blobflow.transports.registry.capabilities.stream_growth import FIRST
from blobflow.transports.registry.http.limiter import HostPermit
from blobflow.transports.registry.ranges.line import SEEN_SECONDS
from tests.fakes.jumping_clock import weightless, with_stores
from tests.library import mirror
from tests.scenarios.far_source import CONTENT, RANGE, RATE, far_source, small_sizes
from tests.scenarios.registries import fill
from tools.network_path import Shape, long_path
from tools.registry.faulty import Fault, Slow, journalling
from tools.registry.journal import Exchange

USUAL = 8
FAR, NEAR = 0.04, 0.0
# What a connection carries.
EACH = Slow(RATE, each=True)
# More than what counts as a small request, and half a second at the rate of one connection.
LAYER = 2 * RANGE + RANGE // 2
MANY = [LAYER] * 60
SOME = [LAYER + RANGE * (number % 5) for number in range(60)]
LARGE = 64 * RANGE
CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYERS = rf"/blobs/(?!{digest_of(CONFIG)})"


class Run(NamedTuple):
    """What a source was asked for layers, in order."""

    gets: Sequence[Exchange]

    @property
    def ranges(self) -> Sequence[Exchange]:
        return [each for each in self.gets if "Range" in each.asked]

    @property
    def at_once(self) -> int:
        """The most layers and ranges of them that were under way at once."""
        return most_at_once(self.gets)


def image_of(sizes: Sequence[int]) -> SampleSet:
    """An image of one platform whose layers have these sizes in bytes."""
    blobs: dict[str, bytes] = {}

    def keep(kind: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    noise = random.Random(18)
    layers = [keep(media.OCI_LAYER_GZIP, noise.randbytes(size)) for size in sizes]
    config = keep(media.OCI_CONFIG, CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers}
    stored = Stored(media.OCI_MANIFEST, json.dumps(manifest).encode())
    return SampleSet({"app:1": stored}, {stored.digest: stored}, blobs)


def most_at_once(exchanges: Sequence[Exchange]) -> int:
    steps = [(each.begun, 1) for each in exchanges]
    steps += [(each.ended, -1) for each in exchanges if each.ended is not None]
    return max(itertools.accumulate(step for _, step in sorted(steps)))


async def bring(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: Sequence[int],
    *,
    rtt: float = FAR,
    body: Slow | None = EACH,
    concurrency: int | None = None,
) -> Run:
    """Mirror an image of these layers from a source so far away."""
    with_stores(monkeypatch)
    small_sizes(monkeypatch)
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(composition, "Registries", partial(Registries, clock=clock))
    images = image_of(sizes)
    slow = [Fault("GET", "/blobs/", times=0, act=body)] if body else []
    async with (
        journalling(folder / "source", slow, clock=clock) as source,
        journalling(folder / "target", clock=clock) as target,
        long_path(source.host, Shape(rtt=rtt), clock=clock) as path,
    ):
        fill(source.store, images)
        pair = Pair(Reference(path.host, "app", "1"), Reference(target.host, "app", "1"))
        settings = Settings(cache_dir=folder / "cache", concurrency=concurrency)
        report = await mirror([pair], settings, Policy(referrers="off"))
        assert report.ok
        return Run(source.journal.select("GET", LAYERS))


@weightless
async def test_from_far_away_twice_as_many_blobs_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await bring(tmp_path, monkeypatch, MANY)
    assert run.at_once == FAR_CONCURRENCY == 2 * USUAL
    assert len(run.gets) == len(MANY)


@pytest.mark.parametrize(("rtt", "concurrency"), [(NEAR, None), (FAR, USUAL)], ids=["near", "set"])
@weightless
async def test_from_near_and_where_their_number_was_set_no_more_come_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtt: float, concurrency: int | None
) -> None:
    run = await bring(tmp_path, monkeypatch, MANY, rtt=rtt, concurrency=concurrency)
    assert run.at_once == USUAL


@weightless
async def test_where_more_bring_no_more_they_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await bring(tmp_path, monkeypatch, SOME, body=Slow(2 * USUAL * RATE))
    assert most_at_once(run.gets[-20:]) <= USUAL + FIRST


@pytest.mark.parametrize("concurrency", [None, USUAL])
@weightless
async def test_the_last_blob_is_read_by_as_many_as_all_were_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int | None
) -> None:
    """Not two by two: the blobs before it have shown what the line carries."""
    run = await bring(tmp_path, monkeypatch, [LARGE, *MANY[:40]], concurrency=concurrency)
    limit = concurrency or FAR_CONCURRENCY
    assert limit - 1 <= most_at_once(run.ranges) <= limit
    asked = [each.asked["Range"] for each in run.ranges]
    assert len(asked) == len(set(asked))


@weightless
async def test_a_large_blob_from_near_is_read_by_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await bring(tmp_path, monkeypatch, [LARGE, *MANY[:8]], rtt=NEAR, body=None)
    assert not run.ranges


@weightless
async def test_a_range_whose_permit_is_wanted_before_it_is_asked_for_is_not_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sizes(monkeypatch)
    async with far_source(tmp_path) as far:
        limiter = far.client.limiter
        real = limiter.try_acquire_spare
        granted: list[HostPermit | None] = []

        def wanted_at_once(kind: PermitKind) -> HostPermit | None:
            permit = real(kind)
            if permit is not None and not granted:
                limiter.on_room(kind, lambda: None)
            granted.append(permit)
            return permit

        monkeypatch.setattr(limiter, "try_acquire_spare", wanted_at_once)
        assert await far.read() == CONTENT
        seen = int(2 * SEEN_SECONDS * RATE)  # all that was read when ranges were thought of again
        assert far.ranges[0][0] <= seen + 2 * RANGE
        assert far.lanes == 8
