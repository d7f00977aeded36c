"""Nothing that a registry has promised is lost, whatever runs and dies beside it. See machine.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.e2e.promises.rule_machine import PromisesMachine, Tally
from tests.e2e.promises.stepping import Stage

# Runs; each has some interleavings. The short form takes about a minute, if the machine has nothing else to
# do.
SHORT = 60
LONG = 700


@pytest.mark.parametrize(
    ("runs", "interleavings"),
    [
        pytest.param(SHORT, 200, id="short", marks=pytest.mark.timeout(1200)),
        pytest.param(LONG, 2000, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_nothing_promised_is_lost_in_any_interleaving(
    stage: Stage, template: Path, runs: int, interleavings: int
) -> None:
    """The short form plays the same each time and tells what it did; it spares the time that it would take to
    make a failure shorter, which the long form takes."""
    tally = Tally()

    class Machine(PromisesMachine):
        pass

    Machine.stage, Machine.template, Machine.tally = stage, template, tally
    long = runs == LONG
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=runs,
                stateful_step_count=40,
                derandomize=not long,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink) if long else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        print(tally)
    assert len(tally.interleavings) >= interleavings, "too few for a verdict"
