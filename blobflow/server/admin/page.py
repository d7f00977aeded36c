"""The page at `/`: HTML for people, without scripts. Pure; whatever clients chose is escaped and bounded, and
its control characters and marks of direction become visible."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from blobflow.page_style import NARROW, page_head, page_text
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
# With more repositories on a page than this, their tags are folded away until somebody wants to see them.
_UNFOLDED = 12

# What a cell is, where a row is a card: see `NARROW`.
_STYLE = (
    f"@media(max-width:{NARROW - 1}px){{"
    + "".join(
        f'{table} td:nth-child({number})::before{{content:"{word}: ";color:var(--quiet)}}'
        for table, words in (
            ("table.tags", ("Tag", "Digest", "Images", "Size")),
            ("#upstreams", ("Upstream", "Asked", "Held", "Hit rate", "Read there")),
        )
        for number, word in enumerate(words, 1)
    )
    + "}.s{color:var(--quiet);margin:.2em 0}section{margin:1.1em 0 0}section h2{display:inline}"
    "section>.s{display:inline;margin:0 0 0 .8em}details table{margin:.2em 0 1em}"
)
_UNITS = ("kB", "MB", "GB", "TB", "PB")


def render(shown: OverviewRows) -> RenderedPage:
    """The whole document, but for its age: see `with_age`."""
    head = [
        page_head("blobflow registry"),
        f"<style>{_STYLE}</style></head><body>",
        "<header><h1>blobflow registry</h1>",
        _summary(shown.stats),
    ]
    parts = ["</header><main>", _upstreams(shown.upstreams)]
    if shown.repositories or shown.find or shown.before != 0 or shown.following:
        parts += [_filter(shown), _where(shown)]
    folded = len(shown.repositories) > _UNFOLDED
    parts += [_repository(each, folded=folded) for each in shown.repositories]
    if not shown.repositories:
        parts.append(f"<p>{_nothing(shown)}</p>")
    parts += [_links(shown), "</main></body></html>\n"]
    return RenderedPage(_bytes(head), _bytes(parts))


def _nothing(shown: OverviewRows) -> str:
    if not shown.find:
        return "There is nothing here yet." if shown.before == 0 and not shown.following else "None here."
    return f"No repository with {_text(shown.find)} in its name" + (" up to here." if shown.at_least else ".")


def _filter(shown: OverviewRows) -> str:
    """A form that works without scripts: the server chooses."""
    return (
        '<form method="get" role="search"><label for="find">Repositories with</label>'
        f'<input id="find" name="find" type="search" maxlength="{_NAME}" value="{_value(shown.find)}">'
        "<button>in their names</button></form>"
    )


def _where(shown: OverviewRows) -> str:
    """Which of the repositories these are."""
    if not shown.repositories:
        return ""
    if shown.before is None:
        return '<p class="s" id="where">further on</p>'
    total = f"more than {shown.total}" if shown.at_least else str(shown.total)
    first, last = shown.before + 1, shown.before + len(shown.repositories)
    kind = "repository" if shown.total == 1 else "repositories"
    span = f"{first} to {last} of " if len(shown.repositories) < shown.total or shown.at_least else ""
    return f'<p class="s" id="where">{span}{total} {kind}</p>'


def _links(shown: OverviewRows) -> str:
    """To the pages beside this one."""
    links = []
    if shown.following:
        links.append(f'<a href="{_query(shown.following, shown.find)}" rel="next">Next</a>')
    if shown.previous is not None:
        links.append(f'<a href="{_query(shown.previous, shown.find)}" rel="prev">Previous</a>')
    if shown.previous:
        links.append(f'<a href="{_query("", shown.find)}">First</a>')
    return f'<nav aria-label="Pages">{" ".join(links)}</nav>' if links else ""


def _query(last: str, find: str) -> str:
    words = {"last": last, "find": find}
    query = "&amp;".join(
        f"{name}={quote(value, safe='', errors='replace')}" for name, value in words.items() if value
    )
    return f"?{query}"


def with_age(page: RenderedPage, age: float) -> bytes:
    """The document as it is sent; `age` in seconds."""
    return b'%s<p class="s" id="age">As of %d s ago.</p>\n%s' % (page.head, age, page.tail)


def _bytes(parts: Iterable[str]) -> bytes:
    return "".join(f"{part}\n" for part in parts if part).encode("utf-8")


def _text(words: str, most: int = _NAME) -> str:
    return page_text(words, most)


def _value(words: str, most: int = _NAME) -> str:
    """Words in an attribute."""
    return escape(printable(words, most))


def _summary(stats: StoreStats | None) -> str:
    if stats is None:
        return ""
    spared = max(stats.served - stats.size, 0)
    return (
        f'<p id="summary">{_items(stats.blobs)}, {size(stats.size)} on disk; '
        f"the repositories hold {size(stats.served)}, of which sharing spares {size(spared)}.</p>"
    )


def _items(count: int) -> str:
    return "1 blob or manifest" if count == 1 else f"{count} blobs and manifests"


def _upstreams(upstreams: Iterable[UpstreamRow]) -> str:
    rows = [
        f'<tr><td>{_text(each.host)}</td><td class="n">{each.asked}</td><td class="n">{each.hits}</td>'
        f'<td class="n">{percent(each.hits, each.asked)}</td><td class="n">{size(each.bytes_read)}</td></tr>'
        for each in upstreams
    ]
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col" class="n">{word}</th>' for word in ("Asked", "Held", "Hit rate", "Read there")
    )
    return (
        f'<div class="wide"><table id="upstreams"><thead><tr><th scope="col">Upstream</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _repository(shown: RepositoryRow, *, folded: bool) -> str:
    share = shown.share
    text = f"<h2>{_text(shown.name)}</h2>"
    if share is not None:
        shared = f", {size(share.shared)} of it shared with other repositories" if shown.shared else ""
        text += f'<p class="s">{_items(share.items)}, {size(share.size)}{shared}</p>'
    if not shown.tags:
        return f"<section>{text}</section>"
    more = '<p class="s">and more tags</p>' if shown.more_tags else ""
    count = f"{len(shown.tags)}{'+' if shown.more_tags else ''} {'tag' if len(shown.tags) == 1 else 'tags'}"
    head = (
        '<thead><tr><th scope="col">Tag</th><th scope="col">Digest</th><th scope="col">Images</th>'
        '<th scope="col" class="n">Size</th></tr></thead>'
    )
    table = f'<table class="tags">{head}<tbody>{"".join(map(_tag, shown.tags))}</tbody></table>'
    return (
        f"<section>{text}<details{'' if folded else ' open'}><summary>{count}</summary>"
        f'<div class="wide">{table}</div>{more}</details></section>'
    )


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
    return f"{_value(shown.platform or 'one image', _PLATFORM)}: {here}"


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
