"""Large blobs over a far line: read by several ranges, each byte asked for once; and what goes wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow import composition
from blobflow.cli.output.report_text import summary_lines
from blobflow.content import BlobStream
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.services import CacheMode
from blobflow.errors import ConnectionLost
from blobflow.oci import Descriptor, Reference
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings, Registries
from blobflow.transports.registry.capabilities.range_support import REFUSED_SECONDS
from tests.fakes.jumping_clock import lapsing, with_stores
from tests.library import mirror
from tests.scenarios.child_process import wrong_blobs
from tests.scenarios.far_source import CONTENT, RANGE, RATE, far_source, small_sizes
from tests.scenarios.registries import fill
from tools.certificates import self_signed
from tools.registry.faulty import (
    Bearer,
    Corrupt,
    Crowded,
    Fault,
    Hangup,
    Ignore,
    Mute,
    RedirectTo,
    Reset,
    SetHeader,
    Slow,
    Stall,
    Status,
    Truncate,
    Unsized,
    journalling,
)

# Requests beyond those of the whole ranges: the head, and the shorter ones at the end.
MORE = 12


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_sizes(monkeypatch)
    yield


def disjoint(ranges: list[tuple[int, int]]) -> bool:
    return all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


@lapsing
async def test_a_far_blob_is_read_by_ranges_and_each_byte_is_asked_for_once(tmp_path: Path) -> None:
    async with far_source(tmp_path) as far:
        assert await far.read() == CONTENT
        border = far.ranges[0][0]
        assert disjoint(far.ranges)
        assert border > 0 and sum(stop - start for start, stop in far.ranges) == len(CONTENT) - border
        assert len(far.gets) <= len(CONTENT) / RANGE + MORE
        assert far.lanes == 8
        ranges = far.meter.hosts[far.registry.host].ranges
        assert (ranges.blobs, ranges.requests, ranges.bytes) == (1, len(far.ranges), len(CONTENT) - border)
        assert not ranges.fallbacks
        assert sorted((each.offset, each.offset + each.size) for each in far.range_reads) == far.ranges
        # The first answer is left with what was under way.
        assert sum(each.sent for each in far.gets) <= len(CONTENT) + 8 * RANGE


@lapsing
async def test_a_near_line_is_read_by_one_stream(tmp_path: Path) -> None:
    async with far_source(tmp_path, rate=0) as far:
        assert await far.read() == CONTENT
        assert len(far.gets) == 1


# What a range is answered by


ANSWERS = {
    "the whole blob": Fault("GET", "/blobs/", nth=2, times=0, act=Ignore("Range")),
    "416": Fault("GET", "/blobs/", nth=2, act=Status(416)),
    "403": Fault("GET", "/blobs/", nth=2, act=Status(403)),
    "another ETag": Fault("GET", "/blobs/", nth=2, act=SetHeader("ETag", '"other"')),
    "another digest": Fault(
        "GET", "/blobs/", nth=2, act=SetHeader("Docker-Content-Digest", f"sha256:{'0' * 64}")
    ),
    "another size": Fault(
        "GET", "/blobs/", nth=2, act=SetHeader("Content-Range", "bytes 393216-524287/5242881")
    ),
    "another range": Fault("GET", "/blobs/", nth=2, act=SetHeader("Content-Range", "bytes 0-131071/5242880")),
    "a coded body": Fault("GET", "/blobs/", nth=2, act=SetHeader("Content-Encoding", "gzip")),
}


@pytest.mark.parametrize("reason", ANSWERS)
@lapsing
async def test_a_first_range_that_is_answered_otherwise_costs_a_request_and_no_byte(
    tmp_path: Path, reason: str
) -> None:
    async with far_source(tmp_path, [ANSWERS[reason]]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert dict(ranges.fallbacks) == {reason: 1}
        assert (ranges.blobs, ranges.bytes) == (0, 0)
        assert len(far.gets) == 2
        assert far.meter.bytes_read == len(CONTENT)
        support, now = far.client.capabilities.ranges, asyncio.get_running_loop().time()
        assert not support.may_be_asked(far.blob.digest, now)
        assert support.may_be_asked(far.blob.digest, now + REFUSED_SECONDS)


@pytest.mark.parametrize("reason", [each for each in ANSWERS if each != "403"])
@lapsing
async def test_a_later_range_that_is_answered_otherwise_leaves_the_rest_to_one_stream(
    tmp_path: Path, reason: str
) -> None:
    fault = msgspec.structs.replace(ANSWERS[reason], nth=12, times=1)
    async with far_source(tmp_path, [fault]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert ranges.blobs == 1 and ranges.fallbacks.total() == 1
        assert max(stop for _, stop in far.ranges) == len(CONTENT)
        # What was ahead is read twice, which is no more than may be held.
        assert far.meter.bytes_read <= len(CONTENT) + 14 * RANGE


@pytest.mark.parametrize("reason", ["another range", "another size", "the whole blob"])
@lapsing
async def test_where_all_later_ranges_are_answered_otherwise_the_rest_is_taken_from_the_whole(
    tmp_path: Path, reason: str
) -> None:
    fault = msgspec.structs.replace(ANSWERS[reason], nth=12, times=0)
    async with far_source(tmp_path, [fault]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert ranges.blobs == 1 and dict(ranges.fallbacks) == {reason: 1}
        assert far.meter.bytes_read <= 2 * len(CONTENT) + 14 * RANGE
        assert "Range" not in far.gets[-1].asked or reason == "the whole blob"


@pytest.mark.parametrize("act", [Truncate(after=10), Stall(after=10)], ids=["cut", "silent"])
@lapsing
async def test_the_first_stream_is_not_left_for_ranges_that_bring_next_to_nothing(
    tmp_path: Path, act: Truncate | Stall
) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", nth=2, times=0, act=act)]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert ranges.blobs == 0 and ranges.fallbacks.total() == 1
        assert len(far.gets) <= 2 * MORE
        assert far.meter.bytes_read <= len(CONTENT) + 10 * len(far.gets)


@lapsing
async def test_the_first_stream_is_left_for_a_range_that_has_only_begun(tmp_path: Path) -> None:
    """A far connection is slow at first: if much of a range had to come, the first stream would pass it."""
    slow = Fault("GET", "/blobs/", nth=2, times=0, act=Slow(RATE / 32, each=True))
    async with far_source(tmp_path, [slow], content=CONTENT[: 10 * RANGE]) as far:
        assert await far.read() == far.content
        ranges = far.meter.hosts[far.registry.host].ranges
        assert (ranges.blobs, ranges.bytes) == (1, len(far.content) - far.ranges[0][0])


# Answers in chunks, which say by their Content-Range alone how long they are


@lapsing
async def test_ranges_without_a_content_length_are_as_good(tmp_path: Path) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", times=0, act=Unsized())]) as far:
        assert await far.read() == CONTENT
        assert disjoint(far.ranges) and far.lanes == 8
        assert not far.meter.hosts[far.registry.host].ranges.fallbacks


@pytest.mark.parametrize("nth", [2, 12])
@pytest.mark.parametrize("longer", [1, 2 * RANGE])
@lapsing
async def test_a_range_that_does_not_end_where_it_said_is_no_range(
    tmp_path: Path, nth: int, longer: int
) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", nth=nth, times=0, act=Unsized(longer))]) as far:
        assert await far.read() == CONTENT
        assert dict(far.meter.hosts[far.registry.host].ranges.fallbacks) == {"another length": 1}
        assert len(far.gets) <= nth + MORE
        assert far.meter.bytes_read <= len(CONTENT) + 14 * RANGE + 8 * longer


@lapsing
async def test_a_source_that_says_it_has_no_ranges_is_asked_for_none(tmp_path: Path) -> None:
    fault = Fault("GET", "/blobs/", times=0, act=SetHeader("Accept-Ranges", "none"))
    async with far_source(tmp_path, [fault]) as far:
        assert await far.read() == CONTENT
        assert len(far.gets) == 1


# What breaks


@pytest.mark.parametrize("act", [Reset(after=50_000), Truncate(after=50_000)])
@lapsing
async def test_a_range_that_breaks_goes_on_where_it_broke(tmp_path: Path, act: Reset | Truncate) -> None:
    faults = [Fault("GET", "/blobs/", nth=nth, act=act) for nth in (2, 5, 6, 9, 15)]
    async with far_source(tmp_path, faults) as far:
        assert await far.read() == CONTENT
        assert far.meter.hosts[far.registry.host].ranges.fallbacks == {}
        assert len(far.gets) <= len(CONTENT) / RANGE + MORE + len(faults)
        starts = [start for start, _ in far.ranges]
        assert len(starts) == len(set(starts)), "or bytes were asked for twice"


@lapsing
async def test_a_head_that_breaks_once_ranges_came_is_gone_on_with_by_a_range(tmp_path: Path) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", act=Reset(after=1_000_000))]) as far:
        assert await far.read() == CONTENT
        assert disjoint(far.ranges)


@lapsing
async def test_what_keeps_breaking_fails_with_that_error_after_all_that_is_before_it(tmp_path: Path) -> None:
    never = Fault("GET", "/blobs/", nth=10, times=0, act=Reset(after=10))
    async with far_source(tmp_path, [never]) as far:
        came = 0
        with pytest.raises(ConnectionLost) as caught:
            async with far.reader().open() as stream:
                async for chunk in stream:
                    came += len(chunk)
        assert caught.value.side == "source"
        assert (caught.value.received, caught.value.expected) == (came, len(CONTENT))
        assert came > 5 * RANGE
        limiter = far.client.limiter
        assert limiter.in_flight == 0


@lapsing
async def test_a_host_that_takes_four_at_once_gets_no_more(tmp_path: Path) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", times=0, act=Crowded(4))]) as far:
        assert await far.read() == CONTENT
        refused = len([each for each in far.gets if each.status == 429])
        assert 1 <= refused <= 12
        assert disjoint([*dict.fromkeys(far.ranges)])


# Where and under what


@lapsing
async def test_leaving_early_leaves_no_connection_no_task_and_no_permit(tmp_path: Path) -> None:
    async with far_source(tmp_path) as far:
        before = asyncio.all_tasks()
        async with far.reader().open() as stream:
            async for _ in stream:
                if far.lanes >= 4:
                    break
        assert far.client.limiter.in_flight == 0
        assert far.client.read_ahead.held == far.client.read_ahead.blobs == 0
        ours = [task for task in asyncio.all_tasks() - before if "RangeLanes" in repr(task)]
        assert not ours


@lapsing
async def test_a_slow_reader_holds_no_more_than_the_budget(tmp_path: Path) -> None:
    most = 0
    async with far_source(tmp_path) as far:
        async with far.reader().open() as stream:
            async for _ in stream:
                most = max(most, far.client.read_ahead.held)
                if far.lanes >= 2:
                    await asyncio.sleep(0.3)
        assert far.client.read_ahead.limit - RANGE < most <= far.client.read_ahead.limit + 8 * 64 * 1024


@lapsing
async def test_a_stream_that_is_closed_under_its_reader_raises_and_never_passes_for_whole(
    tmp_path: Path,
) -> None:
    async with far_source(tmp_path) as far, far.source.open(far.blob) as stream:
        async for _ in stream:
            if far.lanes >= 2:
                break
        waiting = asyncio.ensure_future(_read_out(stream))
        await asyncio.sleep(0.05)
        await stream.aclose()
        with pytest.raises(ConnectionLost):
            await waiting
        with pytest.raises(ConnectionLost):
            await anext(stream)
        await stream.aclose()


async def _read_out(stream: BlobStream) -> None:
    async for _ in stream:
        pass


@lapsing
async def test_a_limit_of_ours_holds_for_all_ranges_together(tmp_path: Path) -> None:
    async with far_source(tmp_path, limit=2 * RATE) as far:
        now = asyncio.get_running_loop().time
        began = now()
        assert await far.read() == CONTENT
        assert far.lanes >= 2
        assert now() - began >= len(CONTENT) / (2 * RATE) - 0.2
    async with far_source(tmp_path / "lower", limit=RATE / 2) as far:
        assert await far.read() == CONTENT
        assert len(far.gets) == 1, "or ranges were to bring what the limit forbids"


@lapsing
async def test_whole_blobs_go_before_ranges_of_one(tmp_path: Path) -> None:
    async with far_source(tmp_path, connections=3) as far:
        others = [far.add(bytes([number]) * RANGE) for number in range(6)]
        async with far.source.open(far.blob) as stream:
            async for _ in stream:
                if far.lanes >= 3:
                    break

            async def read(blob: Descriptor) -> int:
                async with far.source.open(blob) as other:
                    return sum([len(chunk) async for chunk in other])

            reading = [asyncio.ensure_future(read(blob)) for blob in others]
            async for _ in stream:
                if all(each.done() for each in reading):
                    break
            assert [each.result() for each in reading] == [RANGE] * 6
            assert far.client.limiter.in_flight <= 3
        asked = [far.gets[number].blob for number in range(len(far.gets))]
        assert asked.count(("app", far.blob.digest)) < len(CONTENT) / RANGE


@lapsing
async def test_a_range_that_is_not_answered_in_time_is_asked_for_farther_ahead(tmp_path: Path) -> None:
    async with far_source(tmp_path, [Fault("GET", "/blobs/", nth=2, act=Mute())]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert ranges.blobs == 1 and not ranges.fallbacks
    async with far_source(tmp_path / "never", [Fault("GET", "/blobs/", nth=2, times=0, act=Mute())]) as far:
        assert await far.read() == CONTENT
        ranges = far.meter.hosts[far.registry.host].ranges
        assert ranges.blobs == 0
        assert len(far.gets) <= 4
        assert far.client.limiter.in_flight == 0


@pytest.mark.parametrize(("offset", "end"), [(5, None), (1_000_000, 5_000_000), (0, 4_000_000)])
@lapsing
async def test_a_part_is_read_by_ranges_of_that_part(tmp_path: Path, offset: int, end: int | None) -> None:
    async with far_source(tmp_path) as far:
        assert await far.read(offset, end) == CONTENT[offset:end]
        assert far.lanes > 1
        assert far.ranges[-1][1] == (end or len(CONTENT))


@pytest.mark.parametrize("setting", [{"connections": 1}, {"parallel_ranges": False}], ids=str)
@lapsing
async def test_one_connection_and_ranges_switched_off_are_one_stream(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    async with far_source(tmp_path, **setting) as far:
        assert await far.read() == CONTENT
        assert len(far.gets) == 1


# Redirects


@pytest.mark.parametrize("end", [Status(403), Status(503), Hangup()], ids=["lapses", "fails", "is gone"])
@lapsing
async def test_ranges_go_where_the_blob_was_found_and_the_registry_is_asked_anew_when_that_ends(
    tmp_path: Path, end: Status | Hangup
) -> None:
    lapsed = Fault("GET", "signed=1", nth=9, times=0, act=end)
    token = Fault("*", "", times=0, act=Bearer())
    async with far_source(tmp_path, [lapsed]) as cdn, journalling(tmp_path / "door", [token]) as door:
        for times, signed in ((1, 1), (0, 2)):  # the first GET is the one without a token
            there = RedirectTo(f"{cdn.registry.url}{{path}}?signed={signed}")
            door.faults.add(Fault("GET", "/blobs/", nth=1 + signed, times=times, act=there))
        assert await cdn.read(host=door.host) == CONTENT
        assert disjoint([*dict.fromkeys(cdn.ranges)])
        # The blob, and each range that met the end of the first address.
        shown_in = [each for each in door.journal.select("GET", "/blobs/") if each.status == 307]
        assert 2 <= len(shown_in) <= 1 + 8
        if end == Status(403):  # the others are tried there first
            assert cdn.registry.journal.count("GET", "/blobs/", status=403) == len(shown_in) - 1
        assert {each.authorized for each in shown_in} == {"Bearer"}
        assert {each.authorized for each in cdn.gets} == {""}, "a token crossed origins"
        assert cdn.meter.hosts[door.host].ranges.blobs == 1


@lapsing
async def test_what_a_mirror_does_not_go_on_with_by_ranges_the_next_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_stores(monkeypatch)
    clock, own = asyncio.get_running_loop().time, "registry.example:5000"
    monkeypatch.setattr(composition, "Registries", partial(Registries, clock=clock))
    images = sample_set(11, images=1, architectures=("amd64",), layer_size=24 * RANGE)
    large = max(images.blobs, key=lambda digest: len(images.blobs[digest]))
    tired = Fault("GET", f"/blobs/{large}", nth=6, times=0, act=Status(503))
    async with (
        far_source(tmp_path, [tired]) as far,
        journalling(tmp_path / "second") as second,
        journalling(tmp_path / "target") as target,
    ):
        fill(far.registry.store, images)
        fill(second.store, images)
        repository, _, tag = next(iter(images.images)).partition(":")
        pair = Pair(Reference(own, repository, tag), Reference(target.host, repository, tag))
        mirrored = HostSettings(http=True, mirrors=(far.registry.host, second.host))
        settings = Settings(cache_dir=tmp_path / "cache", hosts={own: mirrored})
        report = await mirror([pair], settings, Policy(referrers="off"))
        assert report.ok
        assert target.journal.uploads(repository, large) == 1 and not wrong_blobs(target.store.root)
        assert any("Range" in each.asked and each.sent for each in far.gets)
        assert second.journal.count("GET", f"/blobs/{large}") == 1


@lapsing
async def test_ranges_come_over_tls_and_from_one_mirror_alone(tmp_path: Path) -> None:
    own = "registry.example:5000"
    async with far_source(tmp_path, tls=self_signed(tmp_path / "tls"), mirrors={own: ("{far}",)}) as far:
        assert await far.read(host=own) == CONTENT
        assert disjoint(far.ranges) and far.lanes == 8
        assert far.ranges[-1][1] == len(CONTENT)
        assert len(far.gets) <= len(CONTENT) / RANGE + MORE


# Wrong bytes


@pytest.mark.parametrize("cache", ["off", "all"])
@lapsing
async def test_wrong_bytes_of_a_range_reach_no_target_and_the_blob_is_read_again_by_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: CacheMode
) -> None:
    with_stores(monkeypatch)
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(composition, "Registries", partial(Registries, clock=clock))
    images = sample_set(11, images=1, architectures=("amd64",), layer_size=24 * RANGE)
    large = max(images.blobs, key=lambda digest: len(images.blobs[digest]))
    wrong = Fault("GET", f"/blobs/{large}", nth=3, act=Corrupt(at=100))
    async with far_source(tmp_path, [wrong]) as far, journalling(tmp_path / "target") as target:
        fill(far.registry.store, images)
        repository, _, tag = next(iter(images.images)).partition(":")
        pair = Pair(Reference(far.registry.host, repository, tag), Reference(target.host, repository, tag))
        settings = Settings(cache_dir=tmp_path / "cache", cache=cache)
        report = await mirror([pair], settings, Policy(referrers="off"))
        assert report.ok
        assert target.journal.uploads(repository, large) == 1 and not wrong_blobs(target.store.root)
        gets = [each for each in far.gets if large in each.path]
        assert len(gets) > 4
        by_ranges, again = gets[:-1], gets[-1]
        assert ["Range" in each.asked for each in by_ranges] == [False] + [True] * (len(by_ranges) - 1)
        assert "Range" not in again.asked and again.sent == len(images.blobs[large])
        assert report.ranges.blobs >= 1 and report.ranges.fallbacks == {"wrong bytes": 1}
        assert any("a range had wrong bytes" in line for line in summary_lines(report))
