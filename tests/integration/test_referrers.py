"""What hangs on images: that it arrives and is found, what it costs, and what is left."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Lookup, Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import ImageRecord
from blobflow.engine.sources.referrers import MAX_DEPTH
from blobflow.errors import Denied, TimedOut
from blobflow.events import Event, Warned
from blobflow.oci import (
    Descriptor,
    Digest,
    Reference,
    digest_of,
    media,
    parse_manifest,
)
from blobflow.oci.platform_choice import IndexMode
from blobflow.oci.referrers import cosign_tags, fallback_tag, merge_referrers_index
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.referrers import SOURCE, TARGET, Kept, ReferrersScenario
from tests.scenarios.signed_images import SPDX, Content, digests


def left_of(record: ImageRecord) -> dict[Digest, str]:
    return {Digest(each.digest): each.left for each in record.referrers if each.left}


@pytest.mark.parametrize("source", ["api", "tag"])
@pytest.mark.parametrize("target", ["api", "tag"])
async def test_all_that_hangs_on_an_index_and_its_children_arrives(
    store: Store, source: Kept, target: Kept
) -> None:
    stand = ReferrersScenario(store, source, target)
    record = await stand.run()
    assert record.status == "done", record.error
    assert stand.arrived(stand.signed.referrers)
    for subject, [signature] in stand.signed.by_tag.items():
        assert stand.there.tags[TARGET, cosign_tags(subject)[0]] == signature.descriptor.digest
    listed = {(each.digest, each.how) for each in record.referrers}
    by_subject = [each for found in stand.signed.by_subject.values() for each in found]
    by_tag = [each for found in stand.signed.by_tag.values() for each in found]
    assert listed == {(d, source) for d in digests(by_subject)} | {(d, "cosign") for d in digests(by_tag)}
    assert sum(each.artifact_type == SPDX for each in record.referrers) == 3
    assert not any(each.left for each in record.referrers)
    for digest, content in stand.signed.content.blobs.items():
        assert stand.there.blobs[TARGET][digest] == content
        assert stand.there.calls["push", digest] == 1, "what is shared moves once"


async def test_an_unchanged_image_costs_one_question_at_each_end(store: Store) -> None:
    stand = ReferrersScenario(store, target="tag")
    await stand.run()
    record = await stand.run()
    assert (record.status, record.referrers) == ("present", ())
    assert stand.source.calls.total() == stand.there.calls.total() == 1


async def test_a_new_signature_of_an_unchanged_image_is_seen_by_always_alone(store: Store) -> None:
    stand = ReferrersScenario(store, target="tag")
    await stand.run()
    late = Content()
    signature = late.signature(stand.signed.index, words="by another")
    stand.load(late)
    assert (await stand.run()).status == "present"
    assert not stand.has_any([signature])

    record = await stand.run(Policy(referrers="always"))
    assert record.status == "done"
    assert stand.arrived([signature, *stand.signed.referrers])
    assert stand.there.count("push") == 1, "one claim; the empty config is there"
    record = await stand.run(Policy(referrers="always"))
    assert record.status == "present" and len(record.referrers) == len(stand.signed.referrers) + 1
    assert stand.there.count("put") == stand.there.count("attach") == stand.there.count("push") == 0


async def test_off_brings_the_image_alone_and_auto_makes_good_for_it(store: Store) -> None:
    stand = ReferrersScenario(store)
    record = await stand.run(referrers="off")
    assert (record.status, record.referrers) == ("done", ())
    assert stand.source.count("referrers") == 0
    assert not stand.has_any(stand.signed.referrers)
    assert (await stand.run(Policy(referrers="off"))).status == "present"
    assert stand.source.calls.total() == 1

    record = await stand.run()
    assert record.status == "done" and stand.arrived(stand.signed.referrers)
    assert (await stand.run(Policy(referrers="off"))).status == "present"
    assert stand.source.calls.total() == 1, "more than is wanted is as good"


async def test_a_run_that_remembers_nothing_finds_all_there(store: Store, tmp_path: Path) -> None:
    stand = ReferrersScenario(store, target="tag")
    await stand.run()
    with closing(Store.open(tmp_path / "elsewhere")) as other:
        stand.reopen(other)
        record = await stand.run()
    assert record.status == "present"
    assert stand.there.count("put") == stand.there.count("push") == stand.there.count("attach") == 0


async def test_a_referrer_that_was_put_and_not_listed_is_listed_by_the_next_run(store: Store) -> None:
    stand = ReferrersScenario(store, target="tag")
    digest = stand.signed.index.descriptor.digest
    stand.there.fault = lambda call, site, name: (
        Denied("no", status=403) if (call, name) == ("attach", digest) else None
    )
    record = await stand.run()
    assert record.status == "failed" and "no" in record.error
    stand.there.fault = lambda call, site, name: None
    assert (await stand.run()).status == "done"
    assert stand.there.count("push") == 0
    assert stand.arrived(stand.signed.referrers)


async def test_a_plan_prices_what_hangs_on_an_image(store: Store) -> None:
    stand = ReferrersScenario(store)
    pair = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"))
    alone = (await plan_pairs([pair], stand.services(), Policy(referrers="off"))).cost
    cost = (await plan_pairs([pair], stand.services())).cost
    content = stand.signed.content
    assert cost.bytes_to_read == sum(map(len, content.blobs.values())) > alone.bytes_to_read
    assert cost.manifests == len(content.manifests) == alone.manifests + len(stand.signed.referrers)
    assert stand.there.count("put") == 0


@pytest.mark.parametrize("index", ["auto", "prune"])
async def test_what_refers_to_an_index_that_is_pruned_is_left_and_said_so(
    store: Store, index: IndexMode
) -> None:
    stand = ReferrersScenario(store, target="tag")
    signed = stand.signed
    record = await stand.run(KEEP_GOING, "linux/arm64", index=index)
    assert record.status == "done", record.error
    root, arm64 = signed.index.descriptor.digest, signed.children["arm64"].descriptor.digest
    assert record.digest != root
    sbom = signed.by_subject[arm64][1].descriptor.digest
    assert stand.arrived(signed.by_subject[arm64] + signed.by_tag[arm64] + signed.by_subject[sbom])
    of_root = signed.by_subject[root] + signed.by_tag[root]
    of_root += signed.by_subject[signed.by_subject[root][1].descriptor.digest]
    assert not stand.has_any(of_root)
    assert digests(of_root) == {each.digest for each in record.referrers if each.left}
    assert all("another manifest was made of it" in e.left for e in record.referrers if e.left)
    assert (await stand.run(KEEP_GOING, "linux/arm64", index=index)).status == "present"
    assert stand.source.calls.total() == 1


async def test_a_sparse_index_keeps_its_own_and_those_of_what_was_chosen(store: Store) -> None:
    stand = ReferrersScenario(store)
    stand.there.sparse = True
    signed = stand.signed
    record = await stand.run(KEEP_GOING, "linux/arm64")
    assert record.status == "done"
    root, amd64 = signed.index.descriptor.digest, signed.children["amd64"].descriptor.digest
    assert stand.arrived(signed.by_subject[root] + signed.by_tag[root])
    assert not stand.has_any(signed.by_subject[amd64] + signed.by_tag[amd64])
    assert stand.source.calls["referrers", amd64] == 0
    assert not any(each.left for each in record.referrers)


async def test_a_referrer_that_is_listed_and_gone_is_left(store: Store) -> None:
    stand = ReferrersScenario(store, source="tag")
    gone = stand.signed.by_subject[stand.signed.index.descriptor.digest][0].descriptor.digest
    del stand.source.manifests[SOURCE][gone]
    record = await stand.run()
    assert record.status == "done"
    [left] = [each for each in record.referrers if each.left]
    assert left.digest == gone and "has no" in left.left


async def test_a_source_that_cannot_say_fails_the_image_and_says_what_to_do(store: Store) -> None:
    stand = ReferrersScenario(store)
    stand.source.fault = lambda call, site, name: TimedOut("no answer") if call == "referrers" else None
    record = await stand.run()
    assert record.status == "failed"
    assert record.error.startswith("source: no answer")
    assert "--referrers off does without" in record.error
    assert (await stand.run(referrers="off")).status == "done"


async def test_a_signature_that_is_refused_fails_its_image_after_all_else_arrived(store: Store) -> None:
    stand = ReferrersScenario(store)
    [bad, sbom] = stand.signed.by_subject[stand.signed.index.descriptor.digest]
    stand.there.fault = lambda call, site, name: (
        Denied("no signatures here", status=403) if (call, name) == ("put", bad.descriptor.digest) else None
    )
    record = await stand.run()
    assert record.status == "failed" and "no signatures here" in record.error
    assert stand.there.tags[TARGET, "1"] == stand.signed.index.descriptor.digest
    assert stand.arrived([sbom]) and not stand.has_any([bad])
    stand.there.fault = lambda call, site, name: None
    assert (await stand.run()).status == "done"
    assert stand.arrived(stand.signed.referrers)
    assert stand.there.count("push") == 0


async def test_what_others_listed_at_the_target_stays_listed(store: Store) -> None:
    stand = ReferrersScenario(store, target="tag")
    digest = stand.signed.index.descriptor.digest
    own = Content()
    theirs = own.signature(stand.signed.index, words="made at the target")
    await own.put(stand.there.at(TARGET))
    raw = merge_referrers_index(None, [theirs.descriptor])
    assert raw is not None
    listing = parse_manifest(raw, media.OCI_INDEX)
    await stand.there.at(TARGET).put(listing.descriptor, raw, [fallback_tag(digest)])
    assert (await stand.run()).status == "done"
    assert stand.arrived([theirs, *stand.signed.referrers])


async def test_no_overwrite_leaves_a_signature_that_the_target_has_another_of(store: Store) -> None:
    stand = ReferrersScenario(store)
    digest = stand.signed.index.descriptor.digest
    own = Content()
    theirs = own.signature(stand.signed.index, "sig", words="made at the target")
    await own.put(stand.there.at(TARGET))
    record = await stand.run(Policy(no_overwrite=True))
    assert record.status == "done", record.error
    assert stand.there.tags[TARGET, cosign_tags(digest)[0]] == theirs.descriptor.digest
    [left] = [each for each in record.referrers if each.left]
    assert "--no-overwrite leaves it as it is" in left.left
    await stand.run(Policy(referrers="always"))
    assert stand.there.tags[TARGET, cosign_tags(digest)[0]] != theirs.descriptor.digest


async def test_referrers_of_referrers_are_followed_only_so_far(store: Store) -> None:
    stand = ReferrersScenario(store)
    content, subject = Content(), stand.signed.children["amd64"]
    chain = []
    for number in range(MAX_DEPTH + 2):
        subject = content.signature(subject, words=f"level {number}")
        chain.append(subject)
    stand.load(content)
    assert (await stand.run()).status == "done"
    assert stand.arrived(chain[:MAX_DEPTH]) and not stand.has_any(chain[MAX_DEPTH:])


async def test_an_sbom_of_two_images_moves_once_and_is_mounted(store: Store) -> None:
    stand = ReferrersScenario(store)
    other, away = Site("source", "other"), Site("target", "other")
    stand.source.blobs[other] = dict(stand.source.blobs[SOURCE])
    stand.source.manifests[other] = dict(stand.source.manifests[SOURCE])
    stand.source.tags.update({(other, tag): d for (s, tag), d in stand.source.tags.items() if s == SOURCE})
    pairs = [
        Pair(Reference("source", name, "1"), Reference("target", name, "1")) for name in ("app", "other")
    ]
    report = await stand.mirror(pairs=pairs)
    assert report.ok
    pushes = [name for (call, name), n in stand.there.calls.items() if call == "push" for _ in range(n)]
    assert sorted(pushes) == sorted(stand.signed.content.blobs)
    assert digests(stand.signed.referrers) <= stand.there.manifests[away].keys()
    assert report.totals.blobs_mounted == len(stand.signed.content.blobs)


async def test_a_place_that_holds_no_referrers_gets_the_image_alone(store: Store) -> None:
    stand = ReferrersScenario(store)
    stand.targets["target"] = MemoryRegistry("target")
    record = await stand.run()
    assert record.status == "done"
    assert set(left_of(record)) == digests(stand.signed.referrers)
    assert set(left_of(record).values()) == {"its target holds images alone"}
    assert stand.source.count("read") == 3, "the image's own manifests"
    record = await stand.run(referrers="off")
    assert record.referrers == () and stand.source.count("referrers") == 0


async def test_what_a_source_cannot_say_does_not_fail_an_image_that_goes_alone(store: Store) -> None:
    stand = ReferrersScenario(store)
    stand.targets["target"] = MemoryRegistry("target")
    stand.source.fault = lambda call, site, name: TimedOut("no answer") if call == "referrers" else None
    events: list[Event] = []
    pair = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"))
    report = await run_of_pairs([pair], KEEP_GOING, observe=events.append).execute(stand.services())
    assert report.ok
    [said] = [event.message for event in events if isinstance(event, Warned)]
    assert "what refers to source/app:1 is not known" in said and "no answer" in said


async def test_a_referrer_of_a_kind_that_we_cannot_read_is_left(store: Store) -> None:
    stand = ReferrersScenario(store, source="tag")
    digest = stand.signed.index.descriptor.digest
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    artifact = b'{"mediaType":"%s","subject":{}}' % kind.encode()
    odd = Descriptor(kind, digest_of(artifact), len(artifact))
    stand.source.manifests[SOURCE][odd.digest] = (kind, artifact)
    tag = (SOURCE, fallback_tag(digest))
    raw = merge_referrers_index(stand.source.manifests[SOURCE][stand.source.tags[tag]][1], [odd])
    assert raw is not None
    stand.source.manifests[SOURCE][digest_of(raw)] = (media.OCI_INDEX, raw)
    stand.source.tags[tag] = digest_of(raw)
    record = await stand.run()
    assert record.status == "done"
    assert [Digest(each.digest) for each in record.referrers if each.left] == [odd.digest]


def test_the_option_goes_before_what_pairs_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Policy] = []

    class Stop(Exception):
        pass

    async def planned(client: Any, pairs: Any, policy: Policy) -> None:
        seen.append(policy)
        raise Stop

    monkeypatch.setattr("blobflow.client.Client.plan", planned)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for option in ([], ["--referrers", "off"], ["--referrers", "always"]):
        CliRunner().invoke(cli, ["copy", "--dry-run", *option, "127.0.0.1:1/a:1", "127.0.0.1:2/a:1"])
    assert [policy.referrers for policy in seen] == [None, "off", "always"]


@pytest.mark.parametrize("policy", ["off", "always"])
async def test_the_policy_goes_before_what_pairs_say(store: Store, policy: Lookup) -> None:
    stand = ReferrersScenario(store)
    other: Lookup = "always" if policy == "off" else "off"
    await stand.run(Policy(referrers=policy), referrers=other)
    assert bool(stand.source.count("referrers")) == (policy == "always")


@pytest.mark.parametrize(("asked", "told"), [("always", 1), ("auto", 0), ("off", 0)])
async def test_where_they_do_not_get_is_told_once(store: Store, asked: Lookup, told: int) -> None:
    stand = ReferrersScenario(store)
    stand.targets["target"] = MemoryRegistry("target")
    pairs = [Pair(Reference("source", "app", "1"), Reference("target", "app", tag)) for tag in ("1", "2")]
    events: list[Event] = []
    report = await run_of_pairs(pairs, Policy(referrers=asked), observe=events.append).execute(
        stand.services()
    )
    said = [event.message for event in events if isinstance(event, Warned)]
    assert report.ok
    assert len([each for each in said if "target holds images alone: signatures" in each]) == told
