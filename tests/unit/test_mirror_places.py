"""Where images have their place in a mirror: rules from pairs, and pairs from rules."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.cli.inputs.expansion import make_pairs
from blobflow.cli.inputs.image_list import parse_image_list
from blobflow.cli.inputs.requests import ImageRequest, parse_registry_prefix
from blobflow.engine.pairs import Pair
from blobflow.errors import InvalidReference, UsageError
from blobflow.mirror_places import (
    MirrorPlaces,
    PlaceRule,
    places_below,
    places_of_pairs,
    places_under,
)
from blobflow.oci import Reference, parse_reference
from tests.fakes.mirror_mappings import DIGEST, mappings, named, paths, tags

# Enough to find what was wrong while this was written.
_few = settings(max_examples=60)


def pairs(*mapped: tuple[str, str]) -> list[Pair]:
    return [Pair(parse_reference(source), parse_reference(target)) for source, target in mapped]


def rules(*mapped: tuple[str, str]) -> list[str]:
    places = places_of_pairs(pairs(*mapped))
    assert not places.renamed
    return [f"{'=' if rule.exact else ''}{rule.source} {rule.target}" for rule in places.rules]


def test_a_registry_that_is_mirrored_as_it_is_takes_one_rule() -> None:
    assert rules(
        ("nginx:1", "m.example.com/mirror/library/nginx:1"),
        ("rancher/pause:3", "m.example.com/mirror/rancher/pause:3"),
        ("rancher/pause:4", "m.example.com/mirror/rancher/pause:4"),
        ("quay.io/a/b:1", "m.example.com/quay/a/b:1"),
    ) == ["docker.io m.example.com/mirror", "quay.io m.example.com/quay"]


def test_a_repository_with_a_place_of_its_own_takes_one_more() -> None:
    assert rules(
        ("nginx:1", "m.example.com/library/nginx:1"),
        ("alpine:3", "m.example.com/base/alpine:3"),
    ) == ["=docker.io/library/alpine m.example.com/base/alpine", "docker.io m.example.com"]


def test_what_is_said_of_one_repository_promises_nothing_of_its_neighbours() -> None:
    """All of docker.io but `library/nginx` is below the mirror: so is the rest of `library`."""
    assert rules(
        ("nginx:1", "m.example.com/base/nginx:1"),
        ("rancher/pause:3", "m.example.com/rancher/pause:3"),
    ) == ["=docker.io/library/nginx m.example.com/base/nginx", "docker.io m.example.com"]


def test_a_prefix_that_repositories_share_is_one_rule() -> None:
    assert rules(
        ("quay.io/org/team/a:1", "m.example.com/t/a:1"),
        ("quay.io/org/team/b:1", "m.example.com/t/b:1"),
        ("quay.io/other:1", "m.example.com/o:1"),
    ) == ["quay.io/org/team m.example.com/t", "=quay.io/other m.example.com/o"]


def test_a_repository_above_others_is_a_prefix_that_holds_for_them() -> None:
    assert rules(
        ("quay.io/a:1", "m.example.com/x:1"),
        ("quay.io/a/b:1", "m.example.com/x/b:1"),
        ("quay.io/a/c:1", "m.example.com/c:1"),
    ) == ["=quay.io/a/c m.example.com/c", "quay.io/a m.example.com/x"]


def testtags_with_another_name_are_kept_beside_the_rules() -> None:
    places = places_of_pairs(
        pairs(("nginx:1", "m.example.com/library/nginx:1"), ("nginx:2", "m.example.com/library/nginx:2-base"))
    )
    assert [str(each) for each in places.renamed] == [
        "docker.io/library/nginx:2 is at m.example.com/library/nginx:2-base"
    ]
    assert str(places.place_of(parse_reference("nginx:3"))) == "m.example.com/library/nginx:3"
    pinned = places.place_of(parse_reference(f"nginx:2@{DIGEST}"))
    assert str(pinned) == f"m.example.com/library/nginx:2-base@{DIGEST}"
    assert str(places.place_of(parse_reference(f"nginx@{DIGEST}"))) == f"m.example.com/library/nginx@{DIGEST}"


def test_a_tag_that_is_pinned_is_renamed_by_its_name() -> None:
    places = places_of_pairs(pairs((f"nginx:1@{DIGEST}", "m.example.com/library/nginx:1-base")))
    assert str(places.place_of(parse_reference("nginx:1"))) == "m.example.com/library/nginx:1-base"


def test_an_image_of_no_rule_has_no_place() -> None:
    places = places_of_pairs(pairs(("quay.io/a/b:1", "m.example.com/a/b:1")))
    assert places.place_of(parse_reference("nginx:1")) is None
    assert places.place_of(parse_reference("quay.io.evil.example/a/b:1")) is None


def test_an_exact_rule_is_for_no_name_below() -> None:
    places = MirrorPlaces((PlaceRule("quay.io/a", "m.example.com/b", exact=True),))
    assert places.place_of(parse_reference("quay.io/a/c:1")) is None


def test_of_several_targets_the_first_counts() -> None:
    places = places_of_pairs(pairs(("nginx:1", "one.example.com/a:1"), ("nginx:1", "two.example.com/b:1")))
    assert str(places.place_of(parse_reference("nginx:1"))) == "one.example.com/a:1"


def test_images_of_a_bundle_are_known_by_their_names_in_it() -> None:
    source = Reference("oci-archive:bundle.tar", "", "docker.io/library/nginx:1")
    target = parse_reference("m.example.com/mirror/library/nginx:1")
    assert places_of_pairs([Pair(source, target)]).rules == (PlaceRule("docker.io", "m.example.com/mirror"),)
    with pytest.raises(UsageError, match="no registry in its name"):
        places_of_pairs([Pair(Reference("oci:folder", "", "nginx:1"), target)])
    with pytest.raises(UsageError, match="only a registry is a mirror"):
        places_of_pairs([Pair(target, source)])


@_few
@given(mappings())
def test_every_pair_has_the_place_that_it_was_mapped_to(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    for pair in mapped:
        place = places.place_of(pair.source)
        assert place is not None
        assert named(place) == named(pair.target)
        assert place.digest == pair.source.digest


@_few
@given(mappings())
def test_formats_that_know_prefixes_alone_say_the_same(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    bare = tuple(msgspec.structs.replace(rule, exact=False) for rule in places.rules)
    assert all(
        MirrorPlaces(bare, places.renamed).place_of(pair.source) == places.place_of(pair.source)
        for pair in mapped
    )


@_few
@given(mappings())
def test_no_rule_can_be_left_out(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    repositories = [f"{pair.source.host}/{pair.source.repository}" for pair in mapped]
    placed = [places.target_of(name) for name in repositories]
    for left in places.rules:
        fewer = MirrorPlaces(tuple(rule for rule in places.rules if rule != left))
        assert [fewer.target_of(name) for name in repositories] != placed


_listed = st.lists(
    st.tuples(st.sampled_from(["", "docker.io/", "quay.io/", "127.0.0.1:5000/"]), paths, tags).map(
        lambda parts: f"{parts[0]}{parts[1]}:{parts[2]}"
    ),
    min_size=1,
    max_size=5,
    unique=True,
)


@_few
@given(_listed, st.sampled_from(["m.example.com", "m.example.com:5000/mirror"]))
def test_places_below_a_mirror_are_those_of_sync(lines: list[str], mirror: str) -> None:
    places = places_below(mirror)
    for image in _requests(lines):
        [pair] = make_pairs([image], [parse_registry_prefix(mirror)])
        assert places.place_of(pair.source) == pair.target


@_few
@given(paths, tags, st.sampled_from(["docker.io", "quay.io", "quay.io/a"]))
def test_places_under_a_source_are_those_of_sync(path: str, tag: str, source: str) -> None:
    [image] = parse_image_list(f"{path}:{tag}", "LIST", parse_registry_prefix(source))
    [pair] = make_pairs([image], [parse_registry_prefix("m.example.com/mirror")])
    assert places_under(source, "m.example.com/mirror").place_of(pair.source) == pair.target


def _requests(lines: list[str]) -> list[ImageRequest]:
    return list(parse_image_list("\n".join(lines), "LIST", None))


def test_what_is_below_the_mirror_is_in_its_place() -> None:
    there = parse_reference("m.example.com/mirror/library/nginx:1")
    assert places_below("m.example.com/mirror").place_of(there) == there


@pytest.mark.parametrize("wrong", ["oci:folder", "m.example.com/UPPER", "", "http://m.example.com", "a b"])
def test_a_mirror_is_a_registry_and_a_prefix(wrong: str) -> None:
    with pytest.raises(InvalidReference):
        places_below(wrong)
