"""What refers to roots is asked for while manifests are read: once each, and what went wrong is kept."""

from __future__ import annotations

import pytest

from blobflow.content import Referrer, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.sources.referrers import ReferrerLookups
from blobflow.errors import Denied
from blobflow.oci import Descriptor, Digest, digest_of, media

SITE = Site("source", "app")
SIGNED, SHUT = digest_of(b"signed"), digest_of(b"shut")


class Place:
    """A repository in which two things refer to SIGNED, and that does not tell what refers to SHUT."""

    def __init__(self) -> None:
        self.asked: list[Digest] = []

    async def referrers(self, subject: Digest) -> list[Referrer]:
        self.asked.append(subject)
        if subject == SHUT:
            raise Denied("go away")
        found = (Descriptor(media.OCI_MANIFEST, digest_of(name), 1) for name in (b"one", b"two"))
        return sorted((Referrer(each, subject, "api") for each in found), key=digest_last, reverse=True)


def digest_last(referrer: Referrer) -> Digest:
    return referrer.manifest.digest


async def test_each_is_asked_for_once_and_told_in_a_fixed_order() -> None:
    place = Place()
    referrals = ReferrerLookups(lambda site: place)  # type: ignore[arg-type,return-value]
    for _ in range(2):
        await referrals.look_ahead([(SITE, SIGNED), (SITE, SHUT)], BoundedRunner(2))
        found = await referrals.lookup((SITE, SIGNED))
        assert [each.manifest.digest for each in found] == sorted(digest_of(n) for n in (b"one", b"two"))
        with pytest.raises(Denied) as raised:
            await referrals.lookup((SITE, SHUT))
        assert raised.value.side == "source"
        assert raised.value.message.count("looking for what refers to") == 1
    assert sorted(place.asked) == sorted([SIGNED, SHUT])
