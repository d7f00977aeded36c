"""A list of referrers is a hint: what refers to a manifest says so itself, and whatever does not is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest

from blobflow.content import Referrer
from blobflow.engine.policy import KEEP_GOING
from blobflow.engine.results.report import ImageRecord
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.referrers import (
    artifact_type_of,
    cosign_tags,
    fallback_tag,
    merge_referrers_index,
    referrer_descriptor,
)
from blobflow.transports.store import Store
from tests.fakes.memory_registry import ReferringPlace
from tests.scenarios.referrers import SOURCE, TARGET, ReferrersScenario
from tests.scenarios.signed_images import SIGNATURE, SPDX, Content, item_of

How = Literal["api", "tag"]


class Listing(ReferrersScenario):
    """A source that lists more under its index than refers to it."""

    def __init__(self, store: Store, how: How, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(store, source=how, target="tag")
        self.how = how
        self.more = Content()
        self._patch = monkeypatch

    def lists(self, *listed: Descriptor) -> None:
        """Let these be listed as referrers of the index."""
        self.load(self.more)
        subject, how = self.signed.index.descriptor.digest, self.how
        if how == "tag":
            held = self.source.manifests[SOURCE]
            raw = merge_referrers_index(held[self.source.tags[SOURCE, fallback_tag(subject)]][1], listed)
            assert raw is not None
            held[digest_of(raw)] = media.OCI_INDEX, raw
            self.source.tags[SOURCE, fallback_tag(subject)] = digest_of(raw)
            return
        told = ReferringPlace.referrers

        async def referrers(place: ReferringPlace, asked: Digest) -> list[Referrer]:
            found = await told(place, asked)
            if asked == subject and place._registry is self.source:
                found += [Referrer(each, subject, how) for each in listed]
            return found

        self._patch.setattr(ReferringPlace, "referrers", referrers)

    def listed_there(self) -> set[Digest]:
        """What the target's list of the index names."""
        found = self.there.at(TARGET)
        assert isinstance(found, ReferringPlace)
        _, raw = self.there.manifests[TARGET][
            self.there.tags[TARGET, fallback_tag(self.signed.index.descriptor.digest)]
        ]
        return {digest for digest in self.more.manifests if digest.encode() in raw}


def left_of(record: ImageRecord) -> dict[str, str]:
    return {each.digest: each.left for each in record.referrers if each.left}


@pytest.mark.parametrize("how", ["api", "tag"])
async def test_what_has_another_subject_is_left_and_said_so(
    store: Store, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, how, monkeypatch)
    other = stand.more.image("riscv64")
    stranger = stand.more.signature(other)
    its_own = stand.more.signature(stranger, words="of the stranger")
    stand.lists(referrer_descriptor(stranger))
    record = await stand.run()
    assert record.status == "done", record.error
    said = f"its subject is another manifest, {other.descriptor.digest}"
    assert left_of(record) == {stranger.descriptor.digest: said}
    assert not stand.has_any([stranger, its_own, other])
    assert stand.arrived(stand.signed.referrers)
    assert stand.listed_there() == set()
    assert stand.source.calls["referrers", stranger.descriptor.digest] == 0, "nothing is asked on its behalf"


@pytest.mark.parametrize("how", ["api", "tag"])
async def test_what_has_no_subject_is_left_and_said_so(
    store: Store, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, how, monkeypatch)
    image = stand.more.image("riscv64")
    index = stand.more.index({"riscv64": image})
    stand.lists(referrer_descriptor(image), referrer_descriptor(index))
    record = await stand.run()
    assert record.status == "done", record.error
    assert left_of(record) == dict.fromkeys(
        (image.descriptor.digest, index.descriptor.digest), "it is listed, and has no subject itself"
    )
    assert not stand.has_any([image, index])


@pytest.mark.parametrize("how", ["api", "tag"])
async def test_an_image_of_the_set_that_is_listed_as_a_referrer_is_only_an_image(
    store: Store, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, how, monkeypatch)
    child = stand.signed.children["amd64"]
    stand.lists(referrer_descriptor(child))
    record = await stand.run()
    assert record.status == "done", record.error
    assert set(left_of(record)) == {child.descriptor.digest}
    assert stand.arrived([child, *stand.signed.referrers])


def subject_with(**other: object) -> Callable[[Content, Manifest], Manifest]:
    """A signature whose subject is described otherwise than the manifest is."""

    def make(content: Content, subject: Manifest) -> Manifest:
        document = {
            "artifactType": SIGNATURE,
            "config": content.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [content.blob(b"{}", "application/vnd.oci.empty.v1+json")],
            "subject": item_of(subject.descriptor) | other,
        }
        return content.manifest(document, media.OCI_MANIFEST)

    return make


def index_with_subject(content: Content, subject: Manifest) -> Manifest:
    return content.manifest(
        {
            "manifests": [item_of(content.sbom(subject).descriptor)],
            "subject": item_of(subject.descriptor),
            "artifactType": "application/vnd.example.bundle",
        },
        media.OCI_INDEX,
    )


