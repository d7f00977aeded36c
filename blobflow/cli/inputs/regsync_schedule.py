"""When regsync's entries are due, as the options of a `blobflow sync` that does the same. Pure.

regsync's server keeps a schedule for each entry: an interval as Go writes it (1h30m0s), or a cron
expression, or a shorthand of its cron library (@daily, @every 90m, with CRON_TZ= in front). A blobflow
process has one schedule.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from blobflow.cli.inputs.yaml_nodes import lines_text
from blobflow.cli.runtime.cron import parse_cron, parse_interval
from blobflow.errors import UsageError

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+")
_SHOWN = 3  # schedules


def schedule_hint(name: str, times: Sequence[tuple[int, str, str]]) -> str:
    """A sentence with the command that keeps the file's schedule; "" if it has none.

    `times`: of each entry its line, and its `interval` or its `schedule`, or neither. `name` is the file.
    """
    lines: dict[str, list[int]] = {}
    unread: dict[str, list[int]] = {}
    for line, interval, schedule in times:
        if interval or schedule:
            try:
                lines.setdefault(_command(name, interval, schedule), []).append(line)
            except UsageError as error:
                unread.setdefault(str(error), []).append(line)
    said = []
    if len(lines) == 1 and len(lines[command := next(iter(lines))]) == len(times):
        said = [f"is kept by `{command}`"]
    elif lines:
        parts = [f"`{command}` ({lines_text(at)})" for command, at in lines.items()]
        more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        one = "" if len(lines) == 1 else "; one process keeps one of them"
        said = [f"is kept by {', '.join(parts[:_SHOWN])}{more}{one}"]
    if unread:
        wrong = [f"{why} ({lines_text(at)})" for why, at in unread.items()]
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        said.append(f"can't be read: {', '.join(wrong[:_SHOWN])}{more}")
    return f"{name}: this runs once; its `interval` or `schedule` {'; or '.join(said)}" if said else ""


def _command(name: str, interval: str, schedule: str) -> str:
    """The command for an entry. Raises UsageError for what can't be read."""
    words = ["blobflow", "sync", name]
    if not schedule:
        return shlex.join([*words, "--every", _to_interval(interval)])
    zone, text = "", schedule
    if found := _ZONE.match(schedule):
        zone, text = f"TZ={shlex.quote(found[1])} ", schedule[found.end() :]
    if text.startswith("@every "):
        return zone + shlex.join([*words, "--every", _to_interval(text.removeprefix("@every "))])
    cron = " ".join("*" if field == "?" else field for field in text.split())
    parse_cron(cron)
    return zone + shlex.join([*words, "--cron", cron])


def _to_interval(text: str) -> str:
    """An interval of Go's as `--every` takes it, unchanged if possible. Raises UsageError."""
    text = text.strip()
    parts = _GO_SPAN.findall(text)
    if not parts or "".join(amount + unit for amount, unit in parts) != text:
        raise UsageError(f"{text[:100]!r} is no span of time")
    try:
        parse_interval(text)
    except UsageError:
        seconds = round(sum(float(amount) * _GO_UNITS[unit] for amount, unit in parts))
        if not seconds:
            raise UsageError(f"{text[:100]!r} is too short; a second is the least") from None
        parse_interval(text := f"{seconds}s")
    return text
