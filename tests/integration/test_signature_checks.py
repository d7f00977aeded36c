"""Signature policies in a run: what is judged, when, what it costs, and what becomes of what is rejected."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import ImageRecord
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.signature_checks import judged_manifests
from blobflow.errors import BlobflowError, ConnectionLost, Denied, SignatureRejected, UsageError
from blobflow.oci import Digest, Reference, media
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.fakes.signature_judge import FakeJudge
from tests.library import plan_pairs
from tests.scenarios.referrers import SOURCE, Kept, ReferrersScenario
from tests.scenarios.saved_plans import applied, moved, saved_by
from tests.scenarios.signed_images import Content, item_of

PAIR = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"))


def asked_only(scenario: ReferrersScenario) -> bool:
    """Whether nothing was put at the target, under no tag."""
    return not moved(scenario.there) and not scenario.there.tags


@pytest.mark.parametrize("kept", ["api", "tag"])
async def test_what_is_signed_is_copied_and_the_report_says_by_whom(store: Store, kept: Kept) -> None:
    scenario = ReferrersScenario(store, kept)
    judge = FakeJudge()
    record = await scenario.run(Policy(signatures=judge))
    assert record.status == "done", record.error
    [verdict] = record.signatures
    root = scenario.signed.index.descriptor.digest
    assert (verdict.digest, verdict.scope, record.digest) == (root, "source/app:1", root)
    [met] = verdict.acceptances
    assert met.signature in scenario.signed.content.blobs
    assert met.manifest in scenario.signed.content.manifests
    assert [(each.transport, each.reference, each.digest) for each in judge.asked] == [
        ("docker", PAIR.source, root)
    ]


async def test_what_is_rejected_fails_alone_and_nothing_of_it_is_put(store: Store) -> None:
    scenario = ReferrersScenario(store)
    record = await scenario.run(Policy(signatures=FakeJudge("another")))
    assert (record.status, record.digest, record.signatures) == ("failed", "", ())
    assert record.error == "source: source/app:1: none of 2 signatures is right"
    assert asked_only(scenario)

    other = msgspec.structs.replace(PAIR, target=Reference("target", "other", "1"), signature_policy="open")
    policy = Policy(
        signatures=FakeJudge("another"), named_signatures={"open": FakeJudge(name="open", open_to_all=True)}
    )
    report = await scenario.mirror(policy, [PAIR, other])
    assert [image.status for image in report.images] == ["failed", "done"]
    assert not scenario.there.manifests.get(Site("target", "app"))


async def test_without_a_signature_it_is_rejected_and_a_tag_stays_what_it_was(store: Store) -> None:
    scenario = ReferrersScenario(store)
    await scenario.run()
    before = dict(scenario.there.tags)
    bare = Content()
    bare.index({"amd64": bare.image("amd64")}, "1")
    scenario.load(bare)
    record = await scenario.run(Policy(signatures=FakeJudge()))
    assert record.error == "source: source/app:1: none of 0 signatures is right"
    assert scenario.there.tags == before
    assert not moved(scenario.there)


async def test_a_policy_without_a_need_for_signatures_asks_for_none(store: Store) -> None:
    scenario = ReferrersScenario(store)
    await scenario.run(Policy(referrers="off"))
    plain = scenario.source.calls.copy()
    other = ReferrersScenario(store)
    record = await other.run(Policy(referrers="off", signatures=FakeJudge(open_to_all=True), verify="blobs"))
    assert [each.acceptances[0].requirement for each in record.signatures] == ["insecureAcceptAnything"]
    assert other.source.count("referrers") == plain["referrers", ""] == 0


async def test_what_is_attached_anyway_is_looked_up_and_read_once(store: Store, tmp_path: Path) -> None:
    """What was read for the verdict is not read again for the copy, so that a policy costs no request."""
    scenario = ReferrersScenario(store)
    await scenario.run()
    plain = scenario.source.calls.copy()
    with closing(Store.open(tmp_path / "other")) as other:
        judged = ReferrersScenario(other)
        await judged.run(Policy(signatures=FakeJudge()))
    assert judged.source.calls == plain
    [signature] = judged.signed.by_tag[judged.signed.index.descriptor.digest]
    assert plain["open", signature.layers[0].digest] == 1


async def test_what_was_read_for_the_verdict_is_pushed_again_without_the_source(store: Store) -> None:
    """A push that breaks is tried again with the bytes at hand."""
    scenario = ReferrersScenario(store)
    [signature] = scenario.signed.by_tag[scenario.signed.index.descriptor.digest]
    payload, breaks = signature.layers[0].digest, [False, True]  # the last first

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        return (
            ConnectionLost("broken", received=0)
            if (call, name) == ("push", payload) and breaks.pop()
            else None
        )

    scenario.there.fault = fault
    record = await scenario.run(Policy(signatures=FakeJudge()))
    assert record.status == "done", record.error
    assert scenario.there.calls["push", payload] == 2
    assert scenario.source.calls["open", payload] == 1


@pytest.mark.parametrize("signed", [True, False])
async def test_all_judges_each_manifest_that_is_copied(store: Store, signed: bool) -> None:
    scenario = ReferrersScenario(store)
    amd64, arm64 = (child.descriptor.digest for child in scenario.signed.children.values())
    if not signed:
        [claim] = scenario.signed.by_tag[amd64][0].layers
        del scenario.source.blobs[SOURCE][claim.digest]
    policy = Policy(signatures=FakeJudge(), judged="all")
    arm = await scenario.run(policy, "linux/arm64")
    root = scenario.signed.index.descriptor.digest
    assert [each.digest for each in arm.signatures] == [root, arm64], "what is left out is not judged"
    both = await scenario.run(policy)
    if signed:
        assert both.status == "done", both.error
        assert {each.digest for each in both.signatures} == {root, amd64, arm64}
    else:
        assert both.error == f"source: source/app:1: none of 0 signatures is right (of {amd64})"


def without_signature(scenario: ReferrersScenario, signed: Digest) -> None:
    """Take away what cosign's tag says of a manifest."""
    [claim] = scenario.signed.by_tag[signed][0].layers
    del scenario.source.blobs[SOURCE][claim.digest]


