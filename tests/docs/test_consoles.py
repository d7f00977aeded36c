"""What the documentation shows of a terminal is what is printed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.documentation.consoles import agrees, consoles_of, run_page
from tools.documentation.documents import documents, name_of

PAGES = [document for document in documents() if consoles_of(document)]


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_a_page_s_commands_print_what_stands_under_them(document: Path) -> None:
    """Where something else is printed now: `tools/docs --refresh`, and look at what it changes."""
    for block, now in run_page(document):
        assert agrees(block.text, now), f"{block.place}: now it is\n{now}"


@pytest.mark.parametrize(
    ("written", "now", "same"),
    [
        ("done in 0.31 s", "done in 12 s", True),
        ("3 images: 3 done", "3 images: 2 done", False),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nb\nc", False),
        ("1.2 MB/s", "3 kB/s", True),
    ],
)
def test_times_may_differ_and_nothing_else(written: str, now: str, same: bool) -> None:
    assert agrees(written, now) == same
