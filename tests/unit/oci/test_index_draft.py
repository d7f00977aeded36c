"""Indexes made by hand: the bytes, the labels, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import UnsupportedContent, UsageError
from blobflow.oci import (
    Descriptor,
    Platform,
    digest_of,
    media,
    parse_manifest,
    parse_platform,
    parse_reference,
)
from blobflow.oci.index_draft import (
    MAX_MEMBERS,
    DraftImage,
    IndexDraft,
    check_label,
    label_in_tag,
    parse_label,
)
from blobflow.oci.index_encoding import encode_index

TARGET = parse_reference("127.0.0.1:5000/app:1")
APP = parse_reference("127.0.0.1:5000/app")
OCI, DOCKER = media.OCI_MANIFEST, media.DOCKER_MANIFEST

# What `docker manifest push` 28.2.2 sent for two schema-2 images.
DOCKERS = """\
{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 912,
         "digest": "sha256:eecac80172274d1f1af84187d25c0747f6374f42f72886f0f1172430abf2f3cc",
         "platform": {
            "architecture": "amd64",
            "os": "linux"
         }
      },
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 912,
         "digest": "sha256:bef83df16d2af40c62c849e1a0e5b53e113c6095b601ab7c33b0f46f82c36ecc",
         "platform": {
            "architecture": "arm",
            "os": "linux",
            "variant": "v7"
         }
      }
   ]
}"""


def member(name: str, platform: str = "", kind: str = OCI, **more: Any) -> DraftImage:
    """An image at the target's registry whose config says `platform`."""
    config = parse_platform(platform) if platform else Platform()
    image = parse_reference(f"127.0.0.1:5000/app:{name}")
    return DraftImage(image, Descriptor(kind, digest_of(name.encode()), 500), config, **more)


def draft(*members: DraftImage, **more: Any) -> IndexDraft:
    return IndexDraft(TARGET, members, **more)


def refusal(made: IndexDraft) -> str:
    with pytest.raises(UsageError) as refused:
        made.index()
    return str(refused.value)


def test_the_bytes_are_dockers() -> None:
    children = parse_manifest(DOCKERS.encode(), media.DOCKER_LIST).manifests
    assert encode_index(children, "docker").raw.decode() == DOCKERS
    as_oci = DOCKERS.replace(media.DOCKER_LIST, media.OCI_INDEX)
    assert encode_index(children, "oci").raw.decode() == as_oci, "the images stay what they are"


words = st.text(st.characters(categories=("L", "N")), max_size=8)
platforms = st.builds(
    Platform, words, words, words, words, st.lists(words.filter(bool), max_size=2).map(tuple)
)
notes = st.none() | st.dictionaries(words, words, min_size=1, max_size=3)
descriptors = st.builds(
    Descriptor,
    st.sampled_from([OCI, DOCKER]),
    st.binary(max_size=3).map(digest_of),
    st.integers(0, 2**53),
    st.none() | platforms,
    notes,
)


@given(st.lists(descriptors, max_size=5), st.sampled_from(["oci", "docker"]), notes)
def test_an_index_reads_as_what_it_was_made_of(children: list[Descriptor], form: Any, said: Any) -> None:
    index = encode_index(children, form, said)
    assert index.manifests == tuple(children)
    assert index.annotations == (said or {})
    assert index.descriptor.digest == digest_of(index.raw)


def test_the_order_of_annotations_makes_no_other_index() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    first, second = member("x", "linux/amd64", annotations=one), member("x", "linux/amd64", annotations=other)
    assert draft(first, annotations=one).index().raw == draft(second, annotations=other).index().raw


@pytest.mark.parametrize(("kind", "made"), [(OCI, media.OCI_INDEX), (DOCKER, media.DOCKER_LIST)])
def test_an_index_is_of_one_kind_with_its_images(kind: str, made: str) -> None:
    images = [member(name, f"linux/{name}", kind) for name in ("amd64", "arm64")]
    assert draft(*images).index().descriptor.media_type == made