async def test_images_judges_each_image_that_is_copied_and_no_index(store: Store) -> None:
    scenario = ReferrersScenario(store)
    amd64, arm64 = (child.descriptor.digest for child in scenario.signed.children.values())
    without_signature(scenario, scenario.signed.index.descriptor.digest)
    policy = Policy(signatures=FakeJudge(), judged="images", referrers="off")
    arm = await scenario.run(policy, "linux/arm64")
    assert (arm.status, [each.digest for each in arm.signatures]) == ("done", [arm64])
    both = await scenario.run(policy)
    assert {each.digest for each in both.signatures} == {amd64, arm64}, both.error
    again = await scenario.run(policy)
    assert (again.status, again.signatures) == ("present", both.signatures)
    assert scenario.source.calls.total() == scenario.there.calls.total() == 1, "it is remembered"

    without_signature(scenario, amd64)
    assert (
        await scenario.run(Policy(signatures=FakeJudge(name="new"), judged="images", referrers="off"))
    ).error == (f"source: source/app:1: none of 0 signatures is right (of {amd64})")
    assert (
        await scenario.run(Policy(signatures=FakeJudge(), judged="root", referrers="off"))
    ).status == "failed"


async def test_without_images_of_its_own_the_index_is_judged_itself(store: Store) -> None:
    scenario = ReferrersScenario(store)
    root = scenario.signed.index.descriptor.digest
    policy = Policy(signatures=FakeJudge(), judged="images", referrers="off")
    await scenario.run(Policy(referrers="off"))  # what the index lists has to be there
    record = await scenario.run(policy, index="only")
    assert ([each.digest for each in record.signatures], record.error) == ([root], "")
    without_signature(scenario, root)
    other = Policy(signatures=FakeJudge(name="other"), judged="images", referrers="off")
    assert (await scenario.run(other, index="only")).status == "failed"


