"""Runs on a schedule, one at a time, in a daemon.

    wait until the next is due ─► run ─► wait …
      SIGHUP   the spec is reloaded; if it has an error, that is printed, and the old one stays
      SIGTERM  while waiting: the end. While running: the run winds down first (see `event_loop`)

Runs that are due while another one takes longer are skipped. The error of a run is printed and counted, and
does not end the process. `run_on_schedule` is the loop; it gets its clock and its waiting as arguments, and
knows nothing of signals.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Protocol

from blobflow.cli.runtime.cron import jitter


class WakeReason(Enum):
    """Why waiting ended."""

    DUE = "due"
    REREAD = "reread"
    STOP = "stop"


class Times(Protocol):
    """When to run: an interval, a cron expression, or the schedules of a spec's entries."""

    @property
    def starts_at_once(self) -> bool:
        """Whether the first run is now."""

    def after(self, now: float) -> float:
        """The first time after `now`, in seconds since the epoch."""


# Waits for so many seconds, or until something else happens.
Wait = Callable[[float], WakeReason]
# The longest wait at a time: after it, a clock that was set or a machine that slept is noticed.
_LONGEST_WAIT = 60.0  # seconds


def run_on_schedule(
    schedule: Times,
    run: Callable[[], None],
    reread: Callable[[], None],
    *,
    wait: Wait,
    clock: Callable[[], float] = time.time,
    random: Callable[[], float],
    announce: Callable[[float], None],
) -> None:
    """Run whenever the schedule is due, until `wait` returns STOP.

    `announce` gets the time of the next run, in seconds since the epoch. What `run` and `reread` raise ends
    the loop. `reread` may change when the schedule is due.
    """
    if schedule.starts_at_once:
        run()
    while True:
        now = clock()
        due = schedule.after(now)
        start = due + jitter(due, schedule.after(due), random())
        announce(start)
        looked = False  # for signals: also where a run is overdue, or none would ever end the loop
        while (left := start - clock()) > 0 or not looked:
            wake, looked = wait(min(max(left, 0.0), _LONGEST_WAIT)), True
            if wake is WakeReason.STOP:
                return
            if wake is WakeReason.REREAD:
                reread()
                if schedule.after(now) != due:
                    break
        else:
            run()


class WakeSignals:
    """SIGHUP and SIGTERM, as reasons to wake up; use it inside `caught`.

    A signal that comes while nobody waits wakes the next `wait`. So does a Ctrl-C whose exception was
    lost, in a finalizer say.
    """

    def __init__(self) -> None:
        self._come: list[WakeReason] = []
        self._interrupted = False
        self._bell, self._ring = os.pipe()

    @contextmanager
    def caught(self) -> Iterator[WakeSignals]:
        """While inside, the two signals only wake up `wait`; Ctrl-C raises KeyboardInterrupt."""
        reasons = {signal.SIGHUP: WakeReason.REREAD, signal.SIGTERM: WakeReason.STOP}

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._come.append(reasons[signal.Signals(number)])
            os.write(self._ring, b"!")

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            self._interrupted = True
            raise KeyboardInterrupt

        before = {number: signal.signal(number, on_signal) for number in reasons}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield self
        finally:
            for number, former in before.items():
                signal.signal(number, former if former is not None else signal.SIG_DFL)
            os.close(self._bell)
            os.close(self._ring)

    def wait(self, seconds: float) -> WakeReason:
        """See `Wait`. STOP goes before all else. Raises KeyboardInterrupt."""
        if self._interrupted:
            raise KeyboardInterrupt
        if not self._come:
            select.select([self._bell], [], [], seconds)
        if not self._come:
            return WakeReason.DUE
        os.read(self._bell, 1)
        return WakeReason.STOP if WakeReason.STOP in self._come else self._come.pop(0)
