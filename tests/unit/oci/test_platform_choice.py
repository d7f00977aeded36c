"""Choosing platforms of an index, and cutting the others out of its text."""

from __future__ import annotations

import json

import pytest

from blobflow.oci import (
    Descriptor,
    Digest,
    Manifest,
    Platform,
    digest_of,
    media,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.platform_choice import (
    Match,
    PlatformChoice,
    candidates,
    certain,
    chosen,
    combine_matches,
    declared_platform,
    prune_index,
)

AMD64, ARM64, ARMV7 = map(parse_platform, ("linux/amd64", "linux/arm64", "linux/arm/v7"))


def child(
    name: str, platform: Platform | None, *, attests: str = "", kind: str = media.OCI_MANIFEST
) -> dict[str, object]:
    said: dict[str, object] = {"mediaType": kind, "digest": digest_of(name.encode()), "size": len(name)}
    if attests:
        said["annotations"] = {"vnd.docker.reference.digest": digest_of(attests.encode()), "size": "big"}
    if platform is not None:
        said["platform"] = {"architecture": platform.architecture, "os": platform.os}
    return said


def index_of(*children: dict[str, object], indent: int | None = None) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": children,
        "annotations": {"a": "ü"},
    }
    return parse_manifest(json.dumps(document, indent=indent, ensure_ascii=False).encode())


UNKNOWN = Platform("unknown", "unknown")
BUILT = index_of(
    child("one", AMD64),
    child("two", ARM64),
    child("att-one", UNKNOWN, attests="one"),
    child("att-two", UNKNOWN, attests="two"),
)


def names(children: tuple[Descriptor, ...]) -> list[str]:
    known = {
        digest_of(name.encode()): name for name in ("one", "two", "att-one", "att-two", "bare", "nested")
    }
    return [known[each.digest] for each in children]


def kept(
    index: Manifest, *platforms: Platform, known: Platform | None = None, below: Match = "chosen"
) -> tuple[Descriptor, ...]:
    """The entries that go along, where configs say `known`, and nested indexes have `below`."""
    choice = PlatformChoice(platforms)

    def match(child: Descriptor) -> Match:
        if child.media_type in media.INDEXES:
            return below
        return choice.match(declared_platform(child) or known)

    return chosen(index, choice, match)


def picked(
    index: Manifest, *platforms: Platform, known: Platform | None = None, below: Match = "chosen"
) -> list[str]:
    return names(kept(index, *platforms, known=known, below=below))


def test_attestations_follow_their_image() -> None:
    assert picked(BUILT, AMD64) == ["one", "att-one"]
    assert picked(BUILT, ARM64, AMD64) == ["one", "two", "att-one", "att-two"]
    assert picked(BUILT) == ["one", "two", "att-one", "att-two"]
    assert picked(BUILT, ARMV7) == []
    assert names(candidates(BUILT, PlatformChoice((ARM64,)))) == ["two", "att-two"]
    assert candidates(BUILT, PlatformChoice(index="only")) == ()


def test_an_attestation_of_what_is_not_listed_is_an_entry_as_any_other() -> None:
    index = index_of(child("one", AMD64), child("att-two", UNKNOWN, attests="two"))
    assert names(candidates(index, PlatformChoice((AMD64,)))) == ["one", "att-two"]
    assert picked(index, AMD64) == ["one", "att-two"]


@pytest.mark.parametrize("untold", [None, UNKNOWN, Platform()], ids=["none", "unknown", "empty"])
def test_an_entry_without_a_platform_is_looked_into_and_goes_along_if_it_has_none(
    untold: Platform | None,
) -> None:
    index = index_of(child("one", AMD64), child("bare", untold))
    assert names(candidates(index, PlatformChoice((ARM64,)))) == ["bare"]
    assert picked(index, ARM64, known=ARM64) == ["bare"]
    assert picked(index, ARM64, known=AMD64) == []
    assert picked(index, ARM64, known=None) == ["bare"]
    assert picked(index, AMD64, known=None) == ["one", "bare"]


def test_a_nested_index_is_chosen_for_what_is_below_it() -> None:
    index = index_of(child("one", AMD64), child("nested", None, kind=media.OCI_INDEX))
    assert picked(index, ARM64, below="chosen") == picked(index, ARM64, below="bare") == ["nested"]
    assert picked(index, ARM64, below="other") == []


@pytest.mark.parametrize(
    ("matches", "said"),
    [
        ((), "bare"),
        (("bare", "bare"), "bare"),
        (("bare", "other"), "other"),
        (("bare", "other", "chosen"), "chosen"),
        (("bare", "chosen"), "chosen"),
    ],
)
def test_an_index_lacks_a_platform_if_all_in_it_that_has_one_has_another(
    matches: tuple[Match, ...], said: Match
) -> None:
    assert combine_matches(matches) == said


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        (None, "bare"),
        (Platform(), "bare"),
        (Platform("unknown", "unknown"), "bare"),
        (Platform("", "unknown"), "bare"),
        (Platform("arm64", "linux"), "chosen"),
        (Platform("arm64", "linux", "v8"), "chosen"),
        (Platform("aarch64", "Linux"), "chosen"),
        (Platform("arm64", ""), "chosen"),
        (Platform("", "linux"), "chosen"),
        (Platform("amd64", ""), "other"),
        (Platform("", "windows"), "other"),
        (Platform("arm64", "darwin"), "other"),
        (Platform("wasm", "wasip1"), "other"),
    ],
)
def test_what_a_choice_says_of_a_platform(platform: Platform | None, said: Match) -> None:
    assert PlatformChoice((ARM64,)).match(platform) == said
    assert PlatformChoice((ARM64,)).wants(platform) is (said != "other")
    assert PlatformChoice().match(platform) == "chosen"