def test_an_index_that_lists_what_is_no_manifest_is_judged_with_its_images() -> None:
    content = Content()
    image = content.image("amd64")
    cache = {**content.blob(b"cache", "application/vnd.buildkit.cacheconfig.v0"), "platform": None}
    index = content.manifest(
        {"manifests": [msgspec.to_builtins(item_of(image.descriptor)), cache]}, media.OCI_INDEX
    )
    root = index.descriptor
    assert judged_manifests("images", root, [image, index]) == [root, image.descriptor]
    plain = content.index({"amd64": image})
    assert judged_manifests("images", plain.descriptor, [image, plain]) == [image.descriptor]
    assert judged_manifests("images", image.descriptor, [image]) == [image.descriptor]
    assert judged_manifests("all", plain.descriptor, [image, plain]) == [plain.descriptor, image.descriptor]
    assert judged_manifests("root", plain.descriptor, [image, plain]) == [plain.descriptor]


@pytest.mark.parametrize("judged", ["images", None])
async def test_a_saved_plan_of_images_is_judged_by_its_images(
    store: Store, judged: Literal["images"] | None
) -> None:
    scenario = ReferrersScenario(store)
    without_signature(scenario, scenario.signed.index.descriptor.digest)
    children = {child.descriptor.digest for child in scenario.signed.children.values()}
    policy = Policy(signatures=FakeJudge(), judged="images", referrers="off")
    saved = await saved_by(scenario, policy if judged else Policy(referrers="off"), [PAIR])
    judge = FakeJudge()
    report = await applied(scenario, saved, msgspec.structs.replace(policy, signatures=judge))
    assert report.ok
    assert {each.digest for each in judge.asked} == children


async def test_a_converted_image_is_judged_as_its_source_has_it(store: Store) -> None:
    scenario = ReferrersScenario(store)
    judge = FakeJudge()
    record = await scenario.run(Policy(signatures=judge), "linux/arm64", index="prune")
    root = scenario.signed.index.descriptor.digest
    assert record.status == "done"
    assert record.digest != root
    assert [each.digest for each in judge.asked] == [root]


# Memory


async def test_unchanged_and_remembered_costs_no_request_more(store: Store) -> None:
    scenario = ReferrersScenario(store)
    policy = Policy(signatures=FakeJudge())
    first = await scenario.run(policy)
    again = await scenario.run(policy)
    assert (again.status, again.signatures) == ("present", first.signatures)
    assert scenario.source.calls.total() == scenario.there.calls.total() == 1


async def test_all_is_remembered_too_and_root_does_not_stand_for_it(store: Store) -> None:
    scenario = ReferrersScenario(store)
    judge = FakeJudge()
    await scenario.run(Policy(signatures=judge))
    policy = Policy(signatures=judge, judged="all")
    first = await scenario.run(policy)
    assert (first.status, len(first.signatures)) == ("present", 3)
    assert not moved(scenario.there)
    again = await scenario.run(policy)
    assert again.signatures == first.signatures
    assert scenario.source.calls.total() == scenario.there.calls.total() == 1


async def test_what_was_put_without_the_policy_is_judged_under_it(store: Store) -> None:
    scenario = ReferrersScenario(store)
    await scenario.run()
    record = await scenario.run(Policy(signatures=FakeJudge("another")))
    assert (record.status, record.error) == ("failed", "source: source/app:1: none of 2 signatures is right")
    assert not moved(scenario.there)
    record = await scenario.run(Policy(signatures=FakeJudge()))
    assert (record.status, len(record.signatures)) == ("present", 1)
    assert not moved(scenario.there)