def test_images_of_both_kinds_are_named_and_wait_for_a_format() -> None:
    both = (member("amd64", "linux/amd64", DOCKER), member("arm64", "linux/arm64", OCI))
    said = refusal(draft(*both))
    assert "127.0.0.1:5000/app:amd64 is a Docker image" in said
    assert "127.0.0.1:5000/app:arm64 is an OCI image" in said
    assert "--format" in said
    index = draft(*both, form="oci").index()
    assert index.descriptor.media_type == media.OCI_INDEX
    assert [child.media_type for child in index.manifests] == [DOCKER, OCI]
    assert draft(*both, form="docker").index().descriptor.media_type == media.DOCKER_LIST


def test_a_docker_list_has_no_place_for_annotations() -> None:
    noted = member("amd64", "linux/amd64", DOCKER, annotations={"a": "b"})
    assert "app:amd64 has annotations" in refusal(draft(noted))
    plain = member("amd64", "linux/amd64", DOCKER)
    assert "app:1 has annotations" in refusal(draft(plain, annotations={"a": "b"}))
    assert draft(noted, form="oci").index().manifests[0].annotations == {"a": "b"}


def test_two_images_for_one_platform_are_refused() -> None:
    said = refusal(draft(member("a", "linux/arm64"), member("b", "linux/arm64/v8")))
    assert "app:a and 127.0.0.1:5000/app:b are both for linux/arm64/v8" in said
    apart = [member("a", "linux/arm"), member("b", "linux/arm", label=parse_label(variant="v6"))]
    assert [str(child.platform) for child in draft(*apart).index().manifests] == [
        "linux/arm",
        "linux/arm/v6",
    ]
    builds = [
        member(version, "windows/amd64", label=parse_label(os_version=version))
        for version in ("10.1", "10.2")
    ]
    assert len(draft(*builds).index().manifests) == 2


def test_an_image_without_a_platform_gets_one_by_hand_or_is_refused() -> None:
    assert "app:x says no platform" in refusal(draft(member("x")))
    said = member("x").labelled(parse_label("arm64", "linux"))
    assert draft(said).index().manifests[0].platform == Platform("arm64", "linux")


def test_attestations_need_no_platform_of_their_own() -> None:
    marks = {"vnd.docker.reference.digest": "sha256:1"}
    images = [member("a", "linux/amd64"), member("b", "linux/arm64")]
    unknown = Platform("unknown", "unknown")
    attestations = [member(name, label=unknown, annotations=marks) for name in ("x", "y")]
    assert len(draft(*images, *attestations).index().manifests) == 4


def test_an_index_of_nothing_and_one_of_too_much_are_refused() -> None:
    assert "has no images" in refusal(draft())
    many = [member(str(n), "linux/amd64", label=parse_label(variant=f"v{n}")) for n in range(MAX_MEMBERS + 1)]
    with pytest.raises(
        UnsupportedContent, match=f"has {MAX_MEMBERS + 1} images, more than the {MAX_MEMBERS}"
    ):
        draft(*many).index()
    assert len(draft(*many[:-1]).index().manifests) == MAX_MEMBERS


def test_an_index_beyond_what_registries_take_is_refused() -> None:
    child = msgspec.structs.replace(member("a", "linux/amd64").mention, annotations={"a": "b" * 500})
    with pytest.raises(
        UnsupportedContent, match=r"these 10000 manifests has .* bytes, more than the 4194304"
    ):
        encode_index([child] * 10_000, "oci")


def test_amending_replaces_in_place_and_appends() -> None:
    before = draft(member("a", "linux/amd64"), member("b", "linux/arm64"), tags=("x",))
    again = msgspec.structs.replace(
        member("a", "linux/386"), descriptor=Descriptor(OCI, digest_of(b"new"), 1)
    )
    after = before.amended(draft(again, member("c", "linux/s390x"), tags=("x", "y"), form="oci"))
    assert [m.image.tag for m in after.members] == ["a", "b", "c"]
    assert after.members[0] == again
    assert (after.tags, after.form) == (("x", "y"), "oci")


