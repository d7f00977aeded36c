"""Names of images in layouts and archives: which one is meant, where several have a name in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blobflow.errors import BlobflowError, NotFound, UnsupportedContent, UsageError
from blobflow.transports.layout.image_names import ImageNames, unambiguous_names

Images = list[tuple[tuple[str, ...], str]]
# What buildx writes for two tags; the image, here a letter, stands for its digest.
TWO_TAGS: Images = [
    (("latest", "docker.io/library/app:latest"), "a"),
    (("1.0.0", "docker.io/library/app:1.0.0"), "a"),
]
# As docker saves two images of one tag: the short name is the tag alone.
ONE_TAG: Images = [(("1", "docker.io/library/app:1"), "a"), (("1", "docker.io/library/web:1"), "b")]
# The tag of the list of what refers to an image.
LIST = f"sha256-{64 * 'a'}"


def chosen(images: Images, name: str) -> str:
    return ImageNames(images, lambda image: image).choose(name, "oci:x")


@pytest.mark.parametrize(
    "name", ["", "latest", "1.0.0", "app:latest", "app", "docker.io/library/app:1.0.0", "@1"]
)
def test_several_names_of_one_image_are_no_ambiguity(name: str) -> None:
    assert chosen(TWO_TAGS, name) == "a"


@pytest.mark.parametrize("name", ["", "1", "app:1", "@2"])
def test_equal_entries_are_one(name: str) -> None:
    assert chosen([(("1", "docker.io/library/app:1"), "a")] * 3, name) == "a"


@pytest.mark.parametrize(("name", "image"), [("app:1", "a"), ("web:1", "b"), ("@0", "a"), ("@1", "b")])
def test_of_images_with_a_name_in_common_each_has_one_that_is_its_own(name: str, image: str) -> None:
    assert chosen(ONE_TAG, name) == image


@pytest.mark.parametrize(
    ("images", "name", "error", "words"),
    [
        (
            ONE_TAG,
            "1",
            UnsupportedContent,
            "oci:x has 2 images named 1; "
            "write oci:x:NAME with one of docker.io/library/app:1, docker.io/library/web:1",
        ),
        (
            ONE_TAG,
            "",
            UsageError,
            "oci:x holds 2 images; write oci:x:NAME with one of docker.io/library/app:1, d",
        ),
        ([*ONE_TAG, ONE_TAG[0]], "1", UnsupportedContent, "oci:x has 2 images named 1"),
        ([(("1",), "a"), (("1",), "b")], "1", UnsupportedContent, "one of @0, @1"),
        (
            [((), "a"), ((), "a"), ((), "b")],
            "",
            UsageError,
            r"holds 2 images; .* with one of @0, @2",
        ),
        (
            [(("q.io/a:1",), "a"), (("r.io/a:1",), "b")],
            "a:1",
            UsageError,
            "images that a:1 may mean; .*q.io/a:1, r",
        ),
        ([((str(n),), str(n)) for n in range(12)], "", UsageError, r"one of 0, .*7 \(and 4 more\)"),
        ([], "", NotFound, "holds no image"),
        (TWO_TAGS, "2", NotFound, "has no image 2; it has latest, "),
        ([((LIST,), "l"), ((f"{LIST}.sig",), "s"), (("1",), "a")], "2", NotFound, "no image 2; it has 1$"),
        ([((f"{LIST}.sig",), "s")], "2", NotFound, rf"no image 2; it has {LIST}\.sig$"),
    ],
)
def test_what_can_t_be_told_is_said_with_the_choices(
    images: Images, name: str, error: type[BlobflowError], words: str
) -> None:
    with pytest.raises(error, match=words):
        chosen(images, name)


def test_each_image_is_listed_by_a_name_that_finds_it() -> None:
    for images in (ONE_TAG, TWO_TAGS):
        names = unambiguous_names(images, lambda image: image)
        assert [chosen(images, name) for name in names] == [image for _, image in images]
    assert unambiguous_names([(("1",), "a"), (("1",), "b"), ((), "c")], lambda image: image) == ["1"]


def test_names_are_looked_through_once_for_all_that_are_asked_for() -> None:
    looks = 0

    class Names(tuple[str, ...]):
        def __iter__(self) -> Iterator[str]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    images = [(Names((f"docker.io/library/app:{number}",)), str(number)) for number in range(200)]
    named = ImageNames(images, lambda image: image)
    for number in range(200):
        assert named.choose(f"app:{number}", "oci:x") == str(number)
    assert looks <= 3 * len(images), "each name once for each way of reading it"
