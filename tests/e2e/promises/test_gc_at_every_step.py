"""gc is stopped before each of its steps in turn, and there clients do something; and the other way round.

Every interleaving of some deeds with the steps of one gc is played, so nothing here is left to chance: a
fault at any step fails, and the failure names the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.e2e.promises.client_actions import Deed, Kind
from tests.e2e.promises.content import (
    AMD64,
    ARM64,
    BY_DIGEST,
    COUNTERSIGNED,
    NESTED,
    PAIR,
    S390X,
    SIGNED,
    SPARSE,
    Content,
)
from tests.e2e.promises.stepping import Stage
from tests.e2e.promises.world import OLD, World, make_template


def below(*roots: Content) -> tuple[Content, ...]:
    """What hangs on the roots, without what refers to them, children first."""
    found: dict[str, Content] = {}
    for root in roots:
        named = [*root.blobs, *root.children, *([root.subject] if root.subject else [])]
        for content in below(*[BY_DIGEST[digest] for digest in named if digest in BY_DIGEST]):
            found.setdefault(content.digest, content)
        found.setdefault(root.digest, root)
    return tuple(found.values())


def old(
    kind: Kind, content: Content | str, tag: str = "", *, repository: str = OLD, origin: str = ""
) -> Deed:
    return Deed(kind, repository, content if isinstance(content, str) else content.name, tag, origin)


class Scenario(msgspec.Struct, frozen=True):
    """`contents` were pushed long ago; `before` is done just before gc starts; `deeds` while it stands still.

    `tags`: what was tagged long ago.
    """

    contents: tuple[Content, ...]
    deeds: tuple[Deed, ...]
    before: tuple[Deed, ...] = ()
    tags: tuple[Deed, ...] = ()


SCENARIOS = {
    "a tag is set to an old manifest": Scenario(below(AMD64), (old("put", AMD64, "t"),)),
    "an old manifest is put by digest": Scenario(below(AMD64), (old("put", AMD64),)),
    "a tag moves to an old manifest": Scenario(
        below(AMD64, ARM64), (old("put", AMD64, "t"),), tags=(old("put", ARM64, "t"),)
    ),
    "an old blob is pushed again": Scenario(
        below(AMD64), (old("upload in two", "shared", repository="two"),)
    ),
    "the last request of an upload comes": Scenario(
        below(AMD64),
        (old("finish upload", "shared", repository="two"),),
        before=(old("begin upload", "shared", repository="two"),),
    ),
    "an old blob is mounted": Scenario(below(AMD64), (old("mount", "shared", repository="two", origin=OLD),)),
    "an old blob is found by HEAD": Scenario(below(AMD64), (old("head", "layer-a"),)),
    "an old manifest is found by HEAD": Scenario(below(AMD64), (old("head", AMD64),)),
    "what a tag named is found by HEAD, and the tag goes": Scenario(
        below(AMD64), (old("head", AMD64, "t"), old("delete", AMD64, "t")), tags=(old("put", AMD64, "t"),)
    ),
    "an index is put over old images": Scenario(below(PAIR), (old("put", PAIR),)),
    "an index of an index is tagged": Scenario(below(NESTED), (old("put", NESTED, "t"),)),
    "a sparse index is put": Scenario(below(SPARSE), (old("put", SPARSE, "t"),)),
    "a referrer of an old image is put": Scenario(below(SIGNED), (old("put", SIGNED),)),
    "an old image is tagged that has old referrers": Scenario(
        below(COUNTERSIGNED), (old("put", AMD64, "t"),)
    ),
    "all of an image is pushed again": Scenario(
        below(S390X),
        tuple(old("put" if each.media_type else "upload", each, repository="two") for each in below(S390X)),
    ),
}


@pytest.fixture(scope="module")
def stores(stage: Stage) -> Callable[[Sequence[Content]], Path]:
    """Templates by what they hold, each made once."""
    made: dict[frozenset[str], Path] = {}

    def template(contents: Sequence[Content]) -> Path:
        key = frozenset(content.digest for content in contents)
        if key not in made:
            made[key] = stage.folder / f"template-{len(made)}"
            make_template(stage, made[key], contents)
        return made[key]

    return template


def begun(stage: Stage, template: Path, scenario: Scenario) -> World:
    """A world in which the scenario's gc is about to start."""
    world = World(stage, template)
    world.promises.sure = {(OLD, content.digest) for content in scenario.contents}
    for deed in scenario.tags:
        world.do(deed)
    if scenario.tags:
        world.age()
    for deed in scenario.before:
        world.do(deed)
    return world


def each_step(
    stage: Stage, template: Path, scenario: Scenario, act: Callable[[World], None], told: str
) -> None:
    """Stop gc before each of its steps in turn, `act`, let all come to an end, and check what is owed."""
    played, wrong = 0, []
    for step in steps():
        with closing(begun(stage, template, scenario)) as world:
            world.start_gc()
            if step:
                world.step_gc(step)
            if world.gc is None:
                break
            stop = world.gc.stop
            try:
                act(world)
                world.calm()
                world.check()
            except AssertionError as error:
                wrong.append(f"at step {step}, {stop}: {str(error).partition(chr(10))[0]}")
            played += 1
    print(f"{told}: {played} interleavings, {len(wrong)} wrong")
    assert played > 5, "gc took hardly a step: the forker does not see what it does"
    assert not wrong, "\n".join([f"{len(wrong)} of {played} interleavings are wrong:", *wrong])


def steps() -> Iterator[int]:
    yield from range(1000)


def all_of(deeds: Sequence[Deed]) -> Callable[[World], None]:
    """Do these, one after another; each waits for gc if it has to."""

    def act(world: World) -> None:
        for deed in deeds:
            world.do(deed)
            world.answer_what_is_pending()

    return act


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_promised_while_gc_stands_before_any_step_stays(
    stage: Stage, stores: Callable[[Sequence[Content]], Path], name: str
) -> None:
    scenario = SCENARIOS[name]
    each_step(stage, stores(scenario.contents), scenario, all_of(scenario.deeds), name)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_was_promised_just_before_stays_through_a_whole_gc(
    stage: Stage, stores: Callable[[Sequence[Content]], Path], name: str
) -> None:
    """Twice: the second gc meets what the first one has left, as old as it was."""
    scenario = SCENARIOS[name]
    with closing(begun(stage, stores(scenario.contents), scenario)) as world:
        for deed in scenario.deeds:
            world.do(deed)
        for _ in range(2):
            world.start_gc()
            world.finish_gc()
            world.check()
        world.check_leftovers()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_whole_gc_while_serve_stands_before_any_step_of_a_deed_takes_nothing_of_it(
    stage: Stage, stores: Callable[[Sequence[Content]], Path], name: str
) -> None:
    scenario = SCENARIOS[name]
    *first, last = scenario.deeds
    played, wrong = 0, []
    for step in steps():
        with closing(begun(stage, stores(scenario.contents), scenario)) as world:
            for deed in first:
                world.do(deed)
            world.do(last, hold=step)
            if world.pending is None:
                break
            stop = world.serve.stop
            try:
                world.start_gc()
                if world.gc is not None:
                    world.finish_gc()
                world.calm()
                world.check()
            except AssertionError as error:
                wrong.append(f"at step {step}, {stop}: {str(error).partition(chr(10))[0]}")
            played += 1
    print(f"{name}: {played} interleavings, {len(wrong)} wrong")
    assert not wrong, "\n".join([f"{len(wrong)} of {played} interleavings are wrong:", *wrong])
