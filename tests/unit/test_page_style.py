"""How names stand on our pages: harmless, whole where they are short, and broken only where a part ends; and
colours that can be told apart by who sees little."""

from __future__ import annotations

import base64
import hashlib
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.page_style import COLORS, STYLE, content_policy, page_text
from blobflow.printable import printable

FIGURES = "0123456789abcdef"
DIGEST = f"sha256:{FIGURES * 4}"


@pytest.mark.parametrize(
    ("words", "html"),
    [
        ("a.example/x:1", "a.example/x:1"),
        ("127.0.0.1:5000/mirror/app:1.2", "127.0.0.1:<wbr>5000/<wbr>mirror/<wbr>app:<wbr>1.2"),
        ("a sentence, however long it is, of short words", "a sentence, however long it is, of short words"),
        (DIGEST, f"sha256:<wbr>{'<wbr>'.join([FIGURES] * 4)}"),
        ("see https://registry.example.com/v2/", "see https://<wbr>registry.example.com/<wbr>v2/"),
        ("unbreakable" * 3, "unbreakable" * 3),
        ("<b>/\u202e/" * 6, "&lt;b&gt;/<wbr>\\u202e/<wbr>" * 5 + "&lt;b&gt;/<wbr>\\u202e/"),
    ],
)
def test_a_word_is_broken_where_its_parts_end(words: str, html: str) -> None:
    assert page_text(words) == html


@given(st.text())
def test_nothing_but_breaks_is_added_and_nothing_acts(words: str) -> None:
    html = page_text(words)
    assert "<" not in html.replace("<wbr>", "") and html.isprintable()
    assert unescape(html.replace("<wbr>", "")) == printable(words)


def luminance(color: str) -> float:
    """As WCAG 2.2 defines it."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", COLORS)
def test_colours_have_the_contrast_that_wcag_asks_for(scheme: str) -> None:
    colors = COLORS[scheme]
    assert colors.keys() == COLORS["light"].keys()
    for back in ("back", "panel"):
        for text in ("text", "quiet", "link", "bad", "good"):
            assert contrast(colors[text], colors[back]) >= 4.5, f"{text} on {back}"
    for bar in ("copy", "mount", "put", "bad"):
        assert contrast(colors[bar], colors["panel"]) >= 3, f"{bar} of a drawing"


def test_a_policy_lets_this_script_run_and_no_other() -> None:
    digest = base64.b64encode(hashlib.sha256(b"run()").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in content_policy("run()")
    assert "script-src" not in content_policy() and "form-action 'none'" in content_policy()
    assert "url(" not in STYLE and "@import" not in STYLE
