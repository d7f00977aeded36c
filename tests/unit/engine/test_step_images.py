"""For which image a step is done."""

from __future__ import annotations

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.step_images import StepImages
from blobflow.engine.plan.steps import Copy, Goal, Need, Plan, Put, renumbered
from blobflow.oci import Descriptor, digest_of, parse_reference

S, T = Site("s:1", "app"), Site("t:1", "app")


def blob(name: str) -> Descriptor:
    return Descriptor("", digest_of(name.encode()), 1)


def pair(name: str) -> Pair:
    return Pair(parse_reference(f"s:1/{name}"), parse_reference(f"t:1/{name}"))


def of_two(first: str, second: str) -> Plan:
    """Two images with a blob of their own each, and one that they share."""
    steps = (
        Copy(blob("shared"), S, T),
        Copy(blob("a"), S, T),
        Put(blob("manifest a"), T, ("1",)),
        Copy(blob("b"), S, T),
        Put(blob("manifest b"), T, ("2",)),
        Copy(blob("nobody's"), S, T),
    )
    needs = ((), (), (Need(0), Need(1)), (), (Need(0), Need(3)), ())
    goals = Goal(pair(first), blob("manifest a"), (2,)), Goal(pair(second), blob("manifest b"), (4,))
    return Plan(steps, needs, {}, goals)


def test_a_step_is_for_the_image_that_needs_it() -> None:
    images = StepImages()
    images.add(of_two("a:1", "b:2"))
    assert [images.source(step) for step in range(6)] == [
        "s:1/b:2",
        "s:1/a:1",
        "s:1/a:1",
        "s:1/b:2",
        "s:1/b:2",
        "",
    ]


def test_parts_that_are_planned_later_have_their_own_images() -> None:
    images, part = StepImages(), of_two("c:1", "d:2")
    images.add(of_two("a:1", "b:2"))
    images.add(renumbered(part, 6))
    assert images.source(1) == "s:1/a:1"
    assert [images.source(step) for step in (6, 7, 8)] == ["s:1/d:2", "s:1/c:1", "s:1/c:1"]


def test_a_step_beyond_the_plan_is_for_none_that_is_known() -> None:
    images = StepImages()
    images.add(of_two("a:1", "b:2"))
    assert images.source(-1) == images.source(6) == ""
