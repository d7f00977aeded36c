"""Layouts and archives on the command line: words → pairs."""

from __future__ import annotations

import pytest

from blobflow.cli.inputs.copy_arguments import copy_pairs, with_additional_tags
from blobflow.cli.inputs.expansion import make_pairs
from blobflow.cli.inputs.image_list import parse_image_list
from blobflow.cli.inputs.requests import RegistryPrefix, parse_registry_prefix
from blobflow.engine.pairs import Pair
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference, digest_of

DIGEST = digest_of(b"")


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("alpine:3", "oci:d", "3"),
        ("alpine:3", "oci:d:mine", "mine"),
        ("alpine:3", "oci-archive:a.tar", "docker.io/library/alpine:3"),
        ("quay.io/x/y", "docker-archive:a.tar", "quay.io/x/y:latest"),
        (f"quay.io/x/y@{DIGEST}", "docker-archive:a.tar", f"quay.io/x/y@{DIGEST}"),
        ("oci:d:3", "oci-archive:a.tar", "3"),
        ("oci:d", "oci-archive:a.tar", "latest"),
        ("docker-archive:a.tar:@3", "oci:d", "latest"),
        ("docker-archive:a.tar:x/y:1", "oci:d", "x/y:1"),
        ("docker-archive:a.tar:x/y:1", "quay.io/x/z", "1"),
        ("oci:d:3", "quay.io/x/z", "latest"),
        ("oci:d:3", "quay.io/x/z:4", "4"),
    ],
)
def test_a_copy_is_called_at_its_target_as_it_was(source: str, target: str, name: str) -> None:
    (pair,) = copy_pairs(source, [target])
    assert pair.target.tag == name


def test_a_list_names_images_in_a_layout_or_archive() -> None:
    source = parse_registry_prefix("oci:set")
    wanted = parse_image_list(f"docker.io/x/y:1\nx/z@{DIGEST}\n", "list", source)
    assert make_pairs(wanted, [parse_registry_prefix("oci-archive:a.tar")]) == [
        Pair(
            Reference("oci:set", "", "docker.io/x/y:1"),
            Reference("oci-archive:a.tar", "", "docker.io/x/y:1"),
            missing_platform="skip",
        ),
        Pair(
            Reference("oci:set", "", f"x/z@{DIGEST}", DIGEST),
            Reference("oci-archive:a.tar", "", f"x/z@{DIGEST}", DIGEST),
            missing_platform="skip",
        ),
    ]


def test_a_host_in_a_list_is_that_of_a_name_in_an_archive() -> None:
    """There may be quay.io/x/y beside docker.io/x/y; a registry's repositories have no host."""
    archive, target = parse_registry_prefix("docker-archive:a.tar"), parse_registry_prefix("r:1")

    def pairs(
        text: str, source: RegistryPrefix = archive, *, any_host: bool = False
    ) -> list[tuple[str, str]]:
        wanted = parse_image_list(text, "list", source, any_host=any_host)
        return [(pair.source.tag, str(pair.target)) for pair in make_pairs(wanted, [target])]

    assert pairs("quay.io/x/y:1") == [("quay.io/x/y:1", "r:1/x/y:1")]
    assert pairs("x/y:1") == [("x/y:1", "r:1/x/y:1")]
    assert pairs("docker.io/y:1") == [("docker.io/library/y:1", "r:1/library/y:1")]
    assert pairs("quay.io/x/y:1", any_host=True) == [("x/y:1", "r:1/x/y:1")]
    below = parse_registry_prefix("docker-archive:a.tar:quay.io/x")
    assert pairs("quay.io/x/y:1", below) == pairs("y:1", below) == [("quay.io/x/y:1", "r:1/y:1")]
    with pytest.raises(
        UsageError, match=r"^list line 1: ghcr.io/x/y:1 is not in docker-archive:a.tar:quay.io/x, "
    ):
        pairs("ghcr.io/x/y:1", below)


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        ("docker.io", "oci-archive:a.tar", "docker.io/x/y:1"),
        ("127.0.0.1:5000/mirror", "docker-archive:a.tar", "127.0.0.1:5000/mirror/x/y:1"),
        ("127.0.0.1:5000/mirror", "docker-archive:a.tar:docker.io", "docker.io/x/y:1"),
        ("docker.io", "oci:d", "x/y:1"),
        ("docker.io", "oci:d:quay.io/mirror", "quay.io/mirror/x/y:1"),
    ],
)
def test_names_in_archives_are_whole(source: str, target: str, name: str) -> None:
    (pair,) = make_pairs(
        parse_image_list("x/y:1", "list", parse_registry_prefix(source)), [parse_registry_prefix(target)]
    )
    assert pair.target == Reference(parse_registry_prefix(target).host, "", name)


def test_a_place_is_written_as_it_is_read() -> None:
    assert str(parse_registry_prefix("oci:a/b:docker.io")) == "oci:a/b:docker.io"
    assert parse_registry_prefix("oci-archive:-") == RegistryPrefix("oci-archive:-")
    with pytest.raises(InvalidReference, match="digest"):
        parse_registry_prefix(f"oci:a@{DIGEST}")


def test_a_place_is_not_copied_onto_itself() -> None:
    with pytest.raises(UsageError, match="both source and target"):
        copy_pairs("oci:d:1", ["oci:./d:1"])


def test_a_number_names_no_target() -> None:
    with pytest.raises(UsageError, match="numbers an image"):
        copy_pairs("alpine:3", ["oci:d:@1"])


@pytest.mark.parametrize(
    ("target", "tags", "goals"),
    [
        ("r.example/app:1", ["2", "latest"], ["r.example/app:1", "r.example/app:2", "r.example/app:latest"]),
        ("r.example/app", ["2"], ["r.example/app:3", "r.example/app:2"]),
        (
            "docker-archive:x.tar:app:1",
            ["docker.io/app:2"],
            ["docker-archive:x.tar:app:1", "docker-archive:x.tar:docker.io/app:2"],
        ),
        ("oci:d", [], ["oci:d:3"]),
    ],
)
def test_additional_tags_are_further_targets(target: str, tags: list[str], goals: list[str]) -> None:
    found = copy_pairs("alpine:3", with_additional_tags("alpine:3", [target], tags))
    assert [str(pair.target) for pair in found] == goals


@pytest.mark.parametrize("tag", ["a:b", "x/y", "@sha256:00", "1"])
def test_an_additional_tag_is_one_and_another(tag: str) -> None:
    with pytest.raises(UsageError):
        copy_pairs("alpine:3", with_additional_tags("alpine:3", ["r.example/app:1"], [tag]))
