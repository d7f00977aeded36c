"""Which index a name becomes, of what several archives hold under it."""

from __future__ import annotations

import itertools
import json

import pytest

from blobflow.errors import InvalidReference, UnsupportedContent, UsageError
from blobflow.oci import Descriptor, Platform, digest_of, media, parse_platform
from blobflow.oci.index_grouping import (
    ArchivedImage,
    GroupedImage,
    ImageName,
    digest_name,
    group_images,
    parse_image_name,
    platform_tag,
)

NAME = ImageName("rancher/pause", "3.1")


def image(seed: str, kind: str = media.OCI_MANIFEST) -> Descriptor:
    return Descriptor(kind, digest_of(seed.encode()), len(seed))


def part(
    file: str, platform: str, kind: str = media.OCI_MANIFEST, seed: str = "", whole: bool = False
) -> ArchivedImage:
    return ArchivedImage(file, image(seed or file, kind), parse_platform(platform), whole=whole)


def platforms(found: GroupedImage) -> list[str]:
    assert found.made is not None
    return [str(child.platform) for child in found.made.manifests]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alpine:3", "library/alpine:3"),
        ("docker.io/rancher/pause:3.1", "rancher/pause:3.1"),
        ("docker.io/library/alpine:3", "library/alpine:3"),
        ("ghcr.io/a/b:1", "a/b:1"),
        ("localhost/tool:1", "library/tool:1"),
        ("127.0.0.1:5000/x/y:1", "x/y:1"),
        (f"ghcr.io/a/b@{digest_of(b'')}", f"a/b@{digest_of(b'')}"),
    ],
)
def test_a_name_loses_its_host_and_a_single_word_is_in_library(text: str, name: str) -> None:
    assert str(parse_image_name(text)) == name


@pytest.mark.parametrize("text", ["3.1", "latest", "ghcr.io/a/b", "Not A Name:1", ""])
def test_a_bare_tag_is_no_whole_name(text: str) -> None:
    assert parse_image_name(text) is None


def test_images_become_one_index_whatever_the_order_of_the_archives() -> None:
    parts = [part("b.tar", "linux/arm64"), part("a.tar", "linux/amd64"), part("c.tar", "linux/arm/v7")]
    groups = [group_images(NAME, order) for order in itertools.permutations(parts)]
    assert len({each.root.digest for each in groups}) == 1
    assert platforms(groups[0]) == ["linux/amd64", "linux/arm/v7", "linux/arm64"]
    assert groups[0].root.media_type == media.OCI_INDEX
    assert not groups[0].mixed


def test_what_an_image_is_for_is_said_in_full_and_nothing_more() -> None:
    made = group_images(NAME, [part("a.tar", "linux/arm/v7")]).made
    assert made is not None
    [child] = json.loads(made.raw)["manifests"]
    assert child == {
        "mediaType": media.OCI_MANIFEST,
        "digest": image("a.tar").digest,
        "size": 5,
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
    }


def test_images_of_docker_become_dockers_list() -> None:
    parts = [part(name, f"linux/{name}", media.DOCKER_MANIFEST) for name in ("amd64", "arm64")]
    assert group_images(NAME, parts).root.media_type == media.DOCKER_LIST


def test_media_types_are_mixed_only_with_a_word_about_it() -> None:
    found = group_images(NAME, [part("a", "linux/amd64"), part("b", "linux/arm64", media.DOCKER_MANIFEST)])
    assert (found.root.media_type, found.mixed) == (media.OCI_INDEX, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [("linux/amd64", "linux/amd64"), ("linux/arm64", "linux/arm64/v8"), ("linux/arm/v7", "linux/arm")],
)
def test_the_same_platform_twice_is_an_error_that_names_both_files(one: str, other: str) -> None:
    with pytest.raises(UsageError, match=r"a\.tar and b\.tar both hold rancher/pause:3\.1 for linux/"):
        group_images(NAME, [part("a.tar", one), part("b.tar", other)])


