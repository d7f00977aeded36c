"""When regsync's entries are due, as the options of a `blobflow sync` that does the same. Pure.

regsync's server keeps a timetable an entry: an interval as Go writes it (1h30m0s), or a cron expression, or
a shorthand of its cron library (@daily, @every 90m, with CRON_TZ= in front). A process of ours has one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from blobflow.cli.timetable import parse_cron, parse_span
from blobflow.cli.yamlfile import lines_text
from blobflow.errors import UsageError

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+")
_SHOWN = 3  # timetables


def told_times(name: str, times: Sequence[tuple[int, str, str]]) -> str:
    """A sentence that says how to do what the file asks of the clock; "" if it asks nothing.

    `times`: of each entry its line, and its `interval` or its `schedule`, or neither. `name` is the file.
    """
    lines: dict[str, list[int]] = {}
    for line, interval, schedule in times:
        if interval or schedule:
            lines.setdefault(_command(name, interval, schedule), []).append(line)
    if not lines:
        return ""
    if len(lines) == 1 and len(lines[command := next(iter(lines))]) == len(times):
        return f"{name}: this is one pass; what it says of the clock is `{command}`"
    parts = [f"`{command}` ({lines_text(at)})" for command, at in lines.items()]
    more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    one = "" if len(lines) == 1 else "; one process has one timetable"
    return f"{name}: this is one pass; what it says of the clock is {', '.join(parts[:_SHOWN])}{more}{one}"


def _command(name: str, interval: str, schedule: str) -> str:
    """The command for an entry. What can't be read is shown as a comment behind it."""
    zone, words = "", ["blobflow", "sync", name]
    try:
        if schedule:
            found = _ZONE.match(schedule)
            zone, text = (
                (f"TZ={shlex.quote(found[1])} ", schedule[found.end() :]) if found else ("", schedule)
            )
            if text.startswith("@every "):
                words += ["--every", _span(text.removeprefix("@every "))]
            else:
                cron = " ".join("*" if field == "?" else field for field in text.split())
                parse_cron(cron)
                words += ["--cron", cron]
        else:
            words += ["--every", _span(interval)]
    except UsageError as error:
        return f"{shlex.join(words)} # {error}"
    return zone + shlex.join(words)


def _span(text: str) -> str:
    """A span of Go's in our words, which are the same where they can be. Raises UsageError."""
    text = text.strip()
    parts = _GO_SPAN.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise UsageError(f"{text[:100]!r} is no span of time")
    try:
        parse_span(text)
    except UsageError:
        seconds = round(sum(float(amount) * _GO_UNITS[unit] for amount, unit in parts))
        parse_span(text := f"{seconds}s")
    return text