def test_entries_are_chosen_and_not_digests() -> None:
    """One digest for several platforms, as busybox's scratch images, or an image of arm binaries, have it."""
    twice = [child("one", AMD64), child("one", ARM64), child("two", ARMV7)]
    index = index_of(*twice)
    assert [each.platform for each in kept(index, ARM64)] == [ARM64]
    assert prune_index(index, kept(index, ARM64), {}).raw == index_of(twice[1]).raw
    assert prune_index(index, kept(index, AMD64, ARMV7), {}).raw == index_of(twice[0], twice[2]).raw
    assert prune_index(index, kept(index, ARM64, ARMV7), {}).raw == index_of(*twice[1:]).raw


def test_variants_of_one_digest_are_entries_of_their_own() -> None:
    said = [
        {**child("one", None), "platform": {"os": "linux", "architecture": "arm", "variant": variant}}
        for variant in ("v6", "v7")
    ]
    index = index_of(*said)
    for variant, item in zip(("v6", "v7"), said, strict=True):
        [entry] = kept(index, parse_platform(f"linux/arm/{variant}"))
        assert entry.platform == Platform("arm", "linux", variant)
        assert prune_index(index, [entry], {}).raw == index_of(item).raw


def test_equal_entries_are_one() -> None:
    one, two = child("one", AMD64), child("two", ARM64)
    spelt = dict(reversed(one.items()))
    index = index_of(one, spelt, two, one)
    assert prune_index(index, kept(index, AMD64), {}).raw == index_of(one).raw


def test_what_a_null_stands_for_is_absent_in_entries_too() -> None:
    """As far as the manifest could be read; and what is no entry's to drop stays."""
    bare = {**child("one", None), "platform": None, "annotations": None}
    index = index_of(bare, child("two", ARM64))
    assert prune_index(index, kept(index, ARM64), {}).raw == index_of(bare, child("two", ARM64)).raw
    assert prune_index(index, kept(index, ARM64, known=AMD64), {}).raw == index_of(child("two", ARM64)).raw


@pytest.mark.parametrize("indent", [None, 1, 3])
def test_a_pruned_index_is_the_old_text_without_some_items(indent: int | None) -> None:
    children = [child("one", AMD64), child("two", ARM64), child("bare", ARMV7)]
    index = index_of(*children, indent=indent)
    made = prune_index(index, kept(index, AMD64, ARMV7), {})
    assert made.raw == index_of(children[0], children[2], indent=indent).raw
    assert made.descriptor == Descriptor(media.OCI_INDEX, digest_of(made.raw), len(made.raw))
    assert made == prune_index(index, made.manifests, {})


def test_a_pruned_child_is_named_by_its_new_digest_and_size() -> None:
    """Only the item's own digest and size change, not what an annotation calls so."""
    item = child("nested", None, attests="x", kind=media.OCI_INDEX)
    new = Descriptor(media.OCI_INDEX, digest_of(b"new"), 12345)
    made = prune_index(index_of(item), index_of(item).manifests, {Digest(str(item["digest"])): new})
    assert made.raw == index_of({**item, "digest": new.digest, "size": 12345}).raw


def test_the_key_says_what_is_there() -> None:
    keys = {
        PlatformChoice().key: "all",
        PlatformChoice(index="prune").key: "all",
        PlatformChoice((ARM64, AMD64)).key: "linux/amd64,linux/arm64",
        PlatformChoice((AMD64, ARM64), "keep").key: "linux/amd64,linux/arm64",
        PlatformChoice((AMD64,), "prune").key: "linux/amd64; pruned",
        PlatformChoice((AMD64,), "only").key: "index only",
    }
    assert all(key == said for key, said in keys.items())


@pytest.mark.parametrize(
    ("choice", "sure"),
    [
        (PlatformChoice(), {"one", "att-one", "bare", "nested"}),
        (PlatformChoice((AMD64,)), {"one", "att-one"}),
        (PlatformChoice((ARM64,)), set()),
        (PlatformChoice(index="only"), set()),
    ],
)
def test_what_the_index_tells_by_itself_is_certain(choice: PlatformChoice, sure: set[str]) -> None:
    index = index_of(
        child("one", AMD64),
        child("att-one", UNKNOWN, attests="one"),
        child("bare", None),
        child("nested", None, kind=media.OCI_INDEX),
    )
    found = certain(index, choice)
    assert found == {digest_of(name.encode()) for name in sure}
    assert found <= {each.digest for each in candidates(index, choice)}
