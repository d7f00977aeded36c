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
from blobflow.oci.choice import Choice, candidates, certain, chosen, pruned

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


def picked(
    index: Manifest, *platforms: Platform, known: Platform | None = None, has: bool = True
) -> list[str]:
    return names(chosen(index, Choice(platforms), lambda _: known, lambda _: has))


def test_attestations_follow_their_image() -> None:
    assert picked(BUILT, AMD64) == ["one", "att-one"]
    assert picked(BUILT, ARM64, AMD64) == ["one", "two", "att-one", "att-two"]
    assert picked(BUILT) == ["one", "two", "att-one", "att-two"]
    assert picked(BUILT, ARMV7) == []
    assert names(candidates(BUILT, Choice((ARM64,)))) == ["two", "att-two"]
    assert candidates(BUILT, Choice(index="only")) == ()


def test_a_child_without_a_platform_is_looked_into() -> None:
    index = index_of(child("one", AMD64), child("bare", None))
    assert names(candidates(index, Choice((ARM64,)))) == ["bare"]
    assert picked(index, ARM64, known=ARM64) == ["bare"]
    assert picked(index, ARM64, known=None) == []


def test_a_nested_index_is_chosen_for_what_is_below_it() -> None:
    index = index_of(child("one", AMD64), child("nested", None, kind=media.OCI_INDEX))
    assert picked(index, ARM64, has=True) == ["nested"]
    assert picked(index, ARM64, has=False) == []


@pytest.mark.parametrize("indent", [None, 1, 3])
def test_a_pruned_index_is_the_old_text_without_some_items(indent: int | None) -> None:
    children = [child("one", AMD64), child("two", ARM64), child("bare", ARMV7)]
    index = index_of(*children, indent=indent)
    made = pruned(index, chosen(index, Choice((AMD64, ARMV7)), lambda _: None, lambda _: True), {})
    assert made.raw == index_of(children[0], children[2], indent=indent).raw
    assert made.descriptor == Descriptor(media.OCI_INDEX, digest_of(made.raw), len(made.raw))
    assert made == pruned(index, made.manifests, {})


def test_a_pruned_child_is_named_by_its_new_digest_and_size() -> None:
    """Only the item's own digest and size change, not what an annotation calls so."""
    item = child("nested", None, attests="x", kind=media.OCI_INDEX)
    new = Descriptor(media.OCI_INDEX, digest_of(b"new"), 12345)
    made = pruned(index_of(item), index_of(item).manifests, {Digest(str(item["digest"])): new})
    assert made.raw == index_of({**item, "digest": new.digest, "size": 12345}).raw


def test_the_key_says_what_is_there() -> None:
    keys = {
        Choice().key: "all",
        Choice(index="prune").key: "all",
        Choice((ARM64, AMD64)).key: "linux/amd64,linux/arm64",
        Choice((AMD64, ARM64), "keep").key: "linux/amd64,linux/arm64",
        Choice((AMD64,), "prune").key: "linux/amd64; pruned",
        Choice((AMD64,), "only").key: "index only",
    }
    assert all(key == said for key, said in keys.items())


@pytest.mark.parametrize(
    ("choice", "sure"),
    [
        (Choice(), {"one", "att-one", "bare", "nested"}),
        (Choice((AMD64,)), {"one", "att-one"}),
        (Choice((ARM64,)), set()),
        (Choice(index="only"), set()),
    ],
)
def test_what_the_index_tells_by_itself_is_certain(choice: Choice, sure: set[str]) -> None:
    index = index_of(
        child("one", AMD64),
        child("att-one", UNKNOWN, attests="one"),
        child("bare", None),
        child("nested", None, kind=media.OCI_INDEX),
    )
    found = certain(index, choice)
    assert found == {digest_of(name.encode()) for name in sure}
    assert found <= {each.digest for each in candidates(index, choice)}