@pytest.mark.parametrize("how", ["api", "tag"])
@pytest.mark.parametrize(
    "make",
    [
        subject_with(size=1),
        subject_with(size=0),
        subject_with(mediaType="application/vnd.docker.distribution.manifest.list.v2+json"),
        subject_with(mediaType=""),
        index_with_subject,
    ],
)
async def test_the_digest_of_a_subject_decides(
    store: Store,
    how: How,
    make: Callable[[Content, Manifest], Manifest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand = Listing(store, how, monkeypatch)
    referrer = make(stand.more, stand.signed.index)
    stand.lists(*([referrer_descriptor(referrer)] if how == "tag" else []))
    record = await stand.run()
    assert record.status == "done", record.error
    assert left_of(record) == {}
    assert stand.arrived([referrer])


# What a list may tell wrongly of what it lists.
LIES: list[dict[str, Any]] = [{"size": 0}, {"size": 1}, {"size": 10**9}, {"media_type": media.OCI_INDEX}]


@pytest.mark.parametrize("how", ["api", "tag"])
@pytest.mark.parametrize("lie", LIES)
async def test_the_digest_of_a_referrer_decides(
    store: Store, how: How, lie: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, how, monkeypatch)
    sbom = stand.more.referrer(stand.signed.index, SPDX, stand.more.blob(b"{}", SPDX))
    own, digest = referrer_descriptor(sbom), stand.signed.index.descriptor.digest
    stand.lists(msgspec.structs.replace(own, **lie))
    record = await stand.run()
    assert record.status == "done", record.error
    assert left_of(record) == {}
    assert stand.arrived([sbom, *stand.signed.referrers])
    held, tags = stand.there.manifests[TARGET], stand.there.tags
    listed = parse_manifest(held[tags[TARGET, fallback_tag(digest)]][1], media.OCI_INDEX).manifests
    assert own in listed, "the target's list tells it rightly"


@pytest.mark.parametrize("how", ["api", "tag"])
@pytest.mark.parametrize("lie", LIES)
async def test_a_list_that_is_wrong_about_an_image_of_the_set_fails_none(
    store: Store, how: How, lie: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, how, monkeypatch)
    child = stand.signed.children["amd64"]
    stand.lists(msgspec.structs.replace(referrer_descriptor(child), **lie))
    record = await stand.run()
    assert record.status == "done", record.error
    assert left_of(record) == {child.descriptor.digest: "it is listed, and has no subject itself"}
    assert stand.arrived([child, *stand.signed.referrers])


async def test_what_kind_a_referrer_is_its_manifest_says_and_not_the_list(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, "tag", monkeypatch)
    sbom = stand.more.referrer(stand.signed.index, SPDX, stand.more.blob(b"{}", SPDX))
    own = referrer_descriptor(sbom)
    stand.lists(Descriptor(own.media_type, own.digest, own.size, None, {"say": "so"}, None, SIGNATURE))
    record = await stand.run()
    assert record.status == "done", record.error
    [told] = [each for each in record.referrers if each.digest == own.digest]
    assert told.artifact_type == artifact_type_of(sbom)
    digest = stand.signed.index.descriptor.digest
    _, raw = stand.there.manifests[TARGET][stand.there.tags[TARGET, fallback_tag(digest)]]
    assert b"say" not in raw


@pytest.mark.parametrize(
    ("of", "comes"), [("nothing", True), ("the index", True), ("another", False)], ids=str
)
async def test_under_cosign_s_tag_lies_what_says_nothing_else(store: Store, of: str, comes: bool) -> None:
    """cosign's own have no subject: their tag is the word. One that has a subject is taken by it."""
    stand = ReferrersScenario(store, target="tag")
    digest, content = stand.signed.index.descriptor.digest, Content()
    tag = cosign_tags(digest)[1]
    if of == "nothing":
        made = content.signature(stand.signed.index, "att", words="late")
    else:
        made = content.signature(
            stand.signed.index if of == "the index" else content.image("riscv64"), words="late"
        )
    content.tags[tag] = made.descriptor.digest
    stand.load(content)
    record = await stand.run()
    assert record.status == "done", record.error
    assert stand.has_any([made]) is comes
    assert ((TARGET, tag) in stand.there.tags) is comes
    assert (made.descriptor.digest in left_of(record)) is not comes


async def test_strangers_of_an_index_that_is_pruned_are_left_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Listing(store, "tag", monkeypatch)
    stranger = stand.more.signature(stand.more.image("riscv64"))
    stand.lists(referrer_descriptor(stranger))
    record = await stand.run(KEEP_GOING, "linux/arm64", index="prune")
    assert record.status == "done", record.error
    assert "another manifest" in left_of(record)[stranger.descriptor.digest]
    assert not stand.has_any([stranger])
