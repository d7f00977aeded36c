"""The page at `/`: HTML for people, without scripts. Pure; whatever clients chose is escaped and bounded, and
its control characters and marks of direction become visible."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from blobflow.printable import printable
from blobflow.server.admin.overview import (
    ImageRow,
    OverviewRows,
    RenderedPage,
    RepositoryRow,
    TagRow,
    UpstreamRow,
)
from blobflow.transports.store.stats import StoreStats

# Characters of a name that are shown: a repository's has 255 at most, a tag's 128; of a platform.
_NAME = 255
_PLATFORM = 80

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1c2330}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:2em 0 .3em}table{border-collapse:collapse;width:100%}"
    "h2,td{unicode-bidi:isolate}"
    "th,td{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid #dde2ea;vertical-align:top}"
    "td.n,th.n{text-align:right;white-space:nowrap}code{font-size:.9em;color:#56627a}p.s{color:#56627a;margin:0}"
)
_UNITS = ("kB", "MB", "GB", "TB", "PB")


def render(shown: OverviewRows) -> RenderedPage:
    """The whole document, but for its age: see `with_age`."""
    head = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>blobflow registry</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        "<h1>blobflow registry</h1>",
        _summary(shown.stats),
    ]
    parts = [_upstreams(shown.upstreams), *map(_repository, shown.repositories)]
    if not shown.repositories:
        parts.append("<p>There is nothing here yet.</p>")
    if shown.following:
        following = quote(shown.following, safe="", errors="replace")
        parts.append(f'<p><a href="?last={following}" rel="next">More</a></p>')
    parts.append("</body></html>\n")
    return RenderedPage(_bytes(head), _bytes(parts))


def with_age(page: RenderedPage, age: float) -> bytes:
    """The document as it is sent; `age` in seconds."""
    return b'%s<p class="s" id="age">As of %d s ago.</p>\n%s' % (page.head, age, page.tail)


def _bytes(parts: Iterable[str]) -> bytes:
    return "".join(f"{part}\n" for part in parts if part).encode("utf-8")


def _text(words: str, most: int = _NAME) -> str:
    return escape(printable(words, most))


def _summary(stats: StoreStats | None) -> str:
    if stats is None:
        return ""
    spared = max(stats.served - stats.size, 0)
    return (
        f'<p id="summary">{stats.blobs} blobs and manifests, {size(stats.size)} on disk; '
        f"the repositories hold {size(stats.served)}, of which sharing spares {size(spared)}.</p>"
    )


def _upstreams(upstreams: Iterable[UpstreamRow]) -> str:
    rows = [
        f'<tr><td>{_text(each.host)}</td><td class="n">{each.asked}</td><td class="n">{each.hits}</td>'
        f'<td class="n">{percent(each.hits, each.asked)}</td><td class="n">{size(each.bytes_read)}</td></tr>'
        for each in upstreams
    ]
    if not rows:
        return ""
    head = "".join(f'<th class="n">{word}</th>' for word in ("Asked", "Held", "Hit rate", "Read there"))
    return f'<table id="upstreams"><tr><th>Upstream</th>{head}</tr>{"".join(rows)}</table>'


def _repository(shown: RepositoryRow) -> str:
    share = shown.share
    text = f"<h2>{_text(shown.name)}</h2>"
    if share is not None:
        shared = f", {size(share.shared)} of it shared with other repositories" if shown.shared else ""
        text += f'<p class="s">{share.items} blobs and manifests, {size(share.size)}{shared}</p>'
    if shown.tags:
        head = '<tr><th>Tag</th><th>Digest</th><th>Images</th><th class="n">Size</th></tr>'
        text += f"<table>{head}{''.join(map(_tag, shown.tags))}</table>"
    if shown.more_tags:
        text += '<p class="s">and more tags</p>'
    return text


def _tag(shown: TagRow) -> str:
    lines = [*map(_image, shown.images)]
    if shown.more:
        lines.append(f"and {shown.more} more" if lines else f"{shown.more} images")
    images = "<br>".join(lines) or ("not looked into" if shown.unread else "not here")
    amount = "" if shown.unread or (shown.more and not shown.images) else size(shown.size)
    if amount and shown.at_least:
        amount = f"at least {amount}"
    return (
        f"<tr><td>{_text(shown.tag)}</td><td><code>{_text(shown.digest[:19])}</code></td>"
        f'<td>{images}</td><td class="n">{amount}</td></tr>'
    )


def _image(shown: ImageRow) -> str:
    here = size(shown.size) if shown.size is not None else "not here"
    if shown.at_least:
        here = f"at least {here}"
    return f"{_text(shown.platform or 'one image', _PLATFORM)}: {here}"


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def size(count: int) -> str:
    """Bytes in powers of ten."""
    amount = float(count)
    if amount < 1000:
        return f"{count} B"
    for unit in _UNITS:
        amount /= 1000
        if amount < 999.5 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"
