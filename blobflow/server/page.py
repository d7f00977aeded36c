"""The page at `/`: HTML for a person, without scripts. Pure; everything that others chose is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from blobflow.server.overview import ImageShown, RepositoryShown, Shown, TagShown, UpstreamShown

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1c2330}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:2em 0 .3em}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid #dde2ea;vertical-align:top}"
    "td.n,th.n{text-align:right;white-space:nowrap}code{font-size:.9em;color:#56627a}p.s{color:#56627a;margin:0}"
)
_UNITS = ("kB", "MB", "GB", "TB", "PB")


def render(shown: Shown) -> str:
    """The whole document."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><title>blobflow registry</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        "<h1>blobflow registry</h1>",
        _summary(shown),
        _upstreams(shown.upstreams),
        *map(_repository, shown.repositories),
    ]
    if not shown.repositories:
        parts.append("<p>There is nothing here yet.</p>")
    if shown.following:
        parts.append(f'<p><a href="?last={quote(shown.following, safe="")}" rel="next">More</a></p>')
    parts.append("</body></html>\n")
    return "\n".join(filter(None, parts))


def _summary(shown: Shown) -> str:
    spared = max(shown.served - shown.size, 0)
    return (
        f'<p id="summary">{shown.blobs} blobs and manifests, {size(shown.size)} on disk; '
        f"the repositories hold {size(shown.served)}, of which sharing spares {size(spared)}.</p>"
    )


def _upstreams(upstreams: Iterable[UpstreamShown]) -> str:
    rows = [
        f'<tr><td>{escape(each.host)}</td><td class="n">{each.asked}</td><td class="n">{each.hits}</td>'
        f'<td class="n">{percent(each.hits, each.asked)}</td><td class="n">{size(each.bytes_read)}</td></tr>'
        for each in upstreams
    ]
    if not rows:
        return ""
    head = "".join(f'<th class="n">{word}</th>' for word in ("Asked", "Held", "Hit rate", "Read there"))
    return f'<table id="upstreams"><tr><th>Upstream</th>{head}</tr>{"".join(rows)}</table>'


def _repository(shown: RepositoryShown) -> str:
    share = shown.share
    text = (
        f'<h2>{escape(share.repository)}</h2><p class="s">{share.items} blobs and manifests, '
        f"{size(share.size)}, {size(share.shared)} of it shared with other repositories</p>"
    )
    if shown.tags:
        head = '<tr><th>Tag</th><th>Digest</th><th>Images</th><th class="n">Size</th></tr>'
        text += f"<table>{head}{''.join(map(_tag, shown.tags))}</table>"
    if shown.more_tags:
        text += '<p class="s">and more tags</p>'
    return text


def _tag(shown: TagShown) -> str:
    images = "<br>".join(map(_image, shown.images)) or "not here"
    return (
        f"<tr><td>{escape(shown.tag)}</td><td><code>{escape(shown.digest[:19])}</code></td>"
        f'<td>{images}</td><td class="n">{size(shown.size)}</td></tr>'
    )


def _image(shown: ImageShown) -> str:
    here = size(shown.size) if shown.size is not None else "not here"
    return f"{escape(shown.platform or 'one image')}: {here}"


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
