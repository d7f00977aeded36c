"""When a run is due: at intervals, or at the times of a cron expression. Pure.

Times are seconds since the epoch; cron's fields are read in the zone of the machine, or in the one given. A
time that a change of clocks leaves out comes an hour later; one that comes twice counts once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from blobflow.errors import UsageError

# Between two 29ths of February are at most eight years (1896 and 1904, 2096 and 2104).
_MAX_DAYS = 366 * 8 + 1
# A run starts up to so much later than it is due, so that machines with the same schedule don't run together.
_JITTER_FRACTION = 0.1
_MAX_JITTER = 300.0  # seconds

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d|w)", re.ASCII)
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Interval(msgspec.Struct, frozen=True):
    """Every `seconds`, counted from `start`: a run that takes longer than that skips what it missed."""

    seconds: float
    start: float

    @property
    def starts_at_once(self) -> bool:
        return True

    def after(self, now: float) -> float:
        """The first time that is due after `now`."""
        return self.start + self.seconds * (math.floor((now - self.start) / self.seconds) + 1)


class Cron(msgspec.Struct, frozen=True):
    """The times of a cron expression, as the values that each of its fields allows.

    Where both days are restricted, either is enough, as in every cron: `either`.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    zone: tzinfo | None = None

    @property
    def starts_at_once(self) -> bool:
        return False

    def after(self, now: float) -> float:
        """The first time that is due after `now`. Raises UsageError if none ever comes."""
        for wall in self._walls(datetime.fromtimestamp(now, self.zone)):
            due = wall.timestamp()
            if due > now:
                return due
        raise UsageError("the cron expression names a day that never comes")

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Times on the wall clock, from the day of `start` on."""
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        for number in range(_MAX_DAYS):
            day = midnight + timedelta(days=number)
            if self._fits(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        yield day.replace(hour=hour, minute=minute)

    def _fits(self, day: datetime) -> bool:
        month_day, weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = month_day or weekday if self.either else month_day and weekday
        return fits and day.month in self.months


Schedule = Interval | Cron


def schedule_of(every: str, cron: str) -> Schedule | None:
    """The schedule that a file names by a span of time, counted from the epoch, or by a cron expression; None
    for neither. Raises UsageError."""
    if every and cron:
        raise UsageError("`every` and `schedule` are two ways to say when; keep one")
    if cron:
        return parse_cron(cron)
    return Interval(parse_interval(every), 0) if every else None


def jitter(due: float, next_due: float, random: float) -> float:
    """Seconds by which the run that is due starts later; 0 ≤ `random` < 1."""
    return random * min((next_due - due) * _JITTER_FRACTION, _MAX_JITTER)


def parse_interval(text: str) -> float:
    """Seconds in `6h`, `90m`, `1d12h`. Raises UsageError."""
    word = text.strip().lower()
    parts = _INTERVAL.findall(word)
    if not parts or "".join(amount + unit for amount, unit in parts) != word:
        raise UsageError(f"{text[:100]!r} is no span of time; write it as 30m, 6h, 1d or 1h30m")
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    if seconds < 1:
        raise UsageError(f"{text[:100]!r} is too short; a second is the least")
    return seconds


def parse_cron(text: str, zone: tzinfo | None = None) -> Cron:
    """Read `minute hour day-of-month month day-of-week`, or a shorthand such as @daily.

    Raises UsageError naming the field, also where no day ever fits.
    """
    words = _SHORTHANDS.get(text.strip().lower(), text).split()
    if len(words) != 5:
        raise UsageError(
            f"{text[:100]!r} is no cron expression: it takes 5 fields (minute hour day month weekday), "
            f"as in '0 3 * * *', or one of {', '.join(_SHORTHANDS)}"
        )
    minutes = _field(words[0], "minute", 0, 59)
    hours = _field(words[1], "hour", 0, 23)
    days = _field(words[2], "day of the month", 1, 31)
    months = _field(words[3], "month", 1, 12, _MONTHS)
    weekdays = frozenset(day % 7 for day in _field(words[4], "day of the week", 0, 7, _WEEKDAYS))
    either = not words[2].startswith("*") and not words[4].startswith("*")
    cron = Cron(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, either, zone)
    msgspec.structs.replace(cron, zone=UTC).after(0.0)
    return cron


def _field(text: str, name: str, first: int, last: int, words: tuple[str, ...] = ()) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise UsageError(f"{part[:100]!r} is no {name} of a cron expression")
        star, low_word, high_word, step_word = found.groups()
        low = first if star else _value(low_word, name, first, last, words)
        high = _value(high_word, name, first, last, words) if high_word else low
        if star or (step_word and not high_word):
            high = last
        step = int(step_word or 1)
        if low > high or not step:
            raise UsageError(f"{part[:100]!r} is no {name} of a cron expression: it has no values")
        values.update(range(low, high + 1, step))
    return frozenset(values)


def _value(word: str, name: str, first: int, last: int, words: tuple[str, ...]) -> int:
    if word.lower() in words:
        return words.index(word.lower()) + first
    if not word.isdigit() or not first <= int(word) <= last:
        raise UsageError(f"{word[:100]!r} is no {name} of a cron expression: {first} to {last}")
    return int(word)
