"""Commands of shell scripts as words with their places, and the here-documents between them. Pure.

Quoting and continued lines are understood, as far as it takes to find the words of a simple command; what a
shell computes is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from blobflow.deployment_files.heredocs import HeredocEnds
from blobflow.deployment_files.source_text import Piece, SourceText

_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t]|\\\r?\n)+)
    |(?P<comment>\#[^\n]*)
    |(?P<end>\r?\n|;|&&?|\|\|?|[()`])
    |(?P<redirection>\d*[<>]+&?)
    |(?P<word>(?:\$?\{\{[^}\n]*\}\}|\$\([^()\n]*\)|[^\s\\"'`;&|()<>]|\\[^\n]|"(?:[^"\\]|\\.)*"|'[^']*')+)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_HEREDOC = re.compile(r"(?<!<)<<(-?)[ \t]*([\"']?)([A-Za-z_][\w.-]*)\2")
# Here-documents and words of one script; more is not a script.
_MOST = 100_000


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document: the line that opens it, and its text."""

    opening: Piece
    body: SourceText


def split_heredocs(script: SourceText) -> tuple[list[SourceText], list[Heredoc]]:
    """The commands of a script, without its here-documents; and these."""
    commands: list[SourceText] = []
    heredocs: list[Heredoc] = []
    lines = list(script.whole().lines())
    ends = HeredocEnds(lines)
    begin = index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.text.lstrip().startswith("#"):
            continue
        for found in _HEREDOC.finditer(line.text):
            end = ends.find(found.group(3), index, tabs=bool(found.group(1)))
            if end is None or len(heredocs) >= _MOST:
                continue
            start = lines[index].start if index < len(lines) else line.end
            commands.append(script.part(begin, start))
            heredocs.append(Heredoc(line, script.part(start, lines[end].start)))
            index, begin = end + 1, lines[end].end
    commands.append(script.part(begin, len(script.text)))
    return commands, heredocs


def commands_of(script: SourceText) -> Iterator[list[Piece]]:
    """The words of each simple command. Words keep their quotes."""
    words: list[Piece] = []
    whole = script.whole()
    skip = False
    for found in _TOKEN.finditer(script.text):
        kind = found.lastgroup
        if kind == "end":
            if words:
                yield words
            words = []
        elif kind == "redirection":
            skip = True
        elif kind == "word":
            if not skip and len(words) < 1000:
                words.append(whole.cut(*found.span()))
            skip = False
    if words:
        yield words


def unquoted(word: Piece) -> Piece:
    """A word without the quotes around it, as far as they are around all of it."""
    text = word.text
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        return Piece(word.source, word.start + 1, word.end - 1, text[0])
    return word
