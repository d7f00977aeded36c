"""Shell scripts that write lists of images: here-documents, variables and arrays of one image a line. Pure.

Mostly they are put together from variables that a caller sets, so mostly they can't be told.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from blobflow.deployment_files.findings import Findings, is_filled_in, is_surely_image, likely_text
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.kubernetes import ObjectReader
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.shell_words import commands_of, split_heredocs, unquoted
from blobflow.deployment_files.source_text import Piece, SourceText
from blobflow.deployment_files.yaml_tree import compose
from blobflow.errors import InvalidConfig

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)\Z", re.DOTALL)
_ARRAY = re.compile(r"(?m)^[ \t]*(?:[a-z]+[ \t]+)?[A-Za-z_]\w*\+?=\(([^()]*)\)")
# A name with a repository and a tag or digest, whose parts may be variables.
_LIKE_IMAGE = re.compile(
    r"(?:[\w.-]|(?P<variable>\$\{?\w++(?::?-[\w./-]*+)?+\}?+))"
    r"(?:[\w./-]|:(?=\d++/)|\$\{?\w++(?::?-[\w./-]*+)?+\}?+)*/[^\s:]+[:@][^\s\"'\\|;&<>()]+\Z"
)
_LIKE_OBJECT = re.compile(r"(?m)^kind:[ \t]*\w")
_IF = re.compile(r"[ \t]*if\b")
_END_IF = re.compile(r"[ \t]*fi\b")
_ELSE = re.compile(r"[ \t]*(?:else|elif)\b")
_COMPARED = re.compile(
    r"\[\[?[ \t]+[\"']?\$\{?(\w+)\}?[\"']?[ \t]*(!=|==?)[ \t]*[\"']?([\w./:-]+)[\"']?[ \t]+\]"
)


def read_shell_lists(findings: Findings, source: SourceText, objects: ObjectReader) -> None:
    """The images of lists and Kubernetes objects that a script has in it, and of its commands."""
    known = _Variables(source)
    commands, heredocs = split_heredocs(source)
    for heredoc in heredocs:
        if _LIKE_OBJECT.search(heredoc.body.text):
            _read_objects(heredoc.body, objects)
        else:
            _read_lines(findings, heredoc.body.whole(), known, "shell here-document")
    for part in commands:
        for words in commands_of(part):
            for word in words:
                found = _ASSIGNMENT.match(word.text)
                if found:
                    _read_assignment(findings, word.cut(found.start(2)), known)
        for array in _ARRAY.finditer(part.text):
            for word in part.whole().cut(*array.span(1)).words():
                _read_item(findings, unquoted(word), known, "shell array")
    read_script(findings, source.whole())


def _read_objects(body: SourceText, objects: ObjectReader) -> None:
    try:
        documents = compose(body)
    except InvalidConfig:
        return  # the shell makes YAML of it
    for document in documents:
        objects.read(document)


def _read_assignment(findings: Findings, value: Piece, known: _Variables) -> None:
    value = unquoted(value) if value.text[:1] in ("'", '"') else value
    value = value.strip("\"'") if "\n" in value.text else value
    if "\n" in value.text.strip():
        _read_lines(findings, value, known, "shell variable")
    elif is_surely_image(value.text):
        findings.name(value, "shell variable")


def _read_lines(findings: Findings, text: Piece, known: _Variables, field: str) -> None:
    """A text whose every line is one word: a list, of which what looks like an image is one."""
    lines = [line.strip() for line in text.lines()]
    lines = [line for line in lines if line.text and not line.text.startswith("#")]
    if all(len(line.text.split(maxsplit=1)) == 1 for line in lines):
        for line in lines:
            _read_item(findings, line, known, field)


def _read_item(findings: Findings, word: Piece, known: _Variables, field: str) -> None:
    text = word.text
    if "://" in text or len(text) > 500 or not _LIKE_IMAGE.match(text):
        return
    if is_filled_in(text):
        findings.leave(
            word, field, "has variables, which the caller or another file may set", known.likely(word)
        )
    else:
        findings.name(word, field)


class _Variables:
    """What the variables of a script are likely: a value that it assigns, or the only one that it compares
    them with."""

    def __init__(self, source: SourceText) -> None:
        self._values: dict[str, str | None] = {}
        self._excluded: list[tuple[int, frozenset[str]]] = []
        self._read_assignments(source)
        self._read_conditions(source)

    def _read_assignments(self, source: SourceText) -> None:
        commands, _ = split_heredocs(source)
        for part in commands:
            for words in commands_of(part):
                found = _ASSIGNMENT.match(words[0].text)
                if len(words) == 1 and found and "\n" not in found.group(2):
                    name, value = found.group(1), found.group(2).strip("\"'")
                    same = self._values.get(name, value) == value
                    self._values[name] = value if same else None

    def _read_conditions(self, source: SourceText) -> None:
        """`if [ "$A" != b ]`: likely it is b, but not up to the `fi`."""
        compared: dict[str, set[str]] = {}
        inside: list[str | None] = []
        for line in source.whole().lines():
            if _IF.match(line.text):
                found = _COMPARED.search(line.text)
                if found:
                    compared.setdefault(found.group(1), set()).add(found.group(3))
                inside.append(found.group(1) if found and found.group(2) == "!=" else None)
            elif inside and _ELSE.match(line.text):
                inside[-1] = None
            elif inside and _END_IF.match(line.text):
                inside.pop()
            excluded = frozenset(name for name in inside if name)
            if excluded != (self._excluded[-1][1] if self._excluded else frozenset()):
                self._excluded.append((line.line, excluded))
        for name, values in compared.items():
            if len(values) == 1:
                self._values.setdefault(name, values.pop())

    def likely(self, word: Piece) -> str:
        """The image that a word is likely; "" if its variables have no value here."""
        before = bisect_right(self._excluded, word.line, key=lambda each: each[0])
        excluded = self._excluded[before - 1][1] if before else ()

        def lookup(name: str) -> str | None:
            return None if name in excluded else self._values.get(name)

        made = expand(word.text, lookup).text
        return likely_text(made) if made else ""