def test_the_same_image_twice_is_an_error_too() -> None:
    with pytest.raises(UsageError):
        group_images(NAME, [part("a", "linux/amd64", seed="x"), part("b", "linux/amd64", seed="x")])


def test_variants_are_platforms_of_their_own() -> None:
    found = group_images(NAME, [part("a", "linux/arm/v7"), part("b", "linux/arm/v6")])
    assert platforms(found) == ["linux/arm/v6", "linux/arm/v7"]


def test_what_is_whole_and_alone_stays_as_it_is() -> None:
    index = Descriptor(media.OCI_INDEX, digest_of(b"i"), 1)
    assert group_images(NAME, [ArchivedImage("a", index, whole=True)]) == GroupedImage(index)
    assert group_images(
        NAME, [ArchivedImage("a", index, whole=True), ArchivedImage("b", index, whole=True)]
    ) == GroupedImage(index)
    single = part("a", "linux/amd64", whole=True)
    assert group_images(NAME, [single]) == GroupedImage(single.root)


def test_indexes_that_differ_are_merged_and_what_they_share_is_there_once() -> None:
    amd, arm, old = (Platform("amd64", "linux"), Platform("arm64", "linux"), Platform("386", "linux"))
    shared = Descriptor(media.OCI_MANIFEST, digest_of(b"1"), 1, platform=amd)
    two = Descriptor(media.OCI_MANIFEST, digest_of(b"2"), 1, platform=arm)
    three = Descriptor(media.OCI_MANIFEST, digest_of(b"3"), 1, platform=old)
    first = ArchivedImage("a", image("x", media.OCI_INDEX), children=(shared, two), whole=True)
    second = ArchivedImage("b", image("y", media.OCI_INDEX), children=(shared, three), whole=True)
    assert platforms(group_images(NAME, [first, second])) == ["linux/386", "linux/amd64", "linux/arm64"]


def test_an_index_may_have_two_images_for_a_platform_and_several_attestations() -> None:
    one, two = (
        Descriptor(media.OCI_MANIFEST, digest_of(seed), 1, platform=Platform("amd64", "windows"))
        for seed in (b"1", b"2")
    )
    unknown = Platform("unknown", "unknown")
    proofs = [
        Descriptor(
            media.OCI_MANIFEST,
            digest_of(seed.digest.encode()),
            1,
            platform=unknown,
            annotations={"vnd.docker.reference.digest": seed.digest},
        )
        for seed in (one, two)
    ]
    index = ArchivedImage("a", image("x", media.OCI_INDEX), children=(one, two, *proofs), whole=True)
    found = group_images(NAME, [index, part("b", "linux/amd64", whole=True)])
    assert found.made is not None
    assert len(found.made.manifests) == 5


@pytest.mark.parametrize(
    ("platform", "tag"),
    [
        ("linux/amd64", "3.1-amd64"),
        ("linux/arm64/v8", "3.1-arm64"),
        ("linux/arm/v7", "3.1-arm"),
        ("linux/arm/v6", "3.1-armv6"),
        ("windows/amd64", "3.1-windows-amd64"),
    ],
)
def test_the_tag_of_a_platform(platform: str, tag: str) -> None:
    assert platform_tag("3.1", parse_platform(platform)) == tag


def test_a_tag_that_gets_too_long_is_refused() -> None:
    with pytest.raises(InvalidReference):
        platform_tag("x" * 128, Platform("amd64", "linux"))


def test_a_name_that_is_a_digest_stays_what_it_is() -> None:
    digest_name(ImageName("a/b", "", digest_of(b"1")), digest_of(b"1"))
    digest_name(NAME, digest_of(b"1"))
    with pytest.raises(UnsupportedContent, match="would become"):
        digest_name(ImageName("a/b", "", digest_of(b"1")), digest_of(b"2"))
