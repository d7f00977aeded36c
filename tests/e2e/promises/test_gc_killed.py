"""kill -9 of gc before each of its steps in turn: nothing promised is lost, and nothing stays for ever."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.e2e.promises.client_actions import Deed
from tests.e2e.promises.content import AMD64, ARM64, BLOBS, PAIR, S390X
from tests.e2e.promises.stepping import Stage
from tests.e2e.promises.world import OLD, World


def begun(stage: Stage, template: Path) -> World:
    """A world with a tag that was set long ago, and a manifest that was put just now."""
    world = World(stage, template)
    world.do(Deed("put", OLD, AMD64.name, "kept"))
    world.age()
    world.do(Deed("put", OLD, ARM64.name))
    return world


def killed_at_each_step(stage: Stage, template: Path, *after: Deed) -> None:
    """Kill gc there, do `after`, check what is owed, and what the next gc leaves."""
    played, wrong = 0, []
    for step in range(1000):
        with closing(begun(stage, template)) as world:
            world.start_gc()
            if step:
                world.step_gc(step)
            if world.gc is None:
                break
            stop = world.gc.stop
            try:
                world.kill_gc()
                world.check()
                for deed in after:
                    world.do(deed)
                world.check_leftovers()
            except AssertionError as error:
                wrong.append(f"at step {step}, {stop}: {str(error).partition(chr(10))[0]}")
            played += 1
    print(f"gc was killed before each of its {played} steps, {len(wrong)} wrong")
    assert played > 5, "gc took hardly a step: the forker does not see what it does"
    assert not wrong, "\n".join([f"{len(wrong)} of {played} kills are wrong:", *wrong])


def test_a_gc_killed_before_any_step_loses_nothing_and_the_next_one_clears_up(
    stage: Stage, template: Path
) -> None:
    killed_at_each_step(stage, template)


def test_what_a_killed_gc_was_about_to_take_can_be_pushed_again_and_stays(
    stage: Stage, template: Path
) -> None:
    """The tag makes it owed for good, also by the gc that clears up what the killed one left."""
    below = [blob for blob in BLOBS if blob.digest in S390X.blobs]
    pushed = [Deed("upload", OLD, blob.name) for blob in below]
    killed_at_each_step(stage, template, *pushed, Deed("put", OLD, S390X.name, "again"))


def test_what_a_killed_gc_has_left_of_an_index_is_asked_for_and_kept(stage: Stage, template: Path) -> None:
    heads = [Deed("head", OLD, content.name) for content in (PAIR, S390X, *BLOBS)]
    killed_at_each_step(stage, template, *heads)
