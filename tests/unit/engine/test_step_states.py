"""The rules of step states, one by one, on a small plan: a blob for three repositories, and manifests."""

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


def begin(step_states: StepStates) -> list[int]:
    ready = list(step_states.newly_ready())
    for number in ready:
        step_states.start(number)
    return ready


def test_what_is_ready_follows_the_needs() -> None:
    step_states = StepStates(PLAN)
    assert begin(step_states) == [0]
    step_states.done(0)
    assert sorted(begin(step_states)) == [1, 2, 3]
    step_states.done(1)
    assert begin(step_states) == [4]


def test_a_refused_mount_becomes_a_copy_of_the_same_step() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.done(0)
    begin(step_states)
    step_states.refused(1)
    assert begin(step_states) == [1]
    assert step_states.step(1) == Copy(LAYER, SOURCE, B)
    step_states.done(1)
    assert begin(step_states) == [4]


def test_a_home_that_its_target_denied_moves_and_the_other_mounts_follow_it() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.failed(0, Denied("no", side="target"))
    assert step_states.states[3] is StepState.SKIPPED
    assert begin(step_states) == [1]
    assert step_states.step(1) == Copy(LAYER, SOURCE, B)
    assert step_states.step(2) == Mount(LAYER, B, C, SOURCE)
    step_states.done(1)
    assert sorted(begin(step_states)) == [2, 4]


def test_a_second_home_may_fail_too() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.failed(0, Denied("no", side="target"))
    begin(step_states)
    step_states.failed(1, Denied("no", side="target"))
    assert begin(step_states) == [2]
    assert step_states.step(2) == Copy(LAYER, SOURCE, C)
    step_states.done(2)
    begin(step_states)
    step_states.done(5)
    assert step_states.finished


def test_a_blob_that_its_source_can_not_give_fails_everyone_and_is_not_read_again() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    error = NotFound("gone", side="source")
    step_states.failed(0, error)
    assert step_states.finished
    assert begin(step_states) == []
    assert [step_states.root_cause(number) for number in range(6)] == [error] * 6


def test_no_connection_to_a_home_is_none_to_the_other_repositories_of_that_registry() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    error = ConnectFailed("refused", side="target")
    step_states.failed(0, error)
    assert step_states.finished
    assert [step_states.root_cause(number) for number in range(6)] == [error] * 6


def test_every_end_is_told_once() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.done(0)
    assert list(step_states.newly_ended()) == [0]
    assert list(step_states.newly_ended()) == []


def test_the_rest_can_be_skipped_while_something_is_under_way() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.skip_rest()
    assert not step_states.finished
    step_states.done(0)
    assert step_states.finished
    assert step_states.root_cause(4) is None


def test_a_mount_that_is_refused_after_the_rest_was_skipped_starts_no_upload() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.done(0)
    begin(step_states)
    step_states.skip_rest()
    step_states.refused(1)
    step_states.done(2)
    step_states.done(3)
    assert begin(step_states) == []
    assert step_states.states[1] is StepState.SKIPPED
    assert step_states.root_cause(1) is None
    assert step_states.finished


def test_a_home_that_fails_after_the_rest_was_skipped_has_no_heir() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.skip_rest()
    step_states.failed(0, Denied("no", side="target"))
    assert begin(step_states) == []
    assert step_states.finished


def part_at(first: int, site: Site) -> Plan:
    steps = (Copy(LAYER, SOURCE, site), Put(ROOTS[0], site))
    return renumbered(Plan(steps, ((), (Need(0),)), {LAYER.digest: (0,)}, ()), first)


def test_a_part_that_is_added_runs_by_its_own_needs() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.add(part_at(6, Site("u", "a")))
    assert begin(step_states) == [6]
    step_states.failed(0, NotFound("gone", side="source"))
    assert step_states.states[7] is StepState.WAITING
    step_states.done(6)
    assert begin(step_states) == [7]
    step_states.done(7)
    assert step_states.finished


def test_of_a_part_that_comes_after_the_rest_was_skipped_nothing_begins() -> None:
    step_states = StepStates(PLAN)
    begin(step_states)
    step_states.skip_rest()
    step_states.add(part_at(6, Site("u", "a")))
    assert begin(step_states) == []
    assert list(step_states.newly_ended()) == [1, 2, 3, 4, 5, 6, 7]
    step_states.done(0)
    assert step_states.finished


def named() -> StepStates:
    """The plan where a mount comes after a manifest of its origin."""
    steps = (PLAN.steps[0], PLAN.steps[3], PLAN.steps[1], PLAN.steps[4])
    needs = (
        (),
        (Need(0),),
        (Need(0, NeedKind.FINISHED), Need(1, NeedKind.AFTER)),
        (Need(2),),
    )
    return StepStates(Plan(steps, needs, {LAYER.digest: (0,)}, ()))


def test_a_mount_comes_after_the_manifest_that_names_its_blob() -> None:
    step_states = named()
    assert begin(step_states) == [0]
    step_states.done(0)
    assert begin(step_states) == [1]
    step_states.done(1)
    assert begin(step_states) == [2]
    assert isinstance(step_states.step(2), Mount)


def test_a_mount_goes_on_if_the_manifest_before_it_fails() -> None:
    step_states = named()
    begin(step_states)
    step_states.done(0)
    begin(step_states)
    step_states.failed(1, Denied("no", side="target"))
    assert begin(step_states) == [2]
    assert step_states.states[3] is StepState.WAITING


def test_a_mount_whose_home_fails_becomes_a_copy_whatever_it_comes_after() -> None:
    step_states = named()
    begin(step_states)
    step_states.failed(0, Denied("no", side="target"))
    assert step_states.states[1] is StepState.SKIPPED
    assert begin(step_states) == [2]
    assert step_states.step(2) == Copy(LAYER, SOURCE, B)


def test_a_mount_fails_with_a_home_that_could_not_be_read_whatever_it_comes_after() -> None:
    step_states = named()
    begin(step_states)
    step_states.failed(0, NotFound("gone", side="source"))
    assert step_states.states[1:] == [StepState.SKIPPED, StepState.FAILED, StepState.SKIPPED]
    assert step_states.finished
