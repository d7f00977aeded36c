"""The schedules of a spec's entries, each kept by itself, in one daemon: entries that are due at the same
time are one run, which moves what they share once."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from blobflow.cli.runtime.cron import Interval, Schedule


class EntrySchedules:
    """When any of several schedules is due. Times are in seconds since the epoch.

    An interval counts from when it was taken in, and is due at once; a cron expression waits for its time.
    What becomes due while a run takes longer is due right after it, once.
    """

    def __init__(self, schedules: Iterable[Schedule], now: float) -> None:
        self._kept: dict[Schedule, Schedule] = {}
        self._asked: dict[Schedule, float] = {}
        self._fresh: set[Schedule] = set()  # intervals that never ran
        self.replace(schedules, now)

    @property
    def starts_at_once(self) -> bool:
        return bool(self._fresh)

    def replace(self, schedules: Iterable[Schedule], now: float) -> None:
        """Keep these instead. Those that were kept already go on as they were."""
        kept, asked = self._kept, self._asked
        self._kept, self._asked = {}, {}
        for each in schedules:
            begun = msgspec.structs.replace(each, start=now) if isinstance(each, Interval) else each
            self._kept[each] = kept.get(each, begun)
            self._asked[each] = asked.get(each, now)
        new = self._kept.keys() - kept.keys()
        self._fresh = (self._fresh & self._kept.keys()) | {each for each in new if isinstance(each, Interval)}

    def after(self, now: float) -> float:
        """The first time that one is due after `now`; `now` itself if one is overdue."""
        return now if self._fresh else min(self._next(each, now) for each in self._kept)

    def _next(self, schedule: Schedule, now: float) -> float:
        kept = self._kept[schedule]
        due = kept.after(self._asked[schedule])
        if due < now:
            return now
        return due if due > now else kept.after(now)

    def take_due(self, now: float) -> frozenset[Schedule]:
        """The schedules that are due by `now`; each is due again at its next time after that."""
        due = {each for each, kept in self._kept.items() if kept.after(self._asked[each]) <= now}
        due |= self._fresh
        self._fresh = set()
        self._asked.update(dict.fromkeys(due, now))
        return frozenset(due)
