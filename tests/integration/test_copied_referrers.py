"""What refers to an image, copied for itself: at its target it is listed for its subject, as it was ("Pushing
Manifests with Subject"), whether that is there or not."""

from __future__ import annotations

import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.oci import Reference
from blobflow.oci.referrers import fallback_tag
from blobflow.transports.store import Store
from tests.scenarios.referrers import SOURCE, TARGET, Kept, ReferrersScenario

NOTHING_LOOKED_UP = Policy(referrers="off")


class Alone(ReferrersScenario):
    """A source whose tag names a signature."""

    def __init__(self, store: Store, target: Kept) -> None:
        super().__init__(store, target=target)
        self.signature = self.signed.content.signature(self.signed.index, words="for itself")
        self.load(self.signed.content)
        self.source.tags[SOURCE, "1"] = self.signature.descriptor.digest


@pytest.mark.parametrize("target", ["api", "tag"])
async def test_a_signature_that_is_copied_for_itself_is_listed_for_its_subject(
    store: Store, target: Kept
) -> None:
    stand = Alone(store, target)
    record = await stand.run()
    assert (record.status, record.error, record.referrers) == ("done", "", ())
    assert stand.arrived([stand.signature])
    assert stand.signed.index.descriptor.digest not in stand.there.manifests[TARGET]
    assert stand.there.count("attach") == 1

    record = await stand.run(Policy(referrers="always"))
    assert record.status == "present", "what is listed is not attached again"
    assert stand.there.count("attach") == stand.there.count("put") == 0


async def test_a_list_that_is_copied_itself_is_not_added_to(store: Store) -> None:
    """As among all tags of a repository: the list is what it was."""
    stand = ReferrersScenario(store, "tag", "tag")
    subject = stand.signed.index.descriptor.digest
    tag = fallback_tag(subject)
    source, target = (Reference(host, "app", tag) for host in ("source", "target"))
    report = await stand.mirror(KEEP_GOING, [Pair(source, target)])
    assert report.images[0].status == "done"
    assert stand.there.tags[TARGET, tag] == stand.source.tags[SOURCE, tag]
    assert stand.there.calls["attach", subject] == 0


async def test_with_nothing_looked_up_it_is_put_as_it_is(store: Store) -> None:
    stand = Alone(store, "tag")
    record = await stand.run(NOTHING_LOOKED_UP)
    assert record.status == "done"
    assert stand.there.count("attach") == 0
    assert (await stand.run(KEEP_GOING)).status == "done"
    assert stand.arrived([stand.signature])
