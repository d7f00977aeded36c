"""Markdown files, and what stands in them: blocks of code, code within sentences, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tools.checkout import TOP

DOCS = TOP / "docs"
_MARKDOWN = MarkdownIt("commonmark").enable("table")
_TITLE = re.compile(r'title="([^"]+)"')


class Block(msgspec.Struct, frozen=True):
    """A block of code. `line`: of its first line of code, from 1. `title`: the file that it shows, or ""."""

    document: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as errors say it."""
        return f"{name_of(self.document)}:{self.line}"


class Span(msgspec.Struct, frozen=True):
    """Code within a sentence or a table, with the line of its paragraph or row."""

    document: Path
    line: int
    text: str


def documents() -> list[Path]:
    """README and the files beside it, then docs/."""
    return [*sorted(TOP.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def name_of(document: Path) -> str:
    """The file's name from the top of the checkout."""
    return str(document.relative_to(TOP)) if document.is_relative_to(TOP) else str(document)


def blocks_of(document: Path) -> Iterator[Block]:
    """The blocks of code, fenced or indented."""
    for token in _MARKDOWN.parse(document.read_text()):
        if token.type in ("fence", "code_block") and token.map is not None:
            title = _TITLE.search(token.info)
            fenced = token.type == "fence"
            yield Block(
                document,
                token.map[0] + 1 + fenced,
                (token.info.split() or [""])[0],
                title[1] if title else "",
                token.content,
            )


def spans_of(document: Path) -> Iterator[Span]:
    """The pieces of code within sentences and tables."""
    for line, token in _inline(document):
        if token.type == "code_inline":
            yield Span(document, line, token.content)


def links_of(document: Path) -> Iterator[tuple[int, str]]:
    """The targets of links and pictures, each with its line."""
    for line, token in _inline(document):
        target = token.attrs.get("href") if token.type == "link_open" else token.attrs.get("src")
        if target:
            yield line, str(target)


def anchors_of(document: Path) -> set[str]:
    """What a link into the document can name: its headings, in the form that forges give them."""
    tokens = _MARKDOWN.parse(document.read_text())
    found: set[str] = set()
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(slug)
    return found


def _inline(document: Path) -> Iterator[tuple[int, Token]]:
    for token in _MARKDOWN.parse(document.read_text()):
        line = token.map[0] + 1 if token.map else 0
        for child in token.children or ():
            yield line, child
