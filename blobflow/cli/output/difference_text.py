"""The difference between two reports as text: a line an image, then the totals. Pure: values → lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobflow.cli.output.units import count_text, one_line, seconds_text, size_text, table

if TYPE_CHECKING:
    from blobflow.engine.results.difference import ReportDifference
    from blobflow.engine.results.report import Report


def difference_lines(difference: ReportDifference, before: Report, after: Report) -> list[str]:
    """What is worse comes first."""
    lines = [
        *(f"failing: {each.source} -> {each.target}: {each.why}" for each in difference.failing),
        *(f"still failing: {each.source} -> {each.target}: {each.why}" for each in difference.still_failing),
        *(f"mended: {each.source} -> {each.target}" for each in difference.mended),
        *(
            f"changed: {each.source} -> {each.target}: was {each.before or 'nothing'}, "
            f"is {each.after or 'nothing'}"
            for each in difference.changed
        ),
        *(f"added: {name}" for name in difference.added),
        *(f"gone: {name}" for name in difference.gone),
    ]
    if not lines:
        lines = [f"the same {count_text(len(after.images), 'image')}, and the same became of them"]
    return [*map(one_line, lines), "", *_totals(before, after)]


def _totals(before: Report, after: Report) -> list[str]:
    old, new = before.totals, after.totals
    rows = [
        ("began", _moment(before), _moment(after), ""),
        ("images", str(old.images), str(new.images), _more(old.images, new.images)),
        ("failed", str(old.failed), str(new.failed), _more(old.failed, new.failed)),
        ("skipped", str(old.skipped), str(new.skipped), _more(old.skipped, new.skipped)),
        (
            "read",
            size_text(old.bytes_read),
            size_text(new.bytes_read),
            _times(old.bytes_read, new.bytes_read),
        ),
        (
            "written",
            size_text(old.bytes_written),
            size_text(new.bytes_written),
            _times(old.bytes_written, new.bytes_written),
        ),
        ("requests", str(old.requests), str(new.requests), _times(old.requests, new.requests)),
        ("took", seconds_text(old.seconds), seconds_text(new.seconds), _times(old.seconds, new.seconds)),
    ]
    return table(rows)


def _moment(report: Report) -> str:
    started = report.run.started
    return f"{started:%Y-%m-%d %H:%M:%S} UTC" if started else "not told"


def _more(old: int, new: int) -> str:
    return f"{new - old:+d}" if new != old else ""


def _times(old: float, new: float) -> str:
    """How many times as much, where that says something."""
    return f"x {new / old:.2f}" if old and new and new != old else ""
