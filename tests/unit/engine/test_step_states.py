"""Step states, rule by rule, on a small plan: a blob for three repositories, and their manifests."""

from __future__ import annotations

from blobflow.content import Site
from blobflow.engine.plan.steps import Copy, Mount, Need, NeedKind, Plan, Put, renumbered
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import ConnectFailed, Denied, NotFound
from blobflow.oci import Descriptor, digest_of

SOURCE = Site("s", "x")
A, B, C = Site("t", "a"), Site("t", "b"), Site("t", "c")
LAYER = Descriptor(media_type="layer", digest=digest_of(b"layer"), size=5)
ROOTS = [Descriptor(media_type="manifest", digest=digest_of(name), size=1) for name in (b"a", b"b", b"c")]

PLAN = Plan(
    steps=(
        Copy(LAYER, SOURCE, A),
        Mount(LAYER, A, B, SOURCE),
        Mount(LAYER, A, C, SOURCE),
        Put(ROOTS[0], A),
        Put(ROOTS[1], B),
        Put(ROOTS[2], C),
    ),
    needs=(
        (),
        (Need(0, NeedKind.FINISHED),),
        (Need(0, NeedKind.FINISHED),),
        (Need(0),),
        (Need(1),),
        (Need(2),),
    ),
    reads={LAYER.digest: (0,)},
    goals=(),
)


def begin(steps: StepStates) -> list[int]:
    ready = list(steps.newly_ready())
    for number in ready:
        steps.start(number)
    return ready


def test_what_is_ready_follows_the_needs() -> None:
    steps = StepStates(PLAN)
    assert begin(steps) == [0]
    steps.done(0)
    assert sorted(begin(steps)) == [1, 2, 3]
    steps.done(1)
    assert begin(steps) == [4]


def test_a_refused_mount_becomes_a_copy_of_the_same_step() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.done(0)
    begin(steps)
    steps.refused(1)
    assert begin(steps) == [1]
    assert steps.step(1) == Copy(LAYER, SOURCE, B)
    steps.done(1)
    assert begin(steps) == [4]


def test_a_home_that_its_target_denied_moves_and_the_other_mounts_follow_it() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.failed(0, Denied("no", side="target"))
    assert steps.states[3] is StepState.SKIPPED
    assert begin(steps) == [1]
    assert steps.step(1) == Copy(LAYER, SOURCE, B)
    assert steps.step(2) == Mount(LAYER, B, C, SOURCE)
    steps.done(1)
    assert sorted(begin(steps)) == [2, 4]


def test_a_second_home_may_fail_too() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.failed(0, Denied("no", side="target"))
    begin(steps)
    steps.failed(1, Denied("no", side="target"))
    assert begin(steps) == [2]
    assert steps.step(2) == Copy(LAYER, SOURCE, C)
    steps.done(2)
    begin(steps)
    steps.done(5)
    assert steps.finished


def test_a_blob_that_its_source_can_not_give_fails_everyone_and_is_not_read_again() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    error = NotFound("gone", side="source")
    steps.failed(0, error)
    assert steps.finished
    assert begin(steps) == []
    assert [steps.root_cause(number) for number in range(6)] == [error] * 6


def test_no_connection_to_a_home_is_none_to_the_other_repositories_of_that_registry() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    error = ConnectFailed("refused", side="target")
    steps.failed(0, error)
    assert steps.finished
    assert [steps.root_cause(number) for number in range(6)] == [error] * 6


def test_every_end_is_told_once() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.done(0)
    assert list(steps.newly_ended()) == [0]
    assert list(steps.newly_ended()) == []


def test_the_rest_can_be_skipped_while_something_is_under_way() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.skip_rest()
    assert not steps.finished
    steps.done(0)
    assert steps.finished
    assert steps.root_cause(4) is None


def test_a_mount_that_is_refused_after_the_rest_was_skipped_starts_no_upload() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.done(0)
    begin(steps)
    steps.skip_rest()
    steps.refused(1)
    steps.done(2)
    steps.done(3)
    assert begin(steps) == []
    assert steps.states[1] is StepState.SKIPPED
    assert steps.root_cause(1) is None
    assert steps.finished


def test_a_home_that_fails_after_the_rest_was_skipped_has_no_heir() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.skip_rest()
    steps.failed(0, Denied("no", side="target"))
    assert begin(steps) == []
    assert steps.finished


def part_at(first: int, site: Site) -> Plan:
    steps = (Copy(LAYER, SOURCE, site), Put(ROOTS[0], site))
    return renumbered(Plan(steps, ((), (Need(0),)), {LAYER.digest: (0,)}, ()), first)


def test_a_part_that_is_added_runs_by_its_own_needs() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.add(part_at(6, Site("u", "a")))
    assert begin(steps) == [6]
    steps.failed(0, NotFound("gone", side="source"))
    assert steps.states[7] is StepState.WAITING
    steps.done(6)
    assert begin(steps) == [7]
    steps.done(7)
    assert steps.finished


def test_of_a_part_that_comes_after_the_rest_was_skipped_nothing_begins() -> None:
    steps = StepStates(PLAN)
    begin(steps)
    steps.skip_rest()
    steps.add(part_at(6, Site("u", "a")))
    assert begin(steps) == []
    assert list(steps.newly_ended()) == [1, 2, 3, 4, 5, 6, 7]
    steps.done(0)
    assert steps.finished
