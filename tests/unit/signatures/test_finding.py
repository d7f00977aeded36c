"""Which referrers are signatures, what of them is read, and what bounds that."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from blobflow.content import Referrer
from blobflow.errors import DigestMismatch
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, media
from blobflow.oci.referrers import cosign_tags, referrer_descriptor
from blobflow.signatures import finding
from blobflow.signatures.contract import FoundSignature
from blobflow.signatures.finding import BUNDLE, MAX_SIGNATURES, find_signatures, signing_referrers
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.signed_images import OCI_EMPTY, SIMPLE_SIGNING, SPDX, Content

How = Literal["api", "cosign"]
SITE = MemoryRegistry("source").site("app")


class Repository:
    """An image, and what is put beside it."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry("source")
        self.content = Content()
        self.image = self.content.image("amd64")
        self.listed: list[Referrer] = []

    @property
    def subject(self) -> Digest:
        return self.image.descriptor.digest

    def bundle(self, words: str, artifact_type: str = f"{BUNDLE}.v0.3+json") -> Manifest:
        layer = self.content.blob(words.encode(), artifact_type)
        return self.listing(self.content.referrer(self.image, artifact_type, layer))

    def listing(self, made: Manifest, how: How = "api", tag: str = "") -> Manifest:
        self.listed.append(Referrer(referrer_descriptor(made), self.subject, how, tag))
        return made

    async def find(self) -> list[FoundSignature]:
        held = self.registry.manifests.setdefault(SITE, {})
        held.update({d: (m.descriptor.media_type, m.raw) for d, m in self.content.manifests.items()})
        self.registry.blobs[SITE] = self.content.blobs
        return await find_signatures(self.registry.at(SITE), self.subject, self.listed)


async def test_all_three_forms_are_found_and_say_what_they_are() -> None:
    there = Repository()
    under_tag = there.content.signature(there.image, "sig", "by tag")
    there.listing(under_tag, how="cosign", tag=cosign_tags(there.subject)[0])
    by_subject = there.listing(there.content.signature(there.image, "subject", "by subject"))
    bundle = there.bundle("a bundle")
    found = {each.manifest: each for each in await there.find()}
    assert {(each.form, each.how) for each in found.values()} == {
        ("simple", "cosign"),
        ("simple", "api"),
        ("bundle", "api"),
    }
    for made in (under_tag, by_subject, bundle):
        signature = found[made.descriptor.digest]
        assert signature.digest == digest_of(signature.content) == made.layers[0].digest
        assert signature.annotations == (made.layers[0].annotations or {})


@pytest.mark.parametrize("kind", [f"{BUNDLE}+json;version=0.1", f"{BUNDLE}.v0.3+json"])
async def test_bundles_of_each_version(kind: str) -> None:
    there = Repository()
    there.bundle("a bundle", kind)
    assert [each.form for each in await there.find()] == ["bundle"]


@pytest.mark.parametrize("told", [None, "", OCI_EMPTY])
async def test_bundles_of_which_lists_do_not_tell_what_they_are(told: str | None) -> None:
    """OCI_EMPTY is what their config is called."""
    there = Repository()
    there.bundle("a bundle")
    [listed] = there.listed
    untold = msgspec.structs.replace(listed.manifest, artifact_type=told)
    there.listed = [msgspec.structs.replace(listed, manifest=untold)]
    assert [each.form for each in await there.find()] == ["bundle"]


async def test_what_is_no_signature_is_not_read() -> None:
    there = Repository()
    there.listing(there.content.sbom(there.image))
    there.listing(
        there.content.signature(there.image, "att"), how="cosign", tag=cosign_tags(there.subject)[1]
    )
    assert await there.find() == []
    assert not there.registry.calls


async def test_what_is_listed_and_refers_to_something_else_is_none() -> None:
    there = Repository()
    other = there.content.image("arm64")
    there.listing(there.content.signature(other))
    assert await there.find() == []


@pytest.mark.parametrize("lie", [{"size": 0}, {"size": 10**9}, {"media_type": media.OCI_INDEX}])
async def test_the_digest_of_what_is_listed_decides(lie: dict[str, Any]) -> None:
    there = Repository()
    made = there.bundle("a bundle")
    [listed] = there.listed
    there.listed = [msgspec.structs.replace(listed, manifest=msgspec.structs.replace(listed.manifest, **lie))]
    [found] = await there.find()
    assert (found.content, found.manifest) == (b"a bundle", made.descriptor.digest)


async def test_what_is_listed_and_gone_is_none() -> None:
    there = Repository()
    gone = there.bundle("gone")
    del there.content.manifests[gone.descriptor.digest]
    hollow = there.bundle("hollow")
    del there.content.blobs[hollow.layers[0].digest]
    there.bundle("there")
    assert [each.content for each in await there.find()] == [b"there"]


async def test_other_bytes_than_their_digest_says_are_an_error() -> None:
    there = Repository()
    made = there.bundle("right")
    there.content.blobs[made.layers[0].digest] = b"wrong"
    with pytest.raises(DigestMismatch, match="signature sha256:"):
        await there.find()


async def test_two_signatures_of_one_payload_read_it_once() -> None:
    there = Repository()
    layers = [there.content.blob(b"{}", SIMPLE_SIGNING) | {"annotations": {"signature": key}} for key in "ab"]
    config = there.content.blob(b"{}", OCI_EMPTY)
    made = there.content.manifest({"config": config, "layers": layers}, media.OCI_MANIFEST)
    there.listing(made, how="cosign", tag=cosign_tags(there.subject)[0])
    assert [each.annotations["signature"] for each in await there.find()] == ["a", "b"]
    assert there.registry.count("open") == 1


async def test_so_many_are_read_and_no_more() -> None:
    there = Repository()
    for number in range(MAX_SIGNATURES + 5):
        there.bundle(f"bundle {number}")
    assert len(await there.find()) == there.registry.count("read") == MAX_SIGNATURES


async def test_so_many_bytes_are_read_the_smallest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MAX_SIGNATURE_BYTES", 60)
    there = Repository()
    for size in (50, 20, 30, 1000):
        there.bundle("x" * size)
    assert [len(each.content) for each in await there.find()] == [20, 30]


def test_what_says_that_it_is_a_signature_goes_before_what_says_nothing() -> None:
    def listed(name: str, kind: str | None) -> Referrer:
        descriptor = Descriptor(media.OCI_MANIFEST, digest_of(name.encode()), 1, artifact_type=kind)
        return Referrer(descriptor, digest_of(b"subject"), "tag")

    untold = [listed(f"untold {number}", None) for number in range(MAX_SIGNATURES)]
    told = listed("told", f"{BUNDLE}.v0.3+json")
    chosen = signing_referrers([*untold, told, listed("sbom", SPDX)])
    assert chosen[0] == told
    assert len(chosen) == MAX_SIGNATURES
