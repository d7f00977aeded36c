"""The timeline of a run as drawings (SVG): a row is a place at a host, a bar a step. What each worker of an
engine did there is in a drawing of its own. Pure.

Whoever can't see or point at a drawing has the same in the table of what took longest, and in the titles.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from blobflow.cli.output.timeline import RangeSpan, StepSpan
from blobflow.cli.output.units import one_line, seconds_text, short_digest, size_text

# More bars than this a host nobody can tell apart; the longest are shown.
_BARS = 1500
_FEWEST_BARS = 50  # where many workers share a host's
_WIDTH, _LANE = 1000, 12  # of the drawings, in their own units
_KEY = (
    ("copy", "copied"),
    ("mount", "mounted"),
    ("put", "manifest"),
    ("refused", "mount refused"),
    ("bad", "failed"),
    ("wait", "ready, and waited for a place"),
)

TIMELINE_STYLE = (
    "svg{width:100%;height:auto;background:var(--panel)}svg text{font:10px system-ui,sans-serif;"
    "fill:var(--quiet)}.key span{white-space:nowrap;margin-right:1.2em}"
    ".key svg{width:.9em;height:.9em;vertical-align:-.1em;margin-right:.3em}"
    ".wait{fill:var(--wait)}.copy{fill:var(--copy)}.mount{fill:var(--mount)}.put,.attach,.backup{fill:var(--put)}"
    ".refused{fill:var(--refused)}.bad{fill:var(--bad)}"
)


def draw_timeline(spans: Sequence[StepSpan], ranges: Sequence[RangeSpan]) -> str:
    """The key and a drawing for each host; `ranges`: of blobs that were read by several at once."""
    end = max(span.ended for span in spans) or 1.0
    places: defaultdict[tuple[str, str], list[StepSpan]] = defaultdict(list)
    for span in spans:
        places[span.registry, span.worker].append(span)
    workers = Counter(host for host, worker in places if worker)
    key = "".join(
        f'<span><svg viewBox="0 0 9 9" aria-hidden="true"><rect class="{kind}" width="9" height="9"/></svg>'
        f"{word}</span> "
        for kind, word in _KEY
    )
    drawings = "".join(
        _drawing(f"{host}, by worker {worker}" if worker else host, own, end, _BARS // max(1, workers[host]))
        for (host, worker), own in sorted(places.items(), key=_by_worker)
    )
    return (
        f'<p class="key">{key}</p><p class="q">A row is a place at the host. Rest the pointer on a bar to '
        f"see how long it took, and which step it came after.</p>{drawings}{_range_lanes(ranges, end)}"
    )


def _by_worker(place: tuple[tuple[str, str], list[StepSpan]]) -> str:
    """Hosts and this process stay in the order in which they came."""
    return place[0][1]


def _text(words: object) -> str:
    return escape(one_line(str(words)))


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


def _drawing(where: str, spans: Sequence[StepSpan], end: float, bars: int) -> str:
    """What was done at a host, with at least a few bars."""
    shown = sorted(spans, key=lambda span: span.began - span.ended)[: max(bars, _FEWEST_BARS)]
    placed = assign_lanes(shown)
    height = (max(lane for lane, _, _ in placed) + 1) * _LANE + 14
    drawn = "\n".join(_bar(lane, free, span, _WIDTH / end) for lane, free, span in placed)
    left = len(spans) - len(shown)
    more = f'<p class="q">{left} shorter ones are not drawn.</p>' if left else ""
    return (
        f"<h3>{_text(where)}</h3>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Timeline of {_text(where)}">\n{drawn}\n'
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
    if span.worker:
        parts.append(f"by worker {span.worker}")
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
