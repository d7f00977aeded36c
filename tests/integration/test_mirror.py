"""Whole runs of the engine over places in memory: what is asked, moved and mounted, as counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from blobflow.content import BlobReader, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy, VerifyLevel
from blobflow.errors import BlobflowError, ConnectFailed, ConnectionLost, Denied, NotFound, StorageError
from blobflow.events import Event, ImageDone
from blobflow.oci import Descriptor, Reference, parse_digest
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store, StoreJournal
from blobflow.transports.store.partial_files import KEPT_FROM
from tests.deadlines import HANGS_AFTER
from tests.scenarios.mirror import MirrorScenario


async def test_a_set_arrives_whole_with_each_blob_read_once_and_uploaded_once(bench: MirrorScenario) -> None:
    target = bench.target()
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(target)
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)
    assert {name: n for (call, name), n in target.calls.items() if call == "push"} == dict.fromkeys(
        bench.blobs(), 1
    )
    assert report.totals.blobs_copied == len(bench.blobs())
    assert report.totals.blobs_mounted == target.count("mount") > 0


async def test_three_targets_still_read_each_blob_once(bench: MirrorScenario) -> None:
    targets = [bench.target(name) for name in ("one", "two", "three")]
    report = await bench.mirror()
    assert report.ok
    for target in targets:
        bench.assert_whole(target)
        assert target.count("push") == len(bench.blobs())
    assert bench.source.count("open") == len(bench.blobs())
    assert len(report.images) == 12


async def test_the_second_run_asks_each_end_once_a_tag_and_moves_nothing(bench: MirrorScenario) -> None:
    target = bench.target()
    await bench.mirror()
    bench.forget_calls()
    report = await bench.mirror()
    assert [image.status for image in report.images] == ["present"] * 4
    assert {call for call, _ in bench.source.calls} == {"resolve"}
    assert bench.source.count("resolve") == 4
    assert {call for call, _ in target.calls} == {"resolve"}
    assert target.count("resolve") == 4


async def test_a_child_deleted_behind_our_back_is_put_again_by_a_run_that_does_not_remember(
    bench: MirrorScenario, tmp_path: Path
) -> None:
    target = bench.target()
    await bench.mirror()
    site = next(iter(target.manifests))
    children = [d for d in target.manifests[site] if d not in target.tags.values()]
    del target.manifests[site][children[0]]
    bench.forget_calls()
    other = Store.open(tmp_path / "other")
    bench.journal = StoreJournal(other)
    report = await bench.mirror()
    other.close()
    bench.assert_whole(target)
    assert target.count("put") == 1
    assert target.count("push") == 0
    assert sorted(image.status for image in report.images) == ["done", "present", "present", "present"]


async def test_refused_mounts_become_uploads_without_a_second_read(bench: MirrorScenario) -> None:
    target = bench.target(mounts=False)
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(target)
    assert bench.source.count("open") == len(bench.blobs())
    assert report.totals.blobs_mounted == 0


async def test_a_broken_read_is_tried_again(bench: MirrorScenario) -> None:
    target = bench.target()
    broken = iter([ConnectionLost("cut"), ConnectionLost("cut")])
    bench.source.fault = lambda call, site, name: next(broken, None) if call == "open" else None
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(target)
    assert len(bench.delays) >= 2


async def test_a_blob_that_can_not_be_read_fails_its_images_and_no_other(bench: MirrorScenario) -> None:
    target = bench.target()
    bad = next(
        digest for digest in bench.blobs() if sum(digest in held for held in bench.source.blobs.values()) == 1
    )
    gone = NotFound("blob unknown", status=404)
    bench.source.fault = lambda call, site, name: gone if (call, name) == ("open", bad) else None
    report = await bench.mirror()
    failed = [image for image in report.images if image.status == "failed"]
    assert len(failed) == 1
    assert failed[0].error == "source: blob unknown"
    assert report.totals.failed == 1
    assert [image.status for image in report.images].count("done") == 3
    reference = failed[0].target.removeprefix("target/")
    repository, _, tag = reference.rpartition(":")
    assert (Site("target", repository), tag) not in target.tags


async def test_a_denied_repository_fails_alone_and_its_blobs_find_another_home(bench: MirrorScenario) -> None:
    target = bench.target()
    denied = min(site.repository for site in bench.source.manifests)

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        return Denied("denied", status=403) if site.repository == denied and call == "push" else None

    target.fault = fault
    report = await bench.mirror()
    assert [image.status for image in report.images].count("done") == 3
    assert [image.target for image in report.images if image.status == "failed"] == [
        str(pair.target) for pair in bench.pairs if pair.target.repository == denied
    ]


async def test_a_target_that_died_fails_alone_and_at_once_and_is_caught_up_from_what_the_store_has(
    tmp_path: Path,
) -> None:
    sample = sample_set(7, images=3, layer_size=2 * KEPT_FROM)
    with closing(Store.open(tmp_path / "store")) as store:
        bench = MirrorScenario(store, sample)
        healthy, dying = bench.target("a"), bench.target("z")

        def fault(call: str, site: Site, name: str) -> BlobflowError | None:
            gone = call in ("push", "mount", "put") and dying.count("push") > 3
            return ConnectFailed("refused", attempts=4) if gone else None

        dying.fault = fault
        report = await bench.mirror()
        assert {image.target.partition("/")[0]: image.status for image in report.images} == {
            "a": "done",
            "z": "failed",
        }
        bench.assert_whole(healthy)
        assert bench.delays == []
        assert bench.opened() == dict.fromkeys(bench.blobs(), 1)
        taken = {digest for held in dying.blobs.values() for digest in held}
        assert len(taken) == 3
    with closing(Store.open(tmp_path / "store")) as store:
        bench.reopen(store)
        dying.fault = lambda call, site, name: None
        bench.forget_calls()
        assert (await bench.mirror()).ok
        bench.assert_whole(dying)
        kept = {digest for digest, content in sample.blobs.items() if len(content) >= KEPT_FROM}
        assert bench.opened() == dict.fromkeys(bench.blobs() - taken - kept, 1)
        assert {name for (call, name) in dying.calls if call == "push"} == bench.blobs() - taken
        assert healthy.count("push") + healthy.count("mount") + healthy.count("put") == 0
        assert store.partials.sizes(map(parse_digest, bench.blobs() - taken)) == {}


async def test_what_is_left_whole_in_the_store_takes_no_slot_at_the_source(tmp_path: Path) -> None:
    """A target that stands still, with as many such blobs under way as there are slots, holds up nobody."""
    sample = sample_set(7, images=3, layer_size=2 * KEPT_FROM)
    left = sorted(digest for digest, content in sample.blobs.items() if len(content) >= 2 * KEPT_FROM)[:4]
    with closing(Store.open(tmp_path / "store")) as store:
        for digest in left:
            store.paths.partial(parse_digest(digest), "0" * 16).write_bytes(sample.blobs[digest])
        bench = MirrorScenario(store, sample)
        still, healthy = bench.target("a"), bench.target("z")
        still.push_from.clear()

        def told(event: Event) -> None:
            if isinstance(event, ImageDone) and event.target.startswith("z/") and event.status == "done":
                finished.append(event.source)
                if len(finished) == len(sample.images):
                    still.push_from.set()

        finished: list[str] = []
        run = run_of_pairs(bench.pairs, observe=told)
        async with asyncio.timeout(HANGS_AFTER):
            assert (await run.execute(bench.services())).ok
        bench.assert_whole(healthy)
        assert bench.opened() == dict.fromkeys(bench.blobs() - set(left), 1)


async def test_a_copy_that_arrives_at_the_third_try_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "store")) as store:
        bench = MirrorScenario(store, sample_set(7, images=1, layer_size=2 * KEPT_FROM))
        bench.target("a")
        shaky = bench.target("z")

        def fault(call: str, site: Site, name: str) -> BlobflowError | None:
            early = call == "push" and shaky.calls[call, name] < 3
            return ConnectionLost("cut") if early else None

        shaky.fault = fault
        assert (await bench.mirror()).ok
        assert shaky.count("push") == 3 * len(bench.blobs())
    assert list((tmp_path / "store" / "partials").iterdir()) == []


async def test_an_unknown_tag_fails_alone(bench: MirrorScenario) -> None:
    bench.target()
    wrong = Pair(Reference("source", "no/such", "1"), Reference("target", "no/such", "1"))
    report = await bench.mirror(pairs=[*bench.pairs, wrong])
    assert [image.status for image in report.images] == ["done"] * 4 + ["failed"]
    assert report.images[-1].error.startswith("source: ")


async def test_two_digests_aimed_at_one_tag_both_fail_and_neither_wins(bench: MirrorScenario) -> None:
    target = bench.target()
    first, second, *others = bench.pairs
    rivals = [first, Pair(second.source, first.target)]
    report = await bench.mirror(pairs=[*rivals, *others])
    assert [image.status for image in report.images] == ["failed", "failed", "done", "done"]
    assert (Site("target", first.target.repository), first.target.tag) not in target.tags


async def test_no_overwrite_leaves_another_digest_where_it_is(bench: MirrorScenario) -> None:
    target = bench.target()
    await bench.mirror()
    pair = bench.pairs[0]
    site = Site("target", pair.target.repository)
    other = next(d for d in target.manifests[site] if d != target.tags[site, pair.target.tag])
    target.tags[site, pair.target.tag] = other
    report = await bench.mirror(Policy(no_overwrite=True))
    assert target.tags[site, pair.target.tag] == other
    assert [image.status for image in report.images] == ["failed", "present", "present", "present"]
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(target)


async def test_fail_fast_starts_nothing_more(bench: MirrorScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)
    target = bench.target()
    target.fault = lambda call, site, name: Denied("no", status=403) if call == "push" else None
    report = await bench.mirror(Policy(keep_going=False))
    statuses = {image.status for image in report.images}
    assert statuses == {"failed", "skipped"}
    assert target.count("push") <= 8


async def test_a_store_that_can_not_write_fails_images_with_a_sentence(bench: MirrorScenario) -> None:
    bench.target("one")
    bench.target("two")
    full = StorageError("can't write to the store: no space left on device")

    @asynccontextmanager
    async def share(blob: Descriptor, reader: BlobReader, **options: Any) -> AsyncIterator[BlobReader]:
        raise full
        yield reader

    bench.cache.share = share  # type: ignore[method-assign]
    report = await bench.mirror()
    assert {image.status for image in report.images} == {"failed"}
    assert {image.error for image in report.images} == {full.message}


async def test_winding_down_ends_what_is_under_way_and_starts_nothing_new(
    bench: MirrorScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)
    target = bench.target()
    run = run_of_pairs(bench.pairs)

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "push" and target.count("push") == 1:
            assert run.wind_down()
        return None

    target.fault = fault
    assert not run.wind_down()
    report = await run.execute(bench.services())
    assert 1 <= target.count("push") <= 4
    assert report.totals.blobs_copied == target.count("push")
    assert {image.status for image in report.images} == {"skipped"}
    assert target.tags == {}


async def test_trusting_roots_skips_the_look_below(bench: MirrorScenario, tmp_path: Path) -> None:
    target = bench.target()
    await bench.mirror()
    bench.forget_calls()
    other = Store.open(tmp_path / "other")
    bench.journal = StoreJournal(other)
    report = await bench.mirror(Policy(trust_root=True))
    other.close()
    assert {image.status for image in report.images} == {"present"}
    assert {call for call, _ in target.calls} == {"resolve"}


async def test_a_shelf_without_room_streams_past_and_reads_again_for_the_other_target(
    bench: MirrorScenario,
) -> None:
    targets = [bench.target("one"), bench.target("two")]
    largest = max(len(content) for content in bench.sample.blobs.values())
    report = await run_of_pairs(bench.pairs).execute(bench.services(staging_bytes=largest))
    assert report.ok
    for target in targets:
        bench.assert_whole(target)
    reads = [n for (call, _), n in bench.source.calls.items() if call == "open"]
    assert max(reads) == 2
    assert sum(reads) < 2 * len(bench.blobs())


async def test_verify_roots_asks_once_an_image_that_was_put(bench: MirrorScenario) -> None:
    target = bench.target()
    await bench.mirror()
    assert target.count("resolve") == 8
    bench.forget_calls()
    await bench.mirror()
    assert target.count("resolve") == 4


async def test_a_tag_that_does_not_name_what_was_put_fails_its_image(bench: MirrorScenario) -> None:
    target = bench.target()
    pair = bench.pairs[0]
    site = Site("target", pair.target.repository)

    class Forgetful(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            return default if key == (site, pair.target.tag) else super().get(key, default)

    target.tags = Forgetful()
    report = await bench.mirror()
    assert [image.status for image in report.images] == ["failed", "done", "done", "done"]
    assert report.images[0].error.startswith("target: ")
    [root] = target.manifests[site].keys() & {image.source_digest for image in report.images}
    assert bench.journal.doubted_puts() == {(site, root, "all")}


@pytest.mark.parametrize("level", ["blobs", "content"])
async def test_a_blob_that_vanished_below_a_manifest_is_repaired_by_a_closer_look(
    bench: MirrorScenario, level: VerifyLevel
) -> None:
    target = bench.target()
    await bench.mirror()
    site = Site("target", bench.pairs[0].target.repository)
    vanished = next(iter(target.blobs[site]))
    del target.blobs[site][vanished]
    bench.forget_calls()
    report = await bench.mirror(Policy(verify=level))
    assert sorted(image.status for image in report.images) == ["done", "present", "present", "present"]
    bench.assert_whole(target)
    assert target.count("push") + target.count("mount") == 1


@pytest.mark.parametrize("level", ["blobs", "content"])
async def test_what_does_not_answer_after_the_transfer_fails_its_image(
    bench: MirrorScenario, level: VerifyLevel
) -> None:
    target = bench.target()
    site = Site("target", bench.pairs[0].target.repository)
    vanished = [blob for blob in bench.blobs() if sum(blob in b for b in bench.source.blobs.values()) == 1]

    def fault(call: str, where: Site, name: str) -> BlobflowError | None:
        asks = call in ("has", "open") and where == site and name in vanished
        return NotFound("blob unknown") if asks and name in target.blobs.get(site, ()) else None

    target.fault = fault
    report = await bench.mirror(Policy(verify=level))
    failed = [image for image in report.images if image.status == "failed"]
    assert [image.target for image in failed] == [str(bench.pairs[0].target)]
    assert "blob" in failed[0].error


async def test_verify_content_finds_a_wrong_byte(bench: MirrorScenario) -> None:
    target = bench.target()
    await bench.mirror()
    site = Site("target", bench.pairs[0].target.repository)
    digest, content = max(target.blobs[site].items(), key=lambda item: len(item[1]))
    for held in target.blobs.values():
        if digest in held:
            held[digest] = bytes([content[0] ^ 1]) + content[1:]
    report = await bench.mirror(Policy(verify="content"))
    assert "failed" in {image.status for image in report.images}
    assert all(digest in image.error for image in report.images if image.status == "failed")


async def test_verify_content_reads_each_blob_back_once(bench: MirrorScenario) -> None:
    target = bench.target()
    report = await bench.mirror(Policy(verify="content"))
    assert report.ok
    assert target.count("open") == len(bench.blobs())


async def test_a_tag_that_moved_during_the_run_is_reported(bench: MirrorScenario) -> None:
    bench.target()
    pair = bench.pairs[0]
    site = Site("source", pair.source.repository)
    other = next(d for d in bench.source.manifests[site] if d != bench.source.tags[site, pair.source.tag])

    def fault(call: str, where: Site, name: str) -> BlobflowError | None:
        if call == "open":
            bench.source.tags[site, pair.source.tag] = other
        return None

    bench.source.fault = fault
    report = await bench.mirror()
    assert report.ok
    assert [image.moved for image in report.images] == [other, "", "", ""]
