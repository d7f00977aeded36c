"""A run's report as one HTML page: self-contained, without scripts, readable from a file. Pure.

Failures come first; then the totals, what waited for what at each host, what the images share, and every
image. All text from registries and people is escaped, and its control characters are made visible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from blobflow.cli.output.dedup_stats import DedupStats, collect_dedup_stats
from blobflow.cli.output.timeline import RangeSpan, StepSpan
from blobflow.cli.output.units import count_text, one_line, seconds_text, short_digest, size_text

if TYPE_CHECKING:
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.results.report import Report

# More bars than this a host nobody can tell apart; the longest are shown.
_BARS = 1500
_ROWS = 20  # of tables that are about the largest, or the longest
_WIDTH, _LANE = 1000, 12  # of the drawings, in their own units

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}
body{color:#1c2330;background:#fff}
h1{font-size:1.4em}h2{font-size:1.15em;margin:2em 0 .4em}h3{font-size:1em;margin:1.2em 0 .2em}
table{border-collapse:collapse;width:100%}td,h3,li{unicode-bidi:isolate}
td,th{text-align:left;padding:.2em .8em .2em 0;
border-bottom:1px solid #dde2ea;vertical-align:top;overflow-wrap:anywhere}
td.n,th.n{text-align:right;white-space:nowrap}code{font-size:.9em}.quiet{color:#56627a}
#failures{border-left:4px solid #b3261e;padding-left:1em}.failed{color:#b3261e}
svg{width:100%;height:auto;background:#f4f6f9}svg text{font:10px system-ui,sans-serif;fill:#56627a}
.wait{fill:#d5dbe6}.copy{fill:#2f6fdb}.mount{fill:#2a9d63}.put{fill:#8a63d2}.attach{fill:#8a63d2}
.refused{fill:#d9a400}.bad{fill:#b3261e}.key span{padding:0 .5em;margin-right:1em;color:#fff}
""".strip()


def render_html_report(
    report: Report,
    spans: Sequence[StepSpan] = (),
    planned: Planned | None = None,
    ranges: Sequence[RangeSpan] = (),
) -> str:
    """The whole page. `spans`: the steps in time; `planned`: the plan, if the run got that far; `ranges`: of
    blobs that were read by several at once."""
    failed = sum(image.status == "failed" for image in report.images)
    title = f"blobflow: {count_text(len(report.images), 'image')}, {failed} failed"
    sections = [
        _failures(report, spans),
        _totals(report),
        _timeline(spans, ranges),
        _sharing(collect_dedup_stats(planned)) if planned is not None else "",
        _images(report),
        _notes(report),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src'
            " 'unsafe-inline'\">",
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
            f"<h1>{escape(title)}</h1>",
            *filter(None, sections),
            "</body></html>\n",
        ]
    )


