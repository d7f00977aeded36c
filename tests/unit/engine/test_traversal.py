"""The way down from a root: what is asked for in which order, where it stops, and how much there may be."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.targets.traversal import MOST_BELOW, Part, Traversal, target_root
from blobflow.oci import Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice

SITE = Site("host", "app")


def image(*layers: bytes) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": named(b"{}", media.OCI_CONFIG),
        "layers": [named(layer, media.OCI_LAYER_GZIP) for layer in layers],
    }
    return parse_manifest(json.dumps(document).encode())


def named(content: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


def index(*children: Manifest) -> Manifest:
    listed = [msgspec.to_builtins(each.descriptor) for each in children]
    document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}
    return parse_manifest(json.dumps(document).encode())


def descent(root: Manifest, stopped: bytes = b"") -> Traversal:
    return Traversal(
        target_root(SITE, EVERYTHING, root.descriptor.digest, root.descriptor.digest), "", stopped
    )


def walked(way: Traversal, manifests: Iterable[Manifest], most: int = 10**6) -> list[Digest]:
    """Go down, as if everything were there."""
    known = {each.descriptor.digest: each for each in manifests}
    asked: list[Digest] = []
    while len(asked) < most and (part := way.take()) is not None:
        asked.append(part.digest)
        way.answered(part, there=True, manifest=known.get(part.digest))
    return asked


ONE, TWO = image(b"a", b"b"), image(b"c")
TREE = index(ONE, TWO)
ORDER = [
    TREE.descriptor.digest,
    ONE.descriptor.digest,
    *(blob.digest for blob in ONE.blobs),
    TWO.descriptor.digest,
    *(blob.digest for blob in TWO.blobs),
]


def test_it_goes_depth_first_in_the_order_of_mention() -> None:
    way = descent(TREE)
    assert walked(way, [TREE, ONE, TWO]) == ORDER
    assert way.over
    assert way.missing is None


@pytest.mark.parametrize("stop", range(1, len(ORDER)))
def test_it_goes_on_wherever_it_stopped_without_asking_for_anything_twice(stop: int) -> None:
    way = descent(TREE)
    first = walked(way, [TREE, ONE, TWO], stop)
    assert way.begun
    assert not way.over
    rest = walked(descent(TREE, way.stopped), [TREE, ONE, TWO])
    assert first + rest == ORDER


@pytest.mark.parametrize("words", [b"\x93", b"nonsense", b"\xc0", b"\x92\x01\x91\x92\xc3\xa0"])
def test_words_that_can_not_be_read_mean_that_it_begins_anew(words: bytes) -> None:
    assert walked(descent(TREE, words), [TREE, ONE, TWO]) == ORDER


def test_what_is_missing_ends_it_when_all_answers_are_there() -> None:
    way = descent(TREE)
    assert walked(way, [TREE, ONE, TWO], 1) == ORDER[:1]
    first, second = way.take(), way.take()
    assert first is not None
    assert second is not None
    way.answered(first, there=False)
    assert way.missing == first
    assert str(way.missing) == f"manifest {ONE.descriptor.digest}"
    assert way.take() is None
    assert not way.over
    way.answered(second, there=True, manifest=TWO)
    assert way.over


def test_what_was_not_answered_is_asked_for_again() -> None:
    way = descent(TREE)
    part = way.take()
    assert part is not None
    way.put_back(part)
    assert not way.begun
    assert walked(way, [TREE, ONE, TWO]) == ORDER


def test_what_is_not_certain_is_not_missed() -> None:
    way = descent(ONE)
    part = way.take()
    assert part is not None
    way.answered(msgspec.structs.replace(part, certain=False), there=False)
    assert way.missing is None
    assert way.over


def test_an_index_that_is_everywhere_is_entered_once() -> None:
    """Two indexes on each of 40 levels, each with both of the level below: 2 to the 40 ways down."""
    level = [image(b"left"), image(b"right")]
    manifests = [*level]
    for _ in range(40):
        level = [index(*level), index(*reversed(level))]
        manifests += level
    root = index(*level)
    asked = walked(descent(root), [root, *manifests])
    assert len(asked) <= 1 + 2 * len(manifests) + 4


def test_there_is_a_bound_to_what_is_below_one_root() -> None:
    wide = image(*(b"%d" % number for number in range(MOST_BELOW + 50)))
    tree = index(*(image(b"%d" % number) for number in range(MOST_BELOW - 100)), wide)
    asked = walked(descent(tree), [tree, wide])
    assert len(asked) <= MOST_BELOW
    way = descent(wide)
    walked(way, [wide], 2)
    assert len(way.stopped) < 1_200_000, "bytes of the state file"


def test_of_a_manifest_made_anew_everything_is_there() -> None:
    choice, made = PlatformChoice(index="only"), digest_of(b"made")
    assert target_root(SITE, choice, digest_of(b"source"), made).choice == EVERYTHING
    assert target_root(SITE, choice, made, made).choice == choice
    assert Part(False, "", made, 1).certain
