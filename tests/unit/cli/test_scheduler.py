"""Rounds on a clock that only waiting moves, and the signals that reach whoever waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC

import pytest

from blobflow.cli.runtime.cron import Interval, Schedule, parse_cron
from blobflow.cli.runtime.scheduler import WakeReason, WakeSignals, run_on_schedule

HOUR = 3600.0


class Life:
    """A process's life: what happened when. Waiting moves the clock, to the next signal at most."""

    def __init__(
        self, *signals: tuple[float, WakeReason], run_takes: float = 0.0, until: float = 4 * HOUR
    ) -> None:
        self.now = 0.0
        self.log: list[tuple[float, str]] = []
        self.said: list[float] = []
        self._signals = sorted((*signals, (until, WakeReason.STOP)), key=lambda each: each[0])
        self._run_takes = run_takes

    def go(self, schedule: Schedule, random: float = 0.0) -> list[tuple[float, str]]:
        run_on_schedule(
            schedule,
            self.run,
            lambda: self.log.append((self.now, "reread")),
            wait=self.wait,
            clock=lambda: self.now,
            random=lambda: random,
            announce=self.said.append,
        )
        return self.log

    def run(self) -> None:
        self.log.append((self.now, "run"))
        self.now += self._run_takes

    def wait(self, seconds: float) -> WakeReason:
        assert 0 < seconds <= 60
        at, wake = self._signals[0]
        if at > self.now + seconds:
            self.now += seconds
            return WakeReason.DUE
        del self._signals[0]
        self.now = max(self.now, at)
        return wake


def test_every_runs_at_once_and_then_every_so_often() -> None:
    life = Life()
    assert life.go(Interval(HOUR, 0)) == [(0, "run"), (HOUR, "run"), (2 * HOUR, "run"), (3 * HOUR, "run")]
    assert life.said == [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]


def test_cron_waits_for_its_first_time() -> None:
    assert Life().go(parse_cron("30 * * * *", UTC)) == [(half * HOUR + HOUR / 2, "run") for half in range(4)]


def test_a_run_that_takes_longer_skips_what_it_missed_and_never_meets_itself() -> None:
    assert Life(run_takes=1.5 * HOUR).go(Interval(HOUR, 0)) == [(0, "run"), (2 * HOUR, "run")]


def test_a_start_is_late_by_its_jitter() -> None:
    assert Life(until=2 * HOUR).go(Interval(HOUR, 0), random=0.5) == [(0, "run"), (HOUR + 150, "run")]


def test_a_hangup_rereads_and_the_next_run_stays_where_it_was() -> None:
    life = Life((100, WakeReason.REREAD), (200, WakeReason.REREAD), until=HOUR + 1)
    assert life.go(Interval(HOUR, 0)) == [(0, "run"), (100, "reread"), (200, "reread"), (HOUR, "run")]


def test_a_hangup_during_a_run_rereads_before_the_next() -> None:
    life = Life((10, WakeReason.REREAD), run_takes=60, until=HOUR + 70)
    assert life.go(Interval(HOUR, 0)) == [(0, "run"), (60, "reread"), (HOUR, "run")]


def test_what_a_run_raises_ends_the_rounds() -> None:
    life = Life()

    def fail() -> None:
        raise KeyboardInterrupt

    life.run = fail  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        life.go(Interval(HOUR, 0))


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("sent", "woken"),
    [
        ([], [WakeReason.DUE]),
        ([signal.SIGHUP], [WakeReason.REREAD, WakeReason.DUE]),
        ([signal.SIGHUP, signal.SIGHUP], [WakeReason.REREAD, WakeReason.REREAD, WakeReason.DUE]),
        ([signal.SIGTERM], [WakeReason.STOP]),
        ([signal.SIGHUP, signal.SIGTERM], [WakeReason.STOP]),
    ],
)
def test_signals_that_came_while_nobody_waited_wake_the_next(
    sent: list[signal.Signals], woken: list[WakeReason]
) -> None:
    with WakeSignals().caught() as signals:
        for number in sent:
            send(number)
        assert [signals.wait(0) for _ in woken] == woken


def test_a_ctrl_c_that_was_swallowed_ends_the_next_wait() -> None:
    """Python drops what is raised in a finalizer, and a signal can come while one runs."""
    with WakeSignals().caught() as signals:
        with suppress(KeyboardInterrupt):
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.wait(60)


def test_a_ctrl_c_is_raised_at_once_as_ever() -> None:
    with WakeSignals().caught(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant() -> None:
    before: list[Callable[..., object] | int | None] = [signal.getsignal(signal.SIGHUP)]
    with WakeSignals().caught():
        assert signal.getsignal(signal.SIGHUP) != before[0]
    assert signal.getsignal(signal.SIGHUP) == before[0]
