"""When regsync's entries are due. Pure.

regsync's server keeps a schedule for each entry: an interval as Go writes it (1h30m0s), or a cron
expression, or a shorthand of its cron library (@daily, @every 90m, with CRON_TZ= in front). So does
`sync --every spec`; a single run ignores them, and says so.
"""

from __future__ import annotations

import re
import shlex

from blobflow.cli.inputs.yaml_nodes import lines_text
from blobflow.cli.runtime.cron import Interval, Schedule, parse_cron, parse_interval
from blobflow.errors import InvalidConfig, UsageError

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+")
_SHOWN = 3  # schedules that can't be read


class EntryTimes:
    """The times of a file's entries. `name` is what it is called in sentences."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._timed = False
        self._unread: dict[str, list[int]] = {}

    def read(self, line: int, interval: str, schedule: str) -> Schedule | None:
        """The schedule of the entry in this line; None if it has none, or one that can't be read, which
        matters only to who keeps it."""
        if not (interval or schedule):
            return None
        self._timed = True
        try:
            return _schedule(interval, schedule)
        except UsageError as error:
            self._unread.setdefault(str(error), []).append(line)
            return None

    @property
    def unread(self) -> tuple[str, ...]:
        """A sentence for each way in which schedules can't be read, with its lines."""
        return tuple(f"{self._name} {lines_text(at)}: {why}" for why, at in self._unread.items())

    @property
    def hint(self) -> str:
        """A sentence with the command that keeps the file's schedules; "" if it has none."""
        if not self._timed:
            return ""
        wrong = [f"{why} ({lines_text(at)})" for why, at in self._unread.items()]
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        unread = f"; some can't be read: {', '.join(wrong[:_SHOWN])}{more}" if wrong else ""
        command = shlex.join(["blobflow", "sync", self._name, "--every", "spec"])
        return (
            f"{self._name}: this runs once; `interval` and `schedule` are kept, each entry's own, by"
            f" `{command}`{unread}"
        )


def _schedule(interval: str, schedule: str) -> Schedule:
    """The schedule of an entry. Raises UsageError for what can't be read."""
    if not schedule:
        return Interval(_seconds(interval), 0)
    zone, text = None, schedule
    if found := _ZONE.match(schedule):
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # which looks for the system's zones

        try:
            zone = ZoneInfo(found[1])
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidConfig(f"{found[1][:100]!r} is no zone of time that is known here") from None
        text = schedule[found.end() :]
    if text.startswith("@every "):
        return Interval(_seconds(text.removeprefix("@every ")), 0)
    return parse_cron(" ".join("*" if field == "?" else field for field in text.split()), zone)


def _seconds(text: str) -> float:
    """An interval of Go's, in seconds. Raises UsageError."""
    text = text.strip()
    parts = _GO_SPAN.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise UsageError(f"{text[:100]!r} is no span of time")
    try:
        return parse_interval(text)
    except UsageError:
        seconds = round(sum(float(amount) * _GO_UNITS[unit] for amount, unit in parts))
        if not seconds:
            raise UsageError(f"{text[:100]!r} is too short; a second is the least") from None
        return float(seconds)