def test_a_member_is_found_by_its_name_and_by_its_digest_there() -> None:
    found = member("a", "linux/amd64")
    names = {
        "127.0.0.1:5000/app:a": True,
        f"127.0.0.1:5000/app@{found.descriptor.digest}": True,
        f"127.0.0.1:5000/other@{found.descriptor.digest}": False,
        "127.0.0.1:5000/app:b": False,
    }
    assert {name: found.is_named(parse_reference(name)) for name in names} == names


@pytest.mark.parametrize(
    ("label", "config", "refused"),
    [
        ("linux/arm", "linux/arm64", "linux/arm, but its config says linux/arm64"),
        ("linux/amd64", "windows/amd64", "linux/amd64, but its config says windows/amd64"),
        ("linux/arm/v6", "linux/arm/v7", "linux/arm/v6, but its config says linux/arm/v7"),
        ("linux/arm/v6", "linux/arm", ""),
        ("linux/arm", "linux/arm/v6", ""),
        ("linux/arm64/v8", "linux/arm64", ""),
        ("linux/arm64", "linux/arm64", ""),
        ("linux/amd64", "", ""),
    ],
)
def test_a_label_may_add_to_a_config_and_not_contradict_it(label: str, config: str, refused: str) -> None:
    own = parse_platform(config) if config else Platform()
    if not refused:
        check_label(APP, parse_platform(label), own)
        return
    with pytest.raises(UsageError) as error:
        check_label(APP, parse_platform(label), own)
    assert str(error.value).startswith(f"{APP} is labelled {refused}; ")
    assert "--force" in str(error.value)


def test_windows_builds_and_features_count_too() -> None:
    config = Platform("amd64", "windows", os_version="10.0.17763.1", os_features=("win32k",))
    check_label(APP, parse_label(os_features=["other"]), config)
    with pytest.raises(UsageError, match=r"labelled windows/amd64 \(10\.0\.14393\), but"):
        check_label(APP, parse_label(os_version="10.0.14393"), config)
    said = DraftImage(APP, Descriptor(OCI, digest_of(b""), 0), config, parse_label(os_features=["other"]))
    assert said.platform.os_features == ("win32k", "other")


def test_labels_are_written_as_people_write_them() -> None:
    assert parse_label("aarch64") == parse_label("arm64")
    assert parse_label("armhf") == Platform("arm", variant="v7")
    assert parse_label("armhf", variant="v6") == Platform("arm", variant="v6")


def test_what_is_said_later_counts_and_features_add_up() -> None:
    first = member("a", "linux/arm").labelled(parse_label(variant="v6", os_features=["x"]))
    then = first.labelled(parse_label(variant="v7", os_features=["y", "x"]))
    assert then.label == Platform(variant="v7", os_features=("x", "y"))


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("amd64", "linux/amd64"),
        ("1-arm64", "linux/arm64"),
        ("1.2.3-arm64v8", "linux/arm64/v8"),
        ("1_arm32v7", "linux/arm/v7"),
        ("v1-armv6", "linux/arm/v6"),
        ("v1-arm-v6", "linux/arm/v6"),
        ("v1-linux-armhf", "linux/arm/v7"),
        ("v1-linux-x86_64", "linux/amd64"),
        ("v1-aarch64", "linux/arm64"),
        ("v1-ppc64le", "linux/ppc64le"),
        ("v1-i386", "linux/386"),
        ("latest", ""),
        ("1.386", ""),
        ("1-alarm", ""),
        ("charm64", ""),
        ("arm64-1", ""),
        ("1-v8", ""),
        ("", ""),
    ],
)
def test_a_tag_may_end_with_an_architecture(tag: str, label: str) -> None:
    found = label_in_tag(tag)
    assert found == (msgspec.structs.replace(parse_platform(label), os="") if label else None)


def test_a_draft_survives_its_file() -> None:
    made = draft(
        member(
            "a", "linux/amd64", label=parse_label(os_version="1", os_features=["x"]), annotations={"k": "v"}
        ),
        tags=("2",),
        annotations={"a": "b"},
        form="oci",
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=IndexDraft) == made
    assert json.loads(msgspec.json.encode(made))["target"]["tag"] == "1"