async def test_another_policy_or_name_is_not_what_is_remembered(store: Store) -> None:
    scenario = ReferrersScenario(store)
    await scenario.run(Policy(signatures=FakeJudge()))
    assert (await scenario.run(Policy(signatures=FakeJudge("another")))).status == "failed"
    scenario.source.tags[SOURCE, "2"] = scenario.source.tags[SOURCE, "1"]
    judge = FakeJudge()
    two = msgspec.structs.replace(PAIR, source=Reference("source", "app", "2"))
    await scenario.mirror(Policy(signatures=judge), [two])
    assert [each.reference.tag for each in judge.asked] == ["2"]


# Failures


async def test_a_source_that_cannot_say_fails_the_image(store: Store) -> None:
    scenario = ReferrersScenario(store)
    shut: BlobflowError = Denied("go away")
    scenario.source.fault = lambda call, site, name: shut if call == "referrers" else None
    record = await scenario.run(Policy(signatures=FakeJudge(), referrers="off"))
    assert record.status == "failed"
    assert "go away" in record.error
    assert "--referrers off" not in record.error, "that would not help"
    assert asked_only(scenario)


async def test_several_targets_ask_once(store: Store) -> None:
    scenario = ReferrersScenario(store)
    scenario.targets["second"] = MemoryRegistry("second", refers="api")
    judge = FakeJudge()
    pairs = [PAIR, msgspec.structs.replace(PAIR, target=Reference("second", "app", "1"))]
    report = await scenario.mirror(Policy(signatures=judge), pairs)
    assert [image.status for image in report.images] == ["done", "done"]
    assert len(judge.asked) == 1


async def test_a_policy_that_a_pair_names_has_to_be_there(store: Store) -> None:
    scenario = ReferrersScenario(store)
    named = msgspec.structs.replace(PAIR, signature_policy="strict.json")
    with pytest.raises(UsageError, match=r"strict\.json, which was not loaded"):
        await scenario.mirror(KEEP_GOING, [named])


# Plans


async def test_a_plan_says_what_would_be_rejected(store: Store) -> None:
    scenario = ReferrersScenario(store)
    planned = await plan_pairs([PAIR], scenario.services(), Policy(signatures=FakeJudge("another")))
    assert isinstance(planned.failures[PAIR], SignatureRejected)
    assert planned.failures[PAIR].exit_code == 9
    assert not planned.plan.steps


async def test_a_saved_plan_is_judged_again_before_it_is_carried_out(store: Store) -> None:
    scenario = ReferrersScenario(store)
    judge = FakeJudge()
    policy = Policy(signatures=judge, judged="all")
    saved = await saved_by(scenario, policy, [PAIR])
    assert saved.demanded[""].fingerprint == judge.fingerprint
    assert saved.policy.signatures is None
    with pytest.raises(UsageError, match="carried out under one"):
        await applied(scenario, saved)

    rejected = await applied(scenario, saved, Policy(signatures=FakeJudge("another")))
    assert [image.status for image in rejected.images] == ["failed"]
    assert asked_only(scenario)

    judge.asked.clear()
    scenario.source.tags[SOURCE, "1"] = scenario.signed.children["amd64"].descriptor.digest
    done: ImageRecord = (await applied(scenario, saved, policy)).images[0]
    assert done.status == "done"
    assert len(judge.asked) == len(done.signatures) == 3, "by the digests of the plan"


@pytest.mark.parametrize("member", ["signatures", "named_signatures"])
async def test_a_plan_file_brings_no_judge_of_its_own(store: Store, member: str) -> None:
    scenario = ReferrersScenario(store)
    saved = msgspec.to_builtins(await saved_by(scenario, pairs=[PAIR]))
    saved["policy"][member] = {"fingerprint": {}}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(saved, SavedPlan)


async def test_a_plan_without_a_policy_has_no_word_of_one(store: Store) -> None:
    scenario = ReferrersScenario(store)
    saved = await saved_by(scenario, pairs=[PAIR])
    assert saved.demanded == {}
    assert "signature_policies" not in msgspec.to_builtins(saved)
