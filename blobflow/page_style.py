"""How our pages look, and how names of others stand on them: for the page of a run and that of the registry.

The pages are complete in themselves: no font, style or script comes from elsewhere. They follow the reader's
choice of dark or light, are read from a phone's width on, and work by keyboard and without scripts.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

from blobflow.printable import LONGEST, printable

# Text has the contrast that WCAG 2.2 asks for at level AA, 4.5 to 1, in both schemes; a test measures it.
COLORS = {
    "light": {
        "text": "#1c2330",
        "back": "#ffffff",
        "quiet": "#525d73",
        "line": "#d9dfe8",
        "panel": "#f4f6f9",
        "link": "#1f5fc4",
        "bad": "#b3261e",
        "good": "#1b7346",
        "wait": "#c3ccda",
        "copy": "#2f6fdb",
        "mount": "#2a9d63",
        "put": "#8a63d2",
        "refused": "#d9a400",
    },
    "dark": {
        "text": "#e4e9f1",
        "back": "#12161d",
        "quiet": "#a3afc4",
        "line": "#2d3644",
        "panel": "#1a2029",
        "link": "#8ab4ff",
        "bad": "#ff8f85",
        "good": "#66d19a",
        "wait": "#3f4b5e",
        "copy": "#5b95f5",
        "mount": "#3fbf7f",
        "put": "#ab88ea",
        "refused": "#e6b93a",
    },
}
# From this width on, in CSS pixels, tables are tables; below it each row is a card, a line a cell.
NARROW = 960


def _variables(scheme: str) -> str:
    return ";".join(f"--{name}:{color}" for name, color in COLORS[scheme].items())


STYLE = f"""
:root{{color-scheme:light dark;{_variables("light")}}}
@media(prefers-color-scheme:dark){{:root{{{_variables("dark")}}}}}
*{{box-sizing:border-box}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:76em;margin:1.5em auto;padding:0 1em;
color:var(--text);background:var(--back);overflow-wrap:break-word}}
h1{{font-size:1.45em;line-height:1.25}}h2{{font-size:1.2em;margin:2em 0 .4em}}
h3{{font-size:1em;margin:1.2em 0 .2em}}
h1,h2,h3,td,li,summary,dd{{unicode-bidi:isolate}}
a{{color:var(--link)}}nav a{{margin-right:1em;white-space:nowrap}}
:focus-visible{{outline:3px solid var(--link);outline-offset:2px}}
table{{border-collapse:collapse;width:100%}}.wide{{overflow-x:auto}}
td,th{{text-align:left;padding:.25em .9em .25em 0;border-bottom:1px solid var(--line);vertical-align:top}}
td.n,th.n{{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}}
code{{font-size:.92em}}.q{{color:var(--quiet);margin:.2em 0}}.failed{{color:var(--bad);font-weight:600}}
.done,.present{{color:var(--good)}}
form,.search{{display:flex;flex-wrap:wrap;gap:.5em;align-items:center;margin:1em 0}}
.search[hidden]{{display:none}}
input,button{{font:inherit;color:inherit;background:var(--panel);border:1px solid var(--quiet);
border-radius:4px;padding:.35em .6em;max-width:100%}}input[type=search]{{flex:0 1 26em;min-width:0}}
details{{border-bottom:1px solid var(--line)}}summary{{cursor:pointer;padding:.4em 0}}
dl{{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15em 1.2em;margin:.5em 0}}
dt{{color:var(--quiet)}}dd{{margin:0}}
@media(max-width:{NARROW - 1}px){{
thead{{position:absolute;left:-200vw}}table,tbody,tr,td{{display:block}}tr{{padding:.5em 0;
border-bottom:1px solid var(--line)}}tr[hidden]{{display:none}}
td,td.n{{border:0;padding:.1em 0;text-align:left;white-space:normal}}
td[data-head]::before{{content:attr(data-head)": ";color:var(--quiet)}}td:empty{{display:none}}}}
@media(max-width:559px){{dl{{grid-template-columns:minmax(0,1fr)}}dt{{margin-top:.4em}}}}
@media print{{.search,nav,form{{display:none}}}}
""".strip().replace(";\n", ";")

# Words that are longer may be broken between lines behind what separates their parts, as a name's. A phone
# is as wide as 40 characters; shorter words stay whole, so that they can be found in a page's source.
_LONG_WORD = re.compile(r"\S{29,}")
_PART_ENDS = re.compile(r"(?<=[/@:])(?=[^/@:])")
# A digest's figures are no word: they may be broken into groups of 16.
_FIGURES = re.compile(r"[0-9a-f]{16}(?=[0-9a-f])")


def page_text(words: object, most: int = LONGEST) -> str:
    """Words of anybody as HTML: escaped, harmless (see `printable`), and broken between lines only where a
    part of a name ends."""
    text = _LONG_WORD.sub(_with_breaks, printable(str(words), most))
    return escape(text).replace("\0", "<wbr>")


def _with_breaks(word: re.Match[str]) -> str:
    return _FIGURES.sub("\\g<0>\0", _PART_ENDS.sub("\0", word.group()))


def content_policy(script: str = "", *, forms: bool = False) -> str:
    """The Content-Security-Policy of a page: nothing from anywhere, its own style, and this very `script`;
    `forms`: it has one that is sent to where it came from."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = ["default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'"]
    rules += [f"script-src 'sha256-{digest}'"] if script else []
    rules.append("form-action 'self'" if forms else "form-action 'none'")
    return "; ".join(rules)


def page_head(title: str) -> str:
    """The head of a page up to `<body>`, without a policy; `title` as text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<style>{STYLE}</style>"
    )
