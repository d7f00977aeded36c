"""`verify` looks for what hangs on the images too: it is listed, it is there, and its bytes are right."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from blobflow.engine.pairs import Lookup, Pair
from blobflow.engine.policy import Policy, VerifyLevel
from blobflow.errors import BlobflowError, Denied, DigestMismatch, NotFound, TimedOut
from blobflow.events import Event, Warned
from blobflow.oci import Digest, Manifest, Reference, parse_platform
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.referrers import cosign_tags
from blobflow.operations.verification import verify_pairs
from blobflow.transports.store import Store
from tests.scenarios.referrers import SOURCE, TARGET, Kept, ReferrersScenario
from tests.scenarios.signed_images import Content

LEVELS: tuple[VerifyLevel, ...] = ("roots", "blobs", "content")
Spoil = Callable[[ReferrersScenario, Manifest], None]


async def verify(
    stand: ReferrersScenario,
    level: VerifyLevel,
    referrers: Lookup | None = None,
    choice: PlatformChoice = EVERYTHING,
) -> BlobflowError | None:
    stand.forget_calls()
    pair = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"), choice)
    services = stand.services()
    [found] = (await verify_pairs(services, [pair], level, read_at_once=2, referrers=referrers)).values()
    return found


@pytest.mark.parametrize("target", ["api", "tag"])
@pytest.mark.parametrize("level", LEVELS)
async def test_what_was_mirrored_is_right(store: Store, level: VerifyLevel, target: Kept) -> None:
    stand = ReferrersScenario(store, target=target)
    await stand.run()
    assert await verify(stand, level) is None
    assert stand.there.count("open") == (len(stand.there.blobs[TARGET]) if level == "content" else 0)
    assert stand.there.count("put") == stand.there.count("push") == 0
    subjects = len(stand.signed.by_subject)
    assert stand.there.count("referrers") == subjects, "each subject that has any is asked about once"


def unlisted(stand: ReferrersScenario, referrer: Manifest) -> None:
    """It is there, and in no list."""
    del stand.there.manifests[TARGET][referrer.descriptor.digest]


def without_blob(stand: ReferrersScenario, referrer: Manifest) -> None:
    del stand.there.blobs[TARGET][referrer.layers[0].digest]


def spoilt(stand: ReferrersScenario, referrer: Manifest) -> None:
    blob = referrer.layers[0]
    stand.there.blobs[TARGET][blob.digest] = bytes(blob.size)


@pytest.mark.parametrize(
    ("spoil", "found_at"),
    [
        (unlisted, ("roots", "blobs", "content")),
        (without_blob, ("blobs", "content")),
        (spoilt, ("content",)),
    ],
)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("which", ["of the index", "of a child", "of an SBOM"])
async def test_what_is_wrong_is_found_at_the_level_that_looks_for_it(
    store: Store, spoil: Spoil, found_at: tuple[str, ...], level: VerifyLevel, which: str
) -> None:
    stand = ReferrersScenario(store)
    await stand.run()
    subject: Digest = stand.signed.index.descriptor.digest
    if which == "of a child":
        subject = stand.signed.children["arm64"].descriptor.digest
    elif which == "of an SBOM":
        subject = stand.signed.by_subject[subject][1].descriptor.digest
    spoil(stand, stand.signed.by_subject[subject][0])
    error = await verify(stand, level)
    assert (error is not None) == (level in found_at)
    assert error is None or error.side == "target"
    assert await verify(stand, "content", "off") is None, "off does without"
    assert stand.source.count("referrers") == stand.there.count("referrers") == 0


async def test_cosigns_tag_has_to_name_what_it_names_at_the_source(store: Store) -> None:
    stand = ReferrersScenario(store)
    await stand.run()
    tag = cosign_tags(stand.signed.index.descriptor.digest)[0]
    other = stand.signed.by_tag[stand.signed.children["amd64"].descriptor.digest][0]
    stand.there.tags[TARGET, tag] = other.descriptor.digest
    assert isinstance(await verify(stand, "roots"), DigestMismatch)
    del stand.there.tags[TARGET, tag]
    error = await verify(stand, "roots")
    assert isinstance(error, NotFound) and tag in str(error)


async def test_what_is_new_at_the_source_is_missing_until_a_run_brings_it(store: Store) -> None:
    stand = ReferrersScenario(store)
    await stand.run()
    late = Content()
    signature = late.signature(stand.signed.index, words="by another")
    stand.load(late)
    error = await verify(stand, "roots")
    assert error is not None and signature.descriptor.digest in str(error)
    await stand.run(Policy(referrers="always"))
    assert await verify(stand, "roots") is None


async def test_what_hangs_on_an_index_that_was_pruned_is_told_and_not_asked_for(store: Store) -> None:
    stand = ReferrersScenario(store)
    pruned = PlatformChoice((parse_platform("linux/amd64"),), "prune")
    assert (await stand.run(Policy(), "linux/amd64", index="prune")).status == "done"
    events: list[Event] = []
    pair = Pair(Reference("source", "app", "1"), Reference("target", "app", "1"), pruned)
    services = msgspec.structs.replace(stand.services(), observe=events.append)
    assert await verify_pairs(services, [pair], "content", read_at_once=2) == {pair: None}
    [told] = [event.message for event in events if isinstance(event, Warned)]
    on_index = len(stand.signed.by_subject[stand.signed.index.descriptor.digest])
    assert "another manifest was made of its subject" in told
    assert f"can't have {on_index + 2} of what refers to source/app:1" in told, "and what hangs on that"


async def test_of_a_part_of_an_index_only_what_hangs_on_that_has_to_be_there(store: Store) -> None:
    stand = ReferrersScenario(store)
    await stand.run(Policy(), "linux/amd64")
    chosen = PlatformChoice((parse_platform("linux/amd64"),))
    assert await verify(stand, "content", choice=chosen) is None
    error = await verify(stand, "blobs")
    assert error is not None, "of the whole something is missing"


@pytest.mark.parametrize("level", ["blobs", "content"])
async def test_a_run_that_verifies_looks_for_them_too(store: Store, level: VerifyLevel) -> None:
    stand = ReferrersScenario(store)
    record = await stand.run(Policy(verify=level))
    assert record.status == "done", record.error
    assert stand.there.count("referrers") >= len(stand.signed.by_subject)


async def test_a_run_that_asks_for_roots_alone_costs_what_it_did(store: Store) -> None:
    stand = ReferrersScenario(store)
    assert (await stand.run()).status == "done"
    assert stand.there.count("referrers") == 0


async def test_a_source_that_can_not_say_what_hangs_on_an_image_fails_it(store: Store) -> None:
    stand = ReferrersScenario(store)
    await stand.run()
    stand.source.fault = lambda call, site, name: Denied("no") if call == "referrers" else None
    error = await verify(stand, "roots")
    assert isinstance(error, Denied)
    assert (error.side, "--referrers off does without" in str(error)) == ("source", True)
    assert await verify(stand, "roots", "off") is None


async def test_what_can_not_be_read_at_the_source_is_not_taken_for_right(store: Store) -> None:
    stand = ReferrersScenario(store)
    await stand.run()
    sbom = stand.signed.by_subject[stand.signed.index.descriptor.digest][1].descriptor.digest
    stand.source.fault = lambda call, site, name: TimedOut("slow") if (call, name) == ("read", sbom) else None
    assert isinstance(await verify(stand, "roots"), TimedOut)
    del stand.source.manifests[SOURCE][sbom]
    stand.source.fault = lambda call, site, name: None
    assert await verify(stand, "roots") is None, "what is gone at the source no mirror brings"
