"""Which tags are too many at a target, and how each may go: the rules as a table."""

from __future__ import annotations

import pytest

from blobflow.errors import UsageError
from blobflow.oci import Digest, digest_of
from blobflow.operations.tags.extra import (
    ExtraTag,
    PruneLimit,
    RepositoryState,
    find_extra_tags,
    parse_prune_limit,
)

IMAGE, OTHER, AMD64, ARM64, INDEX, OUTER, SIGNED, SBOM, LIST = (
    digest_of(bytes([number])) for number in range(9)
)
LONG = digest_of(b"long", "sha512")


def hexed(digest: Digest) -> str:
    return digest.replace(":", "-")


# What the tags name, what indexes list, the tags that are wanted, and pinned digests → too many, and why not
# by digest.
CASES: dict[
    str, tuple[dict[str, Digest], dict[Digest, tuple[Digest, ...]], str, tuple[Digest, ...], dict[str, str]]
] = {
    "nothing": ({}, {}, "1", (), {}),
    "what is wanted stays": ({"1": IMAGE}, {}, "1", (), {}),
    "what is wanted and not there is no matter": ({"1": IMAGE}, {}, "1 2", (), {}),
    "what is not wanted goes": ({"1": IMAGE, "2": OTHER}, {}, "1", (), {"2": ""}),
    "another tag of a kept image goes alone": (
        {"1": IMAGE, "2": IMAGE},
        {},
        "1",
        (),
        {"2": "1 names it too"},
    ),
    "two tags of one image may both go": (
        {"1": IMAGE, "2": OTHER, "3": OTHER},
        {},
        "1",
        (),
        {"2": "", "3": ""},
    ),
    "a tag of a kept index's child goes alone": (
        {"1": INDEX, "1-amd64": AMD64},
        {INDEX: (AMD64, ARM64)},
        "1",
        (),
        {"1-amd64": "the index 1 lists it"},
    ),
    "so it is in an index in an index": (
        {"1": OUTER, "1-arm64": ARM64},
        {OUTER: (INDEX,), INDEX: (AMD64, ARM64)},
        "1",
        (),
        {"1-arm64": "the index 1 lists it"},
    ),
    "an index goes with its children's tags": (
        {"1": IMAGE, "2": INDEX, "2-amd64": AMD64},
        {INDEX: (AMD64,)},
        "1",
        (),
        {"2": "", "2-amd64": ""},
    ),
    "an index that lists itself ends": ({"1": INDEX, "2": AMD64}, {INDEX: (INDEX,)}, "1", (), {"2": ""}),
    "what is wanted by digest alone keeps its tag from taking it along": (
        {"1": IMAGE, "2": OTHER},
        {},
        "1",
        (OTHER,),
        {"2": "it is wanted itself"},
    ),
    "the list of a kept image's referrers stays": ({"1": IMAGE, hexed(IMAGE): LIST}, {}, "1", (), {}),
    "cosign's tags of a kept image stay": (
        {"1": IMAGE, **{f"{hexed(IMAGE)}.{kind}": SIGNED for kind in ("sig", "att", "sbom")}},
        {},
        "1",
        (),
        {},
    ),
    "those of a kept index's child stay": (
        {"1": INDEX, f"{hexed(ARM64)}.sig": SIGNED, hexed(AMD64): LIST},
        {INDEX: (AMD64, ARM64)},
        "1",
        (),
        {},
    ),
    "those of a digest that is wanted alone stay": ({hexed(OTHER): LIST}, {}, "1", (OTHER,), {}),
    "the signature of an SBOM stays": (
        {"1": IMAGE, hexed(IMAGE): LIST, f"{hexed(SBOM)}.sig": SIGNED},
        {LIST: (SBOM,)},
        "1",
        (),
        {},
    ),
    "the signature of a signature stays": (
        {"1": IMAGE, f"{hexed(IMAGE)}.sig": SIGNED, f"{hexed(SIGNED)}.sig": OTHER},
        {},
        "1",
        (),
        {},
    ),
    "a tag cut from a sha512 stays with it": ({"1": LONG, hexed(LONG)[:71]: LIST}, {}, "1", (), {}),
    "those of an image that goes go with it": (
        {"1": IMAGE, "2": OTHER, f"{hexed(OTHER)}.sig": SIGNED, hexed(OTHER): LIST},
        {},
        "1",
        (),
        {"2": "", f"{hexed(OTHER)}.sig": "", hexed(OTHER): ""},
    ),
    "those of an image that was never here go": (
        {"1": IMAGE, f"{hexed(OTHER)}.att": SIGNED},
        {},
        "1",
        (),
        {f"{hexed(OTHER)}.att": ""},
    ),
    "a signature that is also another tag's goes alone": (
        {"1": IMAGE, f"{hexed(IMAGE)}.sig": SIGNED, "sig": SIGNED},
        {},
        "1",
        (),
        {"sig": f"{hexed(IMAGE)}.sig names it too"},
    ),
    "what only looks like such a tag goes": (
        {"1": IMAGE, "sha256-abc.sig": OTHER},
        {},
        "1",
        (),
        {"sha256-abc.sig": ""},
    ),
}


@pytest.mark.parametrize(("tags", "lists", "kept", "pinned", "expected"), CASES.values(), ids=CASES)
def test_these_tags_are_too_many(
    tags: dict[str, Digest],
    lists: dict[Digest, tuple[Digest, ...]],
    kept: str,
    pinned: tuple[Digest, ...],
    expected: dict[str, str],
) -> None:
    found = find_extra_tags(RepositoryState(tags, lists), kept.split(), pinned)
    assert found == [ExtraTag(tag, tags[tag], expected[tag]) for tag in sorted(expected)]


@pytest.mark.parametrize(
    ("text", "surplus", "tags", "allowed"),
    [
        ("20%", 20, 100, True),
        ("20%", 21, 100, False),
        ("20 %", 1, 5, True),
        ("20%", 1, 4, False),
        ("100%", 4, 4, True),
        ("0%", 1, 1000, False),
        ("0", 1, 1000, False),
        ("0", 0, 0, True),
        ("3", 3, 3, True),
        ("3", 4, 1000, False),
    ],
)
def test_so_many_may_go(text: str, surplus: int, tags: int, allowed: bool) -> None:
    assert parse_prune_limit(text).allows(surplus, tags) is allowed


def test_a_limit_is_told_as_it_is_written() -> None:
    assert [str(parse_prune_limit(text)) for text in ("20%", "7")] == ["20 %", "7"]
    assert parse_prune_limit("20%") == PruneLimit(20, percent=True)


@pytest.mark.parametrize("text", ["", "%", "101%", "-1", "1.5%", "all", "9" * 10])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no limit of removals"):
        parse_prune_limit(text)
