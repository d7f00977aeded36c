"""Saved plans: what is carried out is what they say, today or next month, and nothing else."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from blobflow.cli.output.plan_text import left_referrer_lines, plan_lines
from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Copy, Mount, Put
from blobflow.engine.policy import Policy
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.saved.planning import run_of_saved
from blobflow.errors import ConnectFailed, ConnectionLost
from blobflow.oci import Reference, digest_of, media, parse_platform
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.referrers import cosign_tags
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.deadlines import HANGS_AFTER
from tests.library import plan_pairs, plan_saved
from tests.scenarios.hanging_targets import hang, when_done
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.referrers import SOURCE, TARGET, ReferrersScenario
from tests.scenarios.saved_plans import applied, moved, put_something, saved_by, statuses

ARM64 = PlatformChoice((parse_platform("linux/arm64"),))
APP = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"))


def choosing(bench: MirrorScenario, choice: PlatformChoice) -> list[Pair]:
    return [msgspec.structs.replace(pair, choice=choice) for pair in bench.pairs]


async def test_a_saved_plan_brings_all_of_it_and_the_second_time_nothing(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    report = await applied(bench, saved)
    assert statuses(report) == ["done"] * 4
    bench.assert_whole(target)
    copies = [step for step in saved.steps if isinstance(step, Copy)]
    mounts = [step for step in saved.steps if isinstance(step, Mount)]
    assert (target.count("push"), target.count("mount")) == (len(copies), len(mounts))
    assert (report.totals.blobs_copied, report.totals.blobs_mounted) == (len(copies), len(mounts))
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)

    again = await applied(bench, saved)
    assert statuses(again) == ["present"] * 4
    assert moved(target) == 0
    assert not bench.source.calls
    assert [image.digest for image in again.images] == [image.digest for image in report.images]


async def test_no_tag_is_looked_up_at_a_source_nor_what_refers_to_anything(store: Store) -> None:
    stand = ReferrersScenario(store)
    saved = await saved_by(
        stand, pairs=[Pair(Reference("source", "app", "1"), Reference("target", "app", "1"))]
    )
    assert statuses(await applied(stand, saved)) == ["done"]
    assert {call for call, _ in stand.source.calls} == {"read", "open"}
    assert stand.arrived(stand.signed.referrers)
    assert statuses(await applied(stand, saved)) == ["present"]
    assert moved(stand.there) == 0


async def test_a_sync_after_it_takes_the_images_as_whole(bench: MirrorScenario) -> None:
    bench.target()
    await applied(bench, await saved_by(bench))
    bench.forget_calls()
    assert statuses(await bench.mirror()) == ["present"] * 4
    assert {call for call, _ in bench.source.calls} == {"resolve"}


@pytest.mark.parametrize("refers", ["api", "tag"])
async def test_a_signature_that_moved_at_the_source_is_not_brought(store: Store, refers: str) -> None:
    stand = ReferrersScenario(store, "api", "api" if refers == "api" else "tag")
    saved = await saved_by(stand, pairs=[APP])
    subject, [signature] = next(iter(stand.signed.by_tag.items()))
    tag = cosign_tags(subject)[0]
    other = next(d for d in stand.source.manifests[SOURCE] if d != signature.descriptor.digest)
    stand.source.tags[SOURCE, tag] = other
    stand.source.tags[SOURCE, "1"] = other
    assert statuses(await applied(stand, saved)) == ["done"]
    assert stand.there.tags[TARGET, tag] == signature.descriptor.digest
    named = {step.manifest.digest for step in saved.steps if isinstance(step, Put)}
    lists = {d for d, (kind, _) in stand.there.manifests[TARGET].items() if kind == media.OCI_INDEX}
    assert stand.there.manifests[TARGET].keys() - lists <= named


async def test_what_is_there_by_now_is_skipped(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    half = bench.pairs[:2]
    await run_of_pairs(half).execute(bench.services())
    report = await applied(bench, saved)
    assert statuses(report) == ["present", "present", "done", "done"]
    bench.assert_whole(target)
    gone = {blob.digest for step in saved.steps if isinstance(step, Copy) for blob in [step.blob]}
    pushed = {name for call, name in target.calls if call == "push"}
    assert pushed < gone
    assert report.totals.blobs_present > 0


async def test_a_child_that_is_gone_is_put_again_below_an_index_that_is_there(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    await applied(bench, saved)
    site = next(iter(target.manifests))
    child = next(d for d in target.manifests[site] if d not in target.tags.values())
    del target.manifests[site][child]
    report = await applied(bench, saved)
    assert sorted(statuses(report)) == ["done", "present", "present", "present"]
    assert target.count("put") == 1 and target.count("push") == 0
    bench.assert_whole(target)


async def test_a_tag_that_was_taken_away_is_written_again_and_nothing_else(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    await applied(bench, saved)
    aim = next(iter(target.tags))
    del target.tags[aim]
    report = await applied(bench, saved)
    assert sorted(statuses(report)) == ["done", "present", "present", "present"]
    assert moved(target) == target.count("put") == 1
    bench.assert_whole(target)


async def test_mounts_come_from_where_the_plan_says_and_copies_are_made_where_that_is_lost(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    await applied(bench, saved)
    mount = next(step for step in saved.steps if isinstance(step, Mount))
    for site in (mount.origin, mount.target):
        target.blobs[site].pop(mount.blob.digest, None)
        target.manifests[site].clear()
        for aim in [aim for aim in target.tags if aim[0] == site]:
            del target.tags[aim]
    report = await applied(bench, saved)
    assert report.ok
    bench.assert_whole(target)
    assert target.calls["push", mount.blob.digest] == 1
    assert target.calls["mount", mount.blob.digest] >= 1


async def test_a_target_tag_that_names_something_else_by_now_is_written_as_planned(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    other = put_something(target, bench.pairs[0].target)
    report = await applied(bench, saved)
    assert report.ok
    assert target.tags[Site("target", bench.pairs[0].target.repository), bench.pairs[0].target.tag] != other


async def test_unless_the_plan_was_made_not_to_overwrite(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench, Policy(no_overwrite=True))
    pair = bench.pairs[0]
    other = put_something(target, pair.target)
    report = await applied(bench, saved)
    assert statuses(report) == ["failed", "done", "done", "done"]
    assert "--no-overwrite" in report.images[0].error and report.images[0].error.startswith("target: ")
    assert target.tags[Site("target", pair.target.repository), pair.target.tag] == other
    assert statuses(await applied(bench, saved)) == ["failed", "present", "present", "present"]


async def test_nor_is_a_signatures_tag_taken_from_another(store: Store) -> None:
    stand = ReferrersScenario(store)
    saved = await saved_by(stand, Policy(no_overwrite=True), [APP])
    tag = cosign_tags(next(iter(stand.signed.by_tag)))[0]
    other = put_something(stand.there, Reference("target", "app", tag))
    report = await applied(stand, saved)
    assert statuses(report) == ["done"]
    assert stand.there.tags[TARGET, tag] == other
    assert [each.how for each in report.images[0].referrers if "--no-overwrite" in each.left] == ["cosign"]


async def test_an_image_of_which_the_source_lost_a_manifest_fails_alone(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    site = Site("source", bench.pairs[0].source.repository)
    children = [d for d in bench.source.manifests[site] if d not in bench.source.tags.values()]
    del bench.source.manifests[site][children[0]]
    cost = (await plan_saved(saved, bench.services())).cost
    assert (cost.images, cost.blobs_present) == (3, 0), "what it wanted is neither there nor to be read"
    report = await applied(bench, saved)
    assert statuses(report) == ["failed", "done", "done", "done"]
    assert report.images[0].error == f"source: {site} has no {children[0]}"
    assert Site("target", bench.pairs[0].target.repository) not in {s for s, _ in target.tags}


async def test_a_manifest_that_one_source_lost_is_read_from_another_that_has_it(store: Store) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    bench.target()
    [pair] = bench.pairs
    other = Site("source", "elsewhere")
    bench.source.manifests[other] = dict(bench.source.manifests[Site("source", pair.source.repository)])
    bench.source.blobs[other] = dict(bench.source.blobs[Site("source", pair.source.repository)])
    bench.source.tags[other, "1"] = bench.source.tags[Site("source", pair.source.repository), pair.source.tag]
    second = Pair(Reference("source", "elsewhere", "1"), Reference("target", "zzz", "1"))
    saved = await saved_by(bench, pairs=[pair, second])
    bench.source.manifests[other].clear()
    assert statuses(await applied(bench, saved)) == ["done", "done"]


async def test_a_blob_that_is_gone_fails_its_image(bench: MirrorScenario) -> None:
    bench.target()
    saved = await saved_by(bench)
    held = [digest for blobs in bench.source.blobs.values() for digest in blobs]
    lone = next(d for d in held if held.count(d) == 1)
    for blobs in bench.source.blobs.values():
        blobs.pop(lone, None)
    report = await applied(bench, saved)
    assert sorted(statuses(report)) == ["done", "done", "done", "failed"]
    [failed] = [image for image in report.images if image.status == "failed"]
    assert failed.error.startswith("source: ") and lone in failed.error


async def test_a_root_that_was_at_the_target_and_is_gone_is_an_error_that_says_so(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    await run_of_pairs(bench.pairs[:1]).execute(bench.services())
    saved = await saved_by(bench)
    [present] = [image for image in saved.images if not image.steps]
    target.tags.clear()
    report = await applied(bench, saved)
    assert statuses(report) == ["failed", "done", "done", "done"]
    assert present.root.digest in report.images[0].error and "anew" in report.images[0].error


async def test_a_blob_that_was_at_the_target_and_is_gone_is_brought(
    store: Store,
) -> None:
    bench = MirrorScenario(store, sample_set(7, images=1))
    target = bench.target()
    site = Site("target", bench.pairs[0].target.repository)
    target.blobs[site] = dict(bench.source.blobs[Site("source", bench.pairs[0].source.repository)])
    target.manifests[site] = {}
    saved = await saved_by(bench)
    assert not any(isinstance(step, Copy) for step in saved.steps)
    target.blobs[site].clear()
    report = await applied(bench, saved)
    assert statuses(report) == ["done"]
    bench.assert_whole(target)


@pytest.mark.parametrize(
    ("index", "sparse"), [("prune", True), ("prune", False), ("auto", True), ("auto", False), ("keep", True)]
)
async def test_what_was_chosen_stays_chosen_and_the_second_time_nothing_moves(
    bench: MirrorScenario, index: str, sparse: bool
) -> None:
    target = bench.target()
    target.sparse = sparse
    choice = msgspec.structs.replace(ARM64, index=index)
    saved = await saved_by(bench, pairs=choosing(bench, choice))
    report = await applied(bench, saved)
    assert statuses(report) == ["done"] * 4, report.images
    kept = index == "keep" or (index == "auto" and sparse)
    assert all((image.digest == image.source_digest) is kept for image in report.images)
    assert all(image.platforms == ("linux/arm64/v8",) for image in report.images)
    again = await applied(bench, saved)
    assert statuses(again) == ["present"] * 4
    assert moved(target) == 0
    assert [image.digest for image in again.images] == [image.digest for image in report.images]


async def test_what_refers_to_an_index_that_was_replaced_is_left_and_told(store: Store) -> None:
    stand = ReferrersScenario(store)
    pair = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"), ARM64)
    saved = await saved_by(stand, pairs=[pair])
    for report in [await applied(stand, saved), await applied(stand, saved)]:
        [image] = report.images
        assert image.status in ("done", "present")
        assert image.digest != image.source_digest
        left = [each for each in image.referrers if each.left]
        assert left and {each.subject for each in left} >= {image.source_digest}
    assert moved(stand.there) == 0


async def test_a_target_that_can_not_be_asked_fails_alone(bench: MirrorScenario) -> None:
    good, bad = bench.target("a"), bench.target("b")
    saved = await saved_by(bench)
    bad.fault = lambda call, site, name: ConnectionLost("cut")
    report = await applied(bench, saved)
    assert {i.target[0]: i.status for i in report.images} == {"a": "done", "b": "failed"}
    bench.assert_whole(good)
    bad.fault = lambda call, site, name: None
    assert (await applied(bench, saved)).ok
    bench.assert_whole(bad)
    assert moved(good) == 0


async def test_several_targets_still_read_each_blob_once(bench: MirrorScenario) -> None:
    for name in ("a", "b", "c"):
        bench.target(name)
    assert (await applied(bench, await saved_by(bench))).ok
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)


async def test_an_image_that_could_not_be_planned_is_not_in_it_nor_its_place(
    bench: MirrorScenario,
) -> None:
    bench.target()
    wrong = Pair(Reference("source", "a/none", "1"), Reference("target", "a/none", "1"))
    saved = await saved_by(bench, pairs=[wrong, *bench.pairs])
    assert wrong not in saved.pairs and len(saved.pairs) == 4
    assert "a/none" not in save_plan_text(saved)


async def test_after_a_failure_nothing_new_is_begun_if_the_plan_says_so(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench, Policy(keep_going=False))
    for manifests in bench.source.manifests.values():
        manifests.clear()
    assert "failed" in statuses(await applied(bench, saved))
    assert moved(target) == 0


async def test_a_source_that_counts_what_is_read_is_asked_for_each_manifest_once(
    bench: MirrorScenario,
) -> None:
    bench.target()
    saved = await saved_by(bench)
    await applied(bench, saved)
    puts = {step.manifest.digest for step in saved.steps if isinstance(step, Put)}
    read = {name: n for (call, name), n in bench.source.calls.items() if call == "read"}
    assert read == dict.fromkeys(puts, 1)


async def test_the_whole_is_looked_at_again_afterwards_where_the_plan_says_so(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench, Policy(verify="content"))
    assert (await applied(bench, saved)).ok
    assert target.count("open") > 0
    assert (await applied(bench, saved)).ok
    assert target.count("open") > 0
    assert moved(target) == 0
    assert (await applied(bench, saved, Policy())).ok
    assert target.count("open") == 0


async def test_a_rest_is_planned_without_moving_anything(bench: MirrorScenario) -> None:
    target = bench.target()
    saved = await saved_by(bench)
    planned = await plan_saved(saved, bench.services())
    assert moved(target) == 0
    assert planned.cost == msgspec.structs.replace(
        saved.cost, blobs_present=planned.cost.blobs_present, blobs_unique=planned.cost.blobs_unique
    )
    await applied(bench, saved)
    assert (await plan_saved(saved, bench.services())).cost.current


def save_plan_text(saved: SavedPlan) -> str:
    return msgspec.json.encode(saved).decode()


@pytest.mark.parametrize("call", ["resolve", "is_empty", "has", "push", "put"])
async def test_a_target_that_hangs_holds_up_no_other(bench: MirrorScenario, call: str) -> None:
    hanging, refusing, healthy = hang(bench, call), bench.target("refusing"), bench.target("well")
    for pair in bench.pairs if call == "has" else ():  # something is there, so that more is asked
        hanging.blobs[hanging.site(pair.target.repository)] = {digest_of(b"other"): b"other"}
    hanging.let.set()
    saved = await saved_by(bench)
    hanging.let.clear()
    refusing.fault = lambda *_: ConnectFailed("connection refused")
    observe, arrived = when_done("well", 4, hanging.let.set)
    async with asyncio.timeout(HANGS_AFTER):  # what would hang for ever is to fail
        report = await run_of_saved(saved, observe=observe).execute(bench.services(patience=0))
    assert len(arrived) == 4
    bench.assert_whole(healthy)
    assert {i.target.partition("/")[0] for i in report.images if i.status == "failed"} == {"refusing"}
    assert [image.status for image in report.images].count("done") == 8
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1), "what the late one wants was kept for it"


async def test_after_winding_down_no_late_target_is_begun(bench: MirrorScenario) -> None:
    hanging = hang(bench, "resolve")
    bench.target("well")
    hanging.let.set()
    saved = await saved_by(bench)
    hanging.let.clear()

    def stop() -> None:
        assert execution.wind_down()

    observe, _ = when_done("well", 1, stop)
    execution = run_of_saved(saved, observe=observe)
    async with asyncio.timeout(HANGS_AFTER):
        report = await execution.execute(bench.services(patience=0))
    assert moved(hanging) == 0
    assert {i.status for i in report.images if i.target.startswith("hanging/")} == {"skipped"}


async def test_what_would_be_done_has_the_row_of_referrers_that_planning_had(store: Store) -> None:
    stand = ReferrersScenario(store)
    tag = cosign_tags(next(iter(stand.signed.by_tag)))[0]
    put_something(stand.there, Reference("target", "app", tag))
    policy = Policy(no_overwrite=True)
    planned = await plan_pairs([APP], stand.services(), policy)
    [row] = [line for line in plan_lines(planned) if line.startswith("referrers")]
    assert row.endswith(" to go along, 1 left")
    saved = await saved_by(stand, policy, [APP])
    again = await plan_saved(saved, stand.services())
    assert [line for line in plan_lines(again) if line.startswith("referrers")] == [row]
    assert left_referrer_lines(again) == left_referrer_lines(planned)
    await applied(stand, saved)
    done = await plan_saved(saved, stand.services())
    assert [line for line in plan_lines(done) if line.startswith("referrers")] == [
        "referrers  0 to go along, 1 left"
    ]
