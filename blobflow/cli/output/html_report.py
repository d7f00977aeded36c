"""A run's report as one HTML page: self-contained, readable from a file, on a phone, in the dark. Pure.

Failures come first; then every image, the totals, what waited for what at each host, and what the images
share. A script narrows the tables to what is searched for; without it everything is there to be read. All
text from registries and people is escaped, and its control characters are made visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from blobflow.cli.options.command_line import command_text
from blobflow.cli.output.dedup_stats import DedupStats, collect_dedup_stats
from blobflow.cli.output.html_timeline import TIMELINE_STYLE, draw_timeline
from blobflow.cli.output.timeline import RangeSpan, StepSpan
from blobflow.cli.output.units import (
    count_text,
    one_line,
    seconds_text,
    short_digest,
    size_text,
)
from blobflow.page_style import content_policy, page_head, page_text

if TYPE_CHECKING:
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.results.report import ImageRecord, Report

_ROWS = 20  # of tables that are about the largest, or the longest

# Narrows the tables to the rows that have all words of the search. `/` goes to the box, Escape empties it.
_SCRIPT = """
(function(){
var form=document.getElementById("search"),box=form.querySelector("input"),
shown=form.querySelector("output"),
rows=Array.from(document.querySelectorAll("main tbody tr")).filter(function(row){
return !row.closest("#totals")}),
texts=rows.map(function(row){return [row.textContent].concat(Array.from(
row.querySelectorAll("[title]"),function(part){return part.title})).join(" ").toLowerCase()}),
images=rows.filter(function(row){return row.closest("#images")});
function search(){
var words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);
rows.forEach(function(row,at){
row.hidden=!words.every(function(word){return texts[at].includes(word)})});
shown.textContent=words.length?images.filter(function(row){return !row.hidden}).length+
" of "+images.length+" images":""}
form.hidden=false;
form.addEventListener("submit",function(event){event.preventDefault()});
box.addEventListener("input",search);
document.addEventListener("keydown",function(event){
if(event.key==="/"&&event.target!==box&&!event.ctrlKey&&!event.metaKey&&!event.altKey){
event.preventDefault();box.focus()}
else if(event.key==="Escape"&&event.target===box){box.value="";search()}});
if(box.value){search()}
})();
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
    title += ", ended early" if report.run.error else ""
    sections = [
        ("failures", "Failures", _failures(report, spans)),
        ("all-images", "Images", _images(report.images)),
        ("figures", "Totals", _totals(report)),
        ("timeline", "Timeline", draw_timeline(spans, ranges) + _longest(spans) if spans else ""),
        ("shared", "Sharing", _sharing(collect_dedup_stats(planned)) if planned is not None else ""),
        ("notes", "Notes", _notes(report)),
    ]
    filled = [(name, heading, body) for name, heading, body in sections if body]
    links = "".join(f'<a href="#{name}">{heading}</a> ' for name, heading, _ in filled)
    return "\n".join(
        [
            page_head(title),
            f'<meta http-equiv="Content-Security-Policy" content="{content_policy(_SCRIPT)}">',
            f"<style>{TIMELINE_STYLE}</style></head><body>",
            f"<header><h1>{page_text(title)}</h1>{_run(report)}<nav>{links}</nav>",
            '<form id="search" class="search" role="search" hidden><label for="words">Search</label>'
            '<input id="words" type="search" autocomplete="off" placeholder="name, digest, status, error">'
            '<output class="q" aria-live="polite"></output></form></header>',
            "<main>",
            *(_section(*each) for each in filled),
            f"</main><script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def _section(name: str, heading: str, body: str) -> str:
    mark = ' class="failed"' if name == "failures" else ""
    return f'<section id="{name}"><h2{mark}>{heading}</h2>{body}</section>'


def _table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; a column whose head ends in `#` has figures."""
    words = [word.removesuffix("#") for word in head]
    kinds = [' class="n"' if word.endswith("#") else "" for word in head]
    heads = "".join(f'<th scope="col"{kind}>{word}</th>' for kind, word in zip(kinds, words, strict=True))
    marks = [kind + (f' data-head="{word}"' if word else "") for kind, word in zip(kinds, words, strict=True)]
    body = "\n".join(
        "<tr>" + "".join(_cell(mark, cell) for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table id="{name}"><thead><tr>{heads}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _cell(mark: str, cell: str) -> str:
    """A cell; one whose words may be broken between lines has them whole in `data-text`, for programs."""
    whole = cell.replace("<wbr>", "")
    text = f' data-text="{whole}"' if whole != cell and "<" not in whole else ""
    return f"<td{mark}{text}>{cell}</td>"


# What run it was


def _run(report: Report) -> str:
    """When it was, what was typed, by which version, and with whom: what the report tells of that."""
    run = report.run
    hosts = [
        page_text(each.host) + (f' <span class="q">({" and ".join(each.sides)})</span>' if each.sides else "")
        for each in run.hosts
    ]
    facts = [
        ("Started", _moment(run.started)),
        ("Ended", _moment(run.ended) + _span_text(run.started, run.ended)),
        ("Command", f"<code>{page_text(command_text(run.command))}</code>" if run.command else ""),
        ("Version", page_text(f"blobflow {run.blobflow}") if run.blobflow else ""),
        ("Hosts", ", ".join(hosts)),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts if value)
    return f'<dl id="run">{rows}</dl>' if rows else ""


def _span_text(started: datetime | None, ended: datetime | None) -> str:
    return f", after {seconds_text((ended - started).total_seconds())}" if started and ended else ""


def _moment(at: datetime | None) -> str:
    if at is None:
        return ""
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S} UTC</time>'


# Failures, images, totals


def _failures(report: Report, spans: Sequence[StepSpan]) -> str:
    """What ended the run, images that failed, tags that could not be removed, and steps that failed."""
    rows = [
        (page_text(image.source), page_text(image.target), page_text(image.error))
        for image in report.images
        if image.status == "failed"
    ]
    rows += [("", page_text(tag.target), page_text(tag.why)) for tag in report.tags if tag.status == "failed"]
    ended = (
        f'<p id="ended">The run ended early: {page_text(report.run.error)}</p>' if report.run.error else ""
    )
    if not rows:
        return ended
    steps = [
        (
            page_text(span.kind),
            _digest(span.digest),
            page_text(span.target),
            page_text(span.error),
        )
        for span in spans
        if span.end == "failed"
    ]
    below = "<h3>Steps that failed</h3>" + _table("failed-steps", ("Step", "What", "Where", "Why"), steps)
    images = _table("failed-images", ("Source", "Target", "Why"), rows)
    return ended + images + (below if steps else "")


def _images(images: Sequence[ImageRecord]) -> str:
    if not images:
        return ""
    judged = any(image.signatures for image in images)
    rows = [
        (
            page_text(image.source),
            page_text(image.target),
            f'<span class="{image.status}">{image.status}</span>',
            _digest(image.digest),
            _platforms(image),
            *([_signers(image)] if judged else []),
        )
        for image in sorted(images, key=lambda image: image.status != "failed")
    ]
    columns = ("Source", "Target", "Status", "Digest", "Platforms", *(["Signed by"] if judged else []))
    return _table("images", columns, rows)


def _signers(image: ImageRecord) -> str:
    """By whom the image is signed, as far as a signature policy asked for it."""
    met = [each for verdict in image.signatures for each in verdict.acceptances]
    return ", ".join(page_text(by) for by in dict.fromkeys(each.by for each in met if each.by))


def _platforms(image: ImageRecord) -> str:
    """The platforms of an image, or why it was skipped; why it failed stands above."""
    if image.status == "skipped":
        return page_text(image.reason or image.error)
    return ", ".join(map(page_text, image.platforms))


def _digest(digest: str) -> str:
    """A digest, short; the whole is in the title, which the search looks at, too."""
    whole = escape(one_line(digest))
    return f'<code title="{whole}">{page_text(short_digest(digest))}</code>' if digest else ""


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
    targets = [
        (
            page_text(each.target),
            *map(str, (each.done, each.present, each.failed, each.skipped)),
            *map(str, (each.blobs_copied, each.blobs_mounted)),
            size_text(each.bytes_written),
        )
        for each in report.targets
    ]
    head = ("Target", "Done#", "Present#", "Failed#", "Skipped#", "Copied#", "Mounted#", "Written#")
    rows = [(name, page_text(value)) for name, value in figures.items()]
    below = _table("targets", head, targets) if targets else ""
    return _table("totals", ("", ""), rows) + below + _workers(report)


def _workers(report: Report) -> str:
    """What workers of an engine brought, if there were any."""
    rows = [
        (page_text(each.worker), str(each.copies), size_text(each.bytes), str(each.failed))
        for each in report.run.workers
    ]
    return _table("workers", ("Worker", "Blobs brought#", "Bytes#", "Failed#"), rows) if rows else ""


# Timeline, sharing, notes


def _longest(spans: Sequence[StepSpan]) -> str:
    rows = [
        (
            str(span.step),
            f"{page_text(span.kind)} {_digest(span.digest)}",
            page_text(span.target),
            size_text(span.size),
            seconds_text(span.began - span.ready),
            "" if span.waited_for is None else str(span.waited_for),
            seconds_text(span.ended - span.began),
        )
        for span in sorted(spans, key=lambda each: each.began - each.ended)[:_ROWS]
    ]
    head = ("Step#", "What", "Where", "Size#", "Waited for a place#", "After step#", "Took#")
    return "<h3>What took longest</h3>" + _table("longest", head, rows)


def _sharing(sharing: DedupStats) -> str:
    if not sharing.images:
        return ""
    images = [
        (
            page_text(each.image),
            str(each.blobs),
            size_text(each.size),
            size_text(each.shared),
            f"{page_text(each.most_with)} ({size_text(each.most)})" if each.most_with else "",
        )
        for each in sharing.images
    ]
    blobs = [
        (
            f"<code>{page_text(each.digest)}</code>",
            size_text(each.size),
            str(each.images),
            size_text(each.spared),
        )
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
        f'<p id="sharing">The images name {size_text(sharing.named)}; each blob '
        f"once, that is {size_text(sharing.unique)}.{unread}</p>{_table('shares', head, images)}"
        f"{below if blobs else ''}"
    )


def _notes(report: Report) -> str:
    items = "".join(f"<li>{page_text(note)}</li>" for note in report.notes)
    return f"<ul>{items}</ul>" if items else ""