def _text(words: object) -> str:
    return escape(one_line(str(words)))


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; a column whose head ends in `#` has figures."""
    kinds = [' class="n"' if word.endswith("#") else "" for word in head]
    heads = "".join(
        f"<th{kind}>{word.removesuffix('#')}</th>" for kind, word in zip(kinds, head, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<table id="{name}"><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table>'


def _failures(report: Report, spans: Sequence[StepSpan]) -> str:
    """Images that failed, tags that could not be removed, and steps that failed on their way."""
    rows = [
        (_text(image.source), _text(image.target), _text(image.error))
        for image in report.images
        if image.status == "failed"
    ]
    rows += [("", _text(tag.target), _text(tag.why)) for tag in report.tags if tag.status == "failed"]
    if not rows:
        return ""
    steps = [
        (
            _text(span.kind),
            f"<code>{_text(short_digest(span.digest))}</code>",
            _text(span.target),
            _text(span.error),
        )
        for span in spans
        if span.end == "failed"
    ]
    below = "<h3>Steps that failed</h3>" + _table("failed-steps", ("Step", "What", "Where", "Why"), steps)
    return (
        '<section id="failures"><h2 class="failed">Failures</h2>'
        + _table("failed-images", ("Source", "Target", "Why"), rows)
        + (below if steps else "")
        + "</section>"
    )


def _totals(report: Report) -> str:
    totals = report.totals
    copied, mounted, present = totals.blobs_copied, totals.blobs_mounted, totals.blobs_present
    statuses = [image.status for image in report.images]
    figures = {
        "Images": f"{len(statuses)}: "
        + ", ".join(f"{statuses.count(s)} {s}" for s in ("done", "present", "failed", "skipped")),
        "Blobs": f"{copied} copied, {mounted} mounted, {present} present",
        "Manifests": f"{totals.manifests_put} put",
        "Read": size_text(totals.bytes_read),
        "Written": size_text(totals.bytes_written),
        "Requests": str(totals.requests),
        "Took": seconds_text(totals.seconds),
    }
    if totals.audited or totals.incomplete:
        incomplete = count_text(totals.incomplete, "image")
        figures["Audited"] = f"{count_text(totals.audited, 'root')}, {incomplete} incomplete"
    rows = [(name, escape(value)) for name, value in figures.items()]
    targets = [
        (
            _text(each.target),
            *map(str, (each.done, each.present, each.failed, each.skipped)),
            *map(str, (each.blobs_copied, each.blobs_mounted)),
            size_text(each.bytes_written),
        )
        for each in report.targets
    ]
    head = ("Target", "Done#", "Present#", "Failed#", "Skipped#", "Copied#", "Mounted#", "Written#")
    both = _table("totals", ("", ""), rows) + _table("targets", head, targets)
    return f"<section><h2>Totals</h2>{both}</section>"


# The timeline


def _timeline(spans: Sequence[StepSpan], ranges: Sequence[RangeSpan]) -> str:
    if not spans:
        return ""
    end = max(span.ended for span in spans) or 1.0
    hosts: defaultdict[str, list[StepSpan]] = defaultdict(list)
    for span in spans:
        hosts[span.registry].append(span)
    key = "".join(
        f'<span style="background:{color}">{word}</span>'
        for word, color in (
            ("copied", "#2f6fdb"),
            ("mounted", "#2a9d63"),
            ("manifest", "#8a63d2"),
            ("mount refused", "#d9a400"),
            ("failed", "#b3261e"),
        )
    )
    drawings = "".join(f"<h3>{_text(host)}</h3>{_drawing(host, own, end)}" for host, own in hosts.items())
    return (
        f'<section><h2>Timeline</h2><p class="key">{key}</p><p class="quiet">A row is a place at the host. '
        "Grey: the step was ready, and waited for it. Rest the pointer on a bar to see how long, and which "
        f"step it came after.</p>{drawings}{_range_lanes(ranges, end)}{_longest(spans)}</section>"
    )


def assign_lanes(spans: Iterable[StepSpan]) -> list[tuple[int, float, StepSpan]]:
    """Assign each span to the first free lane, so that none overlap.

    Returns each span with its lane and the second when that became free: from then on the drawing has space
    for the span's waiting.
    """
    free: list[float] = []
    placed = []
    for span in sorted(spans, key=lambda each: (each.began, each.step)):
        lane = next((number for number, until in enumerate(free) if until <= span.began), len(free))
        if lane == len(free):
            free.append(0.0)
        placed.append((lane, free[lane], span))
        free[lane] = span.ended
    return placed


def _drawing(host: str, spans: Sequence[StepSpan], end: float) -> str:
    shown = sorted(spans, key=lambda span: span.began - span.ended)[:_BARS]
    placed = assign_lanes(shown)
    height = (max(lane for lane, _, _ in placed) + 1) * _LANE + 14
    bars = "\n".join(_bar(lane, free, span, _WIDTH / end) for lane, free, span in placed)
    left = len(spans) - len(shown)
    more = f'<p class="quiet">{left} shorter ones are not drawn.</p>' if left else ""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Timeline of {_text(host)}">\n{bars}\n'
        f'<text x="2" y="{height - 3}">0 s</text>'
        f'<text x="{_WIDTH - 2}" y="{height - 3}" text-anchor="end">{seconds_text(end)}</text></svg>{more}'
    )


def _bar(lane: int, free: float, span: StepSpan, scale: float) -> str:
    kind = "bad" if span.end in ("failed", "cut") else "refused" if span.end == "refused" else span.kind
    top, ready, began = lane * _LANE + 1, max(span.ready, free) * scale, span.began * scale
    width = max((span.ended - span.began) * scale, 0.5)
    wait = ""
    if began - ready >= 0.5:
        wait = (
            f'<rect class="wait" x="{ready:.1f}" y="{top}" width="{began - ready:.1f}" height="{_LANE - 2}"/>'
        )
    return (
        f'<g><title>{_span_title(span)}</title>{wait}<rect class="{escape(kind)}" x="{began:.1f}" y="{top}" '
        f'width="{width:.1f}" height="{_LANE - 2}"/></g>'
    )


def _span_title(span: StepSpan) -> str:
    """A span in one line, as the tool tip of its bar."""
    what = f"{span.kind} {short_digest(span.digest)}, {size_text(span.size)}"
    parts = [
        f"step {span.step}: {what}, to {span.target}",
        f"{seconds_text(span.began)} to {seconds_text(span.ended)}, {span.end}",
    ]
    if span.waited_for is not None:
        parts.append(f"after step {span.waited_for}")
    if span.began > span.ready:
        parts.append(f"waited {seconds_text(span.began - span.ready)} for a place")
    if span.error:
        parts.append(span.error)
    return _text("; ".join(parts))


def _range_lanes(ranges: Sequence[RangeSpan], end: float) -> str:
    """The blobs that were read by several ranges at once: a row is a lane of one."""
    blobs: defaultdict[tuple[str, str], list[RangeSpan]] = defaultdict(list)
    for each in ranges[:_BARS]:
        blobs[each.host, each.digest].append(each)
    drawings = "".join(_lanes_of(*blob, own, end) for blob, own in blobs.items())
    return f'<div id="ranges">{drawings}</div>' if blobs else ""


def _lanes_of(host: str, digest: str, ranges: Sequence[RangeSpan], end: float) -> str:
    height = max(each.lane for each in ranges) * _LANE + 2
    bars = "\n".join(
        f"<g><title>{size_text(each.size)} from byte {each.offset} on; {seconds_text(each.began)} to "
        f'{seconds_text(each.ended)}</title><rect class="copy" x="{each.began * _WIDTH / end:.1f}" '
        f'y="{(each.lane - 1) * _LANE + 1}" width="{(each.ended - each.began) * _WIDTH / end:.1f}" '
        f'height="{_LANE - 2}"/></g>'
        for each in ranges
    )
    what = f"{_text(short_digest(digest))} from {_text(host)}, by ranges"
    return (
        f'<h3>{what}</h3><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{what}">\n{bars}</svg>'
    )


def _longest(spans: Sequence[StepSpan]) -> str:
    rows = [
        (
            str(span.step),
            f"{_text(span.kind)} <code>{_text(short_digest(span.digest))}</code>",
            _text(span.target),
            size_text(span.size),
            seconds_text(span.began - span.ready),
            "" if span.waited_for is None else str(span.waited_for),
            seconds_text(span.ended - span.began),
        )
        for span in sorted(spans, key=lambda each: each.began - each.ended)[:_ROWS]
    ]
    head = ("Step#", "What", "Where", "Size#", "Waited for a place#", "After step#", "Took#")
    return "<h3>What took longest</h3>" + _table("longest", head, rows)


# Sharing, images, notes


def _sharing(sharing: DedupStats) -> str:
    if not sharing.images:
        return ""
    images = [
        (
            _text(each.image),
            str(each.blobs),
            size_text(each.size),
            size_text(each.shared),
            f"{_text(each.most_with)} ({size_text(each.most)})" if each.most_with else "",
        )
        for each in sharing.images
    ]
    blobs = [
        (f"<code>{_text(each.digest)}</code>", size_text(each.size), str(each.images), size_text(each.spared))
        for each in sharing.blobs[:_ROWS]
    ]
    unread = (
        f" {count_text(sharing.unread, 'image')} known to be whole were not read." if sharing.unread else ""
    )
    head = ("Image", "Blobs#", "Size#", "Shared#", "Most of it with")
    below = "<h3>Blobs of several images</h3>" + _table(
        "shared-blobs", ("Blob", "Size#", "Images#", "Spared#"), blobs
    )
    return (
        f'<section><h2>Sharing</h2><p id="sharing">The images name {size_text(sharing.named)}; each blob '
        f"once, that is {size_text(sharing.unique)}.{unread}</p>{_table('shares', head, images)}"
        f"{below if blobs else ''}</section>"
    )


def _images(report: Report) -> str:
    rows = [
        (
            _text(image.source),
            _text(image.target),
            f'<span class="{image.status}">{image.status}</span>',
            f"<code>{_text(short_digest(image.digest))}</code>" if image.digest else "",
            _text(image.reason or ", ".join(image.platforms)),
        )
        for image in sorted(report.images, key=lambda image: image.status != "failed")
    ]
    head = ("Source", "Target", "Status", "Digest", "Platforms")
    return f"<section><h2>Images</h2>{_table('images', head, rows)}</section>"


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>"
